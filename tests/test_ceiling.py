"""Proposals of learning searches that need more memory than there is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import count

import pytest
from test_learning import assert_reproducible

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.records import FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import Assign, Decision, MarkInfeasible
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Event, Proposed, TimePassed, TrialsEnded, WorkerJoined
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.ceiling import Ceiling
from mpisweep.search.evidence import Evidence

Run = Callable[..., subprocess.CompletedProcess[str]]

FITS, TOO_LARGE = Evidence.FITS, Evidence.TOO_LARGE
POINTS = [
    {"size": size, "parts": parts, "rate": rate, "optimizer": optimizer}
    for size, parts, rate, optimizer in (
        (100, 2, 0.1, "sgd"),
        (200, 2, 0.2, "sgd"),
        (200, 1, 0.3, "sgd"),  # in fewer parts: needs more
        (200, 4, 0.4, "sgd"),
        (300, 2, 0.5, "adamw"),
    )
]


def ceiling_of(points=POINTS) -> Ceiling:
    columns = {name: [point[name] for point in points] for name in points[0]}
    made = Ceiling(columns, {"size": "increasing", "parts": "decreasing"}, {"rate"})
    made.join("a")
    return made


def above(ceiling: Ceiling) -> list[int]:
    return [number for number, _ in ceiling.above(range(len(POINTS)))]


def test_what_needs_no_less_by_any_parameter_and_agrees_in_the_others_is_above():
    ceiling = ceiling_of()
    assert above(ceiling) == []
    ceiling.learn(1, "a", TOO_LARGE)
    assert ceiling.above(range(5)) == [
        (1, "size 200, parts 2 ran out of memory on a; what needs more was not run"),
        (2, "size 200, parts 2 ran out of memory on a; what needs more was not run"),
    ]


def test_a_kind_of_device_without_evidence_may_run_it_until_it_leaves():
    ceiling = ceiling_of()
    ceiling.learn(1, "a", TOO_LARGE)
    ceiling.join("b")
    assert above(ceiling) == []
    ceiling.learn(2, "b", TOO_LARGE)
    assert above(ceiling) == [2]
    ceiling.leave("b")
    assert above(ceiling) == [1, 2]
    ceiling.leave("a")
    assert above(ceiling) == [], "nobody is there to be too small"


def test_a_larger_trial_that_fits_counts_and_several_kinds_at_once_show_nothing():
    ceiling = ceiling_of()
    ceiling.learn(0, "a", TOO_LARGE)
    ceiling.learn(0, None, TOO_LARGE)
    assert above(ceiling) == [0, 1, 2]
    ceiling.learn(1, "a", FITS)
    assert above(ceiling) == []


class Sweep:
    """A scheduler with one slot that is proposed sizes."""

    def __init__(self) -> None:
        self.clock = count()
        self.scheduler = Scheduler(
            [], [], DurationModel({"size": []}, None, 0), retries=1, grace_s=1.0, proposals=Proposals(9, 0),
            ceiling=Ceiling({"size": []}, {"size": "increasing"}, ()),
        )  # fmt: skip
        self.infeasible: list[int] = []
        self.given: list[int] = []
        self.handle(WorkerJoined(0, 1, {}, kind="a"))
        for _ in range(3):
            self.handle(TimePassed())

    def handle(self, event: Event) -> list[Decision]:
        decisions = self.scheduler.handle(event, float(next(self.clock)))
        self.scheduler.check()
        for decision in decisions:
            match decision:
                case MarkInfeasible(numbers, _):
                    self.infeasible += numbers
                case Assign(_, numbers, _, _):
                    self.given += numbers
        return decisions

    def propose(self, *sizes: int) -> None:
        self.handle(Proposed(tuple({"size": size} for size in sizes), (1,) * len(sizes), 0, 0.1))

    def end(self, number: int, state: TrialState, cause: FailureCause = FailureCause.NONE) -> None:
        self.handle(TrialsEnded(EndedBlock(
            0, 0, [number], [1], [int(state)], [0.0], [1.0], {"loss": [1.0]}, [int(cause)], [""],
        )))  # fmt: skip


def test_waiting_and_later_proposals_above_the_ceiling_do_not_run():
    sweep = Sweep()
    sweep.propose(300, 400, 200)
    assert sweep.given == [0]
    sweep.end(0, TrialState.FAILED, FailureCause.OUT_OF_MEMORY)
    assert (sweep.infeasible, sweep.given) == ([1], [0, 2])
    sweep.end(2, TrialState.COMPLETE)
    sweep.propose(300, 299)
    assert (sweep.infeasible, sweep.given) == ([1, 3], [0, 2, 4])
    assert sweep.scheduler.held == {Slot(0, 0): {4: 1}}


TRAIN = """
import time
def run(trial):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number}\\n")
    time.sleep(0.1)
    if trial.params["size"] > 300:
        raise MemoryError("pretend")
    return 1 / trial.params["size"]
"""


@pytest.mark.mpi
def test_a_search_that_wants_ever_more_memory_is_told_and_runs_little_in_vain(folder, mpisweep: Run):
    (folder / "mine.py").write_text(TRAIN)

    def sweep(trials: int) -> None:
        (folder / "s.toml").write_text(
            f'name = "s"\nworkload = "mine:run"\nsearch = "tpe"\ntrials = {trials}\nseed = 2\n'
            '[parameters]\nsize = { from = 1, to = 700, memory = "increasing" }\n'
            'rate = { from = 1e-4, to = 1e-1, scale = "log" }\n'
        )

    sweep(60)
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    infeasible = trials["state"] == "infeasible"
    failed = trials["size"][trials["state"] == "failed"]
    assert infeasible.sum() >= 5
    assert trials["size"][infeasible].min() >= failed.min()
    ran = set(map(int, (folder / "ran.txt").read_text().split()))
    assert not ran & set(trials["number"][infeasible].tolist())
    assert "ran out of memory on" in trials["message"][infeasible][0]
    assert_reproducible(folder / "r.h5")
    # It was told, so it stays so.
    sweep(66)
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5").returncode == 0
    more = package.load(folder / "r.h5").trials
    assert len(more) == 66
    assert (more["state"][:60] == trials["state"]).all()
    assert_reproducible(folder / "r.h5")
