"""A sweep in virtual time: the real scheduler, and the real search and pruner if it has them.

Workers are asynchronous.  A trial takes the seconds that a function says, and its result is known at once
when these are over.  A pruner sees each report when the trial makes it, and the trial ends there if it is
hopeless.  Messages take no time; a proposal takes none either, or the CPU time that it took here.
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
from mpisweep.scheduling.decisions import (
    AddTrials,
    Assign,
    Commit,
    Decision,
    End,
    GiveUp,
    Propose,
    Prune,
    Reclaim,
)
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    Event,
    Proposed,
    PruneAdvised,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
)
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.judging import Judge
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Proposer
from mpisweep.spec.space import Configuration
from searching.tables import Outcome

__all__ = ["Ended", "VirtualSweep", "learning_sweep", "listed_sweep"]

COMPLETE, PRUNED = int(TrialState.COMPLETE), int(TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class Report:
    """The next report of the trial that runs in a slot; the first one is 0."""

    slot: Slot
    place: int


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
        judge: of running trials; None if none is pruned.
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
        judge: Judge | None = None,
        is_free: bool = True,
        until: float = inf,
    ) -> None:
        self.scheduler = scheduler
        self.run_trial = run_trial
        self.search, self.judge = search, judge
        self.is_free = is_free
        self.until = until
        self.configurations = list(configurations)
        #: What each trial that runs gives, and when it began.
        self.outcomes: dict[int, tuple[Outcome, float]] = {}
        #: The objective of each trial that has ended: if it was pruned, of its last report.
        self.objectives: dict[int, float] = {}
        #: The step of each trial's last report, where these are judged.
        self.steps: dict[int, int] = {}
        self.told: list[Told] = []
        #: In the order of the ends.
        self.ends: list[Ended] = []
        self.held: dict[Slot, list[tuple[int, int]]] = {Slot(rank, 0): [] for rank in range(workers)}
        #: (when, in which order, what): the end or a report of a slot's trial, or an answer of the search.
        self.queue: list[tuple[float, int, Slot | Report | Proposed]] = []
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

    def later(self, seconds: float, what: Slot | Report | Proposed) -> None:
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
                for number, state in zip(block.numbers, block.states, strict=True):
                    self.note(number, state)
            case Prune(slot):
                events.append(self.end(slot, PRUNED))
            case End():
                self.is_over = True
            case GiveUp():
                pass
            case _:
                raise AssertionError(f"unexpected decision: {decision}")

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
        outcome = self.run_trial(self.configurations[number])
        self.outcomes[number] = outcome, self.now
        # A worker that gets no more trials waits for nobody.
        self.idle_s += self.now - self.idle_since.pop(slot, self.now)
        self.go_on(slot, 0)

    def go_on(self, slot: Slot, place: int) -> None:
        """Let a slot's trial run until its next report, if these are judged, or its end."""
        outcome, begun = self.outcomes[self.held[slot][0][0]]
        if self.judge is not None and place < len(outcome.reports):
            self.later(begun + outcome.reports[place][0] - self.now, Report(slot, place))
        else:
            self.later(begun + outcome.seconds - self.now, slot)

    def report(self, report: Report) -> None:
        """Have a report judged; the trial goes on unless it is hopeless."""
        assert self.judge is not None
        number, attempt = self.held[report.slot][0]
        value = self.outcomes[number][0].reports[report.place][1]
        self.judge.report(number, attempt, report.place + 1, value)
        self.objectives[number], self.steps[number] = value, report.place + 1
        if self.judge.is_hopeless(number):
            self.feed(PruneAdvised(number, attempt, report.slot.rank))
        else:
            self.go_on(report.slot, report.place + 1)

    def end(self, slot: Slot, state: int) -> TrialsEnded:
        """End the trial of a slot, which begins the next one that it holds."""
        [number, attempt] = self.held[slot].pop(0)
        outcome, begun = self.outcomes.pop(number)
        if state == COMPLETE:
            self.objectives[number] = outcome.loss
        seconds = self.now - begun
        self.busy_s += seconds
        if self.held[slot]:
            self.begin(slot)
        else:
            self.idle_since[slot] = self.now
        return TrialsEnded(EndedBlock(slot.rank, 0, [number], [attempt], [state], [0.0], [seconds], {}))

    def note(self, number: int, state: int) -> None:
        """Note the end of a trial, and tell it to search and pruner as the master does."""
        objective = self.objectives[number]
        self.told.append(Told(number, [objective], self.steps[number] if state == PRUNED else -1))
        if self.judge is not None:
            self.judge.end(number, state, objective)
        loss = objective if state == COMPLETE else None
        self.ends.append(Ended(self.now, self.configurations[number], loss))

    def run(self) -> float:
        """Run it; returns the share of each worker's time, from first to last trial, that trials fill."""
        while not self.is_over and self.queue[0][0] <= self.until:
            self.now, _, what = heappop(self.queue)
            match what:
                case Proposed():
                    self.feed(what)
                case Report():
                    self.report(what)
                case _:
                    self.feed(self.end(what, COMPLETE))
        return self.busy_s / (self.busy_s + self.idle_s)


def learning_sweep(
    search: Proposer,
    names: Sequence[str],
    trials: int,
    run_trial: Callable[[Configuration], Outcome],
    workers: int,
    *,
    judge: Judge | None = None,
    is_free: bool = True,
    until: float = inf,
) -> VirtualSweep:
    """A sweep of `trials` proposals; `names` are those of the parameters."""
    model = DurationModel({name: [] for name in names}, None, 0)
    scheduler = Scheduler([], [], model, retries=0, grace_s=1.0, proposals=Proposals(trials, 0))
    return VirtualSweep(
        scheduler, [], run_trial, workers, search=search, judge=judge, is_free=is_free, until=until
    )


def listed_sweep(
    configurations: Sequence[Configuration],
    run_trial: Callable[[Configuration], Outcome],
    workers: int,
    *,
    judge: Judge | None = None,
    until: float = inf,
) -> VirtualSweep:
    """A sweep over these configurations, handed out in this order."""
    columns = {name: [one[name] for one in configurations] for name in configurations[0]}
    count = len(configurations)
    model = DurationModel(columns, None, count, range(count))
    scheduler = Scheduler(bytes(count), [0] * count, model, retries=0, grace_s=1.0)
    return VirtualSweep(scheduler, configurations, run_trial, workers, judge=judge, until=until)
