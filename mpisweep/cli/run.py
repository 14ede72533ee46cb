"""The command run: a rank under mpirun or srun, otherwise the launcher."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mpisweep.batch.variables import CALLER_VARIABLE, LAUNCH_VARIABLE
from mpisweep.cli.arguments import Commands, add_workers, duration, master_policy
from mpisweep.cli.handed import Asked
from mpisweep.cli.pilots import check_pilot, pilot_size, planned_times
from mpisweep.cli.sweepargs import (
    add_split,
    add_stage_env,
    add_sweep,
    check_split,
    read_spec,
    results_path,
)
from mpisweep.rank.transport import expected_rank
from mpisweep.spec import SpecError

__all__ = ["add_commands", "asked_of_ranks"]


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
    parser.add_argument(
        "--pilot",
        type=pilot_size,
        metavar="N",
        help="run only N trials that are chosen to tell how long all others take, then stop; see "
        "`mpisweep check --plan`",
    )
    parser.add_argument(
        "--planned",
        type=planned_times,
        metavar="SECONDS,SECONDS",
        help="time that a plan expects and its 95%% bound, recorded beside the time that the run takes; "
        "`mpisweep submit --plan` sets it",
    )
    add_split(parser, "cut the sweep into K shares; start the same command in each job")
    add_stage_env(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings only")
    parser.set_defaults(command=_run)


def asked_of_ranks(options: argparse.Namespace, path: Path) -> Asked:
    """The options that concern a rank; `path` is that of the results file."""
    return Asked(
        path, master_policy(options), options.walltime, options.quiet, options.split, options.stage_env,
        options.stage_to, options.stage_keep, options.pilot or 0, options.planned, options.fresh,
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    spec = read_spec(options)
    if options.split is not None and options.fresh:
        raise SpecError(
            "command line: --fresh with --split: each run would start over; set -o to a new file, or "
            "move the old one aside first"
        )
    check_split(spec, options.split)
    if CALLER_VARIABLE in os.environ and expected_rank() is not None:
        raise SpecError(
            "mpisweep.run starts the ranks itself; run the script without mpirun, or use "
            "`mpirun mpisweep run`"
        )
    check_pilot(spec, options.pilot, options.split)
    if expected_rank() is not None or LAUNCH_VARIABLE in os.environ:
        if options.dry_run:
            raise SpecError("--dry-run shows how ranks would start; run it without mpirun")
        # A rank needs little of what the launcher does, and there may be thousands.
        from mpisweep.cli.rank import run_as_rank

        return run_as_rank(spec, asked_of_ranks(options, results_path(options, spec)))
    from mpisweep.spec.preflight import begin_import

    with begin_import(spec) as importing:
        from mpisweep.cli.launcher import run_launcher

        return run_launcher(spec, options, importing)
