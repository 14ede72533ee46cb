"""What one process was given and what became of it: pure arithmetic, without the process.

Trials are counted along the line: trial number *index* of this process.  Those below a certain index are
settled: each was answered for, by a result or by being reclaimed.  They are settled in order.  A trial
further on can be reclaimed before its turn comes: it stays in the count, as one that the process will skip,
and is never answered for again.

How many trials have begun is known from the page (:mod:`mpisweep.processes.shared_page`) and passed in.  The
sum is always whole: each trial that was given is answered for exactly once, or still held.
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
    """A block that went down the line; its first trial has this index."""

    first: int
    size: int
    body: bytes
    team: Team | None = None


class Remains(NamedTuple):
    """What a process still held when it ended; none of it was answered for."""

    #: They have run, but their results died with the process.
    lost: list[Task]
    #: The one that ran, unless it was to be skipped.
    running: list[Task]
    #: They have not begun.
    waiting: list[Task]


class Ledger:
    """The trials of one process, from first to last."""

    def __init__(self) -> None:
        #: What is not wholly settled.
        self._given: deque[Given] = deque()
        self._count = 0
        self._settled = 0
        #: Indices that were reclaimed while the process still had them; it will skip them.
        self._reclaimed: set[int] = set()
        #: The index below which what had not begun is wanted back, until that is answered.
        self._wanted_below: int | None = None

    # ------------------------------------------------------------------------------------- readings

    @property
    def is_settled(self) -> bool:
        """Whether everything was answered for."""
        return self._settled == self._count

    @property
    def held(self) -> list[Task]:
        """What is not answered for, in order."""
        return self._tasks(self._settled, self._count)

    def index_of(self, wanted: Task) -> int | None:
        """The index of a trial that is not answered for; None of any other."""
        held = self._indexed(self._settled, self._count)
        return next((index for index, task in held.items() if task == wanted), None)

    def team_of(self, index: int) -> Team | None:
        """Which rank of its trial this one is, where it has several."""
        within = (given.team for given in self._given if given.first <= index < given.first + given.size)
        return next(within, None)

    def carried(self, begun: int) -> list[Given]:
        """What is for the next process: a block not begun that needs a pristine one, and those after it."""
        first = max(begun, self._settled)
        left = [given for given in self._given if given.first >= first]
        if not left or left[0].first != first or not _assigned(left[0]).fresh:
            return []
        return list(takewhile(self._is_whole, left))

    # ------------------------------------------------------------------------------------- what happens

    def give(self, body: bytes, size: int, team: Team | None = None) -> None:
        """The process was given an AssignedBlock of so many trials."""
        self._given.append(Given(self._count, size, body, team))
        self._count += size

    def want_back(self) -> int:
        """Everything that has not begun is wanted back; returns the index below which that holds."""
        self._wanted_below = self._count
        return self._count

    def reclaimed(self, begun: int) -> list[Task]:
        """What :meth:`want_back` has brought back: what had not begun by then."""
        if self._wanted_below is None:
            return []
        end, self._wanted_below = self._wanted_below, None
        return self._reclaim(max(begun, self._settled), end)

    def on_ended(self, count: int) -> None:
        """The next `count` trials have results."""
        self._settle(count)

    def on_skipped(self, first: int, count: int) -> list[Task]:
        """The process has skipped these; returns those that were not reclaimed before."""
        skipped = self._reclaim(first, first + count)
        self._settle(count)
        return skipped

    def on_interrupted(self, index: int) -> list[Task]:
        """The running trial has stopped as it was told to; returns it."""
        stopped = self._tasks(index, index + 1)
        self._settle(1)
        return stopped

    def close(self, begun: int, carried: Sequence[Given] = ()) -> Remains:
        """The process has ended: nothing is held any more.

        Args:
            begun: how many trials it has begun.
            carried: blocks that the next process gets; see :meth:`carried`.
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
        """Whether nothing of the block was reclaimed."""
        return self._reclaimed.isdisjoint(range(given.first, given.first + given.size))

    def _reclaim(self, first: int, end: int) -> list[Task]:
        """The trials from index `first` up to `end` that were not reclaimed before."""
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
        """The trials from index `first` up to `end`, less those that were reclaimed."""
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
