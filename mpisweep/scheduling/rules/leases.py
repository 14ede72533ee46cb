"""Rules of a shared sweep: grants, revocations, and requests for more trials.

Only trials that were granted to this allocation wait here (:mod:`mpisweep.scheduling.leasing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision
from mpisweep.scheduling.ended import lost_block
from mpisweep.scheduling.leasing import Supply
from mpisweep.scheduling.rules.reclaiming import reclaim
from mpisweep.scheduling.trials import FAILED, RUNNING

__all__ = ["ask_after_stall", "on_nothing_to_lease", "on_trials_granted", "on_trials_revoked", "replenish"]


def on_trials_granted(
    core: Core, numbers: Sequence[int], attempts: Sequence[int], losses: Sequence[int]
) -> list[Decision]:
    """Queue granted trials; a trial fails if too many allocations were lost with it."""
    assert core.supply is not None
    decisions: list[Decision] = []
    granted: list[int] = []
    new = set(core.supply.grant(numbers, core.waiting.count_aside))
    for number, attempt, lost in zip(numbers, attempts, losses, strict=True):
        if number not in new:
            continue
        core.trials.attempts[number] = max(core.trials.attempts[number], attempt)
        if lost and core.losses.count(number, lost) > core.policy.retries:
            # Each allocation that tried it died: the trial may be the cause.
            core.trials.attempts[number] += 1
            core.trials.move(number, RUNNING)
            core.trials.move(number, FAILED)
            why = "the allocations that tried it were lost, and no retry is left"
            decisions.append(Commit(lost_block(Slot(0, 0), number, core.trials.attempts[number], why)))
            continue
        if attempt:
            core.losses.suspects.add(number)
        granted.append(number)
    core.waiting.add(granted)
    return decisions


def on_trials_revoked(core: Core, numbers: Sequence[int]) -> list[Decision]:
    """Drop trials that others took over, except for running ones."""
    assert core.supply is not None
    core.supply.revoke(numbers)
    decisions: list[Decision] = []
    for number in numbers:
        if core.waiting.discard(number):
            core.supply.note_taken_over(number)
            continue
        holder = core.slots.holder(number)
        slots = core.teams[number].slots if number in core.teams else (holder,) if holder is not None else ()
        # The running trial may finish; the backlog belongs to others.
        for slot in slots:
            if len(core.slots.held.get(slot, ())) > 1:
                decisions += reclaim(core, slot)
    return decisions


def on_nothing_to_lease(core: Core, sure: bool, now: float) -> list[Decision]:
    """Handle an empty answer: ask again later, or end this share."""
    assert core.supply is not None
    is_busy = core.running > 0 or bool(core.teams or core.away or core.memory or core.waiting.count())
    # The search may propose more.
    is_busy = is_busy or (core.proposals is not None and not core.proposals.is_done)
    core.supply.note_nothing_left(sure, is_busy, now)
    return []


def ask_after_stall(core: Core, supply: Supply, decisions: list[Decision], now: float) -> None:
    """After a stall, ask which trials this allocation still owns before any is handed out."""
    request = supply.note_time(now, _max_ranks(core) if _have_joined(core, now) else None)
    if request is not None:
        decisions.append(request)


def replenish(core: Core, supply: Supply, decisions: list[Decision], now: float) -> None:
    """Request more trials before the waiting ones run out."""
    ranks = _max_ranks(core)
    if ranks is not None and not _have_joined(core, now):
        # More slots may join in a moment.
        return
    request = supply.ask(
        ready=_ready(core, now),
        aside=core.waiting.count_aside,
        slots=len(core.slots.held),
        ranks=ranks,
        now=now,
    )
    if request is not None:
        decisions.append(request)


def _have_joined(core: Core, now: float) -> bool:
    return bool(core.slots.held) and core.memory.have_joined(now)


def _max_ranks(core: Core) -> int | None:
    """Maximum number of ranks of a trial that can run here; None if every trial can."""
    if core.waiting.widest == 1:
        return None
    slots = core.slots.count_usable
    return None if core.waiting.widest <= slots else slots


def _ready(core: Core, now: float) -> int:
    """Number of trials to hand out; without wide ones if all workers joined and nothing runs."""
    if _have_joined(core, now) and core.running == 0 and not core.teams:
        return core.waiting.count()
    return len(core.waiting) - core.waiting.count_aside
