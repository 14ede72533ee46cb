"""Who is master, and who is still there: one rank's view of it, and the rule by which a master is followed.

The rule needs no agreement among the ranks and so waits for none of them:

* the master is the lowest rank that is not lost; it tells everybody by Lead;
* a Lead of a higher rank than the present master's is always obeyed, for masters are only ever followed by
  higher ranks; whoever was master until then is one no longer;
* nobody obeys anyone but the master whose Lead came last.

So the rank of a master is its *epoch*: it grows from master to master, and whatever a former master still
does can be told from what its successor does.  Views may differ for a while, one rank seeing a death before
another; since all of them lose the same ranks in the end, they end at the same master.

A rank is lost when MPI says so, or when nothing was heard of it for long.  The master listens to all, the
others to the master alone.  Time in which this rank itself did not run counts for nobody's silence.

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
        self._silence_s = silence_s
        self._alive = set(range(size))
        #: Rank -> when it was last heard of.
        self._heard = dict.fromkeys(range(size), now)
        #: Whether the master has said that it is.
        self._led = False
        self.master = 0

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

    def lead(self) -> None:
        """Note that everybody was told that this rank is the master."""
        assert self.master == self._rank
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

    def obeys(self, rank: int, now: float) -> bool:
        """A Lead has come: whether to follow it, as the first one or as the successor of the present master."""
        if rank < self.master:
            return False
        if rank > self.master:
            self._expect(rank, now)
        self._led = True
        return True

    def silent(self, now: float) -> list[int]:
        """The ranks that have been silent for too long."""
        if self.master == self._rank:
            return [r for r in self._alive if r != self._rank and now - self._heard[r] > self._silence_s]
        patience_s = self._silence_s * (1.0 if self._led else FIRST_WORD_FACTOR)
        return [self.master] if now - self._heard[self.master] > patience_s else []

    def excuse(self, seconds: float) -> None:
        """Forgive everybody a time in which this rank itself did not run and could not hear anybody."""
        for rank in self._heard:
            self._heard[rank] += seconds

    def _expect(self, master: int, now: float) -> None:
        self.master = master
        self._led = False
        # What was owed to the one before is not held against this one; as master, nor against anybody.
        for rank in self._alive if master == self._rank else (master,):
            self._heard[rank] = now
