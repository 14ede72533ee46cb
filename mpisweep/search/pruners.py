"""Optuna's pruners by name, with checked options.

Imports Optuna: only the process of a pruner does, and the check before a sweep starts.
"""

from __future__ import annotations

import warnings
from typing import Any

import optuna

from mpisweep.search.choices import check_choice
from mpisweep.spec import PrunerChoice
from mpisweep.spec.pruner import WRAPPED

__all__ = ["make_pruner", "pruner_names", "rests_on_reports_alone"]

#: It prunes nothing; a sweep without pruner has none.
_EXCLUDED = ("BasePruner", "NopPruner")
#: Their decisions keep something, in the study or in themselves, that later ones depend on.
_WITH_STATE = ("SuccessiveHalvingPruner", "HyperbandPruner")

optuna.logging.set_verbosity(optuna.logging.ERROR)


def pruner_names() -> list[str]:
    """Names of the pruners that a sweep file can choose."""
    return [name for name in optuna.pruners.__all__ if name.endswith("Pruner") and name not in _EXCLUDED]


def rests_on_reports_alone(choice: PrunerChoice) -> bool:
    """Whether its decisions depend on nothing but the reports and states of the trials."""
    wrapped = choice.options.get(WRAPPED)
    if isinstance(wrapped, PrunerChoice) and not rests_on_reports_alone(wrapped):
        return False
    return choice.name not in _WITH_STATE


def make_pruner(choice: PrunerChoice) -> optuna.pruners.BasePruner:
    """Create a pruner.

    Args:
        choice: its class and options, without short names; see :func:`mpisweep.search.pruning.resolved`.

    Raises:
        ChoiceError: if it does not exist, or refuses its options.
    """
    known = {name: getattr(optuna.pruners, name) for name in pruner_names()}
    options: dict[str, Any] = dict(choice.options)
    if isinstance(options.get(WRAPPED), PrunerChoice):
        options[WRAPPED] = make_pruner(options[WRAPPED])
    elif choice.name == "PatientPruner":
        # Without one it judges by itself.
        options.setdefault(WRAPPED, None)
    made: list[optuna.pruners.BasePruner] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        check_choice(
            "pruner", choice.name, choice.options, known, lambda: made.append(known[choice.name](**options))
        )
    return made[0]
