"""The state of a sweep, grown record by record: what the HDF5 file holds plus what the journal adds.

Replay is idempotent by (trial, attempt): a result that comes twice counts once, a result of an attempt that
a later one has replaced does not count, and a trial that has ended never changes.  Only reports would count
twice; the file therefore states up to which offset of each segment it covers the journal.

Tables are columns, plain lists with one entry a row; row *n* of the trials is trial *n*.  Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    Column,
    Curve,
    EndedBlock,
    InferredBlock,
    JoinedRecord,
    LeftRecord,
    QuarantineRecord,
    ReportBlock,
    RunRecord,
    TrialsBlock,
    UnfinishedBlock,
)
from mpisweep.records import AttemptEnd, FailureCause, TrialState, Value
from mpisweep.results.columns import CODE, columns_of
from mpisweep.results.journal.reader import Entry, Frames
from mpisweep.results.journal.segments import run_of
from mpisweep.results.reports import Curves, KeptReports, lengths_of

__all__ = ["TABLE_FIELDS", "SweepState", "Table"]

#: What a SweepState holds beside its curves.
TABLE_FIELDS = (
    "spec", "source", "version", "state", "baseline", "environment", "trials", "parameters", "metrics", "attempts",
    "ranks", "workers", "allocations", "covered",
)  # fmt: skip

_WAITING = int(TrialState.WAITING)
_RUNNING = int(TrialState.RUNNING)
_COMPLETE = int(TrialState.COMPLETE)
_INFEASIBLE = int(TrialState.INFEASIBLE)
#: Ends that never change.  That a trial is infeasible is a conclusion, which gives way to what has happened.
_FINAL = frozenset(int(state) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED))
_NAN = math.nan

Table = dict[str, list[Any]]


@dataclass(slots=True)
class SweepState:
    """Everything that is known about a sweep."""

    #: Attributes of the file: the RunRecord's sweep file, and what follows from it.
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
    #: Of the trials of several ranks, the ranks beside rank 0.
    ranks: Table = field(default_factory=lambda: _empty("ranks"))
    workers: Table = field(default_factory=lambda: _empty("workers"))
    allocations: Table = field(default_factory=lambda: _empty("allocations"))
    #: Where the curves are.
    curves: Curves = field(default_factory=Curves)
    #: Trial -> ReportBlocks of its last attempt that are in here beyond the first `report_blocks` of them.
    report_gaps: dict[int, set[int]] = field(default_factory=dict)
    #: A number from here on is damage: every trial that was introduced takes some bytes.
    most_trials: int = 1 << 24
    #: Segment -> offset up to which it is in here.
    covered: dict[str, int] = field(default_factory=dict)
    #: Segment -> how many bytes of it there were when it was read, whatever they were.
    sizes: dict[str, int] = field(default_factory=dict)
    _run_of_segment: dict[str, int] = field(default_factory=dict)
    _worker_rows: dict[tuple[int, int], int] = field(default_factory=dict)
    _attempt_rows: dict[tuple[int, int], int] = field(default_factory=dict)
    #: (trial, attempt) -> rows of its other ranks.
    _rank_rows: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def index(self) -> None:
        """Make the look-up tables after the columns were filled from a file."""
        w = self.workers
        self._worker_rows = {key: row for row, key in enumerate(zip(w["allocation"], w["rank"], strict=True))}
        a = self.attempts
        self._attempt_rows = {key: row for row, key in enumerate(zip(a["trial"], a["attempt"], strict=True))}
        r = self.ranks
        for row, key in enumerate(zip(r["trial"], r["attempt"], strict=True)):
            self._rank_rows.setdefault(key, []).append(row)

    def settle(self) -> None:
        """Let go of what only further records would need: all are taken in."""
        self._worker_rows.clear()
        self._attempt_rows.clear()

    @staticmethod
    def usual_row(group: str) -> dict[str, Any]:
        """What each column of a table holds where nothing is known."""
        by_kind: dict[Any, Any] = {"integer": -1, "number": _NAN, "text": "", "long text": ""}
        usual = {column.name: by_kind.get(column.kind, 0) for column in columns_of(group)}
        return usual | ({"attempt": 0, "state": _WAITING} if group == "trials" else {})

    @property
    def count(self) -> int:
        """How many trials are known."""
        return len(self.trials["state"])

    def apply(self, entry: Entry, frames: Frames | None = None) -> None:
        """Take one record in.

        Args:
            entry: of the journal.
            frames: where samples are read again when somebody needs them; None to keep them.
        """
        record = entry.record
        if isinstance(record, RunRecord):
            # Any other run's record is not this segment's first one, whatever it is.
            if record.run == run_of(entry.segment):
                self._on_run(entry.segment, record)
        elif self._is_bounded(record):
            run = self._run_of_segment.get(entry.segment)
            if run is None:
                # Its first record is damaged; its name says whose it is.
                run = self._on_unknown_run(entry.segment)
            if isinstance(record, ReportBlock):
                self._on_reports(record, entry, frames)
            else:
                _HANDLERS[type(record)](self, record, run)
        self.covered[entry.segment] = max(entry.end, self.covered.get(entry.segment, 0))

    def _is_bounded(self, record: Any) -> bool:
        numbers = [record.number] if isinstance(record, ReportBlock) else getattr(record, "numbers", ())
        return max(numbers, default=0) < self.most_trials

    # ------------------------------------------------------------------------------------- records

    def _on_unknown_run(self, segment: str) -> int:
        name, runs = run_of(segment), self.allocations["run"]
        if name not in runs:
            self._forget_running()
            _append(
                self.allocations, run=name, host="", batch_system="", job_id="", ranks=0, started_at=_NAN,
                ended_at=_NAN, end="", launch="", closing_time=_NAN, code="",
            )  # fmt: skip
        self._run_of_segment[segment] = runs.index(name)
        return runs.index(name)

    def _on_run(self, segment: str, record: RunRecord) -> None:
        runs = self.allocations["run"]
        if record.run in runs:
            self._run_of_segment[segment] = runs.index(record.run)
            return
        # Whatever ran when the last run ended without a word is waiting again.
        self._forget_running()
        self._run_of_segment[segment] = len(runs)
        _append(
            self.allocations,
            run=record.run, host=record.host, batch_system=record.batch_system, job_id=record.job_id,
            ranks=record.ranks, started_at=record.started_at, ended_at=_NAN, end="", launch=record.launch,
            closing_time=_NAN, code=record.environment.get(CODE, ""),
        )  # fmt: skip
        self.spec, self.source, self.version = record.spec, record.source, record.version
        self.environment = record.environment | {"command": json.dumps(record.command)}
        self.state = "running"

    def _on_trials(self, record: TrialsBlock, run: int) -> None:
        if record.baseline is not None:
            self.baseline = record.baseline
        first = self.count
        if not record.numbers or record.numbers[-1] < first:
            return
        skip = first - record.numbers[0]
        if skip < 0:
            # The block between was damaged: its trials are known by number only.
            self._grow(record.numbers[0])
            first, skip = record.numbers[0], 0
        rows = len(record.numbers) - skip
        self._grow(first + rows)
        for name, column in record.parameters.items():
            self._parameter(name)[first : first + rows] = _values(column, skip, rows)

    def _on_joined(self, record: JoinedRecord, run: int) -> None:
        key = (run, record.worker)
        row = self._worker_rows.setdefault(key, len(self.workers["rank"]))
        if row < len(self.workers["rank"]):
            # It had been given up, and is back; or a new master has met it.
            self.workers["left_at"][row] = _NAN
            return
        _append(
            self.workers,
            allocation=run, rank=record.worker, host=record.host, device=record.device, device_kind=record.device_kind, cores=record.cores,
            slots=record.slots, joined_at=record.joined_at, left_at=_NAN, busy_time=0.0, trials_done=0,
            quarantine="",
        )  # fmt: skip

    def _on_left(self, record: LeftRecord, run: int) -> None:
        row = self._worker_rows.get((run, record.worker))
        if row is not None:
            self.workers["left_at"][row] = record.left_at

    def _on_quarantined(self, record: QuarantineRecord, run: int) -> None:
        row = self._worker_rows.get((run, record.worker))
        if row is not None:
            self.workers["quarantine"][row] = record.why

    def _on_assigned(self, record: AssignedBlock, run: int) -> None:
        worker = self._worker_rows.get((run, record.slots[0][0]), -1)
        attempts, rows = self.attempts, self._attempt_rows
        states, tried, workers = self.trials["state"], self.trials["attempt"], self.trials["worker"]
        self._grow(max(record.numbers, default=-1) + 1)
        others = record.slots[1:]
        for number, attempt in zip(record.numbers, record.attempts, strict=True):
            if (number, attempt) in rows or attempt <= tried[number] or states[number] in _FINAL:
                continue
            rows[number, attempt] = len(attempts["trial"])
            attempts["trial"].append(number)
            attempts["attempt"].append(attempt)
            attempts["worker"].append(worker)
            attempts["slot"].append(record.slots[0][1])
            attempts["assigned_at"].append(record.assigned_at)
            attempts["ended_at"].append(_NAN)
            attempts["end"].append(int(AttemptEnd.RUNNING))
            states[number] = _RUNNING
            tried[number] = attempt
            workers[number] = worker
            for rank, (other, slot) in enumerate(others, 1):
                self._rank_rows.setdefault((number, attempt), []).append(len(self.ranks["trial"]))
                row = self._worker_rows.get((run, other), -1)
                _append(self.ranks, trial=number, attempt=attempt, rank=rank, worker=row, slot=slot)
            if attempt > 1:
                self._drop_reports(number)

    def _on_ended(self, record: EndedBlock, run: int) -> None:
        worker = self._worker_rows.get((run, record.worker), -1)
        self._grow(max(record.numbers, default=-1) + 1)
        trials = self.trials
        kept: list[int] = []
        for position, number in enumerate(record.numbers):
            attempt = record.attempts[position]
            if trials["state"][number] in _FINAL or attempt < trials["attempt"][number]:
                continue
            if attempt > trials["attempt"][number]:
                self._drop_reports(number)
            kept.append(position)
            started_at, wall_time_s = record.started_at[position], record.wall_time_s[position]
            trials["state"][number] = record.states[position]
            trials["attempt"][number] = attempt
            trials["worker"][number] = worker
            trials["started_at"][number] = started_at
            trials["wall_time"][number] = wall_time_s
            row = self._attempt_rows.get((number, attempt))
            if row is not None:
                self.attempts["ended_at"][row] = started_at + wall_time_s
                self.attempts["end"][row] = int(AttemptEnd.ENDED)
            self._credit(worker, wall_time_s)
            if self._rank_rows:
                for other in self._rank_rows.get((number, attempt), ()):
                    self._credit(self.ranks["worker"][other], wall_time_s)
        for name, column in record.metrics.items():
            values = self._metric(name)
            for position in kept:
                value = column[position]
                values[record.numbers[position]] = _NAN if value is None else value
        if record.causes:
            for position in kept:
                trials["cause"][record.numbers[position]] = record.causes[position]
                trials["message"][record.numbers[position]] = record.messages[position]

    def _on_inferred(self, record: InferredBlock, run: int) -> None:
        """An inference holds until it is taken back; no other end is."""
        old, new = (_WAITING, _INFEASIBLE) if record.why else (_INFEASIBLE, _WAITING)
        self._grow(max(record.numbers, default=-1) + 1)
        for number in record.numbers:
            if self.trials["state"][number] == old:
                self.trials["state"][number] = new
                self.trials["message"][number] = record.why

    def _credit(self, worker: int, wall_time_s: float) -> None:
        """A worker has run a trial, or a rank of one, for so long."""
        if worker >= 0:
            self.workers["trials_done"][worker] += 1
            if wall_time_s == wall_time_s:
                self.workers["busy_time"][worker] += wall_time_s

    def _on_reports(self, record: ReportBlock, entry: Entry, frames: Frames | None) -> None:
        number = record.number
        self._grow(number + 1)
        if not self._is_latest(number, record.attempt):
            return
        # A worker tells a new master all that it does not know to be safe, and some of it is.
        if not self._is_new_block(number, record.sequence):
            return
        if frames is None:
            self.curves.add(number, KeptReports(record.sequence, lengths_of(record.curves), record.curves))
        else:
            self.curves.add(number, frames.placed(entry))

    def _is_latest(self, number: int, attempt: int) -> bool:
        """Whether an attempt is the last one; where its assignment was damaged, it becomes so here."""
        tried = self.trials["attempt"]
        if attempt > tried[number] and self.trials["state"][number] < _COMPLETE:
            tried[number] = attempt
            self._drop_reports(number)
        return bool(attempt == tried[number])

    def _is_new_block(self, number: int, sequence: int) -> bool:
        first_missing = self.trials["report_blocks"][number]
        gaps = self.report_gaps.setdefault(number, set())
        is_new = sequence >= first_missing and sequence not in gaps
        if is_new:
            gaps.add(sequence)
            while first_missing in gaps:
                gaps.discard(first_missing)
                first_missing += 1
            self.trials["report_blocks"][number] = first_missing
        if not gaps:
            del self.report_gaps[number]
        return is_new

    def _on_unfinished(self, record: UnfinishedBlock, run: int) -> None:
        for number, attempt in zip(record.numbers, record.attempts, strict=True):
            row = self._attempt_rows.get((number, attempt))
            if row is not None and self.attempts["end"][row] == AttemptEnd.RUNNING:
                self.attempts["end"][row] = record.end
                self.attempts["ended_at"][row] = record.at
            if number < self.count and self.trials["attempt"][number] == attempt:
                if self.trials["state"][number] == _RUNNING:
                    self.trials["state"][number] = _WAITING

    def _on_closed(self, record: ClosedRecord, run: int) -> None:
        self.allocations["ended_at"][run] = record.closed_at
        self.allocations["end"][run] = record.why
        self._forget_running()
        self.state = record.why

    # ------------------------------------------------------------------------------------- tables

    def _forget_running(self) -> None:
        states = self.trials["state"]
        for number, state in enumerate(states):
            if state == _RUNNING:
                states[number] = _WAITING
        attempts = self.attempts
        ends = attempts["end"]
        begun = self.begun()
        for row, end in enumerate(ends):
            if end == AttemptEnd.RUNNING:
                ends[row] = int(AttemptEnd.LOST if row in begun else AttemptEnd.WITHDRAWN)

    def begun(self) -> set[int]:
        """Rows of the attempts that may run: the first one of each slot; those behind it have not begun."""
        attempts, ranks = self.attempts, self.ranks
        found: set[int] = set()
        slots: set[tuple[int, int]] = set()
        for row, end in enumerate(attempts["end"]):
            if end != AttemptEnd.RUNNING:
                continue
            slot = attempts["worker"][row], attempts["slot"][row]
            if slot not in slots:
                found.add(row)
            others = self._rank_rows.get((attempts["trial"][row], attempts["attempt"][row]), ())
            slots.update((ranks["worker"][other], ranks["slot"][other]) for other in others)
            slots.add(slot)
        return found

    def _drop_reports(self, number: int) -> None:
        """A new attempt reports anew."""
        self.curves.drop(number)
        self.report_gaps.pop(number, None)
        self.trials["report_blocks"][number] = 0

    def _grow(self, count: int) -> None:
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
        for column in self.parameters.values():
            column.extend([None] * new)
        for values in self.metrics.values():
            values.extend([_NAN] * new)

    def _parameter(self, name: str) -> list[Value | None]:
        if name not in self.parameters:
            self.parameters[name] = [None] * self.count
        return self.parameters[name]

    def _metric(self, name: str) -> list[float]:
        if name not in self.metrics:
            self.metrics[name] = [_NAN] * self.count
        return self.metrics[name]

    def diverged(self, objective: str) -> list[bool]:
        """For each trial whether it is complete and its objective is missing, NaN or infinite."""
        values = self.metrics.get(objective) or [_NAN] * self.count
        return [
            state == _COMPLETE and not math.isfinite(value)
            for state, value in zip(self.trials["state"], values, strict=True)
        ]

    # ------------------------------------------------------------------------------------- curves

    def curve(self, number: int, metric: str) -> Curve:
        """All reports of one metric of one trial, in order; empty arrays where there are none."""
        return self.curves.of(number, metric)

    @property
    def curve_names(self) -> list[str]:
        """Metrics that have reports."""
        return self.curves.names


#: Columns of the trials that are computed when they are written or read.
_COMPUTED = {"trials": ("host", "device", "ended_at", "diverged")}

_HANDLERS: dict[type[Any], Callable[[SweepState, Any, int], None]] = {
    TrialsBlock: SweepState._on_trials,
    JoinedRecord: SweepState._on_joined,
    LeftRecord: SweepState._on_left,
    QuarantineRecord: SweepState._on_quarantined,
    AssignedBlock: SweepState._on_assigned,
    EndedBlock: SweepState._on_ended,
    InferredBlock: SweepState._on_inferred,
    UnfinishedBlock: SweepState._on_unfinished,
    ClosedRecord: SweepState._on_closed,
}


def _empty(group: str) -> Table:
    return {column.name: [] for column in columns_of(group) if column.name not in _COMPUTED.get(group, ())}


def _append(table: Table, **row: Any) -> None:
    for name, column in table.items():
        column.append(row[name])


def _values(column: Column, skip: int, rows: int) -> list[Value]:
    return column[skip : skip + rows] if isinstance(column, list) else [column] * rows
