"""Every way in which a run can end, with real processes: exit code, output and results file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import test_launch
import test_reliability
from named_nodes import needs_named_nodes
from started import family
from test_launch import on_node
from test_run import start, sweep_file
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.records import EndReason

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: Three nodes on this machine, each with its own host name.
pjm = test_launch.pjm
#: A disk of half a megabyte.
small_disk = test_reliability.small_disk


def stderr_of(folder: Path) -> str:
    return (folder / "stderr.txt").read_text(encoding="utf-8")


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that the sweep has on disk."""
    return {os.fspath(path): path.read_bytes() for path in sorted(folder.rglob("r.h5*")) if path.is_file()}


def begun(folder: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("begun.*"))) >= count


# ---------------------------------------------------------------------- ranks that hang, launchers that stall


@needs_named_nodes
def test_a_rank_that_hangs_alone_on_its_node_does_not_keep_the_allocation(folder, pjm, tell):
    process = start(
        folder, pjm, "run", sweep_file(folder, "gated", 12, "[limits]\nsilence = 2\n"), "-o", "r.h5"
    )
    wait_for(begun(folder, 3))
    ranks = [
        member
        for member in family(process)
        if on_node(member) == "vn2" and "OMPI_COMM_WORLD_RANK" in member.environ()
    ]
    rank = next(member for member in ranks if member.environ()["OMPI_COMM_WORLD_RANK"] != "0")
    members = family(process)
    rank.suspend()
    (folder / "go").touch()
    wait_for(lambda: not (folder / "r.h5.journal").exists())
    ended_at = time.monotonic()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    tell(f"a hung rank keeps mpirun for {time.monotonic() - ended_at:.1f} s after the end of its run")
    assert last_line(stderr_of(folder)).endswith("s: complete; 12 of 12 trials have ended")
    assert package.load(folder / "r.h5").allocations["end"].tolist() == ["complete"]
    _, alive = psutil.wait_procs(members, timeout=PATIENCE_S)
    assert alive == []


