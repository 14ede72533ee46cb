"""What results say of the runs that wrote them: how a run ended, how far the sweep is, whether it was of use.

Asked by those who start runs.  A file that is not there yet, or cannot be read, says nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep.batch.chain import Standing
from mpisweep.records import EndReason, TrialState
from mpisweep.results import ResultsError, journal_folder

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["begun_runs", "closings", "end_of_share", "recorded_end", "standing", "warn_without_objective"]

#: How long the ranks of a run that has ended may take to be gone, in seconds.
_LAST_ACT_S = 10.0


def _sweep(path: Path) -> Sweep | None:
    from mpisweep.results.load import load

    try:
        return load(path)
    except (ResultsError, OSError):
        return None


def recorded_end(path: Path, launch_name: str, returned: int) -> EndReason | None:
    """Why the last run has ended, when it is of this launch and has ended in order; else None."""
    sweep = _sweep(path)
    last = sweep.allocations[-1] if sweep is not None and len(sweep.allocations) else None
    if last is None or last["launch"] != launch_name or not last["end"]:
        return _unsaid(returned)
    # mpirun may be gone before the last rank is, whose last act is to remove the journal.
    until = time.monotonic() + _LAST_ACT_S
    while journal_folder(path).exists():
        if time.monotonic() > until:
            return None
        time.sleep(0.05)
    return EndReason(str(last["end"]))


def end_of_share(path: Path, launch_name: str, returned: int) -> EndReason | None:
    """The same, where other runs work on the sweep as well."""
    sweep = _sweep(path)
    if sweep is None:
        return _unsaid(returned)
    if sweep.state in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED):
        return EndReason(sweep.state)
    ends = [str(row["end"]) for row in sweep.allocations if row["launch"] == launch_name]
    if not ends or not ends[-1]:
        return _unsaid(returned)
    return EndReason(ends[-1])


def _unsaid(returned: int) -> EndReason | None:
    """Why a run has ended whose end is not in the results: a disk that takes nothing does not take that either."""
    return EndReason.DISK if returned == EndReason.DISK.exit_code else None


def standing(path: Path) -> Standing:
    """How far the sweep is."""
    sweep = _sweep(path)
    if sweep is None:
        return Standing()
    ended = sum(sweep.count(state) for state in TrialState if state.is_end)
    last = str(sweep.allocations[-1]["end"]) if len(sweep.allocations) else ""
    trials = len(sweep.trials)
    if sweep.spec.search == "largest_batch" and last not in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED):
        # It asks for trials by what has ended, and was stopped before it had asked for all.
        trials += 1
    return Standing(ended, trials, last if last in (EndReason.ALIKE, EndReason.NOTHING_COMPLETED) else "")


def begun_runs(path: Path, launch_name: str) -> int:
    """How many runs of this launch the results know."""
    sweep = _sweep(path)
    return 0 if sweep is None else int((sweep.allocations["launch"] == launch_name).sum())


def closings(path: Path) -> list[float]:
    """How long closing has taken in earlier runs; see :mod:`mpisweep.batch.walltime`."""
    sweep = _sweep(path)
    return [] if sweep is None else [float(seconds) for seconds in sweep.allocations["closing_time"]]


def warn_without_objective(path: Path) -> None:
    """Warn of a sweep that is complete and of no use: a pattern that never matched, or a name that is not returned."""
    from mpisweep.rank import log
    from mpisweep.results.load import load

    sweep = load(path)
    if len(sweep.trials) and sweep.objective not in sweep.metrics:
        log.warning(
            "no trial has reported the objective, %r; metrics there are: %s",
            sweep.objective, ", ".join(sweep.metrics) or "none",
        )  # fmt: skip
