"""Retries: trials that wait again, and trials without a retry left.

A trial that was assigned and has no end waits again at the head of its queue.  A lost trial (its worker died,
or its slot broke) is retried up to `retries` times; then it fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision, GiveUp
from mpisweep.scheduling.ended import lost_block
from mpisweep.scheduling.trials import FAILED, WAITING

__all__ = ["queue_first", "retry", "wait_again"]


def wait_again(core: Core, numbers: Sequence[int], *, is_first: bool = True) -> None:
    """Put assigned trials back into their queues, at their heads or in sorted order."""
    for number in numbers:
        core.trials.move(number, WAITING)
    if core.supply is not None:
        numbers = core.supply.keep_ours(numbers)
    numbers = core.memory.hold(numbers)
    if is_first:
        core.waiting.put_back(numbers)
    else:
        core.waiting.add(numbers)


def queue_first(core: Core, number: int, kind: str | None) -> None:
    """Hand out a waiting trial before all others, to a device of this kind."""
    if core.waiting.width(number) > 1 or not core.memory.bind(number, kind):
        core.waiting.put_back([number])


def retry(core: Core, slot: Slot, number: int, attempt: int, why: str) -> Decision:
    """Retry a trial that was lost because of `why`, or fail it if no retry is left."""
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
