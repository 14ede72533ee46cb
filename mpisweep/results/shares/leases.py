"""Rules for which of several allocations runs which trials; no files, no clocks.

Terms: a *member* is one run of the program that works on a sweep together with others; a *chunk* is a part of
the sweep's trials; a *lease* gives a chunk, or the rest of it, to one member.

1. The chunks are fixed when the sweep is split; a learning search adds some, each with its first lease
   (:mod:`mpisweep.results.shares.rounds`).  A lease is written once and is never changed or removed.
2. The leases of a chunk have *epochs* 1, 2, 3 ...; if two members want the same epoch, only one gets it.  The
   first one covers the whole chunk.  A later one takes over from a member that is gone; it lists the trials
   that have not ended in that member's part, how often each was tried, and how often it was lost together
   with a whole allocation.
3. A trial's *owner* is the last lease that lists it.  The results of the owner's member count, from the first
   attempt after those that the lease lists; results of other members do not.  So a member that was declared
   dead but still runs does no harm: its results for trials that were taken over are dropped, and trials that
   it had finished before are not listed in the later lease, and count.
4. A member never takes over a chunk that it has held before: in its own file those trials may have ended.

Every member and every reader comes to the same conclusion from the leases alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Lease", "Leases", "Left", "owners", "superseded"]


@dataclass(frozen=True, slots=True)
class Lease:
    """A chunk, or the rest of it, held by one member.

    Attributes:
        numbers: the trials that the member may run.
        attempts: for each of them, the number of attempts by earlier members.
        losses: for each of them, how often it was lost together with a whole allocation.
        host: node of the member's master, for messages.
        job_id: of the batch system; empty without one.
        at: when it was taken, in seconds since 1970.
        width: the most ranks that any of the trials needs.
    """

    chunk: int
    epoch: int
    member: str
    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    losses: tuple[int, ...]
    host: str = ""
    job_id: str = ""
    at: float = 0.0
    width: int = 1


class Left(NamedTuple):
    """A trial of a member that is gone."""

    ended: bool
    attempt: int
    was_running: bool = False


def owners(leases: Iterable[Lease]) -> dict[int, tuple[Lease, int]]:
    """Trial -> its owner, and the last attempt before the owner's own."""
    found: dict[int, tuple[Lease, int]] = {}
    for lease in sorted(leases, key=lambda lease: (lease.chunk, lease.epoch)):
        for number, attempt in zip(lease.numbers, lease.attempts, strict=True):
            found[number] = lease, attempt
    return found


def superseded(leases: Iterable[Lease]) -> dict[tuple[str, int], int]:
    """(Member, trial) that was taken over -> the last attempt that the successor's lease lists."""
    found: dict[tuple[str, int], int] = {}
    holder: dict[int, str] = {}
    for lease in sorted(leases, key=lambda lease: (lease.chunk, lease.epoch)):
        for number, attempt in zip(lease.numbers, lease.attempts, strict=True):
            if number in holder:
                found[holder[number], number] = attempt
            holder[number] = lease.member
    return found


