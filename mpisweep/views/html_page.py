"""HTML report of a sweep: table, figures, failures and environment.

``mpisweep report FILE`` writes it.  The page is self-contained: its figures are inline SVG, it loads nothing
and has no scripts, and it opens on a machine without mpisweep.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from mpisweep.records import TrialState
from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.spec import RANKS
from mpisweep.spec.units import duration_text
from mpisweep.views.batch_sizes import batch_size_lines
from mpisweep.views.figures import (
    draw_batch_sizes,
    draw_critical_batch,
    draw_front,
    draw_hypervolume,
    draw_learning_curves,
    draw_metric,
    draw_scaling,
    draw_timeline,
    draw_total_time,
    first_parameter,
)
from mpisweep.views.figures.style import drawn_as_svg
from mpisweep.views.status import status_lines, sweep_status
from mpisweep.views.tables import top_table

__all__ = ["page"]

#: Failed trials that the page lists; all of them are in the results file.
_FAILURES_LISTED = 50

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text { text-align: left; } tr.baseline { background: #fdf3df; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
svg { display: block; margin: 1.2rem 0; max-width: 100%; height: auto; }
"""


def page(sweep: Sweep, k: int | None = None) -> str:
    """Render the page as HTML.

    Args:
        sweep: from :func:`mpisweep.load`; it may be running.
        k: number of trials in the table; see :func:`~mpisweep.views.tables.top_table`.
    """
    parts = [
        "<!DOCTYPE html>", '<html lang="en">', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{_text(sweep.name)}</title>", f"<style>{_STYLE}</style>", f"<h1>{_text(sweep.name)}</h1>",
        f"<pre>{_text(chr(10).join(status_lines(sweep_status(sweep))))}</pre>",
        *_table(sweep, k), *_states(sweep), *_figures(sweep), *_failures(sweep), *_environment(sweep),
    ]  # fmt: skip
    return "\n".join([*parts, "</html>", ""])


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def _table(sweep: Sweep, k: int | None) -> Iterator[str]:
    try:
        table = top_table(sweep, k)
    except ResultsError as error:
        yield f"<p>{_text(error)}</p>"
        return
    if not table.rows:
        return
    yield f"<h2>{_text(table.title)}</h2>"
    yield "<table><tr>" + "".join(f"<th>{_text(heading)}</th>" for heading in table.header) + "</tr>"
    for cells in table.cells():
        kind = ' class="baseline"' if cells[0] == "baseline" else ""
        yield f"<tr{kind}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table>"
    for below in (table.unreached, _sentence(table.finding)):
        if below:
            yield f"<p>{_text(below)}</p>"
    if lines := batch_size_lines(sweep):
        yield f"<pre>{_text(chr(10).join(lines))}</pre>"


def _states(sweep: Sweep) -> Iterator[str]:
    """The trials by state, with the time that each state took; pruned ones have ended early."""
    trials = sweep.trials
    if not len(trials):
        return
    yield "<h2>Trials by state</h2>"
    headings = ("state", "trials", "time", "time per trial")
    yield '<table class="states"><tr>' + "".join(f"<th>{heading}</th>" for heading in headings) + "</tr>"
    for state in TrialState:
        times = trials["wall_time"][trials["state"] == state.label]
        if not len(times):
            continue
        ran = times[np.isfinite(times)]
        took = [duration_text(float(ran.sum())), duration_text(float(ran.mean()))] if len(ran) else ["", ""]
        cells = (state.label, f"{len(times):,}", *took)
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _figures(sweep: Sweep) -> Iterator[str]:
    names = [objective.name for objective in sweep.objectives]
    draw: list[Callable[[], Any]] = [
        *([lambda: draw_front(sweep), lambda: draw_hypervolume(sweep)] if len(names) > 1 else []),
        *(partial(_draw_metric, sweep, name) for name in names),
        *(partial(draw_learning_curves, sweep, name) for name in names),
        lambda: draw_total_time(sweep),
        lambda: draw_timeline(sweep),
    ]
    if sweep.spec.search == "batch_size":
        draw.insert(0, lambda: draw_batch_sizes(sweep))
    if "batch_size" in sweep.spec.space.names and "steps_to_target" in sweep.metrics:
        draw.append(lambda: draw_critical_batch(sweep))
    if RANKS in sweep.parameters:
        draw.append(lambda: draw_scaling(sweep))
    for make in draw:
        try:
            yield drawn_as_svg(make())
        except (ResultsError, KeyError):
            # There is nothing to draw: no curves, or no ended trial.
            continue


def _draw_metric(sweep: Sweep, metric: str) -> Any:
    return draw_metric(sweep, first_parameter(sweep), metric)


def _failures(sweep: Sweep) -> Iterator[str]:
    failed = sweep.trials[sweep.trials["state"] == "failed"]
    if not len(failed):
        return
    yield f"<h2>Failed trials ({len(failed):,})</h2>"
    yield '<table><tr><th>trial</th><th class="text">cause</th><th class="text">message</th></tr>'
    for row in failed[:_FAILURES_LISTED]:
        first = str(row["message"]).partition("\n")[0]
        yield (
            f'<tr><td>{row["number"]}</td><td class="text">{_text(row["cause"])}</td><td '
            f'class="text">{_text(first)}</td></tr>'
        )
    yield "</table>"
    if len(failed) > _FAILURES_LISTED:
        yield f"<p>and {len(failed) - _FAILURES_LISTED:,} more</p>"


def _environment(sweep: Sweep) -> Iterator[str]:
    yield "<h2>Sweep file</h2>"
    yield f"<pre>{_text(sweep.spec.text)}</pre>"
    yield "<h2>Environment</h2>"
    # Long values, such as the diff of the user's code, are in the results file.
    short = {name: text for name, text in sweep.environment.items() if "\n" not in text and len(text) < 500}
    yield (
        "<pre>"
        + "\n".join(f"{_text(name)}: {_text(text)}" for name, text in sorted(short.items()))
        + "</pre>"
    )
