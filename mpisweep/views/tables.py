"""The table of the best trials and the baseline: as data, text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpisweep.progress import counted
from mpisweep.records import Direction, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.results.tradeoff import Tradeoff
from mpisweep.results.trial_table import TrialTable
from mpisweep.spec.units import number_text, value_text
from mpisweep.views.console import print_whole
from mpisweep.views.findings import Findings, findings_of
from mpisweep.views.scales import direction_of, evenly
from mpisweep.views.wording import at_budget, finite_or_none, not_reached, without_finite

__all__ = [
    "FRONT", "TopRow", "TopTable", "print_top", "to_csv", "to_latex", "to_markdown", "top_fields",
    "top_table",
]  # fmt: skip

#: Number of trials of a front in a table.
FRONT = 20


@dataclass(frozen=True, slots=True)
class TopRow:
    """One trial of the table; `rank` is ``1st``, its place along the front, or ``baseline``."""

    rank: str
    number: int
    parameters: tuple[str, ...]
    values: tuple[float, ...]
    wall_time_s: float
    #: Of a configuration: its first trial, half the 95% interval of its mean (NaN if unknown), its runs with
    #: a finite value, and whether it cannot be told apart from the best.
    first_trial: int = -1
    half_width: float = math.nan
    runs: int = 1
    in_best_set: bool = False


@dataclass(frozen=True, slots=True)
class TopTable:
    """The best trials and the baseline."""

    title: str
    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[TopRow, ...]
    #: Completed trials without a finite value of the metric, which have no rank.
    unranked: int = 0
    #: How many trials used less than the budget at which the sweep is read; empty if none did.
    unreached: str = ""
    #: Whether the rows are configurations, with means over several runs.
    is_repeated: bool = False
    #: What was found and how sure it is; may be empty.
    finding: str = ""
    #: Whether the rows are configurations on a front, numbered as such.
    are_configurations: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """One heading per column."""
        if self.is_repeated:
            means = (f"mean {self.metrics[0]}", "± 95%", "runs", "in best set", "mean time [s]")
            return ("", *self.parameters, *means, "configuration")
        return ("", *self.parameters, *self.metrics, "time [s]", self.numbered)

    @property
    def numbered(self) -> str:
        """What the rows' numbers are those of."""
        return "configuration" if self.is_repeated or self.are_configurations else "trial"

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        if self.is_repeated:
            return self._cells_of_configurations()
        columns = [_aligned([row.values[index] for row in self.rows]) for index in range(len(self.metrics))]
        return [
            (row.rank, *row.parameters, *values, _seconds(row.wall_time_s), str(row.number))
            for row, values in zip(self.rows, zip(*columns, strict=True), strict=True)
        ]

    def _cells_of_configurations(self) -> list[tuple[str, ...]]:
        means = _aligned([row.values[0] for row in self.rows])
        return [
            (
                row.rank, *row.parameters, mean, f"{row.half_width:.2g}" if row.half_width >= 0 else "",
                str(row.runs), "yes" if row.in_best_set else "no", _seconds(row.wall_time_s), str(row.number),
            )
            for row, mean in zip(self.rows, means, strict=True)
        ]  # fmt: skip


def top_table(
    sweep: Sweep, k: int | None = None, by: str | None = None, direction: str | None = None
) -> TopTable:
    """Make the table of the best completed trials and the baseline.

    Of several objectives it has the front instead of the best.

    If a configuration has several runs, it is that of the best configurations by the mean over them.

    Args:
        sweep: from :func:`mpisweep.load`.
        k: number of trials; 5 unless given, of a front :data:`FRONT`.
        by: metric to rank by; the objective unless given, and the front of several.
        direction: ``minimize`` or ``maximize``; unless given that of the metric if it is an objective, else
            the sweep's.

    Raises:
        KeyError: when no trial has that metric.
        ResultsError: when `k` is less than 1, or `by` names a text.
    """
    if k is not None and k < 1:
        raise ResultsError(f"there is no best {k} of the trials; expected at least 1")
    if by is None and direction is None and len(sweep.objectives) > 1:
        return _front_table(sweep, k or FRONT)
    k = k or 5
    metric = by or sweep.objective
    wanted = Direction(direction or direction_of(sweep, metric, sweep.direction))
    complete = sweep.trials[sweep.trials["state"] == TrialState.COMPLETE.label]
    names = sweep.spec.space.names or sweep.parameters
    if by is None and metric not in sweep.metrics:
        _refuse_unreported(sweep, complete, metric)
        return TopTable(_title(sweep, metric, wanted), tuple(names), (metric,), ())
    ranked = _ranked(sweep, complete, metric, wanted)
    found = findings_of(sweep, metric, wanted)
    if found.is_repeated:
        return _of_configurations(sweep, tuple(names), found, k)
    rows = [_top_row(sweep, names, [metric], _ordinal(i + 1), row) for i, row in enumerate(ranked[:k])]
    if sweep.baseline is not None:
        rows.append(_top_row(sweep, names, [metric], "baseline", sweep.baseline))
    unranked = max(0, len(complete) - len(ranked) - sweep.unreached)
    return TopTable(
        _title(sweep, metric, wanted), tuple(names), (metric,), tuple(rows), unranked, not_reached(sweep),
        finding=found.sentence(sweep),
    )  # fmt: skip


