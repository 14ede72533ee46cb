"""Processes that resume after their run has ended, and disks that hang during a run.

MPISWEEP_HOSTS gives ranks different host names, so that no rank can end another.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import storm
from disks import Disk
from test_reliability import (
    SLOW,
    assert_done_once,
    ended,
    my_sweep,
    ranks_by_number,
    running,
    stderr_of,
    workload,
)
from test_run import start
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.processes.kernel import HOSTS_VARIABLE

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: Short of the time after which the fork server of a hung rank kills it.
SILENCE = "silence = 2"


@pytest.fixture
def apart(environment: dict[str, str]) -> dict[str, str]:
    """Each rank is on its own host."""
    return environment | {HOSTS_VARIABLE: "n1,n2,n3,n4"}


@pytest.fixture
def together(environment: dict[str, str]) -> dict[str, str]:
    """All ranks are on this host."""
    return environment


@pytest.fixture(params=["apart", "together"])
def somewhere(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def stopped() -> Iterator[Callable[[psutil.Process], psutil.Process]]:
    """Stop a process; those still stopped at the end of the test are resumed then."""
    processes: list[psutil.Process] = []

    def stop(process: psutil.Process) -> psutil.Process:
        process.suspend()
        processes.append(process)
        return process

    yield stop
    for process in processes:
        wake(process)


def wake(process: psutil.Process) -> None:
    """Resume a stopped process, unless another rank of its host has killed it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def is_closed(path: Path) -> bool:
    """Whether a run has ended: its journal is gone, and the results file records the end."""
    return (
        path.exists()
        and not path.with_name(path.name + ".journal").exists()
        and package.load(path).state != "running"
    )


def gone(*processes: psutil.Process) -> bool:
    return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)


# ------------------------------------------------------------------------------------- ranks that resume late


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_that_wakes_up_after_its_run_has_ended_changes_nothing(folder, somewhere, stopped, number):
    process, ranks = running(folder, somewhere, 40, 2, SILENCE)
    late = stopped(ranks[number])
    wait_for(lambda: is_closed(folder / "r.h5"))
    before = (folder / "r.h5").read_bytes()
    wake(late)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert (folder / "r.h5").read_bytes() == before
    assert not (folder / "r.h5.journal").exists()
    assert_done_once(folder, 40)


@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_that_wakes_up_during_the_next_run_leaves_that_alone(folder, somewhere, stopped, number):
    process, ranks = running(folder, somewhere, 40, 2, SILENCE)
    late = stopped(ranks[number])
    wait_for(lambda: is_closed(folder / "r.h5"))
    second = start(folder, somewhere, "run", my_sweep(folder, 90, SILENCE), "-o", "r.h5", "-n", "2")
    wait_for(lambda: ended(folder / "r.h5") >= 45)
    wake(late)
    assert second.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 90)
    sweep = package.load(folder / "r.h5")
    assert sweep.allocations["end"].tolist() == ["complete", "complete"]
    assert not (folder / "r.h5.journal").exists()


def test_a_master_that_stalled_and_resumes_is_a_worker(folder, somewhere, stopped):
    process, ranks = running(folder, somewhere, 100, 3, SILENCE)
    late = stopped(ranks[0])
    wait_for(lambda: "rank 1 is the master now" in stderr_of(folder))
    wake(late)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 100)
    sweep = package.load(folder / "r.h5")
    assert len(sweep.allocations) == 1
    assert not (folder / "r.h5.journal").exists()


def test_a_rank_that_hangs_for_ever_alone_on_its_host_does_not_keep_the_allocation(folder, apart, stopped):
    process, ranks = running(folder, apart, 40, 2, "silence = 1")
    late = stopped(ranks[1])
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert gone(late)
    assert_done_once(folder, 40)


# --------------------------------------------------------------------------------------------- side processes


def side_process(rank: psutil.Process) -> psutil.Process:
    """The side process of the master that writes the results file."""
    [found] = storm.writers_of(rank)
    return found


def test_a_snapshot_process_of_a_dead_master_changes_nothing_when_it_resumes(folder, environment, stopped):
    """Its fork server is stopped too, because it would end the process otherwise."""
    process, ranks = running(folder, environment, 60, 3)
    writer = side_process(ranks[0])
    server = stopped(ranks[0].children()[0])
    stopped(writer)
    ranks[0].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    before = (folder / "r.h5").read_bytes()
    wake(writer)
    wake(server)
    wait_for(lambda: gone(writer, server))
    assert (folder / "r.h5").read_bytes() == before
    assert not (folder / "r.h5.journal").exists()
    assert_done_once(folder, 60)


def test_a_snapshot_process_that_is_stopped_delays_the_end_and_nothing_else(folder, environment, stopped):
    process, ranks = running(folder, environment, 60, 2)
    writer = stopped(side_process(ranks[0]))
    wait_for(
        lambda: (
            sum(1 for line in (folder / "ran.txt").read_text().splitlines() if line.endswith("ended")) >= 60
        )
    )
    wake(writer)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 60)


# ------------------------------------------------------------------------------------- disks that hang


