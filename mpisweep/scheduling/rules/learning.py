"""Learning from ended trials: expected durations, and which trials to add.

A search that adds trials answers at once (:class:`~mpisweep.search.base.AddingSearch`), or later
from a process of its own (:mod:`mpisweep.scheduling.proposals`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.blocks import EndedBlock
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import (
    AddRepeats,
    AddTrials,
    Commit,
    Decision,
    Propose,
)
from mpisweep.scheduling.events import Proposed, ProposedRound, RoundsProposed
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.rules.assigning import BATCH_S
from mpisweep.scheduling.rules.reclaiming import mark_all_changed
from mpisweep.scheduling.rules.sharing import alone_s
from mpisweep.scheduling.trials import COMPLETE, FAILED, PRUNED
from mpisweep.search.base import AddingSearch
from mpisweep.spec.space import Configuration

__all__ = [
    "add_trials",
    "ask_ahead",
    "ask_race",
    "ask_search",
    "learn_durations",
    "observe",
    "on_proposed",
    "on_rounds_proposed",
    "tell_race",
    "would_add",
]

#: Pause between two fits of the durations, in seconds: when many short trials end at once, the first fits
#: follow each other, and meanwhile nothing is handed out.
_FIT_EVERY_S = 0.05


def observe(core: Core, block: EndedBlock) -> None:
    """Learn durations from complete and pruned trials, and objectives for the rules of [stop]."""
    if core.rules is not None:
        core.rules.note(block.states, block.metrics.get(core.rules.objective))
    # Failed trials say little about the durations of others.
    if FAILED not in block.states and core.packing is None:
        core.model.observe(block.numbers, block.wall_time_s)
        return
    kept = [i for i, state in enumerate(block.states) if state in (COMPLETE, PRUNED)]
    measured = [(block.numbers[i], seconds) for i in kept if (seconds := alone_s(core, block, i)) is not None]
    core.model.observe([number for number, _ in measured], [seconds for _, seconds in measured])


def learn_durations(core: Core, now: float) -> None:
    """Fit the durations again, then update the queues and the timetable."""
    given_at = core.slots.given_at
    # A slot that was given more trials since runs its first one for longer than that.
    running_s = {
        next(iter(held)): (now - given_at[slot])
        / (1.0 if core.packing is None else core.packing.slowdown(slot) or core.packing.stretch)
        for slot, held in core.slots.held.items()
        if held
    }
    core.next_fit_at = now + _FIT_EVERY_S
    core.model.fit(running_s)
    # Sorting a hundred thousand trials takes longer than running them if each is this short.
    if core.waiting.count_aside or (core.model.longest_s or 0.0) > BATCH_S:
        core.waiting.reconsider()
    mark_all_changed(core)
    core.slots.doubt_backlogs()


def ask_search(core: Core, search: AddingSearch, decisions: list[Decision]) -> None:
    """Have the search add trials, based on the results so far."""
    configurations = search.ask()
    if not configurations:
        return
    numbers = add_trials(core, configurations, None)
    for number, configuration in zip(numbers, configurations, strict=True):
        search.add(number, configuration)
    core.waiting.add(numbers)
    decisions.append(AddTrials(numbers, configurations))


def tell_race(core: Core, decisions: Sequence[Decision]) -> None:
    """Tell the race of the trials that have ended."""
    if core.race is None:
        return
    for decision in decisions:
        if isinstance(decision, Commit):
            core.race.tell(decision.block)


def ask_race(core: Core, decisions: list[Decision]) -> None:
    """Add the repeats that the race wants, and those for slots that would be idle."""
    race = core.race
    if race is None:
        return
    # Withheld trials are for idle slots too.
    waiting = len(core.waiting) + len(core.slots.with_backlog)
    wanted = race.ask(0 if core.memory else max(0, core.free_places - waiting))
    if not wanted:
        return
    alike = [race.first_trial(configuration) for configuration, _ in wanted]
    numbers = core.trials.grow(len(wanted))
    core.model.repeat(alike)
    if core.packing is not None:
        core.packing.footprints.repeat(alike)
    core.waiting.grow(len(wanted), [core.waiting.width(number) for number in alike])
    for configuration, repeat in wanted:
        race.add(configuration, repeat)
    core.waiting.add(numbers)
    decisions.append(AddRepeats(numbers, [one for one, _ in wanted], [repeat for _, repeat in wanted]))


def would_add(core: Core) -> bool:
    """Whether a search or a race adds trials to those that have all ended."""
    if core.race is not None:
        return bool(core.race.ask(0))
    return core.search is not None and bool(core.search.ask())


def ask_ahead(core: Core, proposals: Proposals, decisions: list[Decision]) -> None:
    """Ask a learning search for configurations before any slot waits for them."""
    if core.supply is not None and not core.supply.is_dry:
        # There may be trials to lease.
        return
    count = proposals.ask(
        slots=core.places + len(core.away),
        idle=core.free_places,
        waiting=len(core.waiting) + len(core.slots.with_backlog),
        usual_s=core.model.usual_s,
    )
    if count:
        decisions.append(Propose(count))


def on_proposed(core: Core, event: Proposed) -> list[Decision]:
    """Add the configurations that a learning search has proposed."""
    assert core.proposals is not None
    core.proposals.note(len(event.configurations), event.seconds, is_exhausted=event.is_exhausted)
    found = _add_proposed(core, core.proposals, event)
    if found is None:
        return []
    core.waiting.add(found.numbers)
    return [found]


def on_rounds_proposed(core: Core, event: RoundsProposed) -> list[Decision]:
    """Add what the members of a shared sweep have proposed; only our own proposals may run here."""
    assert core.proposals is not None
    assert core.supply is not None
    # The last answer's time is that of our own proposals.
    for one in event.rounds:
        core.proposals.note(len(one.configurations), event.seconds, is_exhausted=False)
    if event.is_exhausted or not event.rounds:
        core.proposals.note(0, event.seconds, is_exhausted=event.is_exhausted)
    decisions: list[Decision] = []
    for one in event.rounds:
        found = _add_proposed(core, core.proposals, one)
        if found is None:
            continue
        decisions.append(found)
        if one.is_ours:
            core.waiting.add(found.numbers)
            core.supply.note_own(len(found.numbers), core.waiting.count_aside)
        else:
            core.supply.add(found.numbers)
    return decisions


def _add_proposed(core: Core, proposals: Proposals, made: Proposed | ProposedRound) -> AddTrials | None:
    """Add the trials of proposals, which wait nowhere yet; None without any."""
    configurations = list(made.configurations)
    if not configurations:
        return None
    repeats = proposals.repeats
    numbers = add_trials(core, configurations * repeats, made.widths * repeats)
    core.memory.note_proposed(configurations * repeats)
    return AddTrials(numbers, configurations, made.known, repeats)


def add_trials(
    core: Core, configurations: Sequence[Configuration], widths: Sequence[int] | None
) -> list[int]:
    """Add trials that wait, in no queue yet; returns their numbers."""
    numbers = core.trials.grow(len(configurations))
    core.model.grow(configurations)
    if core.packing is not None:
        core.packing.footprints.add(configurations)
    core.waiting.grow(len(configurations), widths)
    return numbers