def _of_configurations(sweep: Sweep, names: tuple[str, ...], found: Findings, k: int) -> TopTable:
    """The best configurations of a sweep with repeats, by the mean over them."""
    ranks = [(_ordinal(place + 1), row) for place, row in enumerate(found.order()[:k].tolist())]
    if sweep.baseline is not None:
        its_own = np.flatnonzero(found.runs.number == sweep.baseline["configuration"])
        ranks += [("baseline", row) for row in its_own.tolist()]
    rows = []
    for rank, row in ranks:
        values = sweep.configuration(int(found.runs.first[row]))
        rows.append(TopRow(
            rank, int(found.runs.number[row]), tuple(value_text(values.get(name, "")) for name in names),
            (float(found.means.mean[row]),), float(found.runs.wall_time_s[row]), int(found.runs.first[row]),
            float(found.half_width[row]), int(found.means.count[row]), bool(found.in_best_set[row]),
        ))  # fmt: skip
    better = "smallest" if found.minimize else "largest"
    title = f"{sweep.name}: best configurations by {better} mean {found.metric}{at_budget(sweep)}"
    unranked = max(0, found.runs.not_finite - sweep.unreached)
    return TopTable(
        title, names, (found.metric,), tuple(rows), unranked, not_reached(sweep), True, found.sentence(sweep)
    )


def _front_table(sweep: Sweep, k: int) -> TopTable:
    """The table of the front, or of `k` trials evenly along it, and of the baseline."""
    metrics = tuple(objective.name for objective in sweep.objectives)
    parameters = sweep.spec.space.names or sweep.parameters
    words = (_better(objective.name, objective.direction) for objective in sweep.objectives)
    title = f"{sweep.name}: Pareto front ({', '.join(words)}){at_budget(sweep)}"
    complete = sweep.trials[sweep.trials["state"] == TrialState.COMPLETE.label]
    for metric in metrics:
        if metric not in sweep.metrics:
            _refuse_unreported(sweep, complete, metric)
            return TopTable(title, parameters, metrics, ())
    found = sweep.tradeoff()
    front = found.on_front
    places = evenly(len(front), k)
    rows: list[TopRow] = []
    for place in places.tolist():
        entry = int(front[place])
        row = _top_row(sweep, parameters, metrics, str(place + 1), sweep.trials[found.rows[entry]])
        rows.append(_front_row(row, found, entry))
    if rows:
        what = "configuration" if found.is_repeated else "trial"
        title += f", {f'{len(rows)} of ' if len(rows) < len(front) else ''}{counted(len(front), what)}"
    if sweep.baseline is not None:
        row = _top_row(sweep, parameters, metrics, "baseline", sweep.baseline)
        of = sweep.baseline["configuration" if found.is_repeated else "number"]
        entries = np.flatnonzero(found.number == of)
        rows.append(_front_row(row, found, int(entries[0])) if len(entries) else row)
    unranked = max(0, int(complete["diverged"].sum()) - sweep.unreached)
    return TopTable(
        title, parameters, metrics, tuple(rows), unranked, not_reached(sweep),
        finding=_sure(found) if rows and found.is_repeated else "", are_configurations=found.is_repeated,
    )  # fmt: skip


def _front_row(row: TopRow, found: Tradeoff, entry: int) -> TopRow:
    """A row of the front, with the means of an entry if it is a configuration."""
    if not found.is_repeated:
        return row
    return replace(
        row, number=int(found.number[entry]), first_trial=row.number,
        values=tuple(found.values[entry].tolist()), runs=int(found.count[entry]),
    )  # fmt: skip


def _sure(found: Tradeoff) -> str:
    """How sure the means of a front are, in words."""
    halves = [
        f"{name} ± {np.nanmedian(column):.2g}"
        for name, column in zip(found.names, found.half_widths[found.on_front].T, strict=True)
        if np.isfinite(column).any()
    ]
    said = f"; the median 95% interval on the front: {', '.join(halves)}" if halves else ""
    return f"values are means over up to {counted(int(found.count.max()), 'run')} of a configuration{said}"


def _refuse_unreported(sweep: Sweep, complete: TrialTable, metric: str) -> None:
    """Refuse an objective that no completed trial has reported."""
    if len(complete):
        raise ResultsError(
            f"{sweep.path}: no trial has reported the objective, {metric!r}"
            f"{', as a curve' if sweep.budget else ''}; metrics there are: "
            f"{', '.join(sweep.metrics) or 'none'}"
        )


