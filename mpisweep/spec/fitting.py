"""Check that the keys of a sweep file agree with each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mpisweep.dataclass import replace
from mpisweep.records import Direction, Objective, Value
from mpisweep.spec.catalogue import SPEED, WorkloadDescription
from mpisweep.spec.commandline import CommandError, CommandWorkload, check_formats
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.keys import ADDING, AUTO, LEARNING, RANKS, RANKS_AT_MOST, nearest, right_place
from mpisweep.spec.model import BuiltinWorkload, FunctionWorkload, Spec, Workload
from mpisweep.spec.space import Configuration, FloatRange, IntegerRange, Parameter, SearchSpace, ends
from mpisweep.spec.wording import Wording

__all__ = [
    "check_baseline", "check_command", "check_metrics", "check_one_objective", "check_options",
    "check_ranks", "check_rules_of_one", "check_size", "check_twice", "objectives_of",
    "with_batch_size", "with_largest_batch",
]  # fmt: skip


def check_twice(wording: Wording, space: SearchSpace, fixed: Mapping[str, Value]) -> None:
    """Reject a parameter that is both searched and fixed."""
    for name in fixed:
        if name in space.names:
            wording.fail(
                f"fixed.{name}", "is also under [parameters]; a parameter is either searched or fixed"
            )


def check_metrics(wording: Wording, raw: Mapping[str, Any], workload: Workload) -> None:
    """Reject patterns of metrics for anything but a command line."""
    if "metrics" in raw and not isinstance(workload, CommandWorkload):
        wording.fail(
            "metrics", "only applies to a command line; other workloads report their metrics themselves"
        )


def check_options(
    wording: Wording,
    described: WorkloadDescription,
    space: SearchSpace,
    fixed: Configuration,
    baseline: Configuration | None,
) -> None:
    """Reject names that are no options of the workload, and values that these do not allow."""
    for table, names in (("parameters", space.names), ("fixed", fixed), ("baseline", baseline or ())):
        _check_names(wording, described, table, names)
    _check_values(wording, described, space, fixed, baseline)


def _check_names(wording: Wording, described: WorkloadDescription, table: str, names: Iterable[str]) -> None:
    """Reject names that are not options of the workload."""
    known = [*(option.name for option in described.options), RANKS]
    for name in names:
        if name not in known:
            place = "" if wording.is_typed else right_place(name, table)
            meant = f"it belongs {place}" if place else nearest(name, known)
            wording.fail(f"{table}.{name}", f"{described.name} has no such option; {meant}")


def _check_values(
    wording: Wording,
    described: WorkloadDescription,
    space: SearchSpace,
    fixed: Configuration,
    baseline: Configuration | None,
) -> None:
    """Reject values that the workload's options do not allow."""
    for table, name, value in _values(space, fixed, baseline):
        option = described.option(name)
        problem = option.problem(value) if option else None
        if problem:
            wording.fail(f"{table}.{name}", problem)


def _values(
    space: SearchSpace, fixed: Configuration, baseline: Configuration | None
) -> Iterator[tuple[str, str, Value]]:
    """Yield table, name and value of every parameter: ends of a range, all choices of a list."""
    for table, values in (("fixed", fixed), ("baseline", baseline or {})):
        yield from ((table, name, value) for name, value in values.items())
    for parameter in space.parameters:
        yield from (("parameters", parameter.name, value) for value in ends(parameter))
    for condition in space.conditions:
        if condition.otherwise is not None:
            yield "parameters", condition.name, condition.otherwise


def check_command(wording: Wording, workload: Workload, space: SearchSpace, fixed: Configuration) -> None:
    """Reject a command line whose placeholders do not match the sweep's parameters."""
    if not isinstance(workload, CommandWorkload):
        return
    values: dict[str, list[Value]] = {name: [value] for name, value in fixed.items()}
    for parameter in space.parameters:
        values[parameter.name] = ends(parameter)
    for condition in space.conditions:
        if condition.otherwise is None:
            wording.fail(
                f"parameters.{condition.name}",
                "found 'when' without 'else'; a command line needs every parameter's value, e.g. else = 0",
            )
        values[condition.name] = [*values[condition.name], condition.otherwise]
    try:
        check_formats(workload, values)
    except CommandError as error:
        wording.fail(error.key, error.problem)
    for name in space.names:
        # Placeholders of a template are checked when it is read.
        if name not in workload.names and not workload.template and name != RANKS:
            wording.fail(
                f"parameters.{name}",
                f"is not used: the command does not contain {{{name}}}" if wording.is_typed
                else f"is not used: neither workload.command nor workload.env contains {{{name}}}",
            )  # fmt: skip


