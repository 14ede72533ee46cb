"""Withholding trials that may need too much memory, and running again those that ran out of it.

The rules themselves are those of :mod:`mpisweep.scheduling.memory` and :mod:`mpisweep.search.frontier`.
"""

from __future__ import annotations

from functools import partial
from math import inf

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, GiveUp, MarkInfeasible
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.rules.retries import queue_first, wait_again
from mpisweep.scheduling.trials import INFEASIBLE, WAITING

__all__ = ["has_slots", "look_at_memory", "may_go_on", "ration"]


def look_at_memory(
    core: Core, slots: tuple[Slot, ...], block: EndedBlock
) -> tuple[EndedBlock, list[Decision]]:
    """Learn what fits; what ran out of memory and is to run again is not in the block that is returned."""
    kind = core.memory.kind_of(slots)
    again = core.memory.judge(block, kind, len(slots))
    if not again:
        return block, []
    decisions: list[Decision] = []
    for index, end in again.items():
        number, attempt = block.numbers[index], block.attempts[index]
        if end is AttemptEnd.NOT_FRESH:
            # At once, and not when its turn comes: others wait for what it shows.
            core.trials.move(number, WAITING)
            queue_first(core, number, kind)
        else:
            wait_again(core, [number])
        decisions.append(GiveUp(block.worker, [number], [attempt], end))
    return without(block, frozenset(again)), decisions


def ration(core: Core, decisions: list[Decision], now: float) -> None:
    """Let the queues have what need not be withheld any more, and what shows where the frontier is."""
    idle = {} if core.waiting.count() else core.slots.idle_of_kind
    if core.waiting.any_widths:
        core.memory.note_room(core.slots.count_usable, partial(has_slots, core))
    plan = core.memory.plan(core.trials.states, idle, now)
    if plan is None:
        return
    for number in plan.withheld:
        core.waiting.discard(number)
    if plan.free:
        core.waiting.add(plan.free)
    for number, kind in reversed(plan.first):
        queue_first(core, number, kind)
    for why in dict.fromkeys(why for _, why in plan.infeasible):
        numbers = [number for number, because in plan.infeasible if because == why]
        for number in numbers:
            core.trials.move(number, INFEASIBLE)
        decisions.append(MarkInfeasible(numbers, why))


def has_slots(core: Core, number: int) -> bool:
    """Whether there are as many slots as a trial needs."""
    return core.waiting.width(number) <= core.slots.count_usable


def may_go_on(core: Core, decisions: list[Decision], now: float) -> bool:
    """Whether something withheld will still run, or be inferred, although nothing runs or can be started."""
    if core.policy.deadline == inf or not core.memory.have_joined(now):
        return True
    # What was let go of may take too long, and something smaller not.
    ration(core, decisions, now)
    return core.waiting.count() > 0 or not core.memory
