"""Device checks before the first trial: measuring in a child process, comparing with peers."""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from fakegpus import FakeGpu, fake_gpus
from test_master import Ranks
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import AssignedBlock, CheckedRecord, QuarantineRecord, decode, encode
from mpisweep.master.peers import LEAST_RATE, findings
from mpisweep.messages import DeviceChecked, Ended, Give, Hello, Message, ReclaimedTrials
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer
from mpisweep.rank.worker import Worker
from mpisweep.records import DeviceShare
from mpisweep.spec import parse_spec
from mpisweep.workloads import devicecheck
from mpisweep.workloads.devicecheck import TrialDevice
from mpisweep.workloads.matmul import cpu_rate, torch_rate

Run = Callable[..., subprocess.CompletedProcess[str]]
GIB = 1 << 30


def checked(rank: int = 0, **found: object) -> CheckedRecord:
    return CheckedRecord(rank, 1000.0, **found)  # type: ignore[arg-type]


def found_among(*records: CheckedRecord, kinds: dict[int, str] | None = None) -> dict[int, str]:
    kinds = kinds or {}
    return findings({rank: (kinds.get(rank, "H200"), record) for rank, record in enumerate(records)})


# ------------------------------------------------------------------------------------- comparing


def test_only_a_device_far_below_its_peers_is_found():
    rates = [600.0, 590.0, 310.0, 610.0]
    assert found_among(*(checked(rate=rate) for rate in rates)) == {
        2: "matmul 310 TFLOP/s, 0.52 of the median of its 3 peers"
    }


def test_a_low_clock_is_reported_where_it_explains_a_low_rate():
    records = [checked(rate=600.0, clock_mhz=1980), checked(rate=100.0, clock_mhz=345)]
    assert found_among(*records) == {
        1: "matmul 100 TFLOP/s, 0.17 of its only peer (clock 345 MHz, theirs 1980)"
    }
    assert found_among(checked(clock_mhz=1980), checked(clock_mhz=345)) == {}, "an idle clock says nothing"


def test_only_devices_of_one_kind_are_peers():
    rates = [600.0, 605.0, 610.0, 15.0, 14.0]
    records = [checked(rate=rate) for rate in rates]
    assert found_among(*records, kinds={3: "V100", 4: "V100"}) == {}
    assert set(found_among(*records)) == {3, 4}


def test_of_three_devices_two_are_not_low_because_the_third_is_better():
    assert found_among(checked(rate=300.0), checked(rate=300.0), checked(rate=600.0)) == {}


@pytest.mark.parametrize(("share", "is_low"), [(LEAST_RATE - 0.01, True), (LEAST_RATE + 0.01, False)])
def test_a_device_is_low_below_a_fixed_share_of_the_median(share, is_low):
    assert bool(found_among(checked(rate=100.0), checked(rate=100.0), checked(rate=100.0 * share))) is is_low


def test_memory_in_use_ecc_errors_and_a_failed_check_are_found():
    records = [checked(free_bytes=140 * GIB) for _ in range(4)]
    records += [checked(free_bytes=70 * GIB), checked(errors=2), checked(problem="RuntimeError: CUDA error")]
    assert found_among(*records) == {
        4: "70.0 GiB of memory free, 0.50 of the median of its 4 peers",
        5: "2 uncorrected ECC errors",
        6: "the check failed: RuntimeError: CUDA error",
    }


def test_without_peers_and_without_measurements_nothing_is_low():
    assert found_among(checked(rate=1.0, free_bytes=1)) == {}
    assert found_among(checked(), checked(), checked(rate=5.0)) == {}


# ------------------------------------------------------------------------------------- the master


WARN = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 20 }\n[limits]\nslow_devices = "warn"\n'
EXCLUDE = WARN.replace("warn", "exclude")


def hello(ranks: Ranks, rank: int, now: float, held: tuple[tuple[tuple[int, int], ...], ...] = ()) -> None:
    said = Hello("node", f"H200 #{rank}", 1, 1, held, environment=((),), kind="H200", gpus=1.0)
    ranks.master.on_messages(rank, [said], now)


def check(ranks: Ranks, rank: int, now: float, **found: object) -> None:
    ranks.master.on_messages(rank, [DeviceChecked(encode(checked(rank, **found)))], now)


def assigned_to(ranks: Ranks) -> list[int]:
    """Return the ranks that were assigned trials, in order."""
    records = map(decode, ranks.disk.bodies)
    return [record.slots[0][0] for record in records if isinstance(record, AssignedBlock)]


