"""A sweep that several allocations share: what is granted, what others take over, and when to ask for more.

Only what was granted to this allocation waits here (:mod:`mpisweep.scheduling.leasing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Commit, Decision
from mpisweep.scheduling.ended import lost_block
from mpisweep.scheduling.leasing import Supply
from mpisweep.scheduling.rules.reclaiming import ask_back
from mpisweep.scheduling.trials import FAILED, RUNNING

__all__ = ["look_at_clock", "on_nothing_to_lease", "on_trials_granted", "on_trials_revoked", "replenish"]


def on_trials_granted(
    core: Core, numbers: Sequence[int], attempts: Sequence[int], losses: Sequence[int]
) -> list[Decision]:
    """Queue what was granted, unless too many allocations were lost with it."""
    assert core.supply is not None
    decisions: list[Decision] = []
    granted: list[int] = []
    new = set(core.supply.grant(numbers, core.waiting.count_aside))
    for number, attempt, lost in zip(numbers, attempts, losses, strict=True):
        if number not in new:
            continue
        core.trials.attempts[number] = max(core.trials.attempts[number], attempt)
        if lost and core.losses.count(number, lost) > core.policy.retries:
            # Each allocation that tried it has ended: it may be what they died of.
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
    """Give up what others have taken over, except for what runs."""
    assert core.supply is not None
    core.supply.revoke(numbers)
    decisions: list[Decision] = []
    for number in numbers:
        if core.waiting.discard(number):
            core.supply.send_away(number)
            continue
        holder = core.slots.holder(number)
        slots = core.teams[number].slots if number in core.teams else (holder,) if holder is not None else ()
        # What it runs it may as well finish; what is next is for others.
        for slot in slots:
            if len(core.slots.held.get(slot, ())) > 1:
                decisions += ask_back(core, slot)
    return decisions


def on_nothing_to_lease(core: Core, sure: bool, now: float) -> list[Decision]:
    """Nothing was granted: ask again later, or finish this share."""
    assert core.supply is not None
    is_busy = core.running > 0 or bool(core.teams or core.away or core.memory or core.waiting.count())
    core.supply.nothing(sure, is_busy, now)
    return []


def look_at_clock(core: Core, supply: Supply, decisions: list[Decision], now: float) -> None:
    """After a pause, ask what is still this allocation's before anything is handed out."""
    wanted = supply.note_time(now, _ranks_at_most(core) if _have_joined(core, now) else None)
    if wanted is not None:
        decisions.append(wanted)


def replenish(core: Core, supply: Supply, decisions: list[Decision], now: float) -> None:
    """Ask for more trials while there is still something to do."""
    ranks = _ranks_at_most(core)
    if ranks is not None and not _have_joined(core, now):
        # There may be slots enough for any trial in a moment.
        return
    wanted = supply.ask(
        ready=_ready(core, now),
        aside=core.waiting.count_aside,
        slots=len(core.slots.held),
        ranks=ranks,
        now=now,
    )
    if wanted is not None:
        decisions.append(wanted)


def _have_joined(core: Core, now: float) -> bool:
    return bool(core.slots.held) and core.memory.have_joined(now)


def _ranks_at_most(core: Core) -> int | None:
    """How many ranks a trial may have to run here; None where that is so for all of them."""
    if core.waiting.widest == 1:
        return None
    slots = core.slots.count_usable
    return None if core.waiting.widest <= slots else slots


def _ready(core: Core, now: float) -> int:
    """How many trials a slot can have; where all have joined and nothing runs, not those of several ranks."""
    if _have_joined(core, now) and core.running == 0 and not core.teams:
        return core.waiting.count()
    return len(core.waiting) - core.waiting.count_aside
