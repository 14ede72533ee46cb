"""Judge running trials by their curves, with a pruner of Optuna.

A study of Optuna holds the reports and states of all trials; their numbers are those of the sweep.  Each
report is added and then judged, as ``trial.report()`` and ``trial.should_prune()`` do in Optuna, so that the
decisions are those of Optuna's own study with the same pruner, for the same reports in the same order.

What happened before is added in the order of time.  The reports of running trials are judged again, each by
what had ended by then: some may not have been judged before.  Those of ended trials are judged again only if
the pruner keeps something from each decision.  Reports of earlier attempts are not known any more, so that
decisions that followed from them may come out otherwise.

As in Optuna, a report for a step that has one does not count, nor one with a negative step, and a complete
trial without a number as its objective does not take part.  Imports Optuna.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mpisweep.records import Direction
from mpisweep.records import TrialState as State
from mpisweep.search.pruners import make_pruner, rests_on_reports_alone
from mpisweep.spec import PrunerChoice

__all__ = ["Judge", "KnownTrial"]

#: The end of a trial, in place of the position of a report.
_END = -1

#: `numpy` warns of a median of nothing but NaN, which pruners expect.
warnings.filterwarnings("ignore", category=RuntimeWarning, module="optuna|numpy")


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """A trial with reports, or with an end.

    Attributes:
        state: a TrialState of :mod:`mpisweep.records`.
        attempt: the attempt that made the reports.
        objective: its final value; NaN if it has none.
        steps: of its reports, in order.
        values: of its reports, in order.
        times: of its reports, in seconds since 1970.
        ended_at: the time of its end in seconds since 1970; infinite if it has none.
    """

    number: int
    state: int
    attempt: int
    objective: float
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[float]
    ended_at: float


class _Storage(InMemoryStorage):
    """A storage that can forget the reports of a trial, because it starts again."""

    def renew(self, trial: int) -> None:
        """Make a trial one that runs and has reported nothing."""
        fresh = self._create_running_trial()
        fresh.number, fresh._trial_id = self.get_trial_number_from_id(trial), trial
        self._set_trial(trial, fresh)


class Judge:
    """A study of all trials, and the pruner that judges them.

    Args:
        choice: the pruner, without short names.
        direction: whether a smaller or a larger objective is better.
        seed: of the sweep; Hyperband derives the bracket of each trial from it.
    """

    def __init__(self, choice: PrunerChoice, direction: Direction, seed: int) -> None:
        self._pruner = make_pruner(choice)
        self._is_memoryless = rests_on_reports_alone(choice)
        self._storage = _Storage()
        self._study = optuna.create_study(
            study_name=str(seed), direction=direction.value, storage=self._storage, pruner=self._pruner
        )
        #: Trial -> its id in the storage.
        self._ids: list[int] = []
        #: Trial -> the attempt whose reports the study has.
        self._attempts: dict[int, int] = {}

    # ------------------------------------------------------------------------------------- the past

    def add(self, past: Iterable[KnownTrial]) -> list[int]:
        """Add what happened before; call it once, first.

        Args:
            past: the trials, by ascending numbers.

        Returns:
            The running trials that are hopeless.
        """
        hopeless: dict[int, None] = {}
        happened: list[tuple[float, KnownTrial, int]] = []
        for trial in past:
            is_over = trial.ended_at < math.inf
            if is_over and self._is_memoryless:
                self._place_reports(trial)
            else:
                happened += [(time, trial, place) for place, time in enumerate(trial.times)]
            if is_over:
                happened.append((trial.ended_at, trial, _END))
        for _, trial, place in sorted(happened, key=lambda one: one[0]):
            number = trial.number
            if place == _END:
                self.end(number, trial.state, trial.objective)
                hopeless.pop(number, None)
                continue
            counts = self.report(number, trial.attempt, trial.steps[place], trial.values[place])
            if counts and self.is_hopeless(number):
                hopeless[number] = None
        return list(hopeless)

    def _place_reports(self, trial: KnownTrial) -> None:
        """Add all reports of a trial, which has no end yet."""
        reports: dict[int, float] = {}
        for step, value in zip(trial.steps, trial.values, strict=True):
            if step >= 0:
                reports.setdefault(step, value)
        self._attempts[trial.number] = trial.attempt
        self._place(trial.number, create_trial(state=TrialState.RUNNING, intermediate_values=reports))

    # ------------------------------------------------------------------------------------- as it comes

    def report(self, number: int, attempt: int, step: int, value: float) -> bool:
        """Add a report; False if it does not count."""
        trial = self._running(number, attempt)
        if trial is None or step < 0 or step in trial.intermediate_values:
            return False
        self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        return True

    def is_hopeless(self, number: int) -> bool:
        """Whether a running trial should end, by its last report."""
        trial = self._storage.get_trial(self._ids[number])
        return trial.state is TrialState.RUNNING and self._pruner.prune(self._study, trial)

    def end(self, number: int, state: int, objective: float) -> None:
        """Note the end of a trial.

        Args:
            number: of the trial.
            state: a TrialState of :mod:`mpisweep.records`.
            objective: its final value; NaN if it has none.
        """
        trial = self._trial(number)
        if trial.state.is_finished():
            return
        ended, value = _optuna_end(state, objective, trial.intermediate_values)
        self._storage.set_trial_state_values(trial._trial_id, ended, None if value is None else [value])

    # ------------------------------------------------------------------------------------- trials

    def _running(self, number: int, attempt: int) -> FrozenTrial | None:
        """The trial if this attempt is its last one and has no end."""
        known = self._attempts.get(number, 0)
        trial = self._trial(number)
        if attempt < known or trial.state.is_finished():
            return None
        if attempt > known:
            self._attempts[number] = attempt
            self._storage.renew(trial._trial_id)
            trial = self._storage.get_trial(trial._trial_id)
        return trial

    def _trial(self, number: int) -> FrozenTrial:
        if number >= len(self._ids):
            self._place(number, create_trial(state=TrialState.WAITING))
        return self._storage.get_trial(self._ids[number])

    def _place(self, number: int, trial: FrozenTrial) -> None:
        """Put a trial into the study, under its number."""
        study = self._study._study_id
        while len(self._ids) < number:
            self._ids.append(self._storage.create_new_trial(study, create_trial(state=TrialState.WAITING)))
        if number == len(self._ids):
            self._ids.append(self._storage.create_new_trial(study, trial))


def _optuna_end(state: int, objective: float, reports: dict[int, float]) -> tuple[TrialState, float | None]:
    """The state and value that Optuna gives such a trial."""
    match state:
        case State.COMPLETE if objective == objective:
            return TrialState.COMPLETE, objective
        case State.PRUNED:
            last = reports[max(reports)] if reports else math.nan
            return TrialState.PRUNED, None if math.isnan(last) else last
    return TrialState.FAIL, None
