"""Who of several allocations runs which trials of one sweep: the rules, without a file or a clock.

Words: a *member* is one run of the program that works on a sweep together with others; a *chunk* is some of
the sweep's trials; a *lease* gives a chunk, or what is left of it, to one member.

1. The chunks are fixed when the sweep is split.  A lease is written once and never changes or goes away.
2. The leases of a chunk have *epochs* 1, 2, 3 ...; of two members that want the same epoch only one gets it.
   The first one covers the whole chunk.  A later one is taken over from a member that is gone; it lists the
   trials that had not ended in what that member has left, how often each had been tried, and how often its
   allocation was lost with it.
3. A trial's *owner* is the last lease that lists it.  What the owner's member has of it counts, from the
   first attempt that the lease does not know on; what any other member has of it does not.  So a member that
   was given up, but is still there, spoils nothing: what it finds out about trials that were taken over is
   dropped, and what it had finished before that is not listed in the later lease, and counts.
4. A member never takes a chunk over that it has held before: in its own file those trials may have ended.

Every member, and everybody who reads, comes to the same conclusion from the leases alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Lease", "Leases", "Left", "owners", "superseded"]


@dataclass(frozen=True, slots=True)
class Lease:
    """A chunk, or what is left of it, in the hands of one member.

    Attributes:
        numbers: the trials that the member may run.
        attempts: for each of them, how often members before have tried it.
        losses: for each of them, how often it was lost together with a whole allocation.
        host: of the member's master, for messages.
        job_id: of the batch system; empty without one.
        at: when it was taken, in seconds since 1970.
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


class Left(NamedTuple):
    """A trial as a member has left it: ended or not, the last attempt, and whether it was running."""

    ended: bool
    attempt: int
    was_running: bool = False


def owners(leases: Iterable[Lease]) -> dict[int, tuple[Lease, int]]:
    """Trial -> its owner, and the attempt after which the owner's attempts begin."""
    found: dict[int, tuple[Lease, int]] = {}
    for lease in sorted(leases, key=lambda lease: (lease.chunk, lease.epoch)):
        for number, attempt in zip(lease.numbers, lease.attempts, strict=True):
            found[number] = lease, attempt
    return found


def superseded(leases: Iterable[Lease]) -> dict[tuple[str, int], int]:
    """(Member, trial) that the member owns no longer -> its last attempt that is known to its successor."""
    found: dict[tuple[str, int], int] = {}
    holder: dict[int, str] = {}
    for lease in sorted(leases, key=lambda lease: (lease.chunk, lease.epoch)):
        for number, attempt in zip(lease.numbers, lease.attempts, strict=True):
            if number in holder:
                found[holder[number], number] = attempt
            holder[number] = lease.member
    return found


class Leases:
    """One member's view: what is leased, and what it can ask for.

    Args:
        chunks: the trials of each chunk; those with the longest trials come first.
        member: whose view this is.
        widths: how many ranks the trials of each chunk need; empty where all need one.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], member: str, widths: Sequence[int] = ()) -> None:
        self._chunks = chunks
        self._widths = widths or [1] * len(chunks)
        self._member = member
        #: Chunk -> its leases, the last one last.
        self._leases: dict[int, list[Lease]] = {}
        #: Leases in which everything had ended when their member was seen to be gone.
        self._done: set[tuple[int, int]] = set()

    def learn(self, leases: Iterable[Lease]) -> None:
        """These leases exist; a view may be out of date, and never holds one that does not exist."""
        for lease in leases:
            known = self._leases.setdefault(lease.chunk, [])
            if lease not in known:
                known.append(lease)
                known.sort(key=lambda lease: lease.epoch)

    @property
    def mine(self) -> list[Lease]:
        """The leases of this member that nobody has taken over."""
        return [leases[-1] for leases in self._leases.values() if leases[-1].member == self._member]

    @property
    def lost(self) -> list[int]:
        """The trials that others have taken over from this member."""
        every = [lease for leases in self._leases.values() for lease in leases]
        return sorted(number for member, number in superseded(every) if member == self._member)

    @property
    def holders(self) -> set[str]:
        """The other members that hold a chunk in which, as far as is known, something is left to do."""
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
        """The lease that this member should try to get now; None when there is none to be had.

        What nobody has held yet goes first: it needs nobody's file to be read.

        Args:
            shortest: whether to begin with the shortest trials instead of the longest.
            gone: members that have left or count as dead.
            seen_alive: members that were alive while this one was: they have ended beside it.
            left_by: what a member that is gone has left, by trial; a trial that is missing was never tried.
            ranks: how many ranks a trial may need; None for any number.
        """
        order = [chunk for chunk, width in enumerate(self._widths) if ranks is None or width <= ranks]
        for chunk in reversed(order) if shortest else order:
            if chunk not in self._leases:
                numbers = tuple(self._chunks[chunk])
                nothing = (0,) * len(numbers)
                return Lease(chunk, 1, self._member, numbers, nothing, nothing)
        for chunk in reversed(order) if shortest else order:
            last = self._leases[chunk][-1]
            if self._is_done(last) or last.member not in gone or self._has_held(chunk):
                continue
            lease = self._successor(last, left_by(last.member), last.member in seen_alive)
            if lease is not None:
                return lease
            self._done.add((last.chunk, last.epoch))
        return None

    def width_beyond(self, ranks: int | None, gone: Container[str]) -> int:
        """How many ranks the trials need that nobody has and that need more than `ranks`; 0 where there are
        none.
        """
        free = (
            width
            for chunk, width in enumerate(self._widths)
            if chunk not in self._leases
            or (self._leases[chunk][-1].member in gone and not self._is_done(self._leases[chunk][-1]))
        )
        return max((width for width in free if ranks is not None and width > ranks), default=0)

    def _is_done(self, lease: Lease) -> bool:
        return (lease.chunk, lease.epoch) in self._done

    def _has_held(self, chunk: int) -> bool:
        return any(lease.member == self._member for lease in self._leases[chunk])

    def _successor(self, last: Lease, left: Mapping[int, Left], beside: bool) -> Lease | None:
        """What a lease leaves to do, as the next one; None when there is nothing."""
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
        return Lease(last.chunk, last.epoch + 1, self._member, tuple(numbers), tuple(attempts), tuple(losses))
