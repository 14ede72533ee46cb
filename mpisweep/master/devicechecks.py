"""Comparing the checks of all devices, and keeping slow ones out if the sweep asks for it.

The devices are compared when all ranks have sent their checks, and again whenever checks have arrived since
and no more follow for a moment.  With ``slow_devices = "exclude"`` no worker joins before its device was
compared, so that no trial runs on one that is kept out; a worker that already holds trials joins at once.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from mpisweep.blocks import CheckedRecord, decode, encode
from mpisweep.master.effects import Effects
from mpisweep.master.peers import findings
from mpisweep.master.roster import Roster
from mpisweep.master.steering import Steering
from mpisweep.messages import Hello
from mpisweep.scheduling.events import DeviceSuspected, WorkerJoined

__all__ = ["DeviceChecks"]

#: Time without another check after which those that have arrived are compared, in seconds: if only rank 0 is
#: missing, which may have no worker, and in any other case.
_ALL_BUT_ONE_S = 0.5
_SETTLED_S = 2.0
#: Time after which they are compared although others still arrive, in seconds.
_AT_MOST_S = 10.0
#: Time after which a worker joins without its check, in seconds.
_PATIENCE_S = 90.0

log = logging.getLogger(__name__)


class DeviceChecks:
    """Takes the checks of all workers.

    Args:
        excludes: whether a device that is far below its peers gets no trials.
        ranks: number of MPI ranks.
        roster: the ranks that have joined.
        steering: takes events.
        effects: takes records.
    """

    def __init__(
        self, excludes: bool, ranks: int, roster: Roster, steering: Steering, effects: Effects
    ) -> None:
        self._excludes = excludes
        self._missing = set(range(ranks))
        self._roster = roster
        self._steering = steering
        self._effects = effects
        #: Rank -> kind of its device, and its check.
        self._checks: dict[int, tuple[str, CheckedRecord]] = {}
        #: When the first and the last check arrived that were not compared yet.
        self._waits_since = self._arrived_at = math.inf
        #: Workers that have not joined yet, and when they wanted to.
        self._held: dict[int, tuple[WorkerJoined, float]] = {}

    def on_hello(self, rank: int, joins: WorkerJoined, now: float) -> None:
        """Let a worker join, now or after the comparison of its device."""
        if self._excludes and rank not in self._checks and not any(joins.held):
            self._held[rank] = joins, now
        else:
            self._steering.handle(joins, now)

    def on_checked(self, rank: int, hello: Hello, body: bytes, now: float) -> None:
        """Take the check of a worker's device; a new master receives it again."""
        record = decode(body)
        assert isinstance(record, CheckedRecord)
        self._effects.append(body)
        # Cores are as fast as they are many.
        kind = hello.kind if hello.gpus else f"{hello.cores} x {hello.kind}"
        self._checks[rank] = kind, record
        self._missing.discard(rank)
        self._waits_since = min(self._waits_since, now)
        self._arrived_at = now

    def on_lost(self, rank: int, now: float) -> None:
        """Forget a rank that is lost."""
        self._missing.discard(rank)
        self._checks.pop(rank, None)
        self._held.pop(rank, None)
        # A scheduler without any worker would end the run at the loss of one.
        self._let_in(list(self._held), now)

    def step(self, now: float) -> None:
        """Compare the devices if it is time, and let in those that wait for it."""
        if self._is_due(now):
            self._waits_since = self._arrived_at = math.inf
            self._compare(now)
        if self._held:
            late = [rank for rank, (_, since) in self._held.items() if now - since >= _PATIENCE_S]
            self._let_in(late, now)

    def _is_due(self, now: float) -> bool:
        if math.isinf(self._arrived_at):
            return False
        if not self._missing or now - self._waits_since >= _AT_MOST_S:
            return True
        return now - self._arrived_at >= (_ALL_BUT_ONE_S if self._missing == {0} else _SETTLED_S)

    def _compare(self, now: float) -> None:
        found = findings(self._checks)
        for rank, (kind, record) in self._checks.items():
            why = found.get(rank, "")
            if why == record.finding:
                continue
            self._checks[rank] = kind, replace(record, finding=why)
            self._effects.append(encode(self._checks[rank][1]))
            self._roster.note_finding(rank, why, is_new=not record.finding)
            if self._excludes:
                self._steering.handle(DeviceSuspected(rank, why), now)
        # One device must join before others can be kept out.
        self._let_in(sorted(self._held.keys() & self._checks.keys(), key=lambda rank: rank in found), now)

    def _let_in(self, ranks: list[int], now: float) -> None:
        for rank in ranks:
            joins, _ = self._held.pop(rank)
            self._steering.handle(joins, now)
