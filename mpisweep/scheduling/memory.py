"""Trials and device memory: trials withheld, bound to one kind of device, or run again.

*Run again.*  A trial that runs out of memory, or fails with an error of its device, in a process that had run
others before, runs again in a fresh process: its predecessors may have left memory behind.  In a fresh
process the failure counts.  So does one that runs out of memory while other trials hold memory of its GPU
(:mod:`mpisweep.scheduling.packing`): then it has the GPU alone.

*Withheld.*  If the sweep file states how memory grows with a parameter, trials that may be too large for a
device wait here, and in no queue, until :mod:`mpisweep.search.frontier` releases them.

*Above the ceiling.*  What a learning search proposes is not withheld; what needs no less than a trial that
ran out of memory is ruled out (:mod:`mpisweep.search.ceiling`).

*Bound.*  With several kinds of devices, a trial that is known to fit on one kind, or that tests whether it
does, is handed out to that kind before anything else.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState, Value
from mpisweep.search.ceiling import Ceiling
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.frontier import MemoryFrontier, Plan

__all__ = ["JOIN_S", "Memory"]

#: No trial is marked infeasible for this long after a worker joins, in seconds: the next worker may have more
#: memory.
JOIN_S = 2.0


class Memory:
    """Withheld and bound trials, and those that need a fresh process.

    Args:
        frontier: None if the sweep does not model memory.
        fresh: trials that run again in a fresh process.
        ceiling: of a learning search; None if there is none, or if it does not model memory.
    """

    def __init__(
        self, frontier: MemoryFrontier | None, fresh: Iterable[int], ceiling: Ceiling | None = None
    ) -> None:
        self._frontier = frontier
        self._ceiling = ceiling
        #: Trials that need a process that has run nothing before.
        self.fresh = set(fresh)
        #: Kind of device -> trials that run there next; used only with several kinds.
        self.bound: dict[str, deque[int]] = {}
        #: Slot -> the kind of its device.
        self.kinds: dict[Slot, str] = {}
        #: When the last worker joined.
        self._joined_at = 0.0

    def __bool__(self) -> bool:
        """Whether any trial waits here."""
        return bool(self._frontier) or any(self.bound.values())

    def __iter__(self) -> Iterator[int]:
        yield from self._frontier or ()
        for queue in self.bound.values():
            yield from queue

    @property
    def is_rationed(self) -> bool:
        """Whether trials may be withheld."""
        return self._frontier is not None

    @property
    def is_followed(self) -> bool:
        """Whether ends of trials say something about others."""
        return self._frontier is not None or self._ceiling is not None

    @property
    def any_bound(self) -> bool:
        """Whether trials wait for one kind of device."""
        return any(self.bound.values())

    def have_joined(self, now: float) -> bool:
        """Whether all workers have had time to join."""
        return now - self._joined_at >= JOIN_S

    def note_running(self, numbers: Iterable[int]) -> None:
        """Note trials that already run: their ends will show what fits."""
        if self._frontier is not None:
            for number in numbers:
                self._frontier.note_running(number)

    # ------------------------------------------------------------------------------------- slots

    def note_worker(self, slots: Iterable[Slot], kind: str, now: float) -> None:
        """Note a worker's Hello and the kind of its slots."""
        self.kinds |= dict.fromkeys(slots, kind)
        self._joined_at = now

    def note_present(self, slot: Slot) -> None:
        """Note that a slot takes trials from now on."""
        for one in (self._frontier, self._ceiling):
            if one is not None:
                one.join(self.kinds[slot])

    def note_absent(self, slot: Slot) -> list[int]:
        """Note that a slot takes no more trials; returns bound trials that must queue now."""
        kind = self.kinds[slot]
        if self._ceiling is not None:
            self._ceiling.leave(kind)
        if self._frontier is None:
            return []
        self._frontier.leave(kind)
        return [] if self._frontier.knows(kind) else self._frontier.hold(self.bound.pop(kind, ()))

    def kind_of(self, slots: Iterable[Slot]) -> str | None:
        """The common kind of these slots; None if they are of several kinds."""
        kinds = {self.kinds.get(slot, "") for slot in slots}
        return kinds.pop() if len(kinds) == 1 else None

    def note_room(self, room: int, can_run: Callable[[int], bool]) -> None:
        """Note the number of usable slots; `can_run` tells whether they are enough for a trial."""
        if self._frontier is not None:
            self._frontier.note_room(room, can_run)

    # ------------------------------------------------------------------------------------- ends

    def judge(
        self, block: EndedBlock, kind: str | None, width: int, crowded: Container[int] = ()
    ) -> dict[int, AttemptEnd]:
        """Learn from trials that have ended.

        Args:
            block: ended trials, without stale attempts.
            kind: kind of the device; None if there were several.
            width: number of ranks of each trial.
            crowded: trials that shared their GPU's memory with others.

        Returns:
            Positions in the block of the trials that must run again, and why.
        """
        again: dict[int, AttemptEnd] = {}
        last = len(block.numbers) - 1
        for index, number in enumerate(block.numbers):
            evidence = evidence_of(
                block.states[index], block.causes[index] if block.causes else FailureCause.NONE
            )
            # A process exits after a trial that fails this way: the flag is about the block's last trial.
            if block.warm and index == last and block.states[index] == TrialState.FAILED:
                self.fresh.add(number)
                again[index] = AttemptEnd.NOT_FRESH
                continue
            if evidence is Evidence.TOO_LARGE and number in crowded:
                # It may fit alone, and says nothing about others.
                self.fresh.add(number)
                again[index] = AttemptEnd.NOT_FRESH
                continue
            self.fresh.discard(number)
            if self._ceiling is not None:
                self._ceiling.learn(number, kind, evidence)
            if self._frontier is not None:
                self._frontier.learn(number, kind, evidence)
                # The frontier does not place trials of several ranks.
                may_move = evidence is Evidence.TOO_LARGE and kind is not None and width == 1
                if may_move and self._frontier.has_room_elsewhere(number, kind or ""):
                    again[index] = AttemptEnd.TOO_LARGE
        return again

    def forget(self, number: int) -> None:
        """Note a trial that ended without any evidence about memory."""
        self.fresh.discard(number)
        if self._frontier is not None:
            self._frontier.learn(number, None, Evidence.NOTHING)

    def explains(self, block: EndedBlock, index: int) -> bool:
        """Whether a failure is evidence about the frontier, not about a device."""
        is_out = block.causes[index] == FailureCause.OUT_OF_MEMORY
        if self._ceiling is not None:
            return is_out
        return is_out and self._frontier is not None and self._frontier.compares(block.numbers[index])

    # ------------------------------------------------------------------------------------- waiting

    def note_proposed(self, configurations: Iterable[Mapping[str, Value]]) -> None:
        """Note the next trials of a learning search."""
        if self._ceiling is not None:
            self._ceiling.add(configurations)

    def above_ceiling(self, waiting: Iterable[int], now: float) -> list[tuple[int, str]]:
        """The waiting trials that need too much memory everywhere, and why; empty if nothing is new."""
        if self._ceiling is None or not self._ceiling.is_due or not self.have_joined(now):
            return []
        return self._ceiling.above(waiting)

    def hold(self, numbers: Sequence[int]) -> Sequence[int]:
        """Withhold the trials that may be too large; returns the others."""
        return numbers if self._frontier is None else self._frontier.hold(numbers)

    def take(self, number: int) -> bool:
        """Remove a waiting trial that already runs; False if it did not wait here."""
        if self._frontier is not None and self._frontier.holds(number):
            self._frontier.take(number)
            return True
        for queue in self.bound.values():
            if number in queue:
                queue.remove(number)
                return True
        return False

    def bind(self, number: int, kind: str | None) -> bool:
        """Bind a trial to a kind of device; False if all devices are, or may be, of one kind."""
        if kind is None or self._frontier is None or not self._frontier.is_mixed:
            return False
        self.bound.setdefault(kind, deque()).appendleft(number)
        return True

    def plan(self, states: Sequence[int], idle: Mapping[str, int], now: float) -> Plan | None:
        """Decide about withheld trials; None if nothing has changed.

        Args:
            states: each trial's TrialState.
            idle: kind of device -> number of idle slots for which no trial waits.
            now: the clock of the scheduler.
        """
        assert self._frontier is not None
        wanting = {kind: count for kind, count in idle.items() if count and not self.bound.get(kind)}
        all_joined = self.have_joined(now)
        if not self._frontier.is_due(wanting, all_joined=all_joined):
            return None
        plan = self._frontier.plan(states, wanting, all_joined=all_joined)
        if plan.withheld:
            withheld = frozenset(plan.withheld)
            self.bound = {
                kind: deque(n for n in queue if n not in withheld) for kind, queue in self.bound.items()
            }
        for number, _ in plan.infeasible:
            self.fresh.discard(number)
        return plan
