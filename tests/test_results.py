"""Journal, replay, the HDF5 file and reading: the guarantees for results, without MPI."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE_S, wait_for

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    BlockError,
    ClosedRecord,
    Curve,
    EndedBlock,
    JoinedRecord,
    LeftRecord,
    ReportBlock,
    RunRecord,
    TrialsBlock,
    UnfinishedBlock,
    decode,
    encode,
)
from mpisweep.cli import main
from mpisweep.master.known import known_trials
from mpisweep.processes.kernel import this_host
from mpisweep.progress import progress_line
from mpisweep.records import AttemptEnd, EndReason
from mpisweep.results import ResultsError, claim, compaction, journal_folder
from mpisweep.results import holder as holder_module
from mpisweep.results.claim import Claim, FollowedError, RunOverError, remove_through, token_of
from mpisweep.results.columns import COLUMNS
from mpisweep.results.compaction import compact, compact_and_close
from mpisweep.results.file import reading, salvage
from mpisweep.results.file.salvage import salvage_file
from mpisweep.results.holder import ClaimedError, claim_file
from mpisweep.results.journal.reader import Damage, read_journal, read_segment
from mpisweep.results.journal.segments import frame, segments
from mpisweep.results.journal.writer import Journal
from mpisweep.results.merged import read_merged
from mpisweep.results.repair import repair
from mpisweep.spec import parse_spec
from mpisweep.views import status, tables
from mpisweep.views.figures import curves as figure_curves
from mpisweep.views.running import look_at

SPEC = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 4 }\n[fixed]\nmode = "fast"\n[baseline]\nx = 2\n'
NAN = float("nan")


def opening(run: str = "20260101T000000-aaaaaa", spec: str = SPEC) -> RunRecord:
    return RunRecord(
        run, 0, "node1", 1, 1000.0, 2, "local", "", ["mpisweep"], "0", spec, "sweep.toml", {"python": "3"}
    )


def curve(*values: float) -> Curve:
    return Curve(
        array("q", range(len(values))), array("d", values), array("d", [0.1 * i for i in range(len(values))])
    )


def history() -> list[object]:
    """All records of a small sweep in which one trial fails and one is tried twice."""
    return [
        TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=1),
        JoinedRecord(1, "node1", "cpu 0", 1, 1, 1001.0),
        JoinedRecord(2, "node2", "cpu 0", 1, 1, 1001.0),
        AssignedBlock([[1, 0]], 1002.0, [3, 2], [1, 1], {"x": [4, 3], "mode": "fast"}),
        AssignedBlock([[2, 0]], 1002.0, [1], [1], {"x": 2, "mode": "fast"}),
        ReportBlock(1, 3, 1, {"loss": curve(3.0, 2.0)}),
        ReportBlock(1, 3, 1, {"loss": curve(1.0)}, 1),
        EndedBlock(1, 0, [3], [1], [2], [1002.0], [2.0], {"loss": [1.0]}),
        ReportBlock(2, 1, 1, {"loss": curve(9.0, 9.0)}),
        UnfinishedBlock(2, [1], [1], int(AttemptEnd.LOST), 1005.0),
        AssignedBlock([[1, 0]], 1006.0, [1, 0], [2, 1], {"x": [2, 1], "mode": "fast"}),
        ReportBlock(1, 1, 2, {"loss": curve(5.0, 4.0)}),
        EndedBlock(
            1,
            0,
            [2, 1],
            [1, 2],
            [4, 2],
            [1004.0, 1006.0],
            [1.0, 3.0],
            {"loss": [None, 4.0]},
            [1, 0],
            ["ValueError: ü", ""],
        ),
        EndedBlock(2, 0, [1], [1], [2], [1002.0], [9.0], {"loss": [9.0]}),
        EndedBlock(1, 0, [0], [1], [2], [1009.0], [1.0], {"loss": [NAN]}),
        ClosedRecord(1010.0, EndReason.COMPLETE.value),
    ]


def write_journal(path: Path, records: list[object], run: RunRecord | None = None) -> Journal:
    folder = journal_folder(path)
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as token:
        journal = Journal(folder, run or opening(), Path(token))
        journal.start()
        for record in records:
            journal.append(encode(record))
        journal.close()
        journal.join()
    return journal


def facts(path: Path) -> dict[str, object]:
    """Everything a reader can see, in a comparable form."""
    sweep = mpisweep.load(path)
    table = sweep.trials.array
    return {
        "trials": [[repr(v) for v in row.tolist()] for row in table],
        "columns": table.dtype.names,
        "attempts": repr(sweep.attempts),
        "workers": repr(sweep.workers),
        "allocations": repr(sweep.allocations),
        "curves": [sweep.curve(n, "loss").value.tolist() for n in range(len(table))]
        if sweep.curve_names
        else [],
        "state": sweep.state,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.h5"


# ------------------------------------------------------------------------------------- blocks


def test_a_record_is_the_same_after_encoding_and_decoding():
    for record in history()[:-2]:
        assert decode(encode(record)) == record


@given(
    st.binary(max_size=60)
    | st.dictionaries(st.text(max_size=4), st.integers(), max_size=3).map(lambda d: json.dumps(d).encode())
)
def test_bytes_that_are_not_a_record_are_refused(body):
    with pytest.raises(BlockError):
        decode(body)


# ------------------------------------------------------------------------------------- journal


def test_synced_records_are_read_in_order(path):
    journal = write_journal(path, history())
    assert journal.synced == len(history())
    entries = list(read_journal(journal_folder(path), {}, []))
    assert [encode(e.record) for e in entries] == [encode(r) for r in [opening(), *history()]]


def test_a_segment_cut_at_any_byte_yields_exactly_the_whole_records_before():
    frames = [frame(encode(record)) for record in [opening(), *history()]]
    data = b"".join(frames)
    ends = np.cumsum([len(f) for f in frames])
    for cut in range(len(data) + 1):
        damages: list[Damage] = []
        found = list(read_segment("s", data[:cut], 0, damages))
        assert len(found) == int((ends <= cut).sum())
        assert damages == []


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_loses_only_its_record(data):
    records = [opening(), *history()]
    bodies = [encode(record) for record in records]
    whole = bytearray(b"".join(map(frame, bodies)))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << (bit % 8)
    found = [encode(e.record) for e in read_segment("s", bytes(whole), 0, [])]
    assert len(found) >= len(bodies) - 1
    assert all(body in bodies for body in found)


def test_damage_in_the_middle_is_reported():
    frames = [frame(encode(record)) for record in [opening(), *history()]]
    whole = frames[0] + frames[1] + b"\0" * 50 + b"".join(frames[2:])
    damages: list[Damage] = []
    assert len(list(read_segment("s", whole, 0, damages))) == len(frames)
    assert damages == [Damage("s", len(frames[0]) + len(frames[1]), 50)]


def test_a_disk_that_is_full_for_a_while_loses_no_record(path):
    """With a real limit on file sizes the segment is abandoned and all unsynced records are rewritten."""
    program = f"""
