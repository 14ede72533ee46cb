"""Workers in the results: their rows, and how many trials share their GPUs.  Pure."""

from __future__ import annotations

import math

from mpisweep.blocks import CheckedRecord, JoinedRecord, LeftRecord, QuarantineRecord, SharingRecord
from mpisweep.results.state import SweepState, append_row

__all__ = ["note_checked", "note_joined", "note_left", "note_quarantined", "note_sharing"]

_NAN = math.nan


def note_joined(state: SweepState, record: JoinedRecord, run: int) -> None:
    """Add a worker, or note that it is back."""
    key = (run, record.worker)
    row = state.worker_rows.setdefault(key, len(state.workers["rank"]))
    if row < len(state.workers["rank"]):
        # It was declared dead and is back, or a new master registered it.
        state.workers["left_at"][row] = _NAN
        return
    append_row(
        state.workers,
        allocation=run, rank=record.worker, host=record.host, device=record.device,
        device_kind=record.device_kind, cores=record.cores, slots=record.slots, gpus=float(record.gpus),
        joined_at=record.joined_at, left_at=_NAN, busy_time=0.0, trials_done=0, matmul_rate=_NAN,
        memory_free=-1, ecc_errors=-1, sm_clock=-1, device_check="", quarantine="",
    )  # fmt: skip


def note_checked(state: SweepState, record: CheckedRecord, run: int) -> None:
    """Note the check of a worker's device."""
    row = state.worker_rows.get((run, record.worker))
    if row is None:
        return
    workers = state.workers
    workers["matmul_rate"][row] = _NAN if record.rate is None else float(record.rate)
    workers["memory_free"][row] = -1 if record.free_bytes is None else record.free_bytes
    workers["ecc_errors"][row] = -1 if record.errors is None else record.errors
    workers["sm_clock"][row] = -1 if record.clock_mhz is None else record.clock_mhz
    workers["device_check"][row] = record.finding


def note_left(state: SweepState, record: LeftRecord, run: int) -> None:
    """Note that a worker left."""
    row = state.worker_rows.get((run, record.worker))
    if row is not None:
        state.workers["left_at"][row] = record.left_at


def note_quarantined(state: SweepState, record: QuarantineRecord, run: int) -> None:
    """Note that a worker gets no more trials, or gets trials again."""
    row = state.worker_rows.get((run, record.worker))
    if row is not None:
        state.workers["quarantine"][row] = record.why


def note_sharing(state: SweepState, record: SharingRecord, run: int) -> None:
    """Note how many trials share each GPU of a kind from now on."""
    append_row(
        state.sharing,
        at=float(record.at), device_kind=record.device_kind, trials=record.trials, gain=float(record.gain),
    )  # fmt: skip
