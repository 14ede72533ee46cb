"""Importance of the parameters: how much of the objective each explains."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

from mpisweep.errors import how_to_add
from mpisweep.records import Direction, TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec import nearest
from mpisweep.statistics.importance import FEWEST, METHODS, MOST, importances
from mpisweep.views.figures.maps import varied_parameters
from mpisweep.views.figures.series import objective_values
from mpisweep.views.figures.states import of_state
from mpisweep.views.figures.style import (
    BLUE,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    plain,
    style_of,
    title,
    words,
    wrapped,
)
from mpisweep.views.figures.ticks import finish, ticks_on
from mpisweep.views.scales import acts_by_ratios, direction_of
from mpisweep.views.wording import at_budget

__all__ = ["Importance", "draw_importance", "importance"]

_TITLES = {"ped-anova": "PED-ANOVA", "fanova": "fANOVA"}


@dataclass(frozen=True, slots=True)
class Importance:
    """Share of each parameter, the largest first."""

    parameters: tuple[str, ...]
    share: Floats
    trials: int
    method: str


def importance(sweep: Sweep, metric: str | None = None, method: str = METHODS[0]) -> Importance:
    """Compute the importances of the searched parameters over the complete trials.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: the first objective unless given.
        method: ``ped-anova`` (what the best tenth has in common) or ``fanova`` (over the whole space).

    Raises:
        KeyError: if the sweep has no such metric.
        FigureError: if Optuna is not installed, too few trials have a value, or no parameter varies.
    """
    if method not in METHODS:
        raise FigureError(f"there is no method {method!r}; {nearest(method, METHODS)}")
    name, values = objective_values(sweep, metric)
    shown = of_state(sweep.trials, TrialState.COMPLETE) & np.isfinite(values)
    if shown.sum() < FEWEST:
        raise FigureError(
            f"{sweep.path}: importances need {FEWEST} complete trials with a finite {name}; found "
            f"{int(shown.sum())}"
        )
    columns = {}
    for one in varied_parameters(sweep):
        column = sweep.trials[sweep.column(one)][shown]
        is_number = column.dtype.kind in "iuf"
        # A parameter that some trials do not have cannot be compared over all of them.
        if not (is_number and not np.isfinite(column.astype(float)).all()) and (column != column[0]).any():
            columns[one] = column
    if not columns:
        raise FigureError(f"{sweep.path}: no parameter varies among the complete trials")
    ratios = frozenset(
        one for one, column in columns.items()
        if column.dtype.kind in "iuf" and acts_by_ratios(sweep, one, column.astype(float))
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = importances(
                columns,
                values[shown],
                minimize=direction_of(sweep, name) is Direction.MINIMIZE,
                method=method,
                logarithmic=ratios,
            )
    except ImportError:
        raise FigureError(
            f"importances need optuna, which is not installed; {how_to_add('optuna')}"
        ) from None
    order = sorted(found, key=lambda one: (-found[one], one))
    return Importance(
        tuple(order), np.array([found[one] for one in order]), min(int(shown.sum()), MOST), method
    )


def draw_importance(
    sweep: Sweep, metric: str | None = None, *, method: str = METHODS[0], width: Width = "page"
) -> SweepFigure:
    """Draw one bar per searched parameter.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: the first objective unless given.
        method: ``ped-anova`` or ``fanova``.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such metric.
        FigureError: as of :func:`importance`.
    """
    found = importance(sweep, metric, method)
    name = words(metric or sweep.objective)
    with mpl.rc_context(style_of(width)):
        size = float(mpl.rcParams["font.size"])
        figure = SweepFigure(width, 24 + max(0.75 * size * len(found.parameters), 8))
        axes = figure.add_subplot()
        places = np.arange(len(found.parameters))
        axes.barh(places, 100 * found.share, color=BLUE, height=0.65)
        for place, share in enumerate(found.share):
            text = f" {100 * share:.0f}%" if share >= 0.005 else " below 1%"
            axes.annotate(text, (100 * share, place), va="center", fontsize=mpl.rcParams["legend.fontsize"])
        names = [wrapped(words(one), 0.35 * figure.width_pt, size) for one in found.parameters]
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, min(115.0, 115 * max(float(found.share.max()), 0.05)))
        axes.grid(axis="y", visible=False)
        ticks_on(axes, "x", "linear")
        axes.set_xlabel("importance [%]")
        title(
            figure,
            f"{plain(sweep.name)}: what {name} depends on, by {_TITLES[method]} over {found.trials:,} "
            f"trials{at_budget(sweep)}",
        )
        figure.add_layer("importance", {"parameter": list(found.parameters), "share": found.share})
        finish(figure)
    return figure
