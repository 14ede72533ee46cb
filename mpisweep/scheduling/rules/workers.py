"""Workers that join, for the first time or again, and the trials that they hold."""

from __future__ import annotations

from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Abandon, Decision, Stop
from mpisweep.scheduling.events import WorkerJoined
from mpisweep.scheduling.rules.blame import quarantine_suspected
from mpisweep.scheduling.rules.ends import requeue
from mpisweep.scheduling.rules.losses import leave
from mpisweep.scheduling.trials import RUNNING, WAITING

__all__ = ["on_worker_joined"]


def on_worker_joined(core: Core, event: WorkerJoined, now: float) -> list[Decision]:
    """Take the worker's own list of trials as true; requeue the others that it should hold."""
    rank, held = event.rank, event.held
    if core.rules is not None:
        core.rules.note_worker(rank, event.cores, event.gpus)
    slots = [Slot(rank, index) for index in range(event.slots)]
    core.slots.nodes |= dict.fromkeys(slots, event.host)
    core.memory.note_worker(slots, event.kind, now)
    if core.packing is not None:
        core.packing.note_worker(slots, event.packed_gpu, event.kind)
    for index in event.gone:
        core.gone.setdefault(Slot(rank, index), "a process that cannot be ended may have its device")
    decisions: list[Decision] = []
    for index, slot in enumerate(slots):
        expected = core.away.pop(slot, None) or core.slots.held.get(slot, {})
        kept: dict[int, int] = {}
        # A trial that has ended in an unusable slot runs again: no result of such a slot is awaited.
        for number, attempt in held[index] if index < len(held) and slot not in core.gone else ():
            if expected.get(number) == attempt or _adopt(core, number, attempt):
                kept[number] = attempt
            elif number < core.total:
                # Another slot has it, or it has ended, or it would wait for ranks that are not there.
                decisions.append(Abandon(slot, number, attempt, 0.0))
                if core.waiting.width(number) > 1 and core.trials.states[number] == WAITING:
                    # The next attempt must not be taken for this one.
                    core.trials.attempts[number] = max(core.trials.attempts[number], attempt)
        missing = {number: attempt for number, attempt in expected.items() if number not in kept}
        for number in missing:
            del expected[number]
        decisions += requeue(core, slot, missing, AttemptEnd.RECLAIMED)
        if slot in core.gone:
            if slot in core.slots.held:
                leave(core, slot)
            continue
        if slot not in core.slots.held:
            core.memory.note_present(slot)
        core.slots.join(slot, kept, now)
        core.losses.note_assigned(list(kept))
    decisions += quarantine_suspected(core)
    if core.stopping is not None:
        decisions.append(Stop(max(0.0, core.grace_over_at - now), rank))
    return decisions


def _adopt(core: Core, number: int, attempt: int) -> bool:
    """Mark an attempt that only its worker has recorded as running; False if it is stale."""
    if number >= core.total or core.trials.states[number] != WAITING:
        return False
    if attempt < core.trials.attempts[number] or attempt <= core.asked.retried.get(number, 0):
        return False
    if core.supply is not None and number in core.supply:
        return False
    if core.waiting.width(number) > 1:
        return False
    core.asked.held_back.pop(number, None)
    if not core.memory.take(number):
        core.waiting.discard(number)
    core.trials.attempts[number] = attempt
    core.trials.move(number, RUNNING)
    return True