import os, resource, signal, sys, time
sys.path.insert(0, {os.fspath(Path(__file__).parent)!r})
from test_results import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = journal_folder(Path({os.fspath(path)!r})); folder.mkdir()
token = folder / "token"; token.mkdir()
journal = Journal(folder, opening(), token); journal.start()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for record in history(): journal.append(encode(record))
while journal.failure is None:
    assert len(os.listdir(folder)) < 3, "it goes on failing and does not say so"
    time.sleep(0.001)
assert journal.synced == 0, journal.synced
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
while journal.synced < len(history()): time.sleep(0.001)
assert journal.failure is None
journal.close(); journal.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)
    state = read_merged(path)
    assert state.trials["state"] == [2, 2, 4, 2]
    assert len(segments(journal_folder(path))) > 1


@pytest.mark.parametrize("others", ["nothing", "the results file"])
def test_nothing_is_acknowledged_that_was_written_to_a_deleted_sweep(tmp_path, others):
    """Unless a later run has deleted the segment: then the claim says that this run is over."""
    path = tmp_path / "place" / "s.h5"
    folder = journal_folder(path)
    folder.mkdir(parents=True)
    token = folder / "token"
    token.mkdir()
    journal = Journal(folder, opening(), token)
    journal.start()
    first, *later = map(encode, history())
    journal.append(first)
    wait_for(lambda: journal.synced == 1)
    shutil.rmtree(folder)
    if others != "nothing":
        path.touch()
    for body in later:
        journal.append(body)
    if others == "nothing":
        wait_for(lambda: journal.is_deleted)
        assert journal.synced == 1
        assert isinstance(journal.failure, FileNotFoundError)
    else:
        wait_for(lambda: journal.synced == 1 + len(later))
        assert not journal.is_deleted
    journal.abandon()
    journal.join()


# ------------------------------------------------------------------------------------- replay and file


