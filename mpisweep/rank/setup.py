"""Setting up a master: open the sweep as this rank's options say, and make its master."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mpisweep import __version__
from mpisweep.master.leading import Mastership
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.processes.forkserver import ForkServer
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.transport import Transport
from mpisweep.results import stop_file, trials_folder
from mpisweep.spec import Spec

if TYPE_CHECKING:
    from mpisweep.master.joining import Share
    from mpisweep.master.loop import Master
    from mpisweep.master.opening import Opened

__all__ = ["MasterSetup"]

log = logging.getLogger(__name__)


class MasterSetup:
    """Everything that a rank needs to open the sweep and to make its master.

    Args:
        spec: the sweep file.
        options: of the command line.
        place: where the results file lies, and where this run lives.
        server: forks the processes that work for a master.
        transport: between ranks.
        environment: the environment that the results file records.
    """

    def __init__(
        self,
        spec: Spec,
        options: RankOptions,
        place: Place,
        server: ForkServer,
        transport: Transport,
        environment: dict[str, str],
    ) -> None:
        self._spec = spec
        self._options = options
        self._place = place
        self._server = server
        self._transport = transport
        self._environment = environment
        self._started = time.monotonic()

    def open(self, snapshotter: Snapshotter, mastership: Mastership, ends_at: float | None) -> Opened:
        """Open the sweep; waits for the disk, also for imports that only a master needs.

        Args:
            snapshotter: reads the results file.
            mastership: as which master.
            ends_at: when the allocation ends, in seconds since 1970; None if unknown.
        """
        from mpisweep.master import loop  # noqa: F401  (for make_master, which must not wait for the disk)
        from mpisweep.master.importing import read_imports
        from mpisweep.master.opening import RunFacts, ended_error, open_sweep
        from mpisweep.results.claim import RunOverError

        path = self._options.path
        try:
            share = self._join(snapshotter, mastership)
            return open_sweep(
                self._spec,
                path if share is None else share.part,
                fresh=self._options.fresh,
                snapshotter=snapshotter,
                mastership=mastership,
                facts=RunFacts(
                    self._place.allocation,
                    self._transport.size,
                    self._environment,
                    __version__,
                    self._options.launch,
                    self._run_until(ends_at),
                    self._options.pilot,
                    self._options.queue_wait_s,
                ),
                read_imports=lambda: read_imports(self._server, self._spec),
                share=share,
            )
        except RunOverError as error:
            raise ended_error(path, snapshotter, mastership.run) from error

    def _join(self, snapshotter: Snapshotter, mastership: Mastership) -> Share | None:
        """Join a split sweep; None if this run has the sweep alone."""
        if self._options.split is None:
            return None
        from mpisweep.master.importing import read_imports
        from mpisweep.master.joining import join

        return join(
            self._spec,
            self._options.path,
            self._options.split,
            snapshotter,
            job_id=self._place.allocation.job_id,
            member=mastership.run,
            has_begun=mastership.has_begun,
            read_imports=lambda: read_imports(self._server, self._spec),
        )

    def _run_until(self, ends_at: float | None) -> float | None:
        """When the walltime or the allocation ends, whichever is first, by the monotonic clock."""
        ends: list[float] = []
        if self._options.walltime_s is not None:
            ends.append(self._started + self._options.walltime_s)
        if ends_at is not None:
            ends.append(time.monotonic() + ends_at - time.time())
        return min(ends, default=None)

    def make_master(self, opened: Opened, snapshotter: Snapshotter, now: float) -> Master:
        """Make the master of an open sweep, and have the first snapshot written."""
        # Imported since the sweep was opened.
        from mpisweep.master.lease_client import LeaseClient
        from mpisweep.master.loop import Master
        from mpisweep.master.prune_client import PruneClient
        from mpisweep.master.search_client import SearchClient, SharedSearchClient
        from mpisweep.master.vigil import Vigil

        _log_time_left(opened, now)
        snapshotter.write(opened.path, opened.claim.token)
        lease_client = None
        if opened.share is not None:
            lease_client = LeaseClient(
                self._server,
                opened.share.path,
                member=opened.claim.run,
                job_id=self._place.allocation.job_id,
                silence_s=self._spec.limits.silence_s,
            )
        search_client: SearchClient | None = None
        if opened.learning is not None and opened.share is not None:
            search_client = SharedSearchClient(
                self._server, self._spec, opened.trials, opened.learning, opened.share,
                member=opened.claim.run, job_id=self._place.allocation.job_id,
            )  # fmt: skip
        elif opened.learning is not None:
            search_client = SearchClient(self._server, self._spec, opened.trials, opened.learning)
        prune_client = None
        if self._spec.prune is not None:
            prune_client = PruneClient(
                self._server, self._spec, opened.path, opened.journal, is_new=not any(opened.trials.attempts)
            )
        return Master(
            spec=self._spec,
            trials=opened.trials,
            best=opened.best,
            measures=opened.measures,
            tells_end=not self._options.launch,
            scheduler=opened.scheduler,
            journal=opened.journal,
            snapshotter=snapshotter,
            vigil=Vigil(opened.claim, stop_file(opened.path), self._spec.limits.silence_s, opened.requests),
            send=self._transport.send,
            sink=self._options.sink,
            stop_at=None if opened.stop is None else opened.stop.stop_at,
            folders=(trials_folder(self._place.path),),
            ranks=self._transport.size,
            now=now,
            lease_client=lease_client,
            search_client=search_client,
            prune_client=prune_client,
            request_watch=opened.requests,
            planned=self._options.planned,
        )


def _log_time_left(opened: Opened, now: float) -> None:
    stop = opened.stop
    if stop is None:
        return
    if stop.stop_at > now:
        log.info(
            "the sweep stops in %.0f s, %.0f s before its time ends",
            stop.stop_at - now, stop.ends_at - stop.stop_at,
        )  # fmt: skip
        return
    log.warning(
        "no time left for trials: the sweep's time ends in %.0f s, but trials and closing need %.0f s",
        stop.ends_at - now, stop.ends_at - stop.stop_at,
    )  # fmt: skip
