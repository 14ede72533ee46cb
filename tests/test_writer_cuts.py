"""Kills and power cuts at every point of every write: all acknowledged results survive, and none is wrong.

The writes of one journal are recorded with the acknowledgements between them.  From these the tests make
every disk that a crash could leave: cut at any byte, with any unsynced writes turned into zeros, without files
whose folder was not synced, and without the data of a failed fsync.  The HDF5 file is replaced on a machine
that stops at any step and may forget everything that was not synced.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import select
import shutil
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    Curve,
    EndedBlock,
    JoinedRecord,
    Record,
    ReportBlock,
    RunRecord,
    TrialsBlock,
    UnfinishedBlock,
    encode,
)
from mpisweep.records import AttemptEnd, TrialState
from mpisweep.results import journal_folder, syncing
from mpisweep.results.compaction import compact, compact_and_close
from mpisweep.results.journal import writer as journal_module
from mpisweep.results.journal.reader import Entry, read_journal
from mpisweep.results.journal.segments import frame, segments
from mpisweep.results.journal.writer import Journal
from mpisweep.results.replay import apply
from mpisweep.results.state import SweepState

SPEC = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 6 }\n[fixed]\nmode = "fast"\n'
RUN = RunRecord(
    "20260101T000000-aaaaaa", 0, "n1", 1, 1000.0, 2, "local", "", ["mpisweep"], "0", SPEC, "s.toml", {}
)
SEGMENT = f"{RUN.run}-000000.000000"
COMPLETE = int(TrialState.COMPLETE)
FAILED = int(TrialState.FAILED)
#: The same cases in every run, or new ones if this variable is set.
fuzz = settings(
    deadline=None,
    derandomize="MPISWEEP_FUZZ_ANEW" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


# ------------------------------------------------------------------------------------- the recorded sweep


def value_at(number: int, attempt: int, step: int) -> float:
    """The value that an attempt reports at a step; all are different."""
    return 1000.0 * number + 100.0 * attempt + step


def reports(number: int, attempt: int, sequence: int) -> ReportBlock:
    steps = [2 * sequence, 2 * sequence + 1]
    values = [value_at(number, attempt, step) for step in steps]
    curve = Curve(array("q", steps), array("d", values), array("d", [0.5 * step for step in steps]))
    return ReportBlock(1, number, attempt, {"loss": curve}, sequence)


def ended(number: int, attempt: int) -> EndedBlock:
    loss = value_at(number, attempt, 99)
    return EndedBlock(1, 0, [number], [attempt], [COMPLETE], [1003.0], [number + 0.5], {"loss": [loss]})


#: Records that are appended together; each group is acknowledged before the next is appended.
GROUPS: list[list[Record]] = [
    [TrialsBlock([0, 1, 2, 3, 4, 5], {"x": [1, 2, 3, 4, 5, 6], "mode": "fast"})],
    [JoinedRecord(1, "n1", "cpu 0", 1, 1, 1001.0), JoinedRecord(2, "n2", "cpu 0", 1, 1, 1001.0)],
    [
        AssignedBlock([[1, 0]], 1002.0, [0, 1], [1, 1], {"x": [1, 2], "mode": "fast"}),
        AssignedBlock([[2, 0]], 1002.0, [2, 3], [1, 1], {"x": [3, 4], "mode": "fast"}),
        reports(0, 1, 0),
    ],
    [reports(0, 1, 1), ended(0, 1), reports(2, 1, 0)],
    [reports(2, 1, 1)],
    [
        UnfinishedBlock(2, [2, 3], [1, 1], int(AttemptEnd.LOST), 1005.0),
        AssignedBlock([[1, 0]], 1006.0, [2, 3], [2, 2], {"x": [3, 4], "mode": "fast"}),
        reports(2, 2, 0),
    ],
    [
        reports(2, 2, 1),
        ended(2, 2),
        EndedBlock(1, 0, [1], [1], [FAILED], [1.0], [1.0], {}, [1], ["ValueError: ü"]),
    ],
    [ended(3, 2)],
]
RECORDS: list[Record] = [record for group in GROUPS for record in group]
WRITTEN = {encode(record) for record in [RUN, *RECORDS]}


def check(entries: Sequence[Entry], acknowledged: Sequence[Record]) -> SweepState:
    """Check that every acknowledged record was recovered and that every recovered record is correct."""
    bodies = {encode(entry.record) for entry in entries}
    assert bodies <= WRITTEN
    assert {encode(record) for record in acknowledged} <= bodies
    state = SweepState()
    for entry in entries:
        apply(state, entry)
    check_results(state, acknowledged)
    return state


def check_results(state: SweepState, acknowledged: Sequence[Record]) -> None:
    for record in acknowledged:
        if isinstance(record, TrialsBlock):
            assert state.parameters == {"x": [1, 2, 3, 4, 5, 6], "mode": ["fast"] * 6}
        if isinstance(record, EndedBlock):
            for number, attempt, ending in zip(record.numbers, record.attempts, record.states, strict=True):
                assert (state.trials["state"][number], state.trials["attempt"][number]) == (ending, attempt)
    for number in range(state.count):
        attempt = state.trials["attempt"][number]
        assert state.parameters.get("x", [None] * 6)[number] in (None, number + 1)
        if state.trials["state"][number] == COMPLETE:
            assert state.metrics["loss"][number] == value_at(number, attempt, 99)
            assert state.trials["wall_time"][number] == number + 0.5
        if state.trials["state"][number] == FAILED:
            assert state.trials["message"][number] == "ValueError: ü"
        check_curve(state, number, acknowledged)


def check_curve(state: SweepState, number: int, acknowledged: Sequence[Record]) -> None:
    """Check the reports of one attempt: each once, in order, including all acknowledged ones."""
    curve = state.curve(number, "loss")
    steps = list(curve.step)
    assert steps == sorted(set(steps)), f"trial {number} has steps {steps}"
    attempts = {
        int(value - 1000 * number - step) // 100 for step, value in zip(steps, curve.value, strict=True)
    }
    assert len(attempts) <= 1, f"the curve of trial {number} mixes attempts {attempts}"
    for attempt in attempts:
        assert attempt >= state.trials["attempt"][number], f"trial {number} shows an old attempt's curve"
        assert list(curve.value) == [value_at(number, attempt, step) for step in steps]
        assert list(curve.time) == [0.5 * step for step in steps]
    for record in acknowledged:
        if not isinstance(record, ReportBlock) or record.number != number or attempts - {record.attempt}:
            continue
        if record.attempt >= state.trials["attempt"][number]:
            missing = set(record.curves["loss"].step) - set(steps)
            assert not missing, f"steps {missing} of trial {number} were acknowledged and are not there"


# ------------------------------------------------------------------------------------- recording the writes


#: Name of a segment that is still in its master's token.
UNNAMED = ""


class RecordingOs:
    """A substitute for the journal writer's os module: records calls, writes in pieces, fails on demand."""

    def __init__(
        self, piece: int, failing_syncs: Sequence[int] = (), failing_writes: Sequence[int] = ()
    ) -> None:
        self.events: list[tuple[str, Any, Any]] = []
        self._piece = piece
        self._failing = {"sync": set(failing_syncs), "write": set(failing_writes)}
        self._calls = {"sync": 0, "write": 0}
        self._names: dict[int, str] = {}
        self._folders: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        file = os.open(path, flags, mode)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            self._folders[file] = Path(path).name
        else:
            self._names[file] = UNNAMED
        return file

    def link(self, made: Path, path: Path) -> None:
        """Record that a finished segment gets its name."""
        os.link(made, path)
        self._names = {
            file: Path(path).name if name == UNNAMED else name for file, name in self._names.items()
        }
        self.events.append(("link", Path(path).name, None))

    def close(self, file: int) -> None:
        self._names.pop(file, None)
        os.close(file)

    def write(self, file: int, data: bytes) -> int:
        if file in self._names:
            data = bytes(data[: self._piece])
            self._fail_if_told("write", errno.ENOSPC)
            self.events.append(("write", self._names[file], data))
        return os.write(file, data)

    def fsync(self, file: int) -> None:
        if file not in self._names:
            self.events.append(("sync folder", self._folders[file], None))
            return
        try:
            self._fail_if_told("sync", errno.EIO)
        except OSError:
            self.events.append(("sync failed", self._names[file], None))
            raise
        os.fsync(file)
        self.events.append(("sync", self._names[file], None))

    def _fail_if_told(self, call: str, number: int) -> None:
        self._calls[call] += 1
        if self._calls[call] - 1 in self._failing[call]:
            raise OSError(number, os.strerror(number))


