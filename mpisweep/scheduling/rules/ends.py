"""Trials that ended in a slot, and trials that a slot returned.

Only the attempt that the slot holds counts: a result of attempt 1 must never pass for one of attempt 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision, GiveUp
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.rules.blame import judge, note_slowness
from mpisweep.scheduling.rules.learning import observe
from mpisweep.scheduling.rules.retries import wait_again
from mpisweep.scheduling.rules.several_ranks import on_rank_ended, on_rank_left
from mpisweep.scheduling.rules.sharing import learn_use
from mpisweep.scheduling.rules.withholding import learn_memory
from mpisweep.scheduling.trials import FAILED, PRUNED

__all__ = ["on_trials_ended", "on_trials_reclaimed", "requeue"]


def on_trials_ended(core: Core, block: EndedBlock) -> list[Decision]:
    """Commit ended trials, and learn from them."""
    slot = Slot(block.worker, block.slot)
    held = core.slots.held.get(slot)
    if held is None:
        return []
    if core.teams and block.numbers[0] in core.teams:
        return on_rank_ended(core, slot, core.teams[block.numbers[0]], block)
    stale: list[int] = []
    has_failed = False
    move = core.trials.move
    for index, (number, attempt, state) in enumerate(
        zip(block.numbers, block.attempts, block.states, strict=True)
    ):
        if held.get(number) != attempt:
            stale.append(index)
            continue
        del held[number]
        if state == FAILED:
            has_failed = True
        else:
            move(number, state)
    core.slots.note(slot)
    if stale:
        block = without(block, frozenset(stale))
    if not block.numbers:
        return []
    core.losses.note_ended(block.numbers)
    decisions: list[Decision] = []
    if has_failed or core.memory.is_followed:
        block, decisions = learn_memory(core, (slot,), block)
        if not block.numbers:
            return decisions
    block, shared = learn_use(core, slot, block)
    decisions += shared
    # Trials of a batch are too short to measure a device, a pruned one takes less than expected, and one that
    # shares its GPU as measured may take more.
    if len(block.numbers) == 1 and block.states[0] != PRUNED and core.packing is None:
        decisions += note_slowness(core, slot, block.numbers[0], block.wall_time_s[0])
    observe(core, block)
    if core.search is not None:
        core.search.tell(block)
    if not has_failed and core.devices.is_clean(slot):
        return [*decisions, Commit(block)]
    return decisions + judge(core, slot, block)


def on_trials_reclaimed(
    core: Core, slot: Slot, numbers: Sequence[int], attempts: Sequence[int], end: AttemptEnd
) -> list[Decision]:
    """Queue the trials that a slot returned again."""
    core.slots.note_answer(slot)
    held = core.slots.held.get(slot)
    if held is None:
        return []
    returned = {n: a for n, a in zip(numbers, attempts, strict=True) if held.get(n) == a}
    for number in returned:
        del held[number]
    core.slots.note(slot)
    return requeue(core, slot, returned, end)


def requeue(core: Core, slot: Slot, returned: Mapping[int, int], end: AttemptEnd) -> list[Decision]:
    """Queue trials (-> attempt) that a slot no longer holds and that have no end."""
    alone = {number: attempt for number, attempt in returned.items() if number not in core.teams}
    decisions: list[Decision] = []
    for number in returned:
        if number in core.teams:
            decisions += on_rank_left(core, slot, core.teams[number], end)
    if alone:
        # What was reclaimed has not begun, and is as urgent as any trial of its length.
        wait_again(core, [*alone], is_first=end is not AttemptEnd.RECLAIMED)
        decisions.append(GiveUp(slot.rank, [*alone], [*alone.values()], end))
    return decisions
