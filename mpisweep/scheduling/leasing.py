"""The trials of a shared sweep, and which of them this allocation may run.

A trial is *elsewhere* until it is granted to this allocation; then it waits like any other.  The allocation
asks for more before its devices are idle: as soon as fewer trials wait than there are slots, or than a
quarter of the last grant.  If nothing is left to lease, it asks again every second while trials run here,
because another member may die.  Its share is done when nothing is left to lease and nothing is left to do.

Near the allocation's end it asks for the shortest trials; when not even those end in time, it stops asking.
It leaves trials that need more ranks than it has slots to other members.

A member that stalled may have been declared dead: after a pause nothing is handed out before an answer says
which trials this allocation still owns.

A learning search proposes when nothing is left to lease, first of all what dead members left.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mpisweep.scheduling.decisions import RequestLease

__all__ = ["Supply"]

#: Pause before the next request after an empty answer, in seconds.
AGAIN_S = 1.0
#: More is requested when less than this share of the last grant waits.
LOW_SHARE = 0.25
#: Events come many times a second; a pause of this length, in seconds, means that the master stalled.
STALLED_S = 1.0


class Supply:
    """Trials that are elsewhere, and when to ask for more.

    Args:
        elsewhere: the waiting trials, none of which is granted yet.
    """

    def __init__(self, elsewhere: Iterable[int]) -> None:
        self._elsewhere = set(elsewhere)
        #: Trials that run here although another member has taken them over.
        self._revoked: set[int] = set()
        self._is_asked = False
        self._shortest = False
        self._ask_at = 0.0
        self._last_grant = 0
        #: Number of set-aside trials at which no trial of the last grant ends in time.
        self._useless_at = 0
        self._last_event: float | None = None
        #: Whether nothing may be handed out before the next answer.
        self.must_ask_first = False
        #: Whether nothing is left to lease.
        self.is_exhausted = False
        #: Whether the last answer had nothing new: a learning search may propose.
        self.is_dry = False

    def __len__(self) -> int:
        return len(self._elsewhere)

    def __contains__(self, number: int) -> bool:
        return number in self._elsewhere

    def grant(self, numbers: Sequence[int], aside: int) -> list[int]:
        """Accept a grant; returns the trials that are new.

        Args:
            numbers: the granted trials.
            aside: number of waiting trials that would not end before the deadline.
        """
        new = [number for number in numbers if number in self._elsewhere and number not in self._revoked]
        self._elsewhere.difference_update(new)
        self._is_asked = self.must_ask_first = False
        self.is_dry = not new
        self._note_size(len(new), aside)
        return new

    def add(self, numbers: Iterable[int]) -> None:
        """Note trials that another member has proposed."""
        self._elsewhere.update(numbers)

    def note_own(self, count: int, aside: int) -> None:
        """Note trials that this allocation has proposed; `aside` as in :meth:`grant`."""
        self._note_size(count, aside)

    def _note_size(self, count: int, aside: int) -> None:
        self._last_grant = count
        self._useless_at = aside + count

    def revoke(self, numbers: Iterable[int]) -> None:
        """Note trials that other members took over; those that run here go elsewhere when reclaimed."""
        self._revoked.update(numbers)

    def keep_ours(self, numbers: Sequence[int]) -> Sequence[int]:
        """Drop reclaimed trials that other members took over; returns the rest."""
        if not self._revoked:
            return numbers
        self._elsewhere.update(self._revoked.intersection(numbers))
        return [number for number in numbers if number not in self._revoked]

    def note_taken_over(self, number: int) -> None:
        """Move a trial that waited here, and that another member took over, elsewhere."""
        self._elsewhere.add(number)

    def note_nothing_left(self, sure: bool, is_busy: bool, now: float) -> None:
        """Note an empty answer; `is_busy`: trials run here, or wait for a slot."""
        self._is_asked = self.must_ask_first = False
        self.is_dry = True
        self._ask_at = now + AGAIN_S
        self.is_exhausted = sure and not is_busy

    def note_time(self, now: float, ranks: int | None) -> RequestLease | None:
        """Note the time of an event; returns the request that must be answered first after a stall.

        `ranks` as in :meth:`ask`.
        """
        last, self._last_event = self._last_event, now
        if last is None or now - last < STALLED_S or self.is_exhausted:
            return None
        self.must_ask_first = self._is_asked = True
        return RequestLease(self._shortest, ranks)

    def ask(
        self, *, ready: int, aside: int, slots: int, ranks: int | None, now: float
    ) -> RequestLease | None:
        """Request more trials if it is time to.

        Args:
            ready: number of trials that wait for a slot.
            aside: number of waiting trials that would not end before the deadline.
            slots: number of slots.
            ranks: maximum number of ranks per trial; None for no limit.
            now: as in :meth:`~mpisweep.scheduling.scheduler.Scheduler.handle`.
        """
        if self.is_exhausted or self._is_asked or now < self._ask_at:
            return None
        if ready >= max(1, slots, int(LOW_SHARE * self._last_grant)):
            return None
        if self._shortest and ready == 0 and aside >= self._useless_at > 0:
            # Not even the shortest trials end in time.
            self.is_exhausted = True
            return None
        self._is_asked = True
        self._shortest = aside > 0
        return RequestLease(self._shortest, ranks)
