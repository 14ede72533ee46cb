"""What a sweep shows of itself: its state and its best trials, as text and as HTML."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpisweep.records import Direction, EndReason, Objective, TrialState
from mpisweep.results.budgets import Budget
from mpisweep.results.configurations import ConfigurationTable
from mpisweep.results.state import SweepState
from mpisweep.results.tradeoff import FrontTable
from mpisweep.results.trial_table import Table, TrialTable
from mpisweep.spec import Spec

__all__ = ["SweepSummary"]

#: Rows of the table.
_SHOWN = 5


class _Titled(NamedTuple):
    """A table below its title."""

    title: str
    table: Table


class SweepSummary(ABC):
    """The printed form of a loaded sweep, and why its last run ended."""

    path: Path
    spec: Spec
    trials: TrialTable
    budget: Budget | None
    _state: SweepState

    @abstractmethod
    def best(self, k: int = 1, objective: str | None = None) -> TrialTable:
        """The best complete trials."""

    @abstractmethod
    def pareto(self) -> TrialTable | FrontTable:
        """The complete trials, or configurations, that no other one dominates."""

    @property
    @abstractmethod
    def configurations(self) -> ConfigurationTable:
        """One row per configuration."""

    @property
    def ended(self) -> EndReason | None:
        """Why the last run ended; None while it runs, or if it died without closing.

        It is a string.  Its ``is_final`` says whether every trial has ended, and its ``exit_code`` is that of
        ``mpisweep run``: 3 if the sweep was stopped, and running it again resumes it.
        """
        return next((reason for reason in EndReason if reason == self._state.state), None)

    def __repr__(self) -> str:
        shown = self._shown()
        return "\n".join([self._heading(), *([f"{shown.title}:", repr(shown.table)] if shown else [])])

    def _repr_html_(self) -> str:
        shown = self._shown()
        below = f"<p>{html.escape(shown.title)}</p>{shown.table._repr_html_()}" if shown else ""
        return f"<div><p><b>{html.escape(self._heading())}</b></p>{below}</div>"

    def _heading(self) -> str:
        states = self.trials["state"]
        counts = {state: int((states == state.label).sum()) for state in TrialState if state.is_end}
        others = ", ".join(
            f"{count:,} {state.label}"
            for state, count in counts.items()
            if count and state is not TrialState.COMPLETE
        )
        at = f", at {self.budget}" if self.budget else ""
        return (
            f"sweep {self.spec.name!r} in {self.path}{at}: {self._state.state}; {sum(counts.values()):,} of "
            f"{len(states):,} trials have ended{f' ({others})' if others else ''}"
        )

    def _shown(self) -> _Titled | None:
        """The best trials, or configurations, or the front; None without a complete trial."""
        objectives = self.spec.objectives
        if len(objectives) > 1:
            table: Table = self.pareto()
            title = f"Pareto front ({', '.join(map(_better, objectives))})"
        elif self.spec.repeats.first > 1:
            # The best of many single trials is a lucky one.
            table = _by_mean(self.configurations, objectives[0])
            title = f"best configurations by {_better(objectives[0], 'mean ')}"
        else:
            table = self.best(_SHOWN)
            title = f"best trials by {_better(objectives[0])}"
        return _Titled(title, table) if len(table) else None


def _by_mean(table: ConfigurationTable, objective: Objective) -> ConfigurationTable:
    """The first configurations by mean objective."""
    measured = table.array[np.isfinite(table["mean"])]
    order = np.argsort(objective.sign * measured["mean"], kind="stable")
    return ConfigurationTable(measured[order[:_SHOWN]])


def _better(objective: Objective, what: str = "") -> str:
    smallest = objective.direction is Direction.MINIMIZE
    return f"{'smallest' if smallest else 'largest'} {what}{objective.name}"
