"""The cost of an event in the scheduler is independent of the numbers of workers and trials.

Costs are counted, not timed.  The sweeps are those of ``benchmarks/events.py``, in virtual time, with 100
workers and with 10,000.  The tests count the lines that an event executes and the elements that built-in
functions visit, and measure the peak of its memory: a copy of all slots is one line, but needs memory.
"""

from __future__ import annotations

import builtins
import sys
import tracemalloc
from collections import Counter, defaultdict
from math import inf
from statistics import fmean, median
from types import FrameType
from typing import Any

import pytest
from scripts import load_script

from mpisweep.scheduling.decisions import Decision
from mpisweep.scheduling.events import Event, TrialsGranted

FEW, MANY = 100, 10_000
#: Kinds of events of which only a sample is measured, as many with many workers as with few.
SAMPLED = {"TrialsEnded", "TrialsReclaimed", "TrialsRevoked", "WorkerJoined", "WorkerLost"}
#: Built-in functions that visit every element of their argument.
LOOKING = ("all", "any", "max", "min", "sorted", "sum")
#: Bytes to ignore: a few small objects.
SMALL = 4096


events = load_script("benchmarks/events.py")


class Steps:
    """Counts lines, calls, and the elements that built-in functions visit."""

    def __init__(self) -> None:
        self.count = 0

    def trace(self, _frame: FrameType, event: str, _: Any) -> Any:
        # Python reports a line each time a loop reaches it, and a call for each value of a generator.
        if event in ("call", "line"):
            self.count += 1
        return self.trace

    def look_with(self, name: str) -> Any:
        """The built-in function of this name, wrapped to count the elements it visits."""
        function = getattr(builtins, name)

        def looking(*things: Any, **options: Any) -> Any:
            if len(things) == 1 and hasattr(things[0], "__len__"):
                self.count += len(things[0])
            return function(*things, **options)

        return looking


class Counted(events.Cluster):  # type: ignore[name-defined, misc]
    """A cluster that counts steps instead of measuring time, from the first worker on.

    Args:
        steps: the counter.
        limit: largest number of steps per event; for a grant, per trial.
    """

    is_measured = True

    def __init__(self, variant: Any, workers: int, steps: Steps, limit: float) -> None:
        self.steps, self.limit = steps, limit
        self.stride = workers // FEW
        #: Kind of event -> number of events; and the steps and bytes of the measured ones.
        self.happened: Counter[str] = Counter()
        self.steps_of: dict[str, list[int]] = defaultdict(list)
        self.bytes_of: dict[str, list[float]] = defaultdict(list)
        super().__init__(variant, workers)

    def measure(self, event: Event) -> list[Decision]:
        kind = type(event).__name__
        self.happened[kind] += 1
        if kind in SAMPLED and self.happened[kind] % self.stride:
            return self.scheduler.handle(event, self.now)
        size = len(event.numbers) if isinstance(event, TrialsGranted) else 1
        before, self.steps.count = sys.gettrace(), 0
        tracemalloc.start()
        sys.settrace(self.steps.trace)
        try:
            decisions = self.scheduler.handle(event, self.now)
        finally:
            sys.settrace(before)
            self.bytes_of[kind].append(tracemalloc.get_traced_memory()[1] / size)
            tracemalloc.stop()
        self.steps_of[kind].append(self.steps.count)
        # If each event were slow, the whole sweep would take hours.
        assert self.steps.count / size <= self.limit, f"one {kind} takes {self.steps.count} steps"
        return decisions

    def most_steps(self) -> int:
        """Steps of the most expensive event except grants, which are as large as the cluster."""
        return max(steps for kind, some in self.steps_of.items() for steps in some if kind != "TrialsGranted")

    def steps_per_event(self) -> float:
        """Mean steps of all events of the sweep, estimated per kind from the measured ones."""
        total = sum(
            count * fmean(self.steps_of[kind]) for kind, count in self.happened.items() if self.steps_of[kind]
        )
        return total / self.happened.total()


def counted(name: str, workers: int, monkeypatch: pytest.MonkeyPatch, limit: float = inf) -> Counted:
    steps = Steps()
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("mpisweep.scheduling.", "mpisweep.search.")):
            for function in LOOKING:
                monkeypatch.setattr(module, function, steps.look_with(function), raising=False)
    cluster = Counted(events.VARIANTS[name], workers, steps, limit)
    cluster.run()
    return cluster


@pytest.mark.parametrize("name", events.VARIANTS)
def test_an_event_costs_the_same_with_a_hundred_times_as_many_workers(name, monkeypatch):
    few = counted(name, FEW, monkeypatch)
    many = counted(name, MANY, monkeypatch, limit=10 * few.most_steps())
    assert many.happened["TrialsEnded"] > MANY
    means = [{kind: round(fmean(some)) for kind, some in cluster.steps_of.items()} for cluster in (few, many)]
    assert many.steps_per_event() <= 2 * few.steps_per_event(), f"mean steps by kind: {means}"
    for kind in few.bytes_of.keys() & many.bytes_of.keys():
        needs = median(many.bytes_of[kind])
        assert needs <= 2 * median(few.bytes_of[kind]) + SMALL, f"{kind} needs {needs} bytes for a moment"
