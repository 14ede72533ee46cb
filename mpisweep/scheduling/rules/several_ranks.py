"""The end of a trial of several ranks: it is over when all of its slots have left it.

:mod:`mpisweep.scheduling.teams` determines its cause, :mod:`mpisweep.scheduling.rules.keeping` starts it.
"""

from __future__ import annotations

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Abandon, Commit, Decision, GiveUp
from mpisweep.scheduling.ended import lost_text
from mpisweep.scheduling.rules.learning import observe
from mpisweep.scheduling.rules.retries import retry, wait_again
from mpisweep.scheduling.rules.stops import check_common_error
from mpisweep.scheduling.rules.withholding import learn_memory
from mpisweep.scheduling.teams import TeamTrial

__all__ = ["on_rank_ended", "on_rank_left"]


def on_rank_ended(core: Core, slot: Slot, team: TeamTrial, block: EndedBlock) -> list[Decision]:
    """Note that one rank of a trial has returned or failed."""
    held = core.slots.held[slot]
    if held.get(team.number) != block.attempts[0]:
        return []
    del held[team.number]
    core.slots.note(slot)
    return on_rank_left(core, slot, team, block)


def on_rank_left(core: Core, slot: Slot, team: TeamTrial, how: EndedBlock | AttemptEnd) -> list[Decision]:
    """Note that a slot has left a trial of several ranks, and have the other slots leave it too."""
    team.waits_for.discard(slot)
    if isinstance(how, EndedBlock):
        team.ends.append(how)
    else:
        team.returns[slot] = how
    if team.is_over:
        del core.teams[team.number]
        return _end_team(core, team)
    linger_s = team.linger_s
    if linger_s >= team.linger_sent_s:
        return []
    team.linger_sent_s = linger_s
    return [
        Abandon(other, team.number, team.attempt, linger_s) for other in team.slots if other in team.waits_for
    ]


def _end_team(core: Core, team: TeamTrial) -> list[Decision]:
    slot, number, attempt = team.slots[0], team.number, team.attempt
    verdict = team.verdict()
    if verdict is AttemptEnd.LOST:
        lost = next(slot for slot, end in team.returns.items() if end is AttemptEnd.LOST)
        return [retry(core, slot, number, attempt, team.why or core.gone.get(lost) or lost_text(lost))]
    if isinstance(verdict, AttemptEnd):
        wait_again(core, [number])
        return [GiveUp(slot.rank, [number], [attempt], verdict)]
    verdict, again = learn_memory(core, team.slots, verdict)
    if again:
        return again
    if core.search is not None:
        core.search.tell(verdict)
    core.trials.move(number, verdict.states[0])
    observe(core, verdict)
    return [Commit(verdict), *check_common_error(core, verdict)]