def check_baseline(
    wording: Wording, workload: Workload, space: SearchSpace, baseline: Configuration | None
) -> None:
    """Reject a baseline without a value that it needs, or with one that cannot exist in it."""
    if baseline is None:
        return
    is_complete = isinstance(workload, BuiltinWorkload)
    try:
        inactive = space.inactive(baseline)
    except ExpressionError as error:
        wording.fail("baseline", str(error))
    for name in space.names:
        if name not in baseline and name not in inactive and not is_complete:
            wording.fail("baseline", f"{name!r} is missing; a baseline must set every searched parameter")
    for condition in space.conditions:
        if condition.name in inactive.intersection(baseline):
            wording.fail(
                f"baseline.{condition.name}",
                f"is set, but {condition.when.text!r} does not hold for the baseline",
            )


def objectives_of(
    wording: Wording,
    described: WorkloadDescription | None,
    names: str | list[str],
    directions: str | list[str],
) -> tuple[Objective, ...]:
    """Combine the values of ``objective`` and ``direction``; one direction applies to all."""
    names = [names] if isinstance(names, str) else names
    metrics = [metric.name for metric in described.metrics] if described else names
    for name in names:
        if described is not None and name not in metrics:
            wording.fail("objective", f"{described.name} has no metric {name!r}; {nearest(name, metrics)}")
    if isinstance(directions, str):
        directions = [directions] * len(names)
    if len(directions) != len(names):
        wording.fail(
            "direction",
            f"lists {len(directions)} for {len(names)} objective{'s' * (len(names) > 1)}; "
            "expected one word for all, or one for each",
        )
    return tuple(Objective(name, Direction(word)) for name, word in zip(names, directions, strict=True))


def check_one_objective(wording: Wording, search: str, names: str | list[str]) -> None:
    """Reject several objectives of a search that compares trials by one."""
    if search in ("largest_batch", "batch_size") and not isinstance(names, str) and len(names) > 1:
        wording.fail("objective", f"lists {len(names)} metrics; {wording.set('search', search)} needs one")


def check_rules_of_one(wording: Wording, spec: Spec) -> None:
    """Reject what compares trials by one objective in a sweep with several."""
    keys = {
        "stop.target": spec.stop.target is not None,
        "stop.patience": spec.stop.patience is not None,
        "import": bool(spec.imports),
        "prune": spec.prune is not None,
    }
    for key in (key for key, is_set in keys.items() if is_set and len(spec.objectives) > 1):
        wording.fail(key, f"needs one objective, and 'objective' lists {len(spec.objectives)}; remove it")


def check_ranks(wording: Wording, spec: Spec) -> None:
    """Reject invalid numbers of ranks per trial."""
    for table, name, value in _values(spec.space, spec.fixed, spec.baseline):
        if name != RANKS:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= RANKS_AT_MOST:
            wording.fail(f"{table}.{name}", f"is {value!r}; expected an integer from 1 to {RANKS_AT_MOST:,}")
        elif value > 1 and spec.devices_per_trial < 1:
            share = f'"{AUTO}"' if spec.packs else f"{spec.devices_per_trial:g}"
            wording.fail(
                "devices_per_trial",
                f"is {share}, but ranks of one trial cannot share a GPU; remove it",
            )


def with_largest_batch(
    wording: Wording, raw: dict[str, Any], space: SearchSpace, *, has_speed: bool
) -> tuple[SearchSpace, dict[str, Any]]:
    """Add what a search for the largest batch implies to the space and the sweep file.

    Args:
        wording: of the sweep.
        raw: the sweep file.
        space: its parameters.
        has_speed: whether the workload reports :data:`~mpisweep.spec.catalogue.SPEED`.
    """
    search = wording.set("search", "largest_batch")
    if len(space.parameters) != 1:
        wording.fail(
            "parameters", f"has {len(space.parameters)} entries; {search} needs exactly one, the batch size"
        )
    [parameter] = space.parameters
    key = f"parameters.{parameter.name}"
    values = ends(parameter)
    if parameter.count is None or any(isinstance(value, (bool, str)) or value <= 0 for value in values):
        wording.fail(key, f"varies over {parameter.describe()}; {search} needs finitely many numbers above 0")
    if parameter.memory == "decreasing":
        wording.fail(key, f"'memory' is 'decreasing'; {search} needs 'increasing'")
    if "trials" in raw:
        wording.fail("trials", f"does not apply to {search}, which ends by itself")
    if "objective" not in raw and not has_speed:
        wording.fail("objective", f"is missing; {search} needs the metric that measures speed")
    usual = {"objective": SPEED, "direction": Direction.MAXIMIZE.value}
    return replace(space, parameters=(replace(parameter, memory="increasing"),)), usual | raw


