"""What an objective of Optuna has suggested, as results hold it.

Such an objective names its parameters while it runs, so the search space is what its trials have asked for so
far.  Of each trial that has ended the results hold

* ``params``: parameter -> its value; one that is not a number, text or boolean is stored as its text,
* ``distributions``: parameter -> what it was drawn from, as :func:`optuna.distributions.distribution_to_json`
  has it,
* ``user_attrs``: what the objective set with ``set_user_attr``.

Pure, and without Optuna.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpisweep.records import Value
from mpisweep.spec.keys import INTEGER_AT_MOST
from mpisweep.spec.space import Choice, FloatRange, IntegerRange, Parameter, SearchSpace

__all__ = ["as_in_range", "place_of_choice", "seed_of", "space_of", "stored_choice"]

#: Longest text of a choice.
_CHOICE_CHARS = 200


def seed_of(seed: int, what: str) -> int:
    """A seed below 2**32 for one of Optuna's samplers, from the sweep's seed and what it is for."""
    text = f"{seed}:{what}".encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


def stored_choice(choice: object) -> Value:
    """What results hold in place of a choice: itself, or its text."""
    if isinstance(choice, (bool, float, str)):
        return choice
    if isinstance(choice, int) and abs(choice) <= INTEGER_AT_MOST:
        return choice
    return f"{choice!r:.{_CHOICE_CHARS}}"


def place_of_choice(choices: Sequence[object], value: Value) -> int | None:
    """The choice that a stored value stands for; None if there is none.

    A results file may have read it back as a float, or as text if the choices are of several types.
    """
    stored = [stored_choice(choice) for choice in choices]
    tests = (
        lambda one: type(one) is type(value) and one == value,
        lambda one: isinstance(one, bool) == isinstance(value, bool) and one == value,
        lambda one: str(one) == str(value),
    )
    for test in tests:
        for place, one in enumerate(stored):
            if test(one):
                return place
    return None


def as_in_range(distribution: Any, value: Value) -> tuple[Any] | None:
    """A stored or proposed value as a distribution has it; None if it is not one of its values.

    Args:
        distribution: an :class:`optuna.distributions.BaseDistribution`.
        value: of results, or of a proposal.
    """
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        place = place_of_choice(choices, value)
        return None if place is None else (choices[place],)
    try:
        internal = distribution.to_internal_repr(value)
        # Optuna asks the same of what its samplers propose.
        is_inside = not isinstance(value, bool) and distribution._contains(internal)
    except (TypeError, ValueError):
        return None
    return (distribution.to_external_repr(internal),) if is_inside else None


def space_of(suggested: Sequence[Mapping[str, Mapping[str, Any]]]) -> SearchSpace:
    """The search space that trials have found: the union of what each of them has asked for.

    Args:
        suggested: of each trial: parameter -> distribution.  What is not one is skipped.
    """
    known: dict[str, Parameter] = {}
    # Most trials have the same distributions.
    asked = {(name, json.dumps(one)): one for trial in suggested for name, one in trial.items()}
    for (name, _), described in asked.items():
        found = _parameter(name, described)
        if found is not None:
            known[name] = _union(known[name], found) if name in known else found
    optional = (name for name in known if not all(name in trial for trial in suggested))
    return SearchSpace(tuple(known.values()), optional=frozenset(optional))


def _parameter(name: str, described: Mapping[str, Any]) -> Parameter | None:
    try:
        has = described["attributes"]
        match described["name"]:
            case "FloatDistribution":
                return FloatRange(name, float(has["low"]), float(has["high"]), has["step"], bool(has["log"]))
            case "IntDistribution":
                return IntegerRange(
                    name, int(has["low"]), int(has["high"]), int(has["step"]), bool(has["log"])
                )
            case "CategoricalDistribution":
                return Choice(name, tuple(map(stored_choice, has["choices"])))
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _union(known: Parameter, found: Parameter) -> Parameter:
    """The parameter with the values of both; the first one if they are of different kinds."""
    if isinstance(known, Choice) and isinstance(found, Choice):
        new = [value for value in found.values if not known.contains(value)]
        return Choice(known.name, (*known.values, *new))
    if isinstance(known, IntegerRange) and isinstance(found, IntegerRange):
        step = known.step if (known.step, known.low) == (found.step, found.low) else 1
        low, high = min(known.low, found.low), max(known.high, found.high)
        return IntegerRange(known.name, low, high, step, known.log and found.log)
    if isinstance(known, FloatRange) and isinstance(found, FloatRange):
        gap = known.step if (known.step, known.low) == (found.step, found.low) else None
        bottom, top = min(known.low, found.low), max(known.high, found.high)
        return FloatRange(known.name, bottom, top, gap, known.log and found.log)
    return known
