"""How many configurations to ask a learning search for, and when.

A learning search runs in a process of its own (:mod:`mpisweep.search.proposing`).  The scheduler asks it for
a number of configurations (:class:`~mpisweep.scheduling.decisions.Propose`) and gets them later
(:class:`~mpisweep.scheduling.events.Proposed`); one request is open at a time.

Rule: ask for one configuration per idle slot, and ahead for as many as are expected to be needed until the
next answer arrives.  Fewer, and devices wait for the search; more, and it proposes without results that it
could have had.  So nothing is asked ahead before durations are known, nor while a proposal takes less than
:data:`_IDLE_SHARE` of a trial.  For the same reason a proposal waits in the queue and not behind a running
trial, unless trials are so short that the next one must be there (:data:`SHORT_S`).

Pure: no clock, no I/O.
"""

from __future__ import annotations

from math import ceil

__all__ = ["SHORT_S", "Proposals"]

#: A slot gets a proposal ahead only if trials are expected to take less than this, in seconds.
SHORT_S = 0.1
#: Share of its time that a device may wait for the search.
_IDLE_SHARE = 0.002

#: Ask ahead for this multiple of the expected need.
_MARGIN = 2.0
#: Most configurations per request: with 64 of them a sampler of 20 ms answers within 1.3 s.
_MOST = 64


class Proposals:
    """What a learning search has proposed, and what it is asked for.

    Args:
        wanted: number of proposals in all.
        made: number of proposals so far.
        repeats: number of trials of each proposal.
    """

    def __init__(self, wanted: int, made: int, repeats: int = 1) -> None:
        self._wanted = wanted
        self._made = made
        self.repeats = repeats
        #: Size of the open request; 0 for none.
        self._asked = 0
        self._is_exhausted = False
        #: Seconds of the last answer per trial of its proposals.
        self._seconds_each = 0.0

    @property
    def is_done(self) -> bool:
        """Whether the search proposes nothing more."""
        return self.left == 0

    @property
    def left(self) -> int:
        """Number of proposals to come."""
        return 0 if self._is_exhausted else max(0, self._wanted - self._made)

    def ask(self, *, slots: int, idle: int, waiting: int, usual_s: float | None) -> int:
        """How many configurations to ask for now; 0 for none.

        Args:
            slots: number of usable slots.
            idle: number of them without a trial.
            waiting: number of trials that wait for a slot.
            usual_s: usual duration of a trial in seconds; None if unknown.
        """
        if self._asked or self.is_done or not slots:
            return 0
        trials = idle + self._ahead(slots, usual_s) - waiting
        missing = min(ceil(trials / self.repeats), self.left, _MOST)
        self._asked = max(0, missing)
        return self._asked

    def _ahead(self, slots: int, usual_s: float | None) -> int:
        if usual_s is None or self._seconds_each < _IDLE_SHARE * usual_s:
            return 0
        # An answer for n trials takes n times as long as for one, and meanwhile slots/usual_s trials end per
        # second.  If the search is slower than that, it is asked for all that it can give.
        ends_per_proposal = slots * self._seconds_each / max(usual_s, 1e-9)
        return min(slots, 1 + ceil(_MARGIN * ends_per_proposal * max(1, slots * ends_per_proposal)))

    def note(self, count: int, seconds: float, *, is_exhausted: bool) -> None:
        """Note an answer.

        Args:
            count: number of its configurations.
            seconds: how long the search took for them.
            is_exhausted: whether it has no more.
        """
        self._asked = 0
        self._made += count
        self._is_exhausted = is_exhausted
        if count:
            self._seconds_each = seconds / (count * self.repeats)
