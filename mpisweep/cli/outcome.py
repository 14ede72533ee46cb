"""Read from results how a run ended, how far the sweep is, and whether it made progress.

Used by commands that start runs.  A missing or unreadable file gives no information.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.batch.chain import Standing
from mpisweep.batch.watchdog import RunEnd
from mpisweep.processes.one_core import on_one_core
from mpisweep.records import EndReason, RequestKind, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["OwnResults", "SharedResults", "closings", "standing", "tables_if_readable"]

#: Seconds that the ranks of a closed run may take to exit.
_LAST_ACT_S = 10.0


def tables_if_readable(path: Path) -> Sweep | None:
    """Load a sweep without its curves; None if it cannot be read, or there is none."""
    try:
        return _reader()(path)
    except (ResultsError, OSError):
        return None


def _reader() -> Callable[[Path], Sweep]:
    """What reads tables; the first call takes 0.1 s."""
    with on_one_core():
        from mpisweep.results.load import load_tables
    return load_tables


class OwnResults:
    """The results of a sweep with one run at a time; created when the launch begins.

    Args:
        path: the results file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since = time.time()
        #: The sweep that :meth:`end` has read last; it may be large.
        self._read: Sweep | None = None

    def prepare(self) -> None:
        """See :class:`mpisweep.batch.launch.Results`."""
        _reader()

    def end(self, launch: str, returned: int | None) -> RunEnd:
        """See :class:`mpisweep.batch.launch.Results`."""
        sweep = self._read = tables_if_readable(self._path)
        rows = [] if sweep is None else list(sweep.allocations)
        own = [index for index, row in enumerate(rows) if row["launch"] == launch]
        if own and rows[own[-1]]["end"]:
            return self._end_when_merged(rows[own[-1]])
        # If the ranks were lost before they began a run, the time tells which run came later.
        if rows and (own[-1] + 1 < len(rows) if own else rows[-1]["started_at"] > self._since):
            return RunEnd(superseded_by=_run_text(rows[-1]))
        if returned != EndReason.DISK.exit_code:
            return RunEnd()
        # The ranks ended cleanly but could not write why: another run took the sweep, or the disk failed.
        return (
            RunEnd(superseded_by=other)
            if (other := self._other_holder(rows, own))
            else RunEnd(EndReason.DISK)
        )

    def _other_holder(self, rows: Sequence[Any], own: Sequence[int]) -> str:
        """Another run that holds the sweep but has written no record yet; empty for none."""
        from mpisweep.results.holder import holder_of

        holder = holder_of(journal_folder(self._path))
        return (
            ""
            if holder is None or holder.run in {str(rows[index]["run"]) for index in own}
            else holder.text()
        )

    def _end_when_merged(self, row: Any) -> RunEnd:
        """The end of a run, once its journal is merged; empty if that does not happen in time."""
        from mpisweep.results.journal.segments import segments

        # mpirun may exit before the last rank, which removes the journal last.
        until = time.monotonic() + _LAST_ACT_S
        while any(name.startswith(f"{row['run']}-") for name in segments(journal_folder(self._path))):
            if time.monotonic() > until:
                return RunEnd()
            time.sleep(0.05)
        return RunEnd(EndReason(str(row["end"])))

    def describe_end(self, name: str, reason: EndReason) -> str:
        """Write the last line of a launcher: how the run ended, how far the sweep is, what to do.

        Args:
            name: of the sweep.
            reason: why the run ended.
        """
        path = self._path
        sweep = self._read or tables_if_readable(path)
        now = _standing(sweep)
        parts = [f"{name}: {reason}"]
        if now.trials:
            parts.append(f"{now.ended:,} of {now.trials:,} trials have ended")
        if reason is EndReason.NOTHING_FINITE:
            parts.append(_why_nothing_finite(sweep))
        elif reason.exit_code == 4:
            parts.append(f"`mpisweep status {path}` counts the failures by cause")
        elif reason is EndReason.DISK:
            parts.append("free disk space, then run the same command to resume")
        elif reason is EndReason.PILOT:
            parts.append("`mpisweep check --plan` says what the others take")
        elif reason.is_rule:
            parts.append("change [stop] to continue")
        elif reason.exit_code == 3:
            parts.append("run the same command to resume")
        return "; ".join(part for part in parts if part)

    def ended_trials(self) -> int:
        """See :class:`mpisweep.batch.launch.Results`."""
        return standing(self._path).ended

    def begun_runs(self, launch: str) -> int:
        """See :class:`mpisweep.batch.launch.Results`."""
        sweep = tables_if_readable(self._path)
        return 0 if sweep is None else int((sweep.allocations["launch"] == launch).sum())

    def stamp(self) -> tuple[int, ...]:
        """Identify the claim by its time, which the running sweep renews."""
        from mpisweep.results.holder import claim_file

        try:
            found = claim_file(journal_folder(self._path)).stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino


