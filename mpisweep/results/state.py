"""The state of a sweep: the contents of the HDF5 file plus the records of the journal.

Tables are columns, plain lists with one entry per row; row *n* of the trials is trial *n*.  Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mpisweep.blocks import Curve
from mpisweep.dataclass import dataclass, field
from mpisweep.records import AttemptEnd, FailureCause, RequestKind, TrialState, Value
from mpisweep.results.columns import columns_of
from mpisweep.results.reports import Curves

__all__ = ["MEASURED", "TABLE_FIELDS", "SweepState", "Table", "append_row", "numbers_in", "retried_attempts"]

#: The fields of a SweepState without its curves.
TABLE_FIELDS = (
    "spec", "source", "version", "state", "baseline", "environment", "trials", "parameters", "metrics",
    "attempts", "ranks", "imported", "suggested", "requests", "sharing", "workers", "allocations", "covered",
)  # fmt: skip
#: Columns of the trials about their GPUs; NaN if unknown.
MEASURED = ("device_energy", "device_memory", "device_busy", "device_trials")
Table = dict[str, list[Any]]
_WAITING = int(TrialState.WAITING)
_RUNNING = int(TrialState.RUNNING)
_COMPLETE = int(TrialState.COMPLETE)
_PRUNED = int(TrialState.PRUNED)
_NAN = math.nan


@dataclass(slots=True)
class SweepState:
    """Everything known about a sweep."""

    #: Attributes of the file: the RunRecord's sweep file and fields derived from it.
    spec: str = ""
    source: str = ""
    version: str = ""
    state: str = "running"
    baseline: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    trials: Table = field(default_factory=lambda: _empty("trials"))
    parameters: dict[str, list[Value | None]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    attempts: Table = field(default_factory=lambda: _empty("attempts"))
    #: Ranks of trials of several ranks, without rank 0.
    ranks: Table = field(default_factory=lambda: _empty("ranks"))
    #: Trials known from elsewhere, which have no number.
    imported: Table = field(default_factory=lambda: _empty("imported"))
    #: What objectives of Optuna have suggested, in the order of the ends of their trials.
    suggested: Table = field(default_factory=lambda: _empty("suggested"))
    #: What users asked for, in the order in which it was applied.
    requests: Table = field(default_factory=lambda: _empty("requests"))
    #: How many trials shared each GPU, as it was decided.
    sharing: Table = field(default_factory=lambda: _empty("sharing"))
    workers: Table = field(default_factory=lambda: _empty("workers"))
    allocations: Table = field(default_factory=lambda: _empty("allocations"))
    #: Where the curves are.
    curves: Curves = field(default_factory=Curves)
    #: Number of trials whose end was recorded.
    ends: int = 0
    #: Trial -> sequences of the ReportBlocks of its last attempt that arrived after a gap.
    report_gaps: dict[int, set[int]] = field(default_factory=dict)
    #: Trial numbers from here on are damage: every added trial takes some bytes of the journal.
    most_trials: int = 1 << 24
    #: Segment -> offset up to which its records are applied.
    covered: dict[str, int] = field(default_factory=dict)
    #: Segment -> its size in bytes when it was read, damaged parts included.
    sizes: dict[str, int] = field(default_factory=dict)
    #: Segment -> row of its run in the allocations.
    run_of_segment: dict[str, int] = field(default_factory=dict)
    #: (run, rank) -> row of the worker.
    worker_rows: dict[tuple[int, int], int] = field(default_factory=dict)
    #: (trial, attempt) -> row of the attempt.
    attempt_rows: dict[tuple[int, int], int] = field(default_factory=dict)
    #: Retried trial -> the last attempt that a retry has voided.
    retried: dict[int, int] = field(default_factory=dict)
    #: (trial, attempt) -> rows of its other ranks.
    rank_rows: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def index(self) -> None:
        """Build the look-up tables after the columns were filled from a file."""
        self._number_configurations()
        self.ends = max(self.trials["end_order"], default=-1) + 1
        w = self.workers
        self.worker_rows = {key: row for row, key in enumerate(zip(w["allocation"], w["rank"], strict=True))}
        a = self.attempts
        self.attempt_rows = {key: row for row, key in enumerate(zip(a["trial"], a["attempt"], strict=True))}
        r = self.ranks
        for row, key in enumerate(zip(r["trial"], r["attempt"], strict=True)):
            self.rank_rows.setdefault(key, []).append(row)
        self.retried = retried_attempts(self.requests)

    def _number_configurations(self) -> None:
        """Number the configurations of a file that does not: equal parameters are repeats of one."""
        numbers, repeats = self.trials["configuration"], self.trials["repeat"]
        if any(number >= 0 for number in numbers):
            return
        known: dict[tuple[Value | None, ...], list[int]] = {}
        rows = zip(*self.parameters.values(), strict=True) if self.parameters else iter([()] * self.count)
        for trial, row in enumerate(rows):
            # Lost parameters say nothing; a sweep without any has one configuration.
            if self.parameters and not any(value is not None for value in row):
                continue
            numbers[trial], count = known.setdefault(row, [len(known), 0])
            repeats[trial] = count
            known[row][1] += 1

    def drop_lookups(self) -> None:
        """Drop the look-up tables that only further records need."""
        self.worker_rows.clear()
        self.attempt_rows.clear()

    @staticmethod
    def usual_row(group: str) -> dict[str, Any]:
        """The default value of each column of a table."""
        by_kind: dict[Any, Any] = {"integer": -1, "number": _NAN, "text": "", "long text": ""}
        usual = {column.name: by_kind.get(column.kind, 0) for column in columns_of(group)}
        return usual | ({"attempt": 0, "state": _WAITING} if group == "trials" else {})

    @property
    def count(self) -> int:
        """Number of known trials."""
        return len(self.trials["state"])

    def curve(self, number: int, metric: str) -> Curve:
        """All reports of one metric of one trial, in order; empty arrays if there are none."""
        return self.curves.of(number, metric)

    @property
    def curve_names(self) -> list[str]:
        """Metrics that have reports."""
        return self.curves.names

    def finite(self, objectives: Sequence[str]) -> list[bool]:
        """For each trial, whether all its objectives are finite."""
        columns = [self.metrics.get(name) or [_NAN] * self.count for name in objectives]
        return [all(map(math.isfinite, values)) for values in zip(*columns, strict=True)]

    def diverged(self, objectives: Sequence[str]) -> list[bool]:
        """For each trial, whether it is complete or pruned without finite objectives."""
        return [
            state in (_COMPLETE, _PRUNED) and not is_finite
            for state, is_finite in zip(self.trials["state"], self.finite(objectives), strict=True)
        ]

    def device_power(self) -> list[float]:
        """For each trial, the mean power of its GPUs in watts; NaN if unknown."""
        pairs = zip(self.trials["device_energy"], self.trials["wall_time"], strict=True)
        return [energy / wall_time if wall_time > 0 else _NAN for energy, wall_time in pairs]

    def begun(self) -> set[int]:
        """Rows of the attempts that may be running: the first one of each slot's queue."""
        attempts, ranks = self.attempts, self.ranks
        found: set[int] = set()
        slots: set[tuple[int, int]] = set()
        for row, end in enumerate(attempts["end"]):
            if end != AttemptEnd.RUNNING:
                continue
            slot = attempts["worker"][row], attempts["slot"][row]
            if slot not in slots:
                found.add(row)
            others = self.rank_rows.get((attempts["trial"][row], attempts["attempt"][row]), ())
            slots.update((ranks["worker"][other], ranks["slot"][other]) for other in others)
            slots.add(slot)
        return found

    def requeue_running(self) -> None:
        """Set the running trials back to waiting, after the end of their run."""
        states = self.trials["state"]
        for number, state in enumerate(states):
            if state == _RUNNING:
                states[number] = _WAITING
        attempts = self.attempts
        ends = attempts["end"]
        begun = self.begun()
        for row, end in enumerate(ends):
            if end == AttemptEnd.RUNNING:
                ends[row] = int(AttemptEnd.LOST if row in begun else AttemptEnd.RECLAIMED)

    def note_end(self, number: int) -> None:
        """Give a trial its place in the order of ends, unless it has one."""
        if self.trials["end_order"][number] < 0:
            self.trials["end_order"][number] = self.ends
            self.ends += 1

    def reset(self, number: int) -> None:
        """Let a trial wait again as if it had no end; its attempts and reports stay."""
        trials, usual = self.trials, self.usual_row("trials")
        for name in ("state", "cause", "message", "started_at", "wall_time", "pruned_at", *MEASURED):
            trials[name][number] = usual[name]
        trials["end_order"][number] = -1
        for values in self.metrics.values():
            values[number] = _NAN

    def drop_reports(self, number: int) -> None:
        """Drop a trial's reports, because a new attempt reports from the beginning."""
        self.curves.drop(number)
        self.report_gaps.pop(number, None)
        self.trials["report_blocks"][number] = 0

    def grow(self, count: int) -> None:
        """Extend the tables to `count` trials; the new ones wait."""
        new = count - self.count
        if new <= 0:
            return
        trials = self.trials
        trials["number"].extend(range(self.count, count))
        trials["state"].extend([_WAITING] * new)
        trials["cause"].extend([int(FailureCause.NONE)] * new)
        trials["message"].extend([""] * new)
        trials["attempt"].extend([0] * new)
        trials["report_blocks"].extend([0] * new)
        trials["worker"].extend([-1] * new)
        trials["started_at"].extend([_NAN] * new)
        trials["wall_time"].extend([_NAN] * new)
        trials["end_order"].extend([-1] * new)
        trials["proposed_after"].extend([-1] * new)
        trials["pruned_at"].extend([-1] * new)
        for name in MEASURED:
            trials[name].extend([_NAN] * new)
        trials["configuration"].extend([-1] * new)
        trials["repeat"].extend([-1] * new)
        for column in self.parameters.values():
            column.extend([None] * new)
        for values in self.metrics.values():
            values.extend([_NAN] * new)

    def parameter_column(self, name: str) -> list[Value | None]:
        """The column of a parameter, created if missing."""
        if name not in self.parameters:
            self.parameters[name] = [None] * self.count
        return self.parameters[name]

    def metric_column(self, name: str) -> list[float]:
        """The column of a metric's final values, created if missing."""
        if name not in self.metrics:
            self.metrics[name] = [_NAN] * self.count
        return self.metrics[name]


def append_row(table: Table, **row: Any) -> None:
    """Append a row to a table."""
    for name, column in table.items():
        column.append(row[name])


def retried_attempts(requests: Mapping[str, Sequence[Any]]) -> dict[int, int]:
    """Retried trial -> the last attempt that a retry has voided."""
    retried: dict[int, int] = {}
    for what, trials, attempts in zip(*(requests[n] for n in ("what", "trials", "attempts")), strict=True):
        if what == RequestKind.RETRY:
            for number, attempt in zip(numbers_in(trials), numbers_in(attempts), strict=False):
                retried[number] = max(attempt, retried.get(number, 0))
    return retried


def numbers_in(text: str) -> list[int]:
    """The numbers in a column of JSON; none if it was lost to damage."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [one for one in found if type(one) is int] if isinstance(found, list) else []


#: Columns of the trials that are computed on writing or reading.
_COMPUTED = {"trials": ("host", "device", "ended_at", "device_power", "diverged")}


def _empty(group: str) -> Table:
    return {column.name: [] for column in columns_of(group) if column.name not in _COMPUTED.get(group, ())}
