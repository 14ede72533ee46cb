"""The ledger of one process: the trials given to it and their outcomes.  Pure arithmetic.

Trials are numbered in the order in which they were given; that number is the trial's *index*.  Those below
a certain index are settled: each has a result or was reclaimed.  They are settled in order.  A trial with a
higher index can be reclaimed before its turn: it keeps its index, the process will skip it, and it is not
accounted for again.

The number of begun trials comes from the page (:mod:`mpisweep.processes.shared_page`) as an argument.  At any
time each given trial is either held or has been accounted for exactly once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from mpisweep.blocks import AssignedBlock, decode
from mpisweep.messages import Team

__all__ = ["Given", "Ledger", "Remains", "Task"]


class Task(NamedTuple):
    """One attempt of one trial."""

    number: int
    attempt: int


class Given(NamedTuple):
    """A block that was sent to the process, with the index of its first trial."""

    first: int
    size: int
    body: bytes
    team: Team | None = None


class Remains(NamedTuple):
    """The trials that a process still held when it ended."""

    #: Trials that have run; their results were lost with the process.
    lost: list[Task]
    #: The trial that was running, unless it was reclaimed.
    running: list[Task]
    #: Trials that have not begun.
    waiting: list[Task]


class Ledger:
    """The trials of one process, from first to last."""

    def __init__(self) -> None:
        #: Blocks with unsettled trials.
        self._given: deque[Given] = deque()
        self._count = 0
        self._settled = 0
        #: Indices that were reclaimed while the process held them; it will skip them.
        self._reclaimed: set[int] = set()
        #: The index below which a reclaim is in progress; None if there is none.
        self._reclaim_below: int | None = None

    # ------------------------------------------------------------------------------------- readings

    @property
    def is_settled(self) -> bool:
        """Whether every trial was accounted for."""
        return self._settled == self._count

    @property
    def held(self) -> list[Task]:
        """The trials that are not accounted for, in order."""
        return self._tasks(self._settled, self._count)

    def index_of(self, wanted: Task) -> int | None:
        """The index of a trial that is held; None for any other."""
        held = self._indexed(self._settled, self._count)
        return next((index for index, task in held.items() if task == wanted), None)

    def team_of(self, index: int) -> Team | None:
        """The team of a trial of several ranks; None for a trial of one rank."""
        within = (given.team for given in self._given if given.first <= index < given.first + given.size)
        return next(within, None)

    def carried(self, begun: int) -> list[Given]:
        """The blocks for the next process: one that needs a pristine process, and those after it."""
        first = max(begun, self._settled)
        left = [given for given in self._given if given.first >= first]
        if not left or left[0].first != first or not _assigned(left[0]).fresh:
            return []
        return list(takewhile(self._is_whole, left))

    # ------------------------------------------------------------------------------------- events

    def give(self, body: bytes, size: int, team: Team | None = None) -> None:
        """Record that the process was given an AssignedBlock of `size` trials."""
        self._given.append(Given(self._count, size, body, team))
        self._count += size

    def begin_reclaim(self) -> int:
        """Begin to reclaim every trial that has not begun; return the index below which that holds."""
        self._reclaim_below = self._count
        return self._count

    def reclaimed(self, begun: int) -> list[Task]:
        """Complete :meth:`begin_reclaim`: return the trials that had not begun by then."""
        if self._reclaim_below is None:
            return []
        end, self._reclaim_below = self._reclaim_below, None
        return self._reclaim(max(begun, self._settled), end)

    def on_ended(self, count: int) -> None:
        """Record results for the next `count` trials."""
        self._settle(count)

    def on_skipped(self, first: int, count: int) -> list[Task]:
        """Record skipped trials; return those that were not reclaimed before."""
        skipped = self._reclaim(first, first + count)
        self._settle(count)
        return skipped

    def on_interrupted(self, index: int) -> list[Task]:
        """Record that the running trial stopped on request; return it."""
        stopped = self._tasks(index, index + 1)
        self._settle(1)
        return stopped

    def close(self, begun: int, carried: Sequence[Given] = ()) -> Remains:
        """Record the end of the process: no trial is held any more.

        Args:
            begun: number of trials that it has begun.
            carried: blocks that go to the next process; see :meth:`carried`.
        """
        first = max(begun, self._settled)
        remains = Remains(
            lost=self._tasks(self._settled, begun - 1),
            running=self._tasks(begun - 1, begun) if begun > self._settled else [],
            waiting=self._tasks(first + sum(given.size for given in carried), self._count),
        )
        self._settle(self._count - self._settled)
        return remains

    # ------------------------------------------------------------------------------------- arithmetic

    def _is_whole(self, given: Given) -> bool:
        """Whether no trial of the block was reclaimed."""
        return self._reclaimed.isdisjoint(range(given.first, given.first + given.size))

    def _reclaim(self, first: int, end: int) -> list[Task]:
        """Reclaim the trials from index `first` up to `end`; return those not reclaimed before."""
        tasks = self._tasks(first, end)
        self._reclaimed.update(range(first, end))
        return tasks

    def _settle(self, count: int) -> None:
        if self._reclaimed:
            self._reclaimed.difference_update(range(self._settled, self._settled + count))
        self._settled += count
        while self._given and self._given[0].first + self._given[0].size <= self._settled:
            self._given.popleft()

    def _tasks(self, first: int, end: int) -> list[Task]:
        return list(self._indexed(first, end).values())

    def _indexed(self, first: int, end: int) -> dict[int, Task]:
        """The trials from index `first` up to `end` that are not reclaimed."""
        tasks: dict[int, Task] = {}
        for given in self._given:
            if given.first + given.size <= first or given.first >= end:
                continue
            block = _assigned(given)
            for position, (number, attempt) in enumerate(zip(block.numbers, block.attempts, strict=True)):
                index = given.first + position
                if first <= index < end and index not in self._reclaimed:
                    tasks[index] = Task(number, attempt)
        return tasks


def _assigned(given: Given) -> AssignedBlock:
    block = decode(given.body)
    assert isinstance(block, AssignedBlock)
    return block
