"""Replay: build the state of a sweep record by record.

Replay is idempotent by (trial, attempt): a result that comes twice counts once, a result of an attempt that
a later one replaced does not count, and only a user's retry changes a trial that has ended.  Only reports
would count twice; therefore the file states up to which offset of each segment it covers the journal.  Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from mpisweep.blocks import (
    AssignedBlock,
    CheckedRecord,
    ClosedRecord,
    ColumnValues,
    EndedBlock,
    ImportedBlock,
    InfeasibleBlock,
    JoinedRecord,
    LeftRecord,
    PredictedRecord,
    QuarantineRecord,
    ReportBlock,
    RequestRecord,
    RunRecord,
    SharingRecord,
    TrialsBlock,
    UnfinishedBlock,
)
from mpisweep.records import AttemptEnd, RequestKind, TrialState, Value
from mpisweep.results.columns import CODE
from mpisweep.results.journal.reader import Entry
from mpisweep.results.journal.segments import run_of
from mpisweep.results.members import note_checked, note_joined, note_left, note_quarantined, note_sharing
from mpisweep.results.reports import KeptReports, Reports, lengths_of
from mpisweep.results.requested import note_request
from mpisweep.results.state import MEASURED, SweepState, append_row
from mpisweep.results.suggested import note_suggested

__all__ = ["apply", "kept"]

_WAITING = int(TrialState.WAITING)
_RUNNING = int(TrialState.RUNNING)
_COMPLETE = int(TrialState.COMPLETE)
_INFEASIBLE = int(TrialState.INFEASIBLE)
#: Ends that only a retry changes.  INFEASIBLE is an inference; an observed result replaces it.
_FINAL = frozenset(int(state) for state in TrialState if state.is_end and state is not TrialState.INFEASIBLE)
_NAN = math.nan


def kept(entry: Entry) -> Reports:
    """Keep a block of reports with its samples; :meth:`Frames.placed` keeps only their place."""
    record = entry.record
    assert isinstance(record, ReportBlock)
    return KeptReports(record.sequence, lengths_of(record.curves), record.curves)


def apply(state: SweepState, entry: Entry, keep: Callable[[Entry], Reports] | None = kept) -> None:
    """Apply one record to the state.

    Args:
        state: is updated.
        entry: of the journal.
        keep: converts a block of reports for :class:`Curves`; None ignores curves.
    """
    record = entry.record
    if isinstance(record, RunRecord):
        # A record of another run cannot be this segment's first one.
        if record.run == run_of(entry.segment):
            _on_run(state, entry.segment, record)
    elif _is_bounded(state, record):
        run = state.run_of_segment.get(entry.segment)
        if run is None:
            # Its first record is damaged; the segment's name still tells the run.
            run = _on_unknown_run(state, entry.segment)
        if isinstance(record, ReportBlock):
            _on_reports(state, record, entry, keep)
        else:
            _HANDLERS[type(record)](state, record, run)
    state.covered[entry.segment] = max(entry.end, state.covered.get(entry.segment, 0))


def _is_bounded(state: SweepState, record: Any) -> bool:
    numbers = [record.number] if isinstance(record, ReportBlock) else getattr(record, "numbers", ())
    return max(numbers, default=0) < state.most_trials


# ------------------------------------------------------------------------------------- runs


def _on_run(state: SweepState, segment: str, record: RunRecord) -> None:
    runs = state.allocations["run"]
    if record.run in runs:
        state.run_of_segment[segment] = runs.index(record.run)
        return
    # The last run died without closing: its running trials wait again.
    state.requeue_running()
    state.run_of_segment[segment] = len(runs)
    append_row(
        state.allocations,
        run=record.run, host=record.host, batch_system=record.batch_system, job_id=record.job_id,
        ranks=record.ranks, started_at=record.started_at, ended_at=_NAN, end="", launch=record.launch,
        closing_time=_NAN, deadline=_NAN if record.deadline is None else record.deadline,
        queue_wait=_NAN if record.queue_wait_s is None else record.queue_wait_s,
        code=record.environment.get(CODE, ""), predicted_time=_NAN, predicted_bound=_NAN, predicted_after=-1,
    )  # fmt: skip
    state.spec, state.source, state.version = record.spec, record.source, record.version
    state.environment = record.environment | {"command": json.dumps(record.command)}
    state.state = "running"


def _on_unknown_run(state: SweepState, segment: str) -> int:
    name, runs = run_of(segment), state.allocations["run"]
    if name not in runs:
        state.requeue_running()
        usual = SweepState.usual_row("allocations")
        append_row(state.allocations, **usual | {"run": name, "ranks": 0})
    state.run_of_segment[segment] = runs.index(name)
    return runs.index(name)


def _on_predicted(state: SweepState, record: PredictedRecord, run: int) -> None:
    """Keep the first prediction of a run; a master that takes over states another."""
    table = state.allocations
    if table["predicted_time"][run] != table["predicted_time"][run]:
        table["predicted_time"][run], table["predicted_bound"][run] = (
            float(record.time_s),
            float(record.bound_s),
        )
        table["predicted_after"][run] = record.after


def _on_closed(state: SweepState, record: ClosedRecord, run: int) -> None:
    state.allocations["ended_at"][run] = record.closed_at
    state.allocations["end"][run] = record.why
    state.requeue_running()
    state.state = record.why


# ------------------------------------------------------------------------------------- trials


def _on_trials(state: SweepState, record: TrialsBlock, run: int) -> None:
    if record.baseline is not None:
        state.baseline = record.baseline
    first = state.count
    if not record.numbers or record.numbers[-1] < first:
        return
    skip = first - record.numbers[0]
    if skip < 0:
        # A damaged block is missing in between: its trials are known by number only.
        state.grow(record.numbers[0])
        first, skip = record.numbers[0], 0
    rows = len(record.numbers) - skip
    state.grow(first + rows)
    for name, column in record.parameters.items():
        state.parameter_column(name)[first : first + rows] = _values(column, skip, rows)
    numbers = range(first, first + rows)
    state.trials["configuration"][first : first + rows] = record.configurations[skip:] or numbers
    state.trials["repeat"][first : first + rows] = record.repeats[skip:] or [0] * rows
    if record.known is not None:
        state.trials["proposed_after"][first : first + rows] = [record.known] * rows


def _on_imported(state: SweepState, record: ImportedBlock, run: int) -> None:
    if state.imported["source"]:
        return
    rows = zip(record.sources, record.configurations, record.objectives, record.wall_time_s, strict=True)
    for source, configuration, objective, wall_time_s in rows:
        append_row(
            state.imported,
            source=source, configuration=json.dumps(configuration), objective=float(objective),
            wall_time=_NAN if wall_time_s is None else float(wall_time_s),
        )  # fmt: skip


def _on_assigned(state: SweepState, record: AssignedBlock, run: int) -> None:
    worker = state.worker_rows.get((run, record.slots[0][0]), -1)
    attempts, rows = state.attempts, state.attempt_rows
    states, tried, workers = state.trials["state"], state.trials["attempt"], state.trials["worker"]
    state.grow(max(record.numbers, default=-1) + 1)
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
            state.rank_rows.setdefault((number, attempt), []).append(len(state.ranks["trial"]))
            row = state.worker_rows.get((run, other), -1)
            append_row(state.ranks, trial=number, attempt=attempt, rank=rank, worker=row, slot=slot)
        if attempt > 1:
            state.drop_reports(number)


def _on_ended(state: SweepState, record: EndedBlock, run: int) -> None:
    worker = state.worker_rows.get((run, record.worker), -1)
    state.grow(max(record.numbers, default=-1) + 1)
    trials = state.trials
    columns = (record.energy_j, record.gpu_memory, record.gpu_busy, record.gpu_trials)
    measured = list(zip(MEASURED, columns, strict=True))
    kept: list[int] = []
    for position, number in enumerate(record.numbers):
        attempt = record.attempts[position]
        if trials["state"][number] in _FINAL or attempt < trials["attempt"][number]:
            continue
        # A result that a retry has voided, and that is written again after a failed write.
        if attempt <= state.retried.get(number, 0):
            continue
        if attempt > trials["attempt"][number]:
            state.drop_reports(number)
        kept.append(position)
        started_at, wall_time_s = record.started_at[position], record.wall_time_s[position]
        trials["state"][number] = record.states[position]
        trials["attempt"][number] = attempt
        trials["worker"][number] = worker
        trials["started_at"][number] = started_at
        trials["wall_time"][number] = wall_time_s
        state.note_end(number)
        for name, column in measured:
            value = column[position] if column else None
            trials[name][number] = _NAN if value is None else float(value)
        trials["pruned_at"][number] = record.pruned_at[position] if record.pruned_at else -1
        row = state.attempt_rows.get((number, attempt))
        if row is not None:
            state.attempts["ended_at"][row] = started_at + wall_time_s
            state.attempts["end"][row] = int(AttemptEnd.ENDED)
        _credit(state, worker, wall_time_s)
        if state.rank_rows:
            for other in state.rank_rows.get((number, attempt), ()):
                _credit(state, state.ranks["worker"][other], wall_time_s)
    for name, column in record.metrics.items():
        values = state.metric_column(name)
        for position in kept:
            value = column[position]
            values[record.numbers[position]] = _NAN if value is None else value
    for position in kept if record.suggested else ():
        note_suggested(state, record.numbers[position], record.suggested[position])
    if record.causes:
        for position in kept:
            trials["cause"][record.numbers[position]] = record.causes[position]
            trials["message"][record.numbers[position]] = record.messages[position]


def _credit(state: SweepState, worker: int, wall_time_s: float) -> None:
    """Add a finished trial, or a finished rank of one, to its worker's totals."""
    if worker >= 0:
        state.workers["trials_done"][worker] += 1
        if wall_time_s == wall_time_s:
            state.workers["busy_time"][worker] += wall_time_s


