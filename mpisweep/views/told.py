"""What hooks are told, for JSON: a trial that has ended, and the sweep around a run."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mpisweep.records import FailureCause, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.best import Best, best_of
from mpisweep.results.load import Sweep, total_trials
from mpisweep.results.reports import Reading
from mpisweep.results.shares.merging import read_sweep
from mpisweep.results.state import SweepState
from mpisweep.results.suggested import restore_params, suggested_of
from mpisweep.spec import Spec
from mpisweep.views.wording import finite_or_none

__all__ = ["Told", "best_facts", "ended_facts", "ended_in", "read_tables", "sweep_facts", "trial_facts"]

#: Ends of trials that have run.
_RAN = tuple(int(state) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED))


def read_tables(path: Path) -> SweepState | None:
    """Read a sweep without its curves; None if there is none yet, or it cannot be read now."""
    try:
        return read_sweep(path, reading=Reading.TABLES)
    except (ResultsError, OSError):
        return None


class Told:
    """Which trials of a launch were told, so that each end is told once.

    A trial that a user retries ends again, with another attempt.
    """

    def __init__(self) -> None:
        #: The last attempt that was told of each trial.
        self._attempts = array("i")

    def take(self, state: SweepState, launch: str, at_most: int) -> tuple[list[int], int]:
        """Take the next trials that ended in a launch, in the order of ends; count the others."""
        runs = {row for row, name in enumerate(state.allocations["launch"]) if name == launch}
        workers = {row for row, run in enumerate(state.workers["allocation"]) if run in runs}
        attempts = self._attempts
        attempts.extend([0] * (state.count - len(attempts)))
        trials = state.trials
        rows = zip(trials["state"], trials["worker"], trials["attempt"], attempts, strict=False)
        found = [
            number
            for number, (end, worker, attempt, told) in enumerate(rows)
            if attempt > told and end in _RAN and worker in workers
        ]
        found.sort(key=trials["end_order"].__getitem__)
        for number in found[:at_most]:
            attempts[number] = trials["attempt"][number]
        return found[:at_most], max(0, len(found) - at_most)


def ended_facts(state: SweepState, numbers: Collection[int], spec: Spec, path: Path) -> list[dict[str, Any]]:
    """What is told of several trials, with the values that objectives of Optuna suggested."""
    restore_params(state, suggested_of(state.suggested, frozenset(numbers)))
    return [trial_facts(state, number, spec, path) for number in numbers]


def trial_facts(state: SweepState, number: int, spec: Spec, path: Path) -> dict[str, Any]:
    """What is told of a trial that has ended.

    Args:
        state: of the sweep.
        number: of the trial.
        spec: the sweep file.
        path: of the results file.
    """
    trials = {name: column[number] for name, column in state.trials.items()}
    started_at, wall_time_s = trials["started_at"], trials["wall_time"]
    return {
        "hook": "after_trial",
        "sweep": spec.name,
        "path": str(path),
        "number": number,
        "configuration": trials["configuration"],
        "repeat": trials["repeat"],
        "attempt": trials["attempt"],
        "state": TrialState(trials["state"]).label,
        "cause": FailureCause(trials["cause"]).label,
        "message": trials["message"],
        "parameters": _known((name, column[number]) for name, column in state.parameters.items()),
        "objective": spec.objective,
        "metrics": {name: finite_or_none(column[number]) for name, column in state.metrics.items()},
        "started_at": finite_or_none(started_at),
        "ended_at": finite_or_none(started_at + wall_time_s),
        "wall_time_s": finite_or_none(wall_time_s),
        "device_energy_j": finite_or_none(trials["device_energy"]),
        "host": state.workers["host"][trials["worker"]],
        "device": state.workers["device"][trials["worker"]],
    }


def _known(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The parameters that a trial has; the values of others are None."""
    return {name: finite_or_none(value) for name, value in pairs if value is not None}


def ended_in(sweep: Sweep, launch: str) -> int:
    """Number of trials that ran and ended in a launch."""
    runs = np.flatnonzero(sweep.allocations["launch"] == launch)
    workers = np.flatnonzero(np.isin(sweep.workers["allocation"], runs))
    ran = np.isin(sweep.trials["state"], [TrialState(state).label for state in _RAN])
    return int((ran & np.isin(sweep.trials["worker"], workers)).sum())


def sweep_facts(sweep: Sweep | None, spec: Spec, path: Path) -> dict[str, Any]:
    """What is told of a sweep, apart from how its run ended; without results, of a new one."""
    counts = {state.label: 0 if sweep is None else sweep.count(state) for state in TrialState}
    counts["waiting"] += counts.pop("running")
    return {
        "sweep": spec.name,
        "path": str(path),
        "source": spec.source,
        "trials": None if sweep is None else total_trials(sweep),
        **counts,
        "objective": spec.objective,
        "direction": spec.direction.value,
        "best": None if sweep is None else best_facts(best_of(sweep)),
    }


def best_facts(best: Best | None) -> dict[str, Any] | None:
    """The best configuration; None if there is none."""
    if best is None:
        return None
    parameters = {name: finite_or_none(value) for name, value in best.parameters.items()}
    return best._asdict() | {"value": finite_or_none(best.value), "parameters": parameters}
