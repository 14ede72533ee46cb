"""Scheduler time per event vs. number of workers.

    python benchmarks/events.py [--workers 100,1000,10000] [--repeats 5] [--only wide] [--json]

Runs the real :class:`~mpisweep.scheduling.scheduler.Scheduler` in virtual time, without MPI or files.
Workers of one slot, eight per node, run trials of 1 to 4 s, three per worker.  Each line exercises one
mechanism.  The measurement covers a whole sweep, from the last join of a worker to the end.

All repeats have the same events, and each event counts with its shortest time: this removes noise of the
machine but keeps rare, slow events.  The last column is the mean for the most workers over that for the
fewest.  ``tests/test_event_cost.py`` counts the steps of the same runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import Assign, Decision, End, Reclaim, RequestLease
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    Event,
    NothingToLease,
    TimePassed,
    TrialsEnded,
    TrialsGranted,
    TrialsReclaimed,
    TrialsRevoked,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.frontier import MemoryFrontier

COMPLETE, FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)
#: Workers per node, and the rank count of a wide trial.
PER_NODE, WIDE = 8, 8
#: Trials per worker.
TRIALS = 3
#: Ends between two calls of a variant's `also`.
EVERY = 20


@dataclass(frozen=True, slots=True)
class Variant:
    """One mechanism: options of the scheduler, behaviour of trials, and periodic events."""

    options: Callable[[int], dict[str, Any]] = lambda count: {}
    wide: bool = False
    kinds: tuple[str, ...] = ("gpu",)
    #: Trials above this fraction of the largest size run out of memory on the second kind of device.
    room: float = 1.0
    #: One in this many ranks has a slow or failing device; 0 for none.
    ill_every: int = 0
    #: Largest factor between the real and the expected duration of a trial, in both directions.
    spread: float = 1.0
    #: Called periodically to add events.
    also: Callable[[Cluster], None] | None = None


class Cluster:
    """Workers in virtual time; measures the scheduler's time for their events."""

    #: Whether events are measured: only after all workers have joined.
    is_measured = False

    def __init__(self, variant: Variant, workers: int) -> None:
        random = Random(1)
        count = TRIALS * workers
        self.variant, self.random, self.workers = variant, random, workers
        sizes = [1 + number // 50 for number in range(count)]
        self.durations = [random.uniform(1.0, 4.0) for _ in range(count)]
        self.takes = [
            seconds * random.uniform(1 / variant.spread, variant.spread) for seconds in self.durations
        ]
        self.widths = [WIDE if variant.wide and number % 20 == 0 else 1 for number in range(count)]
        model = DurationModel({"t": self.durations}, None, count)
        model.observe(range(0, count, count // 200), self.durations[:: count // 200])
        model.fit()
        model._next_fit = (
            2 * count
        )  # no fit during the measurement: it runs only when the number of ends has doubled
        self.too_large = variant.room * sizes[-1]
        self.sizes = sizes
        options = variant.options(count)
        if options.pop("frontier", False):
            groups = [number % 50 for number in range(count)]
            options["frontier"] = MemoryFrontier({"x": sizes, "group": groups}, {"x": "increasing"})
        self.scheduler = Scheduler(
            bytes(count), [0] * count, model, retries=2, grace_s=1.0,
            widths=self.widths if variant.wide else None, **options,
        )  # fmt: skip
        self.ungranted = deque(range(count))
        self.now = 0.0
        self.held: dict[Slot, list[tuple[int, int]]] = {}
        #: (end time, order, slot, number, attempt) of each running trial.
        self.ends: list[tuple[float, int, Slot, int, int]] = []
        self.begun = 0
        self.microseconds: list[float] = []
        self.is_over = False
        for rank in range(workers):
            self.join(rank)

    def kind(self, rank: int) -> str:
        return self.variant.kinds[rank % len(self.variant.kinds)]

    def join(self, rank: int) -> None:
        self.held[Slot(rank, 0)] = []
        self.feed(WorkerJoined(rank, 1, (), f"node{rank // PER_NODE}", self.kind(rank)))

    def lose(self, rank: int) -> None:
        self.held.pop(Slot(rank, 0))
        self.feed(WorkerLost(rank))

    def feed(self, first: Event) -> None:
        """Handle an event and all events that follow from it at once."""
        events = deque([first])
        while events and not self.is_over:
            event = events.popleft()
            for decision in (
                self.measure(event) if self.is_measured else self.scheduler.handle(event, self.now)
            ):
                self.carry_out(decision, events)

    def measure(self, event: Event) -> list[Decision]:
        """Handle an event and record the scheduler's time."""
        started = time.perf_counter_ns()
        decisions = self.scheduler.handle(event, self.now)
        self.microseconds.append((time.perf_counter_ns() - started) / 1000)
        return decisions

    def carry_out(self, decision: Decision, events: deque[Event]) -> None:
        match decision:
            case Assign(slots, numbers, attempts):
                for slot in slots:
                    held = self.held[slot]
                    held += zip(numbers, attempts, strict=True)
                    if len(held) == len(numbers):
                        self.begin(slot)
            case Reclaim(slot):
                back = self.held[slot][1:]
                del self.held[slot][1:]
                numbers, attempts = tuple(n for n, _ in back), tuple(a for _, a in back)
                events.append(TrialsReclaimed(slot, numbers, attempts, AttemptEnd.RECLAIMED))
            case RequestLease():
                granted = [
                    self.ungranted.popleft()
                    for _ in range(min(len(self.ungranted), max(8, self.workers // 4)))
                ]
                zeros = (0,) * len(granted)
                events.append(
                    TrialsGranted(tuple(granted), zeros, zeros) if granted else NothingToLease(sure=True)
                )
            case End():
                self.is_over = True

    def begin(self, slot: Slot) -> None:
        number, attempt = self.held[slot][0]
        self.begun += 1
        heappush(self.ends, (self.now + self.takes_s(slot, number), self.begun, slot, number, attempt))

    def is_ill(self, slot: Slot) -> bool:
        every = self.variant.ill_every
        return bool(every) and slot.rank % every == every - 1

    def takes_s(self, slot: Slot, number: int) -> float:
        return self.takes[number] * (4 if self.is_ill(slot) and slot.rank % 2 else 1)

    def end_next(self) -> None:
        """End the trial that is due next."""
        when, _, slot, number, attempt = heappop(self.ends)
        if (number, attempt) not in self.held.get(slot, ())[:1]:
            return
        self.now = max(self.now, when)
        self.held[slot].pop(0)
        if self.held[slot]:
            self.begin(slot)
        is_out = (
            self.variant.room < 1
            and self.kind(slot.rank) != self.variant.kinds[0]
            and self.sizes[number] > self.too_large
        )
        fails = is_out or (self.is_ill(slot) and slot.rank % 2 == 0)
        cause = FailureCause.OUT_OF_MEMORY if is_out else FailureCause.EXCEPTION
        self.feed(TrialsEnded(EndedBlock(
            slot.rank, slot.place, [number], [attempt], [FAILED if fails else COMPLETE], [0.0],
            [self.takes_s(slot, number)], {}, [int(cause)] if fails else [], ["ill"] if fails else [],
        )))  # fmt: skip

    def run(self) -> None:
        """Measure all events until the end of the sweep."""
        self.is_measured = True
        ended = idle_s = 0
        while not self.is_over:
            if not self.ends:
                assert idle_s < 100, "nothing runs, and the sweep is not over"
                idle_s += 1
                self.now += 1.0
                self.feed(TimePassed())
                continue
            self.end_next()
            ended += 1
            if self.variant.also is not None and ended % EVERY == 0:
                self.variant.also(self)
            if ended % self.workers == 0:
                self.feed(TimePassed())


def revoke(cluster: Cluster) -> None:
    """Revoke one waiting trial and one that a slot holds."""
    waiting = next(iter(cluster.scheduler.core.waiting), None)
    slot = cluster.random.choice(list(cluster.held))
    held = [number for number, _ in cluster.held[slot]][-1:]
    cluster.feed(TrialsRevoked((*held, *([] if waiting is None else [waiting]))))


def lose_one(cluster: Cluster) -> None:
    """Lose a worker and let it rejoin."""
    rank = cluster.random.choice(list(cluster.held)).rank
    cluster.lose(rank)
    cluster.join(rank)


VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "wide": Variant(wide=True),
    "leases": Variant(lambda count: {"shared": True}),
    "revocations": Variant(lambda count: {"shared": True}, also=revoke),
    "wide, leases, revocations": Variant(lambda count: {"shared": True}, wide=True, also=revoke),
    "deadline": Variant(lambda count: {"deadline": 7.0}, spread=1.4),
    "wide, deadline": Variant(lambda count: {"deadline": 7.0}, wide=True, spread=1.4),
    "frontier": Variant(lambda count: {"frontier": True}, kinds=("large", "small"), room=0.5),
    "quarantine": Variant(lambda count: {"quarantine": True}, ill_every=50),
    "lost workers": Variant(also=lose_one),
}


def measure(variant: Variant, workers: int, repeats: int) -> float:
    """Mean microseconds per event."""
    runs: list[list[float]] = []
    for _ in range(repeats):
        cluster = Cluster(variant, workers)
        gc.collect()
        gc.disable()
        cluster.run()
        gc.enable()
        runs.append(cluster.microseconds)
    return fmean(map(min, zip(*runs, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="100,1000,10000", help="numbers of workers, in ascending order")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--only", choices=VARIANTS, help="one mechanism")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    counts = [int(text) for text in options.workers.split(",")]
    found: dict[str, dict[int, float]] = {}
    if not options.json:
        columns = "".join(f"{f'{count:,}':>10}" for count in counts)
        print(f"microseconds per event, by the number of workers\n{'':<28}{columns}{'last/first':>14}")
    for name in [options.only] if options.only else VARIANTS:
        found[name] = {count: measure(VARIANTS[name], count, options.repeats) for count in counts}
        if not options.json:
            cells = "".join(f"{mean:>10.1f}" for mean in found[name].values())
            print(f"{name:<28}{cells}{found[name][counts[-1]] / found[name][counts[0]]:>14.2f}", flush=True)
    if options.json:
        print(
            json.dumps(
                {name: {str(count): mean for count, mean in row.items()} for name, row in found.items()}
            )
        )


if __name__ == "__main__":
    main()
