"""Whether a slot may get a trial, and the assignment.

One rule limits the trials of a slot: *an unstarted trial stays with a slot only while the upper bounds of its
duration and of all trials before it* (:mod:`mpisweep.scheduling.timetable`) *end before a limit*.  The limit
is

* the deadline, if the end of the allocation is known;
* for a slot that is kept for a trial of several ranks (:mod:`mpisweep.scheduling.room`): when it can start.

The rule decides both which trials begin and which are handed out ahead.  The remaining time goes to the
longest trials that still fit; if none fits, no slot could run any waiting trial.

Nothing is queued behind a trial that may have killed a worker (:mod:`mpisweep.scheduling.health`): it goes to
an idle slot alone.
"""

from __future__ import annotations

import math

from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Assign, Decision
from mpisweep.scheduling.rules.reclaiming import note_slot
from mpisweep.scheduling.teams import TeamTrial
from mpisweep.scheduling.timetable import NOTICE_S

__all__ = [
    "BATCH_S", "MAX_BATCH", "assign", "assign_next", "batch_size",
    "is_within", "kept_until", "may_have_more", "time_left_s",
]  # fmt: skip

#: Trials that are expected to take less than this are assigned in batches, in seconds.  A crash repeats one
#: batch.
BATCH_S = 0.010
#: Larger batches are not faster (measured: 128 trials per message reach 9/10 of the speed of 512).
MAX_BATCH = 512


def may_have_more(core: Core, slot: Slot, limit: int) -> bool:
    """Whether a slot may get more trials if it holds up to `limit`."""
    held = core.slots.held[slot]
    return len(held) <= limit and slot not in core.slots.asked and core.losses.suspects.isdisjoint(held)


def time_left_s(core: Core, slot: Slot, now: float) -> float:
    """Time limit for a trial that a slot gets now, in seconds; infinite for none."""
    is_kept = slot in core.slots.kept
    if not core.model.is_known:
        begins_at = now + NOTICE_S if core.slots.held[slot] else now
        return -math.inf if is_kept or begins_at > core.policy.deadline else math.inf
    if core.policy.deadline == math.inf and not is_kept:
        return math.inf
    too_late = kept_until(core, now) if is_kept else core.policy.deadline
    return too_late - core.timetable.next_begins_at(slot, now)


def kept_until(core: Core, now: float) -> float:
    """When the trial for which slots are kept can start."""
    return max(now, core.slots.kept[-1][0])


def is_within(core: Core, number: int, left_s: float) -> bool:
    """Whether a trial's upper bound is within a limit; if unknown, whether there is no limit."""
    if left_s == math.inf:
        return True
    upper_s = core.model.upper_s(number)
    return upper_s is not None and upper_s <= left_s


def batch_size(core: Core) -> int:
    """Number of trials like the next one to assign in one batch."""
    number = core.waiting.next()
    expected_s = core.model.expected_s(number)
    if expected_s is None or expected_s > BATCH_S or number in core.losses.suspects or core.memory.fresh:
        return 1
    if core.policy.fresh_process:
        return 1
    fair_share = core.waiting.count() // (2 * len(core.slots))
    return max(1, min(MAX_BATCH, fair_share, int(BATCH_S / expected_s)))


def assign_next(
    core: Core, slot: Slot, size: int, left_s: float, decisions: list[Decision], now: float
) -> None:
    """Assign the next trial to a slot, or a batch of up to `size` short ones that end in time."""
    waiting = core.waiting
    if size == 1:
        numbers = [waiting.take()]
    else:
        numbers = waiting.take_short(size, min(BATCH_S, left_s / core.model.uncertainty))
    decisions.append(assign(core, (slot,), numbers, now))


def assign(
    core: Core, slots: tuple[Slot, ...], numbers: list[int], now: float, *, are_bound: bool = False
) -> Assign:
    """Start the next attempt of these trials in these slots."""
    attempts = [core.trials.begin(number) for number in numbers]
    core.losses.note_assigned(numbers)
    if len(slots) > 1:
        core.teams[numbers[0]] = TeamTrial(numbers[0], attempts[0], slots, set(slots))
    for slot in slots:
        core.slots.give(slot, numbers, attempts, now, are_bound=are_bound)
        if core.is_timed:
            note_slot(core, slot, now)
        if core.packing is not None:
            core.packing.begin(slot, numbers[0], core.memory.fresh)
    return Assign(slots, numbers, attempts, core.policy.fresh_process or numbers[0] in core.memory.fresh)
