"""More points for a sweep over a grid, as a user adds them to a sweep that exists.

Given parameters take the given values, all others those of the sweep file.  The conditions and constraints of
the sweep file hold for the new points too.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mpisweep.records import Value
from mpisweep.search.survivors import TooManyError, survivors
from mpisweep.spec import Spec, SpecError, fitting, nearest
from mpisweep.spec.domains import Choice, FloatRange, IntegerRange, Parameter, SpaceError
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.parameters import parse_quick
from mpisweep.spec.space import Configuration, SearchSpace
from mpisweep.spec.wording import COMMAND_LINE, Wording

__all__ = ["MORE_AT_MOST", "more_points"]

#: Most points per request: the master adds them between two messages.
MORE_AT_MOST = 100_000
#: The searches whose trials are points of a space, which more points do not change.
_SEARCHES = ("grid", "points")
_WORDING = Wording(COMMAND_LINE)


def more_points(spec: Spec, texts: Sequence[str]) -> tuple[list[Configuration], int]:
    """The configurations of ``-p NAME=VALUES``, and how many points violate a constraint.

    Args:
        spec: the sweep file.
        texts: as for ``mpisweep run``: ranges, lists or single values of searched parameters.

    Raises:
        SpecError: if the sweep takes no more points, or these are none of its space.
    """
    if spec.search not in _SEARCHES:
        how = "; raise 'trials' in the sweep file" if spec.trials is not None else ""
        raise SpecError(f"{spec.name}: its search is {spec.search!r}, and only a grid takes more points{how}")
    given = dict(_given(spec, text) for text in texts)
    if len(given) < len(texts):
        raise SpecError("command line: -p: a parameter is given twice")
    space = _space(spec.space, given)
    if spec.built_in is not None:
        fitting.check_options(_WORDING, spec.built_in, space, {}, None)
    fitting.check_command(_WORDING, spec.workload, space, spec.fixed)
    if space.size is None or space.size > MORE_AT_MOST:
        many = f"{space.size:,}"
        raise SpecError(f"command line: -p: these are {many} points; a request adds up to {MORE_AT_MOST:,}")
    if space.is_product:
        return [space.point(index) for index in range(space.size)], 0
    try:
        indices = survivors(space, MORE_AT_MOST).indices
    except (ExpressionError, TooManyError) as error:
        raise SpecError(f"command line: -p: {error}") from error
    if not indices:
        rules = ", ".join(repr(constraint.text) for constraint in space.constraints)
        raise SpecError(f"command line: -p: no point satisfies {rules}")
    excluded = 0 if space.conditions else space.size - len(indices)
    return [space.point(index) for index in indices], excluded


def _given(spec: Spec, text: str) -> tuple[str, Parameter]:
    """Parse one ``NAME=VALUES``."""
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        _WORDING.fail(f"parameters.{text}", "expected NAME=VALUES, e.g. batch_size=701:1024")
    by_name = {parameter.name: parameter for parameter in spec.space.parameters}
    if name in spec.fixed:
        _WORDING.fail(f"parameters.{name}", f"is fixed at {spec.fixed[name]!r} in the sweep file")
    if name not in by_name:
        _WORDING.fail(f"parameters.{name}", f"is not searched; {nearest(name, spec.space.names)}")
    try:
        return name, _like(by_name[name], values)
    except SpaceError as error:
        _WORDING.fail(f"parameters.{name}", str(error))


def _like(before: Parameter, text: str) -> Parameter:
    """Parse values of the same type as those that the sweep has."""
    is_text = isinstance(before, Choice) and all(isinstance(value, str) for value in before.values)
    if is_text:
        return Choice(before.name, tuple(dict.fromkeys(text.split(","))))
    found = parse_quick(before.name, text)
    if not isinstance(found, IntegerRange | FloatRange | Choice):
        found = Choice(before.name, (found,))
    if found.count is None:
        raise SpaceError(f"found {text!r}; a grid needs its number of points: {text}:points=8")
    if found.count > MORE_AT_MOST:
        raise SpaceError(f"found {found.count:,} values; a request adds up to {MORE_AT_MOST:,} points")
    values: list[Value] = [found.at(index) for index in range(found.count)]
    if isinstance(before, FloatRange):
        values = [_number(value) for value in values]
    kind, wanted = {type(value) for value in values}, _type_of(before)
    if kind != {wanted}:
        raise SpaceError(f"found {text!r}; expected values like those of the sweep file: {before.describe()}")
    return Choice(before.name, tuple(values))


def _number(value: Value) -> Value:
    return float(value) if type(value) is int else value


def _type_of(parameter: Parameter) -> type:
    return type(parameter.at(0)) if not isinstance(parameter, FloatRange) else float


def _space(space: SearchSpace, given: dict[str, Parameter]) -> SearchSpace:
    """The space of the new points."""
    if space.points is not None and (missing := [name for name in space.names if name not in given]):
        _WORDING.fail(
            f"parameters.{missing[0]}",
            "is missing; the sweep has a list of points, to which every parameter must be given",
        )
    for group in space.zipped:
        counts = {given[name].count for name in group if name in given}
        if counts and (len(counts) > 1 or not all(name in given for name in group)):
            _WORDING.fail(
                f"parameters.{group[0]}",
                f"{' and '.join(group)} vary together; give equally many values of each",
            )
    parameters = tuple(given.get(parameter.name, parameter) for parameter in space.parameters)
    return replace(space, parameters=parameters, points=None)
