"""GPU shares by measurement: never beyond what fits, and only where sharing gains."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import pytest
from fakegpus import FakeGpu, fake_gpus

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import Assign, Commit, Decision, End, GiveUp, Share
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import TimePassed, TrialsEnded, WorkerJoined, WorkerLost
from mpisweep.scheduling.footprints import MARGIN, Footprints
from mpisweep.scheduling.packing import FULL, Packing
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.sharing import Change, Sharing
from mpisweep.search.frontier import MemoryFrontier

Run = Callable[..., subprocess.CompletedProcess[str]]

#: A tick of the master, in seconds.
TICK_S = 5.0


# ------------------------------------------------------------------------------------- memory


def footprints(**columns: list[float | str]) -> Footprints:
    return Footprints(columns, {"batch_size": "increasing"}, {"learning_rate"})


def test_a_bound_is_the_least_that_a_trial_with_no_smaller_need_has_held():
    found = footprints(batch_size=[8, 16, 32, 64, 16], model=["a", "a", "a", "a", "b"])
    assert found.bound(0, "H200") is None, "nothing is known"
    found.learn(2, "H200", 0.30)
    assert found.bound(0, "H200") == found.bound(2, "H200") == pytest.approx(MARGIN * 0.30)
    assert found.bound(3, "H200") is None, "larger than anything measured"
    assert found.bound(4, "H200") is None, "another model"
    assert found.bound(0, "A100") is None, "another kind of device"
    found.learn(1, "H200", 0.20)
    found.learn(1, "H200", 0.10)
    assert found.bound(0, "H200") == pytest.approx(MARGIN * 0.20), "the most that such a trial has held"


def test_a_real_number_needs_no_memory_and_what_needs_less_when_larger_is_told():
    found = footprints(batch_size=[8, 8], learning_rate=[0.1, 0.2])
    found.learn(0, "H200", 0.1)
    assert found.bound(1, "H200") == pytest.approx(MARGIN * 0.1)
    shards = Footprints({"shards": [1, 2, 4]}, {"shards": "decreasing"}, ())
    shards.learn(1, "H200", 0.5)
    assert shards.bound(2, "H200") == pytest.approx(MARGIN * 0.5)
    assert shards.bound(0, "H200") is None


def test_trials_that_are_added_later_have_bounds_too():
    found = footprints(batch_size=[8])
    found.learn(0, "H200", 0.2)
    found.add([{"batch_size": 4}, {"batch_size": 9}])
    found.repeat([1])
    assert [found.bound(number, "H200") is None for number in (1, 2, 3)] == [False, True, False]


# ------------------------------------------------------------------------------------- gain


def sharing(most: int = 8, trials: int = 1, gain: float = 1.0) -> Sharing:
    return Sharing(most, lambda number: 10.0, trials, gain)


def feed(one: Sharing, wall_time_s: float, trials: float, busy: float | None, count: int = 5) -> list[Change]:
    return [change for _ in range(count) if (change := one.note(0, wall_time_s, trials, busy))]


def test_one_more_trial_is_tried_while_the_gpu_is_not_busy_and_kept_if_it_gains():
    one = sharing()
    assert feed(one, 10.0, 1.0, 0.3) == []
    assert (one.trials, one.limit) == (1, 2)
    assert feed(one, 11.0, 2.0, 0.5) == []
    assert one.limit == 1, "the trials after it are compared too"
    [change] = feed(one, 10.0, 1.0, 0.5)
    assert (change.trials, one.trials) == (2, 2)
    assert change.gain == pytest.approx(2 / 1.1) == change.step
    assert one.slowdown(1.5) == pytest.approx(1.05), "between both"
    assert one.slowdown(3.0) is None


def test_trials_that_get_shorter_do_not_look_like_a_gain():
    """From one trial to the next, durations shrink more than expected; two at a time gain nothing."""
    one = sharing()
    at, changes = 100.0, []
    for trials, slower in ((1, 1.0), (2, 2.0), (1, 1.0)):
        for _ in range(5):
            at *= 0.9
            changes.append(one.note(0, at * slower, trials, 0.3))
    assert changes[-1] is not None
    assert changes[-1].step == pytest.approx(1.0)
    assert one.limit == 1


def test_one_more_trial_that_gains_too_little_goes_again_and_the_next_try_waits():
    one = sharing()
    feed(one, 10.0, 1.0, 0.3)
    feed(one, 19.4, 2.0, 0.5)
    [change] = feed(one, 10.0, 1.0, 0.3)
    assert (change.trials, change.gain) == (1, 1.0)
    assert change.step == pytest.approx(2 / 1.94), "3% is not 5%"
    assert one.limit == 1
    feed(one, 10.0, 1.0, 0.3, count=9)
    assert one.limit == 1
    feed(one, 10.0, 1.0, 0.3, count=1)
    assert one.limit == 2, "it is tried again"
    feed(one, 20.0, 2.0, 0.5)
    feed(one, 10.0, 1.0, 0.3, count=5 + 19)
    assert one.limit == 1, "each time after twice as many"
    feed(one, 10.0, 1.0, 0.3, count=1)
    assert one.limit == 2


@pytest.mark.parametrize(("busy", "limit"), [(0.9, 1), (0.5, 2), (None, 2)])
def test_a_busy_gpu_gets_no_second_trial(busy: float | None, limit: int):
    one = sharing()
    feed(one, 10.0, 1.0, busy)
    assert one.limit == limit


@pytest.mark.parametrize(("beside_one", "trials"), [(8.1, 2), (11.0, 3)])
def test_on_busy_gpus_one_less_is_tried_and_kept_unless_it_costs(beside_one: float, trials: int):
    """Three at a time take 12 s: 1.01, or 1.38, times the trials per hour of two."""
    one = sharing(trials=3, gain=2.5)
    feed(one, 12.0, 3.0, 0.95, count=10)
    assert one.limit == 2
    feed(one, beside_one, 2.0, 0.95)
    [change] = feed(one, 12.0, 3.0, 0.95)
    assert change.trials == one.limit == trials


def test_trials_during_a_change_are_not_compared():
    one = sharing()
    feed(one, 10.0, 1.4, 0.3, count=50)
    assert one.limit == 1


# ------------------------------------------------------------------------------------- choosing a slot


GPU_0, GPU_1 = [Slot(rank, 0) for rank in range(3)], [Slot(rank, 0) for rank in range(3, 6)]


def packing_of(count: int, memory: dict[int, float], trials: int = 3) -> Packing:
    """Two GPUs of three slots; the trials have the batch sizes 1, 2, 3, and so on."""
    known = Footprints({"batch_size": [*range(1, count + 1)]}, {"batch_size": "increasing"}, ())
    for number, held in memory.items():
        known.learn(number, "H200", held)
    packing = Packing(known, lambda number: 1.0, {"H200": (trials, 1.0 * trials)})
    packing.note_worker(GPU_0, "0", "H200")
    packing.note_worker(GPU_1, "1", "H200")
    return packing


def test_an_idle_gpu_comes_before_one_that_is_shared():
    packing = packing_of(9, {8: 0.1})
    free = [*GPU_0, *GPU_1]
    gpus = []
    for number in range(6):
        slot = packing.choose(free, number, ())
        assert slot is not None
        free.remove(slot)
        packing.begin(slot, number, ())
        gpus.append("01"[slot in GPU_1])
    assert sorted(gpus[:2]) == sorted(gpus[2:4]) == ["0", "1"]
    assert packing.choose(free, 6, ()) is None
    assert packing.was_crowded(GPU_0[0], 0)


def test_a_trial_that_nothing_bounds_and_one_that_runs_again_have_their_gpu_alone():
    packing = packing_of(9, {5: 0.1})
    packing.begin(GPU_0[0], 0, ())
    packing.begin(GPU_1[0], 8, ())
    assert packing.choose([*GPU_0[1:], *GPU_1[1:]], 1, ()) in GPU_0
    assert packing.choose(GPU_0[1:], 7, ()) is None, "nothing bounds it"
    assert packing.choose(GPU_0[1:], 1, {1}) is None, "it ran out of memory"
    assert packing.choose(GPU_1[1:], 1, ()) is None, "beside one that nothing bounds"


def test_the_memory_of_a_process_counts_until_it_has_ended():
    packing = packing_of(9, {8: 0.5})
    packing.begin(GPU_0[0], 8, ())
    packing.now = 10.0
    packing.note({}, GPU_0, ())
    assert packing.lingers
    assert packing.choose(GPU_0[1:], 1, ()) is None, "0.55 and 0.55 are too much"
    assert packing.choose(GPU_0, 1, ()) == GPU_0[0], "the same process"
    packing.now = 12.0
    assert packing.choose(GPU_0[1:], 1, ()) is not None


@pytest.mark.parametrize("seed", range(40))
def test_trials_on_one_gpu_never_need_more_than_fits(seed: int):
    """Random trials come and go; those that share a GPU are never more than it takes by their bounds."""
    draw = random.Random(seed)
    count = 60
    needs = sorted(draw.uniform(0.01, 0.9) for _ in range(count))
    packing = packing_of(count, {n: needs[n] for n in range(count) if draw.random() < 0.5})
    running: dict[Slot, int] = {}
    for number in draw.sample(range(count), count):
        packing.now += draw.expovariate(0.5)
        for slot in [slot for slot in running if draw.random() < 0.3]:
            del running[slot]
            packing.note({slot: {n: 1} for slot, n in running.items()}, [slot], ())
        alone = {number} if draw.random() < 0.1 else set()
        idle = [slot for slot in [*GPU_0, *GPU_1] if slot not in running]
        slot = packing.choose(idle, number, alone)
        if slot is None:
            continue
        packing.begin(slot, number, alone)
        running[slot] = number
        for gpu in (GPU_0, GPU_1):
            there = [running[one] for one in gpu if one in running]
            if len(there) > 1:
                assert sum(needs[n] for n in there) <= FULL
                bounds = [packing.footprints.bound(n, "H200") for n in there]
                assert None not in bounds
                assert number not in there or not alone


# ------------------------------------------------------------------------------------- the real scheduler


@dataclass
class Node:
    """GPUs with workers, trials of given memory and demand, and the real scheduler in virtual time.

    A GPU that computes for the part `demand` of a trial's time slows its trials down once they demand more
    than all of it together.
    """

    batch_sizes: list[int]
    gpus: int = 1
    workers: int = 4
    #: Share of the GPU's memory per image, and part of the time that a trial of this batch size computes.
    memory: float = 0.001
    demand: float = 0.004
    frontier: bool = False
    #: Share of the memory of each trial that is not measured, so that bounds are too low.
    hidden: float = 0.0
    packing: Packing = field(init=False)

    def __post_init__(self) -> None:
        columns = {"batch_size": self.batch_sizes}
        count = len(self.batch_sizes)
        self.model = DurationModel(columns, [float(size) for size in self.batch_sizes], count)
        self.packing = Packing(Footprints(columns, {"batch_size": "increasing"}, ()), self.model.expected_s)
        self.scheduler = Scheduler(
            bytes(count), [0] * count, self.model, retries=2, grace_s=1.0, packing=self.packing,
            frontier=MemoryFrontier(columns, {"batch_size": "increasing"}) if self.frontier else None,
        )  # fmt: skip
        self.now, self.is_over = 0.0, False
        #: Slot -> trial, attempt, work left in seconds alone, when it began.
        self.running: dict[Slot, tuple[int, int, float, float]] = {}
        self.decisions: list[Decision] = []
        #: Moments at which a GPU had this many trials: (time, number).
        self.shared: list[tuple[float, int]] = []
        self.overfull = 0

    def gpu_of(self, slot: Slot) -> int:
        return slot.rank // self.workers

    def feed(self, event: object) -> None:
        for decision in self.scheduler.handle(event, self.now):  # type: ignore[arg-type]
            self.decisions.append(decision)
            if isinstance(decision, Assign):
                [slot], [number], [attempt] = decision.slots, decision.numbers, decision.attempts
                self.running[slot] = number, attempt, 2.0 + 0.05 * self.batch_sizes[number], self.now
            elif isinstance(decision, End):
                self.is_over = True
        if len(self.shared) % 20 == 0:
            self.scheduler.check()
        for gpu in range(self.gpus):
            there = [run for slot, run in self.running.items() if self.gpu_of(slot) == gpu]
            self.shared.append((self.now, len(there)))
            self.overfull += sum(self.memory * self.batch_sizes[run[0]] for run in there) > FULL

    def start(self) -> None:
        for rank in range(self.gpus * self.workers):
            gpu = str(rank // self.workers)
            self.feed(WorkerJoined(rank, 1, (), "node", "H200", packed_gpu=gpu, gpus=1 / self.workers))

    def run(self) -> float:
        self.start()
        while not self.is_over:
            self.step()
        return self.now

    def load(self, slot: Slot) -> float:
        return sum(
            min(1.0, self.demand * self.batch_sizes[run[0]])
            for other, run in self.running.items()
            if self.gpu_of(other) == self.gpu_of(slot)
        )

    def step(self) -> None:
        speeds = {slot: 1 / max(1.0, self.load(slot)) for slot in self.running}
        ends: list[tuple[float, Slot]] = []
        for slot, run in self.running.items():
            heappush(ends, (run[2] / speeds[slot], slot))
        took_s = min(TICK_S, ends[0][0]) if ends else TICK_S
        busy = min(1.0, self.load(ends[0][1])) if ends else 0.0
        held = sum(self.memory * self.batch_sizes[run[0]] for run in self.running.values())
        self.now += took_s
        for slot, (number, attempt, left_s, began) in self.running.items():
            self.running[slot] = number, attempt, left_s - took_s * speeds[slot], began
        if not ends or ends[0][0] > TICK_S:
            self.feed(TimePassed())
            return
        _, slot = heappop(ends)
        number, attempt, _, began = self.running.pop(slot)
        fails = held > 1.0 if self.gpus == 1 else self.memory * self.batch_sizes[number] > 1.0
        self.feed(TrialsEnded(EndedBlock(
            slot.rank, 0, [number], [attempt], [int(TrialState.FAILED if fails else TrialState.COMPLETE)],
            [began], [self.now - began], {},
            [int(FailureCause.OUT_OF_MEMORY)] if fails else [], ["out of memory"] if fails else [],
            gpu_memory=[(1 - self.hidden) * self.memory * self.batch_sizes[number]], gpu_busy=[busy],
        )))  # fmt: skip

    def shares(self) -> list[Share]:
        return [decision for decision in self.decisions if isinstance(decision, Share)]


def test_small_batches_share_a_gpu_and_are_done_in_a_fraction_of_the_time():
    sizes = [8 + number % 8 for number in range(200)]
    shared, alone = Node(sizes, workers=4), Node(sizes, workers=1)
    assert shared.run() < 0.4 * alone.run()
    assert shared.packing.sharing["H200"].trials == 4
    assert shared.shares()[-1].gain == pytest.approx(4.0, rel=0.1)
    assert shared.overfull == 0


@pytest.mark.parametrize("measures_busy", [True, False])
def test_large_batches_end_at_one_trial_per_gpu(measures_busy: bool, monkeypatch):
    if not measures_busy:
        monkeypatch.setattr("mpisweep.scheduling.sharing.BUSY", 2.0)
    node = Node([300 + number for number in range(80)], workers=8, memory=0.0005)
    took_s = node.run()
    assert node.packing.sharing["H200"].trials == 1
    assert max(many for _, many in node.shared) == (1 if measures_busy else 2)
    alone_s = Node([300 + number for number in range(80)], workers=1, memory=0.0005).run()
    assert took_s == pytest.approx(alone_s, rel=0.05)


def test_a_sweep_from_large_to_small_batches_begins_to_share_where_that_gains():
    node = Node([*range(1, 501, 3)], gpus=2, workers=4, memory=0.0005)
    took_s = node.run()
    assert node.overfull == 0
    assert node.packing.sharing["H200"].trials >= 3
    first = next(moment for moment, many in node.shared if many > 1)
    assert first > 0.3 * took_s, "the largest ones keep a GPU busy"
    assert took_s < Node([*range(1, 501, 3)], gpus=2, workers=1, memory=0.0005).run()


def test_a_trial_that_ran_out_of_memory_beside_others_runs_again_alone_and_counts_for_nothing():
    """Its process held twice what was measured, so that the bounds let too many share the GPU."""
    node = Node([200] * 30, workers=8, memory=0.002, demand=0.0005, hidden=0.6, frontier=True)
    node.run()
    again = [one for one in node.decisions if isinstance(one, GiveUp)]
    assert again
    assert {one.end for one in again} == {AttemptEnd.NOT_FRESH}
    ends = [one.block for one in node.decisions if isinstance(one, Commit)]
    assert [state for block in ends for state in block.states] == [int(TrialState.COMPLETE)] * 30
    retried = [one for one in node.decisions if isinstance(one, Assign) and one.attempts[0] > 1]
    assert retried
    assert all(one.fresh for one in retried)


def test_a_new_master_gives_no_gpu_a_trial_before_every_worker_has_said_what_it_runs():
    columns = {"batch_size": [8, 8, 8]}
    model = DurationModel(columns, None, 3)
    packing = Packing(Footprints(columns, {"batch_size": "increasing"}, ()), model.expected_s)
    held = {Slot(0, 0): {}, Slot(1, 0): {0: 1}}
    scheduler = Scheduler(
        [TrialState.RUNNING, 0, 0], [1, 0, 0], model, retries=0, grace_s=1.0, held=held, packing=packing
    )
    joined = {"host": "n", "kind": "H200", "packed_gpu": "0"}
    assert scheduler.handle(WorkerJoined(0, 1, (), **joined), 0.0) == []
    assert scheduler.handle(WorkerJoined(1, 1, (((0, 1),),), **joined), 0.1) == []
    scheduler.check()
    assert not any(isinstance(one, Assign) for one in scheduler.handle(TimePassed(), 0.2))
    assert scheduler.handle(WorkerLost(1), 0.3)
    assert not any(isinstance(one, Assign) for one in scheduler.handle(TimePassed(), 2.2)), "it may linger"
    assert any(isinstance(one, Assign) for one in scheduler.handle(TimePassed(), 2.4))


def test_workers_without_a_shared_gpu_get_trials_as_ever():
    node = Node([8] * 6, workers=1)
    node.scheduler.handle(WorkerJoined(9, 1, (), "node", "cpu"), 0.0)
    assert node.packing.places([Slot(9, 0)]) == 1
    assert not node.packing.is_packed(Slot(9, 0))


# ------------------------------------------------------------------------------------- a whole sweep

#: A function that holds `batch_size` GiB of a GPU, as the simulated driver sees it, and notes what all hold.  The
#: first trial after the twentieth that is not alone runs out of memory.
MINE = """
import os, time
from pathlib import Path

