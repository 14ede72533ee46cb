"""Steering a run: events go to the scheduler, and its decisions take effect."""

from __future__ import annotations

import logging
import math
import time

from mpisweep.blocks import ClosedRecord, encode
from mpisweep.master.closing import Closing
from mpisweep.master.effects import Effects
from mpisweep.master.standing import Standing
from mpisweep.records import EndReason
from mpisweep.scheduling.decisions import End, Stop
from mpisweep.scheduling.events import Event, StopRequested
from mpisweep.scheduling.scheduler import Scheduler

__all__ = ["Steering"]

log = logging.getLogger(__name__)


class Steering:
    """The way from events to effects.

    Args:
        scheduler: decides.
        effects: carries decisions out.
        standing: knows whether the trials of a complete run have a finite objective.
        closing: ends the run.
        grace_s: how long running trials have to return, in seconds.
    """

    def __init__(
        self, scheduler: Scheduler, effects: Effects, standing: Standing, closing: Closing, grace_s: float
    ) -> None:
        self._scheduler = scheduler
        self._effects = effects
        self._standing = standing
        self._closing = closing
        self._grace_s = grace_s
        #: When the grace of the running trials ends, in seconds since 1970.
        self._grace_over_at = math.inf

    def handle(self, event: Event, now: float, body: bytes | None = None) -> None:
        """Let the scheduler decide on an event, and carry its decisions out.

        Args:
            event: what happened.
            now: the monotonic clock.
            body: the event as it came, if that was bytes.
        """
        for decision in self._scheduler.handle(event, now):
            if isinstance(decision, End):
                self._begin_end(decision.reason)
                continue
            if isinstance(decision, Stop) and decision.rank is None and not isinstance(event, StopRequested):
                assert self._scheduler.stopping is not None
                self._note_stop(self._scheduler.stopping)
            self._effects.carry_out(decision, event, body)

    def request_stop(self, reason: EndReason, now: float) -> None:
        """Ask the scheduler to stop."""
        self._note_stop(reason)
        self.handle(StopRequested(reason), now)

    def _note_stop(self, reason: EndReason) -> None:
        """Note that running trials are asked to return."""
        if math.isinf(self._grace_over_at):  # a signal reaches every rank, and each passes it on
            log.info("%s: running trials have %g s to return", reason.value, self._grace_s)
        self._grace_over_at = min(self._grace_over_at, time.time() + self._grace_s)

    def _begin_end(self, decided: EndReason) -> None:
        reason = self._standing.judge(decided)
        self._effects.append(encode(ClosedRecord(time.time(), reason.value)))
        self._closing.begin(reason, min(time.time(), self._grace_over_at))
