"""Tables as data, and as text: the best trials, and how far a sweep is."""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpisweep.progress import counted
from mpisweep.records import AttemptEnd, Direction, FailureCause, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.columns import columns_of
from mpisweep.results.holder import is_surely_gone
from mpisweep.results.load import Sweep
from mpisweep.results.shares.folder import members, part_file
from mpisweep.results.trial_table import TrialTable
from mpisweep.spec import BuiltinWorkload
from mpisweep.spec.catalogue import units_of
from mpisweep.spec.units import configuration_text, duration_text, number_text, value_text

if TYPE_CHECKING:
    from mpisweep.rank.rerun import Comparison, Rerun

__all__ = [
    "GONE",
    "Status",
    "TopRow",
    "TopTable",
    "print_rerun",
    "print_status",
    "print_top",
    "run_script",
    "running_attempts",
    "status_lines",
    "sweep_status",
    "to_csv",
    "to_latex",
    "to_markdown",
    "top_table",
    "units",
]


@dataclass(frozen=True, slots=True)
class TopRow:
    """One trial of the table; `rank` is ``1st`` or ``baseline``."""

    rank: str
    number: int
    parameters: tuple[str, ...]
    values: tuple[float, ...]
    wall_time_s: float


@dataclass(frozen=True, slots=True)
class TopTable:
    """The best trials and the baseline."""

    title: str
    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[TopRow, ...]
    #: Completed trials of which the metric is missing, NaN or infinite, and which have no rank.
    unranked: int = 0

    @property
    def header(self) -> tuple[str, ...]:
        """One heading a column."""
        return ("", *self.parameters, *self.metrics, "time [s]", "trial")

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        columns = [_aligned([row.values[index] for row in self.rows]) for index in range(len(self.metrics))]
        return [
            (row.rank, *row.parameters, *values, _seconds(row.wall_time_s), str(row.number))
            for row, values in zip(self.rows, zip(*columns, strict=True), strict=True)
        ]


def top_table(sweep: Sweep, k: int = 5, by: str | None = None, direction: str | None = None) -> TopTable:
    """The best `k` complete trials and the baseline's row.

    Args:
        sweep: from :func:`mpisweep.load`.
        k: how many.
        by: metric to rank by; the objective unless given.
        direction: ``minimize`` or ``maximize``; the sweep's unless given.

    Raises:
        KeyError: when no trial has that metric.
        ResultsError: when `k` is less than 1, or `by` names a text.
    """
    if k < 1:
        raise ResultsError(f"there is no best {k} of the trials; expected at least 1")
    metric = by or sweep.objective
    wanted = Direction(direction or sweep.direction)
    complete = sweep.trials[sweep.trials["state"] == TrialState.COMPLETE.label]
    names = sweep.spec.space.names or sweep.parameters
    if by is None and metric not in sweep.metrics:
        if len(complete):
            raise ResultsError(
                f"{sweep.path}: no trial has reported the objective, {metric!r}; metrics there are: "
                f"{', '.join(sweep.metrics) or 'none'}"
            )
        return TopTable(_title(sweep, metric, wanted), tuple(names), (metric,), ())
    ranked = _ranked(sweep, complete, metric, wanted)
    rows = [_top_row(sweep, names, metric, _ordinal(i + 1), row) for i, row in enumerate(ranked[:k])]
    if sweep.baseline is not None:
        rows.append(_top_row(sweep, names, metric, "baseline", sweep.baseline))
    return TopTable(
        _title(sweep, metric, wanted), tuple(names), (metric,), tuple(rows), len(complete) - len(ranked)
    )


#: State of a sweep whose last run died without closing.
GONE = "gone"


