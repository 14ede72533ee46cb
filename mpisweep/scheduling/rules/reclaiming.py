"""Taking back what slots have not begun: it would begin too late, or another slot has nothing to do.

As durations turn out, what the deadline no longer allows is reclaimed before it begins, and waits like any
other trial.

Whatever was expected, nothing is stuck behind a long trial: when a slot has nothing to do and no trial waits,
another slot is asked for what it has not begun, if the idle one can run that.  What is bound to one kind of
device is asked for only if a slot of this kind is idle, or it would return to the same slot at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Reclaim

__all__ = ["SETTLE_S", "ask_back", "note_changes", "note_slot", "reconsider", "take_for_idle"]

#: A slot that was given trials this recently is not asked to give any back.
SETTLE_S = 0.020


def note_changes(core: Core, decisions: list[Decision], now: float) -> None:
    """Note what slots hold now, and reclaim what would begin too late."""
    if core.is_timed:
        for slot in core.slots.changed:
            note_slot(core, slot, now)
    core.slots.changed.clear()
    if core.policy.deadline < math.inf:
        _reclaim(core, decisions, now)


def reconsider(core: Core) -> None:
    """Other durations are expected than before."""
    core.slots.changed |= dict.fromkeys(core.slots.held)


def note_slot(core: Core, slot: Slot, now: float) -> None:
    """Note what a slot holds now, and so when it will be free."""
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


def _reclaim(core: Core, decisions: list[Decision], now: float) -> None:
    """Ask for what would begin too late; who was asked already gives it back as well."""
    for slot in core.timetable.late(now):
        decisions += ask_back(core, slot)


def ask_back(core: Core, slot: Slot) -> list[Decision]:
    """Reclaim what a slot has not begun, unless it was asked already and has not answered."""
    if slot in core.slots.asked:
        return []
    core.slots.ask(slot)
    return [Reclaim(slot)]


def take_for_idle(core: Core, decisions: list[Decision], now: float) -> None:
    """Reclaim from as many slots with backlog as idle ones can take over, pending ones included."""
    slots = core.slots
    _ask(core, slots.with_backlog, len(slots.idle) - len(slots.asked), decisions, now)
    for kind, rich in slots.with_bound_backlog.items():
        wanted = min(len(slots.idle) - len(slots.asked), slots.idle_of_kind[kind] - slots.asked_of_kind[kind])
        _ask(core, rich, wanted, decisions, now)


def _ask(core: Core, rich: Mapping[Slot, None], wanted: int, decisions: list[Decision], now: float) -> None:
    while wanted > 0 and rich:
        slot = next(iter(rich))
        if now - core.slots.given_at[slot] < SETTLE_S:
            # All others were given something later.
            return
        core.slots.ask(slot)
        decisions.append(Reclaim(slot))
        wanted -= 1
