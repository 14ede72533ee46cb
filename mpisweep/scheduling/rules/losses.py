"""Lost workers and broken slots: which trials are retried, and whether any slot is left.

A slot that failed costs its trial an attempt, as a lost worker does.  A slot that became unusable never
returns; when none is left, the run ends.
"""

from __future__ import annotations

from mpisweep.records import AttemptEnd, EndReason, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, GiveUp, Quarantine
from mpisweep.scheduling.ended import lost_text
from mpisweep.scheduling.rules.blame import release
from mpisweep.scheduling.rules.ends import requeue
from mpisweep.scheduling.rules.retries import retry, wait_again
from mpisweep.scheduling.rules.several_ranks import on_rank_left

__all__ = ["end_without_slots", "leave", "on_slot_broken", "on_worker_lost"]


def on_worker_lost(core: Core, rank: int) -> list[Decision]:
    """Requeue or fail the trials of a lost worker."""
    decisions: list[Decision] = []
    for slot in core.away_of.pop(rank, ()):
        if slot in core.away:
            decisions += _lose(core, slot, core.away.pop(slot))
    for slot in core.slots.of_rank(rank):
        decisions += _lose(core, slot, leave(core, slot))
    core.any_worker_lost = True
    return decisions + _check_slots_left(core)


def on_slot_broken(
    core: Core, slot: Slot, trial: tuple[int, int] | None, why: str, is_gone: bool
) -> list[Decision]:
    """Retry the trial that a broken slot ran; if the slot `is_gone`, requeue its backlog too."""
    held = core.slots.held.get(slot)
    if is_gone:
        core.gone[slot] = why
    if held is None:
        return []
    decisions: list[Decision] = []
    if trial is not None and held.get(trial[0]) == trial[1]:
        number, attempt = trial
        del held[number]
        core.slots.note(slot)
        if number in core.teams:
            team = core.teams[number]
            team.why = team.why or why
            decisions += on_rank_left(core, slot, team, AttemptEnd.LOST)
        else:
            decisions.append(retry(core, slot, number, attempt, why))
    if not is_gone:
        return decisions
    decisions.append(Quarantine(slot, why))
    # The trials that it was assigned meanwhile have not begun.
    decisions += requeue(core, slot, leave(core, slot), AttemptEnd.RECLAIMED)
    return decisions + _check_slots_left(core)


def _lose(core: Core, slot: Slot, held: dict[int, int]) -> list[Decision]:
    """Requeue the trials of a lost slot; the one to blame fails if it has no retry left."""
    decisions: list[Decision] = []
    alone = [number for number in held if number not in core.teams]
    blamed = core.losses.blame(alone) if next(iter(held), None) not in core.teams else None
    others = [number for number in alone if number != blamed]
    if others:
        wait_again(core, others)
        decisions.append(GiveUp(slot.rank, others, [held[number] for number in others], AttemptEnd.RECLAIMED))
    for number in held:
        if number in core.teams:
            decisions += on_rank_left(core, slot, core.teams[number], AttemptEnd.LOST)
    if blamed is not None:
        decisions.insert(0, retry(core, slot, blamed, held[blamed], lost_text(slot)))
    return decisions


def leave(core: Core, slot: Slot) -> dict[int, int]:
    """Remove a slot; returns the trials that it held."""
    held = core.slots.leave(slot)
    if slot not in core.devices.quarantined:
        core.waiting.put_back(core.memory.note_absent(slot))
    core.devices.forget(slot)
    return held


def _check_slots_left(core: Core) -> list[Decision]:
    """Release the quarantined slots if only they are left; stop the sweep if none is left."""
    decisions: list[Decision] = []
    if core.slots.count_usable == 0:
        decisions += [release(core, slot) for slot in list(core.devices.quarantined)]
    if not core.slots.held and not core.away and core.stopping is None:
        core.stopping = end_without_slots(core)
    return decisions


def end_without_slots(core: Core) -> EndReason:
    """Reason for a run without slots: lost workers return after a restart, hung devices do not."""
    return EndReason.NO_DEVICES if core.gone and not core.any_worker_lost else EndReason.NO_WORKERS
