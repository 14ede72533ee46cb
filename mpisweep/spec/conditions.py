"""Parse what makes a space more than a product: ``when``, ``else``, ``where`` and ``zip``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpisweep.dataclass import dataclass
from mpisweep.records import Value
from mpisweep.spec.domains import FloatRange, Parameter, SpaceError, ends
from mpisweep.spec.expression import Expression, ExpressionError, kind_of
from mpisweep.spec.keys import RANKS, nearest
from mpisweep.spec.space import Condition, SearchSpace
from mpisweep.spec.wording import Wording

__all__ = ["RawCondition", "split_condition", "with_rules"]


@dataclass(frozen=True, slots=True)
class RawCondition:
    """``when`` and ``else`` of an entry of [parameters], as they were found; None if missing."""

    when: Any
    otherwise: Any


def split_condition(raw: Any) -> tuple[Any, RawCondition | None]:
    """Split an entry of [parameters] into its domain and its condition."""
    if not isinstance(raw, dict) or not raw.keys() & {"when", "else"}:
        return raw, None
    domain = {key: value for key, value in raw.items() if key not in ("when", "else")}
    if domain.keys() == {"values"}:
        # Choices without `memory` are a plain list.
        domain = domain["values"]
    return domain, RawCondition(raw.get("when"), raw.get("else"))


def with_rules(
    wording: Wording,
    raw: Mapping[str, Any],
    space: SearchSpace,
    found: Mapping[str, RawCondition],
    constants: Mapping[str, Value],
    *,
    is_recorded: bool,
) -> SearchSpace:
    """Add ``zip``, ``when`` and ``where`` to a space.

    Args:
        wording: of the sweep.
        raw: the sweep file.
        space: its parameters.
        found: parameter -> its condition.
        constants: fixed values, and defaults of the workload.
        is_recorded: whether the sweep file comes from a results file; it was checked then.
    """
    kinds = {parameter.name: kind_of(ends(parameter)[0]) for parameter in space.parameters}
    by_name = {parameter.name: parameter for parameter in space.parameters}
    conditions = tuple(
        _condition(wording, by_name[name], entry, Expression(str(entry.when), kinds, constants))
        for name, entry in found.items()
    )
    constraints = tuple(Expression(text, kinds, constants) for text in _texts(wording, raw))
    made = SearchSpace(
        space.parameters, _zipped(wording, raw, by_name), conditions, constraints, space.points
    )
    if not is_recorded:
        _check(wording, made)
    return made


def _texts(wording: Wording, raw: Mapping[str, Any]) -> list[str]:
    """Parse ``where``: one string or a list of strings."""
    found = raw.get("where", [])
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        wording.fail(
            "where",
            f'is {found!r}; expected a list of strings such as ["batch_size * ranks_per_trial <= 64"]',
        )
    return list(texts)


def _condition(wording: Wording, parameter: Parameter, entry: RawCondition, when: Expression) -> Condition:
    """Check the condition of a parameter against its domain."""
    key = f"parameters.{parameter.name}"
    if entry.when is None:
        wording.fail(key, "found 'else' without 'when'; it is the value where 'when' does not hold")
    if not isinstance(entry.when, str):
        wording.fail(key, f"'when' is {entry.when!r}; expected a string such as \"optimizer == 'sgd'\"")
    if parameter.memory:
        wording.fail(key, "found both 'memory' and 'when'; expected one of them")
    otherwise, kind = entry.otherwise, kind_of(ends(parameter)[0])
    if otherwise is not None:
        if not isinstance(otherwise, (int, float, str, bool)) or kind_of(otherwise) != kind:
            wording.fail(key, f"'else' is {otherwise!r}; expected a {kind}, like its other values")
        if isinstance(otherwise, (int, float)) and not -(2**63) <= otherwise < 2**63:
            wording.fail(key, f"'else' is {otherwise!r}; expected a finite number of at most 64 bits")
        if isinstance(otherwise, int) and isinstance(ends(parameter)[0], float):
            otherwise = float(otherwise)
    elif parameter.name == RANKS:
        wording.fail(key, "found 'when' without 'else'; every trial needs a number of ranks, e.g. else = 1")
    elif "" in ends(parameter):
        wording.fail(key, "found '' among the choices; results files show an absent value like that")
    return Condition(parameter.name, when, otherwise)


def _zipped(
    wording: Wording, raw: Mapping[str, Any], by_name: Mapping[str, Parameter]
) -> tuple[tuple[str, ...], ...]:
    """Parse ``zip``: groups of at least two parameters with equally many values."""
    found = raw.get("zip", [])
    example = '[["batch_size", "learning_rate"]]'
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        wording.fail("zip", f"is {found!r}; expected a list of groups: [{found!r}]".replace("'", '"'))
    if not isinstance(found, list) or not all(isinstance(group, list) for group in found):
        wording.fail("zip", f"is {found!r}; expected a list of groups such as {example}")
    seen: set[str] = set()
    for group in found:
        for name in group:
            if not isinstance(name, str) or name not in by_name:
                wording.fail("zip", f"{name!r} is not under [parameters]; {nearest(str(name), by_name)}")
            if name in seen:
                wording.fail("zip", f"{name!r} is there twice; a parameter varies together with one group")
            seen.add(name)
        if len(group) < 2:
            wording.fail("zip", f"has the group {group!r}; expected at least two parameters")
        _check_group(wording, [by_name[name] for name in group])
    return tuple(tuple(group) for group in found)


def _check_group(wording: Wording, group: Sequence[Parameter]) -> None:
    for parameter in group:
        if parameter.count is None:
            assert isinstance(parameter, FloatRange)
            wording.fail(
                "zip",
                f"{parameter.name!r} is continuous ({parameter.describe()}), and what varies together needs "
                "points; set 'step' or 'points'",
            )
    if len({parameter.count for parameter in group}) > 1:
        counts = " and ".join(f"{p.count:,} values of {p.name!r}" for p in group)
        wording.fail("zip", f"found {counts}; what varies together needs equally many values")


def _check(wording: Wording, space: SearchSpace) -> None:
    """Check all expressions, and that no condition depends on itself."""
    together = {name for group in space.zipped for name in group}
    for condition in space.conditions:
        key = f"parameters.{condition.name}"
        if condition.name in together:
            wording.fail(key, "found 'when', but it is also in 'zip'; expected one of them")
        try:
            condition.when.check()
        except ExpressionError as error:
            wording.fail(key, f"'when' is {error}")
    try:
        assert len(space.ordered_conditions) == len(space.conditions)
    except SpaceError as error:
        wording.fail("parameters", f"'when' {error}")
    for constraint in space.constraints:
        try:
            constraint.check()
        except ExpressionError as error:
            wording.fail("where", str(error))
        if not constraint.names:
            searched = ", ".join(space.names) or "none"
            wording.fail("where", f"{constraint.text!r} has no searched parameter; searched are {searched}")
