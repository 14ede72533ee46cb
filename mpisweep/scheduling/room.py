"""Where a trial of several ranks can start, and which slots to keep for one that waits.

A trial needs all of its slots idle at once.  One that fits a node runs on one node, the fullest that has
room; a larger one takes the nodes with the most idle slots first.  If a trial cannot start yet, slots are
*kept* for it: those that let it start soonest, and among equal choices the slots that are free last, so that
the others stay available.

Each changed slot is noted, and no decision scans all slots: its cost depends on the number of slots per node
and per trial, not on the total.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from math import inf

from mpisweep.records import Slot
from mpisweep.scheduling.ranking import Ranking

__all__ = ["Room"]


class _Pool:
    """Idle slots by node, and nodes by their number of idle slots."""

    def __init__(self) -> None:
        self._slots: dict[str, list[Slot]] = {}
        #: Number of idle slots -> the nodes that have that number.
        self._nodes: dict[int, OrderedDict[str, None]] = {}
        self._count = 0

    def add(self, slot: Slot, node: str) -> None:
        slots = self._slots.setdefault(node, [])
        insort(slots, slot)
        self._count += 1
        self._move(node, len(slots) - 1, len(slots))

    def discard(self, slot: Slot, node: str) -> None:
        slots = self._slots[node]
        del slots[bisect_left(slots, slot)]
        self._count -= 1
        self._move(node, len(slots) + 1, len(slots))

    def on_one_node(self, width: int) -> tuple[Slot, ...] | None:
        """`width` slots of the fullest node that has them."""
        fitting = min((count for count in self._nodes if count >= width), default=None)
        return None if fitting is None else tuple(self._slots[next(iter(self._nodes[fitting]))][:width])

    def anywhere(self, width: int) -> tuple[Slot, ...] | None:
        """`width` slots, taken from the nodes with the most idle slots."""
        if self._count < width:
            return None
        chosen: list[Slot] = []
        for count in sorted(self._nodes, reverse=True):
            for node in self._nodes[count]:
                chosen += self._slots[node]
                if len(chosen) >= width:
                    return tuple(chosen[:width])
        return None

    def _move(self, node: str, old: int, new: int) -> None:
        if old:
            del self._nodes[old][node]
            if not self._nodes[old]:
                del self._nodes[old]
        if new:
            self._nodes.setdefault(new, OrderedDict())[node] = None


class Room:
    """All usable slots: their nodes, whether they are idle, and when they will be free."""

    def __init__(self) -> None:
        #: Slot -> its node.
        self._nodes: dict[Slot, str] = {}
        #: Node -> its number of usable slots; and that number -> the number of such nodes.
        self._sizes: Counter[str] = Counter()
        self._nodes_of_size: Counter[int] = Counter()
        #: All idle slots, and the idle slots that are not kept.
        self._idle, self._free = _Pool(), _Pool()
        self._in_idle: set[Slot] = set()
        self._in_free: set[Slot] = set()
        #: Changed slot -> when it will be free, until the rankings below are updated.
        self._changed: dict[Slot, float] = {}
        #: Node -> its slots, ordered by when they will be free; and all slots.
        self._by_node: dict[str, Ranking[Slot]] = {}
        self._everywhere: Ranking[Slot] = Ranking()
        #: Width -> the nodes, ordered by when a trial of this width can start there; for queried widths.
        self._starts: dict[int, Ranking[str]] = {}

    def note(self, slot: Slot, node: str, *, is_idle: bool, is_kept: bool, free_at: float) -> None:
        """Update the state of a usable slot.

        Args:
            slot: the slot.
            node: its node.
            is_idle: whether it holds no trial.
            is_kept: whether it is kept for a trial.
            free_at: when it will have run its trials; infinite if unknown.
        """
        if self._nodes.get(slot) != node:
            self.forget(slot)
            self._nodes[slot] = node
            self._resize(node, 1)
        self._enrol(self._idle, self._in_idle, slot, is_idle)
        self._enrol(self._free, self._in_free, slot, is_idle and not is_kept)
        self._changed[slot] = -inf if is_idle else free_at

    def forget(self, slot: Slot) -> None:
        """Remove a slot that takes no more trials."""
        if slot not in self._nodes:
            return
        self._enrol(self._idle, self._in_idle, slot, False)
        self._enrol(self._free, self._in_free, slot, False)
        node = self._nodes.pop(slot)
        self._changed.pop(slot, None)
        self._resize(node, -1)
        self._everywhere.discard(slot)
        if node in self._by_node:
            self._by_node[node].discard(slot)
            self._note_starts(node)

    def place(self, width: int, *, also_kept: bool) -> tuple[Slot, ...] | None:
        """Find slots for a trial; None if it must wait.

        Args:
            width: its number of ranks.
            also_kept: whether it may use kept slots.
        """
        pool = self._idle if also_kept else self._free
        return pool.on_one_node(width) if self._fits_a_node(width) else pool.anywhere(width)

    def gather(self, width: int) -> dict[Slot, float]:
        """Choose slots to keep for a trial of this width, and when each is free; empty if too few."""
        self._put_in_order()
        slots = self._everywhere
        if self._fits_a_node(width):
            slots = self._by_node[self._starts_of(width)[0][1]]
        if len(slots) < width:
            return {}
        return {slot: slots.key(slot) for slot in slots.soonest(width)}

    def _fits_a_node(self, width: int) -> bool:
        return max(self._nodes_of_size, default=0) >= width

    def _resize(self, node: str, by: int) -> None:
        old = self._sizes[node]
        self._sizes[node] += by
        for size, change in ((old, -1), (old + by, 1)):
            if size:
                self._nodes_of_size[size] += change
                if not self._nodes_of_size[size]:
                    del self._nodes_of_size[size]

    def _enrol(self, pool: _Pool, members: set[Slot], slot: Slot, belongs: bool) -> None:
        if belongs and slot not in members:
            members.add(slot)
            pool.add(slot, self._nodes[slot])
        elif not belongs and slot in members:
            members.discard(slot)
            pool.discard(slot, self._nodes[slot])

    # ------------------------------------------------------------------------------------- who is free when

    def _put_in_order(self) -> None:
        nodes: dict[str, None] = {}
        for slot, free_at in self._changed.items():
            node = self._nodes[slot]
            nodes[node] = None
            self._everywhere.set(slot, free_at)
            ranking = self._by_node.get(node)
            if ranking is None:
                ranking = self._by_node[node] = Ranking()
            ranking.set(slot, free_at)
        self._changed.clear()
        for node in nodes:
            self._note_starts(node)

    def _note_starts(self, node: str) -> None:
        for width in self._starts:
            self._note_start(width, node)

    def _note_start(self, width: int, node: str) -> None:
        slots = self._by_node[node]
        if len(slots) < width:
            self._starts[width].discard(node)
        else:
            self._starts[width].set(node, slots[width - 1][0])

    def _starts_of(self, width: int) -> Ranking[str]:
        if width not in self._starts:
            self._starts[width] = Ranking()
            for node in self._by_node:
                self._note_start(width, node)
        return self._starts[width]