def test_a_sweep_is_read_from_the_journal_alone(path):
    write_journal(path, history())
    sweep = mpisweep.load(path)
    assert sweep.trials["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert sweep.trials["attempt"].tolist() == [1, 2, 1, 1]
    assert sweep.trials["host"].tolist() == ["node1"] * 4
    assert sweep.trials["message"][2] == "ValueError: ü"
    assert sweep.curve(1, "loss").value.tolist() == [5.0, 4.0]
    assert sweep.curve(3, "loss").value.tolist() == [3.0, 2.0, 1.0]
    assert sweep.curve(0, "loss").value.tolist() == []
    assert sweep.best(2)["number"].tolist() == [3, 1]
    assert sweep.best(9)["number"].tolist() == [3, 1, 0]
    assert sweep.baseline["number"] == 1
    assert sweep.parameters == ("x", "mode")
    assert sweep.workers["trials_done"].tolist() == [4, 0]
    assert sweep.attempts["end"].tolist() == ["ended", "ended", "lost", "ended", "ended"]
    assert sweep.allocations["end"].tolist() == ["complete"]


@pytest.mark.parametrize("cut", range(len(history()) + 1))
def test_compacting_at_any_moment_changes_nothing(path, cut):
    write_journal(path, history())
    whole = facts(path)
    shutil.rmtree(journal_folder(path))
    records = history()
    write_journal(path, records[:cut])
    compact(path)
    before = facts(path)
    compact(path)
    assert facts(path) == before
    # The same run writes the other records to its next segment.
    write_journal(path, records[cut:])
    assert facts(path) == whole
    compact_and_close(path)
    assert os.listdir(journal_folder(path)) == []
    assert facts(path) == whole


def closing_in(path: Path) -> list[float]:
    return mpisweep.load(path).allocations["closing_time"].tolist()


def test_the_last_compaction_keeps_segments_of_a_later_master_and_segments_that_grew(path, monkeypatch):
    """A master is superseded while it writes its last snapshot."""
    folder = journal_folder(path)
    write_journal(path, history())
    write_journal(path, history()[:3], replace(opening(), epoch=1))
    own, later = segments(folder)
    token = token_of(folder, opening().run, 0)
    token.mkdir()
    compact_and_close(path, token)
    assert segments(folder) == [later]
    write_journal(path, history()[:3])
    write_file = compaction.write_file

    def write_and_append(*arguments: object, **more: object) -> int:
        with (folder / own).open("ab") as segment:
            segment.write(b"x")
        return write_file(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "write_file", write_and_append)
    compact_and_close(path, token)
    assert segments(folder) == [own, later]


def test_a_fenced_master_neither_replaces_the_file_nor_removes_a_segment(path):
    write_journal(path, history())
    token = token_of(journal_folder(path), opening().run, 0)
    with pytest.raises(FileNotFoundError):
        compact_and_close(path, token)
    assert not path.exists()
    assert len(segments(journal_folder(path))) == 1


def test_the_closing_time_is_in_the_file_that_closing_wrote(path):
    write_journal(path, history())
    assert math.isnan(closing_in(path)[0]), "it is not over"
    compact(path)
    assert math.isnan(closing_in(path)[0]), "nor does any snapshot end it"
    compact_and_close(path, closing_since=time.time() - 100)
    # Loading the file also verifies its checksum.
    assert closing_in(path)[0] == pytest.approx(100, abs=30)
    write_journal(path, history()[-1:], opening("20990102T000000-bbbbbb"))
    compact_and_close(path, closing_since=time.time() - 1000)
    first, second = closing_in(path)
    assert first == pytest.approx(100, abs=30)
    assert second == pytest.approx(1000, abs=30)


def test_a_file_of_an_earlier_version_without_a_column_is_read_and_resumed(path):
    write_journal(path, history())
    compact_and_close(path)
    older = path.with_name("older.h5")
    # Written by another tool, without the checksum.
    with h5py.File(path) as file, h5py.File(older, "w") as copy:
        copy.attrs.update(file.attrs)
        for name in file:
            file.copy(name, copy)
        for name in ("allocations/closing_time", "workers/device_kind", "ranks"):
            del copy[name]
    assert facts(older) == facts(path)
    assert mpisweep.load(older).ranks.tolist() == []
    assert math.isnan(closing_in(older)[0])
    compact(older)
    with h5py.File(older) as file:
        assert file["allocations/closing_time"].shape == (1,)
        assert file["workers/device_kind"].shape == (2,)
        assert file["ranks/trial"].shape == (0,)


def test_columns_that_an_earlier_version_did_not_write_are_not_reported_lost(path):
    write_journal(path, history())
    compact_and_close(path)
    with h5py.File(path, "r+") as file:
        for name in ("allocations/closing_time", "workers/device_kind", "ranks"):
            del file[name]
        del file["trials/message"]
    lost: list[str] = []
    assert salvage_file(path, lost).count == 4
    assert lost == ["/trials/message"]


@pytest.mark.parametrize(
    "what",
    [
        "workers",
        "workers/allocation",
        "attempts",
        "attempts/trial",
        "ranks/trial",
        "ranks/worker",
        "allocations",
        "allocations/run",
    ],
)
def test_after_the_loss_of_any_table_a_repaired_file_can_be_read_and_resumed(path, what):
    write_journal(
        path, [*history()[:4], AssignedBlock([[1, 0], [2, 0]], 1002.0, [1], [1], {"x": 2, "mode": "fast"})]
    )
    compact_and_close(path)
    with h5py.File(path, "r+") as file:
        del file[what]
    with pytest.raises(ResultsError, match="mpisweep repair"):
        mpisweep.load(path)
    assert all(name.startswith(f"/{what}") for name in repair(path).lost)
    assert len(mpisweep.load(path).trials) == 4
    write_journal(path, history()[-3:-1], opening("20260102T000000-bbbbbb"))
    compact(path)
    assert len(known_trials(parse_spec(SPEC, source="sweep.toml", folder=path.parent), path).held) == 0


def change(path: Path, name: str, data: bytes) -> None:
    """Overwrite the first bytes of a column, like a failing disk."""
    with h5py.File(path) as file:
        at = file[name].id.get_offset()
    with path.open("r+b") as out:
        out.seek(at)
        out.write(data)


@pytest.fixture
def finished(path: Path) -> Path:
    write_journal(path, history())
    compact_and_close(path)
    return path


def test_a_file_with_a_changed_byte_is_repaired_with_a_warning(finished, capsys):
    change(finished, "trials/metrics/loss", b"\1")
    damaged = finished.read_bytes()
    with pytest.raises(ResultsError, match="mpisweep repair"):
        mpisweep.load(finished)
    assert main(["repair", str(finished)]) == 0
    told = capsys.readouterr().out
    assert "differs from what was written" in told
    assert "repaired; 4 of 4" in told
    assert mpisweep.load(finished).state == "complete"
    assert mpisweep.load(finished).environment["python"] == "3"
    assert (finished.parent / "s.h5.damaged" / "s-1.h5").read_bytes() == damaged


@pytest.mark.parametrize("name", ["trials/state", "attempts/end", "curves/loss/offset"])
def test_a_column_with_impossible_values_is_lost_and_the_others_are_kept(finished, name):
    change(finished, name, b"\x63\x63\x63")
    found = repair(finished)
    assert found.lost == (f"/{name}".removesuffix("/offset"),)
    sweep = mpisweep.load(finished)
    assert sweep.trials["x"].tolist() == [1, 2, 3, 4]
    assert sweep.best(1)["loss"].tolist() == ([] if name == "trials/state" else [1.0])


@pytest.mark.parametrize("name", ["trials/parameters", "trials/parameters/x"])
def test_every_command_works_without_lost_parameters(finished, name, capsys):
    with h5py.File(finished, "r+") as file:
        del file[name]
    repair(finished)
    for command in (["top"], ["report"], ["export"], ["status"], ["status", "--json"]):
        assert main([command[0], str(finished), *command[1:]]) == 0
    status = json.loads(capsys.readouterr().out.rpartition("\n{\n")[2].join(["{", ""]))
    assert (status["best"], status["best_parameters"]) == (1.0, {"x": None})


def test_columns_on_which_hdf5_hangs_or_crashes_are_lost_and_the_others_are_kept(finished, monkeypatch):
    usual = salvage.read_column

    def column(dataset, size):
        if dataset.name == "/trials/message":
            threading.Event().wait()
        if dataset.name == "/workers/host":
            os._exit(139)
        return usual(dataset, size)

    change(finished, "trials/metrics/loss", b"\1")
    monkeypatch.setattr("mpisweep.results.repair._TIMEOUT_S", 1.0)
    monkeypatch.setattr(salvage, "read_column", column)
    assert repair(finished).lost == ("/trials/message", "/workers/host")
    monkeypatch.undo()
    assert mpisweep.load(finished).trials["state"].tolist() == ["complete", "complete", "failed", "complete"]


def test_a_lost_sweep_file_is_restored_by_the_next_run(finished):
    with h5py.File(finished, "r+") as file:
        del file.attrs["spec"]
    assert repair(finished).lost == ("/ attribute spec",)
    with pytest.raises(ResultsError, match=r"the sweep file stored in it is lost; run `mpisweep run`"):
        mpisweep.load(finished)
    spec = parse_spec(SPEC, source="sweep.toml", folder=finished.parent)
    assert list(known_trials(spec, finished).states) == [2, 2, 4, 2]
    write_journal(finished, [], opening("20260102T000000-bbbbbb"))
    assert mpisweep.load(finished).best(1)["number"].tolist() == [3]


def test_a_trial_behind_a_rank_of_another_trial_had_not_begun_when_the_run_died(path):
    write_journal(path, [
        TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=1),
        *(JoinedRecord(rank, "node1", "cpu 0", 1, 1, 1001.0) for rank in (0, 1)),
        AssignedBlock([[0, 0], [1, 0]], 1002.0, [3], [1], {"x": 4, "mode": "fast"}),
        AssignedBlock([[1, 0]], 1003.0, [2], [1], {"x": 3, "mode": "fast"}),
    ])  # fmt: skip
    compact_and_close(path)
    write_journal(path, [], opening("20260102T000000-bbbbbb"))
    attempts = mpisweep.load(path).attempts
    assert attempts[["trial", "end"]].tolist() == [(3, "lost"), (2, "reclaimed")]


