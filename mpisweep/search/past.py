"""What a learning search is told: ends of trials, and what happened before.

Imports Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from mpisweep.search.learning import Outcome, finite_values
from mpisweep.spec.space import Configuration

__all__ = ["End", "Past", "end_trial"]


@dataclass(frozen=True, slots=True)
class End:
    """The end of a trial.

    Attributes:
        outcome: its objectives; a pruned trial has them all, as None if missing.
        pruned_at: the step of its last report if it was pruned, else -1.
        suggested: ``params`` and ``distributions`` that an objective of Optuna has asked for, as
            :mod:`mpisweep.spec.suggested` has them; None if unknown, and for other workloads.
    """

    number: int
    outcome: Outcome
    pruned_at: int = -1
    suggested: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def state(self) -> TrialState:
        """The state that Optuna gives such a trial."""
        if self.pruned_at < 0:
            return TrialState.FAIL if self.values is None else TrialState.COMPLETE
        # Optuna compares pruned trials by one objective; with several, only a divergence ends one early.
        return TrialState.PRUNED if self._has_one else TrialState.FAIL

    @property
    def values(self) -> list[float] | None:
        """The objectives; None unless Optuna is told all of them, as finite numbers."""
        return finite_values(self.outcome) if self.pruned_at < 0 or self._has_one else None

    @property
    def _has_one(self) -> bool:
        return self.outcome is not None and len(self.outcome) == 1

    @property
    def reports(self) -> dict[int, float]:
        """The last report of a pruned trial, which is all that samplers use."""
        return {self.pruned_at: self.last} if self.state is TrialState.PRUNED else {}

    @property
    def last(self) -> float:
        """The last report of a pruned trial; NaN if it was not finite."""
        return math.nan if self.values is None else self.values[0]


def end_trial(study: Study, trial: int, end: End) -> None:
    """Tell a study how one of its trials has ended."""
    for step, value in end.reports.items():
        # Optuna takes the value of a pruned trial from its last report.
        known = study.get_trials(deepcopy=False)[trial]._trial_id
        study._storage.set_trial_intermediate_value(known, step, value)
    study.tell(trial, end.values if end.state is TrialState.COMPLETE else None, state=end.state)


@dataclass(frozen=True, slots=True)
class Past:
    """What happened before this process.

    Attributes:
        configurations: of all trials, in the order of their numbers.
        known: proposed trial -> the number of ends that were known when it was proposed.
        ends: in the order in which they were recorded.
        imported: (configuration, objective) of trials known from elsewhere.
    """

    configurations: Sequence[Configuration]
    known: Mapping[int, int]
    ends: Sequence[End]
    imported: Sequence[tuple[Configuration, float]] = ()
