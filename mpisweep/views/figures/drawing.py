"""Draw a figure by the name of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.views.figure_kinds import KINDS, check_options, figure_kind
from mpisweep.views.figures.batch_sizes import draw_batch_sizes, draw_critical_batch
from mpisweep.views.figures.budgets import draw_budgets
from mpisweep.views.figures.curves import draw_learning_curves
from mpisweep.views.figures.front import draw_front, draw_hypervolume
from mpisweep.views.figures.history import draw_history
from mpisweep.views.figures.importance import draw_importance
from mpisweep.views.figures.maps import draw_map
from mpisweep.views.figures.metric import draw_metric
from mpisweep.views.figures.parallel import draw_parallel
from mpisweep.views.figures.scaling import draw_scaling
from mpisweep.views.figures.series import first_parameter
from mpisweep.views.figures.style import SweepFigure, Width, checked_width
from mpisweep.views.figures.timeline import draw_timeline
from mpisweep.views.figures.total import draw_total_time
from mpisweep.views.figures.trend import draw_trend_of
from mpisweep.views.figures.utilisation import draw_utilisation
from mpisweep.views.reading import budget_of, read_at

__all__ = ["draw"]


def draw(kind: str, sweeps: Sweep | Sequence[Sweep], *, width: Width = "page", **options: Any) -> SweepFigure:
    """Draw a figure by its name.

    Args:
        kind: a name in ``mpisweep figure --list``.
        sweeps: one sweep, or several for a kind that takes them.
        width: ``column`` or ``page``.
        options: as those of the command, e.g. ``metric="loss"``, ``parameter=["width"]``, ``at=["step=20"]``,
            ``queue_wait=600`` in seconds.

    Raises:
        KeyError: if there is no such kind, parameter or metric.
        ResultsError: if there is nothing to draw, or the kind does not take an option.
    """
    taken = figure_kind(kind)
    for name in options:
        if name not in taken.options:
            raise ResultsError(f"figure {kind}: takes no option {name!r}; it takes {_listed(taken.options)}")
    several = [sweeps] if isinstance(sweeps, Sweep) else list(sweeps)
    if not several or (taken.files is not None and len(several) > taken.files):
        raise ResultsError(f"figure {kind}: found {len(several)} sweeps; it takes {taken.files}")
    given = {name: value for name, value in options.items() if value not in (None, [], ())}
    check_options(taken, given)
    if kind == "budgets":
        # It compares at several.
        pass
    elif "at" in given and len(given["at"]) == 1:
        several = [read_at(sweep, given["at"][0]) for sweep in several]
    elif "at" in given:
        raise ResultsError(f"figure {kind}: takes --at once")
    return _DRAWERS[kind](several, given, checked_width(width))


def _listed(options: Sequence[str]) -> str:
    return ", ".join(options) or "none"


def _metric(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    [sweep] = sweeps
    parameter, colour = [*given.get("parameter", ()), None, None][:2]
    return draw_metric(
        sweep, parameter or first_parameter(sweep), given.get("metric", sweep.objective), colour=colour,
        width=width,
    )  # fmt: skip


def _total(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_total_time(sweeps[0], queue_wait_s=given.get("queue_wait"), width=width)


def _curves(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    [sweep] = sweeps
    return draw_learning_curves(
        sweep,
        given.get("metric") or _metric_with_curve(sweep),
        parameter=next(iter(given.get("parameter", ())), None),
        over=given.get("over", "step"),
        smooth=given.get("smooth", 1),
        width=width,
    )


def _metric_with_curve(sweep: Sweep) -> str:
    """The objective, if it has curves; else the curve that it is the mean of, or the first."""
    stem = sweep.objective.removesuffix("_mean")
    for name in (sweep.objective, stem, *sweep.curve_names):
        if name in sweep.curve_names:
            return name
    return sweep.objective


def _trend(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    [sweep] = sweeps
    parameter = next(iter(given.get("parameter", ())), None) or _first_number(sweep)
    return draw_trend_of(sweep, parameter, given.get("metric"), width=width)


def _first_number(sweep: Sweep) -> str:
    """The first searched parameter that is a number; the first one if there is none."""
    names = sweep.spec.space.names
    numbers = (name for name in names if sweep.trials[sweep.column(name)].dtype.kind in "iuf")
    return next(numbers, first_parameter(sweep))


def _map(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    x, y = [*given.get("parameter", ()), None, None][:2]
    return draw_map(sweeps[0], x, y, given.get("metric"), width=width)


def _parallel(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_parallel(sweeps[0], given.get("parameter", ()), given.get("metric"), width=width)


def _importance(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_importance(
        sweeps[0], given.get("metric"), method=given.get("method", "ped-anova"), width=width
    )


def _budgets(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    [sweep] = sweeps
    budgets = [budget_of(text) for text in given.get("at", ())]
    parameter = next(iter(given.get("parameter", ())), None) or first_parameter(sweep)
    return draw_budgets(sweep, parameter, given.get("metric"), budgets, width=width)


def _history(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_history(
        sweeps, given.get("metric"), over=given.get("over", "trials"), k=given.get("k", 5), width=width
    )


def _utilisation(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_utilisation(sweeps[0], width=width)


def _timeline(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_timeline(sweeps[0], width=width)


def _front(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_front(sweeps[0], given.get("y"), given.get("x"), width=width)


def _hypervolume(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_hypervolume(sweeps[0], dict(given.get("reference", ())), width=width)


def _scaling(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_scaling(sweeps[0], given.get("metric"), width=width)


def _batch_sizes(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_batch_sizes(sweeps[0], width=width)


def _critical_batch(sweeps: list[Sweep], given: dict[str, Any], width: Width) -> SweepFigure:
    return draw_critical_batch(sweeps[0], width=width)


#: Kind -> the function that draws it.
_DRAWERS: dict[str, Callable[[list[Sweep], dict[str, Any], Width], SweepFigure]] = {
    "metric": _metric,
    "total": _total,
    "curves": _curves,
    "timeline": _timeline,
    "trend": _trend,
    "map": _map,
    "parallel": _parallel,
    "importance": _importance,
    "budgets": _budgets,
    "history": _history,
    "utilisation": _utilisation,
    "front": _front,
    "hypervolume": _hypervolume,
    "scaling": _scaling,
    "batch-sizes": _batch_sizes,
    "critical-batch": _critical_batch,
}
assert set(_DRAWERS) == set(KINDS)
