"""The command run: a rank under mpirun or srun, otherwise the launcher.

The launcher starts the same command again as ranks; it starts a single rank without MPI.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from mpisweep.batch import describe
from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end, wrongly_started
from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.launch import (
    BEGUN_VARIABLE,
    CALLER_VARIABLE,
    ENDS_VARIABLE,
    LAUNCH_VARIABLE,
    ONE_HOST_VARIABLE,
    PROGRESS_VARIABLE,
    SYSTEM_VARIABLE,
    launch,
    mpi_environment,
)
from mpisweep.batch.launchers import LaunchError
from mpisweep.batch.start import Start, plan_start
from mpisweep.batch.walltime import earliest_end, plan_stop
from mpisweep.cli.arguments import Commands, duration
from mpisweep.cli.logs import configure_logging, is_on_one_host
from mpisweep.cli.outcome import OwnResults, SharedResults, closings, describe_end
from mpisweep.cli.sweepargs import (
    add_split,
    add_stage_env,
    add_sweep,
    check_split,
    check_time,
    read_spec,
    results_path,
)
from mpisweep.cli.workers import add_workers, check_fit, master_policy, place_workers, usual_node
from mpisweep.processes.kernel import HOSTS_VARIABLE, die_with_parent, this_host
from mpisweep.progress import ALIVE
from mpisweep.rank.transport import expected_rank
from mpisweep.spec import Spec, SpecError
from mpisweep.spec.preflight import check_startable

__all__ = ["add_commands"]

#: Times limits.silence after which an mpirun without any live rank is restarted.  Ranks wait half as long for
#: each other.
_START_FACTOR = 20
#: Flags for the launcher, or only for the first ranks that it starts.
_NOT_FOR_RANKS = ("--dry-run", "--fresh")

log = logging.getLogger(__name__)


def add_commands(commands: Commands) -> None:
    """Register run."""
    parser = commands.add_parser(
        "run",
        help="run a sweep, or resume it",
        description="Run a sweep, or resume it if the results file exists. Starts the ranks itself; under "
        "mpirun or srun it is one rank.",
    )
    add_sweep(parser)
    add_workers(parser)
    parser.add_argument(
        "--walltime", type=duration, metavar="H:MM:SS", help="stop cleanly before this time is up"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start over; move an existing results file aside"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print how the ranks would start and when the sweep would stop; start nothing",
    )
    add_split(parser, "cut the sweep into K shares; start the same command in each job")
    add_stage_env(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings only")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    spec = read_spec(options)
    if options.split is not None and options.fresh:
        raise SpecError(
            "command line: --fresh with --split: each run would start over; set -o to a new file, or "
            "move the old one aside first"
        )
    check_split(spec, options.split)
    if CALLER_VARIABLE in os.environ and expected_rank() is not None:
        raise LaunchError(
            "mpisweep.run starts the ranks itself; run the script without mpirun, or use "
            "`mpirun mpisweep run`"
        )
    if expected_rank() is not None or LAUNCH_VARIABLE in os.environ:
        if options.dry_run:
            raise LaunchError("--dry-run shows how ranks would start; run it without mpirun")
        return _run_rank(spec, options)
    if why := wrongly_started(os.environ):
        raise LaunchError(why)
    return _run_launcher(spec, options)


# ------------------------------------------------------------------------------------- launcher


def _run_launcher(spec: Spec, options: argparse.Namespace) -> int:
    from rich.console import Console

    caller = os.environ.pop(CALLER_VARIABLE, "")
    if caller:
        # A notebook whose kernel dies leaves no sweep behind that nobody sees.  The signal is one that may be
        # repeated: the kernel sends it for each thread of the caller that may have been the parent.
        die_with_parent(int(caller), signal.SIGUSR1)
    relays = os.environ.pop(PROGRESS_VARIABLE, "") == "json"
    allocation = with_end(this_allocation())
    configure_logging(None, this_host() if len(allocation.nodes) > 1 else "", quiet=options.quiet)
    check_startable(spec)
    path = results_path(options, spec)
    measured = closings(path) if options.walltime is not None or options.dry_run else ()
    check_time(spec, "--walltime", options.walltime, measured)
    start = _plan(spec, options, allocation)
    ends_at, ends_by = earliest_end(allocation, options.walltime, time.time())
    if options.dry_run:
        _print_plan(start, len(usual_node(allocation).gpus), ends_at, ends_by, spec.limits.grace_s, measured)
        return 0
    if ends_at is None:
        warn_of_unknown_end(allocation)
    console = Console(stderr=True)
    ended = launch(
        start,
        # What a program calls draws nothing itself, even if FORCE_COLOR says that this is a terminal.
        console=console if console.is_terminal and not options.quiet and not caller else None,
        results=OwnResults(path) if options.split is None else SharedResults(path),
        ends_at=ends_at,
        restarts=spec.limits.restarts,
        patience_s=_START_FACTOR * spec.limits.silence_s,
        relays=relays and not options.quiet,
    )
    if ended.reason is not None:
        log.log(
            logging.WARNING if ended.exit_code else logging.INFO,
            "%s",
            describe_end(path, spec.name, ended.reason),
        )
    return ended.exit_code


def _plan(spec: Spec, options: argparse.Namespace, allocation: Allocation) -> Start:
    placement = place_workers(options, spec, allocation, usual_node(allocation))
    check_fit(options, spec, allocation, placement)
    return plan_start(allocation, placement, _rank_arguments(options), fresh=options.fresh)


def _rank_arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """Arguments of ``run`` for the ranks: all but the launcher's flags, also abbreviated."""
    works = ("--master", "works") if master_policy(options) != options.master else ()
    kept = [
        argument
        for argument in options.given
        if not (
            len(argument) > 2
            and argument.startswith("--")
            and any(flag.startswith(argument) for flag in _NOT_FOR_RANKS)
        )
    ]
    return (*works, *kept, *(("--", *options.command_line) if options.command_line else ()))


