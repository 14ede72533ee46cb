"""The program at its edge: what a user can do wrong beside the sweep file, and what the machine can deny."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from waiting import PATIENCE_S

from mpisweep.batch.chain import Submitted, note
from mpisweep.cli import main

TOO_LONG = "x" * 300 + ".h5"
LOOKERS = ["top", "status", "report", "export", "repair", "stop"]


@pytest.mark.parametrize("command", LOOKERS)
@pytest.mark.parametrize("name", [".", "/", ""])
def test_what_is_no_name_of_a_file_is_refused(command: str, name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([command, name])
    assert left.value.code == 2
    assert f"{name!r} is not the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", LOOKERS)
@pytest.mark.parametrize(("name", "words"), [(TOO_LONG, "File name too long"), ("a-file/x.h5", "no such results file")])
def test_what_the_file_system_denies_is_told_in_one_sentence(
    command: str, name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    assert main([command, name]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpisweep: ")
    assert said.count("\n") == 1
    assert words in said


def test_a_results_file_that_cannot_be_is_refused_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "resnet50", "-o", TOO_LONG]) == 2
    assert capsys.readouterr().err == f"mpisweep: {TOO_LONG}: cannot be used: File name too long; -o names another place for the results\n"


def test_what_a_run_is_told_in_a_job_is_said_when_the_script_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(folder)
    job = ["jobscript", "resnet50", "--site", "slurm", "--gpus", "4", "--elapse", "1:00:00"]
    assert main([*job, "--split", "3", "--master", "idle", "--stage-env"]) == 0
    assert 'mpisweep run resnet50 --master idle --stage-env -o "$results" --split 3 &' in capsys.readouterr().out


def test_containers_need_a_site_that_says_how_ranks_are_started(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(folder)
    Path("mine.toml").write_text('system = "slurm"\ngpus_per_node = 4\n')
    job = ["jobscript", "resnet50", "--site", "./mine.toml", "--elapse", "1:00:00", "--container", "image.sif"]
    assert main(job) == 2
    assert "--container: the file of site mine does not say how ranks are started outside of it" in capsys.readouterr().err
    assert main([*job, "--gpus", "1"]) == 0


@pytest.mark.parametrize("arguments", [
    ["jobscript", "resnet50", "--site", "slurm", "--gpus", "4", "--elapse", "1:00:00"],
    ["check", "resnet50"],
])  # fmt: skip
def test_a_disk_that_does_not_take_what_is_printed_is_told_in_one_sentence(folder: Path, environment: dict[str, str], arguments: list[str]):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mpisweep", *arguments], cwd=folder, env=environment | {"PYTHONUNBUFFERED": ""},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "mpisweep: what is printed cannot be written: No space left on device"
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_a_command_without_a_traceback(folder: Path, environment: dict[str, str]):
    (folder / "slow.py").write_text("import pathlib, time\npathlib.Path('imported').touch()\ntime.sleep(1000)\n")
    command = [sys.executable, "-m", "mpisweep", "check", "slow:train", "-p", "x=1:3"]
    # Who starts tests in the background has their shell ignore the signal, and that is inherited.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as looking:
        while not (folder / "imported").exists():
            time.sleep(0.01)
        looking.send_signal(signal.SIGINT)
        _, said = looking.communicate(timeout=PATIENCE_S)
    assert (looking.returncode, said) == (130, "")


def test_who_has_no_name_and_no_home_folder_can_write_and_ask_all_the_same(
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
    assert main(["jobscript", "resnet50", "-p", "batch_size=1:3", "--site", "slurm", "--gpus", "4", "--elapse", "1:00:00"]) == 0
    note(folder / "r.h5", [Submitted("42", "slurm", "job.sh", "/", 1.0)])
    assert main(["status", "r.h5"]) == 0
    assert "Slurm job 42: running (RUNNING)" in capsys.readouterr().out
