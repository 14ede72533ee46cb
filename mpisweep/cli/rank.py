"""A rank's part of ``mpisweep run``.

Some of its options come from the launcher, in the environment.
"""

from __future__ import annotations

import os
import sys

from mpisweep.batch.variables import (
    AFTER_VARIABLE,
    BEGUN_VARIABLE,
    ENDS_VARIABLE,
    HANDED_VARIABLE,
    LAUNCH_VARIABLE,
    ONE_HOST_VARIABLE,
    PROGRESS_VARIABLE,
    QUEUE_WAIT_VARIABLE,
    SYSTEM_VARIABLE,
)
from mpisweep.cli.handed import Asked
from mpisweep.cli.logs import configure_logging, is_on_one_host
from mpisweep.processes.kernel import HOSTS_VARIABLE, this_host
from mpisweep.progress import ALIVE, JsonProgress, LineProgress, NoProgress, ProgressSink
from mpisweep.rank.main import log as rank_log
from mpisweep.rank.main import run_rank
from mpisweep.rank.options import RankOptions
from mpisweep.rank.transport import expected_rank
from mpisweep.spec import Spec, SpecError

__all__ = ["run_as_rank"]


def run_as_rank(spec: Spec, asked: Asked) -> int:
    """Run this process as a rank of a sweep; returns the exit code that all ranks share."""
    # Trial processes must not inherit these.
    for variable in (HANDED_VARIABLE, AFTER_VARIABLE):
        os.environ.pop(variable, "")
    launch_name = os.environ.pop(LAUNCH_VARIABLE, "")
    has_begun = bool(os.environ.pop(BEGUN_VARIABLE, ""))
    stated_end = os.environ.pop(ENDS_VARIABLE, "")
    stated_wait = os.environ.pop(QUEUE_WAIT_VARIABLE, "")
    system = os.environ.pop(SYSTEM_VARIABLE, "")
    is_drawn = os.environ.pop(PROGRESS_VARIABLE, "") == "json"
    has_one_host = os.environ.pop(ONE_HOST_VARIABLE, "") == "1" or expected_rank() is None or is_on_one_host()
    has_one_host = has_one_host and HOSTS_VARIABLE not in os.environ
    if launch_name:
        print(ALIVE, file=sys.stderr, flush=True)
    configure_logging(expected_rank() or 0, "" if has_one_host else this_host(), quiet=asked.quiet)
    sink: ProgressSink
    if asked.quiet:
        sink = NoProgress()
    elif is_drawn:
        sink = JsonProgress(sys.stdout)
    else:
        sink = LineProgress(rank_log.info)
    refusal = ""
    if not launch_name and expected_rank() == 0:
        # No launcher has checked this; the check starts a process, so it comes before MPI.
        from mpisweep.cli.sweepargs import check_time
        from mpisweep.spec.preflight import check_startable

        if spec.hooks.commands:
            rank_log.warning(
                "hooks are not called: only `mpisweep run` that starts the ranks itself calls them"
            )
        try:
            check_startable(spec)
            check_time(spec, "--walltime", asked.walltime_s)
        except SpecError as error:
            refusal = str(error)
    return run_rank(spec, RankOptions(
        asked.path, asked.fresh, asked.master, asked.walltime_s, sink, launch_name, refusal, asked.split,
        asked.stage_env, asked.stage_to, asked.stage_keep,
        ends_at=float(stated_end) if stated_end else None, has_begun=has_begun, batch_system=system,
        queue_wait_s=float(stated_wait) if stated_wait else None, pilot=asked.pilot,
        planned=asked.planned,
    ))  # fmt: skip
