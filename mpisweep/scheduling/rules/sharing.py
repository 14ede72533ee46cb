"""What trials of a shared GPU show: memory, gain of sharing, and duration alone.

:mod:`mpisweep.scheduling.packing` contains the logic.
"""

from __future__ import annotations

from dataclasses import replace

from mpisweep.blocks import EndedBlock
from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Share
from mpisweep.scheduling.sharing import GAIN
from mpisweep.scheduling.trials import COMPLETE, PRUNED

__all__ = ["alone_s", "learn_use"]


def learn_use(core: Core, slot: Slot, block: EndedBlock) -> tuple[EndedBlock, list[Decision]]:
    """Learn from ended trials; returns their block with the mean number on the GPU of each."""
    packing = core.packing
    if packing is None or not packing.is_packed(slot):
        return block, []
    decisions: list[Decision] = []
    kind = packing.kind_of(slot)
    trials = [packing.mean_trials(slot, number) for number in block.numbers]
    unknown: list[float | None] = [None] * len(trials)
    memories, busy = block.gpu_memory or unknown, block.gpu_busy or unknown
    for index, number in enumerate(block.numbers):
        state, memory = block.states[index], memories[index]
        if state in (COMPLETE, PRUNED) and memory is not None:
            packing.footprints.learn(number, kind, memory)
        mean = trials[index]
        # The first trial of a process takes longer, and a pruned one less than it would.
        if state == COMPLETE and mean is not None and packing.was_warm(slot, number):
            wall_time_s = block.wall_time_s[index]
            change = packing.sharing[kind].note(number, wall_time_s, mean, busy[index])
            if change is not None:
                step = None if change.step >= GAIN else change.step
                decisions.append(Share(kind, change.trials, change.gain, step))
    return replace(block, gpu_trials=trials), decisions


def alone_s(core: Core, block: EndedBlock, index: int) -> float | None:
    """Duration that an ended trial would have had with its GPU alone; None if that is unknown."""
    wall_time_s = block.wall_time_s[index]
    if core.packing is None:
        return wall_time_s
    trials = block.gpu_trials[index] if block.gpu_trials else None
    slowdown = core.packing.slowdown(Slot(block.worker, block.slot), trials)
    return None if slowdown is None else wall_time_s / slowdown