def top_fields(table: TopTable, sweep: Sweep) -> dict[str, Any]:
    """The table for :func:`json.dumps`; a number that is NaN or infinite is None."""
    rows = [
        {
            "rank": row.rank,
            table.numbered: row.number,
            "parameters": {
                name: finite_or_none(value)
                for name, value in sweep.configuration(
                    row.number if row.first_trial < 0 else row.first_trial
                ).items()
                if name in table.parameters
            },
            "metrics": dict(zip(table.metrics, map(finite_or_none, row.values), strict=True)),
            "wall_time_s": finite_or_none(row.wall_time_s),
            **(_certainty(row) if table.is_repeated else {}),
        }
        for row in table.rows
    ]
    return {
        "title": table.title,
        "configurations" if table.is_repeated else "trials": rows,
        "unranked": table.unranked,
        "unreached": table.unreached,
        "finding": table.finding,
    }


def _certainty(row: TopRow) -> dict[str, Any]:
    return {"half_width": finite_or_none(row.half_width), "runs": row.runs, "in_best_set": row.in_best_set}


# ------------------------------------------------------------------------------------- as text


def print_top(table: TopTable) -> None:
    """Print the table; as plain text if standard output is not a terminal."""
    console = Console()
    if not table.rows:
        none = "no completed trial has a finite one" if table.unranked else "no trial has completed"
        none = table.unreached or none
        console.print(f"{table.title}: {none}", markup=False, highlight=False)
        return
    drawn = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(table.header):
        drawn.add_column(escape(heading), justify="left" if index == 0 else "right", no_wrap=True)
    for cells in table.cells():
        drawn.add_row(*map(escape, cells), style="cyan" if cells[0] == "baseline" else None)
    console.print(table.title, markup=False, highlight=False)
    print_whole(console, drawn)
    if table.unranked:
        metrics = " or ".join(table.metrics)
        console.print(without_finite(table.unranked, metrics), markup=False, highlight=False)
    if table.unreached:
        console.print(table.unreached, markup=False, highlight=False)
    if table.finding:
        console.print(table.finding, markup=False, highlight=False)


def to_csv(table: TopTable) -> str:
    """Format the table as comma-separated values with a heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("rank", *table.header[1:]))
    writer.writerows(table.cells())
    return out.getvalue()


def to_markdown(table: TopTable) -> str:
    """Format the table in Markdown."""
    header, *rows = (
        "| " + " | ".join(cell.replace("\n", " ").replace("|", r"\|") for cell in cells) + " |"
        for cells in (table.header, *table.cells())
    )
    return "\n".join([header, "|---" + "|---:" * (len(table.header) - 1) + "|", *rows]) + "\n"


def to_latex(table: TopTable) -> str:
    """Format the table as a LaTeX tabular for the booktabs package."""
    rows = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in (table.header, *table.cells())]
    alignment = "l" + "r" * (len(table.header) - 1)
    body = "\n".join([r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{alignment}}}\n{body}\n\\end{{tabular}}\n"


# ------------------------------------------------------------------------------------- words


def _title(sweep: Sweep, metric: str, direction: Direction) -> str:
    return f"{sweep.name}: best trials by {_better(metric, direction)}{at_budget(sweep)}"


def _better(metric: str, direction: Direction) -> str:
    return f"{'smallest' if direction == Direction.MINIMIZE else 'largest'} {metric}"


def _ranked(sweep: Sweep, complete: TrialTable, metric: str, direction: Direction) -> TrialTable:
    """The trials with a finite value of the metric, the best first."""
    values = complete[sweep.metric_column(metric)]
    if values.dtype.kind not in "iufb":
        raise ResultsError(f"{sweep.path}: {metric} is a text, by which no trial is better than another")
    keys = values.astype(float) if direction == Direction.MINIMIZE else -values.astype(float)
    order = keys.argsort(kind="stable")
    return TrialTable(complete.array[order[np.isfinite(keys[order])]])


def _top_row(sweep: Sweep, names: tuple[str, ...], metrics: Sequence[str], rank: str, row: Any) -> TopRow:
    values = sweep.configuration(int(row["number"]))
    return TopRow(
        rank=rank,
        number=int(row["number"]),
        parameters=tuple(value_text(values.get(name, "")) for name in names),
        values=tuple(float(row[sweep.metric_column(metric)]) for metric in metrics),
        # At a budget, the time until there.
        wall_time_s=float(row["at_seconds" if sweep.budget else "wall_time"]),
    )


def _ordinal(n: int) -> str:
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"


def _aligned(values: Sequence[float]) -> list[str]:
    """Format a column with five digits for the largest and equal decimals, or with exponents."""
    texts = [number_text(value) for value in values]
    if any("e" in text for text in texts):
        return texts
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = max(0, 4 - math.floor(math.log10(largest))) if largest else 0
    return [f"{value:.{decimals}f}" for value in values]


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3g}"


#: Characters special to LaTeX -> how LaTeX prints them.
_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
