"""Users' requests in the master: files become events, and decisions become records."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from mpisweep.blocks import RequestRecord, encode
from mpisweep.master.request_watch import RequestWatch
from mpisweep.master.search_client import SearchClient
from mpisweep.progress import counted
from mpisweep.records import Request, RequestKind
from mpisweep.results.requests import new_name
from mpisweep.scheduling.decisions import ApplyRequest
from mpisweep.scheduling.events import RequestsMade
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["RequestDesk"]

log = logging.getLogger(__name__)


class RequestDesk:
    """Takes requests, records what they did, and then has their files removed.

    Args:
        spec: the sweep file.
        trials: all trials.
        watch: reads and removes the files; None if this run takes no requests.
        append: appends a record to the journal; returns its token.
        search_client: is told of trials that do not run; None for searches that do not learn.
    """

    def __init__(
        self,
        spec: Spec,
        trials: Trials,
        watch: RequestWatch | None,
        append: Callable[[bytes], int],
        search_client: SearchClient | None,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._watch = watch
        self._append = append
        self._search_client = search_client
        #: Requests that the scheduler has and that are not applied yet.
        self._open: dict[str, Request] = {}
        #: Addition -> why some of it is refused.
        self._refused: dict[str, str] = {}
        #: (token, name) of applied requests whose record may not be on disk yet.
        self._recorded: deque[tuple[int, str]] = deque()

    def take(self) -> RequestsMade | None:
        """The requests that users have made since the last call; None if there are none."""
        requests = self._watch.take() if self._watch is not None else []
        if not requests:
            return None
        made: list[Request] = []
        for request in requests:
            made.append(self._new_points(request) if request.kind is RequestKind.ADD else request)
            self._open[request.name] = made[-1]
        widths = {one.name: tuple(map(self._spec.ranks, one.configurations)) for one in made}
        return RequestsMade(tuple(made), widths, self._spec.repeats.first)

    def _new_points(self, request: Request) -> Request:
        """An addition with complete configurations, without those that the sweep has or will have."""
        names = {name for one in request.configurations for name in one}
        if unknown := sorted(names - self._trials.parameters.keys()):
            # The sweep file has changed since.
            self._refused[request.name] = f"the sweep has no parameter {unknown[0]!r}"
            return replace(request, configurations=())
        asked = (one for other in self._open.values() for one in other.configurations)
        return replace(request, configurations=tuple(self._trials.unknown(request.configurations, asked)))

    def apply(self, decision: ApplyRequest) -> None:
        """Record a request and what it did."""
        request, numbers = self._open.pop(decision.request), decision.numbers
        refused = decision.refused or self._refused.pop(request.name, "")
        record = RequestRecord(
            request.name, request.kind.value, request.by, request.asked_at, time.time(), numbers,
            decision.attempts, refused,
        )  # fmt: skip
        if decision.configurations:
            self._trials.grow(decision.configurations, decision.repeats)
            block = self._trials.block(numbers)
            record = replace(
                record,
                parameters=block.parameters,
                configurations=block.configurations,
                repeats=block.repeats,
            )
        self._recorded.append((self._append(encode(record)), request.name))
        if request.kind is RequestKind.SKIP and self._search_client is not None and numbers:
            self._search_client.tell_infeasible(numbers)
        log.info(
            "request: %s, %s%s",
            request.kind, counted(len(numbers), "trial"), f"; {refused}" if refused else "",
        )  # fmt: skip

    def note_stop(self) -> None:
        """Record that a user has asked the sweep to stop; what follows is the run's end."""
        now = time.time()
        record = RequestRecord(new_name(), RequestKind.STOP.value, "", now, now, [], [])
        self._append(encode(record))

    def release(self, synced: int) -> bool:
        """Have the files of requests removed whose records are on disk; True if there are any.

        Args:
            synced: token of the last synced record; -1 while another master may have taken over.
        """
        is_any = False
        while self._recorded and self._recorded[0][0] <= synced:
            assert self._watch is not None
            self._watch.note_applied(self._recorded.popleft()[1])
            is_any = True
        return is_any
