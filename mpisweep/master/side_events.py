"""Events from a master's side processes: leases, proposals and hopeless trials."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set

from mpisweep.master.closing import Closing, Stage
from mpisweep.master.lease_client import EndedByOthers, LeaseClient, MemberLeft
from mpisweep.master.prune_client import PruneClient
from mpisweep.master.search_client import SearchClient
from mpisweep.master.steering import Steering
from mpisweep.records import EndReason
from mpisweep.scheduling.events import Event, StopRequested

__all__ = ["SideEvents"]

log = logging.getLogger(__name__)


class SideEvents:
    """Passes the answers of side processes on.

    Args:
        name: name of the sweep.
        steering: takes events.
        closing: ends the run.
        lease_client: gets trials of a split sweep; None if this run has the sweep alone.
        search_client: asks a learning search for proposals; None for other searches.
        prune_client: has running trials judged; None if none is pruned.
    """

    def __init__(
        self,
        name: str,
        steering: Steering,
        closing: Closing,
        lease_client: LeaseClient | None,
        search_client: SearchClient | None,
        prune_client: PruneClient | None,
    ) -> None:
        self._name = name
        self._steering = steering
        self._closing = closing
        self._lease_client = lease_client
        self._search_client = search_client
        self._prune_client = prune_client

    @property
    def _search(self) -> SearchClient | None:
        """The search if it may still add trials."""
        return self._search_client if self._closing.stage is Stage.RUNNING else None

    @property
    def _pruner(self) -> PruneClient | None:
        """The pruner if it may still end trials."""
        client = self._prune_client if self._closing.stage is Stage.RUNNING else None
        return None if client is None or client.has_failed else client

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to hear."""
        clients = (self._lease_client, self._search, self._pruner)
        return [client.fileno() for client in clients if client is not None]

    def hear(self, ready: Set[int], now: float) -> None:
        """Read what has arrived.

        Args:
            ready: descriptors that are readable.
            now: the monotonic clock.
        """
        if self._lease_client is not None and self._lease_client.fileno() in ready:
            self._hear_leases(self._lease_client, now)
        if self._search is not None and self._search.fileno() in ready:
            self._pass_on(self._search.hear(), now)
        if self._pruner is not None and self._pruner.fileno() in ready:
            self._pass_on(self._pruner.hear(), now)

    def close(self) -> None:
        """End the processes of search and pruner: another rank is the master, and has its own."""
        for client in (self._search_client, self._prune_client):
            if client is not None:
                client.close()

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs."""
        if self._lease_client is not None:
            self._lease_client.keep_time(now)
        if self._search is not None:
            self._pass_on(self._search.keep_time(now), now)
        if self._pruner is not None:
            self._pruner.keep_time(now)

    def _pass_on(self, events: Iterable[Event], now: float) -> None:
        for event in events:
            if isinstance(event, StopRequested):
                self._steering.request_stop(event.reason, now)
            else:
                self._steering.handle(event, now)

    # ------------------------------------------------------------------------------------- a split sweep

    def _hear_leases(self, lease_client: LeaseClient, now: float) -> None:
        for told in lease_client.hear():
            match told:
                case MemberLeft(code, who):
                    self._on_left(code, who)
                case EndedByOthers(code):
                    self._on_over(code)
                case _:
                    self._pass_on([told], now)

    def _on_left(self, code: int, who: str) -> None:
        is_whole = code != EndReason.SHARE.exit_code
        if is_whole:
            log.info("%s: the sweep is over, and the results of all members are in one file", self._name)
        elif who:
            log.warning("%s: other runs of the sweep are active: %s", self._name, who)
        else:
            log.warning(
                "%s: some trials have not ended and no run is active: run the same command to resume",
                self._name,
            )
        self._closing.left_share(code if is_whole else None)

    def _on_over(self, code: int) -> None:
        """End: the other members have ended the sweep, and the results file holds everything."""
        if self._closing.stage is Stage.RUNNING:
            log.warning("%s: this member was silent; others have ended the sweep without it", self._name)
        else:
            log.info("%s: the sweep is over, and the results of all members are in one file", self._name)
        self._closing.abandon()
        self._closing.end(EndReason.SHARE, code)
