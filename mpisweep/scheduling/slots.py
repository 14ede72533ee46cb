"""The slots of a sweep: the trials of each, and which are idle, have room or a backlog.

:meth:`Slots.note` updates the registers; call it whenever a slot's trials have changed.  Nothing searches all
slots: the cost of an event does not depend on their number.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from mpisweep.records import Slot
from mpisweep.scheduling.ranking import Ranking

__all__ = ["Slots"]


class Slots:
    """All slots whose workers have joined.

    Args:
        quarantined: slots that get no trials; read, never changed.
        kinds: kind of each slot's device; read, never changed.
        shared: whether :meth:`holder` is needed, for a shared sweep.
    """

    def __init__(
        self, quarantined: Collection[Slot], kinds: Mapping[Slot, str], *, shared: bool = False
    ) -> None:
        self._quarantined = quarantined
        self._kinds = kinds
        #: Slot -> the trials that it holds and their attempts, in the order in which it runs them.
        self.held: dict[Slot, dict[int, int]] = {}
        #: Slot -> its node.
        self.nodes: dict[Slot, str] = {}
        #: Slot -> when it was last given trials.
        self.given_at: dict[Slot, float] = {}
        #: Slots whose backlog is being reclaimed and that have not answered.
        self.asked: set[Slot] = set()
        #: Kind of device -> number of slots in `asked`.
        self.asked_of_kind: Counter[str] = Counter()
        #: Slots that hold nothing and are not kept.  OrderedDict: its first key is found in constant time.
        self.idle: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> number of slots in `idle`.
        self.idle_of_kind: Counter[str] = Counter()
        #: Slots that hold a trial and may have room for more.
        self.wanting: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> slots that hold up to one trial and are not kept, the idle ones first; each is
        #: visited once after it has changed.
        self.with_room: dict[str, OrderedDict[Slot, None]] = {}
        #: Slots with unstarted trials that were not reclaimed since; the longest unchanged one first.
        self.with_backlog: OrderedDict[Slot, None] = OrderedDict()
        #: Kind of device -> slots with a backlog that is bound to this kind: other kinds cannot run it.
        self.with_bound_backlog: dict[str, OrderedDict[Slot, None]] = {}
        #: Slots whose backlog is to be reviewed, because expected durations have changed.
        self.doubtful: deque[Slot] = deque()
        #: Slots that are kept for a trial of several ranks, ordered by when they will be free.
        self.kept: Ranking[Slot] = Ranking()
        #: Kept slots that hold nothing.
        self.kept_idle: OrderedDict[Slot, None] = OrderedDict()
        #: Quarantined slots that hold nothing.
        self.quarantined_idle: set[Slot] = set()
        #: Slots that changed since the reader cleared this.
        self.changed: dict[Slot, None] = {}
        self._of_rank: dict[int, dict[Slot, None]] = {}
        #: Trial -> the slot that got it last; only in a shared sweep.
        self._where: dict[int, Slot] | None = {} if shared else None

    def __len__(self) -> int:
        return len(self.held)

    @property
    def busy(self) -> int:
        """Number of slots that hold trials."""
        return len(self.held) - len(self.idle) - len(self.kept_idle) - len(self.quarantined_idle)

    @property
    def count_usable(self) -> int:
        """Number of slots that may get trials."""
        return len(self.held) - len(self._quarantined)

    def is_usable(self, slot: Slot) -> bool:
        """Whether a slot is present and may get trials."""
        return slot in self.held and slot not in self._quarantined

    def of_rank(self, rank: int) -> list[Slot]:
        """The slots of a rank."""
        return list(self._of_rank.get(rank, ()))

    def holder(self, number: int) -> Slot | None:
        """A slot that holds the trial, in a shared sweep; None if there is none."""
        slot = self._where.get(number) if self._where is not None else None
        return slot if slot is not None and number in self.held.get(slot, ()) else None

    def join(self, slot: Slot, held: dict[int, int], now: float) -> None:
        """Add a slot with the trials that it holds."""
        self.held[slot] = held
        self.given_at[slot] = now
        self._of_rank.setdefault(slot.rank, {})[slot] = None
        # A reclaim from before this Hello will not be answered.
        self.note_answer(slot)
        if len(held) > 1:
            self._note_backlog(slot, self.with_backlog)
        self._locate(slot, held)
        self.note(slot)

    def leave(self, slot: Slot) -> dict[int, int]:
        """Remove a slot; returns the trials that it held."""
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
        """Append trials to those that a slot holds.

        Args:
            slot: the slot.
            numbers: the trials.
            attempts: their attempts.
            now: the clock of the scheduler.
            are_bound: whether no other kind of device can run them.
        """
        self.held[slot].update(zip(numbers, attempts, strict=True))
        self.given_at[slot] = now
        register = self.with_backlog
        if are_bound:
            register = self.with_bound_backlog.setdefault(self._kinds.get(slot, ""), OrderedDict())
        self._note_backlog(slot, register)
        self._locate(slot, numbers)
        self.note(slot)

    def ask(self, slot: Slot) -> None:
        """Note that the slot's unstarted trials are being reclaimed."""
        if slot not in self.asked:
            self.asked.add(slot)
            self.asked_of_kind[self._kinds.get(slot, "")] += 1
        self._drop_backlog(slot)

    def doubt_backlogs(self) -> None:
        """Note that expected durations have changed."""
        self.doubtful = deque([*self.with_backlog, *chain(*self.with_bound_backlog.values())])

    def note_answer(self, slot: Slot) -> None:
        """Note that the slot has answered a reclaim, or never will."""
        if slot in self.asked:
            self.asked.discard(slot)
            self.asked_of_kind[self._kinds.get(slot, "")] -= 1

    def keep(self, slots: Iterable[Slot], until: Mapping[Slot, float]) -> None:
        """Keep these slots for a trial of several ranks; `until` gives when each will be free."""
        for slot in slots:
            self.kept.set(slot, until[slot])
            self.note(slot)

    def release(self) -> None:
        """Stop keeping slots."""
        released = list(self.kept)
        self.kept.clear()
        self.kept_idle.clear()
        for slot in released:
            self.note(slot)

    def note(self, slot: Slot) -> None:
        """Update the registers after a slot's trials, or its quarantine, have changed."""
        count = len(self.held[slot])
        self.changed[slot] = None
        if slot in self._quarantined:
            self._drop(slot)
            if count == 0:
                self.quarantined_idle.add(slot)
            return
        self.quarantined_idle.discard(slot)
        if count <= 1:
            self._drop_backlog(slot)
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
        with_room = self.with_room.get(kind)
        if with_room is None:
            with_room = self.with_room[kind] = OrderedDict()
        if is_kept or count > 1:
            with_room.pop(slot, None)
        else:
            with_room[slot] = None
            with_room.move_to_end(slot, last=count > 0)

    def _leave_idle(self, slot: Slot) -> None:
        if slot in self.idle:
            del self.idle[slot]
            self.idle_of_kind[self._kinds.get(slot, "")] -= 1

    def _drop(self, slot: Slot) -> None:
        """Remove a slot from all registers of usable slots."""
        self._leave_idle(slot)
        self.kept.discard(slot)
        self._drop_backlog(slot)
        for register in (self.wanting, self.kept_idle):
            register.pop(slot, None)
        if with_room := self.with_room.get(self._kinds.get(slot, "")):
            with_room.pop(slot, None)

    def _note_backlog(self, slot: Slot, register: OrderedDict[Slot, None]) -> None:
        self._drop_backlog(slot)
        register[slot] = None

    def _drop_backlog(self, slot: Slot) -> None:
        """Remove a slot that has nothing to reclaim from the registers of backlog."""
        self.with_backlog.pop(slot, None)
        for register in self.with_bound_backlog.values():
            register.pop(slot, None)

    def _locate(self, slot: Slot, numbers: Iterable[int]) -> None:
        if self._where is not None:
            self._where.update(dict.fromkeys(numbers, slot))

    def check(self) -> None:
        """Assert that the registers match the slots.

        Raises:
            AssertionError: naming the wrong register.
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
            "a slot that may not get trials is wanting"
        )
        idle_of_kind = Counter(self._kinds.get(slot, "") for slot in self.idle)
        assert +self.idle_of_kind == idle_of_kind, "idle_of_kind is wrong"
        assert len(self.held) == 0 or self.held.keys() != quarantined, "all slots are quarantined"
        for register in (self.with_backlog, *self.with_bound_backlog.values()):
            assert all(len(self.held[slot]) > 1 for slot in register), (
                "a slot with one trial is registered with a backlog"
            )
            given_at = [self.given_at[slot] for slot in register]
            assert given_at == sorted(given_at), "with_backlog is out of order"
        asked_of_kind = Counter(self._kinds.get(slot, "") for slot in self.asked)
        assert +self.asked_of_kind == asked_of_kind, "asked_of_kind is wrong"
        assert self.asked <= set(self.held), "a slot that is gone was asked"
        assert {slot for slots in self._of_rank.values() for slot in slots} == self.held.keys(), (
            "a rank has other slots"
        )
