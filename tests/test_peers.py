"""The benchmark of other tools: a small run, what it reads from a log, and the end of what it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest
from scripts import ROOT
from waiting import wait_for

sys.path.insert(0, str(ROOT / "benchmarks"))

from peers import catalogue, output, processes
from peers.measures import Log, Measure, measure, row, utilisation

ROWS = {
    "mpisweep": {"columns": {"noop_per_s": 100.0, "start_s": 2.0}},
    "other": {"columns": {"noop_per_s": 50.0, "start_s": 1.0}},
}


@pytest.mark.mpi
def test_a_small_run_writes_what_it_measured(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/peers.py", "--quick", "--trials", "8", "--measure", "durable",
         "--only", "mpisweep", "--only", "multiprocessing", "--json", "p.json", "-o", "p.svg", "--limit", "300"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "p.json").read_text())
    for name in ("mpisweep", "multiprocessing"):
        durable = found["peers"][name]["measures"]["durable"]
        assert not durable.get("error")
        assert durable["trials"] == 8
        assert 0 < durable["start_s"] < durable["seconds"]
        assert found["peers"][name]["columns"]["durable_s"] == durable["seconds"]
        assert name in done.stdout
    # It runs first and last.
    assert len(found["peers"]["mpisweep"]["measures"]["durable"]["runs"]) == 2
    assert (tmp_path / "p.svg").stat().st_size > 0


def test_a_tool_that_fails_is_listed_with_the_last_line_of_its_error(tmp_path):
    program = "import sys; print('first'); sys.exit('LastError: no such thing')"
    peer = catalogue.Peer("broken", "", "os", "", lambda python, *rest: [python, "-c", program])
    found = measure(
        peer,
        Measure("durable", "sleep", 1, (4, 4)),
        sys.executable,
        60.0,
        is_quick=True,
        most=None,
        around={},
    )
    assert found["error"] == "0 of 4 results; LastError: no such thing"
    assert row({"durable": found}) == {}
    text = output.tables({"peers": {"broken": {"measures": {"durable": found}}}})
    assert "broken              durable: 0 of 4 results; LastError: no such thing" in text


def has_ended(pid: int) -> bool:
    """Whether a process has ended; its new parent may not have asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    # The child leaves the process group and ignores SIGTERM.
    child = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.setsid(); print(1); time.sleep(600)"
    )
    program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-uc', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    ran = processes.run([sys.executable, "-c", program], tmp_path, dict(os.environ), 5.0, with_memory=True)
    assert ran.is_late
    assert ran.peak_bytes > 0
    [pid] = (tmp_path / "out").read_text().split()
    wait_for(lambda: has_ended(int(pid)))


def test_utilisation_leaves_out_the_start_of_workers_and_their_last_trials():
    log = Log()
    # Worker 1 runs from 0 to 4 with a gap of a second, worker 2 from 1 to 3.
    for x, pid, begin, end in ((0, 1, 0.0, 1.0), (1, 1, 2.0, 4.0), (2, 2, 1.0, 2.0), (3, 2, 2.0, 3.0)):
        log.events.setdefault("begin", []).append((x, begin, pid))
        log.events.setdefault("end", []).append((x, end, pid))
    between, whole = utilisation(log, 2)
    assert between == pytest.approx(3 / 4)
    assert whole == pytest.approx(5 / 8)
    # Worker 3 begins when worker 1 has ended.
    late = Log({"begin": [(0, 0.0, 1), (1, 2.0, 3)], "end": [(0, 1.0, 1), (1, 4.0, 3)]})
    assert utilisation(late, 2) == (3 / 8, 3 / 8)
    assert utilisation(Log(), 2) == pytest.approx((float("nan"),) * 2, nan_ok=True)


def test_ratios_say_how_many_times_better_whatever_is_better():
    text = output.tables({"peers": ROWS}).splitlines()
    [better] = [line for line in text if line.startswith("other")][1:]
    assert better.split() == ["other", "0.50", "2.00"]
