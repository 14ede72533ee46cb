"""Which trial goes to which slot next.

The longest expected trial goes first (:mod:`mpisweep.scheduling.durations`), to an idle slot if there is
one.  Short trials are handed out ahead: a slot holds its running trial and a backlog, so that no device waits
for a message.  A trial of known short duration is assigned in a batch of up to
:data:`~mpisweep.scheduling.rules.assigning.BATCH_S` seconds, and never more than a fair share of the
remaining trials.  Longer ones are assigned one by one, up to a backlog of :data:`BACKLOG_S`: an assignment
waits for the sync of the record before it, and for a master that fits durations or lacks a core.

A trial that is expected to take :data:`AHEAD_S` or more is assigned alone, and to an idle slot only.  Behind
a running trial it would wait for this one slot, and the longest trials would meet in the same slots: at 256
workers a sweep of 700 such trials took 40% longer.  The message that it waits for takes a millisecond.
Trials that were handed out before this was known are reclaimed, some with every event.  Sweeps with trials of
several ranks hand out ahead as well: a slot that is kept while its neighbours are busy needs a backlog.
"""

from __future__ import annotations

from itertools import islice

from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision
from mpisweep.scheduling.packing import Packing
from mpisweep.scheduling.proposals import SHORT_S
from mpisweep.scheduling.rules.assigning import (
    MAX_BATCH,
    assign,
    assign_next,
    batch_size,
    is_within,
    kept_until,
    may_have_more,
    time_left_s,
)
from mpisweep.scheduling.rules.keeping import fill_wide
from mpisweep.scheduling.rules.reclaiming import reclaim, reclaim_for_idle

__all__ = ["AHEAD_S", "BACKLOG_S", "fill", "goes_ahead", "review_backlogs"]

#: A trial that is expected to take this long, in seconds, is not handed out ahead.
AHEAD_S = 1.0
#: Backlog of a slot in expected seconds.  With a single trial of 50 ms, one sync or fit of 50 ms was a gap in
#: all slots.
BACKLOG_S = 0.25
#: Slots whose backlog is reviewed per event; all of them at once would hold up the master's loop.
_REVIEWS = 8


def fill(core: Core, decisions: list[Decision], now: float) -> None:
    """Hand out trials while slots have room; if none waits, reclaim from slots with a backlog."""
    waiting, slots = core.waiting, core.slots
    if slots.kept or waiting.wide():
        fill_wide(core, decisions, now)
    if core.packing is not None:
        _fill_packed(core, core.packing, decisions, now)
        return
    if core.memory.any_bound:
        _fill_bound(core, decisions, now)
    if waiting.count():
        # Idle slots first: a trial that runs now is worth more than one in a backlog.
        _fill_idle(core, decisions, now)
        _fill_ahead(core, decisions, now)
    elif slots.idle and not slots.kept:
        reclaim_for_idle(core, decisions, now)


def _fill_idle(core: Core, decisions: list[Decision], now: float) -> None:
    waiting, slots = core.waiting, core.slots
    if slots.idle or slots.kept_idle:
        waiting.set_aside(core.policy.deadline - now)
    while slots.idle and waiting.count():
        assign_next(
            core, next(iter(slots.idle)), batch_size(core), core.policy.deadline - now, decisions, now
        )
        waiting.set_aside(core.policy.deadline - now)
    while slots.kept_idle and waiting.count():
        left_s = kept_until(core, now) - now
        if not core.model.is_known or not is_within(core, waiting.next(), left_s):
            return
        assign_next(core, next(iter(slots.kept_idle)), batch_size(core), left_s, decisions, now)


def _fill_packed(core: Core, packing: Packing, decisions: list[Decision], now: float) -> None:
    """Hand out trials one by one, to GPUs that have room for them."""
    if core.away:
        # Trials that run there may be on any GPU.
        return
    waiting, slots, alone = core.waiting, core.slots, core.memory.fresh
    left_s = (core.policy.deadline - now) / packing.stretch
    for kind, queue in core.memory.bound.items():
        while queue and is_within(core, queue[0], left_s):
            of_kind = [slot for slot in slots.idle if core.memory.kinds.get(slot) == kind]
            slot = packing.choose(of_kind, queue[0], alone)
            if slot is None:
                break
            decisions.append(assign(core, (slot,), [queue.popleft()], now, are_bound=True))
    waiting.set_aside(left_s)
    while waiting.count():
        slot = packing.choose(slots.idle, waiting.next(), alone)
        if slot is None:
            return
        decisions.append(assign(core, (slot,), [waiting.take()], now))
        waiting.set_aside(left_s)


def _fill_ahead(core: Core, decisions: list[Decision], now: float) -> None:
    """Fill the backlogs of busy slots; each slot is visited once after it has changed."""
    waiting, slots = core.waiting, core.slots
    for _ in range(len(slots.wanting)):
        if not waiting.count():
            return
        number = waiting.next()
        if number in core.losses.suspects or not goes_ahead(core, number):
            return
        slot, size = next(iter(slots.wanting)), batch_size(core)
        most = _backlog(core, number, size)
        if may_have_more(core, slot, most):
            left_s = time_left_s(core, slot, now)
            if is_within(core, number, left_s):
                assign_next(core, slot, size, left_s, decisions, now)
                if len(slots.held[slot]) <= most:
                    slots.wanting.move_to_end(slot)
                    continue
        del slots.wanting[slot]


def _backlog(core: Core, number: int, size: int) -> int:
    """Number of trials like the next one that a slot may hold when it gets a batch of `size`."""
    expected_s = core.model.expected_s(number)
    # A search could still learn; a trial of several ranks keeps slots for itself.
    if size > 1 or expected_s is None or core.proposals is not None or core.waiting.any_widths:
        return size
    fair_share = core.waiting.count() // len(core.slots)
    return max(1, min(fair_share, int(BACKLOG_S / expected_s), MAX_BATCH))


def goes_ahead(core: Core, number: int) -> bool:
    """Whether a trial may wait behind another one."""
    expected_s = core.model.expected_s(number)
    if core.proposals is not None:
        # Its search could still learn before it proposes.
        return expected_s is not None and expected_s < SHORT_S
    return core.waiting.any_widths or expected_s is None or expected_s < AHEAD_S


def review_backlogs(core: Core, decisions: list[Decision]) -> None:
    """Reclaim trials that were handed out ahead before they were known to be long."""
    for _ in range(min(_REVIEWS, len(core.slots.doubtful))):
        slot = core.slots.doubtful.popleft()
        unstarted = islice(core.slots.held.get(slot, ()), 1, None)
        if not all(goes_ahead(core, number) for number in unstarted):
            decisions += reclaim(core, slot)


def _fill_bound(core: Core, decisions: list[Decision], now: float) -> None:
    """Hand out trials that are bound to one kind of device."""
    slots = core.slots
    for kind, queue in core.memory.bound.items():
        with_room = slots.with_room.get(kind)
        if with_room is None:
            continue
        for _ in range(len(with_room)):
            if not queue:
                break
            slot, number = next(iter(with_room)), queue[0]
            is_idle = not slots.held[slot]
            if not is_idle and (number in core.losses.suspects or not goes_ahead(core, number)):
                break
            if may_have_more(core, slot, 1) and is_within(core, number, time_left_s(core, slot, now)):
                decisions.append(assign(core, (slot,), [queue.popleft()], now, are_bound=True))
            elif is_idle:
                # No other slot has more time than this one.
                break
            else:
                del with_room[slot]
