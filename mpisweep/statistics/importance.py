"""How much each parameter matters, by Optuna's evaluators.

* PED-ANOVA compares the distribution of each parameter's values among the best tenth of the trials with that
  among all (Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently quantifying hyperparameter importance in
  arbitrary subspaces", IJCAI 2023): what matters for being among the best.
* fANOVA fits a random forest and divides its variance among the parameters (Hutter, Hoos and Leyton-Brown,
  "An efficient approach for assessing hyperparameter importance", ICML 2014): what matters over the whole
  space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "METHODS", "MOST", "importances"]

#: Methods, the default first.
METHODS = ("ped-anova", "fanova")
#: Trials below which nothing can be said, and above which some that lie evenly among them are used.
FEWEST, MOST = 10, 5000
_SEED = 1


def importances(
    columns: Mapping[str, NDArray[Any]],
    values: NDArray[np.float64],
    *,
    minimize: bool = True,
    method: str = METHODS[0],
    logarithmic: frozenset[str] = frozenset(),
) -> dict[str, float]:
    """Compute the share of each parameter; the shares add up to 1.

    Args:
        columns: parameter -> its value in each trial, numbers or texts; each has at least two values.
        values: the objective of each trial, finite.
        minimize: whether a smaller value is better.
        method: one of :data:`METHODS`.
        logarithmic: parameters that act by ratios.

    Raises:
        ImportError: if Optuna is not installed.
        ValueError: if there are fewer than :data:`FEWEST` trials or no parameters.
    """
    if len(values) < FEWEST or not columns:
        raise ValueError(f"{len(values)} trials and {len(columns)} parameters; expected {FEWEST} and 1")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(column, name in logarithmic) for name, column in columns.items()}
    lists = {name: column.tolist() for name, column in columns.items()}
    chosen = np.arange(len(values))
    if len(chosen) > MOST:
        chosen = np.unique(np.linspace(0, len(values) - 1, MOST).round().astype(int))
    study = optuna.create_study(direction="minimize" if minimize else "maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column[row] for name, column in lists.items()},
                distributions=distributions,
                value=float(values[row]),
            )
            for row in chosen.tolist()
        ]
    )
    evaluator = (
        optuna.importance.PedAnovaImportanceEvaluator()
        if method == "ped-anova"
        else optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
    )
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _distribution(column: NDArray[Any], logarithmic: bool) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if column.dtype.kind in "iu":
        low, high = int(column.min()), int(column.max())
        return IntDistribution(low, high, log=logarithmic and low > 0)
    if column.dtype.kind == "f":
        low_f, high_f = float(column.min()), float(column.max())
        return FloatDistribution(low_f, high_f, log=logarithmic and low_f > 0)
    return CategoricalDistribution(tuple(dict.fromkeys(column.tolist())))
