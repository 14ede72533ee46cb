"""The facts of a sweep at one moment that the screen shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.records import TrialState
from mpisweep.results import shares_folder
from mpisweep.results.load import Sweep
from mpisweep.spec.units import value_text
from mpisweep.statistics.trend import is_logarithmic
from mpisweep.views.findings import findings_of
from mpisweep.views.running import RunningTrial, Watched, look_at
from mpisweep.views.screen.table import TrialColumns, columns_of
from mpisweep.views.status import BestTrial, Status

__all__ = ["Axis", "Facts", "Failures", "Run", "SlotOfWorker", "facts_of", "judged"]

#: Trials from which on what the screen says about certainty would take too long to compute at each refresh.
_JUDGED = 20_000
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class SlotOfWorker:
    """A place where one trial runs at a time, of a worker of an active run.

    Attributes:
        where: rank, device and host.
        trial: the one that runs there, with its last report; None if none does.
        share: rank within a trial of several ranks; 0 for the first or only one.
        note: why it gets no trials, or what the check of its device found; may be empty.
    """

    where: str
    trial: RunningTrial | None
    share: int
    note: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed trials with one cause and the same message, but for numbers in it."""

    cause: str
    message: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the program; times are seconds since 1970, NaN if unknown."""

    host: str
    job: str
    ranks: int
    started_at: float
    deadline: float
    ended_at: float
    end: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """Values of the trials on one axis of the plot.

    Attributes:
        name: of the parameter or metric.
        values: shape (trials,); NaN for trials without one.
        is_ratio: whether the axis is logarithmic.
        categories: names of the positions 0, 1 ...; empty for numbers.
    """

    name: str
    values: NDArray[np.float64]
    is_ratio: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the screen shows of a sweep.

    Attributes:
        watched: progress and running trials.
        deadline: end of the walltime of the active runs, in seconds since 1970; NaN if unknown.
        findings: the best.
        failures: most frequent first.
        slots: of the workers of active runs, by rank.
        requests: those that wait, in words.
        notes: of damage, imports and a split, in words.
        runs: the last one first.
        table: columns of all trials.
        parameters: horizontal axes of the plot.
        metrics: vertical axes of the plot.
        marked: trials that the plot marks: the best one, those of the best configuration, or the front.
    """

    watched: Watched
    deadline: float
    findings: tuple[str, ...]
    failures: tuple[Failures, ...]
    slots: tuple[SlotOfWorker, ...]
    requests: tuple[str, ...]
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    table: TrialColumns
    parameters: tuple[Axis, ...]
    metrics: tuple[Axis, ...]
    marked: tuple[int, ...]


def facts_of(sweep: Sweep, now: float) -> Facts:
    """Compute what the screen shows, but for what takes long.

    Args:
        sweep: as just loaded.
        now: seconds since 1970.
    """
    watched = look_at(sweep, now)
    status = watched.status
    runs = tuple(_runs(sweep, is_running=status.state == "running"))
    deadlines = [run.deadline for run in runs if run.is_active and math.isfinite(run.deadline)]
    has_ended = np.isin(sweep.trials["state"], [TrialState.COMPLETE.label, TrialState.PRUNED.label])
    return Facts(
        watched,
        max(deadlines, default=math.nan),
        tuple(_findings(sweep, watched)),
        tuple(_failures(sweep)),
        tuple(_slots(sweep, watched, [index for index, run in enumerate(reversed(runs)) if run.is_active])),
        tuple(one.line.strip() for one in status.requests if one.applied_at is None),
        tuple(_notes(sweep, watched, runs)),
        runs,
        columns_of(sweep, {trial.number for trial in watched.running}),
        tuple(_parameter_axes(sweep)),
        tuple(_metric_axis(sweep, name, has_ended) for name in _metrics(sweep)),
        tuple(_marked(sweep, status)),
    )


def _marked(sweep: Sweep, status: Status) -> list[int]:
    """The front of several objectives, else the best trial, or all trials of the best configuration."""
    if len(sweep.objectives) > 1:
        front = sweep.tradeoff()
        return [int(row) for row in front.rows[front.on_front]]
    if status.best_trial is None:
        return []
    if not status.best_runs:
        return [status.best_trial]
    configurations = sweep.trials["configuration"]
    return [int(row) for row in np.flatnonzero(configurations == configurations[status.best_trial])]


def _runs(sweep: Sweep, *, is_running: bool) -> Iterator[Run]:
    rows, spans = sweep.allocations, sweep.spans
    last = float(spans[-1, 0]) if len(rows) else math.nan
    for row, (_, ended) in zip(rows[::-1], spans[::-1], strict=True):
        # Other members of a split sweep are active beside the last run; a run that died before is not.
        is_active = is_running and not math.isfinite(row["ended_at"]) and not ended < last
        yield Run(
            str(row["host"]), str(row["job_id"]), int(row["ranks"]), float(row["started_at"]),
            float(row["deadline"]), float(row["ended_at"]), str(row["end"]), is_active,
        )  # fmt: skip


