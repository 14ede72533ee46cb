"""Processes that cannot be killed and forks that fail: their consequences in whole runs and in one worker."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kernels import STUCK, Kernel
from test_run import start
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.blocks import AssignedBlock, EndedBlock, decode, encode
from mpisweep.messages import Broken, Ended, Give, Hello, Message, ReclaimedTrials, StopTrials
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import children_of, process_start
from mpisweep.rank.worker import Worker
from mpisweep.records import AttemptEnd, DeviceShare

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kernel(tmp_path: Path, environment: dict[str, str]) -> Iterator[Kernel]:
    made = Kernel(tmp_path / "kernel")
    environment |= made.environment
    yield made
    made.end_stuck()


def sweep(
    folder: Path, code: str, more: str = "", parameters: str = "x = { from = 1, to = 6 }", top: str = ""
) -> str:
    (folder / "mine.py").write_text("import subprocess, sys\n" + STUCK + code, encoding="utf-8")
    limits = f"[limits]\nsilence = 3\n{more}\n"
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:run"\n{top}\n[parameters]\n{parameters}\n{limits}'
    )
    return "s.toml"


HANGS_ONCE = """
def run(trial):
    if trial.params["x"] == 1 and trial.attempt == 1 and trial.rank == 0:
        get_stuck()
    time.sleep(0.05)
    return 1.0
"""


# ------------------------------------------------------------------------------ whole runs: stuck processes


@pytest.mark.mpi
def test_a_trial_whose_process_cannot_be_killed_runs_elsewhere_and_its_device_is_abandoned(
    folder, kernel, mpisweep: Run
):
    done = mpisweep("run", sweep(folder, HANGS_ONCE, "timeout = 1"), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 6
    lost = found.attempts["end"] == "lost"
    assert found.attempts["trial"][lost].tolist() == [0]
    [worker] = found.attempts["worker"][lost]
    why = f"process {kernel.stuck[0]} did not end within 3 s after it was killed"
    assert found.workers["quarantine"][worker] == why
    after = found.trials["started_at"] > found.trials["started_at"][0]
    assert worker not in found.trials["worker"][after].tolist()
    assert found.trials["worker"][0] != worker
    assert done.stderr.count(f"{why}\n") == 2, "it is told when it happens and at the end"


@pytest.mark.mpi
def test_when_the_only_device_hangs_the_run_ends_with_the_reason_and_the_next_run_resumes(
    folder, kernel, mpisweep: Run
):
    spec = sweep(folder, HANGS_ONCE.replace("get_stuck()", "get_stuck(keeps_output=True)"), "timeout = 1")
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 3, done.stderr
    found = package.load(folder / "r.h5")
    assert found.state == "no usable devices were left"
    assert "no usable devices were left" in done.stderr
    assert found.attempts["end"].tolist()[0] == "lost"
    assert "waiting" in found.trials["state"].tolist()
    kernel.end_stuck()
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["complete"] * 6


@pytest.mark.mpi
def test_a_wide_trial_runs_elsewhere_when_the_process_of_one_rank_cannot_be_killed(
    folder, kernel, mpisweep: Run
):
    spec = sweep(folder, HANGS_ONCE, "timeout = 1", top="ranks_per_trial = 2")
    done = mpisweep("run", spec, "-n", "3", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 6
    assert found.attempts["end"].tolist().count("lost") == 1
    assert sum(bool(why) for why in found.workers["quarantine"]) == 1


LEAVES = """
def run(trial):
    if trial.params["x"] == 1:
        # In a group of its own, out of reach of signals to the trial's group.
        subprocess.Popen([sys.executable, "-c", "import mine; mine.get_stuck()"], start_new_session=True)
        while not (Path(os.environ["KERNEL_FOLDER"]) / "stuck").exists():
            time.sleep(0.01)
    else:
        # Keep the run going until the device is abandoned.
        while "did not end within" not in Path("stderr.txt").read_text():
            time.sleep(0.01)
    return 1.0
