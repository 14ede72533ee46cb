"""The slots of a sweep: what each holds, and so which have room, which are idle, and which could give
something back.

The registers are kept true by :meth:`Slots.note`, which must be called whenever a slot's trials have changed.
Nothing is ever searched for: what an event costs does not depend on how many slots there are.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping

from mpisweep.records import Slot
from mpisweep.scheduling.ranking import Ranking

__all__ = ["Slots"]


class Slots:
    """All slots whose workers have said hello.

    Args:
        quarantined: those that get no trials; read, never changed.
        kinds: of which kind the device of a slot is; read, never changed.
        shared: whether anybody asks where a trial is held.
    """

    def __init__(
        self, quarantined: Collection[Slot], kinds: Mapping[Slot, str], *, shared: bool = False
    ) -> None:
        self._quarantined = quarantined
        self._kinds = kinds
        #: Slot -> the trials it holds and their attempts, in the order in which it runs them.
        self.held: dict[Slot, dict[int, int]] = {}
        #: Slot -> its node.
        self.nodes: dict[Slot, str] = {}
        #: Slot -> when it was last given trials.
        self.given_at: dict[Slot, float] = {}
        #: Slots whose backlog was reclaimed and that have not answered.
        self.asked: set[Slot] = set()
        #: Kind of device -> how many of these there are.
        self.asked_of_kind: Counter[str] = Counter()
        #: Slots that hold nothing and are not kept for anything.  The first one is found at once, unlike a
        #: plain dict's.
        self.idle: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> how many of these there are.
        self.idle_of_kind: Counter[str] = Counter()
        #: Slots that hold something and may have room for more, whether there is more or not.
        self.wanting: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> slots that hold at most one trial and are not kept, the idle ones first; each is
        #: looked at once after it has changed.
        self.roomy: dict[str, OrderedDict[Slot, None]] = {}
        #: Slots that hold more than they run, as far as is known: given more, and not asked for it since.
        #: The one that was given something the longest ago is the first.
        self.with_backlog: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> slots of it that are rich in what is bound to this kind: no slot of another one
        #: could run it.
        self.with_bound_backlog: dict[str, OrderedDict[Slot, None]] = {}
        #: Slots that are kept for a trial of several ranks, in the order in which they will be free.
        self.kept: Ranking[Slot] = Ranking()
        #: Those of them that hold nothing.
        self.kept_idle: OrderedDict[Slot, None] = OrderedDict()
        #: Quarantined slots that hold nothing.
        self.quarantined_idle: set[Slot] = set()
        #: Slots that have changed since somebody has last looked, and cleared this.
        self.changed: dict[Slot, None] = {}
        self._of_rank: dict[int, dict[Slot, None]] = {}
        #: Trial -> the slot that was given it last; of a shared sweep only.
        self._where: dict[int, Slot] | None = {} if shared else None

    def __len__(self) -> int:
        return len(self.held)

    @property
    def at_work(self) -> int:
        """How many slots hold trials."""
        return len(self.held) - len(self.idle) - len(self.kept_idle) - len(self.quarantined_idle)

    @property
    def count_usable(self) -> int:
        """How many get trials."""
        return len(self.held) - len(self._quarantined)

    def is_usable(self, slot: Slot) -> bool:
        """Whether a slot is there and gets trials."""
        return slot in self.held and slot not in self._quarantined

    def of_rank(self, rank: int) -> list[Slot]:
        """The slots of a rank."""
        return list(self._of_rank.get(rank, ()))

    def holder(self, number: int) -> Slot | None:
        """The slot that holds a trial; of a shared sweep only, and of one of several ranks one of them."""
        slot = self._where.get(number) if self._where is not None else None
        return slot if slot is not None and number in self.held.get(slot, ()) else None

    def join(self, slot: Slot, held: dict[int, int], now: float) -> None:
        """A slot is there, and holds these trials."""
        self.held[slot] = held
        self.given_at[slot] = now
        self._of_rank.setdefault(slot.rank, {})[slot] = None
        # What it was asked for before it said hello again, it has forgotten.
        self.note_answer(slot)
        if len(held) > 1:
            self._note_backlog(slot, self.with_backlog)
        self._locate(slot, held)
        self.note(slot)

    def leave(self, slot: Slot) -> dict[int, int]:
        """A slot is gone; returns what it held."""
        self._drop(slot)
        self.given_at.pop(slot, None)
        self.note_answer(slot)
        self.quarantined_idle.discard(slot)
        self.changed[slot] = None
        del self._of_rank[slot.rank][slot]
        return self.held.pop(slot)

    def give(
        self, slot: Slot, numbers: list[int], attempts: list[int], now: float, *, are_bound: bool = False
    ) -> None:
        """A slot is given these trials, after those that it holds; `are_bound`: no other kind of device could
        run them.
        """
        self.held[slot].update(zip(numbers, attempts, strict=True))
        self.given_at[slot] = now
        rich = self.with_backlog
        if are_bound:
            rich = self.with_bound_backlog.setdefault(self._kinds.get(slot, ""), OrderedDict())
        self._note_backlog(slot, rich)
        self._locate(slot, numbers)
        self.note(slot)

    def ask(self, slot: Slot) -> None:
        """What the slot has not begun is being reclaimed."""
        if slot not in self.asked:
            self.asked.add(slot)
            self.asked_of_kind[self._kinds.get(slot, "")] += 1
        self._note_poor(slot)

    def note_answer(self, slot: Slot) -> None:
        """The slot has answered a reclaim, or never will."""
        if slot in self.asked:
            self.asked.discard(slot)
            self.asked_of_kind[self._kinds.get(slot, "")] -= 1

    def keep(self, slots: Iterable[Slot], until: Mapping[Slot, float]) -> None:
        """Keep exactly these for a trial of several ranks; `until` says when each will be free."""
        for slot in slots:
            self.kept.set(slot, until[slot])
            self.note(slot)

    def release(self) -> None:
        """No slot is kept any more."""
        released = list(self.kept)
        self.kept.clear()
        self.kept_idle.clear()
        for slot in released:
            self.note(slot)

    def note(self, slot: Slot) -> None:
        """Keep the registers true after a slot's trials, or its quarantine, have changed."""
        count = len(self.held[slot])
        self.changed[slot] = None
        if slot in self._quarantined:
            self._drop(slot)
            if count == 0:
                self.quarantined_idle.add(slot)
            return
        self.quarantined_idle.discard(slot)
        if count <= 1:
            self._note_poor(slot)
        is_kept = slot in self.kept
        if count:
            self._leave_idle(slot)
            self.kept_idle.pop(slot, None)
            self.wanting[slot] = None
        else:
            self.wanting.pop(slot, None)
            if is_kept:
                self._leave_idle(slot)
                self.kept_idle[slot] = None
            elif slot not in self.idle:
                self.idle[slot] = None
                self.idle_of_kind[self._kinds.get(slot, "")] += 1
        self._note_room(slot, count, is_kept)

    def _note_room(self, slot: Slot, count: int, is_kept: bool) -> None:
        kind = self._kinds.get(slot, "")
        roomy = self.roomy.get(kind)
        if roomy is None:
            roomy = self.roomy[kind] = OrderedDict()
        if is_kept or count > 1:
            roomy.pop(slot, None)
        else:
            roomy[slot] = None
            roomy.move_to_end(slot, last=count > 0)

    def _leave_idle(self, slot: Slot) -> None:
        if slot in self.idle:
            del self.idle[slot]
            self.idle_of_kind[self._kinds.get(slot, "")] -= 1

    def _drop(self, slot: Slot) -> None:
        """A slot gets nothing any more."""
        self._leave_idle(slot)
        self.kept.discard(slot)
        self._note_poor(slot)
        for register in (self.wanting, self.kept_idle):
            register.pop(slot, None)
        if roomy := self.roomy.get(self._kinds.get(slot, "")):
            roomy.pop(slot, None)

    def _note_backlog(self, slot: Slot, rich: OrderedDict[Slot, None]) -> None:
        self._note_poor(slot)
        rich[slot] = None

    def _note_poor(self, slot: Slot) -> None:
        """Nobody can have anything of a slot."""
        self.with_backlog.pop(slot, None)
        for rich in self.with_bound_backlog.values():
            rich.pop(slot, None)

    def _locate(self, slot: Slot, numbers: Iterable[int]) -> None:
        if self._where is not None:
            self._where.update(dict.fromkeys(numbers, slot))

    def check(self) -> None:
        """Assert that the registers are true.

        Raises:
            AssertionError: naming what is not.
        """
        empty = {slot for slot, trials in self.held.items() if not trials}
        quarantined = set(self._quarantined)
        kept = set(self.kept)
        assert quarantined <= self.held.keys(), "a slot that is gone is quarantined"
        assert self.quarantined_idle == empty & quarantined, "quarantined_idle is wrong"
        assert kept <= self.held.keys() - quarantined, "a slot is kept that gets no trials"
        assert set(self.idle) == empty - quarantined - kept, "idle is wrong"
        assert set(self.kept_idle) == empty & kept, "kept_idle is wrong"
        assert set(self.wanting) <= self.held.keys() - empty - quarantined, (
            "a slot that may have nothing is wanting"
        )
        idle_of_kind = Counter(self._kinds.get(slot, "") for slot in self.idle)
        assert +self.idle_of_kind == idle_of_kind, "idle_of_kind is wrong"
        assert len(self.held) == 0 or self.held.keys() != quarantined, "nobody is left to work"
        for rich in (self.with_backlog, *self.with_bound_backlog.values()):
            assert all(len(self.held[slot]) > 1 for slot in rich), (
                "a slot with one trial is said to have a backlog"
            )
            given_at = [self.given_at[slot] for slot in rich]
            assert given_at == sorted(given_at), "with_backlog is out of order"
        asked_of_kind = Counter(self._kinds.get(slot, "") for slot in self.asked)
        assert +self.asked_of_kind == asked_of_kind, "asked_of_kind is wrong"
        assert self.asked <= set(self.held), "a slot that is gone was asked"
        assert {slot for slots in self._of_rank.values() for slot in slots} == self.held.keys(), (
            "a rank has other slots"
        )
