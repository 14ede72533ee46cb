"""Which pruner a sweep uses, with which options; this module does not import Optuna.

A pruner ends trials whose curve is hopeless.  It runs in a process of its own beside the master
(:mod:`mpisweep.master.judge`), and decides there by :mod:`mpisweep.search.judging`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mpisweep.errors import how_to_add
from mpisweep.search.choices import ChoiceError
from mpisweep.spec import PrunerChoice, Spec, SpecError
from mpisweep.spec.wording import Wording

__all__ = ["NAMED", "check_pruner", "resolved"]

_MEDIAN = PrunerChoice("MedianPruner", {})
#: Short name -> its pruner, and options that differ from Optuna's defaults or have none.
NAMED: Mapping[str, PrunerChoice] = MappingProxyType({
    "median": _MEDIAN,
    "percentile": PrunerChoice("PercentilePruner", {"percentile": 25.0}),
    # L. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020.
    "asha": PrunerChoice("SuccessiveHalvingPruner", {}),
    "hyperband": PrunerChoice("HyperbandPruner", {}),
    # By itself it would prune trials that have converged, among them the best.
    "patient": PrunerChoice("PatientPruner", {"wrapped_pruner": _MEDIAN, "patience": 5}),
    # Reports that are NaN or infinite.
    "threshold": PrunerChoice(
        "ThresholdPruner", {"lower": -sys.float_info.max, "upper": sys.float_info.max}
    ),
})  # fmt: skip


def resolved(choice: PrunerChoice) -> PrunerChoice:
    """Replace short names, here and in the options, by Optuna's classes and their options.

    Options of the sweep file replace those of the short name; for `threshold`, both limits.
    """
    named = NAMED.get(choice.name)
    usual: Mapping[str, Any] = {} if named is None else named.options
    if choice.name == "threshold" and {"lower", "upper"} & choice.options.keys():
        usual = {}
    options = {**usual, **choice.options}
    return PrunerChoice(
        choice.name if named is None else named.name,
        {k: resolved(v) if isinstance(v, PrunerChoice) else v for k, v in options.items()},
    )


def check_pruner(spec: Spec) -> None:
    """Check pruner and options of a sweep that has one, which imports Optuna.

    Raises:
        SpecError: if Optuna is not installed, or the pruner does not exist or refuses its options.
    """
    assert spec.prune is not None
    try:
        from mpisweep.search.pruners import make_pruner
    except ImportError as error:
        Wording(spec.source).fail(
            "prune", f"needs Optuna, which is not installed ({error}); {how_to_add('optuna')}, or remove it"
        )
    try:
        make_pruner(resolved(spec.prune))
    except ChoiceError as error:
        raise SpecError(f"{spec.source}: prune: {error}") from error