def last_findings(ranks: Ranks) -> dict[int, str]:
    records = map(decode, ranks.disk.bodies)
    return {record.worker: record.finding for record in records if isinstance(record, CheckedRecord)}


def quarantined(ranks: Ranks) -> list[tuple[int, bool]]:
    records = map(decode, ranks.disk.bodies)
    return [(one.worker, bool(one.why)) for one in records if isinstance(one, QuarantineRecord)]


def test_a_low_device_is_reported_as_soon_as_all_ranks_have_sent_their_checks(caplog):
    ranks = Ranks(WARN)
    for rank in (0, 1):
        hello(ranks, rank, 0.0)
    assert assigned_to(ranks), "nobody waits for a check"
    check(ranks, 0, 1.0, rate=600.0)
    ranks.master.step(1.0, set())
    check(ranks, 1, 1.1, rate=300.0)
    ranks.master.step(1.1, set())
    text = "H200 #1 on node (rank 1): matmul 300 TFLOP/s, 0.50 of its only peer"
    assert [record.getMessage() for record in caplog.records] == [f"device check: {text}"]
    assert last_findings(ranks) == {0: "", 1: text.partition(": ")[2]}
    assert quarantined(ranks) == []


def test_devices_are_compared_also_if_rank_0_has_no_worker():
    ranks = Ranks(WARN, ranks=3)
    for rank, rate in ((1, 600.0), (2, 300.0)):
        hello(ranks, rank, 0.0)
        check(ranks, rank, 1.0, rate=rate)
    ranks.master.step(1.0, set())
    assert not any(last_findings(ranks).values())
    ranks.master.step(2.0, set())
    assert [rank for rank, why in last_findings(ranks).items() if why] == [2]


def test_ranks_that_start_one_by_one_do_not_keep_the_first_waiting():
    ranks = Ranks(EXCLUDE, ranks=100)
    for rank in range(20):
        hello(ranks, rank, float(rank))
        check(ranks, rank, float(rank), rate=600.0)
        ranks.master.step(float(rank), set())
        assert bool(assigned_to(ranks)) is (rank >= 10)


def test_with_exclude_no_trial_runs_on_a_low_device():
    ranks = Ranks(EXCLUDE)
    for rank in (0, 1):
        hello(ranks, rank, 0.0)
    check(ranks, 0, 1.0, rate=300.0)
    ranks.master.step(1.0, set())
    assert assigned_to(ranks) == [], "its peer may show that it is slow"
    check(ranks, 1, 2.0, rate=600.0)
    ranks.master.step(2.0, set())
    assert set(assigned_to(ranks)) == {1}
    assert quarantined(ranks) == [(0, True)]


def test_a_device_found_low_later_is_quarantined_and_used_again_if_no_better_one_is_left():
    ranks = Ranks(EXCLUDE, ranks=4)
    for rank, rate in ((1, 300.0), (2, 300.0)):
        hello(ranks, rank, 0.0)
        check(ranks, rank, 0.0, rate=rate)
    ranks.master.step(5.0, set())
    assert quarantined(ranks) == []
    hello(ranks, 3, 6.0)
    check(ranks, 3, 6.0, rate=600.0)
    ranks.master.step(10.0, set())
    assert quarantined(ranks) == [], "of three devices two are alike"
    hello(ranks, 0, 11.0)
    check(ranks, 0, 11.0, rate=600.0)
    ranks.master.step(11.0, set())
    assert quarantined(ranks) == [(1, True), (2, True)]
    ranks.master.on_lost(3, "it died", 12.0)
    ranks.master.on_lost(0, "it died", 12.0)
    assert sorted(quarantined(ranks)[2:]) == [(1, False), (2, False)], "slow devices are better than none"


def test_with_exclude_a_worker_that_holds_trials_joins_at_once_and_one_without_a_check_later():
    ranks = Ranks(EXCLUDE)
    hello(ranks, 0, 0.0, held=(((0, 1),),))
    hello(ranks, 1, 0.0)
    ranks.master.step(50.0, set())
    assert set(assigned_to(ranks)) == {0}
    ranks.master.step(200.0, set())
    assert set(assigned_to(ranks)) == {0, 1}


def test_the_only_device_is_used_whatever_its_check_says():
    ranks = Ranks(EXCLUDE, ranks=1)
    hello(ranks, 0, 0.0)
    check(ranks, 0, 1.0, errors=3)
    ranks.master.step(1.0, set())
    assert set(assigned_to(ranks)) == {0}