def _findings(sweep: Sweep, watched: Watched) -> Iterator[str]:
    status = watched.status
    if status.best is None or status.best_trial is None:
        return
    best = BestTrial(
        status.objective, status.best, status.best_trial, status.best_parameters, status.best_runs
    )
    if status.others:
        what = "configuration" if status.repeats else "trial"
        yield f"{counted(status.front, what)} on the front of {len(status.others) + 1} objectives"
    yield from (one.line.strip() for one in (best, *status.others))


def judged(sweep: Sweep) -> str:
    """Say how sure the best is, by repeats or by the trend; empty for several objectives.

    A trend through some hundred trials takes a second.
    """
    is_judged = (
        len(sweep.objectives) == 1 and sweep.objective in sweep.metrics and len(sweep.trials) <= _JUDGED
    )
    return findings_of(sweep).sentence(sweep) if is_judged else ""


def _failures(sweep: Sweep) -> Iterator[Failures]:
    failed = sweep.trials.array[sweep.trials["state"] == TrialState.FAILED.label]
    groups: dict[tuple[str, str], tuple[str, list[int]]] = {}
    for number, cause, message in zip(
        failed["number"].tolist(), failed["cause"].tolist(), failed["message"].tolist(), strict=True
    ):
        lines = str(message).strip().splitlines()
        last = lines[-1].strip() if lines else ""
        groups.setdefault((str(cause), _DIGITS.sub("#", last)), (last, []))[1].append(number)
    found = [Failures(cause, text, tuple(trials)) for (cause, _), (text, trials) in groups.items()]
    return iter(sorted(found, key=lambda group: -len(group.trials)))


def _slots(sweep: Sweep, watched: Watched, active: list[int]) -> Iterator[SlotOfWorker]:
    held: dict[tuple[int, int], tuple[RunningTrial, int]] = {
        (trial.worker, trial.slot): (trial, 0) for trial in watched.running
    }
    by_number = {trial.number: trial for trial in watched.running}
    for row in sweep.last_ranks:
        if trial := by_number.get(int(row["trial"])):
            held[int(row["worker"]), int(row["slot"])] = trial, int(row["rank"])
    workers = sweep.workers
    rows = np.flatnonzero(np.isin(workers["allocation"], active) & ~np.isfinite(workers["left_at"]))
    for row in rows[np.lexsort((workers["rank"][rows], workers["allocation"][rows]))].tolist():
        worker = workers[row]
        for slot in range(max(int(worker["slots"]), 1)):
            trial_here, share = held.get((row, slot), (None, 0))
            note = str(worker["quarantine"]) or str(worker["device_check"])
            where = f"{worker['rank']}{f'.{slot}' if worker['slots'] > 1 else ''}"
            yield SlotOfWorker(
                f"{where} {worker['device']} on {worker['host']}", trial_here, share,
                f"quarantined: {note}" if worker["quarantine"] else note,
            )  # fmt: skip


def _notes(sweep: Sweep, watched: Watched, runs: tuple[Run, ...]) -> Iterator[str]:
    status = watched.status
    if shares_folder(sweep.path).exists():
        active = [run.host for run in runs if run.is_active]
        yield f"split: {counted(len(active), 'member')} active ({', '.join(active)})"
    if status.repeats:
        yield status.repeats
    if status.diverged:
        yield f"{counted(status.diverged, 'trial')} without a finite {status.objective}"
    if status.stop:
        yield f"stops at {', or '.join(status.stop)}"
    if status.damaged_bytes:
        yield f"{status.damaged_bytes:,} bytes of the journal are damaged; everything else is used"


def _metrics(sweep: Sweep) -> list[str]:
    """The objectives first."""
    names = [one.name for one in sweep.objectives if one.name in sweep.metrics]
    return [*names, *(name for name in sweep.metrics if name not in names)]


def _parameter_axes(sweep: Sweep) -> Iterator[Axis]:
    declared = {one.name for one in sweep.spec.space.parameters if getattr(one, "log", False)}
    for name in sweep.spec.space.names:
        column = sweep.trials[sweep.column(name)]
        if column.dtype.kind in "iuf":
            values = column.astype(float)
            known = values[np.isfinite(values)]
            is_positive = len(known) > 0 and bool(known.min() > 0)
            yield Axis(name, values, is_positive and (name in declared or is_logarithmic(known)))
            continue
        names, places = np.unique(column, return_inverse=True)
        yield Axis(
            name, places.astype(float), False, tuple(value_text(one) or "(none)" for one in names.tolist())
        )


def _metric_axis(sweep: Sweep, name: str, has_ended: NDArray[np.bool_]) -> Axis:
    values = np.where(has_ended, sweep.trials[sweep.metric_column(name)].astype(float), np.nan)
    known = values[np.isfinite(values)]
    spans_decades = len(known) > 0 and bool(known.min() > 0) and float(known.max() / known.min()) > 100
    return Axis(name, np.where(np.isfinite(values), values, np.nan), spans_decades)