@dataclass
class Disk:
    """The synced contents of the disk, and each write that is not synced yet."""

    #: Whether a failed fsync drops its data, as on Linux, so that the next one falsely succeeds.
    drops: bool = False
    synced: dict[str, bytes] = field(default_factory=dict)
    pending: list[tuple[str, bytes]] = field(default_factory=list)
    #: Names in order of creation; folder -> how many of them its last fsync covers.
    created: list[str] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0

    def take(self, event: tuple[str, Any, Any]) -> None:
        what, name, data = event
        if what == "link":
            self.created.append(name)
            self.synced[name] = self.synced.pop(UNNAMED, b"")
            self.pending = [(name if of == UNNAMED else of, part) for of, part in self.pending]
        elif what == "write":
            self.synced.setdefault(name, b"")
            self.pending.append((name, data))
        elif what == "sync":
            self._settle(name, b"".join(part for of, part in self.pending if of == name))
        elif what == "sync failed" and self.drops:
            self._settle(name, bytes(sum(len(part) for of, part in self.pending if of == name)))
        elif what == "sync folder":
            self.named[name] = len(self.created)
        elif what == "acknowledged":
            self.acknowledged = name

    def _settle(self, name: str, data: bytes) -> None:
        self.synced[name] += data
        self.pending = [(of, part) for of, part in self.pending if of != name]

    @property
    def certain(self) -> dict[str, bytes]:
        """Segments if no unsynced write has reached the disk."""
        return {name: data for name, data in self.synced.items() if name != UNNAMED}

    def with_lasting_names(self, folder: Path) -> dict[str, bytes]:
        """The segments whose names survive: those that an fsync of their folder, and of the folder's parent, covers."""
        lasting = self.created[: self.named.get(folder.name, 0)] if folder.parent.name in self.named else []
        return {name: self.synced.get(name, b"") for name in lasting}

    def after_crash(self, zeroed: set[int], cut: int = 0) -> dict[str, bytes]:
        """Segments if neither the pending writes in `zeroed` nor the last `cut` bytes reached the disk."""
        found = dict(self.synced)
        for index, (name, data) in enumerate(self.pending):
            found[name] += bytes(len(data)) if index in zeroed else data
        if self.pending:
            name = self.pending[-1][0]
            found[name] = found[name][: max(len(self.synced[name]), len(found[name]) - cut)]
        found.pop(UNNAMED, None)
        return found


