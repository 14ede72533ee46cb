"""Optuna by itself: a study in memory that is asked whenever a worker is idle, in virtual time."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from math import inf

import optuna

from mpisweep.records import Value
from searching.simulator import Ended
from searching.tables import Outcome, Table

__all__ = ["optuna_alone"]

Distribution = optuna.distributions.IntDistribution | optuna.distributions.CategoricalDistribution


def distribution(values: list[Value]) -> Distribution:
    """Numbers in order become their index, and so do ours; anything else is a choice."""
    if isinstance(values[0], str):
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    return optuna.distributions.IntDistribution(0, len(values) - 1)


def optuna_alone(
    table: Table,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    workers: int,
    trials: int,
    seed: int,
    *,
    until: float = inf,
) -> list[Ended]:
    """Run a study; returns the ends of its trials, in their order.

    Args:
        table: what trials give.
        sampler: of the study.
        pruner: of the study; it sees the reports of every trial as they come.
        workers: number of trials that run at a time.
        trials: number of trials at most.
        seed: of the table's runs.
        until: seconds after which no end is seen any more.
    """
    space = {name: distribution(list(values)) for name, values in table.parameters.items()}
    # Hyperband derives the bracket of a trial from the name.
    study = optuna.create_study(study_name=str(seed), sampler=sampler, pruner=pruner)
    is_pruning = not isinstance(pruner, optuna.pruners.NopPruner)
    seen: Counter[int] = Counter()
    #: (when, in which order, trial, what it gives, number of its next report).
    queue: list[tuple[float, int, optuna.Trial, Outcome, float, int]] = []
    ends: list[Ended] = []
    order = 0

    def later(begun: float, trial: optuna.Trial, outcome: Outcome, report: int) -> None:
        nonlocal order
        order += 1
        is_end = not is_pruning or report == len(outcome.reports)
        seconds = outcome.seconds if is_end else outcome.reports[report][0]
        heappush(queue, (begun + seconds, order, trial, outcome, begun, report))

    def begin(now: float) -> None:
        trial = study.ask(space)
        row = table.index(configuration(trial))
        # Asked again, a configuration gives its next run.
        outcome = table.outcome(row, seen[row], seed)
        seen[row] += 1
        later(now, trial, outcome, 0)

    def configuration(trial: optuna.Trial) -> dict[str, Value]:
        return {name: values[trial.params[name]] for name, values in table.parameters.items()}

    for _ in range(min(workers, trials)):
        begin(0.0)
    begun = len(queue)
    while queue and queue[0][0] <= until:
        now, _, trial, outcome, since, report = heappop(queue)
        is_pruned = False
        if is_pruning and report < len(outcome.reports):
            trial.report(outcome.reports[report][1], report + 1)
            is_pruned = trial.should_prune()
            if not is_pruned:
                later(since, trial, outcome, report + 1)
                continue
        loss = None if is_pruned else outcome.loss
        study.tell(trial, loss, state=optuna.trial.TrialState.PRUNED if is_pruned else None)
        ends.append(Ended(now, configuration(trial), loss))
        if begun < trials:
            begin(now)
            begun += 1
    return ends
