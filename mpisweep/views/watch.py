"""``mpisweep watch``: the progress of a running sweep, read from its files.

:func:`look_at`, which is pure, computes the view from a :class:`~mpisweep.results.load.Sweep`.  On a terminal
it is a live view, otherwise one line per change.

The run opens no port, and may be on another host.  Its files show that it is active: the journal grows, and
the claim's time stamp changes every few seconds.  If no file has changed for :data:`SILENCE_S`, the run has
stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mpisweep.progress import Progress, progress_line
from mpisweep.records import AttemptEnd, EndReason, TrialState
from mpisweep.results import journal_folder, shares_folder
from mpisweep.results.load import Sweep, load
from mpisweep.spec.units import duration_text, number_text, value_text
from mpisweep.views.status import GONE, print_status, running_attempts, sweep_status

__all__ = ["RunningTrial", "Watched", "look_at", "watch"]

#: Seconds without any change of the files after which a run counts as stopped; a claim changes every 5 s.
SILENCE_S = 60.0
#: Maximum share of the time spent on reading, however large the sweep is.
_SHARE_OF_TIME = 0.1
#: States of a sweep that continues.
_CONTINUES = ("running", *(end.value for end in EndReason if end.is_passing))
#: Maximum number of running trials on a terminal; the longest running ones.
_ROWS = 16


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A running trial and its last report."""

    number: int
    parameters: dict[str, Any]
    where: str
    #: Seconds since it started, by the clocks of two hosts.
    for_s: float
    #: Step and value of the last report of the objective; None before the first one.
    last: tuple[int, float] | None


@dataclass(frozen=True, slots=True)
class Watched:
    """A sweep at one moment."""

    name: str
    #: The state in :class:`mpisweep.views.status.Status`.
    state: str
    progress: Progress
    #: The longest running one first.
    running: tuple[RunningTrial, ...]


def look_at(sweep: Sweep, now: float) -> Watched:
    """Compute the view of a sweep.

    Args:
        sweep: as just loaded.
        now: seconds since 1970.
    """
    status = sweep_status(sweep)
    trials, last = sweep.trials, len(sweep.allocations) - 1
    ended = status.trials - status.waiting - status.running
    elapsed_s, rate = 0.0, 0.0
    if last >= 0:
        closed = float(sweep.allocations["ended_at"][last])
        began = float(sweep.allocations["started_at"][last])
        elapsed_s = max(
            (now if sweep.state == "running" or not np.isfinite(closed) else closed) - began, 1e-9
        )
        # Trials of all members of a split sweep; infeasible trials have no time.
        since = (trials["ended_at"] >= began) & np.isin(
            trials["state"], [s.label for s in TrialState if s.is_end]
        )
        rate = float(since.sum()) / elapsed_s
    running = () if status.state == GONE else tuple(_running(sweep, now))
    return Watched(
        sweep.name,
        status.state,
        Progress(
            total=status.trials,
            ended=ended,
            pruned=status.pruned,
            failed=status.failed,
            infeasible=status.infeasible,
            running=len(running),
            elapsed_s=elapsed_s,
            rate=rate,
            left_s=(status.trials - ended) / rate if rate > 0 else None,
            objective=status.objective,
            best=status.best,
            best_runs=status.best_runs,
            best_number=status.best_trial,
            best_parameters=status.best_parameters,
            others={one.objective: one.value for one in status.others},
            front=status.front,
            skipped=status.skipped,
        ),
        running,
    )


def _running(sweep: Sweep, now: float) -> Iterator[RunningTrial]:
    workers, attempts = sweep.workers, sweep.attempts
    free_at: dict[tuple[int, int], float] = {}
    for attempt in attempts[attempts["end"] != AttemptEnd.RUNNING.label]:
        slot = int(attempt["worker"]), int(attempt["slot"])
        free_at[slot] = max(free_at.get(slot, 0.0), float(np.nan_to_num(attempt["ended_at"])))
    held = {(int(attempt["worker"]), int(attempt["slot"])): attempt for attempt in running_attempts(sweep)}
    since = {
        slot: max(float(attempt["assigned_at"]), free_at.get(slot, 0.0)) for slot, attempt in held.items()
    }
    for slot in sorted(held, key=since.__getitem__):
        number = int(held[slot]["trial"])
        worker = workers[slot[0]] if slot[0] >= 0 else None
        yield RunningTrial(
            number,
            sweep.searched(number),
            "" if worker is None else f"{worker['device']} on {worker['host']}",
            max(now - since[slot], 0.0),
            _last_report(sweep, number),
        )


