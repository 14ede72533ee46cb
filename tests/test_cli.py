"""The command line: errors of users outside the sweep file, and errors of the machine."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from waiting import PATIENCE_S, wait_for

from mpisweep.batch.chain import Submitted, note
from mpisweep.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]
GPU = "GPU 0: NVIDIA H200 (UUID: GPU-02345678-1234-1234-1234-123456789012)"
TOO_LONG = "x" * 300 + ".h5"
LOOKERS = ["top", "status", "report", "export", "repair", "stop"]


@pytest.mark.parametrize("command", LOOKERS)
@pytest.mark.parametrize("name", [".", "/", ""])
def test_an_invalid_file_name_is_refused(command: str, name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([command, name])
    assert left.value.code == 2
    assert f"{name!r} is not a file name" in capsys.readouterr().err


@pytest.mark.parametrize("command", LOOKERS)
@pytest.mark.parametrize(
    ("name", "words"), [(TOO_LONG, "File name too long"), ("a-file/x.h5", "no such results file")]
)
def test_a_file_system_error_is_reported_in_one_sentence(
    command: str,
    name: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    assert main([command, name]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpisweep: ")
    assert said.count("\n") == 1
    assert words in said


def test_an_impossible_results_file_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "resnet50", "-o", TOO_LONG]) == 2
    assert (
        capsys.readouterr().err
        == f"mpisweep: {TOO_LONG}: cannot be used: File name too long; set -o to another "
        "file\n"
    )


def test_options_of_the_run_are_written_into_the_job_script(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder)
    job = ["jobscript", "resnet50", "--site", "slurm", "--gpus", "4", "--elapse", "1:00:00"]
    assert main([*job, "--split", "3", "--master", "idle", "--stage-env"]) == 0
    assert (
        'mpisweep run resnet50 --master idle --stage-env -o "$results" --split 3 &' in capsys.readouterr().out
    )


def test_containers_need_a_site_that_says_how_ranks_are_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder)
    Path("mine.toml").write_text('system = "slurm"\ngpus_per_node = 4\n')
    job = [
        "jobscript",
        "resnet50",
        "--site",
        "./mine.toml",
        "--elapse",
        "1:00:00",
        "--container",
        "image.sif",
    ]
    assert main(job) == 2
    assert "--container: the site file of mine does not set how to start ranks" in capsys.readouterr().err
    assert main([*job, "--gpus", "1"]) == 0


@pytest.mark.parametrize("arguments", [
    ["jobscript", "resnet50", "--site", "slurm", "--gpus", "4", "--elapse", "1:00:00"],
    ["check", "resnet50"],
])  # fmt: skip
def test_standard_output_on_a_full_disk_is_reported_in_one_sentence(
    folder: Path, environment: dict[str, str], arguments: list[str]
):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mpisweep", *arguments],
            cwd=folder,
            env=environment | {"PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1] == "mpisweep: standard output cannot be written: No space left on device"
    )
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_a_command_without_a_traceback(folder: Path, environment: dict[str, str]):
    (folder / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('imported').touch()\ntime.sleep(1000)\n"
    )
    command = [sys.executable, "-m", "mpisweep", "check", "slow:train", "-p", "x=1:3"]
    # A shell that runs the tests in the background ignores the signal, and the child would inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as looking:
        wait_for((folder / "imported").exists)
        looking.send_signal(signal.SIGINT)
        _, said = looking.communicate(timeout=PATIENCE_S)
    assert (looking.returncode, said) == (130, "")


def test_a_user_without_name_and_home_folder_can_write_scripts_and_ask_for_the_status(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    (folder / "squeue").write_text(f'#!/bin/sh\n[ "$3" = {os.getuid()} ] && echo "42 RUNNING None"\n')
    (folder / "squeue").chmod(0o755)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.chdir(folder)
    assert (
        main(
            [
                "jobscript",
                "resnet50",
                "-p",
                "batch_size=1:3",
                "--site",
                "slurm",
                "--gpus",
                "4",
                "--elapse",
                "1:00:00",
            ]
        )
        == 0
    )
    note(folder / "r.h5", [Submitted("42", "slurm", "job.sh", "/", 1.0)])
    assert main(["status", "r.h5"]) == 0
    assert "Slurm job 42: running (RUNNING)" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ help and listings


def test_the_program_alone_prints_its_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: mpisweep [-h] [--version] COMMAND ...")
    assert printed.err == ""
    with pytest.raises(SystemExit) as asked:
        main(["--help"])
    assert (asked.value.code, capsys.readouterr().out) == (0, printed.out)


def test_commands_for_job_scripts_are_hidden_from_the_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([]) == 0
    assert "chain" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["chian"])
    assert "'chain'" not in capsys.readouterr().err
    # Existing job scripts still call it.
    assert main(["chain", str(tmp_path / "r.h5")]) == 0


def test_sites_are_listed_with_their_system_title_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "mpisweep" / "sites"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('title = "our cluster"\nsystem = "slurm"\n')
    (own / "wrong.toml").write_text('system = "slurm"\nmodules = 3\n')
    assert main(["sites"]) == 0
    lines = [line.strip().split(maxsplit=5) for line in capsys.readouterr().out.splitlines()]
    rows = {words[0]: words[1:] for words in lines if len(words) > 2}
    assert {"flow-cx", "fugaku", "genkai", "pjm", "slurm", "pbs", "workstation"} < set(rows)
    assert rows["fugaku"] == ["PJM", "0", "?", "small", "Fugaku (RIKEN)"]
    assert rows["mine"] == ["Slurm", "?", "?", "-", f"our cluster ({own / 'mine.toml'})"]
    assert "modules: found 3" in " ".join(rows["wrong"])


# ---------------------------------------------------------------------------------------- refused runs


@pytest.mark.parametrize("command", [
    ["run", "--walltime", "8"], ["check", "--walltime", "8"], ["jobscript", "--site", "flow-cx", "--elapse", "8"],
    ["submit", "--site", "flow-cx", "--elapse", "8"],
])  # fmt: skip
@pytest.mark.parametrize(
    ("sweep", "remedy"),
    [
        (["s.toml"], "use at least 11 s, or a smaller limits.grace"),
        (["m:f", "-p", "x=1:3"], "use at least 11 s"),
    ],
)
def test_a_time_in_which_no_trial_could_run_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    sweep: list[str],
    remedy: str,
):
    monkeypatch.chdir(folder)
    (folder / "m.py").write_text("def f(trial): return 1.0\n")
    (folder / "s.toml").write_text('workload = "m:f"\n[parameters]\nx = [1, 2]\n')
    assert main([command[0], *sweep, *command[1:]]) == 2
    flag = next(word for word in command if word in ("--walltime", "--elapse"))
    assert capsys.readouterr().err == (
        f"mpisweep: {flag}: 8 s leaves no time for trials: running trials get 10 s to return (the grace), and closing takes 0.4 s; {remedy}\n"
    )
    assert not list(folder.glob("*.h5*"))


def on_one_gpu(folder: Path, environment: dict[str, str]) -> None:
    """Make the driver report exactly one GPU."""
    tool = folder / "bin"
    tool.mkdir()
    (tool / "nvidia-smi").write_text(f"#!/bin/sh\necho '{GPU}'\n")
    (tool / "nvidia-smi").chmod(0o755)
    environment["PATH"] = f"{tool}:{environment['PATH']}"
    environment.pop("CUDA_VISIBLE_DEVICES", None)


#: Printed by mpirun when ranks return a nonzero code; under mpirun called by hand it cannot be suppressed.
COMPLAINT = re.compile(
    r"-+\nprterun detected that one or more processes exited with non-zero status,\nthus causing the job to be terminated\. "
    r"The first process to do so was:\n\n   Process name: \[.*\]\n   Exit code:    2\n-+\n"
)


@pytest.mark.mpi
@pytest.mark.parametrize(("arguments", "sentence"), [
    # torch takes seconds to import: a rank that imports it must not delay the others.
    (["run", "resnet50", "-p", "batch_size=1:2", "--master", "works"], "has 1 GPU and 2 workers; start up "
                                                                       "to 1 rank there"),
    (["check", "resnet50", "-p", "batch_size=1:2", "--devices", "--master", "works"], "has 1 GPU and 2 "
                                                                                      "workers; start up "
                                                                                      "to 1 rank there"),
    (["run", "workloads:half", "-p", "x=7:1"], "'from' is 7 and 'to' is 1; 'from' must not exceed 'to'"),
    (["run", "workloads:none", "-p", "x=1:7"], "has no function 'none'"),
    (["run", "workloads:half", "-p", "x=1:7", "--walltime", "8"], "leaves no time for trials"),
    (["run", "workloads:half", "-p", "x=1:7", "--wall", "soon"], "'soon' is not a valid duration"),
    (["rnu"], "there is no command 'rnu'"),
])  # fmt: skip
def test_an_error_on_all_ranks_is_reported_once_in_one_sentence(
    folder: Path, environment: dict[str, str], mpisweep: Run, arguments: list[str], sentence: str
):
    on_one_gpu(folder, environment)
    done = mpisweep(*arguments, ranks=2)
    assert done.returncode == 2, done.stderr
    ours = COMPLAINT.sub("", done.stderr)
    assert "\0" not in ours
    assert len(ours.splitlines()) == 1, done.stderr
    [said] = ours.splitlines()
    assert sentence in said
    assert not list(folder.glob("*.h5*"))


@pytest.mark.mpi
def test_more_workers_than_gpus_are_refused_before_any_rank_starts(
    folder: Path, environment: dict[str, str], mpisweep: Run
):
    on_one_gpu(folder, environment)
    done = mpisweep("run", "resnet50", "-p", "batch_size=1:2", "-n", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"mpisweep: \S+ has 1 GPU and 2 workers; start up to 1 rank there, .*\n", done.stderr)


@pytest.mark.mpi
def test_an_error_that_only_ranks_can_detect_is_reported_once_under_the_launcher(
    folder: Path, environment: dict[str, str], mpisweep: Run
):
    """A results file of another sweep: the ranks report it, and the launcher adds nothing."""
    assert mpisweep("run", "workloads:half", "-p", "x=1:3", "-n", "1", "-o", "r.h5").returncode == 0
    done = mpisweep("run", "workloads:seeded", "-p", "x=1:3", "-n", "2", "-o", "r.h5")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d r\.h5: was made from another sweep:\n"
        r"  workload: the results file has 'workloads:half', command line has 'workloads:seeded'\n"
        r"use another file \(-o\), or --fresh to move this one aside and start over\n",
        done.stderr,
    ), done.stderr


def test_the_demo_starts_one_worker_per_gpu(folder: Path, environment: dict[str, str]):
    """One GPU, one worker: the commands of `make demo` as a dry run."""
    on_one_gpu(folder, environment)
    makefile = Path(__file__).parent.parent / "Makefile"
    shown = subprocess.run(
        ["make", "-n", "-f", makefile, "VENV=none", "demo"],
        cwd=makefile.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    run = next(line for line in shown.splitlines() if " -m mpisweep run " in line)
    words = shlex.split(run)
    planned = subprocess.run(
        [sys.executable, *words[1:], "--dry-run", "-o", folder / "digits.h5"],
        cwd=makefile.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert "ranks       1, without MPI" in planned.stdout


# ---------------------------------------------------------------------------------------------- host names


def test_a_host_is_named_in_one_way_only():
    """Only one function asks the system for the host name.

    Code that asks on its own gets names that tests cannot fake and that differ from those of the ranks.
    """
    package = Path(__file__).parent.parent / "mpisweep"
    asking = [
        f"{path.relative_to(package)}:{number}" for path in sorted(package.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"gethostname|getfqdn|uname\(\)|platform\.node", line)
    ]  # fmt: skip
    # One returns the name of this host, the other an address for other hosts to connect to.
    assert [place.partition(":")[0] for place in asking] == ["processes/kernel.py", "workloads/rendezvous.py"]
