"""The trials of a sweep that several allocations share, as far as this one may run them.

A trial is *elsewhere* until it is granted; then it waits here like any other.  More is asked for before the
devices are idle: as soon as fewer trials wait than there are slots, or than a quarter of the last grant.
When nothing is to be had, it is asked again every second while trials run here, for somebody else may die;
this allocation's share is done once nothing is to be had and nothing is left to do here.

Where the allocation's end is near, the shortest trials are asked for; when not even those end in time,
nothing more is.

What needs more ranks than there are slots is left to others.

Whoever was held up for a while may have been given up meanwhile: nothing is handed out before it has been
heard what is still this allocation's.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mpisweep.scheduling.decisions import RequestLease

__all__ = ["Supply"]

#: After it was said that there is nothing to be had, it is asked again after this, in seconds.
AGAIN_S = 1.0
#: More is asked for when less than this share of the last grant waits.
LOW_SHARE = 0.25
#: Events come many times a second; a pause as long as this, in seconds, means that nothing ran here.
HELD_UP_S = 1.0


class Supply:
    """What is elsewhere, and whether to ask for it.

    Args:
        elsewhere: the trials that wait, none of which was granted yet.
    """

    def __init__(self, elsewhere: Iterable[int]) -> None:
        self._elsewhere = set(elsewhere)
        #: Trials that run here although others have taken them over.
        self._revoked: set[int] = set()
        self._is_asked = False
        self._shortest = False
        self._ask_at = 0.0
        self._last_grant = 0
        #: So many trials set aside mean that the last grant was in vain.
        self._in_vain_at = 0
        self._last_event: float | None = None
        #: Nothing may be handed out before the next answer.
        self.must_hear = False
        #: Nothing is to be had any more.
        self.is_dry = False

    def __len__(self) -> int:
        return len(self._elsewhere)

    def __contains__(self, number: int) -> bool:
        return number in self._elsewhere

    def grant(self, numbers: Sequence[int], aside: int) -> list[int]:
        """Take these in; returns those that are new.  `aside`: how many trials do not fit before the
        deadline.
        """
        new = [number for number in numbers if number in self._elsewhere and number not in self._revoked]
        self._elsewhere.difference_update(new)
        self._is_asked = self.must_hear = False
        self._last_grant = len(new)
        self._in_vain_at = aside + len(new)
        return new

    def revoke(self, numbers: Iterable[int]) -> None:
        """Others have these now; those that run here go elsewhere when they are reclaimed."""
        self._revoked.update(numbers)

    def keep_ours(self, numbers: Sequence[int]) -> Sequence[int]:
        """Drop reclaimed trials that others have now; returns the rest."""
        if not self._revoked:
            return numbers
        self._elsewhere.update(self._revoked.intersection(numbers))
        return [number for number in numbers if number not in self._revoked]

    def send_away(self, number: int) -> None:
        """A trial that waited here was taken over by others."""
        self._elsewhere.add(number)

    def nothing(self, sure: bool, is_busy: bool, now: float) -> None:
        """There is nothing to be had; `is_busy`: trials run here, or wait for a slot."""
        self._is_asked = self.must_hear = False
        self._ask_at = now + AGAIN_S
        self.is_dry = sure and not is_busy

    def note_time(self, now: float, ranks: int | None) -> RequestLease | None:
        """Something happens at this time; what to ask for first when that comes late; `ranks` as in
        :meth:`ask`.
        """
        last, self._last_event = self._last_event, now
        if last is None or now - last < HELD_UP_S or self.is_dry:
            return None
        self.must_hear = self._is_asked = True
        return RequestLease(self._shortest, ranks)

    def ask(
        self, *, ready: int, aside: int, slots: int, ranks: int | None, now: float
    ) -> RequestLease | None:
        """What to ask for now.

        Args:
            ready: trials that wait for a slot.
            aside: trials that wait, but would not end before the deadline.
            slots: how many trials can run at a time.
            ranks: how many ranks a trial may need; None for any number.
            now: as in :meth:`~mpisweep.scheduling.scheduler.Scheduler.handle`.
        """
        if self.is_dry or self._is_asked or now < self._ask_at:
            return None
        if ready >= max(1, slots, int(LOW_SHARE * self._last_grant)):
            return None
        if self._shortest and ready == 0 and aside >= self._in_vain_at > 0:
            # The shortest ones there are do not end in time either.
            self.is_dry = True
            return None
        self._is_asked = True
        self._shortest = aside > 0
        return RequestLease(self._shortest, ranks)