def with_batch_size(wording: Wording, space: SearchSpace) -> SearchSpace:
    """Check the space of a search for the best batch size, and add what that implies.

    Args:
        wording: of the sweep.
        space: its parameters.
    """
    search = wording.set("search", "batch_size")
    size = next((p for p in space.parameters if p.name == "batch_size"), None)
    if size is None:
        wording.fail("parameters", f"has no batch_size; {search} needs its range, e.g. 1 to 700")
    if not isinstance(size, IntegerRange) or size.low < 1:
        wording.fail(
            "parameters.batch_size",
            f"varies over {size.describe()}; {search} needs a range of integers above 0, e.g. 1 to 700",
        )
    if size.memory == "decreasing":
        wording.fail("parameters.batch_size", f"'memory' is 'decreasing'; {search} needs 'increasing'")
    tuned = [parameter for parameter in space.parameters if parameter is not size]
    for parameter in tuned:
        if not isinstance(parameter, FloatRange):
            wording.fail(
                f"parameters.{parameter.name}",
                f"varies over {parameter.describe()}; {search} can only tune a range of real numbers",
            )
    if len(tuned) > 1:
        names = ", ".join(parameter.name for parameter in tuned)
        wording.fail("parameters", f"has {names} beside batch_size; {search} tunes at most one parameter")
    for key, rules in (("zip", space.zipped), ("parameters", space.conditions)):
        if rules:
            what = "'zip'" if key == "zip" else "a parameter with 'when'"
            wording.fail(key, f"has {what}, which {search} does not take")
    others = tuple(replace(p, memory="increasing") if p is size else p for p in space.parameters)
    return replace(space, parameters=others)


def check_size(wording: Wording, spec: Spec) -> None:
    """Reject a search with an unknown number of trials, or a grid that is too large.

    How many points conditions and constraints leave of a grid is counted by its sampler.
    """
    if spec.search in ADDING:
        return
    if spec.search in ("grid", "points"):
        _check_grid(wording, spec)
        return
    if spec.trials is None:
        example = wording.set("trials", 100)
        wording.fail("trials", f"is missing; a {spec.search} search needs a number of trials, e.g. {example}")
    if spec.is_defined_by_run:
        _check_defined_by_run(wording, spec)
    elif not spec.space.parameters:
        also = "" if spec.search in LEARNING else (
            "; an objective of Optuna, which names its own, needs a search that learns, "
            f"e.g. {wording.set('search', 'tpe')}" if isinstance(spec.workload, FunctionWorkload) else ""
        )  # fmt: skip
        wording.fail("parameters", f"is empty; a {spec.search} search needs at least one parameter{also}")


def _check_defined_by_run(wording: Wording, spec: Spec) -> None:
    """Reject what needs the parameters of an objective of Optuna before it has run."""
    why = "has no effect on an objective of Optuna, which is passed only what it suggests; remove it"
    for name in spec.fixed:
        if name != RANKS:
            wording.fail(f"fixed.{name}", f"{why}, or list the searched parameters under [parameters]")
    needs = "needs the searched parameters under [parameters], and there are none"
    keys = {"baseline": spec.baseline is not None, "import": bool(spec.imports)}
    for key in (key for key, is_set in keys.items() if is_set):
        wording.fail(key, f"{needs}; remove it")
    if spec.repeats.first > 1:
        wording.fail("repeats", f"{needs}; remove it, or evaluate the objective several times per trial")


def _check_grid(wording: Wording, spec: Spec) -> None:
    space = spec.space
    if spec.trials is not None:
        wording.fail(
            "trials", "does not apply to a grid, which runs every point; remove it, or choose another search"
        )
    if space.size is None:
        continuous = next(p for p in space.parameters if p.count is None)
        wording.fail(
            f"parameters.{continuous.name}",
            f"is continuous ({continuous.describe()}), but a grid needs points; "
            f"{_points_hint(wording, continuous)}, or {wording.set('search', 'random')} "
            f"with {wording.set('trials', 'N')}",
        )
    if space.size > spec.max_points and space.is_product:
        wording.fail(
            "parameters",
            f"the grid has {space.size:,} points, more than {spec.max_points:,}; to run it anyway, "
            f"set {wording.set('max_points', space.size)}",
        )


def _points_hint(wording: Wording, continuous: Parameter) -> str:
    """How to choose grid points in a continuous range."""
    if not wording.is_typed:
        return "set 'step' or 'points'"
    assert isinstance(continuous, FloatRange)
    scale = ":log" if continuous.log else ""
    ends_text = f"{continuous.low!r}:{continuous.high!r}{scale}"
    return f"set the number of points, e.g. -p {continuous.name}={ends_text}:points=8"
