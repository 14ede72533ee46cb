"""The searches that the benchmark compares, each by mpisweep and, where there is one, by Optuna alone.

Sweeps with repeats run on the table that has many runs with common seeds, and all others on the other tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import optuna

from mpisweep.records import Direction
from mpisweep.search import make_sampler as make_listed
from mpisweep.search.judging import Judge
from mpisweep.search.learning import NAMED
from mpisweep.search.numbering import number_trials
from mpisweep.search.proposing import Past, Proposer
from mpisweep.search.pruners import make_pruner
from mpisweep.search.pruning import resolved
from mpisweep.search.samplers import make_sampler
from mpisweep.search.spread import places
from mpisweep.spec import PrunerChoice, Repeats, SamplerChoice
from mpisweep.spec.space import Configuration
from searching.alone import optuna_alone
from searching.simulator import Ended, learning_sweep, listed_sweep, sweep_of_file
from searching.tables import Outcome, Table

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A search as a sweep file asks for it.

    Attributes:
        name: in tables and figures.
        search: as in a sweep file.
        prune: as in a sweep file; empty for no pruning.
        group: of searches that are drawn together.
        only: the tables on which it is run; empty for all.
        without_choices: whether it is left out where a parameter is no number.
        most_trials: trials per sweep, if these are fewer than usual.
        most_workers: the largest number of workers with which it is run.
        repeats: as in a sweep file; None where these are not compared.  A grid then has all configurations,
            and a search that learns as many trials as others.
    """

    name: str
    search: str
    group: str = "samplers"
    prune: str = ""
    only: tuple[str, ...] = ()
    without_choices: bool = False
    most_trials: int | None = None
    most_workers: int | None = None
    repeats: Repeats | None = None

    @property
    def has_twin(self) -> bool:
        """Whether Optuna can do the same by itself."""
        return (self.search in NAMED or bool(self.prune)) and self.repeats is None

    def suits(self, table: Table, workers: int) -> bool:
        """Whether it is run on a table with so many workers."""
        if self.only and table.name not in self.only:
            return False
        if table.has_common_seeds != (self.repeats is not None):
            return False
        if self.without_choices and table.has_choices:
            return False
        return self.most_workers is None or workers <= self.most_workers

    def trials(self, table: Table, usual: int) -> int:
        """Number of trials of a sweep, at most."""
        if self.repeats is not None and self.search == "grid":
            return table.size * self.repeats.most
        return min(usual, self.most_trials or usual)

    def run(self, table: Table, workers: int, trials: int, seed: int) -> list[Ended]:
        """Run a sweep in virtual time; returns the ends of its trials, in their order."""

        def run_trial(configuration: Configuration, repeat: int) -> Outcome:
            return table.outcome(table.index(configuration), repeat, seed)

        repeats = self.repeats or Repeats()
        judge = (
            Judge(resolved(PrunerChoice(self.prune, {})), Direction.MINIMIZE, seed) if self.prune else None
        )
        if self.repeats is not None and self.search == "grid":
            told = f"{{ from = {repeats.first}, to = {repeats.most} }}" if repeats.is_race else repeats.first
            spec = table.spec(self.search, seed, trials, f"repeats = {told}")
            sweep = sweep_of_file(spec, run_trial, workers)
        elif self.search not in NAMED:
            listed = _listed(table, self.search, trials, seed)
            sweep = listed_sweep(listed, run_trial, workers, judge=judge)
        else:
            space = table.spec(self.search, seed, trials).space
            search = Proposer(space, NAMED[self.search], seed, [Direction.MINIMIZE], Past([], {}, []))
            names = list(table.parameters)
            sweep = learning_sweep(
                search, names, trials // repeats.first, run_trial, workers,
                repeats=repeats.first, judge=judge,
            )  # fmt: skip
        sweep.run()
        return sweep.ends

    def run_alone(self, table: Table, workers: int, trials: int, seed: int) -> list[Ended]:
        """The same by Optuna alone."""
        sampler = make_sampler(NAMED.get(self.search, SamplerChoice("RandomSampler", {})), seed=seed)
        pruner = optuna.pruners.NopPruner()
        if self.prune:
            pruner = make_pruner(resolved(PrunerChoice(self.prune, {})))
        return optuna_alone(table, sampler, pruner, workers, trials, seed)


def _listed(table: Table, search: str, trials: int, seed: int) -> list[Configuration]:
    """The first configurations of a search that does not learn, in the order of handing out."""
    if search == "grid":
        return _spread(table)[:trials]
    sampler = make_listed(table.spec(search, seed, trials))
    return [sampler[index] for index in range(len(sampler))]


@cache
def _spread(table: Table) -> list[Configuration]:
    """All configurations in spread order."""
    spec = table.spec("grid", 0, 0)
    sampler = make_listed(spec)
    order = places(spec, number_trials(spec, sampler, None))
    assert order is not None
    found: list[Configuration] = [{}] * len(order)
    for number, place in enumerate(order):
        found[place] = sampler[number]
    return found


METHODS = [
    Method("exhaustive", "grid"),
    Method("random", "random"),
    Method("sobol", "sobol"),
    Method("tpe", "tpe"),
    Method("cmaes", "cmaes", without_choices=True),
    Method("nsga2", "nsga2"),
    # Its proposals cost a tenth of a second each, and more with every trial.
    Method("gp", "gp", only=("digits",), most_trials=40, most_workers=8),
    *(
        Method(f"{search} + {prune}", search, group="pruning", prune=prune, only=("digits",))
        for search, prune in (("random", "asha"), ("tpe", "median"), ("tpe", "asha"), ("tpe", "hyperband"))
    ),
    *(
        Method(name, search, group="repeats", repeats=repeats)
        for name, search, repeats in (
            ("grid x 1", "grid", Repeats(1, 1)),
            ("grid x 3", "grid", Repeats(3, 3)),
            ("grid x 10", "grid", Repeats(10, 10)),
            ("race 2:10", "grid", Repeats(2, 10)),
            ("tpe x 1", "tpe", Repeats(1, 1)),
            ("tpe x 3", "tpe", Repeats(3, 3)),
        )
    ),
]
