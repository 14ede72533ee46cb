"""Succession: one rank's view of who is master and alive, and whom to follow.

The rule needs no agreement among the ranks, and so waits for none of them:

* the master is the lowest rank that is not lost; it sends Lead to all ranks, also to those that seem lost;
* a Lead names its *epoch*, a number that no two masters share: a rank that becomes master takes the next one
  above all it has seen that leaves its own rank when divided by the number of ranks;
* every rank follows a Lead of a higher epoch, and the master until then is superseded;
* no rank follows any master but the one with the highest epoch it has seen.

So epochs grow from master to master, and the acts of a superseded master can be told from those of its
successor.  Views may differ for a while, one rank seeing a death before another; the highest epoch reaches
all ranks in the end.

A rank is lost when MPI reports its death, or after a silence.  The master watches all ranks, the others watch
the master alone.  Time in which this rank itself did not run does not count as silence.

Sans-I/O: no MPI, no clock.
"""

from __future__ import annotations

__all__ = ["FIRST_WORD_FACTOR", "Succession"]

#: A master's first message comes after it has opened the sweep, which may take this many times longer.
FIRST_WORD_FACTOR = 10.0


class Succession:
    """One rank's view.

    Args:
        rank: this rank.
        size: number of ranks at the start.
        silence_s: how long a rank may be silent before it counts as lost, in seconds.
        now: the monotonic clock.

    Attributes:
        master: the rank that is, or is to be, the master.
        epoch: of the last master that has sent Lead; -1 before the first.
    """

    def __init__(self, rank: int, size: int, *, silence_s: float, now: float) -> None:
        self._rank = rank
        self._size = size
        self._silence_s = silence_s
        self._alive = set(range(size))
        #: Rank -> time of its last message.
        self._heard = dict.fromkeys(range(size), now)
        #: Whether the master has sent Lead.
        self._led = False
        self.master = 0
        self.epoch = -1

    @property
    def alive(self) -> list[int]:
        """The ranks that are not lost, including this one."""
        return sorted(self._alive)

    @property
    def is_led(self) -> bool:
        """Whether there is a master that has sent Lead."""
        return self._led

    @property
    def must_lead(self) -> bool:
        """Whether this rank is to become master and has not sent Lead yet."""
        return self.master == self._rank and not self._led

    @property
    def next_epoch(self) -> int:
        """The epoch of this rank if it becomes master now."""
        return self.epoch + 1 + (self._rank - self.epoch - 1) % self._size

    def lead(self) -> None:
        """Note that this rank is the master now, in the next epoch."""
        assert self.must_lead
        self.epoch = self.next_epoch
        self._led = True

    def hear(self, rank: int, now: float) -> None:
        """Note that a message came from a rank."""
        self._heard[rank] = now

    def is_lost(self, rank: int) -> bool:
        """Whether a rank counts as lost."""
        return rank not in self._alive

    def welcome(self, rank: int, now: float) -> None:
        """Note that a rank that was declared dead is back."""
        self._alive.add(rank)
        self._heard[rank] = now

    def lose(self, rank: int, now: float) -> None:
        """Note that a rank is lost; may change :attr:`master` and :attr:`must_lead`."""
        if rank == self._rank:
            return
        self._alive.discard(rank)
        if rank == self.master:
            self._expect(min(self._alive), now)

    def accept_lead(self, rank: int, epoch: int, now: float) -> bool:
        """Follow a Lead; returns False if a later master is known, whose epoch is higher."""
        if epoch < self.epoch:
            return False
        self._alive.add(rank)
        if rank != self.master:
            self._expect(rank, now)
        self.epoch = epoch
        self._led = True
        return True

    def give_way(self, now: float) -> None:
        """Note that another rank became master in place of this one; its Lead is on its way."""
        self._led = False
        self._heard[self.master] = now

    def silent(self, now: float) -> list[int]:
        """The ranks that were silent for too long."""
        if self.master == self._rank:
            return [r for r in self._alive if r != self._rank and now - self._heard[r] > self._silence_s]
        patience_s = self._silence_s * (1.0 if self._led else FIRST_WORD_FACTOR)
        return [self.master] if now - self._heard[self.master] > patience_s else []

    def forgive_stall(self, seconds: float) -> None:
        """Forgive all ranks a time in which this rank itself did not run."""
        for rank in self._heard:
            self._heard[rank] += seconds

    def _expect(self, master: int, now: float) -> None:
        self.master = master
        self._led = False
        # The silence of the master before does not count against this one; for a master, none counts.
        for rank in self._alive if master == self._rank else (master,):
            self._heard[rank] = now
