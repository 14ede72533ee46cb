"""A whole sweep under the real scheduler, in virtual time.

Workers of one slot run trials whose durations are given.  Every event and decision is the real one; only
messages, processes and the clock are simulated.  ``benchmarks/simulate.py`` measures makespans with it, and
the planner (:mod:`mpisweep.scheduling.plan`) checks its own layout against it.

Pure: no clock but the virtual one, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot, TrialState
from mpisweep.scheduling.decisions import Assign, Decision, End, Reclaim
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Event, TimePassed, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.scheduler import Scheduler

__all__ = ["Simulation"]

_COMPLETE = int(TrialState.COMPLETE)
#: Time between two ticks of the master, in seconds.
_TICK_S = 0.02
#: Workers per simulated node.
_PER_NODE = 8


class Simulation:
    """The real scheduler and workers of one slot, in virtual time.

    Args:
        model: predicts durations; learns from the simulated ends unless it is frozen.
        durations_s: of every trial, by its number.
        workers: number of workers; at least as many as the widest trial needs.
        latency_s: from the end of a trial until a worker without backlog begins the next one, in seconds.
        widths: number of ranks of each trial; None if all have one.
        states: each trial's TrialState at the start; None if all wait.
        timed: measures the scheduler itself: returns nanoseconds of a clock; None to leave that out.

    Attributes:
        spans: trial -> start and end, in seconds since the start of the sweep.
        messages: number of messages between master and workers.
        events: number of events that the scheduler has handled.
        nanoseconds: that it took for them, as measured by `timed`.
    """

    def __init__(
        self,
        model: DurationModel,
        durations_s: Sequence[float],
        workers: int,
        latency_s: float,
        *,
        widths: Sequence[int] | None = None,
        states: Sequence[int] | None = None,
        timed: Callable[[], int] | None = None,
    ) -> None:
        self._durations_s = durations_s
        count = len(durations_s)
        self._scheduler = Scheduler(
            bytes(count) if states is None else states,
            [0] * count,
            model,
            retries=2,
            grace_s=1.0,
            widths=widths,
        )
        self._latency_s = latency_s
        self._timed = timed or _no_clock
        self._now = 0.0
        #: Slot -> the trials that it holds and their attempts; the first one runs.
        self._held: dict[Slot, list[tuple[int, int]]] = {Slot(rank, 0): [] for rank in range(workers)}
        #: Trial of several ranks -> its slots.
        self._teams: dict[int, tuple[Slot, ...]] = {}
        #: (end, order, slot) of every running trial.
        self._ends: list[tuple[float, int, Slot]] = []
        self._begun = 0
        self._is_over = False
        #: The real master ticks all the time; here only as long as it may matter.
        self._next_tick = math.inf
        self.spans: dict[int, tuple[float, float]] = {}
        self.messages = self.events = self.nanoseconds = 0
        for slot in self._held:
            self._feed(WorkerJoined(slot.rank, 1, (), f"node{slot.rank // _PER_NODE}", "gpu"))

    def run(self) -> float:
        """Run the sweep; returns its makespan in seconds."""
        while not self._is_over:
            if self._next_tick < self._ends[0][0]:
                self._now, self._next_tick = self._next_tick, math.inf
                self._feed(TimePassed())
                continue
            self._now, _, slot = heappop(self._ends)
            held = self._held[slot]
            number, attempt = held.pop(0)
            if held:
                self._begin(slot, 0.0)
            took_s = self._durations_s[number]
            self._feed(TrialsEnded(
                EndedBlock(slot.rank, 0, [number], [attempt], [_COMPLETE], [0.0], [took_s], {}, [], [])
            ))  # fmt: skip
        return self._now

    def _begin(self, slot: Slot, after_s: float) -> None:
        """Begin the first trial of a slot; one of several ranks once it is the first on all of them."""
        number, _ = self._held[slot][0]
        slots = self._teams.get(number, (slot,))
        if any(not (held := self._held[other]) or held[0][0] != number for other in slots):
            return
        begins_at = self._now + after_s
        ends_at = begins_at + self._durations_s[number]
        self.spans[number] = begins_at, ends_at
        for other in slots:
            self._begun += 1
            heappush(self._ends, (ends_at, self._begun, other))

    def _feed(self, event: Event) -> None:
        events = [event]
        while events:
            self.messages += 1
            self.events += 1
            one = events.pop(0)
            started = self._timed()
            decisions = self._scheduler.handle(one, self._now)
            self.nanoseconds += self._timed() - started
            for decision in decisions:
                self._carry_out(decision, events)

    def _carry_out(self, decision: Decision, events: list[Event]) -> None:
        match decision:
            case Assign(slots, numbers, attempts):
                self.messages += len(slots)
                self._next_tick = min(self._next_tick, self._now + _TICK_S)
                if len(slots) > 1:
                    self._teams[numbers[0]] = slots
                are_idle = [slot for slot in slots if not self._held[slot]]
                for slot in slots:
                    self._held[slot] += zip(numbers, attempts, strict=True)
                if are_idle:
                    self._begin(are_idle[0], self._latency_s)
            case Reclaim(slot):
                self.messages += 1
                self._next_tick = min(self._next_tick, self._now + _TICK_S)
                back = self._held[slot][1:]
                del self._held[slot][1:]
                given = tuple(number for number, _ in back), tuple(attempt for _, attempt in back)
                events.append(TrialsReclaimed(slot, *given, AttemptEnd.RECLAIMED))
            case End():
                self._is_over = True


def _no_clock() -> int:
    return 0
