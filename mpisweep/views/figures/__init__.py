"""The figures of a sweep: their data as arrays, and one way of drawing them.

Each figure is a function of a :class:`~mpisweep.results.load.Sweep` that returns a matplotlib Figure.  A
function beside it computes its data as plain arrays; use that one for a drawing of your own.  No other
package imports matplotlib.
"""

from __future__ import annotations

from mpisweep.views.figures.batch_sizes import draw_batch_sizes, draw_critical_batch
from mpisweep.views.figures.curves import draw_learning_curves
from mpisweep.views.figures.front import Front, draw_front, draw_hypervolume, front
from mpisweep.views.figures.metric import Series, draw_metric, first_parameter, metric_series
from mpisweep.views.figures.scaling import draw_scaling
from mpisweep.views.figures.style import FigureError, save
from mpisweep.views.figures.timeline import Spans, draw_timeline, spans
from mpisweep.views.figures.total import TotalTime, draw_total_time, total_time

__all__ = [
    "FigureError",
    "Front",
    "Series",
    "Spans",
    "TotalTime",
    "draw_batch_sizes",
    "draw_critical_batch",
    "draw_front",
    "draw_hypervolume",
    "draw_learning_curves",
    "draw_metric",
    "draw_scaling",
    "draw_timeline",
    "draw_total_time",
    "first_parameter",
    "front",
    "metric_series",
    "save",
    "spans",
    "total_time",
]