# ------------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("rate", [cpu_rate, lambda: torch_rate("cpu")], ids=["numpy", "torch"])
def test_the_matrix_product_takes_about_half_a_second_and_gives_a_plausible_rate(rate, tell):
    rate()
    began = time.perf_counter()
    tflops = rate()
    took = time.perf_counter() - began
    assert 1e-5 < tflops < 1e3
    assert took < 5.0, "the machine may be busy"
    tell(f"a device check's product: {took:.2f} s, {tflops:.3f} TFLOP/s")


def device_of(name: str, mode: str | None, *, is_shared: bool = False) -> TrialDevice:
    """Return the device of rank 3; a GPU has no sensors."""
    share = "devices_per_trial = 0.5\n" if is_shared else ""
    limits = f'[limits]\nslow_devices = "{mode}"\n' if mode else ""
    text = f'workload = "m:f"\n{share}[parameters]\nx = [1]\n{limits}'
    spec = parse_spec(text, source="s.toml", folder=Path())
    return TrialDevice(name, [] if name == "cpu" else ["amd-1"], worker=3, checks=True, spec=spec)


@pytest.mark.parametrize(
    ("device", "mode", "has_torch", "is_shared", "is_checked", "has_rate"),
    [
        ("cpu", None, True, False, False, False),
        ("cpu", "off", True, False, False, False),
        ("cpu", "warn", False, False, True, True),
        ("cuda:0", "off", True, False, False, False),
        ("cuda:0", None, True, False, True, True),
        ("cuda:0", None, False, False, True, False),
        ("cuda:0", "warn", False, False, True, True),
        ("cuda:0", "warn", True, True, True, False),
    ],
)
def test_device_mode_torch_and_sharing_decide_what_is_checked(
    monkeypatch, device, mode, has_torch, is_shared, is_checked, has_rate
):
    monkeypatch.setattr(devicecheck, "torch_rate", lambda device: 7.0)
    monkeypatch.setattr(devicecheck, "cpu_rate", lambda: 7.0)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if has_torch:
        cuda = types.SimpleNamespace(is_initialized=lambda: False)
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    found = device_of(device, mode, is_shared=is_shared).check()
    assert (found is not None) is is_checked
    if found is not None:
        assert found.rate == (7.0 if has_rate else None)
        assert (found.worker, found.problem) == (3, "")


def fails() -> float:
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")


@pytest.mark.parametrize(
    ("product", "problem"),
    [
        (fails, "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
        (lambda: os._exit(3), "its process died"),
        (lambda: time.sleep(20), "it did not end within 0.3 s"),
    ],
)
def test_a_device_that_fails_hangs_or_kills_affects_only_the_process_that_checks_it(
    monkeypatch, product, problem
):
    monkeypatch.setattr(devicecheck, "cpu_rate", product)
    monkeypatch.setattr(devicecheck, "_WITHIN_S", 0.3 if "0.3" in problem else 60.0)
    found = device_of("cpu", "warn").check()
    assert found is not None
    assert (found.rate, found.problem) == (None, problem)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# ------------------------------------------------------------------------------------- the worker

MINE = """
import os
from pathlib import Path


def run(trial):
    if trial.params["x"] == 1:
        os._exit(5)
    return 1.0
"""


def test_a_new_master_receives_the_check_again_and_a_new_process_does_not_check_again(tmp_path: Path):
    (tmp_path / "mine.py").write_text(MINE)
    text = 'workload = "mine:run"\n[parameters]\nx = [1, 2]\n[limits]\nslow_devices = "warn"\n'
    setting = ProcessSetting(
        text, "s.toml", tmp_path, tmp_path, tmp_path / "logs" / "rank.log", 3, None, None
    )
    told: list[Message] = []
    server = ForkServer.start(30.0)
    worker = Worker(server, setting, [DeviceShare("cpu", "cpu", ())], host="here", tell_master=told.extend)

    def has(kind: type[Message], count: int) -> bool:
        ready, _, _ = select.select(worker.files(), [], [], 0.02)
        worker.step(time.monotonic(), frozenset(ready))
        return sum(isinstance(message, kind) for message in told) >= count

    try:
        block = AssignedBlock([[3, 0]], time.time(), [0, 1], [1, 1], {"x": [1, 2]})
        worker.on_messages([Give(0, 2, encode(block))], time.monotonic())
        wait_for(lambda: has(Ended, 1))
        # The first trial ended its process; the second one runs in another.
        [back] = [message for message in told if isinstance(message, ReclaimedTrials)]
        assert back.numbers == (1,)
        block = AssignedBlock([[3, 0]], time.time(), [1], [2], {"x": [2]})
        worker.on_messages([Give(0, 1, encode(block))], time.monotonic())
        wait_for(lambda: has(Ended, 2))
        [check] = [message for message in told if isinstance(message, DeviceChecked)]
        record = decode(check.body)
        assert isinstance(record, CheckedRecord)
        assert record.worker == 3
        assert record.rate is not None
        told.clear()
        worker.follow()
        assert isinstance(told[0], Hello)
        assert told[1] == check
    finally:
        worker.close()
        server.close()


# ------------------------------------------------------------------------------------- whole sweeps

#: Workload modules that slow down the matrix product of one core, or of one GPU.
SLOW_CORE = """
import os, time
import numpy

product = numpy.matmul


def slow(*arguments, **more):
    time.sleep(0.2)
    return product(*arguments, **more)


if {core} in os.sched_getaffinity(0):
    numpy.matmul = slow


def run(trial):
    time.sleep(0.02)
    return 1.0
"""
SLOW_GPU = """
import os, sys, time, types


def matmul(a, b, out):
    time.sleep(1.0 if os.environ["CUDA_VISIBLE_DEVICES"] == "2" else 0.05)


sys.modules["torch"] = types.SimpleNamespace(
    float16=None, randn=lambda *size, **more: None, empty_like=lambda a: None, matmul=matmul,
    cuda=types.SimpleNamespace(is_initialized=lambda: False, synchronize=lambda device: None),
)


def run(trial):
    time.sleep(0.02)
    return 1.0
"""


def sweep(folder: Path, code: str, limits: str = "", count: int = 20) -> str:
    (folder / "mine.py").write_text(code, encoding="utf-8")
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:run"\n[parameters]\nx = {{ from = 1, to = {count} }}\n[limits]\n{limits}\n'
    )
    return "s.toml"