def _on_infeasible(state: SweepState, record: InfeasibleBlock, run: int) -> None:
    """Mark trials as infeasible or revoke that; no other end can be revoked."""
    old, new = (_WAITING, _INFEASIBLE) if record.why else (_INFEASIBLE, _WAITING)
    state.grow(max(record.numbers, default=-1) + 1)
    for number in record.numbers:
        if state.trials["state"][number] == old:
            state.trials["state"][number] = new
            state.trials["message"][number] = record.why
            if record.why:
                state.note_end(number)


def _on_request(state: SweepState, record: RequestRecord, run: int) -> None:
    """Apply a user's request, once."""
    if record.request in state.requests["request"]:
        return
    if record.what == RequestKind.ADD:
        added = TrialsBlock(
            record.numbers, record.parameters, configurations=record.configurations, repeats=record.repeats
        )
        _on_trials(state, added, run)
    note_request(state, record)


def _on_unfinished(state: SweepState, record: UnfinishedBlock, run: int) -> None:
    for number, attempt in zip(record.numbers, record.attempts, strict=True):
        row = state.attempt_rows.get((number, attempt))
        if row is not None and state.attempts["end"][row] == AttemptEnd.RUNNING:
            state.attempts["end"][row] = record.end
            state.attempts["ended_at"][row] = record.at
        if number < state.count and state.trials["attempt"][number] == attempt:
            if state.trials["state"][number] == _RUNNING:
                state.trials["state"][number] = _WAITING