@pytest.fixture
def disk(folder: Path, tmp_path: Path) -> Disk:
    return Disk(folder / "disk", tmp_path)


def on_disk(
    folder: Path, environment: dict[str, str], disk: Disk, ranks: int, limits: str
) -> tuple[subprocess.Popen[str], dict[int, psutil.Process]]:
    """Start a sweep with its results on the disk; return it and its ranks after a few trials."""
    workload(folder, SLOW)
    sweep = my_sweep(folder, 80, limits)
    process = start(folder, environment | disk.environment, "run", sweep, "-o", "disk/r.h5", "-n", str(ranks))
    wait_for(lambda: ended(folder / "disk" / "r.h5") >= 4)
    return process, ranks_by_number(process)


def all_done(folder: Path) -> package.Sweep:
    sweep = package.load(folder / "disk" / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 80
    assert sweep.trials["loss"].tolist() == [2.0 * x for x in range(1, 81)]
    assert len(sweep.allocations) == 1
    return sweep


def test_a_disk_that_hangs_delays_no_heartbeat(folder, environment, disk):
    process, _ = on_disk(folder, environment, disk, 3, SILENCE)
    disk.be("hang")
    # Three times `silence`.
    time.sleep(6)
    disk.be("fine")
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert "is lost" not in stderr_of(folder)
    assert "is the master now" not in stderr_of(folder)
    all_done(folder)


def test_a_master_that_dies_while_the_disk_hangs_is_replaced_when_the_disk_answers(folder, environment, disk):
    process, ranks = on_disk(folder, environment, disk, 3, SILENCE)
    disk.be("hang")
    ranks[0].kill()
    wait_for(lambda: "rank 1 is the master now" in stderr_of(folder))
    time.sleep(5)
    disk.be("fine")
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert stderr_of(folder).count("is lost") == 1
    all_done(folder)


def test_a_master_that_dies_while_the_disk_is_full_is_replaced_when_there_is_room(folder, environment, disk):
    process, ranks = on_disk(folder, environment, disk, 3, SILENCE)
    disk.be("fail 28")
    ranks[0].kill()
    wait_for(lambda: "the files of the sweep cannot be used" in stderr_of(folder))
    disk.be("fine")
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    all_done(folder)


@pytest.mark.parametrize("state", ["hang", "fail 28"])
@pytest.mark.parametrize("dies", [False, True])
def test_a_disk_that_stays_unusable_ends_the_run_resumable(
    folder, environment, disk, mpisweep: Run, state, dies
):
    process, ranks = on_disk(folder, environment, disk, 3, f"{SILENCE}\ndisk = 3")
    disk.be(state)
    if dies:
        ranks[0].kill()
    wait_for(lambda: "on disk: free disk space and run the same command" in stderr_of(folder))
    disk.be("fine")
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    assert mpisweep("run", "s.toml", "-o", "disk/r.h5", "-n", "2").returncode == 0
    sweep = package.load(folder / "disk" / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 80


def test_a_sweep_whose_files_are_deleted_ends(folder, environment):
    """Not only after the 10 minutes that a disk may fail."""
    workload(folder, SLOW)
    (folder / "gone").mkdir()
    process = start(folder, environment, "run", my_sweep(folder, 1000), "-o", "gone/r.h5", "-n", "1")
    wait_for(lambda: ended(folder / "gone" / "r.h5") >= 1)
    shutil.rmtree(folder / "gone")
    assert process.wait(PATIENCE_S) == 3, stderr_of(folder)
    assert "were deleted while the sweep ran; the run ends" in stderr_of(folder)


def test_a_slow_disk_slows_nothing_but_itself(folder, environment, disk):
    process, _ = on_disk(folder, environment, disk, 3, SILENCE)
    disk.be("slow 0.1")
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert "is lost" not in stderr_of(folder)
    all_done(folder)


def test_a_sweep_whose_opening_takes_longer_than_any_silence_continues(
    folder, environment, disk, mpisweep: Run
):
    """The timeout for waiting in MPI_Init is off while a rank opens the sweep."""
    workload(folder, SLOW)
    sweep = my_sweep(folder, 40, "silence = 0.6")
    process = start(folder, environment | disk.environment, "run", sweep, "-o", "disk/r.h5", "-n", "1")
    wait_for(lambda: ended(folder / "disk" / "r.h5") >= 4)
    launcher = psutil.Process(process.pid)
    [rank] = launcher.children()
    rank.kill()
    # The launcher starts another rank, which reads the journal.
    disk.be("slow 0.1")
    # A rank starts its fork server before it waits for anything.
    wait_for(lambda: any(found != rank and storm.children(found) for found in launcher.children()))
    disk.be("hang")
    [second] = launcher.children()
    # Longer than a rank may wait in MPI_Init.
    time.sleep(8)
    assert second.is_running()
    assert second.status() != psutil.STATUS_ZOMBIE
    disk.be("fine")
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    sweep = package.load(folder / "disk" / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 40
    assert len(sweep.allocations) == 2, stderr_of(folder)
