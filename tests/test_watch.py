"""Watching a sweep from its files, while it runs, after its end and after its run has died."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from test_results import SPEC, curve, opening, write_journal

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    EndedBlock,
    JoinedRecord,
    QuarantineRecord,
    ReportBlock,
    TrialsBlock,
)
from mpisweep.cli import main
from mpisweep.master.joining import join
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim
from mpisweep.results.compaction import compact_and_close
from mpisweep.results.shares.folder import SharedSweep, create_shares, members, part_file, take_lease
from mpisweep.results.shares.leases import Lease
from mpisweep.results.storing import read_here
from mpisweep.spec import parse_spec
from mpisweep.views.changes import change_times
from mpisweep.views.running import look_at
from mpisweep.views.status import GONE, sweep_status
from mpisweep.views.watch import watch_lines

HERE = cast(Snapshotter, SimpleNamespace(read=read_here))


#: Claims of the running sweeps; a claim without a reference would be released.
claims: list[Claim] = []


def running_sweep(path: Path, *more: object) -> Path:
    """A sweep on two slots: the first has ended trial 3, runs 2 and has 0 next; the second runs 1."""
    records: list[object] = [
        TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=None),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
        JoinedRecord(1, "node2", "cpu 0", 1, 1, 1000.5),
        AssignedBlock([[0, 0]], 1001.0, [3, 2, 0], [1, 1, 1], {"x": [4, 3, 1], "mode": "fast"}),
        AssignedBlock([[1, 0]], 1002.0, [1], [1], {"x": 2, "mode": "fast"}),
        EndedBlock(0, 0, [3], [1], [2], [1001.0], [4.0], {"loss": [1.5]}),
        ReportBlock(0, 2, 1, {"loss": curve(3.0, 2.0)}),
        *more,
    ]
    write_journal(path, records, opening())
    # Held by this process, which is alive.
    claims.append(Claim.take(journal_folder(path), ""))
    return path


def test_running_trials_are_shown_with_worker_start_and_progress(tmp_path):
    watched = look_at(mpisweep.load(running_sweep(tmp_path / "s.h5")), now=1010.0)
    assert [
        (trial.number, trial.parameters, trial.worker, trial.since, trial.last, trial.reported_at)
        for trial in watched.running
    ] == [
        (1, {"x": 2}, 1, 1002.0, None, None),
        (2, {"x": 3}, 0, 1005.0, (1, 2.0), 1005.1),
    ]
    progress = watched.progress
    assert (progress.total, progress.ended, progress.running, progress.best, progress.best_parameters) == (
        4,
        1,
        2,
        1.5,
        {"x": 4},
    )
    assert progress.rate == pytest.approx(0.1)
    assert progress.left_s == pytest.approx(30.0)


def test_status_and_watch_agree_on_what_runs(tmp_path, capsys):
    path = running_sweep(tmp_path / "s.h5")
    sweep = mpisweep.load(path)
    status, watched = sweep_status(sweep), look_at(sweep, now=1010.0)
    assert (status.running, status.waiting) == (2, 1)
    assert watched.progress.running == len(watched.running) == status.running
    # After the process has ended, its trials wait for the next run, and watch shows it at once.
    claims.pop().release()
    watched = look_at(mpisweep.load(path), now=1010.0)
    assert (watched.state, watched.progress.running, watched.running) == (GONE, 0, ())
    assert watch_lines(path, every_s=60.0, out=io.StringIO()) == 3
    assert "the last run died without closing" in capsys.readouterr().out


def part_of_a_sweep(path: Path, member: str, first: int) -> None:
    """The part of a member that began at 1000 and ended one trial at 1005; another one runs."""
    records: list[object] = [
        TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=None),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
        AssignedBlock(
            [[0, 0]], 1001.0, [first, first + 1], [1, 1], {"x": [first + 1, first + 2], "mode": "fast"}
        ),
        EndedBlock(0, 0, [first], [1], [2], [1001.0], [4.0], {"loss": [1.5]}),
        QuarantineRecord(0, 1006.0, "slow"),
    ]
    write_journal(part_file(shares_folder(path), member), records, opening(member))


def split_sweep(path: Path) -> Path:
    """A split sweep with two active members."""
    shared = SharedSweep(SPEC, "sweep.toml", 2, 4, "", [[0, 1], [2, 3]])
    assert create_shares(shares_folder(path), shared, path)
    for chunk, member in enumerate(("20260101T000000-aaaaaa", "20260101T000001-bbbbbb")):
        numbers = tuple(shared.chunks[chunk])
        assert take_lease(shares_folder(path), Lease(chunk, 1, member, numbers, (0, 0), (0, 0)))
        part_of_a_sweep(path, member, numbers[0])
    return path


def test_all_members_of_a_split_sweep_are_shown(tmp_path):
    path = split_sweep(tmp_path / "s.h5")
    held = [
        Claim.take(journal_folder(part_file(shares_folder(path), member)), "")
        for member in members(shares_folder(path))
    ]
    assert len(held) == 2
    sweep = mpisweep.load(path)
    watched = look_at(sweep, now=1010.0)
    assert [trial.number for trial in watched.running] == [1, 3]
    assert sweep_status(sweep).workers == 2, "both have a rank 0 on node1"
    assert sweep_status(sweep).quarantined == ("cpu 0 on node1 (rank 0): slow",) * 2
    assert (watched.progress.ended, watched.progress.rate) == (2, pytest.approx(0.2))


def test_a_split_sweep_without_any_records_is_not_complete(tmp_path):
    path = tmp_path / "not" / "there" / "s.h5"
    join(
        parse_spec(SPEC, source="sweep.toml", folder=tmp_path),
        path,
        2,
        HERE,
        job_id="",
        member="m",
        has_begun=False,
        read_imports=lambda: pytest.fail("the sweep imports nothing"),
    )
    status = sweep_status(mpisweep.load(path))
    assert (status.state, status.trials, status.waiting) == ("running", 4, 4)
    assert main(["repair", str(path)]) == 0
    assert list(path.parent.iterdir()) == []


def test_a_part_without_any_data_does_not_prevent_the_repair_of_the_others(tmp_path, capsys):
    path = split_sweep(tmp_path / "s.h5")
    lost, _ = (part_file(shares_folder(path), member) for member in members(shares_folder(path)))
    compact_and_close(lost)
    lost.write_bytes(b"nothing")
    with pytest.raises(ResultsError, match="mpisweep repair"):
        mpisweep.load(path)
    assert main(["repair", str(path)]) == 0
    assert f"{lost.name}/ could not be read" in capsys.readouterr().out
    assert mpisweep.load(path).trials["state"].tolist() == ["waiting", "waiting", "complete", "running"]
    assert [kept.read_bytes() for kept in tmp_path.glob("s.h5.damaged/*/*.h5")] == [b"nothing"]
    assert not shares_folder(path).exists()


def test_a_split_sweep_is_gone_when_all_members_are_gone(tmp_path):
    path = split_sweep(tmp_path / "s.h5")
    assert sweep_status(mpisweep.load(path)).state == GONE
    claim = Claim.take(journal_folder(part_file(shares_folder(path), "20260101T000000-aaaaaa")), "")
    assert sweep_status(mpisweep.load(path)).state == "running"
    claim.release()


def test_a_split_sweep_is_alive_while_a_member_is(tmp_path):
    path = split_sweep(tmp_path / "s.h5")
    before = change_times(path)
    journal = journal_folder(part_file(shares_folder(path), "20260101T000000-aaaaaa"))
    os.utime(next(journal.iterdir()), (1.0, 1.0))
    assert change_times(path) != before


def test_an_ended_run_is_shown_with_its_exit_code(tmp_path, capsys):
    path = running_sweep(tmp_path / "s.h5", ClosedRecord(1010.0, "stopped by a signal"))
    lines = io.StringIO()
    assert watch_lines(path, every_s=0.01, out=lines) == 3
    assert lines.getvalue() == "sweep: 1/4 trials, 0 running, 6.0/min, 30 s left, best loss 1.5 (x=4)\n"
    assert "1 of 4 trials have ended" in capsys.readouterr().out


def test_a_run_whose_files_stop_changing_is_gone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mpisweep.views.watch.SILENCE_S", 0.05)
    assert watch_lines(running_sweep(tmp_path / "s.h5"), every_s=0.01, out=io.StringIO()) == 3
    assert "no active run; run the same command to resume" in capsys.readouterr().out


def test_files_that_cannot_be_read_for_a_moment_do_not_end_the_watch(tmp_path, monkeypatch):
    path = running_sweep(tmp_path / "s.h5")
    reads: list[Path] = []

    def unsteady(asked: Path) -> mpisweep.results.load.Sweep:
        reads.append(asked)
        if len(reads) == 2:
            raise ResultsError(f"{asked}: cannot be read")
        if len(reads) == 3:
            claims.pop().release()
        return mpisweep.load(asked)

    monkeypatch.setattr("mpisweep.views.watch.load", unsteady)
    assert watch_lines(path, every_s=0.01, out=io.StringIO()) == 3
    assert len(reads) == 3
    with pytest.raises(ResultsError, match="no such results file"):
        watch_lines(tmp_path / "none.h5", every_s=0.01, out=io.StringIO())


def test_a_sweep_is_watched_from_its_beginning_to_its_end(folder, environment):
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "mpisweep", *arguments]

    run = subprocess.Popen(
        command("run", "workloads:gated", "-p", "x=1:3", "-n", "1", "-o", "r.h5", "-q"),
        cwd=folder,
        env=environment,
    )
    while not list(folder.glob("begun.*")):
        assert run.poll() is None
    with subprocess.Popen(
        command("watch", "r.h5", "--every", "0.05"),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "workloads-gated-x: 0/3 trials, 1 running\n"
        (folder / "go").touch()
        rest = watching.stdout.read()
    assert watching.returncode == 0
    assert "3 of 3 trials have ended" in rest
    assert run.wait() == 0