# ------------------------------------------------------------------------------------- reports


def _on_reports(
    state: SweepState, record: ReportBlock, entry: Entry, keep: Callable[[Entry], Reports] | None
) -> None:
    number = record.number
    state.grow(number + 1)
    if not _is_latest(state, number, record.attempt):
        return
    # A worker resends to a new master every block that is not confirmed; some are in the journal already.
    if not _is_new_block(state, number, record.sequence):
        return
    if keep is not None:
        state.curves.add(number, keep(entry))


def _is_latest(state: SweepState, number: int, attempt: int) -> bool:
    """Whether an attempt is the last one; if its assignment was lost to damage, record it here."""
    tried = state.trials["attempt"]
    if attempt > tried[number] and state.trials["state"][number] < _COMPLETE:
        tried[number] = attempt
        state.drop_reports(number)
    return bool(attempt == tried[number])


def _is_new_block(state: SweepState, number: int, sequence: int) -> bool:
    first_missing = state.trials["report_blocks"][number]
    gaps = state.report_gaps.setdefault(number, set())
    is_new = sequence >= first_missing and sequence not in gaps
    if is_new:
        gaps.add(sequence)
        while first_missing in gaps:
            gaps.discard(first_missing)
            first_missing += 1
        state.trials["report_blocks"][number] = first_missing
    if not gaps:
        del state.report_gaps[number]
    return is_new


# ------------------------------------------------------------------------------------- tables


def _values(column: ColumnValues, skip: int, rows: int) -> list[Value | None]:
    return column[skip : skip + rows] if isinstance(column, list) else [column] * rows


_HANDLERS: dict[type[Any], Callable[[SweepState, Any, int], None]] = {
    ImportedBlock: _on_imported, TrialsBlock: _on_trials,
    JoinedRecord: note_joined, CheckedRecord: note_checked,
    LeftRecord: note_left, QuarantineRecord: note_quarantined, SharingRecord: note_sharing,
    AssignedBlock: _on_assigned, EndedBlock: _on_ended,
    InfeasibleBlock: _on_infeasible, UnfinishedBlock: _on_unfinished,
    RequestRecord: _on_request, PredictedRecord: _on_predicted,
    ClosedRecord: _on_closed,
}  # fmt: skip
