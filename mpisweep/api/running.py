"""``mpisweep.run``: a sweep from a script or a notebook."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

from mpisweep.api.command import Done, follow
from mpisweep.api.display import chosen_view
from mpisweep.api.errors import InputError, SweepError
from mpisweep.api.functions import check_not_in_trial
from mpisweep.api.keys import Source, SweepKeys
from mpisweep.api.source import Asked, asked_sweep
from mpisweep.batch.output import PlainView

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["Duration", "Master", "run"]

#: Seconds, or a text such as ``"1:30:00"`` or ``"90m"``.
Duration: TypeAlias = float | str
#: Whether rank 0 runs trials too.
Master: TypeAlias = Literal["auto", "works", "idle"]

#: Exit code for input that is wrong, and the codes of a run that has left results.
_WRONG = 2
_ENDED, _STOPPED, _NOTHING = 0, 3, 4


def run(
    sweep: Source | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    walltime: Duration | None = None,
    fresh: bool = False,
    master: Master = "auto",
    progress: bool = True,
    **keys: Unpack[SweepKeys],
) -> Sweep:
    """Run a sweep, or resume it, and return it when it has ended.

    Starts the launcher of ``mpisweep run`` in a process of its own.  The first interrupt (Ctrl-C, or that of
    a notebook) stops the sweep cleanly, the second one at once; in both cases the same call resumes it.

    Args:
        sweep: a sweep file, a sweep as a dict, a function of one argument, a built-in workload,
            ``module:function``, or a command line as a list.
        output: results file; ``NAME.h5`` unless given.
        workers: number of workers; one per GPU, else one per core, unless given.
        walltime: stop cleanly before this time is up, in seconds or as ``"H:MM:SS"``.
        fresh: start over; move an existing results file aside.
        master: whether rank 0 runs trials too; only if a device would be idle unless given.
        progress: show progress; otherwise only warnings.
        keys: keys of a sweep file, such as ``parameters`` and ``objective``; not with a sweep file.

    Returns:
        The sweep.  Its :attr:`~mpisweep.Sweep.ended` says why the run has ended; a sweep that was stopped
        early, by the walltime or ``mpisweep stop``, is returned too.

    Raises:
        InputError: when the sweep, an argument or a file is wrong.
        SweepError: when there are no results: no trial completed, or the ranks could not go on.
        KeyboardInterrupt: after an interrupt, when the run has ended.
    """
    check_not_in_trial("mpisweep.run")
    asked = asked_sweep(sweep, keys, output)
    options = [] if master == "auto" else ["--master", master]
    options += [] if workers is None else ["-n", str(workers)]
    options += [] if walltime is None else ["--walltime", str(walltime)]
    options += ["--fresh"] if fresh else []
    options += [] if progress else ["--quiet"]
    with asked.written() as kept_open:
        if progress:
            with chosen_view() as (view, draws):
                done = follow(["run", *asked.arguments, *options], view, draws=draws, kept_open=kept_open)
        else:
            done = follow(["run", *asked.arguments, *options], PlainView(), draws=False, kept_open=kept_open)
    return _outcome(asked, done)


def _outcome(asked: Asked, done: Done) -> Sweep:
    if done.was_interrupted:
        raise KeyboardInterrupt(f"{asked.results}: the run was interrupted; the same call resumes it")
    if done.returned == _WRONG:
        raise InputError(done.message or f"{asked.results}: the sweep was refused")
    found = _loaded(asked.results) if done.returned in (_ENDED, _STOPPED, _NOTHING) else None
    if found is None:
        raise SweepError(
            done.message or f"{asked.results}: the launcher exited with {done.returned} and left no results",
            done.returned,
        )
    if done.returned == _NOTHING:
        raise SweepError(
            f"{asked.results}: {found.ended or 'no trial completed'}; the attribute `sweep` of this error "
            f"has the trials, and `mpisweep status {asked.results}` counts the failures by cause",
            done.returned,
            found,
        )
    return found


def _loaded(path: Path) -> Sweep | None:
    from mpisweep.results import ResultsError
    from mpisweep.results.load import load

    try:
        return load(path)
    except ResultsError:
        return None
