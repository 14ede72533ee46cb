"""Running a trial again: what goes back to the queue, and what has no retry left.

A trial that ran, or was about to, waits again at the head of the queue.  A trial that was lost (its worker
died, or its slot broke) is retried `retries` times; after that it has failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision, GiveUp
from mpisweep.scheduling.ended import lost_block
from mpisweep.scheduling.trials import FAILED, WAITING

__all__ = ["queue_first", "retry", "wait_again"]


def wait_again(core: Core, numbers: Sequence[int]) -> None:
    """Trials that ran, or were to run, wait again, and are the next ones."""
    for number in numbers:
        core.trials.move(number, WAITING)
    if core.supply is not None:
        numbers = core.supply.keep_ours(numbers)
    core.waiting.put_back(core.memory.hold(numbers))


def queue_first(core: Core, number: int, kind: str | None) -> None:
    """A trial is to be handed out before all others, to a device of this kind."""
    if core.waiting.width(number) > 1 or not core.memory.bind(number, kind):
        core.waiting.put_back([number])


def retry(core: Core, slot: Slot, number: int, attempt: int, why: str) -> Decision:
    """A trial was lost, and `why`: it waits again, or has failed when no retry is left."""
    if core.losses.count(number) <= core.policy.retries:
        wait_again(core, [number])
        return GiveUp(slot.rank, [number], [attempt], AttemptEnd.LOST)
    core.memory.forget(number)
    core.losses.note_ended([number])
    core.trials.move(number, FAILED)
    block = lost_block(slot, number, attempt, f"{why}, and no retry is left")
    if core.search is not None:
        core.search.tell(block)
    return Commit(block)