class SharedResults(OwnResults):
    """The results of a sweep that several runs share."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._left_before = self._left()

    def end(self, launch: str, returned: int | None) -> RunEnd:
        """See :class:`mpisweep.batch.launch.Results`."""
        sweep = self._read = tables_if_readable(self._path)
        if sweep is not None:
            if (reason := _final(sweep.state)) is not None:
                return RunEnd(reason)
            ends = [str(row["end"]) for row in sweep.allocations if row["launch"] == launch]
            if ends and ends[-1]:
                return RunEnd(EndReason(ends[-1]))
        # A failing disk cannot record its own failure.
        return RunEnd(EndReason.DISK if returned == EndReason.DISK.exit_code else None)

    def stamp(self) -> tuple[int, ...]:
        """Identify the members that left; empty once one of them left during this launch."""
        left = self._left()
        return () if left is None or left != self._left_before else (len(left),)

    def _left(self) -> frozenset[str] | None:
        """The members that left the sweep; None if it is not shared."""
        try:
            return frozenset(name for name in os.listdir(shares_folder(self._path)) if name.endswith(".left"))
        except OSError:
            return None


def _final(state: str) -> EndReason | None:
    """The end of a sweep in which the same command has nothing left to do; None if it is not at its end."""
    return next((end for end in EndReason if end == state and (end.is_final or end.is_rule)), None)


def _run_text(row: Any) -> str:
    """Describe a run for messages."""
    job = f", job {row['job_id']}" if row["job_id"] else ""
    since = float(row["started_at"])
    when = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since)) if math.isfinite(since) else ""
    return f"on {row['host']}{job}{when}"


def standing(path: Path) -> Standing:
    """Read how far the sweep is."""
    return _standing(tables_if_readable(path))


def _standing(sweep: Sweep | None) -> Standing:
    from mpisweep.results.load import total_trials
    from mpisweep.spec import ADDING

    if sweep is None:
        return Standing()
    ended = sum(sweep.count(state) for state in TrialState if state.is_end)
    last = str(sweep.allocations[-1]["end"]) if len(sweep.allocations) else ""
    trials = total_trials(sweep)
    if sweep.spec.search in ADDING and _final(last) is None:
        # The search was stopped before it had proposed all its trials.
        trials += 1
    over = next((end for end in EndReason if end == last and (end.exit_code == 4 or end.is_rule)), None)
    if asked := _trials_asked_for(sweep):
        # A retry or more points; the next run has something to do, however the last one has ended.
        return Standing(ended, trials + asked)
    why = "" if over is None else str(over) if over.is_rule else f"the last run cannot be resumed: {over}"
    return Standing(ended, trials, why)


def _trials_asked_for(sweep: Sweep) -> int:
    """Number of trials that requests ask for and that no run has taken."""
    from mpisweep.results.requests import read_requests

    try:
        requests, _ = read_requests(sweep.path, set(map(str, sweep.requests["request"])))
    except OSError:
        return 0
    opening = [one for one in requests if one.kind in (RequestKind.RETRY, RequestKind.ADD)]
    return sum(len(one.trials) + len(one.configurations) for one in opening)


def closings(path: Path) -> list[float]:
    """Seconds that closing took in earlier runs; see :mod:`mpisweep.batch.walltime`."""
    sweep = tables_if_readable(path)
    return [] if sweep is None else [float(seconds) for seconds in sweep.allocations["closing_time"]]


def _why_nothing_finite(sweep: Sweep | None) -> str:
    """Why no objective is finite: it was never reported, or every value diverged."""
    if sweep is None:
        return ""
    names = [objective.name for objective in sweep.objectives]
    for name in names:
        if name not in sweep.metrics:
            return f"no trial reported {name!r}; reported: {', '.join(sweep.metrics) or 'nothing'}"
    if len(names) > 1:
        return f"in every trial one of {', '.join(names)} is missing, NaN or infinite"
    return f"every {sweep.objective} is missing, NaN or infinite"
