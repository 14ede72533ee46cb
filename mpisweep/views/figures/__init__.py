"""The figures of a sweep: series as data, and one way of drawing them.  The only room that imports
matplotlib.

Each figure is a function of a :class:`~mpisweep.results.load.Sweep` that returns a matplotlib Figure.  What
is drawn is computed first, as plain arrays, by a function beside it; take that one for a drawing of your own.
"""

from __future__ import annotations

from mpisweep.views.figures.curves import draw_learning_curves
from mpisweep.views.figures.metric import Series, draw_metric, first_parameter, metric_series
from mpisweep.views.figures.scaling import draw_scaling
from mpisweep.views.figures.style import FigureError, save
from mpisweep.views.figures.timeline import Spans, draw_timeline, spans
from mpisweep.views.figures.total import TotalTime, draw_total_time, total_time

__all__ = [
    "FigureError",
    "Series",
    "Spans",
    "TotalTime",
    "draw_learning_curves",
    "draw_metric",
    "draw_scaling",
    "draw_timeline",
    "draw_total_time",
    "first_parameter",
    "metric_series",
    "save",
    "spans",
    "total_time",
]
