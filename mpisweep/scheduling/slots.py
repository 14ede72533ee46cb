"""The slots of a sweep: what each holds, and so which have room, which are idle, and which could give something back.

The registers are kept true by :meth:`Slots.note`, which must be called whenever a slot's trials have changed; none of
them is ever searched for.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection

from mpisweep.records import Slot

__all__ = ["Slots"]


class Slots:
    """All slots whose workers have said hello.

    Args:
        quarantined: those that get no trials; read, never changed.
    """

    def __init__(self, quarantined: Collection[Slot]) -> None:
        self._quarantined = quarantined
        #: Slot -> the trials it holds and their attempts, in the order in which it runs them.
        self.held: dict[Slot, dict[int, int]] = {}
        #: Slot -> its node.
        self.nodes: dict[Slot, str] = {}
        #: Slot -> when it was last given trials.
        self.given_at: dict[Slot, float] = {}
        #: Slots that were asked to give back and have not answered.
        self.asked: set[Slot] = set()
        #: Slots that hold nothing.  Mutually exclusive with :attr:`rich`.
        self.idle: dict[Slot, None] = {}
        #: Slots that may have room for more, whether there is more or not.
        self.hungry: dict[Slot, None] = {}
        #: Slots that hold more than they run, as far as is known: given more, and not asked for it since.
        self.rich: dict[Slot, None] = {}
        #: Quarantined slots that hold nothing.
        self.benched: set[Slot] = set()

    def __len__(self) -> int:
        return len(self.held)

    @property
    def at_work(self) -> int:
        """How many slots hold trials."""
        return len(self.held) - len(self.idle) - len(self.benched)

    @property
    def count_usable(self) -> int:
        """How many get trials."""
        return len(self.held) - len(self._quarantined)

    @property
    def usable(self) -> list[Slot]:
        """Those that get trials."""
        return [slot for slot in self.held if slot not in self._quarantined]

    def join(self, slot: Slot, held: dict[int, int], now: float) -> None:
        """A slot is there, and holds these trials."""
        self.held[slot] = held
        self.given_at[slot] = now
        if len(held) > 1:
            self.rich[slot] = None
        self.note(slot)

    def leave(self, slot: Slot) -> dict[int, int]:
        """A slot is gone; returns what it held."""
        for register in (self.idle, self.hungry, self.rich, self.given_at):
            register.pop(slot, None)
        self.asked.discard(slot)
        self.benched.discard(slot)
        return self.held.pop(slot)

    def give(self, slot: Slot, numbers: list[int], attempts: list[int], now: float) -> None:
        """A slot is given these trials, after those that it holds."""
        self.held[slot].update(zip(numbers, attempts, strict=True))
        self.given_at[slot] = now
        self.rich[slot] = None
        self.note(slot)

    def note(self, slot: Slot) -> None:
        """Keep the registers true after a slot's trials, or its quarantine, have changed."""
        count = len(self.held[slot])
        if slot in self._quarantined:
            for register in (self.hungry, self.idle, self.rich):
                register.pop(slot, None)
            if count == 0:
                self.benched.add(slot)
            return
        self.benched.discard(slot)
        self.hungry[slot] = None
        if count == 0:
            self.idle[slot] = None
        else:
            self.idle.pop(slot, None)
        if count <= 1:
            self.rich.pop(slot, None)

    def check(self) -> None:
        """Assert that the registers are true.

        Raises:
            AssertionError: naming what is not.
        """
        empty = {slot for slot, trials in self.held.items() if not trials}
        quarantined = set(self._quarantined)
        assert quarantined <= self.held.keys(), "a slot that is gone is quarantined"
        assert self.benched == empty & quarantined, "benched is wrong"
        assert set(self.idle) == empty - quarantined, "idle is wrong"
        assert len(self.held) == 0 or self.held.keys() != quarantined, "nobody is left to work"
        assert all(len(self.held[slot]) > 1 for slot in self.rich), "a slot with one trial is called rich"
        assert self.asked <= set(self.held), "a slot that is gone was asked"
