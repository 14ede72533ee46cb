"""The launcher's part of ``mpisweep run``.

It checks what can be checked before any rank starts, and starts the same command again as ranks; a single
rank it starts without MPI.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpisweep.batch import describe
from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end, wrongly_started
from mpisweep.batch.hooks import HookRun
from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.launch import launch, mpi_environment
from mpisweep.batch.launchers import LaunchError
from mpisweep.batch.start import Start, plan_start
from mpisweep.batch.variables import CALLER_VARIABLE, ENDS_VARIABLE, LAUNCH_VARIABLE, PROGRESS_VARIABLE
from mpisweep.batch.walltime import earliest_end, plan_stop
from mpisweep.cli.after import tell_ranks
from mpisweep.cli.handed import hand_over
from mpisweep.cli.hooking import hooks_of
from mpisweep.cli.logs import configure_logging
from mpisweep.cli.outcome import OwnResults, SharedResults, closings
from mpisweep.cli.run import asked_of_ranks
from mpisweep.cli.sweepargs import check_time, results_path
from mpisweep.cli.workers import check_fit, place_workers, usual_node
from mpisweep.processes.kernel import die_with_parent, this_host
from mpisweep.spec import Spec
from mpisweep.spec.preflight import check_startable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run_launcher"]

#: Times limits.silence after which an mpirun without any live rank is restarted.  Ranks wait half as long for
#: each other.
_START_FACTOR = 20
#: Time for the ranks to exit after the end of the run, and if they remove copies of staged data, in seconds.
_LEAVE_S = 15.0
_REMOVE_S = 600.0
#: Flags for the launcher, or only for the first ranks that it starts.
_NOT_FOR_RANKS = ("--dry-run", "--fresh")

#: Variables by which users tell rich that a stream is a terminal.
_SAY_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

log = logging.getLogger(__name__)


def run_launcher(
    spec: Spec, options: argparse.Namespace, importing: subprocess.Popen[bytes] | None = None
) -> int:
    """Start the ranks of a sweep, or with ``--dry-run`` print how; returns the exit code.

    Args:
        spec: the sweep.
        options: of the command line.
        importing: see :func:`mpisweep.spec.preflight.begin_import`.
    """
    if why := wrongly_started(os.environ):
        raise LaunchError(why)
    caller = os.environ.pop(CALLER_VARIABLE, "")
    if caller:
        # A notebook whose kernel dies leaves no sweep behind that nobody sees.  The signal is one that may be
        # repeated: the kernel sends it for each thread of the caller that may have been the parent.
        die_with_parent(int(caller), signal.SIGUSR1)
    relays = os.environ.pop(PROGRESS_VARIABLE, "") == "json"
    allocation = with_end(this_allocation(), also_wait=not options.dry_run)
    configure_logging(None, this_host() if len(allocation.nodes) > 1 else "", quiet=options.quiet)
    check_startable(spec, importing=importing)
    path = results_path(options, spec)
    measured = closings(path) if options.walltime is not None or options.dry_run else ()
    check_time(spec, "--walltime", options.walltime, measured)
    start = _plan(spec, options, allocation)
    ends_at, ends_by = earliest_end(allocation, options.walltime, time.time())
    reserve_s = 0.0 if ends_at is None else HookRun.reserve_s(spec.hooks, ends_at - time.time())
    if options.dry_run:
        gpus = len(usual_node(allocation).gpus)
        _print_plan(start, gpus, ends_at, ends_by, spec.limits.grace_s, measured, reserve_s)
        return 0
    if ends_at is None:
        warn_of_unknown_end(allocation)
    tell_ranks(spec)
    results = OwnResults(path) if options.split is None else SharedResults(path)
    ended = launch(
        start,
        # What a program calls draws nothing itself, even if FORCE_COLOR says that this is a terminal.
        console=None if options.quiet or caller else _terminal(),
        results=results,
        ends_at=None if ends_at is None else ends_at - reserve_s,
        restarts=spec.limits.restarts,
        patience_s=_START_FACTOR * spec.limits.silence_s,
        leave_s=_REMOVE_S if spec.stage_data and not options.stage_keep else _LEAVE_S,
        relays=relays and not options.quiet,
        handed=hand_over(spec, asked_of_ranks(options, path)),
        hooks=hooks_of(spec, path, allocation, ends_at, is_fresh=options.fresh),
    )
    if ended.reason is not None:
        log.log(
            logging.WARNING if ended.exit_code else logging.INFO,
            "%s",
            results.describe_end(spec.name, ended.reason),
        )
    return ended.exit_code


def _terminal() -> Console | None:
    """The terminal to draw on; None without one."""
    # A closed stream is None.
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not is_terminal and not any(os.environ.get(name) for name in _SAY_TERMINAL):
        # Jobs need not import rich.
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal else None


def _plan(spec: Spec, options: argparse.Namespace, allocation: Allocation) -> Start:
    placement = place_workers(options, spec, allocation, usual_node(allocation))
    check_fit(options, spec, allocation, placement)
    return plan_start(allocation, placement, _rank_arguments(options), fresh=options.fresh)


def _rank_arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """Arguments of ``run`` for the ranks: all but the launcher's flags, also abbreviated.

    Nothing is added: the results file records them as the command that resumes the sweep.
    """
    kept = [
        argument
        for argument in options.given
        if not (
            len(argument) > 2
            and argument.startswith("--")
            and any(flag.startswith(argument) for flag in _NOT_FOR_RANKS)
        )
    ]
    return (*kept, *(("--", *options.command_line) if options.command_line else ()))


def _print_plan(
    start: Start,
    gpus_per_node: int,
    ends_at: float | None,
    ends_by: str,
    grace_s: float,
    measured: Sequence[float],
    reserve_s: float,
) -> None:
    left_s = None if ends_at is None else ends_at - reserve_s - time.time()
    plan = plan_stop(0.0, left_s, grace_s, measured)
    command = start.command(mpi_environment() | {LAUNCH_VARIABLE: "", ENDS_VARIABLE: ""})
    print("\n".join(describe.describe_start(start, command, gpus_per_node)))
    print("\n".join(describe.describe_end(start.allocation, ends_at, ends_by, plan, time.time())))