def record_run(folder: Path, fake: RecordingOs, part_bytes: int = 8 << 20) -> list[tuple[str, Any, Any]]:
    """Write GROUPS to a journal in `folder`; return writes, fsyncs and acknowledgements in order."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "os", fake)
        patch.setattr(syncing, "os", fake)
        patch.setattr(
            journal_module, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=time.monotonic)
        )
        patch.setattr(journal_module, "_PART_BYTES", part_bytes)
        token = folder.parent / "token"
        token.mkdir()
        journal = Journal(folder, RUN, token)
        journal.start()
        for group in GROUPS:
            # The thread runs only when the group is complete, so that every run of the test has the same writes.
            with without_other_threads():
                for record in group:
                    token = journal.append(encode(record))
            while journal.synced < token:
                assert select.select([journal], [], [], 20)[0], "the journal does not get on"
                journal.drain()
            fake.events.append(("acknowledged", journal.synced, None))
        journal.close()
        journal.join()
    assert journal.synced == len(RECORDS)
    return fake.events


@contextlib.contextmanager
def without_other_threads() -> Iterator[None]:
    """Let no other thread run inside the block."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(100)
    yield
    sys.setswitchinterval(usual)


def disks_after_each_event(events: Sequence[tuple[str, Any, Any]], *, drops: bool = False) -> Iterator[Disk]:
    """Yield the disk after each event."""
    for at in range(len(events) + 1):
        disk = Disk(drops)
        for event in events[:at]:
            disk.take(event)
        yield disk


