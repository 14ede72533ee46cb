"""Reading a sweep: file and journal as one, during a run and after a crash.

::

    sweep = mpisweep.load("resnet50.h5")
    sweep.best(5)                        # the five best complete trials
    sweep.trials["loss"]                 # a column, shape (trials,)
    sweep.curve(17, "loss").value        # a curve, shape (reports,)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.blocks import Curve
from mpisweep.records import Direction, Objective, TrialState, Value
from mpisweep.results import ResultsError, behind_link
from mpisweep.results.batch_sizes import SizeReadings
from mpisweep.results.budgets import NO_PROGRESS, Budget, Progress, progress_of, state_at
from mpisweep.results.configurations import ConfigurationTable, configuration_table
from mpisweep.results.device_time import device_seconds
from mpisweep.results.file.writing import native_column
from mpisweep.results.journal.reader import Damage
from mpisweep.results.reports import Reading
from mpisweep.results.shares.ending import to_propose
from mpisweep.results.shares.merging import read_sweep
from mpisweep.results.state import SweepState
from mpisweep.results.stopping import stopping_of
from mpisweep.results.suggested import restore_params
from mpisweep.results.summary import SweepSummary
from mpisweep.results.tables import SweepTables
from mpisweep.results.tradeoff import FrontTable, HypervolumeHistory, Tradeoff, front_table
from mpisweep.results.trial_table import Rows, TrialTable, fixed_columns, structured
from mpisweep.spec import Spec, SpecError, closest, nearest, parse_spec
from mpisweep.spec.suggested import space_of

__all__ = [
    "CurveArrays", "Sweep", "imported_counts", "load", "load_tables", "stop_progress", "total_trials",
    "trials_to_come", "used_seconds",
]  # fmt: skip


class CurveArrays(NamedTuple):
    """One metric over one trial: arrays of shape (reports,); `time` is seconds since its start."""

    step: NDArray[np.int64]
    value: NDArray[np.float64]
    time: NDArray[np.float64]


class Sweep(SweepTables, SizeReadings, SweepSummary):
    """A sweep at the moment of loading.

    Attributes:
        path: of the HDF5 file.
        spec: the sweep file of the last run.
        trials: all trials, in number order.
        damages: parts of the journal that could not be read.
        budget: of :meth:`at`; None for the sweep as it ended.
    """

    def __init__(
        self, path: Path, state: SweepState, damages: list[Damage], budget: Budget | None = None
    ) -> None:
        self.path = path
        self.budget = budget
        self.damages = damages
        self._state = state
        if not state.spec:
            raise ResultsError(
                f"{path}: the sweep file stored in it is lost; "
                f"run `mpisweep run` with the sweep file and -o {path} to restore it"
            )
        try:
            self.spec: Spec = parse_spec(
                state.spec, source=state.source, folder=path.parent, is_recorded=True
            )
        except SpecError as error:
            raise ResultsError(f"{path}: the sweep file stored in it is damaged: {error}") from error
        if self.spec.is_defined_by_run:
            asked = [one["distributions"] for one in self._suggested.values()]
            self.spec = replace(self.spec, space=space_of(asked))
            restore_params(state, self._suggested)
        # Parameters whose columns were lost to damage are still searched.
        lost: dict[str, list[Value | None]] = {name: [None] * state.count for name in self.spec.space.names}
        state.parameters = lost | state.parameters
        #: Name of a parameter or metric -> its column: the same name, unless that was taken.
        self._parameter_columns: dict[str, str] = {}
        self._metric_columns: dict[str, str] = {}
        self.trials = TrialTable(self._trial_rows())

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.spec.name

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The metrics by which trials are ranked, each with its direction."""
        return self.spec.objectives

    @property
    def objective(self) -> str:
        """The metric that decides which trial is best; the first one of several."""
        return self.spec.objective

    @property
    def direction(self) -> Direction:
        """Whether a smaller or a larger :attr:`objective` is better."""
        return self.spec.direction

    @property
    def state(self) -> str:
        """``running``, or why the last run ended; after a crash it remains ``running``."""
        return self._state.state

    def best(self, k: int = 1, objective: str | None = None) -> TrialTable:
        """The `k` best complete trials by an objective, best first; those that diverged come last.

        Args:
            k: number of trials.
            objective: one of :attr:`objectives`; the first one unless given.

        Raises:
            KeyError: when the sweep has no such objective.
        """
        complete = self.trials.array[self.trials["state"] == TrialState.COMPLETE.label]
        name = objective or self.objective
        sign = {one.name: one.sign for one in self.objectives}[name]
        if name not in self.metrics:
            return TrialTable(complete[:0])
        keys = np.where(complete["diverged"], np.inf, sign * complete[self.metric_column(name)])
        return TrialTable(complete[np.argsort(keys, kind="stable")[:k]])

    def pareto(self) -> TrialTable | FrontTable:
        """The complete trials that no other one dominates, the best by the first objective first.

        A trial dominates another one if it is better in one objective and worse in none.  Once any
        configuration has two complete runs, these are configurations, with the means over their runs.
        """
        found = self.tradeoff()
        if not found.is_repeated:
            return TrialTable(self.trials.array[found.rows[found.on_front]])
        return front_table(self.trials, found, {name: self.column(name) for name in self.spec.space.names})

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> HypervolumeHistory:
        """The hypervolume after the end of each complete trial, exactly.

        Args:
            reference: objective -> its value in the reference point; for others the worst value of any
                complete trial.  A trial that is not better than it in every objective adds nothing.

        Raises:
            ResultsError: when the sweep has one objective, or the reference is none of its objectives.
        """
        try:
            return self.tradeoff().history(self.spans, reference or {})
        except ResultsError as error:
            raise ResultsError(f"{self.path}: {error}") from None

    def tradeoff(self) -> Tradeoff:
        """The objectives of the complete trials, or of their configurations with repeats."""
        names = [one.name for one in self.objectives]
        columns = [self.metric_column(name) if name in self.metrics else None for name in names]
        return Tradeoff(self.trials, self.objectives, columns)

    def curve(self, number: int, metric: str) -> CurveArrays:
        """The reports of one metric of one trial; empty arrays if there are none.

        Raises:
            KeyError: when no trial has such a curve.
            IndexError: when there is no such trial.
        """
        _check_curve(self, number, metric)
        return _arrays(self._state.curve(number, metric))

    def progress(self, number: int, metric: str) -> Progress:
        """Steps, samples and seconds that a trial had used at each report of a metric."""
        _check_curve(self, number, metric)
        return self.progress_by_metric(number).get(metric, NO_PROGRESS)

    def progress_by_metric(self, number: int) -> dict[str, Progress]:
        """:meth:`progress` of all metrics that a trial has reported, with its curves read once."""
        return progress_of(self._state, self.spec, number)

    def at(
        self, *, step: float | None = None, samples: float | None = None, seconds: float | None = None
    ) -> Sweep:
        """The sweep when each trial had used this budget; see :mod:`mpisweep.results.budgets`.

        Its metrics are those with curves, smoothed, and ``at_steps``, ``at_samples`` and ``at_seconds``; they
        are NaN for trials that used less.

        Raises:
            ValueError: unless exactly one budget above 0 is given.
            ResultsError: when no trial says how much it has used.
        """
        budget = Budget.of({"step": step, "samples": samples, "seconds": seconds})
        try:
            return Sweep(self.path, state_at(self._state, self.spec, budget), self.damages, budget)
        except ResultsError as error:
            raise ResultsError(f"{self.path}: {error}") from None

    @property
    def unreached(self) -> int:
        """The number of complete trials that used less than :attr:`budget`."""
        complete = self.trials["state"] == TrialState.COMPLETE.label
        return int(np.isnan(self.trials["at_steps"][complete]).sum()) if self.budget else 0

    @cached_property
    def configurations(self) -> ConfigurationTable:
        """One row per configuration, with the mean objective of its repeats and how sure it is."""
        return configuration_table(
            self.trials,
            {name: self.column(name) for name in self.spec.space.names},
            self.metric_column(self.objective) if self.objective in self.metrics else None,
            minimize=self.direction == Direction.MINIMIZE,
        )

    def configuration(self, number: int) -> dict[str, Value]:
        """The searched and fixed parameters of one trial.

        Raises:
            IndexError: when there is no such trial.
        """
        _check_number(number, len(self.trials))
        known = ((name, column[number]) for name, column in self._state.parameters.items())
        # Values that the trial does not have, or that were lost to damage, are left out.
        return {name: value for name, value in known if value is not None}

    def searched(self, number: int) -> dict[str, Value]:
        """The searched parameters that one trial has.

        Raises:
            IndexError: when there is no such trial.
        """
        values = self.configuration(number)
        return {name: values[name] for name in self.spec.space.names if name in values}

    @property
    def baseline(self) -> Any:
        """The baseline's row, or None when the sweep has no baseline."""
        number = self._state.baseline
        return None if number is None or number >= len(self.trials) else self.trials[number]

    def column(self, name: str) -> str:
        """The column of :attr:`trials` that holds a parameter or a metric.

        Raises:
            KeyError: when there is no parameter or metric of that name.
        """
        if name in self._parameter_columns:
            return self._parameter_columns[name]
        return self.metric_column(name)

    def metric_column(self, name: str) -> str:
        """The column of a metric, even if a parameter has its name; or a field like ``wall_time``.

        Raises:
            KeyError: when there is none of that name.
        """
        for columns in (self._metric_columns, self._parameter_columns):
            if name in columns:
                return columns[name]
        if name in self.trials.names:
            return name
        what = f"metric {name!r} with a curve" if self.budget else f"parameter or metric {name!r}"
        raise KeyError(
            f"there is no {what}; {_suggestion(name, (*self.parameters, *self.metrics), self.trials.names)}"
        )

    def to_xarray(self, *, curves: bool = False) -> Any:
        """An xarray Dataset over ``trial``: parameters are coordinates, metrics are variables.

        Args:
            curves: whether it also has ``METRIC_curve``, shape (trials, reports), with ``METRIC_step`` and
                ``METRIC_time``.

        Raises:
            ImportError: when xarray is not installed.
        """
        return _dataset(self, self.curve_names if curves else ())

    def _trial_rows(self) -> Rows:
        """The structured array; a parameter or metric whose name is already taken gets a prefix."""
        state, columns = self._state, fixed_columns(self._state, [one.name for one in self.objectives])
        for name, values in state.parameters.items():
            native = native_column(values)
            column = self._parameter_columns[name] = _free_name(name, "parameter_", columns)
            columns[column] = np.char.decode(native, "utf-8") if native.dtype.kind == "S" else native
        for name, numbers in state.metrics.items():
            column = self._metric_columns[name] = _free_name(name, "metric_", columns)
            columns[column] = np.array(numbers, dtype=np.float64)
        return structured(columns, state.count)


