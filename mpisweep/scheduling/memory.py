"""Trials and memory, for the scheduler: what is withheld, what runs on one kind of device only, what runs
once more.

*Once more.*  A trial that runs out of memory, or meets an error of its device, in a process that had run
others before it runs again in a fresh one: what those have left behind is not its fault.  In a fresh process
it counts.

*Withheld.*  Where the sweep file says how the memory goes with a parameter, trials that may be too large for
some device wait here and in no queue, until :mod:`mpisweep.search.frontier` lets them go.

*Bound.*  Where there are several kinds of devices, what is known to fit on one of them, or is to show whether
it does, is handed out to that one before anything else.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.frontier import MemoryFrontier, Plan

__all__ = ["JOIN_S", "Memory"]

#: How long after the last worker has joined nothing is called infeasible: one of another kind may be about
#: to.
JOIN_S = 2.0


class Memory:
    """What the scheduler knows of trials and memory.

    Args:
        frontier: None where nothing is said of memory.
        fresh: trials that are to run once more in a fresh process.
    """

    def __init__(self, frontier: MemoryFrontier | None, fresh: Iterable[int]) -> None:
        self._frontier = frontier
        #: Trials that must have a process that has run nothing before.
        self.fresh = set(fresh)
        #: Kind of device -> trials that are to run there next; of several kinds only.
        self.bound: dict[str, deque[int]] = {}
        #: Slot -> the kind of its device.
        self.kinds: dict[Slot, str] = {}
        #: When the last worker has joined.
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
    def any_bound(self) -> bool:
        """Whether trials wait for one kind of device."""
        return any(self.bound.values())

    def have_joined(self, now: float) -> bool:
        """Whether all workers have had the time to join."""
        return now - self._joined_at >= JOIN_S

    def note_running(self, numbers: Iterable[int]) -> None:
        """These run already, and may still show what fits."""
        if self._frontier is not None:
            for number in numbers:
                self._frontier.note_running(number)

    # ------------------------------------------------------------------------------------- slots

    def note_worker(self, slots: Iterable[Slot], kind: str, now: float) -> None:
        """A worker has said hello; its slots are of this kind."""
        self.kinds |= dict.fromkeys(slots, kind)
        self._joined_at = now

    def note_present(self, slot: Slot) -> None:
        """A slot gets trials from now on."""
        if self._frontier is not None:
            self._frontier.join(self.kinds[slot])

    def note_absent(self, slot: Slot) -> list[int]:
        """A slot gets none any more; returns trials that were bound to its kind, where it was the last, and
        queue now.
        """
        if self._frontier is None:
            return []
        kind = self.kinds[slot]
        self._frontier.leave(kind)
        return [] if self._frontier.knows(kind) else self._frontier.hold(self.bound.pop(kind, ()))

    def kind_of(self, slots: Iterable[Slot]) -> str | None:
        """The kind that all of these are of; None where they are of several."""
        kinds = {self.kinds.get(slot, "") for slot in slots}
        return kinds.pop() if len(kinds) == 1 else None

    def note_room(self, room: int, can_run: Callable[[int], bool]) -> None:
        """So many slots get trials; `can_run` says whether these are enough for a trial."""
        if self._frontier is not None:
            self._frontier.note_room(room, can_run)

    # ------------------------------------------------------------------------------------- ends

    def judge(self, block: EndedBlock, kind: str | None, width: int) -> dict[int, AttemptEnd]:
        """Learn from trials that have ended.

        Args:
            block: what has ended, without what is out of date.
            kind: of the device; None where there were several.
            width: how many ranks each trial had.

        Returns:
            Positions in the block of those that are to run again, and why.
        """
        again: dict[int, AttemptEnd] = {}
        last = len(block.numbers) - 1
        for index, number in enumerate(block.numbers):
            evidence = evidence_of(
                block.states[index], block.causes[index] if block.causes else FailureCause.NONE
            )
            # A process ends with the trial that fails so in it.
            if block.warm and index == last and block.states[index] == TrialState.FAILED:
                self.fresh.add(number)
                again[index] = AttemptEnd.NOT_FRESH
                continue
            self.fresh.discard(number)
            if self._frontier is not None:
                self._frontier.learn(number, kind, evidence)
                # Where several ranks are put is not for this to say.
                may_move = evidence is Evidence.TOO_LARGE and kind is not None and width == 1
                if may_move and self._frontier.has_room_elsewhere(number, kind or ""):
                    again[index] = AttemptEnd.TOO_LARGE
        return again

    def forget(self, number: int) -> None:
        """A trial has ended without having shown anything."""
        self.fresh.discard(number)
        if self._frontier is not None:
            self._frontier.learn(number, None, Evidence.NOTHING)

    def explains(self, block: EndedBlock, index: int) -> bool:
        """Whether a failure only shows where the frontier is, and nothing about a device."""
        is_out = block.causes[index] == FailureCause.OUT_OF_MEMORY
        return is_out and self._frontier is not None and self._frontier.compares(block.numbers[index])

    # ------------------------------------------------------------------------------------- waiting

    def hold(self, numbers: Sequence[int]) -> Sequence[int]:
        """Withhold those of these trials that may be too large; returns the others."""
        return numbers if self._frontier is None else self._frontier.hold(numbers)

    def take(self, number: int) -> bool:
        """A trial that waited turns out to run; False where it did not wait here."""
        if self._frontier is not None and self._frontier.holds(number):
            self._frontier.take(number)
            return True
        for queue in self.bound.values():
            if number in queue:
                queue.remove(number)
                return True
        return False

    def bind(self, number: int, kind: str | None) -> bool:
        """Have a trial run next on this kind of device; False where all devices are alike, or may be."""
        if kind is None or self._frontier is None or not self._frontier.is_mixed:
            return False
        self.bound.setdefault(kind, deque()).appendleft(number)
        return True

    def plan(self, states: Sequence[int], idle: Mapping[str, int], now: float) -> Plan | None:
        """What is to become of withheld trials; None where nothing is new.

        Args:
            states: each trial's TrialState.
            idle: kind of device -> how many slots of it there are for which nothing waits.
            now: the clock of the scheduler.
        """
        assert self._frontier is not None
        wanting = {kind: count for kind, count in idle.items() if count and not self.bound.get(kind)}
        all_joined = self.have_joined(now)
        if not self._frontier.is_due(wanting, all_joined=all_joined):
            return None
        plan = self._frontier.plan(states, wanting, all_joined=all_joined)
        if plan.withheld:
            gone = frozenset(plan.withheld)
            self.bound = {
                kind: deque(n for n in queue if n not in gone) for kind, queue in self.bound.items()
            }
        for number, _ in plan.infeasible:
            self.fresh.discard(number)
        return plan
