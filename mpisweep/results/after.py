"""Reading the best configuration of an earlier sweep, for the key ``after`` of a sweep file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mpisweep.records import EndReason, TrialState
from mpisweep.results import ResultsError, behind_link, journal_folder
from mpisweep.results.best import best_of
from mpisweep.results.load import Sweep, load_tables, total_trials
from mpisweep.results.reports import Reading
from mpisweep.results.shares.merging import read_sweep
from mpisweep.spec import After, SpecError, parse_spec

__all__ = ["read_after"]

log = logging.getLogger(__name__)


def read_after(
    file: str,
    name: str,
    *,
    source: str,
    folder: Path,
    output: str | os.PathLike[str] | None,
    is_fresh: bool = False,
) -> After:
    """Read the best configuration: what this sweep has recorded, or else that of the file.

    Args:
        file: the results file of the earlier sweep, relative to `folder`.
        name: of this sweep.
        source: the sweep file, for messages.
        folder: of the sweep file.
        output: the results file of this sweep, which may not exist; ``NAME.h5`` unless given.
        is_fresh: whether this sweep starts over.

    Raises:
        SpecError: if there is no best configuration; the message says why.
    """
    recorded = None if is_fresh else _recorded(Path(output or f"{name}.h5"))
    if recorded is not None and recorded.file == file:
        return recorded
    path = behind_link(folder / file)
    if not path.exists() and not journal_folder(path).exists():
        raise SpecError(f"{source}: after: {path} does not exist; run that sweep first")
    try:
        sweep = load_tables(path)
    except ResultsError as error:
        raise SpecError(f"{source}: after: {error}") from error
    best = best_of(sweep)
    if best is None:
        raise SpecError(
            f"{source}: after: {path} has no complete trial with a finite {sweep.objective}, and so no best "
            "configuration"
        )
    if unfinished := _unfinished(sweep):
        log.warning("%s: after: %s is %s; its best configuration so far is taken", source, file, unfinished)
    return After(file, best.number, sweep.objective, best.value, best.runs, best.parameters)


def _recorded(results: Path) -> After | None:
    """What the results file of this sweep has recorded; None if nothing can be read."""
    try:
        state = read_sweep(behind_link(results), reading=Reading.TABLES)
        return parse_spec(state.spec, source=state.source, folder=results.parent, is_recorded=True).after
    except (ResultsError, SpecError, OSError):
        return None


def _unfinished(sweep: Sweep) -> str:
    """How far a sweep is that has not ended as its file asks; else empty."""
    if any(sweep.state == end and (end.is_final or end.is_rule) for end in EndReason):
        return ""
    ended = sum(sweep.count(state) for state in TrialState if state.is_end)
    return f"not complete ({sweep.state}, {ended:,} of {total_trials(sweep):,} trials have ended)"