@dataclass(frozen=True, slots=True)
class Status:
    """How far a sweep is."""

    name: str
    path: str
    #: Why the last run has ended; ``running`` while it runs, :data:`GONE` where it does no longer.
    state: str
    trials: int
    waiting: int
    running: int
    complete: int
    pruned: int
    failed: int
    infeasible: int
    #: At a time, at most.
    workers: int
    allocations: int
    trial_time_s: float
    objective: str
    best: float | None
    best_trial: int | None
    best_parameters: dict[str, Any]
    failures: dict[str, int]
    #: Complete trials of which the objective is missing, NaN or infinite.
    diverged: int
    damaged_bytes: int
    #: The searched parameter and its largest value that fits into the memory (smallest, where it takes less
    #: the larger it is); empty where that is not known.
    largest_that_fits: dict[str, Any]
    #: Which end of the parameter that is: ``largest`` or ``smallest``.
    extreme: str
    #: Devices of the last run, and of those beside it, that got no more trials, and why.
    quarantined: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`."""
        known = {name: value if value == value else None for name, value in self.best_parameters.items()}
        return asdict(self) | {"best_parameters": known}


def sweep_status(sweep: Sweep) -> Status:
    """Count what there is."""
    best = sweep.best(1)
    row = best[0] if len(best) and math.isfinite(best[sweep.metric_column(sweep.objective)][0]) else None
    causes = [str(cause) for cause in sweep.trials["cause"] if cause]
    wall_time = sweep.trials["wall_time"]
    counts = {state.label: sweep.count(state) for state in TrialState}
    journals = _journals(sweep.path)
    is_gone = sweep.state == "running" and journals != [] and all(map(is_surely_gone, journals))
    # What was handed out and has not begun waits; of a run that is gone everything runs again.
    running = 0 if is_gone else len(running_attempts(sweep))
    counts |= {"waiting": counts["waiting"] + counts["running"] - running, "running": running}
    started, ended = sweep.spans.T
    present = np.flatnonzero(~(ended < started[-1])) if len(started) else started
    return Status(
        name=sweep.name,
        path=str(sweep.path),
        state=GONE if is_gone else sweep.state,
        trials=len(sweep.trials),
        **counts,
        workers=sweep.most_workers,
        allocations=len(sweep.allocations),
        trial_time_s=float(wall_time[wall_time == wall_time].sum()),
        objective=sweep.objective,
        best=None if row is None else float(row[sweep.metric_column(sweep.objective)]),
        best_trial=None if row is None else int(row["number"]),
        best_parameters={}
        if row is None
        else {name: row[sweep.column(name)].item() for name in sweep.spec.space.names},
        failures={cause: causes.count(cause) for cause in sorted(set(causes))},
        diverged=int(sweep.trials["diverged"].sum()),
        damaged_bytes=sum(damage.length for damage in sweep.damages),
        largest_that_fits=_largest_that_fits(sweep),
        extreme="smallest" if "decreasing" in sweep.spec.space.memory.values() else "largest",
        quarantined=tuple(
            f"{worker['device']} on {worker['host']} (rank {worker['rank']}): {worker['quarantine']}"
            for worker in sweep.workers
            if worker["quarantine"] and worker["allocation"] in present
        ),
    )


def running_attempts(sweep: Sweep) -> list[Any]:
    """Rows of ``sweep.attempts``: the first one of each slot that has not ended; those behind it wait in the
    slot.
    """
    first: dict[tuple[int, int], Any] = {}
    attempts, states = sweep.attempts, sweep.trials["state"]
    for attempt in attempts[attempts["end"] == AttemptEnd.RUNNING.label]:
        if states[attempt["trial"]] == TrialState.RUNNING.label:
            first.setdefault((int(attempt["worker"]), int(attempt["slot"])), attempt)
    return list(first.values())


def _journals(path: Path) -> list[Path]:
    """The folders of journals of all that may be at work: several where the sweep is split."""
    folder = shares_folder(path)
    try:
        return [journal_folder(part_file(folder, member)) for member in members(folder)]
    except FileNotFoundError:
        return [journal_folder(path)]


def _largest_that_fits(sweep: Sweep) -> dict[str, Any]:
    """Where one parameter is searched, memory goes with it, and something was too large."""
    memory, trials = sweep.spec.space.memory, sweep.trials
    if len(sweep.spec.space.names) != 1 or not memory:
        return {}
    [(name, word)] = memory.items()
    values = trials[sweep.column(name)]
    fit = values[trials["state"] == TrialState.COMPLETE.label]
    is_out = (trials["cause"] == FailureCause.OUT_OF_MEMORY.label) | (
        trials["state"] == TrialState.INFEASIBLE.label
    )
    if len(fit) == 0 or not is_out.any():
        return {}
    return {name: (fit.max() if word == "increasing" else fit.min()).item()}


def units(sweep: Sweep, name: str) -> str:
    """Units of a parameter, metric or column, as far as they are stated."""
    workload = sweep.spec.workload
    if name in sweep.parameters or name in sweep.metrics:
        return units_of(workload.name, name) if isinstance(workload, BuiltinWorkload) else ""
    return next((column.units for column in columns_of("trials") if column.name == name), "")


def run_script(main: Callable[[], None]) -> int:
    """Run the main function of an analysis script; what its user got wrong becomes one sentence.

    Returns:
        The exit code: 0, or 2 after a sentence on standard error.
    """
    try:
        main()
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Somebody piped us into `head`; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0


# ------------------------------------------------------------------------------------- as text


def print_top(table: TopTable) -> None:
    """Print the table; plain text where standard output is no terminal."""
    console = Console()
    if not table.rows:
        none = "no completed trial has a finite one" if table.unranked else "no trial has completed"
        console.print(f"{table.title}: {none}", markup=False, highlight=False)
        return
    drawn = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(table.header):
        drawn.add_column(escape(heading), justify="left" if index == 0 else "right", no_wrap=True)
    for cells in table.cells():
        drawn.add_row(*map(escape, cells), style="cyan" if cells[0] == "baseline" else None)
    console.print(table.title, markup=False, highlight=False)
    _print_whole(console, drawn)
    if table.unranked:
        console.print(_without(table.unranked, table.metrics[0]), markup=False, highlight=False)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a number that is cut off is none."""
    natural = Console(width=10_000).measure(table).maximum
    if natural <= console.width:
        console.print(table)
    else:
        Console(width=natural).print(table)


def status_lines(status: Status) -> list[str]:
    """It in words."""
    ended = status.trials - status.waiting - status.running
    state = (
        "the last run died without closing; run the same command to resume"
        if status.state == GONE
        else status.state
    )
    lines = [f"{status.name}: {state}", f"  {ended} of {status.trials} trials have ended"]
    counts = [
        f"{getattr(status, name)} {name}"
        for name in ("complete", "pruned", "failed", "infeasible", "running", "waiting")
        if getattr(status, name)
    ]
    lines.append("  " + ", ".join(counts))
    if status.failures:
        lines.append("  failures: " + ", ".join(f"{n} {cause}" for cause, n in status.failures.items()))
    if status.diverged:
        lines.append(f"  {_without(status.diverged, status.objective)}")
    if status.best is not None:
        where = configuration_text(status.best_parameters)
        trial = f"trial {status.best_trial}: {where}" if where else f"trial {status.best_trial}"
        lines.append(f"  best {status.objective} {number_text(status.best)} ({trial})")
    lines += [
        f"  {status.extreme} {name} that fits in memory: {value_text(value)}"
        for name, value in status.largest_that_fits.items()
    ]
    lines.append(
        f"  {duration_text(status.trial_time_s)} of trials, "
        f"{counted(status.workers, 'worker')}, {counted(status.allocations, 'allocation')}"
    )
    lines += [f"  quarantined: {why}" for why in status.quarantined]
    if status.damaged_bytes:
        lines.append(f"  {status.damaged_bytes} bytes of the journal are damaged; everything else is used")
    return lines


def _without(count: int, metric: str) -> str:
    return f"{counted(count, 'completed trial')} {'has' if count == 1 else 'have'} no finite {metric}"


def print_status(status: Status) -> None:
    """Print it in words."""
    print("\n".join(status_lines(status)))


def print_rerun(done: Rerun, sweep: Sweep, number: int) -> None:
    """Print then and now, and how far they are apart."""
    if done.output:
        print(done.output, end="")
    then = sweep.trials[number]
    print(f"state: {then['state']} then, {done.state.label} now")
    if done.message:
        print(f"  {done.message}")
    drawn = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(("metric", "then", "now", "difference")):
        drawn.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for metric in (*done.metrics, done.wall_time_s):
        unit = "s" if metric is done.wall_time_s else units(sweep, metric.name)
        name = f"{metric.name} [{unit}]" if unit else metric.name
        drawn.add_row(escape(name), f"{metric.then:.8g}", f"{metric.now:.8g}", _apart(metric))
    _print_whole(Console(), drawn)
    # What has units is a duration or a size, and never twice the same.
    for curve in (curve for curve in done.curves if not units(sweep, curve.name)):
        first = done.first_difference.get(curve.name)
        if first is None:
            same = "the same at every step"
        elif curve.is_same:
            same = f"the same until one of the two ends, before step {first}"
        else:
            same = (
                f"differs from step {first} on; at most {_apart(curve)} ({curve.then:.8g} then, "
                f"{curve.now:.8g} now)"
            )
        print(f"  curve of {curve.name}: {same}")


def _apart(compared: Comparison) -> str:
    return "none" if compared.is_same else f"{100 * compared.relative:.2g} %"


def to_csv(table: TopTable) -> str:
    """Comma-separated values with a heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("rank", *table.header[1:]))
    writer.writerows(table.cells())
    return out.getvalue()


def to_markdown(table: TopTable) -> str:
    """A Markdown table."""
    header, *rows = (
        "| " + " | ".join(cell.replace("\n", " ").replace("|", r"\|") for cell in cells) + " |"
        for cells in (table.header, *table.cells())
    )
    return "\n".join([header, "|---" + "|---:" * (len(table.header) - 1) + "|", *rows]) + "\n"


def to_latex(table: TopTable) -> str:
    """A tabular for the booktabs package."""
    rows = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in (table.header, *table.cells())]
    alignment = "l" + "r" * (len(table.header) - 1)
    body = "\n".join([r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{alignment}}}\n{body}\n\\end{{tabular}}\n"


# ------------------------------------------------------------------------------------- words


def _title(sweep: Sweep, metric: str, direction: Direction) -> str:
    better = "smallest" if direction == Direction.MINIMIZE else "largest"
    return f"{sweep.name}: best trials by {better} {metric}"


def _ranked(sweep: Sweep, complete: TrialTable, metric: str, direction: Direction) -> TrialTable:
    """Those of which the metric is finite, the best first."""
    values = complete[sweep.metric_column(metric)]
    if values.dtype.kind not in "iufb":
        raise ResultsError(f"{sweep.path}: {metric} is a text, by which no trial is better than another")
    keys = values.astype(float) if direction == Direction.MINIMIZE else -values.astype(float)
    order = keys.argsort(kind="stable")
    return TrialTable(complete.array[order[np.isfinite(keys[order])]])


def _top_row(sweep: Sweep, names: tuple[str, ...], metric: str, rank: str, row: Any) -> TopRow:
    return TopRow(
        rank=rank,
        number=int(row["number"]),
        parameters=tuple(value_text(row[sweep.column(name)].item()) for name in names),
        values=(float(row[sweep.metric_column(metric)]),),
        wall_time_s=float(row["wall_time"]),
    )


def _ordinal(n: int) -> str:
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"


def _aligned(values: Sequence[float]) -> list[str]:
    """Numbers of one column, with equally many decimals where none needs an exponent: five digits of the
    largest.
    """
    texts = [number_text(value) for value in values]
    if any("e" in text for text in texts):
        return texts
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = max(0, 4 - math.floor(math.log10(largest))) if largest else 0
    return [f"{value:.{decimals}f}" for value in values]


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3g}"


#: What means something to LaTeX, as itself.
_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