def _dataset(sweep: Sweep, curves: Sequence[str]) -> Any:
    from mpisweep.results.dataset import dataset

    about = {"name": sweep.name, "objective": sweep.objective, "direction": sweep.direction.value}
    return dataset(
        sweep.trials,
        {name: sweep.column(name) for name in sweep.parameters},
        {name: sweep.metric_column(name) for name in sweep.metrics},
        workload=getattr(sweep.spec.workload, "name", ""),
        about=about | {"source": str(sweep.path)},
        curves={name: [sweep.curve(number, name) for number in range(len(sweep.trials))] for name in curves},
    )


def _arrays(curve: Curve) -> CurveArrays:
    return CurveArrays(
        np.array(curve.step, dtype=np.int64),
        np.array(curve.value, dtype=np.float64),
        np.array(curve.time, dtype=np.float64),
    )


def _check_curve(sweep: Sweep, number: int, metric: str) -> None:
    if metric not in sweep.curve_names:
        raise KeyError(f"there is no curve of {metric!r}; {nearest(metric, sweep.curve_names)}")
    _check_number(number, len(sweep.trials))


def _check_number(number: int, count: int) -> None:
    if not 0 <= number < count:
        raise IndexError(f"there is no trial {number}; the last is {count - 1}")


def trials_to_come(sweep: Sweep) -> int:
    """Number of trials that a learning search is still to propose; 0 once the sweep is complete."""
    return to_propose(sweep.spec, sweep._state)