def _last_report(sweep: Sweep, number: int) -> tuple[int, float] | None:
    if sweep.objective not in sweep.curve_names:
        return None
    curve = sweep.curve(number, sweep.objective)
    return (int(curve.step[-1]), float(curve.value[-1])) if len(curve.value) else None


# ------------------------------------------------------------------------------------- watching


def watch(path: Path, *, every_s: float, console: Console) -> int:
    """Show the sweep until its run ends.

    Args:
        path: the results file.
        every_s: seconds between two updates; more if reading takes long.
        console: a terminal gets a live view, anything else one line per change.

    Returns:
        The exit code of the run, or 3 if the run has stopped and can be resumed.

    Raises:
        ResultsError: if there is no sweep.
    """
    seen = _change_times(path)
    changed_at = time.monotonic()
    is_gone = False
    with _LiveView(console) if console.is_terminal else _Lines(console) as view:
        while True:
            began = time.monotonic()
            sweep = load(path)
            watched = look_at(sweep, time.time())
            view.show(watched)
            is_gone = began - changed_at > SILENCE_S
            if watched.state not in _CONTINUES or is_gone:
                break
            time.sleep(max(every_s, (time.monotonic() - began) / _SHARE_OF_TIME))
            times = _change_times(path)
            if times != seen:
                seen, changed_at = times, time.monotonic()
    print_status(sweep_status(sweep))
    if is_gone and watched.state != GONE:
        print(f"  no file has changed for {SILENCE_S:.0f} s: no active run; run the same command to resume")
    # A stopped run leaves the sweep like a run without workers.
    return next((end.exit_code for end in EndReason if end == sweep.state), EndReason.NO_WORKERS.exit_code)


def _change_times(path: Path) -> dict[Path, int]:
    """File -> time of its last change, for all files that a run writes."""
    times: dict[Path, int] = {}
    files = [path]
    for top in (journal_folder(path), shares_folder(path)):
        files += [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    for file in files:
        # Files may disappear meanwhile.
        with contextlib.suppress(OSError):
            times[file] = file.stat().st_mtime_ns
    return times


class _Lines:
    """One line per change, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: object = None

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, watched: Watched) -> None:
        progress = watched.progress
        shown = progress.ended, progress.failed, [trial.number for trial in watched.running], watched.state
        if shown != self._last:
            self._last = shown
            self._console.print(
                f"{watched.name}: {progress_line(progress)}", markup=False, highlight=False, soft_wrap=True
            )


class _LiveView:
    """A view that is redrawn in place, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> _LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, watched: Watched) -> None:
        self._live.update(_drawn(watched), refresh=True)


def _drawn(watched: Watched) -> RenderableType:
    progress = watched.progress
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = watched.running[:_ROWS]
    names = list(dict.fromkeys(name for trial in shown for name in trial.parameters))
    for heading in (
        "trial",
        *names,
        "for",
        f"last {progress.objective}",
        "on",
    ):
        table.add_column(
            escape(heading), justify="right" if heading != "on" else "left", overflow="ellipsis", no_wrap=True
        )
    for trial in shown:
        values = (escape(value_text(trial.parameters.get(name, ""))) for name in names)
        last = "" if trial.last is None else f"{number_text(trial.last[1])} at {trial.last[0]}"
        table.add_row(str(trial.number), *values, duration_text(trial.for_s), last, escape(trial.where))
    if len(watched.running) > _ROWS:
        table.caption = f"and {len(watched.running) - _ROWS} more"
    return Group(
        Text.assemble((watched.name, "bold"), "  ", progress_line(progress)),
        ProgressBar(total=max(progress.total, 1), completed=progress.ended),
        *([table] if watched.running else []),
    )
