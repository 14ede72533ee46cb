"""The progress of a sweep: the best trial, the counts, and log lines about failed trials."""

from __future__ import annotations

import logging

from mpisweep.blocks import EndedBlock
from mpisweep.master.best import BestSoFar
from mpisweep.progress import Progress
from mpisweep.records import ENDED_WELL, EndReason, FailureCause, TrialState, Value
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["Standing"]

#: Failures that are logged one by one; later ones only appear in the count.
_FAILURES_LOGGED = 20

log = logging.getLogger(__name__)


class Standing:
    """Progress of a running sweep.

    Args:
        spec: the sweep file.
        trials: all trials.
        scheduler: has the state of each trial.
        best: the best trials of earlier runs; followed from now on.
        measures: whether trials are known to report metrics.
        now: the monotonic clock.
    """

    def __init__(
        self,
        spec: Spec,
        trials: Trials,
        scheduler: Scheduler,
        best: BestSoFar,
        measures: bool,
        now: float,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._scheduler = scheduler
        self._best = best
        self._measures = measures
        self._started = now
        self._ended_here = 0
        self._failures_logged = 0
        #: Whether a message of a complete trial was logged.
        self._notice_logged = False

    def note(self, block: EndedBlock) -> None:
        """Note ended trials."""
        self._ended_here += len(block.numbers)
        self._measures = self._measures or bool(block.metrics)
        columns = [block.metrics.get(objective.name) for objective in self._spec.objectives]
        if None not in columns:
            given = [column for column in columns if column is not None]
            self._best.note(block.numbers, given, block.suggested)
        if block.causes:
            self._log_failures(block)

    def judge(self, reason: EndReason) -> EndReason:
        """Refine the scheduler's end by the metrics, which the scheduler does not see."""
        if reason is not EndReason.COMPLETE or not self._trials.count:
            return reason
        return EndReason.of_all(completed=True, measured=self._measures, finite=self._best.number is not None)

    def progress(self, now: float) -> Progress:
        """Compute the current progress."""
        ended = self._ended_count()
        # Without the trials of other members.
        total = self._trials.count + self._scheduler.to_come - self._scheduler.elsewhere
        elapsed_s = now - self._started
        # Not by the counts: infeasible and skipped trials never ran, and retried ones wait again.
        rate = self._ended_here / elapsed_s if elapsed_s > 0 else 0.0
        number = self._best.number
        return Progress(
            total=total,
            ended=ended,
            pruned=self._scheduler.count(TrialState.PRUNED),
            failed=self._scheduler.count(TrialState.FAILED),
            infeasible=self._scheduler.count(TrialState.INFEASIBLE),
            running=self._scheduler.running,
            elapsed_s=elapsed_s,
            rate=rate,
            left_s=(total - ended) / rate if rate > 0 else None,
            objective=self._spec.objective,
            best=self._best.value,
            best_runs=self._best.runs,
            best_number=number,
            best_parameters={} if number is None else self._searched(number),
            others=self._best.others,
            front=self._best.front,
            skipped=self._scheduler.count(TrialState.SKIPPED),
        )

    def _searched(self, number: int) -> dict[str, Value]:
        """The searched parameters of the best trial."""
        if self._spec.is_defined_by_run:
            return dict(self._best.asked_for)
        values = self._trials.configuration(number)
        return {name: values[name] for name in self._spec.space.names if name in values}

    def _ended_count(self) -> int:
        return sum(self._scheduler.count(state) for state in TrialState if state.is_end)

    def _log_failures(self, block: EndedBlock) -> None:
        for number, cause, message in zip(block.numbers, block.causes, block.messages, strict=True):
            if cause == FailureCause.NONE:
                self._log_notice(number, message)
            elif self._failures_logged < _FAILURES_LOGGED:
                self._log_failure(number, FailureCause(cause), message)

    def _log_notice(self, number: int, message: str) -> None:
        if message and not self._notice_logged and not message.startswith(ENDED_WELL):
            self._notice_logged = True
            log.warning(
                "trial %d: %s; logged once, the messages of all trials are in the results file",
                number,
                message,
            )

    def _log_failure(self, number: int, cause: FailureCause, message: str) -> None:
        self._failures_logged += 1
        log.warning("trial %d failed (%s): %s", number, cause.label, message.partition("\n")[0])
        if self._failures_logged == _FAILURES_LOGGED:
            log.warning("further failures are only in the results file")
