"""The client of the snapshot process, which reads and writes the results file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from waiting import PATIENCE_S, wait_for

from mpisweep.master import snapshotter as module
from mpisweep.master.snapshotter import Answer, Snapshotter
from mpisweep.processes.forkserver import ForkServer
from mpisweep.results import compaction, storing


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer.start()
    yield made
    made.close()


def answer_of(snapshotter: Snapshotter) -> Answer:
    answers: list[Answer] = []

    def has_answered() -> bool:
        snapshotter.listen()
        snapshotter.keep_time(time.monotonic())
        if answer := snapshotter.poll():
            answers.append(answer)
        return bool(answers)

    wait_for(has_answered)
    return answers[0]


def test_a_process_that_does_not_answer_is_replaced_and_its_time_is_reported(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_HANGS_S", 0.3)
    snapshotter = Snapshotter(server)
    snapshotter.write(tmp_path / "s.h5", tmp_path / "token")
    fork_server = psutil.Process(server._process)
    wait_for(fork_server.children)
    [writer] = fork_server.children()
    os.kill(writer.pid, signal.SIGSTOP)
    snapshotter.compact("~")
    answer = answer_of(snapshotter)
    assert "does not answer" in answer.error
    assert answer.seconds >= 0.3
    # Its replacement answers.
    monkeypatch.setattr(module, "_HANGS_S", PATIENCE_S)
    snapshotter.compact("~")
    assert "does not answer" not in answer_of(snapshotter).error
    writer.wait(PATIENCE_S)
    snapshotter.close()


def test_a_failed_snapshot_reports_its_duration(server, tmp_path):
    snapshotter = Snapshotter(server)
    snapshotter.write(Path("/proc/self/s.h5"), tmp_path / "token")
    snapshotter.compact("~")
    answer = answer_of(snapshotter)
    assert answer.error
    assert answer.seconds > 0
    snapshotter.close()


def test_only_the_snapshots_of_a_running_sweep_have_low_priority(tmp_path, monkeypatch):
    found = []

    def look(*arguments, **options):
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    monkeypatch.setattr(compaction, "compact", look)
    monkeypatch.setattr(compaction, "compact_and_close", look)
    path, token = str(tmp_path / "s.h5"), str(tmp_path / "token")
    with ThreadPoolExecutor(1) as thread:
        for asked in ({"ask": "compact", "keep": "~"}, {"ask": "close", "since": None}):
            answer = thread.submit(storing._answer, {**asked, "path": path, "token": token}).result()
            assert answer["error"] == ""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert found == [min(19, usual + 10), usual]
