"""Energy of trials, read by the real pynvml from a fake NVML with GPUs of a given power."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fakegpus import FakeGpu, fake_gpus, uuid_of

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.devices.energy import EnergyMeter
from mpisweep.records import Slot
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.teams import TeamTrial
from mpisweep.workloads.gathering import Gathered

Run = Callable[..., subprocess.CompletedProcess[str]]


class Counter:
    """Sensors of a GPU with the given readings of its energy counter."""

    def __init__(self, *readings: int | None) -> None:
        self.readings = list(readings)

    @property
    def energy_mj(self) -> int | None:
        return self.readings.pop(0)


def meter_of(*counters: Counter, times: list[float]) -> EnergyMeter:
    return EnergyMeter(counters, lambda: times[0])  # type: ignore[arg-type]


def test_the_energy_of_a_trial_is_the_difference_of_its_gpus_counters():
    times = [0.0]
    meter = meter_of(Counter(1000, 601_000), Counter(5, 250_005), times=times)
    meter.begin()
    times[0] = 2.0
    meter.end(2.0)
    assert meter.energy_j == 850.0


def test_a_short_trial_needs_no_second_reading_and_has_no_energy():
    times = [0.0]
    counter = Counter(1000, 2000)
    meter = meter_of(counter, times=times)
    for _ in range(5):
        meter.begin()
        times[0] += 0.001
        meter.end(0.001)
        assert meter.energy_j is None
    assert len(counter.readings) == 1
    times[0] += 1.0
    meter.begin()
    assert counter.readings == []


@pytest.mark.parametrize(("before", "after"), [(None, 5), (5, None), (5000, 4)])
def test_a_reading_that_fails_or_runs_backwards_leaves_no_energy(before, after):
    times = [0.0]
    meter = meter_of(Counter(before, after, 7000, 9000), times=times)
    meter.begin()
    times[0] = 1.0
    meter.end(1.0)
    assert meter.energy_j is None
    times[0] = 2.0
    meter.begin()
    times[0] = 3.0
    meter.end(1.0)
    assert meter.energy_j == 2.0


def test_in_a_block_each_energy_stays_with_its_trial():
    gathered = Gathered(0, 0)
    for number, energy_j in enumerate([None, None, 3.0, None]):
        gathered.add_complete(number, 1, 0.0, 1.0, {}, "")
        gathered.note_last(energy_j)
    block = gathered.block()
    assert block.energy_j == [None, None, 3.0, None]
    assert without(block, frozenset({0, 3})).energy_j == [None, 3.0]


def ended(slot: Slot, energy_j: list[float | None]) -> EndedBlock:
    return EndedBlock(slot.rank, 0, [7], [1], [2], [0.0], [1.0], {"loss": [1.0]}, energy_j=energy_j)


@pytest.mark.parametrize(
    ("of_ranks", "together"),
    [
        ([[100.0], [50.0]], [150.0]),
        ([[100.0], []], []),
        ([[], [50.0]], []),
        ([[100.0], [None]], []),
        ([[], []], []),
    ],
)
def test_a_trial_of_several_ranks_has_the_energy_of_all_or_none(of_ranks, together):
    slots = (Slot(1, 0), Slot(2, 0))
    team = TeamTrial(7, 1, slots, ends=[ended(slot, of) for slot, of in zip(slots, of_ranks, strict=True)])
    verdict = team.verdict()
    assert isinstance(verdict, EndedBlock)
    assert (verdict.worker, verdict.energy_j) == (1, together)


# ------------------------------------------------------------------------------------- NVML


PROGRAM = """
import sys
from mpisweep.devices.nvml import open_sensors
for gpu in open_sensors(sys.argv[1:]):
    print(gpu.energy_mj is not None, gpu.free_bytes, gpu.clock_mhz, gpu.uncorrected_errors)
"""


def sensors(environment: dict[str, str], *uuids: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *uuids], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_sensors_are_found_by_uuid_and_missing_ones_are_none(tmp_path, environment):
    gpus = [FakeGpu(free_bytes=10), FakeGpu(watts=-1, free_bytes=20, clock_mhz=-1, errors=-1)]
    fake_gpus(tmp_path / "gpus", environment, gpus)
    assert sensors(environment, uuid_of(0)) == ["True 10 1980 0"]
    assert sensors(environment, uuid_of(1)) == ["False 20 None None"]
    assert sensors(environment, uuid_of(0), uuid_of(5)) == [], "one that NVML does not know"


def test_mig_instances_other_vendors_and_nodes_without_a_driver_have_no_sensors(tmp_path, environment):
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu()])
    assert sensors(environment, "MIG-c7384736-a75d-5afc-978f-d2f1294409fd") == []
    assert sensors(environment, "amd-1234") == []
    del environment["LD_LIBRARY_PATH"]
    assert sensors(environment, uuid_of(0)) == []


# ------------------------------------------------------------------------------------- whole sweeps

MINE = """
import os, time


