"""Quarantine of devices that cause failures, and release from it.

A device on which trials fail, or are slow, while the other devices do well gets no more trials
(:mod:`mpisweep.scheduling.health`); those that failed there are retried elsewhere.  One device always stays
in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision, GiveUp, Quarantine
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.rules.assigning import BATCH_S
from mpisweep.scheduling.rules.reclaiming import reclaim
from mpisweep.scheduling.rules.retries import wait_again
from mpisweep.scheduling.rules.stops import check_common_error
from mpisweep.scheduling.trials import COMPLETE, FAILED

__all__ = ["judge", "note_slowness", "on_device_suspected", "quarantine_suspected", "release"]


def judge(core: Core, slot: Slot, block: EndedBlock) -> list[Decision]:
    """Commit a block, except for failures that the device caused: these trials are retried."""
    decisions: list[Decision] = []
    suspect: list[int] = []
    released: list[Slot] = []
    for index, state in enumerate(block.states):
        number = block.numbers[index]
        # Its end here shows whether the device on which it failed before was to blame.
        released += core.devices.clear_suspicion(number, state == FAILED)
        if state != FAILED:
            core.devices.note_success(slot)
            continue
        if core.memory.explains(block, index):
            core.trials.move(number, FAILED)
            continue
        if _is_to_blame(core, slot):
            suspect.append(index)
            continue
        core.devices.note_failure(slot, core.trials.counts[COMPLETE], core.trials.counts[FAILED])
        core.trials.move(number, FAILED)
    if suspect:
        decisions += _blame(core, slot, block, suspect)
        block = without(block, frozenset(suspect))
    if block.numbers:
        decisions.append(Commit(block))
    decisions += [release(core, other) for other in dict.fromkeys(released)]
    return decisions + check_common_error(core, block)


def _is_to_blame(core: Core, slot: Slot) -> bool:
    others = len(core.slots.held) - len(core.devices.quarantined) - (slot not in core.devices.quarantined)
    if not core.policy.quarantine or others < 1:
        return False
    return core.devices.is_to_blame(slot, core.trials.counts[COMPLETE], core.trials.counts[FAILED])


def _blame(core: Core, slot: Slot, block: EndedBlock, suspect: Sequence[int]) -> list[Decision]:
    numbers = [block.numbers[index] for index in suspect]
    attempts = [block.attempts[index] for index in suspect]
    wait_again(core, numbers)
    why = f"trials fail here and not elsewhere: {block.messages[suspect[0]].partition(chr(10))[0]}"
    decisions: list[Decision] = [GiveUp(slot.rank, numbers, attempts, AttemptEnd.SUSPECT)]
    decisions += _quarantine(core, slot, why)
    core.devices.suspect(slot, numbers)
    return decisions


def _quarantine(core: Core, slot: Slot, why: str) -> list[Decision]:
    if slot in core.devices.quarantined:
        return []
    core.devices.quarantine(slot)
    core.waiting.put_back(core.memory.note_absent(slot))
    decisions: list[Decision] = [Quarantine(slot, why)]
    if core.slots.held[slot]:
        decisions += reclaim(core, slot)
    core.slots.note(slot)
    return decisions


def release(core: Core, slot: Slot) -> Quarantine:
    """End a slot's quarantine."""
    core.devices.forget(slot)
    core.memory.note_present(slot)
    core.slots.note(slot)
    return Quarantine(slot, "")


def on_device_suspected(core: Core, rank: int, why: str) -> list[Decision]:
    """Quarantine a device that is far below its peers, or release it if it is not any more."""
    if why:
        core.suspected[rank] = why
        return quarantine_suspected(core)
    if core.suspected.pop(rank, "") == "":
        return []
    return [release(core, slot) for slot in core.slots.of_rank(rank) if slot in core.devices.quarantined]


def quarantine_suspected(core: Core) -> list[Decision]:
    """Quarantine the suspected devices that have joined, as long as another one stays in use."""
    decisions: list[Decision] = []
    for rank, why in core.suspected.items():
        for slot in core.slots.of_rank(rank):
            if slot not in core.devices.quarantined and core.slots.count_usable > 1:
                decisions += _quarantine(core, slot, why)
    return decisions


def note_slowness(core: Core, slot: Slot, number: int, wall_time_s: float) -> list[Decision]:
    """Compare a long trial's duration with the expectation; quarantine a slot that is slow."""
    expected_s = core.model.expected_s(number)
    if not core.policy.quarantine or expected_s is None or not wall_time_s > BATCH_S:
        return []
    why = core.devices.note_duration(slot, wall_time_s, expected_s)
    return _quarantine(core, slot, why) if why else []
