"""The client of the process of a pruner (:mod:`mpisweep.master.judge`).

The master sends it the reports of the objective and the ends of trials as they arrive, and never waits.  One
request is open at a time; what arrives meanwhile goes with the next one, and is dropped if the process dies:
it is in the journal.  Another process reads it there, once all of it is written.

If the pruner fails, the trials run to their ends.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpisweep.blocks import EndedBlock, ReportBlock, decode
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.records import TrialState
from mpisweep.results.journal.writer import Journal
from mpisweep.scheduling.events import PruneAdvised
from mpisweep.spec import BuiltinWorkload, FunctionWorkload, Spec

__all__ = ["PruneClient"]

_NAME = "the process of the pruner"
#: The process hangs if it does not answer for this long, in seconds; reading many curves takes a while.
_HANGS_S = 300.0
#: A request takes blocks of up to some 2,500 reports until it has this many reports and ends: with 30 bytes
#: each it is smaller than what a socket takes at once.
_MOST = 1000
#: Number of processes that may die with the same request.
_MOST_DEATHS = 3

log = logging.getLogger(__name__)


class PruneClient:
    """Has running trials judged by their reports.

    Args:
        server: forks the process.
        spec: a sweep with a pruner.
        path: the results file.
        journal: of this master.
        is_new: whether no trial has begun yet, so that there is nothing to read.
    """

    def __init__(self, server: ForkServer, spec: Spec, path: Path, journal: Journal, *, is_new: bool) -> None:
        self._spec = spec
        self._journal = journal
        #: What was not sent yet, in the order of arrival.
        self._queue: deque[list[Any]] = deque()
        #: Whether the process must read the files first, and up to which record they must be written before.
        self._must_load = not is_new
        self._load_after = -1
        #: Token of the last record that it was told of.
        self._last_token = -1
        self._deaths = 0
        #: Whether the pruner has failed, so that the trials run to their ends.
        self.has_failed = False
        #: Running trials that have reported; None once the first trial has ended.
        self._reporting: set[int] | None = set()
        arguments = {
            "spec": spec.text, "source": spec.source, "folder": str(spec.folder), "path": str(path),
        }  # fmt: skip
        self._process = SideProcess(server, _NAME, "mpisweep.master.judge:serve_pruner", arguments)
        self._send()

    def fileno(self) -> int:
        """For select(); readable when :meth:`hear` has something to read."""
        return self._process.fileno()

    def close(self) -> None:
        """Close the connection to the process, which then exits."""
        self._process.close()

    # ------------------------------------------------------------------------------------- sending

    def report(self, body: bytes, token: int) -> None:
        """Pass a ReportBlock on.

        Args:
            body: the block as it came.
            token: of its record in the journal.
        """
        block = decode(body)
        assert isinstance(block, ReportBlock)
        curve = block.curves.get(self._spec.objective)
        if curve is None or self.has_failed:
            return
        self._last_token = token
        if self._reporting is not None:
            self._reporting.add(block.number)
        reports = [curve.step.tolist(), curve.value.tolist()]
        self._queue.append([block.number, block.attempt, block.sequence, block.worker, *reports])
        self._send()

    def tell(self, block: EndedBlock, token: int) -> None:
        """Note trials that have ended."""
        if self.has_failed:
            return
        self._last_token = token
        values = block.metrics.get(self._spec.objective) or [None] * len(block.numbers)
        self._queue += [list(one) for one in zip(block.numbers, block.states, values, strict=True)]
        self._warn_without_reports(block)
        self._send()

    def _warn_without_reports(self, block: EndedBlock) -> None:
        """Log a warning if the first trial that has ended reported nothing to decide by."""
        if self._reporting is None:
            return
        for number, state in zip(block.numbers, block.states, strict=True):
            if state != TrialState.COMPLETE:
                continue
            if number not in self._reporting:
                objective = self._spec.objective
                log.warning(
                    "prune has nothing to decide by: trial %d reported no %s during training; %s",
                    number, objective, _how_to_report(self._spec),
                )  # fmt: skip
            self._reporting = None
            return

    def _send(self) -> None:
        """Send the next request, unless one is open or records are still to be written."""
        if self._process.asked is not None or self.has_failed:
            return
        if self._must_load:
            if self._journal.written >= self._load_after:
                self._process.ask({"ask": "load"})
            return
        events: list[list[Any]] = []
        count = 0
        while self._queue and count < _MOST:
            events.append(self._queue.popleft())
            # A block of reports, or an end.
            count += len(events[-1][4]) if len(events[-1]) > 3 else 1
        if events:
            self._process.ask({"ask": "judge", "events": events})

    # ------------------------------------------------------------------------------------- receiving

    def hear(self) -> Iterator[PruneAdvised]:
        """Read the answers of the process; call it when :meth:`fileno` is readable."""
        answers = self._process.receive()
        if answers is None:
            self._replace("was killed")
            return
        for answer in answers:
            if "error" in answer:
                self._fail(answer["error"])
                return
            asked = self._process.asked
            self._must_load = self._must_load and not (asked is not None and asked["ask"] == "load")
            self._process.done()
            self._deaths = 0
            for number, attempt, rank in answer["hopeless"]:
                yield PruneAdvised(number, attempt, rank)
            self._send()

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs, and have another one read what is written by now."""
        if self._process.hangs(now, _HANGS_S):
            self._replace("does not answer")
        else:
            self._send()

    def _replace(self, why: str) -> None:
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            self._fail(f"its process died {self._deaths} times in a row")
            return
        log.warning("%s %s; another one continues", _NAME, why)
        self._queue.clear()
        self._must_load, self._load_after = True, self._last_token
        self._process.replace()
        self._process.done()
        self._send()

    def _fail(self, why: str) -> None:
        log.error("the pruner failed, and no further trial is pruned: %s", why)
        self.has_failed = True
        self._queue.clear()
        self._process.done()
        self._process.close()


def _how_to_report(spec: Spec) -> str:
    """What to do so that a workload reports its objective."""
    if isinstance(spec.workload, BuiltinWorkload):
        return "choose an objective that it reports in every step, such as the loss"
    if isinstance(spec.workload, FunctionWorkload):
        return "report it with trial.report(...)"
    return "print it as it trains, or call mpisweep.report(...)"