def test_a_run_that_died_leaves_its_trials_waiting_for_the_next(path):
    write_journal(path, history()[:5])
    assert mpisweep.load(path).trials["state"].tolist() == ["waiting", "running", "running", "running"]
    write_journal(path, [], opening("20260102T000000-bbbbbb"))
    sweep = mpisweep.load(path)
    assert sweep.trials["state"].tolist() == ["waiting"] * 4
    # The first trial of a slot may have run; the one behind it had not begun.
    assert sweep.attempts["end"].tolist() == ["lost", "reclaimed", "lost"]
    assert len(sweep.allocations) == 2


@pytest.mark.parametrize("compacted", [False, True])
def test_a_worker_that_was_declared_dead_and_rejoined_has_not_left(path, compacted):
    trials, first, second, *_ = history()
    write_journal(
        path, [trials, first, second, LeftRecord(1, 1002.0, "silent"), LeftRecord(2, 1002.5, "silent")]
    )
    assert mpisweep.load(path).workers["left_at"].tolist() == [1002.0, 1002.5]
    if compacted:
        compact(path)
    write_journal(path, [JoinedRecord(1, "node1", "cpu 0", 1, 1, 1003.0)])
    sweep = mpisweep.load(path)
    assert sweep.workers["joined_at"].tolist() == [1001.0, 1001.0]
    assert [math.isnan(left) for left in sweep.workers["left_at"]] == [True, False]
    write_journal(path, [LeftRecord(1, 1009.0, "lost")])
    assert mpisweep.load(path).workers["left_at"].tolist() == [1009.0, 1002.5]