two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a core for each worker")


@pytest.mark.mpi
@two_cores
@pytest.mark.parametrize("mode", ["warn", "exclude"])
def test_a_worker_with_a_slow_core_is_reported_and_excluded_if_requested(folder, mpisweep: Run, mode):
    """Run a complete check: a real matrix product on real cores."""
    core = min(os.sched_getaffinity(0))
    spec = sweep(folder, SLOW_CORE.format(core=core), f'slow_devices = "{mode}"')
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    workers = package.load(folder / "r.h5").workers
    assert "of its only peer" in workers["device_check"][0]
    assert workers["device_check"][1] == ""
    assert workers["matmul_rate"][0] < LEAST_RATE * workers["matmul_rate"][1]
    assert "device check: cpu " in done.stderr
    assert bool(workers["trials_done"][0]) is (mode == "warn")
    status = mpisweep("status", "r.h5").stdout
    assert ("  quarantined: cpu" in status) is (mode == "exclude")
    assert ("  device check: cpu" in status) is (mode == "warn")


@pytest.mark.mpi
def test_cores_are_not_checked_by_default(folder, mpisweep: Run):
    done = mpisweep("run", sweep(folder, SLOW_CORE.format(core=-1)), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    workers = package.load(folder / "r.h5").workers
    assert all(math.isnan(rate) for rate in workers["matmul_rate"])


@pytest.mark.mpi
def test_gpus_are_checked_by_default_and_each_kind_of_problem_is_reported(
    folder, tmp_path, environment, mpisweep: Run
):
    gpus = [FakeGpu(), FakeGpu(free_bytes=60 << 30), FakeGpu(clock_mhz=345), FakeGpu(errors=1), FakeGpu()]
    fake_gpus(tmp_path / "gpus", environment, gpus)
    done = mpisweep("run", sweep(folder, SLOW_GPU, count=1500), "-n", "5", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    workers = package.load(folder / "r.h5").workers
    by_device = {str(row["device"])[-2:]: row for row in workers}
    told = {name: str(row["device_check"]) for name, row in by_device.items()}
    assert told["#0"] == told["#4"] == ""
    assert told["#1"] == "60.0 GiB of memory free, 0.43 of the median of its 4 peers"
    assert "of the median of its 4 peers (clock 345 MHz, theirs 1980)" in told["#2"]
    assert told["#3"] == "1 uncorrected ECC error"
    assert by_device["#1"]["memory_free"] == 60 << 30
    assert by_device["#2"]["sm_clock"] == 345
    assert by_device["#3"]["ecc_errors"] == 1
    for name in ("#1", "#2", "#3"):
        assert f"device check: NVIDIA H200 {name} on" in done.stderr