def train(trial):
    held, folder = Path(os.environ["NVML_PROCESSES"]), Path("seen")
    folder.mkdir(exist_ok=True)
    own = held / str(os.getpid())
    own.with_suffix(".new").write_text(str(trial.params["batch_size"] << 30))
    own.with_suffix(".new").rename(own)
    time.sleep(0.04)
    files = [int(one.read_text()) for one in held.iterdir() if one.name.isdigit() and alive(one.name)]
    (folder / f"{trial.number}").write_text(f"{len(files)} {sum(files) / 2**30}")
    if trial.number >= 20 and len(files) > 1 and not Path("failed").exists():
        Path("failed").write_text(str(trial.number))
        own.unlink()
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
    return trial.params["batch_size"]

def alive(process):
    return Path("/proc", process).exists()
"""


@pytest.mark.mpi
def test_trials_share_a_gpu_as_measured_and_never_hold_more_than_it_has(
    folder: Path, tmp_path: Path, environment: dict[str, str], mpisweep: Run
):
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu(free_bytes=99 << 30)])
    (folder / "mine.py").write_text(MINE)
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "mine:train"\ndevices_per_trial = "auto"\nrepeats = 40\n'
        "[parameters]\nbatch_size = [20]\n"
    )
    checked = mpisweep("check", "s.toml")
    assert "shared as measured" in checked.stdout
    done = mpisweep("run", "s.toml", "-n", "6", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    loaded = package.load(folder / "r.h5")
    trials = loaded.trials
    assert np.allclose(trials["device_memory"], 0.2)
    failed = int((folder / "failed").read_text())
    ends = loaded.attempts["end"][loaded.attempts["trial"] == failed].tolist()
    assert ends == [AttemptEnd.NOT_FRESH.label, AttemptEnd.ENDED.label]
    assert loaded.count(TrialState.COMPLETE) == 40
    assert trials["device_trials"][failed] == pytest.approx(1.0), "alone"
    assert loaded.workers["gpus"].tolist() == [pytest.approx(1 / 6)] * 6
    assert set(loaded.workers["device_kind"]) == {"NVIDIA H200"}
    seen = [tuple(map(float, path.read_text().split())) for path in (folder / "seen").iterdir()]
    assert max(held for _, held in seen) <= 80, "four of them, with the margin"
    assert loaded.sharing["trials"].tolist()[-1] >= 2
    assert trials["device_trials"].max() > 1.5
    text = f"NVIDIA H200: {loaded.sharing['trials'][-1]} trials per GPU"
    assert text in done.stdout + done.stderr
    assert text in mpisweep("status", "r.h5").stdout
    assert "trials at a time on average" in mpisweep("trial", "r.h5", "39").stdout
    # A run that goes on begins as the last one ended.
    (folder / "s.toml").write_text((folder / "s.toml").read_text().replace("repeats = 40", "repeats = 46"))
    done = mpisweep("run", "s.toml", "-n", "6", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["device_trials"][40:].max() > 1.5
