"""A metric vs. a parameter at equal steps, samples and seconds, one panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from mpisweep.records import TrialState
from mpisweep.results.budgets import Budget
from mpisweep.results.load import Sweep
from mpisweep.views.figures.metric import draw_panel
from mpisweep.views.figures.states import of_state
from mpisweep.views.figures.style import (
    FigureError,
    SweepFigure,
    Width,
    legend,
    plain,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish
from mpisweep.views.scales import evenly

__all__ = ["draw_budgets", "equal_budgets"]

#: Trials that are asked how far they trained, if there are more.
_ASKED = 500


def equal_budgets(sweep: Sweep, metric: str) -> list[Budget]:
    """The largest budgets that all complete trials have used: steps, samples and seconds.

    Of many trials some that lie evenly among them are asked.

    Raises:
        FigureError: if no complete trial has reported the metric.
    """
    complete = np.flatnonzero(of_state(sweep.trials, TrialState.COMPLETE))
    complete = complete[evenly(len(complete), _ASKED)]
    stem = metric if metric in sweep.curve_names else metric.removesuffix("_mean")
    found = [sweep.progress(number, stem) for number in complete.tolist()] if sweep.curve_names else []
    found = [progress for progress in found if len(progress.steps)]
    if not found:
        raise FigureError(f"{sweep.path}: no complete trial has reported {metric}; budgets need its curves")
    budgets = []
    for axis, of in (("step", "steps"), ("samples", "samples"), ("seconds", "seconds")):
        used = np.array([float(getattr(progress, of)[-1]) for progress in found])
        if np.isfinite(used).all() and used.min() > 0:
            budgets.append(Budget(axis, _rounded_down(float(used.min()))))
    return budgets


def _rounded_down(amount: float) -> float:
    """Two digits of an amount, none of them rounded up; counts below 100 as they are."""
    unit = 10.0 ** (math.floor(math.log10(amount)) - 1)
    return (
        math.floor(amount / unit * (1 + 1e-12)) * unit if amount >= 100 or amount != round(amount) else amount
    )


def draw_budgets(
    sweep: Sweep,
    parameter: str,
    metric: str | None = None,
    budgets: Sequence[Budget] = (),
    *,
    width: Width = "page",
) -> SweepFigure:
    """Draw a metric vs. a parameter after equal training, one panel per budget.

    Args:
        sweep: whose trials report curves.
        parameter: on the horizontal axes.
        metric: with a curve; the first objective unless given.
        budgets: to compare at; default :func:`equal_budgets`.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if no complete trial has reported the metric.
        ResultsError: if no trial says how much of a budget it has used.
    """
    name = metric or sweep.objective
    compared = list(budgets) or equal_budgets(sweep, name)
    with mpl.rc_context(style_of(width)):
        columns = 1 if width == "column" else min(3, len(compared))
        rows = -(-len(compared) // columns)
        figure = SweepFigure(width, 8 + rows * (52 if width == "column" else 70))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        colours = None
        for axes, budget in zip(panels, compared, strict=False):
            figure.panel = f"{budget}: "
            at = sweep.at(**budget.arguments)
            colours = draw_panel(figure, axes, at, parameter, name)
            axes.set_title(_heading(budget))
        for axes in panels[len(compared) :]:
            axes.set_axis_off()
        if colours is not None and not colours.is_grouped:
            colours.add_bar(figure, list(panels), sweep)
        handles = {}
        for handle, text in zip(*panels[0].get_legend_handles_labels(), strict=True):
            # The numbers behind the colon hold for one panel only.
            handle.set_label(text.partition(":")[0])
            handles[handle.get_label()] = handle
        legend(figure, panels[0], handles=list(handles.values()))
        title(figure, f"{plain(sweep.name)}: {words(name)} vs. {words(parameter)} after equal training")
        finish(figure)
    return figure


def _heading(budget: Budget) -> str:
    return f"after {str(budget).partition(' = ')[2]} {'steps' if budget.axis == 'step' else budget.axis}"