def test_run_names_sort_in_order_with_any_clock(path):
    from mpisweep.results.runs import new_run_name

    folder = journal_folder(path)
    write_journal(path, [], opening("99991231T235959999999-ffffff"))
    first = new_run_name(folder)
    write_journal(path, [], opening(first))
    second = new_run_name(folder)
    write_journal(path, [], opening(second))
    assert [name.rpartition("-")[0] for name in segments(folder)] == [
        "99991231T235959999999-ffffff",
        first,
        second,
    ]


def test_one_long_message_does_not_make_all_trials_large(path):
    count, message = 5000, "x" * 100_000
    write_journal(path, [
        TrialsBlock(list(range(count)), {"x": 1, "mode": "fast"}),
        EndedBlock(0, 0, [7], [1], [4], [1001.0], [1.0], {"loss": [None]}, [1], [message]),
    ])  # fmt: skip
    trials = mpisweep.load(path).trials
    assert trials.array.nbytes < 2_000_000
    assert trials["message"][7] == message
    assert trials["message"].tolist().count("") == count - 1
    assert trials[trials["message"] != ""]["number"].tolist() == [7]


def test_a_metric_is_not_mistaken_for_a_parameter_of_the_same_name(path):
    spec = 'workload = "m:f"\nobjective = "x"\n[parameters]\nx = [1, 2]\nparameter_y = [7]\ny = [8]\n'
    write_journal(
        path,
        [
            TrialsBlock([0, 1], {"x": [1, 2], "parameter_y": 7, "y": 8}),
            EndedBlock(
                0,
                0,
                [0, 1],
                [1, 1],
                [2, 2],
                [1001.0, 1002.0],
                [1.0, 1.0],
                {"x": [9.0, 5.0], "metric_x": [0.0, 0.0]},
            ),
        ],
        opening(spec=spec),
    )
    sweep = mpisweep.load(path)
    assert sweep.best(1)["number"].tolist() == [1]
    assert tables.top_table(sweep, 1).rows[0].values == (5.0,)
    assert status.sweep_status(sweep).best == 5.0
    assert [sweep.trials[sweep.column(name)][1] for name in ("x", "y", "parameter_y", "metric_x")] == [
        2,
        8,
        7,
        0.0,
    ]


def test_the_file_has_the_documented_columns_and_describes_itself(path):
    write_journal(path, history())
    compact_and_close(path)
    with h5py.File(path) as file:
        for column in COLUMNS:
            dataset = file[column.group][column.name]
            assert dataset.attrs["description"] == column.description
            assert dataset.attrs.get("units", "") == column.units
        described: list[str] = []
        file.visititems(
            lambda name, item: (
                described.append(name)
                if isinstance(item, h5py.Dataset) and "description" not in item.attrs
                else None
            )
        )
        assert described == []
        states = h5py.check_enum_dtype(file["trials/state"].dtype)
        assert states["complete"] == 2
        assert file["trials/parameters/x"][()].tolist() == [1, 2, 3, 4]
        assert file["trials/parameters/x"].dtype == np.int64
        assert file["trials/parameters/mode"].asstr()[0] == "fast"
        offset, length = file["curves/loss/offset"][3], file["curves/loss/length"][3]
        assert file["curves/loss/value"][offset : offset + length].tolist() == [3.0, 2.0, 1.0]


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed")
def test_h5dump_reads_the_file(path):
    write_journal(path, history())
    compact_and_close(path)
    done = subprocess.run(["h5dump", "-d", "/trials/state", path], capture_output=True, text=True, check=True)
    assert "failed" in done.stdout


def test_an_unknown_column_is_reported_with_a_suggestion(path):
    write_journal(path, history())
    sweep = mpisweep.load(path)
    for ask in (
        lambda: sweep.trials["lss"],
        lambda: sweep.trials[["x", "lss"]],
        lambda: sweep.best(2)["lss"],
        lambda: sweep.trials[0]["lss"],
        lambda: next(iter(sweep.trials))["lss"],
    ):
        with pytest.raises(KeyError) as raised:
            ask()
        assert raised.value.args == ("no column 'lss'; did you mean 'loss'?",)
    with pytest.raises(KeyError, match=r"no column 'qqq'; known are number, state, .*, mode, loss"):
        sweep.trials["qqq"]
    with pytest.raises(KeyError, match="there is no parameter or metric 'lss'; did you mean 'loss'"):
        sweep.column("lss")
    with pytest.raises(KeyError, match="there is no curve of 'lss'; did you mean 'loss'"):
        sweep.curve(0, "lss")
    assert sweep.trials[["x", "loss"]].dtype.names == ("x", "loss")
    assert sweep.trials[1]["x"] == sweep.trials["x"][1] == 2