def recover(folder: Path, files: dict[str, bytes]) -> list[Entry]:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(read_journal(folder, {}, []))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


#: Folder of the recorded journal, relative to the scratch folder.
RECORDED = Path("recorded", "s.h5.journal")


def recorded(
    tmp_path_factory: pytest.TempPathFactory, *, part_bytes: int = 8 << 20, **how: Any
) -> list[Disk]:
    """The disks_after_each_event of one recorded run; with failing fsyncs, each disk with and without their data."""
    folder = tmp_path_factory.mktemp("runs") / RECORDED
    events = record_run(folder, RecordingOs(**how), part_bytes)
    return (
        [*disks_after_each_event(events), *disks_after_each_event(events, drops=True)]
        if "failing_syncs" in how
        else list(disks_after_each_event(events))
    )


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> list[Disk]:
    return recorded(tmp_path_factory, piece=90)


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> list[Disk]:
    return recorded(tmp_path_factory, piece=23, part_bytes=900)


FAILURES = [
    *({"failing_syncs": [number]} for number in range(1, len(GROUPS) + 1)),
    {"failing_syncs": [2, 3]},
    {"failing_syncs": [6, 8, 9]},
    {"failing_writes": [4]},
    {"failing_writes": [12, 13, 14]},
]


@pytest.fixture(scope="module", params=FAILURES, ids=str)
def failing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Disk]:
    return recorded(tmp_path_factory, piece=150, **request.param)


# ------------------------------------------------------------------------------------- journal


def test_the_model_of_the_disk_equals_the_real_files(coarse, scratch):
    """The model of the disk is correct: at the end it equals the real files."""
    entries = recover(scratch, coarse[-1].after_crash(set()))
    assert [encode(entry.record) for entry in entries] == [encode(record) for record in [RUN, *RECORDS]]
    assert coarse[-1].acknowledged == len(RECORDS)
    assert coarse[-1].pending == []
    check(entries, RECORDS)


def test_nothing_is_acknowledged_before_it_is_synced(fine, coarse, failing, scratch):
    """Unsynced data may be lost at any time; acknowledged data must not be."""
    for disk in [*fine, *coarse, *failing]:
        check(recover(scratch, disk.certain), RECORDS[: disk.acknowledged])


def test_nothing_is_acknowledged_before_its_segment_has_a_lasting_name(fine, coarse, failing, scratch):
    """A file whose folder was not synced may lose its name and thereby be lost; so may the folder."""
    for disk in [*fine, *coarse, *failing]:
        check(recover(scratch, disk.with_lasting_names(RECORDED)), RECORDS[: disk.acknowledged])


def test_acknowledged_results_survive_a_cut_at_any_byte(coarse, scratch):
    """Every prefix of a segment that a kill can leave; it has no name before its first record is written."""
    cuts: set[int] = set()
    for disk in coarse:
        for cut in range(len(disk.pending[-1][1]) + 1 if disk.pending else 1):
            files = disk.after_crash(set(), cut)
            cuts |= {len(data) for data in files.values()}
            check(recover(scratch, files), RECORDS[: disk.acknowledged])
    (whole,) = coarse[-1].synced.values()
    assert cuts == set(range(len(frame(encode(RUN))), len(whole) + 1))


def test_acknowledged_results_survive_the_loss_of_any_unsynced_writes(coarse, scratch):
    """Every subset of the writes since the last fsync is replaced by zeros of the same length."""
    tried = 0
    for disk in coarse:
        count = min(len(disk.pending), 8)
        for bits in itertools.product([False, True], repeat=count):
            zeroed = {len(disk.pending) - count + index for index, bit in enumerate(bits) if bit}
            check(recover(scratch, disk.after_crash(zeroed)), RECORDS[: disk.acknowledged])
            tried += 1
    assert tried > 500