def frozen_launch(folder: Path, environment: dict[str, str], last: int) -> subprocess.Popen[str]:
    """A run whose launcher is stopped and whose ranks were killed before they reported an end."""
    process = start(folder, environment, "run", sweep_file(folder, "gated", last), "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGSTOP)
    below = psutil.Process(process.pid).children(recursive=True)
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for member in below:
            # A process may end before its turn.
            with contextlib.suppress(psutil.NoSuchProcess):
                act(member)
    # Children of the launcher stay zombies until it wakes up.
    wait_for(
        lambda: all(not member.is_running() or member.status() == psutil.STATUS_ZOMBIE for member in below)
    )
    return process


def test_a_launcher_that_wakes_up_after_another_run_has_had_the_sweep_touches_nothing(
    folder, environment, mpisweep: Run
):
    process = frozen_launch(folder, environment, 6)
    (folder / "go").touch()
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    before = files_of(folder)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 3
    assert files_of(folder) == before
    assert ") has taken over this sweep" in last_line(stderr_of(folder))
    assert "restarting the ranks" not in stderr_of(folder)


def test_a_launcher_that_wakes_up_while_another_run_has_the_sweep_leaves_it_alone(folder, environment):
    process = frozen_launch(folder, environment, 6)
    for path in folder.glob("begun.*"):
        path.unlink()
    errors = (folder / "stderr.txt").rename(folder / "first.txt")
    other = start(folder, environment, "run", "s.toml", "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 3
    assert ") has taken over this sweep" in last_line(errors.read_text())
    (folder / "go").touch()
    assert other.wait(timeout=PATIENCE_S) == 0
    assert package.load(folder / "r.h5").allocations["end"].tolist() == ["", "complete"]


def test_a_launcher_that_wakes_up_after_its_own_run_has_ended_returns_its_end_whatever_came_later(
    folder, environment, mpisweep: Run
):
    process = start(folder, environment, "run", sweep_file(folder, "gated", 4), "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGSTOP)
    (folder / "go").touch()
    wait_for(lambda: (folder / "r.h5").exists() and not (folder / "r.h5.journal").exists())
    assert mpisweep("run", sweep_file(folder, "gated", 5), "-n", "2", "-o", "r.h5").returncode == 0
    before = files_of(folder)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert files_of(folder) == before


# ------------------------------------------------------------------------------------- every way to end

#: Each trial reads from a file how it should behave.
PROGRAM = """
import os, time
from pathlib import Path


def run(trial):
    how = Path("how").read_text()
    x = trial.params["x"]
    if how == "fail" or (how == "half" and x % 2):
        raise ValueError("no")
    if how == "diverge":
        return float("nan")
    if how == "nap":
        time.sleep(0.05)
    if how == "chat":
        for step in range(3000):
            trial.report(step, loss=step)
        time.sleep(0.02)
    if how in ("listen", "deaf"):
        Path(f"begun.{trial.number}").touch()
        while how == "deaf" or not trial.should_stop():
            time.sleep(0.005)
        return None
    return 1.0
"""


@dataclass(frozen=True)
class Ending:
    """One way for a run to end, and its visible outcome."""

    #: Behaviour of the trials, see PROGRAM.
    how: str
    exit_code: int
    #: Of the results file.  It stays "running" if the run could not record its end; then `mpisweep status`
    #: says that the run died.
    state: str
    #: The launcher's last line, without the time.
    last: str
    #: Called when trials run.
    act: Callable[[Path, subprocess.Popen[str], Run], object] | None = None
    limits: str = "grace = 2"
    arguments: tuple[str, ...] = ()
    trials: int = 6
    output: str = "r.h5"
    #: Whether a first run has ended before, in the same way.
    is_second: bool = False


def signalled(*numbers: signal.Signals) -> Callable[[Path, subprocess.Popen[str], Run], None]:
    def act(folder: Path, process: subprocess.Popen[str], mpisweep: Run) -> None:
        for index, number in enumerate(numbers):
            if index:
                wait_for(lambda: "stopped by a signal" in stderr_of(folder))
            process.send_signal(number)

    return act


def stop_asked(folder: Path, process: subprocess.Popen[str], mpisweep: Run) -> None:
    done = mpisweep("stop", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "stopped; 0 of 6 trials have ended" in done.stdout


def lost(folder: Path, process: subprocess.Popen[str], mpisweep: Run) -> None:
    for member in family(process)[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "OMPI_COMM_WORLD_RANK" in member.environ():
                member.kill()


RESUME = "run the same command to resume"
ENDINGS = {
    "complete": Ending("succeed", 0, "complete", "s: complete; 6 of 6 trials have ended"),
    "some fail": Ending("half", 0, "complete", "s: complete; 6 of 6 trials have ended"),
    "nothing is left to do": Ending(
        "succeed", 0, "complete", "s: complete; 6 of 6 trials have ended", is_second=True
    ),
    "all fail": Ending(
        "fail",
        4,
        "no trial completed",
        "s: no trial completed; 6 of 6 trials have ended; `mpisweep status r.h5` counts the failures by "
        "cause",
        limits="same_failures = 0",
    ),
    "the first ones fail alike": Ending(
        "fail",
        4,
        "stopped because the first trials all failed alike",
        "s: stopped because the first trials all failed alike; "
        r"\d+ of 60 trials have ended; `mpisweep status r.h5` counts the failures by cause",
        trials=60,
        limits="same_failures = 3",
    ),
    "nothing finite": Ending(
        "diverge",
        4,
        "no completed trial has a finite objective",
        "s: no completed trial has a finite objective; 6 of 6 trials have "
        "ended; every loss is missing, NaN or infinite",
    ),
    "stop": Ending(
        "listen",
        3,
        "stopped on request",
        f"s: stopped on request; 0 of 6 trials have ended; {RESUME}",
        stop_asked,
    ),
    "stop file": Ending(
        "listen",
        3,
        "stopped on request",
        f"s: stopped on request; 0 of 6 trials have ended; {RESUME}",
        lambda folder, process, mpisweep: (folder / "r.h5.stop").touch(),
    ),
    "SIGTERM": Ending(
        "listen",
        3,
        "stopped by a signal",
        f"s: stopped by a signal; 0 of 6 trials have ended; {RESUME}",
        signalled(signal.SIGTERM),
    ),
    "SIGINT": Ending(
        "listen",
        3,
        "stopped by a signal",
        f"s: stopped by a signal; 0 of 6 trials have ended; {RESUME}",
        signalled(signal.SIGINT),
    ),
    "SIGUSR1 and a trial that does not listen": Ending(
        "deaf",
        3,
        "stopped by a signal",
        f"s: stopped by a signal; 0 of 6 trials have ended; {RESUME}",
        signalled(signal.SIGUSR1),
    ),
    "SIGINT twice": Ending(
        "deaf",
        3,
        "running",
        f"stopped before the sweep reported an end; {RESUME}",
        signalled(signal.SIGINT, signal.SIGINT),
        "grace = 1000",
    ),
    "walltime": Ending(
        "listen",
        3,
        "stopped before the walltime",
        f"s: stopped before the walltime; 0 of 6 trials have ended; {RESUME}",
        limits="grace = 1",
        arguments=("--walltime", "8"),
    ),
    "target": Ending(
        "nap",
        0,
        "stopped because the objective reached stop.target",
        r"s: stopped because the objective reached stop.target; \d+ of 300 trials have ended; "
        r"change \[stop\] to continue",
        limits="grace = 2\n[stop]\ntarget = 1.0",
        trials=300,
    ),
    "patience": Ending(
        "nap",
        0,
        "stopped because no trial has improved the objective for stop.patience trials",
        r"s: stopped because no trial has improved the objective for stop.patience trials; "
        r"\d+ of 300 trials have ended; change \[stop\] to continue",
        limits="grace = 2\n[stop]\npatience = 3",
        trials=300,
    ),
    "device-hours, again": Ending(
        "nap",
        0,
        "stopped because stop.device_hours are used up",
        r"s: stopped because stop.device_hours are used up; "
        r"\d+ of 300 trials have ended; change \[stop\] to continue",
        limits="grace = 2\n[stop]\ndevice_hours = 0.0003",
        trials=300,
        is_second=True,
    ),
    "lost for good": Ending(
        "listen",
        3,
        "running",
        rf"mpirun exited with \d+ before the sweep reported an end; restart limit \(limits.restarts\) reached; {RESUME}",
        lost,
        "restarts = 0",
    ),
    "disk": Ending(
        "chat",
        3,
        "running",
        rf"s: stopped because the disk did not take the results; \d+ of 40 trials have ended; free disk space, then {RESUME}",
        limits="disk = 2",
        trials=40,
        output="disk/r.h5",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_exit_code_file_and_last_line_agree(folder, environment, mpisweep: Run, ending: Ending, request):
    """Exit code, results file and screen report the same end, whatever it is."""
    if ending.output.startswith("disk"):
        request.getfixturevalue("small_disk")
    (folder / "mine.py").write_text(PROGRAM)
    (folder / "s.toml").write_text(
        'name = "s"\n'
        'workload = "mine:run"\n'
        "[parameters]\n"
        f"x = {{ from = 1, to = {ending.trials} }}\n"
        "[limits]\n"
        f"{ending.limits}\n"
    )
    (folder / "how").write_text(ending.how)
    command = ("run", "s.toml", "-n", "2", "-o", ending.output, *ending.arguments)
    if ending.is_second:
        assert mpisweep(*command).returncode == 0
    process = start(folder, environment, *command)
    if ending.act is not None:
        wait_for(begun(folder, 2))
        ending.act(folder, process, mpisweep)
    assert process.wait(timeout=PATIENCE_S) == ending.exit_code, stderr_of(folder)
    time_of_day, _, last = last_line(stderr_of(folder)).partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time_of_day)
    assert re.fullmatch(ending.last, last), last
    assert "Traceback" not in stderr_of(folder)
    sweep = package.load(folder / ending.output)
    assert sweep.state == ending.state
    assert sweep.allocations["end"][-1] == ("" if ending.state == "running" else ending.state)
    # `status` reports the same end; for a run that recorded none it reports that the run died.
    told = ending.state if ending.state != "running" else f"the last run died without closing; {RESUME}"
    assert mpisweep("status", ending.output).stdout.startswith(f"s: {told}\n")
    assert (folder / (ending.output + ".journal")).exists() == (ending.state == "running")
    watched = mpisweep("watch", ending.output)
    assert watched.returncode == ending.exit_code
    assert f"s: {told}\n" in watched.stdout


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_run_refused_before_any_work_leaves_no_files(folder, mpisweep: Run, ranks):
    (folder / "s.toml").write_text('workload = "mine:nothing"\n[parameters]\nx = [1, 2]\n')
    (folder / "mine.py").write_text(PROGRAM)
    done = mpisweep("run", "s.toml", "-o", "r.h5", *([] if ranks else ["-n", "2"]), ranks=ranks)
    assert done.returncode == 2
    assert done.stderr.count("has no function 'nothing'") == 1
    assert not list(folder.glob("r.h5*"))
    assert mpisweep("status", "r.h5").returncode == 2


def test_every_reason_to_end_is_tested():
    """Reasons without an entry above are tested elsewhere.

    An unusable disk has an entry, but cannot be recorded; lost workers, split sweeps, takeovers, failed
    searches and pilots have tests of their own.
    """
    elsewhere = {
        EndReason.NO_WORKERS,
        EndReason.NO_DEVICES,
        EndReason.TOO_FEW,
        EndReason.SHARE,
        EndReason.SUPERSEDED,
        EndReason.DISK,
        EndReason.SEARCH,
        EndReason.PILOT,
    }
    assert {ending.state for ending in ENDINGS.values()} - {"running"} == {
        str(reason) for reason in EndReason
    } - elsewhere