def _print_plan(
    start: Start,
    gpus_per_node: int,
    ends_at: float | None,
    ends_by: str,
    grace_s: float,
    measured: Sequence[float],
) -> None:
    left_s = None if ends_at is None else ends_at - time.time()
    plan = plan_stop(0.0, left_s, grace_s, measured)
    command = start.command(mpi_environment() | {LAUNCH_VARIABLE: "", ENDS_VARIABLE: ""})
    print("\n".join(describe.describe_start(start, command, gpus_per_node)))
    print("\n".join(describe.describe_end(start.allocation, ends_at, ends_by, plan, time.time())))


# ------------------------------------------------------------------------------------- rank


def _run_rank(spec: Spec, options: argparse.Namespace) -> int:
    from mpisweep.progress import JsonProgress, LineProgress, NoProgress, ProgressSink
    from mpisweep.rank.main import log as rank_log
    from mpisweep.rank.main import run_rank
    from mpisweep.rank.options import RankOptions

    # Trial processes must not inherit these.
    launch_name = os.environ.pop(LAUNCH_VARIABLE, "")
    has_begun = bool(os.environ.pop(BEGUN_VARIABLE, ""))
    stated_end = os.environ.pop(ENDS_VARIABLE, "")
    system = os.environ.pop(SYSTEM_VARIABLE, "")
    is_drawn = os.environ.pop(PROGRESS_VARIABLE, "") == "json"
    has_one_host = os.environ.pop(ONE_HOST_VARIABLE, "") == "1" or expected_rank() is None or is_on_one_host()
    has_one_host = has_one_host and HOSTS_VARIABLE not in os.environ
    if launch_name:
        print(ALIVE, file=sys.stderr, flush=True)
    configure_logging(expected_rank() or 0, "" if has_one_host else this_host(), quiet=options.quiet)
    sink: ProgressSink
    if options.quiet:
        sink = NoProgress()
    elif is_drawn:
        sink = JsonProgress(sys.stdout)
    else:
        sink = LineProgress(rank_log.info)
    path = results_path(options, spec)
    refusal = ""
    if not launch_name and expected_rank() == 0:
        # No launcher has checked this; the check starts a process, so it comes before MPI.
        try:
            check_startable(spec)
            check_time(spec, "--walltime", options.walltime)
        except SpecError as error:
            refusal = str(error)
    return run_rank(spec, RankOptions(
        path, options.fresh, options.master, options.walltime, sink, launch_name, refusal, options.split,
        options.stage_env, ends_at=float(stated_end) if stated_end else None, has_begun=has_begun,
        batch_system=system,
    ))  # fmt: skip