def test_printed_trials_are_a_table(path):
    write_journal(
        path,
        [
            TrialsBlock([*range(30)], {"lr": [0.00012345678] * 30, "mode": "a\x1b\nb"}),
            EndedBlock(
                0, 0, [0, 1], [1, 1], [2, 2], [1001.0, 1002.0], [1.0, 12.3456789], {"loss": [1 / 3, 123456.7]}
            ),
        ],
        opening(spec='workload = "m:f"\n[parameters]\nlr = [0.00012345678]\nmode = ["a"]\n'),
    )
    sweep = mpisweep.load(path)
    assert str(sweep.best(2)).splitlines() == [
        "number     state          lr  mode     loss  wall_time",
        "     0  complete  0.00012346  a\ufffd\ufffdb  0.33333          1",
        "     1  complete  0.00012346  a\ufffd\ufffdb   123457     12.346",
    ]
    # The other tables print the same values.
    assert tables.top_table(sweep, 1).rows[0].parameters[0] == "0.00012346"
    assert "lr=0.00012346" in "".join(status.status_lines(status.sweep_status(sweep)))
    assert figure_curves._configuration(sweep, 0).startswith(": lr 0.00012346, mode a")
    assert look_at(sweep, 1010.0).progress.best_parameters["lr"] == 0.00012345678
    assert "lr=0.00012346" in progress_line(look_at(sweep, 1010.0).progress)
    lines = repr(sweep.trials).splitlines()
    assert [line.split()[0] for line in lines[9:13]] == ["8", "9", "...", "20"]
    assert lines[-1] == "30 trials"
    assert "<td>0.00012346</td>" in sweep.best(1)._repr_html_()
    assert str(sweep.best(0)).splitlines() == ["number  state  lr  mode  loss  wall_time", "0 trials"]


def test_pandas_reads_the_trials(path):
    write_journal(path, history())
    frame = mpisweep.load(path).trials.to_pandas()
    assert frame.set_index("x").loc[2, "loss"] == 4.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"not HDF5"), "is not a readable HDF5 file"),
        (lambda p: h5py.File(p, "w").close(), "not a results file of mpisweep"),
        (lambda p: None, "no such results file"),
        (lambda p: p.mkdir(), "is a folder, not a results file"),
    ],
)
def test_foreign_files_are_refused_in_one_sentence(path, make, message):
    make(path)
    with pytest.raises(ResultsError, match=message):
        mpisweep.load(path)


@pytest.mark.parametrize("command", ["status", "repair"])
def test_a_refusal_of_the_disk_is_reported_in_one_sentence(finished, command, capsys, monkeypatch):
    assert main([command, str(finished / "below.h5")]) == 2
    assert capsys.readouterr().err == f"mpisweep: {finished}/below.h5: no such results file\n"

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(finished))

    monkeypatch.setattr(reading, "_check_whole", refuse)
    assert main([command, str(finished)]) == 2
    assert capsys.readouterr().err.startswith(f"mpisweep: {finished}: cannot be read")


def test_a_newer_format_is_refused(path):
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "mpisweep", "format_version": 99, "version": "7.0"})
    with pytest.raises(
        ResultsError, match=r"format version 99, and this mpisweep reads up to 2; use mpisweep 7\.0"
    ):
        mpisweep.load(path)


def test_the_documented_columns_are_the_columns():
    from mpisweep.results.columns import markdown

    page = Path(__file__).parent.parent / "docs" / "file-format.md"
    assert markdown() in page.read_text(encoding="utf-8")


def test_the_documented_options_of_resnet50_are_its_options():
    from mpisweep.spec.reference import workload_markdown

    page = Path(__file__).parent.parent / "docs" / "resnet50.md"
    assert workload_markdown("resnet50") in page.read_text(encoding="utf-8")