"""


@pytest.mark.mpi
def test_an_unkillable_process_that_a_trial_leaves_behind_costs_the_device_and_not_the_trial(
    folder, kernel, environment
):
    process = start(folder, environment, "run", sweep(folder, LEAVES), "-n", "2", "-o", "r.h5")
    assert process.wait(timeout=PATIENCE_S) == 0, (folder / "stderr.txt").read_text()
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 6
    assert "lost" not in found.attempts["end"].tolist()
    own = found.trials["worker"] == found.trials["worker"][0]
    assert found.trials["number"][own].tolist() == [0]
    [why] = [why for why in found.workers["quarantine"] if why]
    assert found.workers["quarantine"][found.trials["worker"][0]] == why
    assert why == f"process {kernel.stuck[0]} did not end within 3 s after it was killed"


@pytest.mark.mpi
def test_a_program_that_cannot_be_killed_after_its_timeout_is_lost_and_runs_elsewhere(
    folder, kernel, mpisweep: Run
):
    (folder / "mine.py").write_text(STUCK)
    (folder / "prog.py").write_text(
        "import mine, os, sys\n"
        "if sys.argv[1] == '1' and not os.path.exists('once'):\n"
        "    open('once', 'w').close()\n"
        "    mine.get_stuck()\n"
        "print('loss: 1')\n"
    )
    (folder / "s.toml").write_text(
        'workload = { command = "python prog.py {x}" }\n[metrics]\nloss = "loss"\n[parameters]\nx = [1, 2, 3]\n'
        "[limits]\nsilence = 3\ntimeout = 1\n"
    )
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 3
    assert found.attempts["end"].tolist().count("lost") == 1


@pytest.mark.mpi
def test_a_stop_ends_the_run_although_a_process_cannot_be_killed(folder, kernel, environment):
    process = start(
        folder, environment, "run", sweep(folder, HANGS_ONCE, "grace = 1"), "-n", "2", "-o", "r.h5"
    )
    wait_for(lambda: kernel.stuck)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 3, (folder / "stderr.txt").read_text()
    found = package.load(folder / "r.h5")
    assert found.trials["state"][0] == "waiting"
    assert found.attempts["end"][0] == "interrupted", "nobody has lost it"


# ----------------------------------------------------------------------------- whole runs: failing forks


CRASHES = """
def run(trial):
    if trial.params["x"] in (1, 2):
        Path(f"begun.{trial.number}").touch()
        while not Path("go").exists():
            time.sleep(0.002)
        os._exit(5)
    return 1.0
"""


@pytest.mark.mpi
def test_a_fork_that_fails_for_a_while_is_retried_and_nothing_is_lost(folder, kernel, environment):
    spec = sweep(folder, CRASHES, "grace = 30")
    process = start(folder, environment, "run", spec, "-n", "1", "-o", "r.h5")
    wait_for(lambda: list(folder.glob("begun.*")))
    kernel.be_full()
    (folder / "go").touch()
    wait_for(lambda: kernel.refused >= 3)
    kernel.have_room()
    assert process.wait(timeout=PATIENCE_S) == 0, (folder / "stderr.txt").read_text()
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["failed", "failed", *["complete"] * 4]
    assert "lost" not in found.attempts["end"].tolist()


@pytest.mark.mpi
def test_a_program_whose_fork_fails_is_started_later(folder, kernel, environment):
    (folder / "prog.sh").write_text("touch begun.$1; until test -e go; do sleep 0.01; done; echo loss: $1\n")
    (folder / "s.toml").write_text(
        'workload = { command = "sh prog.sh {x}" }\n'
        "[metrics]\n"
        'loss = "loss"\n'
        "[parameters]\n"
        "x = { from = 1, to = 3 }\n"
    )
    process = start(folder, environment, "run", "s.toml", "-n", "1", "-o", "r.h5")
    wait_for(lambda: list(folder.glob("begun.*")))
    (folder / "go").touch()
    kernel.be_full()
    wait_for(lambda: kernel.refused >= 2)
    kernel.have_room()
    assert process.wait(timeout=PATIENCE_S) == 0, (folder / "stderr.txt").read_text()
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [1.0, 2.0, 3.0]


# ---------------------------------------------------------------------------------- one worker with two slots


WORK = """
import os, subprocess, time
from pathlib import Path

def get_stuck(process):
    # Create the file atomically.
    Path("number").write_text(str(process))
    Path("number").rename("stuck")


def run(trial):
    x = trial.params["x"]
    if x == 99:
        os._exit(5)
    if x == 88:
        left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        get_stuck(left.pid)
    if x == 77:
        get_stuck(os.getpid())
        while True:
            time.sleep(0.01)
    return x / 2
"""


class Rank:
    """A worker of two slots, and its messages to the master."""

    def __init__(self, folder: Path, timeout_s: float | None, patience_s: float = 0.3) -> None:
        self._folder = folder
        self.told: list[Message] = []
        self.server = ForkServer.start(patience_s)
        setting = ProcessSetting(
            'workload = "work:run"\n[parameters]\nx = [1]\n',
            "s.toml",
            folder,
            folder,
            folder / "logs" / "rank.log",
            3,
            timeout_s,
            None,
        )
        self.worker = Worker(
            self.server, setting, [DeviceShare("cpu", "cpu", ())] * 2, host="here", tell_master=self.tell
        )

    def tell(self, messages: Sequence[Message]) -> None:
        self.told += messages

    def give(self, slot: int, numbers: list[int], xs: list[int]) -> None:
        block = AssignedBlock([[3, slot]], time.time(), numbers, [1] * len(numbers), {"x": list(xs)})
        self.worker.on_messages([Give(slot, len(numbers), encode(block))], time.monotonic())

    def until(self, what: Callable[[], object]) -> None:
        def came_true() -> object:
            ready, _, _ = select.select(self.worker.files(), [], [], 0.02)
            self.worker.step(time.monotonic(), frozenset(ready))
            return what()

        if not what():
            wait_for(came_true)

    def end_stuck(self) -> None:
        """Let the pending SIGKILL take effect."""
        stuck = self._folder / "stuck"
        if stuck.exists():
            process = int(stuck.read_text())
            stuck.unlink()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        self.end_stuck()
        self.worker.close()
        self.server.close()

    def broken(self) -> list[Broken]:
        return [message for message in self.told if isinstance(message, Broken)]

    def returned(self) -> dict[int, AttemptEnd]:
        return {
            n: message.end
            for message in self.told
            if isinstance(message, ReclaimedTrials)
            for n in message.numbers
        }

    def ended(self) -> set[int]:
        blocks = [decode(message.body) for message in self.told if isinstance(message, Ended)]
        return {number for block in blocks if isinstance(block, EndedBlock) for number in block.numbers}


@pytest.fixture
def unkillable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a workload; no signal reaches the process whose id is in its file `stuck`."""
    (tmp_path / "work.py").write_text(WORK)
    stuck = tmp_path / "stuck"

    def is_unkillable(process: int) -> bool:
        return stuck.exists() and stuck.read_text() == str(process)

    kill, killpg = os.kill, os.killpg
    monkeypatch.setattr(
        os, "kill", lambda process, number: None if is_unkillable(process) else kill(process, number)
    )
    monkeypatch.setattr(
        os, "killpg", lambda group, number: None if is_unkillable(group) else killpg(group, number)
    )
    return tmp_path


@pytest.mark.parametrize("timeout_s", [0.2, None])
def test_a_worker_abandons_one_slot_and_continues_with_the_other(unkillable, timeout_s):
    rank = Rank(unkillable, timeout_s)
    try:
        rank.give(0, [5, 6], [77, 1])
        rank.give(0, [7], [2])
        rank.until((unkillable / "stuck").exists)
        if timeout_s is None:
            rank.worker.on_messages([StopTrials(0.0)], time.monotonic())
        rank.until(rank.broken)
        [broken] = rank.broken()
        assert (broken.slot, broken.is_gone) == (0, True)
        assert (
            broken.why
            == f"process {(unkillable / 'stuck').read_text()} did not end within 0.3 s after it was killed"
        )
        stopped = timeout_s is None
        assert broken.trial == (None if stopped else (5, 1)), "who was stopped has lost nothing"
        back = dict.fromkeys((6, 7), AttemptEnd.RECLAIMED)
        assert rank.returned() == back | ({5: AttemptEnd.INTERRUPTED} if stopped else {})
        # Assignments that cross the message are returned, and a new master learns of the abandoned slot.
        rank.give(0, [8], [3])
        rank.told.clear()
        rank.worker.follow()
        hello = rank.told[0]
        assert isinstance(hello, Hello)
        assert (hello.gone, hello.held) == ((0,), ((), ()))
        if not stopped:
            rank.give(1, [9], [4])
            rank.until(lambda: 9 in rank.ended())
    finally:
        rank.close()


def test_a_process_that_ends_within_the_patience_costs_no_slot(unkillable):
    rank = Rank(unkillable, 0.1, patience_s=600.0)
    try:
        rank.give(0, [5], [77])
        rank.until((unkillable / "stuck").exists)
        process = int((unkillable / "stuck").read_text())
        rank.until(lambda: rank.worker._slots[0]._child.killed)
        (unkillable / "stuck").unlink()
        os.kill(process, signal.SIGKILL)
        rank.until(lambda: 5 in rank.ended())
        rank.give(0, [6], [1])
        rank.until(lambda: 6 in rank.ended())
        assert not rank.broken()
    finally:
        rank.close()


def test_a_fork_that_keeps_failing_costs_a_trial_an_attempt_and_finally_the_slot(unkillable, monkeypatch):
    fork, full, owner = os.fork, unkillable / "full", os.getpid()
    monkeypatch.setattr("mpisweep.processes.fork_loop.FORK_PAUSES_S", (0.01, 0.02))

    def refuse() -> int:
        if full.exists() and os.getpid() != owner:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", refuse)
    rank = Rank(unkillable, None)
    why = "no process could be started for 0.0 s: Resource temporarily unavailable"
    try:
        for number in (0, 1):
            rank.give(number, [number], [number + 1])
        rank.until(lambda: rank.ended() == {0, 1})
        full.touch()
        rank.give(0, [5], [99])
        rank.until(lambda: 5 in rank.ended())
        # The trial has ended its process, and no replacement can be forked.
        rank.give(0, [6, 7], [1, 2])
        rank.until(rank.broken)
        assert rank.broken()[0] == Broken(0, (6, 1), why, is_gone=False)
        assert rank.returned()[7] is AttemptEnd.RECLAIMED
        rank.until(lambda: rank.broken()[-1].is_gone)
        assert [(broken.trial, broken.is_gone) for broken in rank.broken()[1:]] == [(None, True)], (
            "there was nothing to lose"
        )
        rank.give(1, [8], [3])
        rank.until(lambda: 8 in rank.ended())
    finally:
        full.unlink(missing_ok=True)
        rank.close()


def test_an_unkillable_leftover_costs_its_slot_and_delays_no_other(unkillable):
    rank = Rank(unkillable, None)
    try:
        rank.give(0, [5, 6], [88, 1])
        rank.until(lambda: 5 in rank.ended())
        rank.until(rank.broken)
        assert [(broken.slot, broken.trial, broken.is_gone) for broken in rank.broken()] == [(0, None, True)]
        assert rank.returned() == {6: AttemptEnd.RECLAIMED}
        rank.give(1, [7], [99])
        rank.until(lambda: 7 in rank.ended())
        rank.give(1, [8], [2])
        rank.until(lambda: 8 in rank.ended())
    finally:
        rank.close()


def test_a_fork_server_ends_although_one_of_its_processes_does_not(unkillable):
    others = children_of(os.getpid())
    rank = Rank(unkillable, None)
    [server] = [child for child in children_of(os.getpid()) if child not in others]
    rank.give(0, [5], [77])
    rank.until((unkillable / "stuck").exists)
    rank.worker.close()
    # The kernel sends this signal when the rank dies; no rank is left to kill the fork server.
    os.kill(server, signal.SIGRTMIN)
    try:
        wait_for(lambda: process_start(server) == -1)
    finally:
        rank.end_stuck()
        rank.server.close()