def total_trials(sweep: Sweep) -> int:
    """Number of trials of a sweep, with those that a learning search is still to propose."""
    return len(sweep.trials) + trials_to_come(sweep)


def imported_counts(sweep: Sweep) -> dict[str, int]:
    """File or storage -> number of trials that the sweep imported from there."""
    return dict(Counter(sweep._state.imported["source"]))


def used_seconds(sweep: Sweep) -> tuple[float, float]:
    """Core-seconds and GPU-seconds of a sweep's attempts that have ended."""
    return device_seconds(sweep._state)


def stop_progress(sweep: Sweep) -> list[str]:
    """How far each rule of [stop] is from holding, in words; empty if there is none."""
    return stopping_of(sweep.spec, sweep._state).texts() if sweep.spec.stop.is_set else []


def load(path: str | os.PathLike[str]) -> Sweep:
    """Read a sweep: finished, running or crashed.

    Args:
        path: of the HDF5 file.

    Raises:
        ResultsError: when there is no sweep at `path`, or the file is not a results file.
    """
    return _load(path, Reading.SAMPLES)


def load_tables(path: str | os.PathLike[str]) -> Sweep:
    """:func:`load` without the curves, which are nearly all of a large file."""
    return _load(path, Reading.TABLES)


def _load(path: str | os.PathLike[str], reading: Reading) -> Sweep:
    file = behind_link(Path(path))
    damages: list[Damage] = []
    try:
        state = read_sweep(file, damages, reading=reading)
    except OSError as error:
        raise ResultsError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    return Sweep(file, state, damages)


def _suggestion(name: str, own: Sequence[str], columns: Sequence[str]) -> str:
    """End a sentence about an unknown column; only parameters and metrics are listed."""
    return nearest(name, columns if closest(name, columns) and not closest(name, own) else own)


def _free_name(name: str, prefix: str, taken: Container[str]) -> str:
    while name in taken or not name:
        name = prefix + name
    return name