class Leases:
    """One member's view of the leases, and its choice of the next one.

    Args:
        chunks: the trials of each chunk; those with the longest trials come first.
        member: the member.
        widths: number of ranks that the trials of each chunk need; empty if all need one.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], member: str, widths: Sequence[int] = ()) -> None:
        self._chunks = chunks
        self._widths = list(widths) or [1] * len(chunks)
        self._member = member
        #: Chunk -> its leases, sorted by epoch.
        self._leases: dict[int, list[Lease]] = {}
        #: Leases whose trials had all ended when their member was gone.
        self._done: set[tuple[int, int]] = set()

    def learn(self, leases: Iterable[Lease]) -> None:
        """Add leases that exist; a view may be out of date, but never holds one that does not exist."""
        for lease in leases:
            # A chunk beyond the first ones exists by its first lease.
            self._widths += [lease.width] * (lease.chunk + 1 - len(self._widths))
            if lease.chunk >= len(self._chunks):
                self._widths[lease.chunk] = lease.width
            known = self._leases.setdefault(lease.chunk, [])
            if lease not in known:
                known.append(lease)
                known.sort(key=lambda lease: lease.epoch)

    @property
    def mine(self) -> list[Lease]:
        """The leases of this member that no other member has taken over."""
        return [leases[-1] for leases in self._leases.values() if leases[-1].member == self._member]

    @property
    def lost(self) -> list[int]:
        """The trials that others have taken over from this member."""
        every = [lease for leases in self._leases.values() for lease in leases]
        return sorted(number for member, number in superseded(every) if member == self._member)

    @property
    def holders(self) -> set[str]:
        """The other members that hold a chunk with trials left, as far as is known."""
        last = (leases[-1] for leases in self._leases.values())
        return {lease.member for lease in last if not self._is_done(lease)} - {self._member}

    def next(
        self,
        *,
        shortest: bool,
        gone: Container[str],
        seen_alive: Container[str],
        left_by: Callable[[str], Mapping[int, Left]],
        ranks: int | None = None,
    ) -> Lease | None:
        """The lease that this member should try to acquire; None if there is none.

        Unleased chunks come first, because they need no other member's file.

        Args:
            shortest: whether to begin with the shortest trials instead of the longest.
            gone: members that have left or are declared dead.
            seen_alive: members that were seen alive, so that they died during this member's life.
            left_by: gives the trials of a member that is gone; missing trials were never tried.
            ranks: the largest number of ranks per trial; None for no limit.
        """
        order = [chunk for chunk, width in enumerate(self._widths) if ranks is None or width <= ranks]
        for chunk in reversed(order) if shortest else order:
            if self._is_free(chunk):
                numbers = tuple(self._chunks[chunk])
                nothing = (0,) * len(numbers)
                width = self._widths[chunk]
                return Lease(chunk, 1, self._member, numbers, nothing, nothing, width=width)
        for chunk in reversed(order) if shortest else order:
            if chunk not in self._leases:
                continue
            last = self._leases[chunk][-1]
            if self._is_done(last) or last.member not in gone or self._has_held(chunk):
                continue
            lease = self._successor(last, left_by(last.member), last.member in seen_alive)
            if lease is not None:
                return lease
            self._done.add((last.chunk, last.epoch))
        return None

    def width_beyond(self, ranks: int | None, gone: Container[str]) -> int:
        """The most ranks that a free trial needs, if it needs more than `ranks`; 0 if there is none."""
        free = (
            width
            for chunk, width in enumerate(self._widths)
            if self._is_free(chunk)
            or (
                chunk in self._leases
                and self._leases[chunk][-1].member in gone
                and not self._is_done(self._leases[chunk][-1])
            )
        )
        return max((width for width in free if ranks is not None and width > ranks), default=0)

    def _is_free(self, chunk: int) -> bool:
        """Whether a chunk of the split has no lease yet."""
        return chunk < len(self._chunks) and chunk not in self._leases

    def _is_done(self, lease: Lease) -> bool:
        return (lease.chunk, lease.epoch) in self._done

    def _has_held(self, chunk: int) -> bool:
        return any(lease.member == self._member for lease in self._leases[chunk])

    def _successor(self, last: Lease, left: Mapping[int, Left], beside: bool) -> Lease | None:
        """The lease on the trials that `last` leaves; None if there are none."""
        numbers: list[int] = []
        attempts: list[int] = []
        losses: list[int] = []
        for number, tried, lost in zip(last.numbers, last.attempts, last.losses, strict=True):
            found = left.get(number, Left(False, 0))
            if found.ended and found.attempt > tried:
                continue
            numbers.append(number)
            attempts.append(max(tried, found.attempt))
            losses.append(lost + (beside and found.was_running))
        if not numbers:
            return None
        return Lease(
            last.chunk, last.epoch + 1, self._member, tuple(numbers), tuple(attempts), tuple(losses),
            width=last.width,
        )  # fmt: skip
