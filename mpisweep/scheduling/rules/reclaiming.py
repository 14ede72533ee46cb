"""Reclaiming unstarted trials: they would begin too late, or another slot is idle.

When measured durations show that an unstarted trial would miss the deadline, it is reclaimed and waits like
any other trial.

No trial is stuck behind a long one, however wrong the expectation was: when a slot is idle and no trial
waits, the backlog of another slot is reclaimed if the idle slot can run it.  A backlog that is bound to one
kind of device is reclaimed only if a slot of this kind is idle; otherwise it would return to the same slot at
once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Reclaim

__all__ = ["SETTLE_S", "mark_all_changed", "note_changes", "note_slot", "reclaim", "reclaim_for_idle"]

#: No trials are reclaimed from a slot for this long after an assignment, in seconds.
SETTLE_S = 0.020


def note_changes(core: Core, decisions: list[Decision], now: float) -> None:
    """Update the timetable for changed slots, and reclaim trials that would begin too late."""
    if core.is_timed:
        for slot in core.slots.changed:
            note_slot(core, slot, now)
    core.slots.changed.clear()
    if core.policy.deadline < math.inf:
        _reclaim_late(core, decisions, now)


def mark_all_changed(core: Core) -> None:
    """Mark all slots as changed after the expected durations have changed."""
    core.slots.changed |= dict.fromkeys(core.slots.held)


def note_slot(core: Core, slot: Slot, now: float) -> None:
    """Update the timetable and the room for one slot."""
    slots, timetable = core.slots, core.timetable
    timetable.note(slot, now)
    if not core.waiting.any_widths:
        return
    if not slots.is_usable(slot):
        core.room.forget(slot)
        return
    is_idle, is_kept = not slots.held[slot], slot in slots.kept
    free_at = -math.inf if is_idle else timetable.free_at(slot)
    if is_kept:
        slots.kept.set(slot, free_at)
    core.room.note(slot, slots.nodes[slot], is_idle=is_idle, is_kept=is_kept, free_at=free_at)


def _reclaim_late(core: Core, decisions: list[Decision], now: float) -> None:
    """Reclaim trials that would begin too late; a reclaim that is pending returns them as well."""
    for slot in core.timetable.late(now):
        decisions += reclaim(core, slot)


def reclaim(core: Core, slot: Slot) -> list[Decision]:
    """Reclaim the unstarted trials of a slot, unless a reclaim is pending."""
    if slot in core.slots.asked:
        return []
    core.slots.ask(slot)
    return [Reclaim(slot)]


def reclaim_for_idle(core: Core, decisions: list[Decision], now: float) -> None:
    """Reclaim from one slot with a backlog per idle slot, pending reclaims included."""
    slots = core.slots
    _reclaim_from(core, slots.with_backlog, len(slots.idle) - len(slots.asked), decisions, now)
    for kind, candidates in slots.with_bound_backlog.items():
        count = min(len(slots.idle) - len(slots.asked), slots.idle_of_kind[kind] - slots.asked_of_kind[kind])
        _reclaim_from(core, candidates, count, decisions, now)


def _reclaim_from(
    core: Core, candidates: Mapping[Slot, None], count: int, decisions: list[Decision], now: float
) -> None:
    while count > 0 and candidates:
        slot = next(iter(candidates))
        if now - core.slots.given_at[slot] < SETTLE_S:
            # The other candidates got trials even later.
            return
        core.slots.ask(slot)
        decisions.append(Reclaim(slot))
        count -= 1
