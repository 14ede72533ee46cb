"""What a learning search costs, and whether workers wait for it.

    python benchmarks/search.py [--trials 100,1000,5000] [--workers 64] [--samplers tpe,cmaes] [--json FILE]

The first table is milliseconds per proposal, by the number of trials that the search knows.  The second is
the share of the workers' time that trials fill: the real scheduler and the real sampler in virtual time, with
trials of about a second; a proposal takes the CPU time that it took here, while trials go on.  The same with
proposals that take no time shows what the sampler costs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Direction, Slot, TrialState
from mpisweep.scheduling.decisions import AddTrials, Assign, Commit, Decision, End, Propose, Reclaim
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Event, Proposed, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.learning import NAMED
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Past, Proposer
from mpisweep.spec import spec_from_flags
from mpisweep.spec.space import Configuration

SPACE = ("batch_size=1:700", "learning_rate=1e-4:1e-1:log", "optimizer=sgd,adamw")
COMPLETE = int(TrialState.COMPLETE)


def loss(configuration: Configuration, random: Random) -> float:
    """A landscape with a valley: small batches want small learning rates."""
    best = math.log(1e-4 * float(configuration["batch_size"]) ** 0.7)
    off = math.log(float(configuration["learning_rate"])) - best
    return off**2 + (configuration["optimizer"] == "sgd") + random.gauss(0, 0.05)


def proposer(sampler: str, past: Past, seed: int = 0) -> Proposer:
    options = {"search": "random", "trials": 1}
    space = spec_from_flags("m:f", SPACE, options=options, folder=Path()).space
    return Proposer(space, NAMED[sampler], seed, Direction.MINIMIZE, past)


def cost_ms(sampler: str, known: int, asks: int) -> float:
    """Milliseconds of CPU per proposal of a search that knows `known` trials; 64 more are running."""
    random = Random(0)
    space = spec_from_flags("m:f", SPACE, options={"search": "random", "trials": 1}, folder=Path()).space
    points = [space.from_unit([random.random() for _ in SPACE]) for _ in range(known + 64)]
    ends = [Told(number, loss(points[number], random)) for number in range(known)]
    search = proposer(sampler, Past(points, [-1] * len(points), ends))
    search.ask(len(points), 1)
    started = time.process_time()
    search.ask(len(points) + 1, asks)
    return 1000 * (time.process_time() - started) / asks


class VirtualSweep:
    """A sweep in virtual time.

    Args:
        search: proposes.
        names: of the parameters.
        workers: number of workers of one slot.
        trials: number of proposals.
        run_trial: loss and seconds of a configuration.
        is_free: whether proposals take no time.
    """

    def __init__(
        self,
        search: Proposer,
        names: Sequence[str],
        workers: int,
        trials: int,
        run_trial: Callable[[Configuration], tuple[float, float]],
        *,
        is_free: bool = False,
    ) -> None:
        self.search = search
        self.run_trial = run_trial
        self.is_free = is_free
        model = DurationModel({name: [] for name in names}, None, 0)
        self.scheduler = Scheduler([], [], model, retries=0, grace_s=1.0, proposals=Proposals(trials, 0))
        self.configurations: list[Configuration] = []
        self.told: list[Told] = []
        #: Loss and seconds of each trial.
        self.results: list[tuple[float, float]] = []
        #: (when, configuration, loss) of each trial, in the order of their ends.
        self.ends: list[tuple[float, Configuration, float]] = []
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
                self.search.tell(self.told)
                self.told = []
                started = time.process_time()
                found = self.search.ask(len(self.configurations), count)
                seconds = 0.0 if self.is_free else time.process_time() - started
                is_exhausted = len(found) < count
                known = self.search.ends
                answer = Proposed(tuple(found), (1,) * len(found), known, seconds, is_exhausted)
                self.later(seconds, answer)
            case AddTrials(_, configurations):
                self.configurations += configurations
                self.results += [self.run_trial(one) for one in configurations]
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
                    result, configuration = self.results[number][0], self.configurations[number]
                    self.told.append(Told(number, result))
                    self.ends.append((self.now, configuration, result))
            case End():
                self.is_over = True

    def begin(self, slot: Slot) -> None:
        number, _ = self.held[slot][0]
        seconds = self.results[number][1]
        self.busy_s += seconds
        # A worker that gets no more trials waits for nobody.
        self.idle_s += self.now - self.idle_since.pop(slot, self.now)
        self.later(seconds, slot)

    def run(self) -> float:
        """Run it; returns the share of each worker's time, from first to last trial, that trials fill."""
        while not self.is_over:
            self.now, _, what = heappop(self.queue)
            if isinstance(what, Proposed):
                self.feed(what)
                continue
            [number, attempt] = self.held[what].pop(0)
            if self.held[what]:
                self.begin(what)
            else:
                self.idle_since[what] = self.now
            ended = EndedBlock(
                what.rank, 0, [number], [attempt], [COMPLETE], [0.0], [self.results[number][1]], {}
            )
            self.feed(TrialsEnded(ended))
        return self.busy_s / (self.busy_s + self.idle_s)


def virtual_sweep(sampler: str, workers: int, trials: int, *, is_free: bool) -> VirtualSweep:
    """A sweep over the valley, with trials of 0.8 to 1.2 s."""
    random = Random(1)
    names = [name.partition("=")[0] for name in SPACE]
    return VirtualSweep(
        proposer(sampler, Past([], [], [])), names, workers, trials,
        lambda one: (loss(one, random), random.uniform(0.8, 1.2)), is_free=is_free,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", default="100,1000,5000", help="numbers of known trials")
    parser.add_argument("--workers", type=int, default=64, help="number of workers")
    parser.add_argument("--sweep", type=int, default=2000, help="number of trials of the virtual sweep")
    parser.add_argument("--samplers", default="tpe,gp,cmaes,nsga2", help="which searches")
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    counts = [int(text) for text in options.trials.split(",")]
    samplers = options.samplers.split(",")
    found: dict[str, dict[str, float]] = {}
    print("ms per proposal" + "".join(f"{f'{count:,}':>10}" for count in counts))
    for sampler in samplers:
        # A Gaussian process of thousands of points takes minutes per proposal.
        row = {
            str(count): cost_ms(sampler, count, 3 if sampler == "gp" else 20)
            for count in counts
            if sampler != "gp" or count <= 1000
        }
        found[sampler] = row
        cells = "".join(f"{row.get(str(count), math.nan):>10.1f}" for count in counts)
        print(f"{sampler:<15}{cells}", flush=True)
    print(f"\nutilisation, {options.workers} workers, {options.sweep:,} trials of 0.8 to 1.2 s")
    for sampler in samplers:
        if sampler == "gp":
            continue
        used, bound = (
            virtual_sweep(sampler, options.workers, options.sweep, is_free=is_free).run()
            for is_free in (False, True)
        )
        found[sampler] |= {"utilisation": used, "utilisation_of_a_free_search": bound}
        print(f"{sampler:<15}{used:>10.4f}   of a search that takes no time: {bound:.4f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
