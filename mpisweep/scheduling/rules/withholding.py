"""Withholding trials that may need too much memory, and rerunning trials that ran out of it.

:mod:`mpisweep.scheduling.memory` and :mod:`mpisweep.search.frontier` contain the logic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, GiveUp, MarkInfeasible
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.rules.retries import queue_first, wait_again
from mpisweep.scheduling.trials import INFEASIBLE, WAITING

__all__ = ["has_slots", "learn_memory", "ration", "release_withheld", "rule_out"]


def learn_memory(core: Core, slots: tuple[Slot, ...], block: EndedBlock) -> tuple[EndedBlock, list[Decision]]:
    """Learn from a block what fits; returns it without the trials that must run again."""
    kind = core.memory.kind_of(slots)
    packing = core.packing
    crowded = frozenset(
        number for number in block.numbers if packing is not None and packing.was_crowded(slots[0], number)
    )
    again = core.memory.judge(block, kind, len(slots), crowded)
    if not again:
        return block, []
    decisions: list[Decision] = []
    for index, end in again.items():
        number, attempt = block.numbers[index], block.attempts[index]
        if end is AttemptEnd.NOT_FRESH:
            # Before all others, because withheld trials wait for its result.
            core.trials.move(number, WAITING)
            queue_first(core, number, kind)
        else:
            wait_again(core, [number])
        decisions.append(GiveUp(block.worker, [number], [attempt], end))
    return without(block, frozenset(again)), decisions


def ration(core: Core, decisions: list[Decision], now: float) -> None:
    """Queue trials that need not be withheld any more, and trials that test the frontier."""
    idle: Mapping[str, int] = {} if core.waiting.count() else core.slots.idle_of_kind
    if core.packing is not None and idle:
        idle = core.packing.empty_places(core.slots.idle)
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
    _mark(core, plan.infeasible, decisions)


def rule_out(core: Core, decisions: list[Decision], now: float) -> None:
    """Mark proposals that need no less memory than a trial that ran out of it."""
    found = core.memory.above_ceiling(core.waiting, now)
    for number, _ in found:
        core.waiting.discard(number)
        core.memory.fresh.discard(number)
    _mark(core, found, decisions)


def _mark(core: Core, infeasible: Sequence[tuple[int, str]], decisions: list[Decision]) -> None:
    for why in dict.fromkeys(why for _, why in infeasible):
        numbers = [number for number, because in infeasible if because == why]
        for number in numbers:
            core.trials.move(number, INFEASIBLE)
            if core.race is not None:
                core.race.note(number, INFEASIBLE, int(FailureCause.NONE), None)
        decisions.append(MarkInfeasible(numbers, why))


def has_slots(core: Core, number: int) -> bool:
    """Whether there are enough usable slots for a trial."""
    return core.waiting.width(number) <= core.slots.count_usable


def release_withheld(core: Core, decisions: list[Decision], now: float) -> bool:
    """Release withheld trials when nothing runs or can start; returns whether the run continues."""
    if core.policy.deadline == inf or not core.memory.have_joined(now):
        return True
    # A released trial may not end in time, while a smaller one does.
    ration(core, decisions, now)
    return core.waiting.count() > 0 or not core.memory
