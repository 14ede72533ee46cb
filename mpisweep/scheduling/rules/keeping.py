"""Starting trials of several ranks, and keeping slots for the next one that waits."""

from __future__ import annotations

import math

from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision
from mpisweep.scheduling.rules.assigning import assign, kept_until
from mpisweep.scheduling.rules.reclaiming import note_slot

__all__ = ["fill_wide"]


def fill_wide(core: Core, decisions: list[Decision], now: float) -> None:
    """Start trials of several ranks, the widest first; keep slots for the next one that waits.

    So wide trials do not starve: early in the sweep they fit without gaps, and the narrow trials fill the
    gaps at the end.
    """
    waiting = core.waiting
    is_kept = False
    for width in waiting.wide():
        while waiting.count(width):
            waiting.set_aside(core.policy.deadline - now, width)
            chosen = core.room.place(width, also_kept=not is_kept) if waiting.count(width) else None
            if chosen is None:
                break
            decisions.append(assign(core, chosen, [waiting.take(width)], now))
        if waiting.count(width) and not is_kept:
            is_kept = _keep(core, width, now)
    if not is_kept:
        _release(core, now)


def _keep(core: Core, width: int, now: float) -> bool:
    """Keep slots for the next trial of this width; False if none would end in time.

    The slots stay the same until one of them is lost.
    """
    slots, number = core.slots, core.waiting.next(width)
    if core.kept_for != number or len(slots.kept) != width:
        _release(core, now)
        free_at = core.room.gather(width)
        # Slots that are free earlier than expected still stay with it.
        if not free_at or not _ends_from(core, max(now, *free_at.values()), width):
            return False
        slots.keep(free_at, free_at)
        core.kept_for = number
        for slot in free_at:
            note_slot(core, slot, now)
    return _ends_from(core, kept_until(core, now), width)


def _ends_from(core: Core, start: float, width: int) -> bool:
    """Whether any trial of this width would end in time if it started then."""
    return core.policy.deadline == math.inf or core.waiting.any_within(core.policy.deadline - start, width)


def _release(core: Core, now: float) -> None:
    slots, released = core.slots, list(core.slots.kept)
    core.kept_for = -1
    slots.release()
    for slot in released:
        note_slot(core, slot, now)
