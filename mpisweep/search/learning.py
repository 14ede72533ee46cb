"""Searches that learn while the sweep runs, by Optuna's samplers.

T. Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019.

This module says which sampler a sweep uses, with which options; it does not import Optuna.  The search runs
in a process of its own (:mod:`mpisweep.search.serving`), so that neither MPI nor a worker waits for a
sampler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from mpisweep.errors import how_to_add
from mpisweep.search.choices import ChoiceError
from mpisweep.spec import SamplerChoice, Spec, SpecError
from mpisweep.spec.space import Configuration
from mpisweep.spec.wording import Wording

__all__ = ["NAMED", "LearningSearch", "Outcome", "finite_values"]

#: The objectives of a trial that has ended, None for one that is missing; or None if it has no result.
Outcome = Sequence[float | None] | None

#: Search -> its sampler, and options that differ from Optuna's defaults.
NAMED: dict[str, SamplerChoice] = {
    # Joint density instead of one per parameter: it sees that parameters depend on each other.
    "tpe": SamplerChoice("TPESampler", {"multivariate": True}),
    "gp": SamplerChoice("GPSampler", {}),
    "cmaes": SamplerChoice("CmaEsSampler", {}),
    "nsga2": SamplerChoice("NSGAIISampler", {}),
}


def finite_values(outcome: Outcome) -> list[float] | None:
    """The objectives of a trial; None unless all of them are finite."""
    found = [value for value in outcome or () if value is not None and math.isfinite(value)]
    return found if outcome and len(found) == len(outcome) else None


class LearningSearch:
    """A search that proposes configurations from the results so far.

    Args:
        sampler: the sampler and its options.
        trials: number of proposals.
    """

    def __init__(self, sampler: SamplerChoice, trials: int) -> None:
        self.sampler = sampler
        self.trials = trials

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the search of a sweep."""
        assert spec.trials is not None, "the sweep file was checked"
        return cls(spec.sampler or NAMED[spec.search], spec.trials)

    @classmethod
    def check_sweep(cls, spec: Spec) -> None:
        """Check sampler and options, which imports Optuna.

        Raises:
            SpecError: if Optuna is not installed, or the sampler does not exist, refuses its options, or
                takes fewer objectives.
        """
        try:
            from mpisweep.search.samplers import check_sampler
        except ImportError as error:
            Wording(spec.source).fail(
                "search",
                f"{spec.search!r} needs Optuna, which is not installed ({error}); "
                f"{how_to_add('optuna')}, or choose a search that does not learn, such as 'sobol'",
            )
        try:
            check_sampler(cls.from_spec(spec).sampler, objectives=len(spec.objectives))
        except ChoiceError as error:
            raise SpecError(f"{spec.source}: search: {error}") from error

    def __len__(self) -> int:
        """Number of configurations known before any trial has run: none."""
        return 0

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        raise IndexError(index)
