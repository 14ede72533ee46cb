"""A sweep in virtual time: the real scheduler, and the real search if it learns.

Workers are asynchronous.  A trial takes the seconds that a function says, and its result is known at once
when these are over.  Messages take no time; a proposal takes none either, or the CPU time that it took here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot, TrialState
from mpisweep.scheduling.decisions import AddTrials, Assign, Commit, Decision, End, GiveUp, Propose, Reclaim
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Event, Proposed, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Proposer
from mpisweep.spec.space import Configuration
from searching.tables import Outcome

__all__ = ["Ended", "VirtualSweep", "learning_sweep", "listed_sweep"]

COMPLETE = int(TrialState.COMPLETE)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a trial: when, of which configuration, with which loss; None if it was pruned."""

    when: float
    configuration: Configuration
    loss: float | None


class VirtualSweep:
    """A sweep in virtual time.

    Args:
        scheduler: knows the trials that there are at the start.
        configurations: of these trials.
        run_trial: what a trial of a configuration gives.
        workers: number of workers of one slot.
        search: proposes the configurations of further trials; None if there are none.
        is_free: whether proposals take no time.
        until: seconds after which the sweep is stopped.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        configurations: Sequence[Configuration],
        run_trial: Callable[[Configuration], Outcome],
        workers: int,
        *,
        search: Proposer | None = None,
        is_free: bool = True,
        until: float = inf,
    ) -> None:
        self.scheduler = scheduler
        self.run_trial = run_trial
        self.search = search
        self.is_free = is_free
        self.until = until
        self.configurations = list(configurations)
        #: What each trial that has begun gives.
        self.outcomes: dict[int, Outcome] = {}
        self.told: list[Told] = []
        #: In the order of the ends.
        self.ends: list[Ended] = []
        self.held: dict[Slot, list[tuple[int, int]]] = {Slot(rank, 0): [] for rank in range(workers)}
        #: (when, in which order, what): the end of a slot's trial, or an answer of the search.
        self.queue: list[tuple[float, int, Slot | Proposed]] = []
        self.order = 0
        self.now = self.busy_s = self.idle_s = 0.0
        #: Worker -> since when it has no trial.
        self.idle_since: dict[Slot, float] = {}
        self.is_over = False
        for rank in range(workers):
            self.feed(WorkerJoined(rank, 1, (), f"node{rank // 8}"))

    def feed(self, first: Event) -> None:
        events = deque([first])
        while events and not self.is_over:
            for decision in self.scheduler.handle(events.popleft(), self.now):
                self.carry_out(decision, events)

    def later(self, seconds: float, what: Slot | Proposed) -> None:
        self.order += 1
        heappush(self.queue, (self.now + seconds, self.order, what))

    def carry_out(self, decision: Decision, events: deque[Event]) -> None:
        match decision:
            case Propose(count):
                self.propose(count)
            case AddTrials(_, configurations):
                self.configurations += configurations
            case Assign((slot,), numbers, attempts):
                self.held[slot] += zip(numbers, attempts, strict=True)
                if len(self.held[slot]) == len(numbers):
                    self.begin(slot)
            case Reclaim(slot):
                back = self.held[slot][1:]
                del self.held[slot][1:]
                numbers, attempts = tuple(n for n, _ in back), tuple(a for _, a in back)
                events.append(TrialsReclaimed(slot, numbers, attempts, AttemptEnd.RECLAIMED))
            case Commit(block):
                for number in block.numbers:
                    loss = self.outcomes.pop(number).loss
                    self.told.append(Told(number, [loss]))
                    self.ends.append(Ended(self.now, self.configurations[number], loss))
            case End():
                self.is_over = True
            case GiveUp():
                pass
            case _:
                raise NotImplementedError(decision)

    def propose(self, count: int) -> None:
        assert self.search is not None
        self.search.tell(self.told)
        self.told = []
        started = time.process_time()
        found = self.search.ask(len(self.configurations), count)
        seconds = 0.0 if self.is_free else time.process_time() - started
        answer = Proposed(tuple(found), (1,) * len(found), self.search.ends, seconds, len(found) < count)
        self.later(seconds, answer)

    def begin(self, slot: Slot) -> None:
        number, _ = self.held[slot][0]
        outcome = self.outcomes[number] = self.run_trial(self.configurations[number])
        self.busy_s += outcome.seconds
        # A worker that gets no more trials waits for nobody.
        self.idle_s += self.now - self.idle_since.pop(slot, self.now)
        self.later(outcome.seconds, slot)

    def run(self) -> float:
        """Run it; returns the share of each worker's time, from first to last trial, that trials fill."""
        while not self.is_over and self.queue[0][0] <= self.until:
            self.now, _, what = heappop(self.queue)
            if isinstance(what, Proposed):
                self.feed(what)
                continue
            [number, attempt] = self.held[what].pop(0)
            seconds = self.outcomes[number].seconds
            if self.held[what]:
                self.begin(what)
            else:
                self.idle_since[what] = self.now
            ended = EndedBlock(what.rank, 0, [number], [attempt], [COMPLETE], [0.0], [seconds], {})
            self.feed(TrialsEnded(ended))
        return self.busy_s / (self.busy_s + self.idle_s)


def learning_sweep(
    search: Proposer,
    names: Sequence[str],
    trials: int,
    run_trial: Callable[[Configuration], Outcome],
    workers: int,
    *,
    is_free: bool = True,
    until: float = inf,
) -> VirtualSweep:
    """A sweep of `trials` proposals; `names` are those of the parameters."""
    model = DurationModel({name: [] for name in names}, None, 0)
    scheduler = Scheduler([], [], model, retries=0, grace_s=1.0, proposals=Proposals(trials, 0))
    return VirtualSweep(scheduler, [], run_trial, workers, search=search, is_free=is_free, until=until)


def listed_sweep(
    configurations: Sequence[Configuration],
    run_trial: Callable[[Configuration], Outcome],
    workers: int,
    *,
    until: float = inf,
) -> VirtualSweep:
    """A sweep over these configurations, handed out in this order."""
    columns = {name: [one[name] for one in configurations] for name in configurations[0]}
    count = len(configurations)
    model = DurationModel(columns, None, count, range(count))
    scheduler = Scheduler(bytes(count), [0] * count, model, retries=0, grace_s=1.0)
    return VirtualSweep(scheduler, configurations, run_trial, workers, until=until)