@given(data=st.data())
@settings(fuzz, max_examples=600)
def test_acknowledged_results_survive_lost_small_writes_and_a_torn_tail_over_several_parts(
    fine, scratch, data
):
    """Like the previous test, with many more writes in several segments and a cut anywhere in the last write."""
    disk = data.draw(st.sampled_from(fine))
    zeroed = data.draw(st.sets(st.integers(0, max(len(disk.pending) - 1, 0))))
    cut = data.draw(st.integers(0, sum(len(part) for _, part in disk.pending)))
    check(recover(scratch, disk.after_crash(zeroed, cut)), RECORDS[: disk.acknowledged])


def test_acknowledged_results_are_read_once_whatever_a_failed_disk_kept(failing, scratch):
    """After a failed write or fsync the old segment may hold any subset of the unsynced writes."""
    for disk in failing:
        names = sorted({name for name, _ in disk.pending})
        of_segment = {name: {i for i, (of, _) in enumerate(disk.pending) if of == name} for name in names}
        whole = [set().union(*(of_segment[n] for n in lost)) for k in range(len(names) + 1)
                 for lost in itertools.combinations(names, k)]  # fmt: skip
        single = [{index} for index in range(len(disk.pending))]
        for zeroed in whole + single:
            check(recover(scratch, disk.after_crash(zeroed)), RECORDS[: disk.acknowledged])


@pytest.mark.parametrize("lost", range(1, len(RECORDS) + 1), ids=lambda n: f"{n}-{RECORDS[n - 1].kind}")
def test_a_damaged_record_makes_no_other_wrong(scratch, lost):
    """With any one record turned into zeros, readers know less about the trials, but nothing wrong."""
    frames = [frame(encode(record)) for record in [RUN, *RECORDS]]
    frames[lost] = bytes(len(frames[lost]))
    entries = recover(scratch, {SEGMENT: b"".join(frames)})
    assert len(entries) == len(RECORDS)
    state = SweepState()
    for entry in entries:
        apply(state, entry)
    check_results(state, [])


@given(data=st.data())
@settings(fuzz, max_examples=1000)
def test_flipped_bits_are_detected(fine, scratch, data):
    """With up to eight flipped bits anywhere, every record that is read was written."""
    files = {name: bytearray(content) for name, content in fine[-1].synced.items()}
    for _ in range(data.draw(st.integers(1, 8))):
        content = files[data.draw(st.sampled_from(sorted(files)))]
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << (bit % 8)
    flipped = {name: bytes(content) for name, content in files.items()}
    assert {encode(entry.record) for entry in recover(scratch, flipped)} <= WRITTEN


def test_a_flipped_bit_in_the_first_record_of_a_segment_loses_no_result(fine, scratch):
    """Another segment identifies the run, so the records of this one count."""
    last = max(fine[-1].synced)
    assert last != min(fine[-1].synced)
    files = dict(fine[-1].synced)
    files[last] = files[last][:20] + bytes([files[last][20] ^ 1]) + files[last][21:]
    check(recover(scratch, files), RECORDS)


def test_a_frame_inside_a_message_is_not_a_record(scratch):
    """A message may contain the bytes of a frame; they are not a record even if the frame around them is damaged."""
    inner = frame(encode(ended(5, 7))).decode("latin-1")
    message = EndedBlock(1, 0, [1], [1], [FAILED], [1.0], [1.0], {}, [1], [inner])
    around = bytearray(frame(encode(message)))
    around[8] ^= 1
    head = b"".join(frame(encode(record)) for record in [RUN, *RECORDS[:5]])
    entries = recover(scratch, {SEGMENT: head + bytes(around) + frame(encode(ended(0, 1)))})
    assert [encode(entry.record) for entry in entries] == [
        encode(r) for r in [RUN, *RECORDS[:5], ended(0, 1)]
    ]


# ------------------------------------------------------------------------------------- the HDF5 file


class PowerCutError(BaseException):
    """The machine has stopped; the program must not catch this."""


