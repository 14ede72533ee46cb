"""Propose for an objective of Optuna, which names its parameters while it runs.

What the search knows of the space is what the trials that ended have asked for.  A proposal holds a value for
every parameter known by then: the sampler's joint proposal where it makes one, and its independent one for
the others, exactly as if a trial of Optuna asked for all of them.  The trial takes those that it asks for,
and draws what is new (:mod:`mpisweep.workloads.objective`); when it ends, what it has asked for takes the
place of the proposal in the study.  So the study is what Optuna's own would be, with one difference: a name
whose kind or choices change from trial to trial, which Optuna refuses, is left out of the later trials.

A proposal depends on the sampler, the seed, the trial's number and the ends known when it was made, so that
another process rebuilds the search from these (:mod:`mpisweep.search.proposing`).  Configurations may repeat,
as in Optuna.  Imports Optuna.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    json_to_distribution,
)
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mpisweep.records import Direction
from mpisweep.search.past import End, Past, end_trial
from mpisweep.search.samplers import keeps_no_state, make_sampler
from mpisweep.search.thinning import ThinnedStorage
from mpisweep.spec import SamplerChoice
from mpisweep.spec.space import Configuration
from mpisweep.spec.suggested import as_in_range, seed_of, stored_choice

__all__ = ["SuggestingProposer"]


class SuggestingProposer:
    """A learning search over a space that the trials find.

    Args:
        sampler: the sampler and its options.
        seed: the sweep's seed.
        directions: of each objective, whether smaller or larger values are better.
        past: the trials so far; the configuration of one that has not ended is what was proposed for it.
    """

    def __init__(
        self, sampler: SamplerChoice, seed: int, directions: Sequence[Direction], past: Past
    ) -> None:
        self._sampler = sampler
        self._seed = seed
        #: Parameter -> what it was last drawn from, in the order in which ends have named them.
        self._known: dict[str, BaseDistribution] = {}
        signs = [1.0 if one is Direction.MINIMIZE else -1.0 for one in directions]
        self._thinned = ThinnedStorage(signs) if sampler.name == "TPESampler" else None
        self._storage = self._thinned or InMemoryStorage()
        #: Its trials have the sweep's numbers.
        self._study = optuna.create_study(
            directions=[direction.value for direction in directions],
            storage=self._storage,
            sampler=self._sampler_for("start"),
        )
        #: Number of ends told.
        self.ends = 0
        self._rebuild(past)

    def _rebuild(self, past: Past) -> None:
        ended = {end.number: end for end in past.ends}
        for number, configuration in enumerate(past.configurations):
            known = past.known.get(number)
            if known is not None:
                self.tell(past.ends[self.ends : known])
            if known is None or keeps_no_state(self._sampler.name):
                self._add(configuration)
            elif not self._agrees(self._propose(number), configuration, ended.get(number)):
                # Another version of the sampler: take the recorded proposal, without its state.
                self._replace(number, self._encoded(configuration, self._known), {})
        self.tell(past.ends[self.ends :])

    def _agrees(self, proposal: Configuration, configuration: Configuration, end: End | None) -> bool:
        """Whether what was recorded follows from this proposal."""
        if end is None or end.suggested is None:
            return self._encoded(proposal, self._known) == self._encoded(configuration, self._known)
        found, ranges = _asked(end.suggested)
        # A value outside of what the trial asked for was drawn by the trial.
        return all(found[name][0] == value for name, (value, _) in self._encoded(proposal, ranges).items())

    # ------------------------------------------------------------------------------------- ask and tell

    def ask(self, first: int, count: int) -> list[Configuration]:
        """Propose configurations for trials from `first` on."""
        return [self._propose(number) for number in range(first, first + count)]

    def _propose(self, number: int) -> Configuration:
        self._study.sampler = self._sampler_for(f"{number}:0")
        trial = self._study.ask(self._known)
        assert trial.number == number, "trials are proposed in the order of their numbers"
        return {name: stored_choice(value) for name, value in trial.params.items()}

    def tell(self, ends: Iterable[End]) -> None:
        """Learn from trials that ended."""
        for end in ends:
            self.ends += 1
            trials = self._study.get_trials(deepcopy=False)
            if end.number >= len(trials) or trials[end.number].state.is_finished():
                continue
            if end.suggested is None:
                # It died, or what it has asked for was lost to damage.
                end = End(end.number, None)
            else:
                self._settle(end.number, end.suggested)
            if self._thinned is not None:
                self._thinned.note(end.number, end)
            end_trial(self._study, end.number, end)

    # ------------------------------------------------------------------------------------- the study

    def _settle(self, number: int, suggested: Mapping[str, Mapping[str, Any]]) -> None:
        """Put what a trial has asked for in place of what was proposed for it."""
        found, _ = _asked(suggested)
        for name, (_, distribution) in list(found.items()):
            try:
                check_distribution_compatibility(self._known.get(name, distribution), distribution)
            except ValueError:
                del found[name]
            else:
                self._known[name] = distribution
        frozen = self._study.get_trials(deepcopy=False)[number]
        self._replace(number, found, frozen.system_attrs)

    def _replace(
        self, number: int, params: Mapping[str, tuple[Any, BaseDistribution]], system_attrs: dict[str, Any]
    ) -> None:
        frozen: FrozenTrial = copy.copy(self._study.get_trials(deepcopy=False)[number])
        frozen.params = {name: value for name, (value, _) in params.items()}
        frozen.distributions = {name: distribution for name, (_, distribution) in params.items()}
        frozen.system_attrs = system_attrs
        # Optuna's interface can add parameters to a trial, but not remove one.
        self._storage._set_trial(frozen._trial_id, frozen)

    def _add(self, configuration: Configuration) -> None:
        """Add a running trial that was not proposed here."""
        params = self._encoded(configuration, self._known)
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params={name: value for name, (value, _) in params.items()},
                distributions={name: distribution for name, (_, distribution) in params.items()},
            )
        )

    @staticmethod
    def _encoded(
        configuration: Configuration, ranges: Mapping[str, BaseDistribution]
    ) -> dict[str, tuple[Any, BaseDistribution]]:
        """Value and distribution of the parameters whose value lies in a known distribution."""
        pairs = {
            name: as_in_range(one, configuration[name])
            for name, one in ranges.items()
            if name in configuration
        }
        return {name: (value[0], ranges[name]) for name, value in pairs.items() if value is not None}

    def _sampler_for(self, what: str) -> optuna.samplers.BaseSampler:
        return make_sampler(self._sampler, seed=seed_of(self._seed, what))


def _asked(
    suggested: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, tuple[Any, BaseDistribution]], dict[str, BaseDistribution]]:
    """What a trial has asked for: parameter -> its value and distribution, and -> its distribution."""
    pairs = ((name, _distribution(json.dumps(one))) for name, one in suggested["distributions"].items())
    ranges = {name: one for name, one in pairs if one is not None}
    return SuggestingProposer._encoded(dict(suggested["params"]), ranges), ranges


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution | None:
    """The distribution with this text; None for another version's, or a damaged one."""
    try:
        return json_to_distribution(text)
    except (ValueError, KeyError, TypeError):
        return None
