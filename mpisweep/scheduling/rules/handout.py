"""Which trial goes to which slot next.

The longest expected trial goes first (:mod:`mpisweep.scheduling.durations`), to an idle slot if there is
one.  A slot holds its running trial and a backlog, so that no device waits for a message.  Trials of known
short duration are assigned in batches of up to :data:`~mpisweep.scheduling.rules.assigning.BATCH_S` seconds,
and never more than a fair share of the remaining trials; a longer trial, or one of unknown duration, is
assigned alone.
"""

from __future__ import annotations

from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision
from mpisweep.scheduling.proposals import SHORT_S
from mpisweep.scheduling.rules.assigning import (
    assign,
    assign_next,
    batch_size,
    is_within,
    kept_until,
    may_have_more,
    time_left_s,
)
from mpisweep.scheduling.rules.keeping import fill_wide
from mpisweep.scheduling.rules.reclaiming import reclaim_for_idle

__all__ = ["fill"]


def fill(core: Core, decisions: list[Decision], now: float) -> None:
    """Hand out trials while slots have room; if none waits, reclaim from slots with a backlog."""
    waiting, slots = core.waiting, core.slots
    if slots.kept or waiting.wide():
        fill_wide(core, decisions, now)
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


def _fill_ahead(core: Core, decisions: list[Decision], now: float) -> None:
    """Fill the backlogs of busy slots; each slot is visited once after it has changed."""
    waiting, slots = core.waiting, core.slots
    for _ in range(len(slots.wanting)):
        if not waiting.count() or waiting.next() in core.losses.suspects or _is_proposal(core):
            return
        slot, size = next(iter(slots.wanting)), batch_size(core)
        if may_have_more(core, slot, size):
            left_s = time_left_s(core, slot, now)
            if is_within(core, waiting.next(), left_s):
                assign_next(core, slot, size, left_s, decisions, now)
                if len(slots.held[slot]) <= size:
                    slots.wanting.move_to_end(slot)
                    continue
        del slots.wanting[slot]


def _is_proposal(core: Core) -> bool:
    """Whether the next trial must not wait behind another one, because its search could still learn."""
    expected_s = core.model.expected_s(core.waiting.next())
    return core.proposals is not None and (expected_s is None or expected_s >= SHORT_S)


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
            if number in core.losses.suspects and not is_idle:
                break
            if may_have_more(core, slot, 1) and is_within(core, number, time_left_s(core, slot, now)):
                decisions.append(assign(core, (slot,), [queue.popleft()], now, are_bound=True))
            elif is_idle:
                # No other slot has more time than this one.
                break
            else:
                del with_room[slot]