def test_files_follow_the_umask(path):
    old = os.umask(0o027)
    try:
        write_journal(path, history())
        compact_and_close(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file(path):
    write_journal(path, history()[:8])
    compact(path)
    before = path.read_bytes()
    write_journal(path, history()[8:])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            compact(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["s.h5", "s.h5.journal"], "nothing is left of the new one"
    compact(path)
    assert mpisweep.load(path).state == "complete", "what was not written is still in the journal"


def test_the_segment_that_is_being_written_is_kept(path):
    write_journal(path, history())
    write_journal(path, history()[-1:])
    before, now = segments(journal_folder(path))
    compact(path, keep=now)
    assert segments(journal_folder(path)) == [now]
    compact(path, keep=f"{now}-and-later")
    assert segments(journal_folder(path)) == []
    assert before < now


def test_a_segment_that_has_grown_since_it_was_read_is_kept(path, monkeypatch):
    """A master that was declared dead but is alive may still have synced records meanwhile."""
    write_journal(path, history()[:8])
    [segment] = segments(journal_folder(path))
    late = b"".join(frame(encode(record)) for record in history()[8:])
    replace = os.replace

    def grow_and_replace(source, target):
        with (journal_folder(path) / segment).open("ab") as out:
            out.write(late)
        replace(source, target)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "replace", grow_and_replace)
        compact(path, keep=f"{segment}-and-later")
    assert segments(journal_folder(path)) == [segment]
    assert mpisweep.load(path).trials["state"].tolist() == ["complete", "complete", "failed", "complete"]


# ------------------------------------------------------------------------------------- claim


def test_a_second_run_is_refused_and_the_holder_is_named(tmp_path):
    held = Claim.take(tmp_path, "job 7")
    with pytest.raises(
        ClaimedError, match=rf"another run is writing it: process {os.getpid()} on .*, job job 7, since"
    ):
        Claim.take(tmp_path, "")
    held.release()
    Claim.take(tmp_path, "").release()


def test_a_dead_holder_on_this_host_is_recognised_at_once(tmp_path):
    program = (
        "import os, signal; from pathlib import Path; from mpisweep.results.claim import Claim; "
        f"Claim.take(Path({os.fspath(tmp_path)!r}), ''); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "claim.json").exists()
    Claim.take(tmp_path, "").release()


def test_a_process_with_the_holder_s_id_but_another_start_time_is_not_the_holder(tmp_path):
    Claim.take(tmp_path, "")
    holder = json.loads((tmp_path / "claim.json").read_text())
    (tmp_path / "claim.json").write_text(json.dumps(holder | {"process_start": 1}))
    Claim.take(tmp_path, "").release()


def elsewhere(folder: Path, host: str = "node7") -> Claim:
    """Take a claim that looks like that of a run on another host, whose process cannot be checked."""
    taken = Claim.take(folder, "")
    holder = json.loads((folder / "claim.json").read_text())
    (folder / "claim.json").write_text(json.dumps(holder | {"host": host, "boot_id": "another", "pid": 1}))
    return taken


def test_a_holder_on_another_host_without_a_heartbeat_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("mpisweep.results.holder.STALE_S", 0.2)
    elsewhere(tmp_path)
    Claim.take(tmp_path, "").release()


def test_a_heartbeat_from_another_host_is_recognised_without_comparing_clocks(tmp_path):
    elsewhere(tmp_path)
    file = tmp_path / "claim.json"

    def beat(other_time_s: float = 1.0) -> None:
        # The other host's clock is decades behind.
        while not stopped.wait(0.05):
            other_time_s += 1
            os.utime(file, (other_time_s, other_time_s))

    stopped = threading.Event()
    other = threading.Thread(target=beat)
    other.start()
    try:
        with pytest.raises(ClaimedError, match="another run is writing it: process 1 on node7"):
            Claim.take(tmp_path, "")
    finally:
        stopped.set()
        other.join()


def test_a_claim_that_another_host_releases_is_taken_at_once(tmp_path, monkeypatch):
    elsewhere(tmp_path)
    releasing = threading.Timer(0.3, (tmp_path / "claim.json").unlink)
    releasing.start()
    # The release is noticed without waiting for the heartbeat timeout.
    monkeypatch.setattr(holder_module, "STALE_S", math.inf)
    Claim.take(tmp_path, "").release()
    releasing.join()


def test_of_two_runs_that_find_a_holder_dead_at_once_one_gets_the_sweep(tmp_path, monkeypatch):
    """The faster run takes the claim over between the slower one's last check and its takeover."""
    elsewhere(tmp_path)
    is_dead = holder_module._is_dead

    def is_dead_and_followed(*arguments):
        monkeypatch.setattr(holder_module, "_is_dead", is_dead)
        (tmp_path / "claim.json").unlink()
        with monkeypatch.context() as other_process:
            other_process.setattr(os, "getpid", os.getppid)
            faster.append(Claim.take(tmp_path, "faster"))
        return True

    faster: list[Claim] = []
    monkeypatch.setattr(holder_module, "_is_dead", is_dead_and_followed)
    with pytest.raises(ClaimedError, match="job faster"):
        Claim.take(tmp_path, "slower")
    assert "faster" in (tmp_path / "claim.json").read_text()
    assert sorted(os.listdir(tmp_path)) == sorted([faster[0].token.name, "claim.json"])
    faster[0].beat()


def test_a_superseded_holder_does_not_take_the_sweep_from_its_successor(tmp_path):
    first = Claim.take(tmp_path, "hangs")
    second = Claim.inherit(tmp_path, "follows", run=first.run, epoch=1)
    with pytest.raises(FollowedError):
        first.beat()
    first.release()
    with pytest.raises(ClaimedError, match="job follows"):
        Claim.take(tmp_path, "third")
    second.release()
    assert not tmp_path.exists()


@pytest.mark.parametrize("is_bare", [False, True])
def test_a_closed_run_is_over_for_all_of_its_masters(tmp_path, monkeypatch, is_bare):
    """Also if the results file is given as a bare name, which has no parent to speak of."""
    monkeypatch.chdir(tmp_path)
    folder = Path() if is_bare else tmp_path
    folder /= "s.h5.journal"
    run = Claim.take(folder, "")
    (tmp_path / "s.h5").touch()
    run.release()
    with pytest.raises(RunOverError):
        Claim.inherit(folder, "", run=run.run, epoch=1)
    with pytest.raises(RunOverError):
        run.beat()
    assert not folder.exists()


def test_a_run_whose_file_system_is_away_is_not_over(tmp_path):
    """All files of the sweep are gone, including the results."""
    place = tmp_path / "place"
    folder = place / "s.h5.journal"
    run = Claim.take(folder, "")
    place.rename(tmp_path / "elsewhere")
    place.mkdir()
    with pytest.raises(FileNotFoundError):
        run.beat()
    with pytest.raises(FileNotFoundError):
        Claim.inherit(folder, "", run=run.run, epoch=1)
    place.rmdir()
    (tmp_path / "elsewhere").rename(place)
    run.beat()


def test_a_claim_is_inherited_within_its_run_only(tmp_path):
    """A rank of an ended run wakes up during the next run."""
    earlier = Claim.take(tmp_path, "")
    earlier.release()
    later = Claim.take(tmp_path, "later")
    for epoch in (1, 7):
        with pytest.raises(RunOverError):
            Claim.inherit(tmp_path, "", run=earlier.run, epoch=epoch)
    earlier.release()
    later.beat()
    assert "later" in (tmp_path / "claim.json").read_text()


def test_a_master_cannot_take_over_from_one_of_a_higher_epoch(tmp_path):
    run = Claim.take(tmp_path, "").run
    Claim.inherit(tmp_path, "", run=run, epoch=5)
    with pytest.raises(FollowedError):
        Claim.inherit(tmp_path, "", run=run, epoch=3)
    # A takeover that was interrupted may be repeated.
    Claim.inherit(tmp_path, "", run=run, epoch=5).beat()


def test_a_run_that_takes_over_the_sweep_fences_the_earlier_run(tmp_path, monkeypatch):
    """The earlier run was paused on another host until it was declared dead."""
    monkeypatch.setattr("mpisweep.results.holder.STALE_S", 0.2)
    paused = elsewhere(tmp_path)
    (paused.token / "made").write_text("a snapshot that was ready to take its place")
    Claim.take(tmp_path, "")
    with pytest.raises(RunOverError):
        paused.beat()
    with pytest.raises(FileNotFoundError):
        os.replace(paused.token / "made", tmp_path / "r.h5")
    with pytest.raises(FileNotFoundError):
        remove_through(paused.token, tmp_path / "claim.json")
    paused.release()
    assert (tmp_path / "claim.json").exists()


def test_an_immediate_successor_keeps_its_token(tmp_path, monkeypatch):
    """The successor takes the claim as soon as the holder releases it, while the holder still cleans up."""
    first = Claim.take(tmp_path, "")
    take_away = claim._fence
    successors: list[Claim] = []

    def take_away_late(token: Path) -> None:
        monkeypatch.setattr(claim, "_fence", take_away)
        successors.append(Claim.take(tmp_path, "prompt"))
        take_away(token)

    monkeypatch.setattr(claim, "_fence", take_away_late)
    first.release()
    assert successors[0].token.is_dir()
    successors[0].beat()
    assert "prompt" in (tmp_path / "claim.json").read_text()


def test_another_run_waits_for_an_expected_successor(tmp_path):
    """The master has died but its mpirun is alive: another rank is about to take over and must not lose the sweep."""
    take = (
        "import sys; from pathlib import Path; from mpisweep.results.claim import Claim; "
        "print(Claim.take(Path(sys.argv[1]), '').run, flush=True)"
    )
    start = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", start, take, os.fspath(tmp_path)]
    mpirun = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert mpirun.stdout is not None
    run = mpirun.stdout.readline().strip()
    assert mpirun.stdout.readline() == "\n", "the master has ended"
    following = threading.Timer(0.5, lambda: Claim.inherit(tmp_path, "follows", run=run, epoch=1))
    following.start()
    with pytest.raises(ClaimedError, match="job follows"):
        Claim.take(tmp_path, "")
    following.join()
    mpirun.communicate("")


def test_another_machine_with_the_same_host_name_is_told_apart(tmp_path, monkeypatch):
    """Cloud images and containers may share a host name, so the holder's process cannot be checked from here."""
    monkeypatch.setattr("mpisweep.results.holder.STALE_S", 0.5)
    elsewhere(tmp_path, host=this_host())
    before = claim_file(tmp_path).stat().st_mtime_ns
    beating = threading.Timer(0.2, lambda: os.utime(claim_file(tmp_path), ns=(before + 1, before + 1)))
    beating.start()
    with pytest.raises(ClaimedError):
        Claim.take(tmp_path, "")
    beating.join()
    Claim.take(tmp_path, "").release()
