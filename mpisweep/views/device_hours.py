"""Where the device-hours of a sweep went: trials, lost attempts, idle time by its reason.

A slot of a worker runs one trial at a time, on its devices.  From the start of its run until its worker left
or the run ended it was busy or idle, and each moment of this time has one reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import AttemptEnd
from mpisweep.results.load import Sweep
from mpisweep.views.status import running_attempts

__all__ = ["BUSY", "REASONS", "DeviceHours", "SlotTimes", "device_hours", "slot_times"]

Floats = NDArray[np.float64]
_HOUR_S = 3600.0
#: What a slot can have done, in the order of the table -> what it means.
REASONS = {
    "complete": "trials that completed",
    "running": "trials that are running",
    "pruned": "trials that were pruned",
    "failed": "trials that failed",
    "lost or interrupted": "attempts that were lost or interrupted; their trials ran again",
    "start-up": "from the start of a run to the first trial of each slot",
    "between trials": "from the end of a trial to the start of the next one",
    "no trial left": "the tail: slots without a trial until the last ones had ended and the file was written",
    "quarantined": "devices that got no more trials because of their faults",
    "worker lost": "from the loss of a worker to the end of its run",
}
#: Those in which a trial ran.
BUSY = ("complete", "running", "pruned", "failed", "lost or interrupted")


class SlotTimes(NamedTuple):
    """What the slots of all workers did; times are in seconds since 1970.

    Attributes:
        start: of each attempt on each of its ranks.
        end: of each.
        slot: of each, an index into the arrays below.
        reason: of each: the state of its trial, or ``lost or interrupted``.
        joined: of each slot: the start of its run, since what a worker needs until it joins is start-up too.
        left: of each slot: when its worker left or its run ended.
        worker: of each slot: its row in the table of workers.
    """

    start: Floats
    end: Floats
    slot: NDArray[np.int64]
    reason: NDArray[np.str_]
    joined: Floats
    left: Floats
    worker: NDArray[np.int64]


def slot_times(sweep: Sweep) -> SlotTimes:
    """Read the attempts that have ended, and when their slots were there."""
    start, end, slot, reason = _busy(sweep)
    workers = sweep.workers
    worker = np.repeat(np.arange(len(workers)), np.maximum(workers["slots"], 1)).astype(np.int64)
    first, last = (start.min(), end.max()) if len(start) else (np.nan, np.nan)
    started, closed = sweep.spans[workers["allocation"]].T if len(workers) else (np.empty(0), np.empty(0))
    joined = np.where(np.isfinite(started), started, workers["joined_at"])
    left = np.where(np.isfinite(workers["left_at"]), workers["left_at"], closed)
    joined, left = np.nan_to_num(joined, nan=first), np.nan_to_num(left, nan=last)
    return SlotTimes(start, end, slot, reason, joined[worker], np.maximum(left, joined)[worker], worker)


def _busy(sweep: Sweep) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.str_]]:
    """Start, end, slot and reason of every attempt on each of its ranks."""
    trials, attempts, ranks = sweep.trials, sweep.attempts, sweep.ranks
    ended = attempts["end"] == AttemptEnd.ENDED.label
    last = ended & (attempts["attempt"] == trials["attempt"][attempts["trial"]])
    # The master notes when an attempt was assigned, and the trial itself when it began.
    began = np.where(last, trials["started_at"][attempts["trial"]], attempts["assigned_at"])
    until = np.where(last, trials["ended_at"][attempts["trial"]], attempts["ended_at"])
    reason = np.where(last, trials["state"][attempts["trial"]], "lost or interrupted")
    counts = np.isfinite(began) & np.isfinite(until) & (until >= began) & (attempts["worker"] >= 0)
    counts &= attempts["end"] != AttemptEnd.RECLAIMED.label
    offset = _offsets(sweep)
    slot = offset[attempts["worker"]] + attempts["slot"]
    rows = {
        (int(trial), int(attempt)): row
        for row, (trial, attempt) in enumerate(zip(attempts["trial"], attempts["attempt"], strict=True))
    } if len(ranks) else {}  # fmt: skip
    of_rank = np.array([rows.get((int(one["trial"]), int(one["attempt"])), -1) for one in ranks], dtype=int)
    known = of_rank >= 0
    known[known] = counts[of_rank[known]]
    other = of_rank[known]
    here = offset[ranks["worker"][known]] + ranks["slot"][known]
    return (
        np.concatenate([began[counts], began[other]]),
        np.concatenate([until[counts], until[other]]),
        np.concatenate([slot[counts], here]).astype(np.int64),
        np.concatenate([reason[counts], reason[other]]).astype(str),
    )


def _offsets(sweep: Sweep) -> NDArray[np.int64]:
    """Index of each worker's first slot among all slots, and at the end their number."""
    slots = np.maximum(sweep.workers["slots"], 1)
    return np.concatenate([[0], np.cumsum(slots)]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DeviceHours:
    """The hours of all devices that the runs of a sweep had.

    Attributes:
        unit: ``GPU`` or ``core``.
        hours: reason in :data:`REASONS` -> hours.
    """

    unit: str
    hours: dict[str, float]

    @property
    def total(self) -> float:
        """Hours of all reasons."""
        return sum(self.hours.values())

    def share(self, *reasons: str) -> float:
        """Share of these reasons in the total; 0 without any."""
        return sum(self.hours[name] for name in reasons) / self.total if self.total else 0.0


def device_hours(sweep: Sweep) -> DeviceHours | None:
    """Add up what the slots did, each times its devices; None if no attempt has ended."""
    times = slot_times(sweep)
    if not len(times.start):
        return None
    workers = sweep.workers
    gpus = np.nan_to_num(workers["gpus"])
    unit = "GPU" if gpus.any() else "core"
    devices = (gpus if unit == "GPU" else workers["cores"] / np.maximum(workers["slots"], 1))[times.worker]
    first, final = np.full(len(devices), np.inf), np.full(len(devices), -np.inf)
    np.minimum.at(first, times.slot, times.start)
    np.maximum.at(final, times.slot, times.end)
    hours = dict.fromkeys(REASONS, 0.0)
    spent = (times.end - times.start) * devices[times.slot]
    for reason in np.unique(times.reason):
        hours[str(reason)] = float(spent[times.reason == reason].sum()) / _HOUR_S
    now = float(max(times.end.max(), np.nanmax(sweep.spans[:, 1], initial=-np.inf)))
    for slot, began in _running(sweep, final):
        hours["running"] += max(now - began, 0.0) * float(devices[slot]) / _HOUR_S
        first[slot], final[slot] = min(first[slot], began), now
    used = np.isfinite(first)
    joined, left = np.fmin(times.joined, first), np.fmax(times.left, final)
    hours["start-up"] = float((devices * (first - joined))[used].sum()) / _HOUR_S
    # A slot that never ran a trial waited for one all the time.
    tail = devices * (left - np.where(used, final, joined)) / _HOUR_S
    is_out = (workers["quarantine"] != "")[times.worker]
    hours["quarantined"], hours["no trial left"] = float(tail[is_out].sum()), float(tail[~is_out].sum())
    present = float((devices * (left - joined)).sum()) / _HOUR_S
    hours["between trials"] = max(present - sum(hours.values()), 0.0)
    hours["worker lost"] = _after_loss(sweep, times, devices)
    return DeviceHours(unit, hours)


def _running(sweep: Sweep, free_at: Floats) -> Iterator[tuple[int, float]]:
    """Slot and start of each running attempt; `free_at` says when the slot's last one had ended."""
    offset = _offsets(sweep)
    for attempt in running_attempts(sweep):
        if attempt["worker"] >= 0 and np.isfinite(attempt["assigned_at"]):
            slot = int(offset[attempt["worker"]] + attempt["slot"])
            yield slot, max(float(attempt["assigned_at"]), float(free_at[slot]))


def _after_loss(sweep: Sweep, times: SlotTimes, devices: Floats) -> float:
    """Hours from the loss of each worker to the end of its run."""
    lost_at = sweep.workers["left_at"][times.worker]
    ended = sweep.spans[sweep.workers["allocation"], 1][times.worker]
    gone = np.clip(ended - lost_at, 0.0, None)
    return float(np.nansum(devices * gone)) / _HOUR_S