class Machine:
    """Counts the steps that change the disk, stops at one of them, and refuses all later ones.

    Args:
        folder: only steps inside of it count.
        stops_at: the step that is never done; None to do all.
    """

    def __init__(self, folder: Path, stops_at: int | None) -> None:
        self.steps: list[str] = []
        self._folder = os.fspath(folder)
        self._stops_at = stops_at
        self._stopped = False
        self._unsynced: set[str] = set()
        self._renamed: list[tuple[str, str, bytes | None]] = []
        self._copied: list[str] = []
        self._real = SimpleNamespace(
            replace=os.replace, fsync=os.fsync, unlink=os.unlink, open=io.open, truncate=os.truncate,
            mkdir=os.mkdir, copyfile=shutil.copyfile,
        )  # fmt: skip

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(os, "replace", self._replace)
        patch.setattr(os, "rename", self._replace)
        patch.setattr(os, "fsync", self._fsync)
        patch.setattr(os, "unlink", self._unlink)
        patch.setattr(os, "remove", self._unlink)
        patch.setattr(os, "mkdir", self._mkdir)
        patch.setattr(io, "open", self._open)
        patch.setattr(shutil, "copyfile", self._copyfile)

    def step(self, name: str) -> None:
        if self._stopped or len(self.steps) == self._stops_at:
            self._stopped = True
            raise PowerCutError(name)
        self.steps.append(name)

    def forget(self, data: bool, names: bool) -> None:
        """Lose what was not synced: the data of files, renames and copies."""
        if data:
            for path in self._unsynced:
                if Path(path).exists():
                    self._real.truncate(path, 0)
        if names:
            for source, target, old in reversed(self._renamed):
                self._real.replace(target, source)
                if old is not None:
                    Path(target).write_bytes(old)
            for path in reversed(self._copied):
                shutil.rmtree(path, ignore_errors=True)
                Path(path).unlink(missing_ok=True)

    def _replace(self, source: Any, target: Any) -> None:
        self.step("before rename")
        old = Path(target).read_bytes() if Path(target).exists() else None
        self._real.replace(source, target)
        self._renamed.append((os.fspath(source), os.fspath(target), old))
        if os.fspath(source) in self._unsynced:
            self._unsynced.add(os.fspath(target))
        self.step("after rename")

    def _fsync(self, file: int) -> None:
        self.step("before fsync")
        self._real.fsync(file)
        path = os.fspath(Path(f"/proc/self/fd/{file}").readlink())
        self._unsynced.discard(path)
        self._renamed = [move for move in self._renamed if os.fspath(Path(move[1]).parent) != path]
        self._copied = [made for made in self._copied if os.fspath(Path(made).parent) != path]
        self.step("after fsync")

    def _mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._real.mkdir(path, mode)
        self._copied.append(os.fspath(path))
        self.step("after mkdir")

    def _copyfile(self, source: Any, target: Any) -> None:
        self.step("before copy")
        self._real.copyfile(source, target)
        self._unsynced.add(os.fspath(target))
        self._copied.append(os.fspath(target))
        self.step("after copy")

    def _unlink(self, path: Any, **how: Any) -> None:
        self.step("before unlink")
        self._real.unlink(path, **how)
        self.step("after unlink")

    def _open(self, path: Any, mode: str = "r", *how: Any, **more: Any) -> Any:
        if "w" not in mode or not os.fspath(path).startswith(self._folder):
            return self._real.open(path, mode, *how, **more)
        self.step("before create")
        self._unsynced.add(os.fspath(path))
        return _Written(self, self._real.open(path, mode, *how, **more))


class _Written:
    """A file whose every write is three steps."""

    def __init__(self, machine: Machine, file: Any) -> None:
        self._machine, self._file = machine, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *how: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        half = len(data) // 2
        for name, part in (("before write", data[:half]), ("half written", data[half:])):
            self._machine.step(name)
            self._file.write(part)
            self._file.flush()
        self._machine.step("after write")


def facts(path: Path) -> tuple[Any, ...]:
    """Everything a reader can see, in a comparable form."""
    sweep = mpisweep.load(path)
    curves = [[part.tolist() for part in sweep.curve(n, "loss")] for n in range(len(sweep.trials))]
    rows = [[repr(value) for value in row.tolist()] for row in sweep.trials]
    return (
        rows,
        sweep.trials.names,
        repr(sweep.attempts),
        repr(sweep.workers),
        repr(sweep.allocations),
        curves,
    )


