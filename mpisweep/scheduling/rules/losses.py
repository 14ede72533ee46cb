"""Lost workers and broken slots: which of their trials are retried, and who is left.

A slot that failed, and not its trial, costs that trial an attempt, as a lost worker does.  A slot that is of
no use any more never returns; when none is left, the run ends.
"""

from __future__ import annotations

from mpisweep.records import AttemptEnd, EndReason, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, GiveUp, Quarantine
from mpisweep.scheduling.ended import lost_text
from mpisweep.scheduling.rules.blame import release
from mpisweep.scheduling.rules.ends import requeue
from mpisweep.scheduling.rules.retries import retry, wait_again
from mpisweep.scheduling.rules.several_ranks import let_go

__all__ = ["leave", "nobody_left", "on_slot_broken", "on_worker_lost"]


def on_worker_lost(core: Core, rank: int) -> list[Decision]:
    """A worker is lost, and with it all that its slots hold."""
    decisions: list[Decision] = []
    for slot in core.away_of.pop(rank, ()):
        if slot in core.away:
            decisions += _lose(core, slot, core.away.pop(slot))
    for slot in core.slots.of_rank(rank):
        decisions += _lose(core, slot, leave(core, slot))
    core.any_worker_lost = True
    return decisions + _see_who_is_left(core)


def on_slot_broken(
    core: Core, slot: Slot, trial: tuple[int, int] | None, why: str, is_gone: bool
) -> list[Decision]:
    """A slot lost the trial it ran; if the slot `is_gone`, what it had next waits again too."""
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
            decisions += let_go(core, slot, team, AttemptEnd.LOST)
        else:
            decisions.append(retry(core, slot, number, attempt, why))
    if not is_gone:
        return decisions
    decisions.append(Quarantine(slot, why))
    # What it was given meanwhile it has not begun.
    decisions += requeue(core, slot, leave(core, slot), AttemptEnd.RECLAIMED)
    return decisions + _see_who_is_left(core)


def _lose(core: Core, slot: Slot, held: dict[int, int]) -> list[Decision]:
    """A slot went away with these trials: they wait again, unless one is to blame and has no retry left."""
    decisions: list[Decision] = []
    alone = [number for number in held if number not in core.teams]
    blamed = core.losses.blame(alone) if next(iter(held), None) not in core.teams else None
    others = [number for number in alone if number != blamed]
    if others:
        wait_again(core, others)
        decisions.append(GiveUp(slot.rank, others, [held[number] for number in others], AttemptEnd.RECLAIMED))
    for number in held:
        if number in core.teams:
            decisions += let_go(core, slot, core.teams[number], AttemptEnd.LOST)
    if blamed is not None:
        decisions.insert(0, retry(core, slot, blamed, held[blamed], lost_text(slot)))
    return decisions


def leave(core: Core, slot: Slot) -> dict[int, int]:
    """A slot is not there any more; returns what it held."""
    held = core.slots.leave(slot)
    if slot not in core.devices.quarantined:
        core.waiting.put_back(core.memory.note_absent(slot))
    core.devices.forget(slot)
    return held


def _see_who_is_left(core: Core) -> list[Decision]:
    """Some slots are gone: a device that may be ill is better than none, and without any the run ends."""
    decisions: list[Decision] = []
    if core.slots.count_usable == 0:
        decisions += [release(core, slot) for slot in list(core.devices.quarantined)]
    if not core.slots.held and not core.away and core.stopping is None:
        core.stopping = nobody_left(core)
    return decisions


def nobody_left(core: Core) -> EndReason:
    """Why nobody is left: workers may be back when the ranks are started again, devices that hang are not."""
    return EndReason.NO_DEVICES if core.gone and not core.any_worker_lost else EndReason.NO_WORKERS
