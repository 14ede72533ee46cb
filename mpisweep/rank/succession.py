"""Who is master, and who is still there: one rank's view of it, and the rule by which a master is followed.

The rule needs no agreement among the ranks and so waits for none of them:

* the master is the lowest rank that is not lost; it tells everybody by Lead, also those that it thinks lost;
* a Lead names its *epoch*, a number that no two masters share: a rank that becomes master takes the next one
  above all that it has heard of which leaves its own rank when divided by the number of ranks;
* a Lead of a higher epoch is always obeyed; whoever was master until then is one no longer;
* nobody obeys anyone but the master whose Lead was the highest.

So epochs grow from master to master, and whatever a former master still does can be told from what its
successor does.  Views may differ for a while, one rank seeing a death before another; the highest epoch
reaches everybody in the end.

A rank is lost when MPI says so, or when nothing was heard of it for long.  The master listens to all, the
others to the master alone.  Time in which this rank itself did not run does not count as silence.

Sans-I/O: no MPI, no clock.
"""

from __future__ import annotations

__all__ = ["FIRST_WORD_FACTOR", "Succession"]

#: The first word of a master comes after it has opened the sweep, which may take this many times longer.
FIRST_WORD_FACTOR = 10.0


class Succession:
    """One rank's view.

    Args:
        rank: this rank.
        size: how many ranks there were at the start.
        silence_s: how long a rank may be silent before it counts as lost.
        now: the monotonic clock.
    """

    def __init__(self, rank: int, size: int, *, silence_s: float, now: float) -> None:
        self._rank = rank
        self._size = size
        self._silence_s = silence_s
        self._alive = set(range(size))
        #: Rank -> when it was last heard of.
        self._heard = dict.fromkeys(range(size), now)
        #: Whether the master has said that it is.
        self._led = False
        self.master = 0
        #: Of the last master that has said that it is; -1 before there was one.
        self.epoch = -1

    @property
    def alive(self) -> list[int]:
        """The ranks that are not lost, this one among them."""
        return sorted(self._alive)

    @property
    def is_led(self) -> bool:
        """Whether there is a master that has said so."""
        return self._led

    @property
    def must_lead(self) -> bool:
        """Whether this rank is to be the master now, and has not said so yet."""
        return self.master == self._rank and not self._led

    @property
    def next_epoch(self) -> int:
        """The epoch of this rank if it becomes master now."""
        return self.epoch + 1 + (self._rank - self.epoch - 1) % self._size

    def lead(self) -> None:
        """Note that this rank is the master now, with the epoch that was the next one."""
        assert self.must_lead
        self.epoch = self.next_epoch
        self._led = True

    def hear(self, rank: int, now: float) -> None:
        """Something has come from a rank."""
        self._heard[rank] = now

    def is_lost(self, rank: int) -> bool:
        """Whether a rank counts as lost."""
        return rank not in self._alive

    def welcome(self, rank: int, now: float) -> None:
        """A rank that was lost by mistake is back."""
        self._alive.add(rank)
        self._heard[rank] = now

    def lose(self, rank: int, now: float) -> None:
        """A rank is gone; :attr:`master` and :attr:`must_lead` say what follows from it."""
        if rank == self._rank:
            return
        self._alive.discard(rank)
        if rank == self.master:
            self._expect(min(self._alive), now)

    def accept_lead(self, rank: int, epoch: int, now: float) -> bool:
        """A Lead has come: whether to follow it; False when a later master has been heard of."""
        if epoch < self.epoch:
            return False
        self._alive.add(rank)
        if rank != self.master:
            self._expect(rank, now)
        self.epoch = epoch
        self._led = True
        return True

    def give_way(self, now: float) -> None:
        """Another rank has become master in place of this one, and its first word is on its way."""
        self._led = False
        self._heard[self.master] = now

    def silent(self, now: float) -> list[int]:
        """The ranks that have been silent for too long."""
        if self.master == self._rank:
            return [r for r in self._alive if r != self._rank and now - self._heard[r] > self._silence_s]
        patience_s = self._silence_s * (1.0 if self._led else FIRST_WORD_FACTOR)
        return [self.master] if now - self._heard[self.master] > patience_s else []

    def forgive_stall(self, seconds: float) -> None:
        """Forgive everybody a time in which this rank itself did not run and could not hear anybody."""
        for rank in self._heard:
            self._heard[rank] += seconds

    def _expect(self, master: int, now: float) -> None:
        self.master = master
        self._led = False
        # What was owed to the one before is not held against this one; as master, nor against anybody.
        for rank in self._alive if master == self._rank else (master,):
            self._heard[rank] = now