def prepare(folder: Path, fine: list[Disk], kind: str) -> Path:
    """Prepare a sweep to compact: a journal of several segments, with or without a file that covers its start."""
    path = folder / "s.h5"
    journal_folder(path).mkdir()
    last = len(fine) - 1 if kind == "the first file" else len(fine) // 2
    for at in {last, len(fine) - 1}:
        for name, data in fine[at].after_crash(set()).items():
            if data:
                (journal_folder(path) / name).write_bytes(data)
        if at != len(fine) - 1:
            compact(path)
    return path


KINDS = ["the first file", "a file replaced", "the last fold"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_results_survive_a_compaction_cut_at_any_step(fine, tmp_path, kind):
    """The machine stops before and after every step, with and without losing unsynced data."""
    (tmp_path / "made").mkdir()
    made = prepare(tmp_path / "made", fine, kind)
    whole = facts(made)
    names = segments(journal_folder(made))
    assert len(names) > 2

    def cut_compaction(stops_at: int | None, data: bool, names_too: bool) -> list[str]:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made.parent, folder)
        machine = Machine(folder, stops_at)
        with pytest.MonkeyPatch.context() as patch:
            machine.install(patch)
            try:
                compact_and_close(folder / "s.h5") if kind == "the last fold" else compact(
                    folder / "s.h5", names[-1]
                )
            except PowerCutError:
                assert stops_at is not None
        machine.forget(data, names_too)
        told = f"cut at step {stops_at} {machine.steps}, data lost: {data}, names lost: {names_too}"
        assert facts(folder / "s.h5") == whole, told
        compact(folder / "s.h5", names[-1])
        assert facts(folder / "s.h5") == whole, f"{told}, and compacted again"
        compact_and_close(folder / "s.h5")
        assert facts(folder / "s.h5") == whole, f"{told}, and compacted completely"
        assert segments(journal_folder(folder / "s.h5")) == []
        return machine.steps

    steps = cut_compaction(None, False, False)
    assert {"before write", "half written", "after fsync", "after rename", "before unlink"} <= set(steps)
    assert steps.index("before create") < steps.index("before write") < steps.index("before rename")
    for stops_at, data, names_too in itertools.product(range(len(steps)), [False, True], [False, True]):
        cut_compaction(stops_at, data, names_too)


def test_damaged_segments_are_kept_by_a_compaction_cut_at_any_step(fine, tmp_path):
    """A damaged segment stays in the journal until its copy, with folder and name, is on the disk."""
    (tmp_path / "made").mkdir()
    made = prepare(tmp_path / "made", fine, "the first file")
    hurt = journal_folder(made) / segments(journal_folder(made))[0]
    data = bytearray(hurt.read_bytes())
    data[len(frame(encode(RUN))) + 20] ^= 1
    hurt.write_bytes(data)

    def cut_last_compaction(stops_at: int | None, lost: bool, names_too: bool) -> list[str]:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made.parent, folder)
        machine = Machine(folder, stops_at)
        with pytest.MonkeyPatch.context() as patch:
            machine.install(patch)
            with contextlib.suppress(PowerCutError):
                compact_and_close(folder / "s.h5")
        machine.forget(lost, names_too)
        kept = [
            path.read_bytes()
            for path in (*journal_folder(folder / "s.h5").iterdir(), *folder.glob("s.h5.damaged/*"))
        ]
        told = f"cut at step {stops_at} {machine.steps}, data lost: {lost}, names lost: {names_too}"
        assert bytes(data) in kept, told
        return machine.steps

    steps = cut_last_compaction(None, True, True)
    assert steps.index("after mkdir") < steps.index("after copy") < steps.index("before unlink")
    for stops_at, lost, names_too in itertools.product(range(len(steps)), [False, True], [False, True]):
        cut_last_compaction(stops_at, lost, names_too)


def test_files_that_an_interrupted_compaction_leaves_are_not_results_files(fine, tmp_path):
    """The path refers to the old file until the new one is complete."""
    path = prepare(tmp_path, fine, "a file replaced")
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(tmp_path, 2)
        machine.install(patch)
        with pytest.raises(PowerCutError):
            compact(path)
    assert machine.steps == ["before create", "before write"]
    assert path.read_bytes() == before
