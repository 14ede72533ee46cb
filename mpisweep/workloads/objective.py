"""Running an objective of Optuna as it is: the trial that it is passed, and what it returns.

The search process proposes a value for every parameter that is known by then.  A parameter that is not among
them, or whose proposed value lies outside what the trial asks for, is drawn at random here.  The draw depends
on the sweep's seed, the trial's number and the parameter's name alone, so another attempt at the trial, and
each of its ranks, draws the same.  What was asked for goes back with the trial's end.

Imports Optuna, which the objective does too.
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial

from mpisweep.records import Value
from mpisweep.spec import RANKS, Spec
from mpisweep.spec.suggested import as_in_range, seed_of, stored_choice
from mpisweep.workloads.trial import Trial

__all__ = ["ObjectiveTrial", "runner"]


def runner(objective: Callable[[BaseTrial], Any], spec: Spec) -> Callable[[Trial], Any]:
    """The function that runs an objective in a trial of this sweep."""

    def run(trial: Trial) -> Any:
        passed = ObjectiveTrial(trial, spec)
        trial.suggested = passed.suggested
        try:
            returned = objective(passed)
        except optuna.TrialPruned:
            if not trial.told_to_stop:
                # The objective's own decision.
                trial.stop(is_pruned=True)
            return None
        return None if trial.told_to_stop else _values(returned, len(spec.objectives))

    return run


def _values(returned: Any, count: int) -> Any:
    """The objectives; Optuna fails a trial for anything else, and so does this."""
    values = returned if isinstance(returned, Sequence) and not isinstance(returned, str) else [returned]
    if len(values) != count:
        raise ValueError(
            f"the objective returned {len(values)} values, and the sweep has {count} objectives; "
            "set 'objective' and 'direction' to one entry per value"
        )
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"the objective returned {returned!r:.80}; expected {_numbers(count)}") from None
    return found[0] if count == 1 else found


def _numbers(count: int) -> str:
    return "a number" if count == 1 else f"{count} numbers"


class ObjectiveTrial(BaseTrial):
    """The trial that an objective of Optuna is passed.

    Args:
        trial: the trial.
        spec: the sweep.

    Attributes:
        suggested: what the objective has asked for and set so far, as results hold it.
    """

    def __init__(self, trial: Trial, spec: Spec) -> None:
        self._trial = trial
        self._spec = spec
        self._proposed: dict[str, Value] = {n: v for n, v in trial.params.items() if n != RANKS}
        self._params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        self._user_attrs: dict[str, Any] = {}
        self._steps: set[int] = set()
        self._started = datetime.datetime.now()
        self.suggested: dict[str, dict[str, Any]] = {"params": {}, "distributions": {}, "user_attrs": {}}

    # ------------------------------------------------------------------------------------- parameters

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """See Optuna."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """See Optuna."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """See Optuna."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """See Optuna, which calls it deprecated."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """See Optuna, which calls it deprecated."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """See Optuna, which calls it deprecated."""
        return self.suggest_float(name, low, high, step=q)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._params:
            # Optuna too has only the first call of a name count.
            check_distribution_compatibility(self._distributions[name], distribution)
            return self._params[name]
        described = json.loads(distribution_to_json(_stored(name, distribution)))
        [value] = self._proposed_value(name, distribution) or self._drawn(name, distribution)
        self._params[name] = value
        self._distributions[name] = distribution
        self.suggested["params"][name] = stored_choice(value)
        self.suggested["distributions"][name] = described
        return value

    def _proposed_value(self, name: str, distribution: BaseDistribution) -> tuple[Any] | None:
        """The value that the search proposes; None if there is none that this trial can take."""
        if name not in self._proposed:
            return None
        return as_in_range(distribution, self._proposed[name])

    def _drawn(self, name: str, distribution: BaseDistribution) -> tuple[Any]:
        sampler = RandomSampler(seed_of(self._spec.seed, f"{self.number}:{name}"))
        # A random sampler looks at neither the study nor the trial.
        return (sampler.sample_independent(None, None, name, distribution),)  # type: ignore[arg-type]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that were suggested so far."""
        return dict(self._params)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What they were drawn from."""
        return dict(self._distributions)

    @property
    def relative_params(self) -> dict[str, Any]:
        """What the search proposes, whether or not the objective asks for it."""
        return dict(self._proposed)

    # ------------------------------------------------------------------------------------- reports

    def report(self, value: float, step: int) -> None:
        """Report the objective at a step, as Optuna has it: one value per step, from step 0 on."""
        if len(self._spec.objectives) > 1:
            raise NotImplementedError("report() is for one objective; Optuna does not take it with several")
        try:
            number, at = float(value), int(step)
        except (TypeError, ValueError):
            raise TypeError(f"report({value!r:.80}, {step!r:.80}): expected a number and a step") from None
        if at < 0:
            raise ValueError(f"report(): the step is {at}; expected at least 0")
        if at in self._steps:
            warnings.warn(f"step {at} was reported before; this report is ignored", stacklevel=2)
            return
        self._steps.add(at)
        self._trial.add(at, {self._spec.objective: number})

    def should_prune(self) -> bool:
        """Whether the trial should end now: its curve is hopeless, or the sweep is being stopped.

        In the second case it runs again when the sweep is resumed.
        """
        return self._trial.should_stop()

    def set_user_attr(self, key: str, value: Any) -> None:
        """Store a value that JSON can hold with the trial."""
        try:
            stored = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError):
            raise TypeError(
                f"set_user_attr({key!r:.80}): JSON cannot hold a {type(value).__name__}; "
                "store a number, a text, or a list or dict of these"
            ) from None
        self._user_attrs[str(key)] = value
        self.suggested["user_attrs"][str(key)] = stored

    def set_constraint(self, key: str, value: float) -> NoReturn:
        """Optuna 5 has it; constraints of trials are not told to the sampler here."""
        raise NotImplementedError(
            f"set_constraint({key!r:.80}): constraints are not passed on to the sampler; "
            "return a worse objective instead, or raise an exception"
        )

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What was set with :meth:`set_user_attr`."""
        return dict(self._user_attrs)

    # ------------------------------------------------------------------------------------- the sweep

    @property
    def number(self) -> int:
        """The trial's number."""
        return self._trial.number

    @property
    def datetime_start(self) -> datetime.datetime:
        """When this attempt began."""
        return self._started

    @property
    def study(self) -> _StudyFacts:
        """Name and directions of the sweep; the trials of a study are not in this process."""
        return _StudyFacts(self._spec)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"trial.{name} is not available: the study is not in this process")


class _StudyFacts:
    """What a trial knows about its study."""

    def __init__(self, spec: Spec) -> None:
        self.study_name = spec.name
        self.directions = [optuna.study.StudyDirection[one.direction.name] for one in spec.objectives]

    @property
    def direction(self) -> optuna.study.StudyDirection:
        """The direction of the only objective."""
        if len(self.directions) > 1:
            raise RuntimeError("the sweep has several objectives; use study.directions")
        return self.directions[0]

    def _is_multi_objective(self) -> bool:
        """Integrations of Optuna ask this."""
        return len(self.directions) > 1

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"study.{name} is not available: the trials of a sweep are proposed and stored by other "
            "processes; read the results file with mpisweep.load()"
        )


def _stored(name: str, distribution: BaseDistribution) -> BaseDistribution:
    """The distribution as results hold it."""
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    stored = [stored_choice(choice) for choice in distribution.choices]
    if len({(type(one), one) for one in stored}) < len(stored):
        raise ValueError(
            f"suggest_categorical({name!r}): several choices have the same text; results hold numbers and "
            "texts, so choose among names or indices instead"
        )
    return CategoricalDistribution(stored)


def _plain(value: Any) -> Any:
    """A number or an array of NumPy, or a tensor, as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError
