"""A real fork server and real trial processes, without MPI."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from waiting import PATIENCE_S, wait_for

from mpisweep.blocks import AssignedBlock, EndedBlock, decode, encode
from mpisweep.messages import Team
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import children_of, delivery_s, process_start
from mpisweep.processes.trial_events import Reclaimed, Result
from mpisweep.processes.trialprocess import TrialProcess
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause, TrialState

WORKLOAD = """
import os, sys, time
from pathlib import Path


def train(trial):
    x = trial.params["x"]
    if x == 13:
        os._exit(5)
    if x == 99:
        time.sleep(600)
    if x == 77:
        Path("long").touch()
        while not Path("go").exists():
            time.sleep(0.001)
    return x / 2


def die():
    os._exit(9)
"""
SPEC = 'workload = "work:train"\n[parameters]\nx = { from = 1, to = 1000 }\n'


class Slot:
    """A trial process, and its messages."""

    def __init__(
        self, folder: Path, spec: str = SPEC, timeout_s: float | None = None, stall_s: float | None = None
    ) -> None:
        self.folder = folder
        self.server = ForkServer.start()
        setting = ProcessSetting(
            spec, "s.toml", folder, folder, folder / "logs" / "rank.log", 3, timeout_s, stall_s
        )
        self.process = TrialProcess(self.server, setting, 0, DeviceShare("cpu", "cpu", ()))
        self.results: list[EndedBlock] = []
        self.returned: list[Reclaimed] = []

    def give(self, xs: list[int], attempt: int = 1, team: Team | None = None, *, fresh: bool = False) -> None:
        block = AssignedBlock([[3, 0]], time.time(), xs, [attempt] * len(xs), {"x": list(xs)}, fresh)
        self.process.give(encode(block), len(xs), team)

    def turn(self) -> None:
        files = [f for f in (self.process.fileno(), self.server.fileno()) if f >= 0]
        select.select(files, [], [], 0.05)
        self.take(self.process.receive())
        self.process.keep_time(time.monotonic())
        for notice in self.server.notices():
            if self.process.is_child(notice.child):
                self.take(self.process.on_died(notice.status))

    def take(self, happened) -> None:
        for happening in happened:
            if isinstance(happening, Result):
                block = decode(happening.body)
                assert isinstance(block, EndedBlock)
                self.results.append(block)
            elif isinstance(happening, Reclaimed):
                self.returned.append(happening)

    def until(self, what) -> None:
        def came_true() -> object:
            self.turn()
            return what()

        if not what():
            wait_for(came_true)

    def close(self) -> None:
        self.process.close()
        self.server.close()

    @property
    def ended(self) -> dict[int, str]:
        return {
            n: TrialState(s).label for b in self.results for n, s in zip(b.numbers, b.states, strict=True)
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORKLOAD, encoding="utf-8")
    return tmp_path


@pytest.fixture
def slot(folder: Path) -> Iterator[Slot]:
    made = Slot(folder)
    yield made
    made.close()


def test_a_batch_returns_every_result(slot):
    slot.give(list(range(1, 13)))
    slot.until(lambda: len(slot.ended) == 12)
    assert set(slot.ended.values()) == {"complete"}
    assert slot.results[0].metrics["loss"][0] == 0.5
    assert not slot.process.busy


def test_a_crash_is_blamed_on_the_running_trial_and_the_others_are_reclaimed(slot):
    slot.give([1, 2, 13, 14, 15])
    slot.give([16])
    slot.until(lambda: 13 in slot.ended)
    assert slot.ended[13] == "failed"
    [block] = [b for b in slot.results if 13 in b.numbers]
    assert block.causes == [FailureCause.CRASH]
    assert block.messages == ["the trial process exited with code 5"]
    given_back = {n: r.end for r in slot.returned for n in r.numbers}
    assert set(given_back) | set(slot.ended) == {1, 2, 13, 14, 15, 16}
    assert set(given_back) & set(slot.ended) == set()
    assert {given_back[n] for n in (14, 15, 16)} == {AttemptEnd.RECLAIMED}
    slot.give([20])
    slot.until(lambda: 20 in slot.ended)


def test_trials_assigned_to_a_process_that_has_just_died_are_reclaimed(slot):
    slot.give([1])
    slot.until(lambda: slot.ended)
    slot.give([13])

    def is_closed() -> bool:
        slot.take(slot.process.receive())
        return slot.process.fileno() < 0

    wait_for(is_closed)
    # The channel is closed, and the fork server's notice has not been read.
    slot.give([40, 41])
    slot.until(lambda: 13 in slot.ended)
    assert [r.numbers for r in slot.returned] == [(40, 41)]


def test_the_backlog_behind_a_long_trial_is_reclaimed(slot):
    slot.give([77, 78, 79])
    slot.give([80])
    slot.until((slot.folder / "long").exists)
    slot.process.reclaim()
    time.sleep(0.002)
    assert slot.process.reclaimed().numbers == (78, 79, 80)
    slot.give([90])
    (slot.folder / "go").touch()
    slot.until(lambda: 90 in slot.ended)
    assert slot.ended == {77: "complete", 90: "complete"}
    assert slot.returned == []
    assert not slot.process.busy


def test_trials_assigned_during_a_reclaim_are_kept(slot):
    slot.give([77, 78])
    slot.until((slot.folder / "long").exists)
    slot.process.reclaim()
    slot.give([79])
    time.sleep(0.002)
    assert slot.process.reclaimed().numbers == (78,)
    assert slot.process.held == [(77, 1), (79, 1)]
    (slot.folder / "go").touch()
    slot.until(lambda: not slot.process.busy)
    assert slot.ended == {77: "complete", 79: "complete"}


def test_a_reclaim_from_a_process_that_dies_meanwhile_returns_each_trial_once(slot):
    slot.give([1])
    slot.until(lambda: slot.ended)
    slot.give([13, 14])
    slot.process.reclaim()
    slot.until(lambda: 13 in slot.ended or any(13 in r.numbers for r in slot.returned))
    slot.take([slot.process.reclaimed()])
    numbers = [n for r in slot.returned for n in r.numbers]
    assert sorted(numbers) == sorted(set(numbers))
    assert set(numbers) | set(slot.ended) == {1, 13, 14}


def test_a_trial_that_takes_too_long_is_killed(folder):
    slot = Slot(folder, timeout_s=0.2)
    slot.give([77, 78])
    slot.until(lambda: 77 in slot.ended)
    assert slot.results[-1].causes == [FailureCause.TIMEOUT]
    assert [r.numbers for r in slot.returned] == [(78,)]
    slot.close()


@pytest.mark.parametrize(("rank", "ends"), [(0, "failed"), (1, "complete")])
def test_only_the_rank_that_gives_the_result_must_report(folder, rank, ends):
    slot = Slot(folder, stall_s=0.2)
    slot.give([77], team=Team(rank, 2, rank, 2))
    slot.process.set_rendezvous(77, 1, "127.0.0.1:1")
    slot.until((folder / "long").exists)
    page = slot.process._child.page
    wait_for(lambda: time.monotonic_ns() - page.started_ns > 1e9)
    slot.process.keep_time(time.monotonic())
    assert bool(slot.process._child.killed) == (ends == "failed")
    if ends == "complete":
        (folder / "go").touch()
    slot.until(lambda: slot.ended)
    assert slot.ended == {77: ends}
    slot.close()


def test_a_trial_that_has_begun_when_the_one_before_it_is_killed_for_its_time_is_not_to_blame(folder):
    slot = Slot(folder, timeout_s=0.2)
    kill = slot.server.kill

    def late(child: int) -> None:
        (folder / "go").touch()
        wait_for(lambda: slot.process._child.page.begun >= 2)
        kill(child)

    slot.server.kill = late
    slot.give([77])
    slot.give([99])
    slot.until(lambda: not slot.process.busy)
    assert slot.ended == {77: "complete"}
    assert slot.returned == [Reclaimed((99,), (1,), AttemptEnd.RECLAIMED)]
    slot.close()


def test_a_stopped_slot_without_a_process_still_answers(slot):
    """A second signal may shorten the grace, and a new master may not know about the stop yet."""
    slot.give([77])
    slot.until((slot.folder / "long").exists)
    slot.process.reclaim()
    slot.process.stop(0.0, time.monotonic())
    slot.until(lambda: slot.returned)
    assert slot.returned[0].numbers == (77,)
    assert slot.returned[0].end is AttemptEnd.INTERRUPTED
    assert slot.process.reclaimed().numbers == ()
    slot.give([78])
    assert slot.process.is_over
    slot.process.reclaim()
    slot.process.stop(0.0, time.monotonic())
    assert slot.process.reclaimed().numbers == (78,)
    assert slot.process.held == []


def assign_until_it_ends(folder: Path) -> Slot:
    """Assign a trial to its own slot again each time it is reclaimed, until it ends."""
    slot = Slot(folder)
    for attempt in range(1, 5):
        slot.give([1], attempt)
        slot.until(lambda: slot.returned or slot.ended)
        if slot.ended:
            break
        slot.returned.clear()
    return slot


def test_a_process_that_cannot_start_fails_its_trials_with_the_reason(folder):
    (folder / "work.py").write_text("import os\nos._exit(9)\n", encoding="utf-8")
    slot = assign_until_it_ends(folder)
    assert slot.results[-1].messages == [
        "the trial process ended 3 times before a trial began: it exited with code 9"
    ]
    slot.close()


def test_a_process_that_always_dies_before_a_trial_begins_fails_its_trials(folder):
    (folder / "work.py").write_text(
        """
import os
from mpisweep.workloads.orders import Orders

def die(orders):
    orders._line.receive()
    os._exit(9)

Orders.next_block = die

def run(trial):
    return 1.0
""",
        encoding="utf-8",
    )
    slot = assign_until_it_ends(folder)
    assert slot.results[-1].messages == [
        "the trial process ended 3 times before a trial began: it exited with code 9"
    ]
    slot.close()


def test_a_process_that_cannot_start_fails_no_trial_after_all_were_reclaimed(folder):
    waits = "while not Path('die').exists():\n    time.sleep(0.001)\nPath('die').unlink()\nos._exit(9)\n"
    (folder / "work.py").write_text("import os, time\nfrom pathlib import Path\n" + waits, encoding="utf-8")
    slot = Slot(folder)
    for death in range(3):
        if death == 2:
            slot.give([1, 2])
            slot.process.reclaim()
            time.sleep(0.002)
            slot.take([slot.process.reclaimed()])
        child = slot.process._child.number
        (folder / "die").touch()
        slot.until(lambda child=child: not slot.process.is_child(child))
    assert [r.numbers for r in slot.returned] == [(1, 2)]
    assert slot.results == []
    slot.close()


def test_a_failed_import_is_the_message_of_every_trial(folder):
    (folder / "work.py").write_text("import no_such_module\n", encoding="utf-8")
    slot = Slot(folder)
    slot.give([1, 2])
    slot.until(lambda: len(slot.ended) == 2)
    assert slot.results[0].messages[0].startswith("ModuleNotFoundError: No module named 'no_such_module'")
    slot.close()


def test_a_signal_that_reaches_the_fork_server_late_still_clears_the_trial(folder, monkeypatch):
    monkeypatch.setattr("mpisweep.processes.fork_loop.delivery_s", lambda: PATIENCE_S)
    slot = Slot(folder)
    server = slot.server._process
    slot.give([77])
    slot.until((folder / "long").exists)
    [trial] = children_of(server)
    os.kill(trial, signal.SIGTERM)
    wait_for(lambda: process_start(trial) == -1)
    os.kill(server, signal.SIGTERM)
    slot.until(lambda: slot.ended or slot.returned)
    assert slot.ended == {}
    assert [(r.numbers, r.end) for r in slot.returned] == [((77,), AttemptEnd.INTERRUPTED)]
    slot.close()


def test_a_signal_takes_longer_to_reach_all_processes_when_they_wait_for_a_core(monkeypatch):
    cores = os.cpu_count()
    found = []
    for load in (0.0, 0.5, 2.0, 100.0):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load * cores, 0.0, 0.0))
        found.append(delivery_s())
    assert found == [0.25, 0.25, 0.5, 1.0]
    monkeypatch.setattr(os, "getloadavg", Mock(side_effect=OSError))
    assert delivery_s() == 0.25


@pytest.mark.parametrize("has_left_the_group", [False, True])
def test_children_that_a_trial_leaves_are_ended_with_its_process(folder, has_left_the_group):
    (folder / "work.py").write_text(
        "import os, subprocess\n"
        "def train(trial):\n"
        f"    child = subprocess.Popen(['sleep', '1000'], start_new_session={has_left_the_group})\n"
        "    open('child', 'w').write(str(child.pid))\n"
        "    os._exit(1)\n",
        encoding="utf-8",
    )
    slot = Slot(folder)
    slot.give([1])
    slot.until(lambda: slot.ended)
    pid = int((folder / "child").read_text())
    slot.until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    )
    slot.close()


def test_a_sweep_file_may_be_larger_than_any_packet(folder):
    slot = Slot(folder, SPEC + "# " + "x" * 3_000_000)
    try:
        slot.give([4])
        slot.until(lambda: slot.ended)
        assert slot.ended == {4: "complete"}
    finally:
        slot.close()


def test_an_abandoned_trial_is_skipped_and_the_one_before_it_continues(folder, slot):
    slot.give([77, 5])
    slot.until((folder / "long").exists)
    slot.process.abandon(5, 1, time.monotonic())
    slot.turn()
    (folder / "go").touch()
    slot.until(lambda: not slot.process.busy)
    assert slot.ended == {77: "complete"}
    assert [returned.numbers for returned in slot.returned] == [(5,)]


def test_several_abandoned_trials_are_all_skipped(folder, slot):
    slot.give([77])
    slot.give([5])
    slot.until((folder / "long").exists)
    for number in (77, 5):
        slot.process.abandon(number, 1, time.monotonic())
    slot.until(lambda: not slot.process.held)
    assert slot.ended == {}
    assert sorted(number for returned in slot.returned for number in returned.numbers) == [5, 77]
    slot.give([6])
    slot.until(lambda: slot.ended == {6: "complete"})


def test_trials_behind_one_that_needs_another_process_follow_it_there(folder, slot):
    slot.give([1])
    slot.until(lambda: slot.ended == {1: "complete"})
    child = slot.process._child.number
    slot.give([2], fresh=True)
    slot.give([3], fresh=True)
    slot.give([4, 5])
    slot.until(lambda: len(slot.ended) == 5)
    assert slot.returned == []
    assert slot.process._child.number == child + 2, "one process for 2, and one for 3 and what follows it"


def test_an_abandonment_that_comes_too_late_affects_no_other_trial(folder, slot):
    """Ranks other than rank 0 are told to abandon a trial that they may already have ended."""
    slot.give([77])
    slot.until((folder / "long").exists)
    slot.process.abandon(77, 1, time.monotonic() + 600.0)
    (folder / "go").touch()
    slot.until(lambda: slot.ended == {77: "complete"})
    slot.give([2], fresh=True)
    slot.until(lambda: slot.ended == {77: "complete", 2: "complete"})
    assert slot.returned == []


def test_a_process_forked_by_an_import_runs_no_trial(folder):
    (folder / "work.py").write_text(
        "import os, time\nfrom pathlib import Path\nif os.fork() == 0:\n    Path('forked').touch()\n"
        "while not Path('forked').exists():\n    time.sleep(0.001)\n"
        "def train(trial):\n    return os.getpid()\n"
    )
    slot = Slot(folder)
    try:
        for number in range(1, 9):
            slot.give([number])
        slot.until(lambda: len(slot.ended) == 8)
        assert (folder / "forked").exists()
        assert len({pid for block in slot.results for pid in block.metrics["loss"]}) == 1
    finally:
        slot.close()