def run(trial):
    time.sleep(trial.params["x"])
    if trial.params["x"] == 0.75:
        raise ValueError("three quarters")
    return 1.0


def wide(trial):
    time.sleep(2.0)
    return 1.0
"""


def sweep(folder: Path, more: str, parameters: str = "x = [0.6, 0.75, 0.9, 0.001]") -> str:
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    (folder / "s.toml").write_text(f'name = "s"\n{more}\n[parameters]\n{parameters}\n')
    return "s.toml"


def energies(folder: Path) -> tuple[list[float], list[float]]:
    trials = package.load(folder / "r.h5").trials
    return trials["device_energy"].tolist(), trials["device_power"].tolist()


@pytest.mark.mpi
@pytest.mark.parametrize("workload", ['"mine:run"', '{ command = "sleep {x}" }'])
def test_every_workload_has_the_energy_of_its_own_gpu(folder, tmp_path, environment, mpisweep: Run, workload):
    """Each GPU has a different power, so that energy of the wrong one is detected."""
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu(watts=100.0), FakeGpu(watts=400.0)])
    done = mpisweep("run", sweep(folder, f"workload = {workload}"), "-n", "2", "-o", "r.h5")
    assert done.returncode in (0, 4), done.stderr
    loaded = package.load(folder / "r.h5")
    trials = loaded.trials
    for row in trials[:3]:
        watts = 400.0 if str(row["device"]).endswith("#1") else 100.0
        assert row["device_energy"] == pytest.approx(watts * row["wall_time"], rel=0.1)
        assert row["device_power"] == pytest.approx(watts, rel=0.1)
    assert np.isnan(trials["device_energy"][3]), "too short"
    assert loaded.workers["gpus"].tolist() == [1.0, 1.0]
    with h5py.File(folder / "r.h5") as file:
        assert file["trials/device_energy"].attrs["units"] == "J"
        assert file["trials/device_power"].attrs["units"] == "W"
        assert file["trials/device_power"][0] == trials["device_power"][0]


@pytest.mark.mpi
def test_trials_on_a_gpu_without_a_counter_run_normally_and_have_no_energy(
    folder, tmp_path, environment, mpisweep: Run
):
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu(watts=-1)])
    done = mpisweep("run", sweep(folder, 'workload = "mine:run"', "x = [0.6]"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert np.isnan(energies(folder)).all()


@pytest.mark.mpi
def test_trials_that_share_a_gpu_have_no_energy(folder, tmp_path, environment, mpisweep: Run):
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu()])
    spec = sweep(folder, 'workload = "mine:run"\ndevices_per_trial = 0.5', "x = [0.6, 0.7]")
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert np.isnan(energies(folder)).all()
    assert package.load(folder / "r.h5").workers["gpus"].tolist() == [0.5, 0.5]


@pytest.mark.mpi
@pytest.mark.parametrize("more", ["ranks_per_trial = 2", "devices_per_trial = 2"])
def test_a_trial_on_two_gpus_has_the_energy_of_both(folder, tmp_path, environment, mpisweep: Run, more):
    fake_gpus(tmp_path / "gpus", environment, [FakeGpu(watts=100.0), FakeGpu(watts=400.0)])
    spec = sweep(folder, f'workload = "mine:wide"\n{more}', "x = [1.0]")
    done = mpisweep("run", spec, "-n", "2" if "ranks" in more else "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    [[energy_j], [power_w]] = energies(folder)
    # Each rank measures its own time; on a busy machine they differ.
    assert power_w == pytest.approx(500.0, rel=0.15)
    assert energy_j == pytest.approx(500.0 * package.load(folder / "r.h5").trials["wall_time"][0], rel=0.15)


def test_in_a_block_the_use_of_the_gpu_stays_with_its_trial():
    gathered = Gathered(0, 0)
    for number, memory in enumerate([None, 0.2, None]):
        gathered.add_complete(number, 1, 0.0, 1.0, {}, "")
        gathered.note_last(None, None, memory, 0.5)
    block = gathered.block()
    assert (block.gpu_memory, block.gpu_busy) == ([None, 0.2, None], [0.5, 0.5, 0.5])
    kept = without(block, frozenset({0}))
    assert (kept.gpu_memory, kept.gpu_busy) == ([0.2, None], [0.5, 0.5])
