"""The figures of a sweep: their data as arrays, and one way of drawing them.

Each figure is a function of a :class:`~mpisweep.results.load.Sweep` that returns a matplotlib Figure, whose
attribute ``layers`` has the numbers that are drawn; :func:`draw` finds the function by the name of the kind.
Functions beside them compute the data as plain arrays; use those for a drawing of your own.  No other package
imports matplotlib.
"""

from __future__ import annotations

from mpisweep.views.figures.batch_sizes import draw_batch_sizes, draw_critical_batch
from mpisweep.views.figures.budgets import draw_budgets, equal_budgets
from mpisweep.views.figures.curves import draw_learning_curves
from mpisweep.views.figures.data import write_data
from mpisweep.views.figures.drawing import draw
from mpisweep.views.figures.front import Front, draw_front, draw_hypervolume, front
from mpisweep.views.figures.history import History, draw_history, history
from mpisweep.views.figures.importance import Importance, draw_importance, importance
from mpisweep.views.figures.maps import draw_map
from mpisweep.views.figures.metric import draw_metric
from mpisweep.views.figures.parallel import draw_parallel
from mpisweep.views.figures.scaling import draw_scaling
from mpisweep.views.figures.series import Series, first_parameter, metric_series
from mpisweep.views.figures.style import FigureError, SweepFigure, save
from mpisweep.views.figures.timeline import Spans, draw_timeline, spans
from mpisweep.views.figures.total import Bar, TotalTime, bars, draw_total_time, total_time
from mpisweep.views.figures.trend import draw_trend_of
from mpisweep.views.figures.utilisation import Utilisation, draw_utilisation, utilisation

__all__ = [
    "Bar",
    "FigureError",
    "Front",
    "History",
    "Importance",
    "Series",
    "Spans",
    "SweepFigure",
    "TotalTime",
    "Utilisation",
    "bars",
    "draw",
    "draw_batch_sizes",
    "draw_budgets",
    "draw_critical_batch",
    "draw_front",
    "draw_history",
    "draw_hypervolume",
    "draw_importance",
    "draw_learning_curves",
    "draw_map",
    "draw_metric",
    "draw_parallel",
    "draw_scaling",
    "draw_timeline",
    "draw_total_time",
    "draw_trend_of",
    "draw_utilisation",
    "equal_budgets",
    "first_parameter",
    "front",
    "history",
    "importance",
    "metric_series",
    "save",
    "spans",
    "total_time",
    "utilisation",
    "write_data",
]
