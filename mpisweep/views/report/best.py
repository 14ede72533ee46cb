"""The table of the best for the report, with an interval wherever one is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text
from mpisweep.views.findings import findings_of
from mpisweep.views.tables import TopTable, top_table
from mpisweep.views.wording import without_finite

__all__ = ["BestTable", "best_table"]


class BestTable(NamedTuple):
    """Cells as text, below their headings.

    Attributes:
        title: of the table.
        header: one heading per column.
        rows: their cells; the first one is the rank.
        notes: sentences below it, without a full stop.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


def best_table(sweep: Sweep, k: int | None) -> BestTable:
    """Make the table.

    Args:
        sweep: from :func:`mpisweep.load`.
        k: number of rows; see :func:`~mpisweep.views.tables.top_table`.

    Raises:
        ResultsError: when no trial has reported the objective.
    """
    table = top_table(sweep, k)
    more, cells = _intervals(sweep, table)
    notes = [table.unreached] if table.unreached else []
    if table.unranked:
        notes.insert(0, without_finite(table.unranked, " or ".join(table.metrics)))
    if table.rows and table.finding and len(sweep.objectives) > 1:
        notes.append(table.finding)
    if more and not table.are_configurations:
        notes.append("the trend has the 95% interval of its mean, point by point")
    at = len(table.header) - 2
    rows = [(*row[:at], *extra, *row[at:]) for row, extra in zip(table.cells(), cells, strict=True)]
    return BestTable(
        table.title, (*table.header[:at], *more, *table.header[at:]), rows,
        [f"{note[0].upper()}{note[1:]}" for note in notes],
    )  # fmt: skip


def _intervals(sweep: Sweep, table: TopTable) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and cells of the intervals that the table itself does not have."""
    nothing: tuple[tuple[str, ...], list[tuple[str, ...]]] = ((), [()] * len(table.rows))
    if not table.rows or table.is_repeated:
        return nothing
    if table.are_configurations:
        found = sweep.tradeoff()
        halves = dict(zip(found.number.tolist(), found.half_widths.tolist(), strict=True))
        counts = dict(zip(found.number.tolist(), found.count.tolist(), strict=True))
        cells = [
            (*(_half(half) for half in halves.get(row.number, [np.nan] * len(table.metrics))),
             str(counts.get(row.number, "")))
            for row in table.rows
        ]  # fmt: skip
        return (*(f"{name} ± 95%" for name in table.metrics), "runs"), cells
    if len(table.metrics) > 1:
        return nothing
    statistics = findings_of(sweep)
    trend = statistics.trend
    if trend is None:
        return nothing
    column = sweep.trials[sweep.column(statistics.parameter)]
    cells = []
    for row in table.rows:
        at = np.flatnonzero(trend.x == float(column[row.number]))
        half = (trend.high - trend.low)[at] / 2
        cells.append(
            (number_text(float(f"{trend.mean[at[0]]:.5g}")), _half(float(half[0]))) if len(at) else ("", "")
        )
    return ("trend", "± 95%"), cells


def _half(width: float) -> str:
    return f"{width:.2g}" if np.isfinite(width) else ""
