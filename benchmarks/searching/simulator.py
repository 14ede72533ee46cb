"""A sweep in virtual time: the real scheduler, and the real search, race and pruner if it has them.

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
from mpisweep.master.known import duration_model
from mpisweep.master.searching import make_race
from mpisweep.records import AttemptEnd, Slot, TrialState, Value
from mpisweep.scheduling.decisions import (
    AddRepeats,
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
from mpisweep.search import make_sampler
from mpisweep.search.judging import Judge
from mpisweep.search.numbering import Trials, number_trials
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Proposer
from mpisweep.search.repeated import MeanOfRepeats
from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration
from searching.tables import Outcome

__all__ = ["Ended", "VirtualSweep", "learning_sweep", "listed_sweep", "sweep_of_file"]

#: What a trial of a configuration gives in one of its repeats.
RunTrial = Callable[[Configuration, int], Outcome]

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
    repeat: int = 0


class VirtualSweep:
    """A sweep in virtual time.

    Args:
        scheduler: knows the trials that there are at the start.
        trials: these trials; more are added.
        run_trial: what a trial gives.
        workers: number of workers of one slot.
        search: proposes further configurations; None if there are none.
        repeats: number of trials of each.
        judge: of running trials; None if none is pruned.
        is_free: whether proposals take no time.
        until: seconds after which the sweep is stopped.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        trials: Trials,
        run_trial: RunTrial,
        workers: int,
        *,
        search: Proposer | None = None,
        repeats: int = 1,
        judge: Judge | None = None,
        is_free: bool = True,
        until: float = inf,
    ) -> None:
        self.scheduler = scheduler
        self.run_trial = run_trial
        self.search, self.judge = search, judge
        self.is_free = is_free
        self.until = until
        self.trials = trials
        self.means = MeanOfRepeats(trials.configuration_of, repeats)
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
            case AddTrials(_, configurations, _, repeats):
                self.trials.grow(configurations, repeats)
            case AddRepeats(_, known, repeats_of):
                self.trials.repeat(known, repeats_of)
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
        found = self.search.ask(self.trials.configurations, count)
        seconds = 0.0 if self.is_free else time.process_time() - started
        answer = Proposed(tuple(found), (1,) * len(found), self.search.ends, seconds, len(found) < count)
        self.later(seconds, answer)

    def begin(self, slot: Slot) -> None:
        number, _ = self.held[slot][0]
        outcome = self.run_trial(self.trials.configuration(number), self.trials.repeat_of[number])
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
        metrics = {"loss": [self.objectives[number]]}
        return TrialsEnded(EndedBlock(slot.rank, 0, [number], [attempt], [state], [0.0], [seconds], metrics))

    def note(self, number: int, state: int) -> None:
        """Note the end of a trial, and tell it to search and pruner as the master does."""
        objective = self.objectives[number]
        told = self.means.note(number, [objective], self.steps[number] if state == PRUNED else -1)
        if told is not None:
            self.told.append(Told(*told))
        if self.judge is not None:
            self.judge.end(number, state, objective)
        loss = objective if state == COMPLETE else None
        configuration, repeat = self.trials.configuration(number), self.trials.repeat_of[number]
        self.ends.append(Ended(self.now, configuration, loss, repeat))

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
    proposals: int,
    run_trial: RunTrial,
    workers: int,
    *,
    repeats: int = 1,
    judge: Judge | None = None,
    is_free: bool = True,
    until: float = inf,
) -> VirtualSweep:
    """A sweep of so many proposals, each run `repeats` times; `names` are those of the parameters."""
    model = DurationModel({name: [] for name in names}, None, 0)
    scheduler = Scheduler([], [], model, retries=0, grace_s=1.0, proposals=Proposals(proposals, 0, repeats))
    return VirtualSweep(
        scheduler, _numbered({name: [] for name in names}, 0), run_trial, workers,
        search=search, repeats=repeats, judge=judge, is_free=is_free, until=until,
    )  # fmt: skip


def listed_sweep(
    configurations: Sequence[Configuration],
    run_trial: RunTrial,
    workers: int,
    *,
    judge: Judge | None = None,
    until: float = inf,
) -> VirtualSweep:
    """A sweep over these configurations, handed out in this order."""
    columns = {name: [one[name] for one in configurations] for name in configurations[0]}
    trials = _numbered(
        {name: list[Value | None](column) for name, column in columns.items()}, len(configurations)
    )
    model = DurationModel(columns, None, trials.count, range(trials.count))
    scheduler = Scheduler(trials.states, trials.attempts, model, retries=0, grace_s=1.0)
    return VirtualSweep(scheduler, trials, run_trial, workers, judge=judge, until=until)


def sweep_of_file(spec: Spec, run_trial: RunTrial, workers: int) -> VirtualSweep:
    """A sweep of a sweep file whose search does not learn, with its order, repeats and race."""
    trials = number_trials(spec, make_sampler(spec), None)
    scheduler = Scheduler(
        trials.states, trials.attempts, duration_model(spec, trials, None), retries=0, grace_s=1.0,
        race=make_race(spec, trials, None),
    )  # fmt: skip
    return VirtualSweep(scheduler, trials, run_trial, workers)


def _numbered(columns: dict[str, list[Value | None]], count: int) -> Trials:
    """The first repeats of these configurations."""
    waiting = [int(TrialState.WAITING)] * count
    return Trials(columns, waiting, [0] * count, [*range(count)], [0] * count, None, 0)
