"""Optuna's samplers by name, with checked options.

Imports Optuna: only the process of a search does, and the check before a sweep starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers._tpe import _truncnorm
from optuna.trial import FrozenTrial
from scipy.special import log_ndtr

from mpisweep.search.choices import ChoiceError, check_choice, options_of
from mpisweep.spec import SamplerChoice

__all__ = ["check_sampler", "keeps_no_state", "make_sampler", "sampler_names"]

#: They need objects that a sweep file cannot hold, or do what `search = "grid"` does.
_EXCLUDED = ("BaseSampler", "BaseGASampler", "GridSampler", "PartialFixedSampler")
#: Their proposals depend on the trials of the study alone.  Others keep something in the study while they
#: propose, so that it can only be rebuilt by proposing again.
_WITHOUT_STATE = ("TPESampler", "GPSampler", "RandomSampler")
#: Options of CMA-ES that exclude a start from known trials.
_CMAES_STARTS = {"x0", "sigma0", "source_trials", "use_separable_cma", "with_margin"}

# A warning per proposal would fill the log; Optuna's errors are told by the search.
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# Optuna computes the logarithm of the normal distribution in Python, value by value: two thirds of what a
# proposal over integers costs.  SciPy's agrees to 1e-13.  A version without this function keeps its own.
if hasattr(_truncnorm, "_log_ndtr"):
    _truncnorm._log_ndtr = log_ndtr


def sampler_names() -> list[str]:
    """Names of the samplers that a sweep file can choose."""
    return [name for name in optuna.samplers.__all__ if name.endswith("Sampler") and name not in _EXCLUDED]


def keeps_no_state(name: str) -> bool:
    """Whether proposals of this sampler depend on the trials of the study alone."""
    return name in _WITHOUT_STATE


class _JointTPE(optuna.samplers.TPESampler):
    """A TPE sampler that is told its space, which it would else find by comparing all trials.

    Of its candidates it takes the best one that is new.  Else it repeats itself once it has converged, and a
    dozen of proposals are made for each one that can be used.
    """

    #: All parameters that vary.
    space: Mapping[str, BaseDistribution]
    #: Whether a proposal with these values can be used.
    is_new: Callable[[Mapping[str, Any]], bool]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return dict(self.space)

    def _compute_acquisition_func(self, samples: dict[str, Any], *densities: Any) -> Any:
        """See Optuna; a version without this method may repeat itself, and is then asked again."""
        values = super()._compute_acquisition_func(samples, *densities)
        for place in np.argsort(-values, kind="stable"):
            point = {name: one.to_external_repr(samples[name][place]) for name, one in self.space.items()}
            if self.is_new(point):
                values[place] = np.inf
                break
        return values


def check_sampler(choice: SamplerChoice, *, objectives: int = 1) -> None:
    """Check a sampler's name and options.

    Args:
        choice: the sampler.
        objectives: their number.

    Raises:
        ChoiceError: if it does not exist, refuses its options, or takes fewer objectives.
    """
    if "seed" in choice.options:
        raise ChoiceError("option 'seed' does not apply; the sweep's own 'seed' seeds the sampler")
    known = {name: getattr(optuna.samplers, name) for name in sampler_names()}
    check_choice(
        "sampler", choice.name, choice.options, known, lambda: make_sampler(choice, seed=0), without=["seed"]
    )
    if objectives > 1:
        _check_takes_several(choice, objectives)


def _check_takes_several(choice: SamplerChoice, objectives: int) -> None:
    # A sampler for one objective refuses the first proposal of a study with several.
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=make_sampler(choice, seed=0))
    try:
        study.ask({"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)})
    except ValueError as error:
        raise ChoiceError(
            f"{choice.name} takes one objective, and 'objective' lists {objectives}; "
            "choose a search that takes several: tpe, nsga2 or gp"
        ) from error


def make_sampler(
    choice: SamplerChoice,
    *,
    seed: int,
    space: Mapping[str, BaseDistribution] | None = None,
    is_new: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    imported: Sequence[FrozenTrial] = (),
) -> optuna.samplers.BaseSampler:
    """Create a sampler, once per proposal.

    Args:
        choice: its name and options, checked by :func:`check_sampler`.
        seed: for its random numbers, below 2**32.
        space: the parameters of every trial, if it is known that all have the same ones.
        is_new: whether a proposal with these values of the parameters that vary can be used.
        imported: trials known from elsewhere; CMA-ES learns from its own trials alone, but starts from these.
    """
    options = dict(choice.options)
    if "seed" in options_of(getattr(optuna.samplers, choice.name)):
        options["seed"] = seed
    if imported and choice.name == "CmaEsSampler" and not _CMAES_STARTS & options.keys():
        options["source_trials"] = list(imported)
    joint = options.get("multivariate") and not options.get("group")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if choice.name == "TPESampler" and joint and space is not None:
            told = _JointTPE(**options)
            told.is_new = is_new
            told.space = {name: one for name, one in sorted(space.items()) if not one.single()}
            return told
        made: optuna.samplers.BaseSampler = getattr(optuna.samplers, choice.name)(**options)
        return made
