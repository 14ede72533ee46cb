"""A rank from start to exit: before MPI, with MPI, and how it leaves.

The order of the first steps matters.  The fork server is forked before MPI is initialised, and before any
thread exists.  On rank 0 it forks the snapshot process first and imports what the workload needs only then,
so that the results file is there while torch is still being imported.

The loop itself is in :mod:`mpisweep.rank.loop`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import NoReturn

from mpisweep.batch.jobfacts import NO_SYSTEM, Allocation
from mpisweep.devices.nodes import this_node
from mpisweep.processes.forkserver import ForkServer, ForkServerLostError
from mpisweep.processes.kernel import adopt_orphans, end_descendants
from mpisweep.processes.one_core import use_one_core
from mpisweep.rank.loop import Rank
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.signals import end_if_stuck, watch_signals
from mpisweep.rank.succession import FIRST_WORD_FACTOR
from mpisweep.rank.transport import TransportError, connect, is_first_rank
from mpisweep.spec import CommandWorkload, FunctionWorkload, Spec

__all__ = ["RankOptions", "run_rank"]

#: A killed process gets at least this long to end, in seconds.
_END_AT_LEAST_S = 3.0

log = logging.getLogger(__name__)


def run_rank(spec: Spec, options: RankOptions) -> int:
    """Run this rank until the sweep's run ends; returns the exit code that all ranks share."""
    waker = watch_signals()
    is_first = is_first_rank()
    environment = _environment(spec) if is_first else {}
    # One rank asks for all, and before MPI is initialised: it starts a process for that.
    allocation_ends_at = _allocation_ends_at(options) if is_first and not options.launch else options.ends_at
    # Resolved here: once MPI is initialised this process does not touch the disk.
    place = Place(options.path.resolve(), _allocation(options.batch_system))
    if is_first and options.stage_env:
        # The other ranks wait for this one in MPI_Init, and read the pack after that.
        _stage(spec)
    node = this_node()
    adopt_orphans()
    # A process that holds much memory takes seconds to end, however short limits.silence is.
    server = ForkServer.start(max(spec.limits.silence_s, _END_AT_LEAST_S))
    use_one_core()
    end_if_stuck(FIRST_WORD_FACTOR * spec.limits.silence_s)
    try:
        transport = connect()
    except TransportError as error:
        if is_first:
            log.error("%s", error)
        return 2
    try:
        rank = Rank(spec, options, place, node, server, transport, environment, allocation_ends_at)
        exit_code = rank.run(waker)
        if rank.staging is not None:
            rank.staging.close()
        server.close()
        has_left = transport.leave(together=rank.nobody_hangs)
        if rank.staging is not None:
            # Only now: it may take minutes, and other ranks would wait for it in MPI_Finalize.
            rank.staging.leave()
        # After an error mpirun tells the other ranks, and complains of those that are gone by then.
        if not has_left or exit_code == 0:
            _exit_at_once(exit_code)
    except TransportError as error:
        log.error("%s", error)
        transport.abort()
        raise
    except ForkServerLostError:
        # Without it this rank can neither start nor end a trial.  If MPI survives the loss of a rank, the
        # others continue; if not, the launcher restarts all of them.
        log.error("the fork server of this rank was killed; this rank is lost")
        end_descendants(within_s=server.patience_s)
        # Open MPI's ULFM reports a killed rank to the others at once, and one that exited not at all.
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    except Exception:
        log.exception("this is a bug in mpisweep; all ranks are stopped, and no acknowledged result is lost")
        transport.abort()
        raise
    return exit_code


def _exit_at_once(exit_code: int) -> NoReturn:
    """Exit without exit handlers: MPI's would wait for a rank that hangs.

    Freeing all objects one by one would take 10 ms, on every rank.
    """
    for stream in (sys.stdout, sys.stderr):
        # A closed stream is None.
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(exit_code)


def _environment(spec: Spec) -> dict[str, str]:
    """The environment that the results file records."""
    from mpisweep.rank.environment import describe_environment, describe_sources
    from mpisweep.results.columns import CODE

    workload, template = spec.workload, ""
    if isinstance(workload, CommandWorkload):
        template = workload.template
        code = describe_sources(
            spec.folder, arguments=workload.arguments, others=[template] if template else []
        )
    else:
        code = describe_sources(
            spec.folder, module=workload.module if isinstance(workload, FunctionWorkload) else ""
        )
    return describe_environment(spec.folder, template) | ({CODE: code} if code else {})


def _allocation(batch_system: str) -> Allocation:
    if batch_system == NO_SYSTEM:
        return Allocation(NO_SYSTEM, "")
    from mpisweep.batch.allocation import this_allocation

    return this_allocation(known=batch_system)


def _allocation_ends_at(options: RankOptions) -> float | None:
    from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end

    allocation = with_end(this_allocation())
    if allocation.ends_at is None and options.walltime_s is None:
        warn_of_unknown_end(allocation)
    return allocation.ends_at


def _stage(spec: Spec) -> None:
    """Prepare the pack of imports; without it all ranks import as usual."""
    if spec.built_in is None:
        log.warning("--stage-env has no effect: this workload imports nothing ahead of its trials")
        return
    from mpisweep.processes.staging import PackError, prepare_pack

    try:
        prepare_pack(spec.built_in.preload)
    except PackError as error:
        log.warning("%s", error)
