"""Learning from ended trials: expected durations, and which trials to add."""

from __future__ import annotations

from mpisweep.blocks import EndedBlock
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import AddTrials, Decision
from mpisweep.scheduling.rules.assigning import BATCH_S
from mpisweep.scheduling.rules.reclaiming import mark_all_changed
from mpisweep.scheduling.trials import COMPLETE, FAILED, PRUNED
from mpisweep.search.largest_batch import LargestBatch

__all__ = ["ask_search", "learn_durations", "observe"]


def observe(core: Core, block: EndedBlock) -> None:
    """Learn durations from complete and pruned trials; failed ones say little about others."""
    if FAILED not in block.states:
        core.model.observe(block.numbers, block.wall_time_s)
        return
    kept = [i for i, state in enumerate(block.states) if state in (COMPLETE, PRUNED)]
    core.model.observe([block.numbers[i] for i in kept], [block.wall_time_s[i] for i in kept])


def learn_durations(core: Core) -> None:
    """Fit the durations again, then update the queues and the timetable."""
    core.model.fit()
    # Sorting a hundred thousand trials takes longer than running them if each is this short.
    if core.waiting.count_aside or (core.model.longest_s or 0.0) > BATCH_S:
        core.waiting.reconsider()
    mark_all_changed(core)


def ask_search(core: Core, search: LargestBatch, decisions: list[Decision]) -> None:
    """Have the search add trials, based on the results so far."""
    configurations = search.ask()
    if not configurations:
        return
    numbers = core.trials.grow(len(configurations))
    core.model.grow(configurations)
    for number, configuration in zip(numbers, configurations, strict=True):
        search.add(number, configuration)
    core.waiting.grow(len(numbers))
    core.waiting.add(numbers)
    decisions.append(AddTrials(numbers, configurations))
