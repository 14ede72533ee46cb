"""Long curves: opening and merging neither read nor hold them, and lose none."""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import load_script
from test_curves import METRICS, records
from test_results import SPEC, facts, opening, write_journal

import mpisweep
from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, ReportBlock
from mpisweep.master.known import known_trials
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.compaction import compact, compact_and_close
from mpisweep.results.file import image, stored
from mpisweep.results.journal.reader import read_journal
from mpisweep.results.journal.segments import segments
from mpisweep.results.journal.writer import Journal
from mpisweep.results.merged import read_merged
from mpisweep.results.repair import repair
from mpisweep.results.reports import Reading
from mpisweep.results.shares import merging
from mpisweep.results.shares.folder import SharedSweep, create_shares, part_file, take_lease
from mpisweep.results.shares.leases import Lease
from mpisweep.results.shares.merging import read_sweep, write_whole
from mpisweep.spec import parse_spec

#: Reports per trial and metric in the small sweep, and the factor between it and the large one.
REPORTS, TIMES = 200, 10
TRIALS = 400

memory = load_script("benchmarks/memory.py")


def split(path: Path) -> Path:
    """Split a sweep between two members, each with half of the trials in its part; return the shares folder."""
    count = mpisweep.load(path).trials["state"].size
    halves = [list(range(0, count, 2)), list(range(1, count, 2))]
    folder = shares_folder(path)
    create_shares(
        folder, SharedSweep(SPEC, "sweep.toml", 2, count, "digest", halves), path.with_name("nothing.h5")
    )
    for chunk, (member, numbers) in enumerate(zip("ab", halves, strict=True)):
        none = (0,) * len(numbers)
        assert take_lease(folder, Lease(chunk, 1, member, tuple(numbers), none, none))
        part = part_file(folder, member)
        journal_folder(part).mkdir()
        if path.exists():
            os.link(path, part)
        for name in segments(journal_folder(path)):
            os.link(journal_folder(path) / name, journal_folder(part) / name)
    for name in segments(journal_folder(path)):
        (journal_folder(path) / name).unlink()
    path.unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of sweeps, one per place of the curves (file, journal, split) and length of the curves."""
    folder = tmp_path_factory.mktemp("made")
    for times in (1, TIMES):
        write_journal(folder / f"journal-{times}.h5", records(TRIALS, REPORTS * times // 2), opening())
        path = folder / f"file-{times}.h5"
        write_journal(path, records(TRIALS, REPORTS * times // 2), opening())
        compact_and_close(path)
        split_path = folder / f"split-{times}.h5"
        os.link(path, split_path)
        split(split_path)
    write_journal(folder / "small.h5", records(4, 2), opening())
    return folder


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("open", "file"),
        ("open", "split"),
        ("compact", "file"),
        ("compact", "journal"),
        ("merge", "split"),
    ],
)
def test_memory_does_not_grow_with_the_length_of_the_curves(made, what, where, tell):
    few, many = (
        memory.measure(what, made / f"{where}-{times}.h5", after=made / "small.h5")["memory"]
        for times in (1, TIMES)
    )
    curves = 24 * TRIALS * REPORTS * len(METRICS)
    tell(
        f"{what}, {where}: {few / 1e6:.1f} MB with {curves / 1e6:.0f} MB of curves, {many / 1e6:.1f} MB "
        f"with {TIMES} times that"
    )
    # The allocator and the libraries round up: allow 2 MB.
    assert many < 1.5 * few + 2e6
    assert many < curves * TIMES / 3


@pytest.mark.parametrize("where", ["file", "split"])
def test_opening_reads_no_curves(made, where, tell):
    few, many = (
        memory.measure("open", made / f"{where}-{times}.h5", after=made / "small.h5")["read"]
        for times in (1, TIMES)
    )
    tell(f"opening, {where}: reads {few} bytes, and {many} where curves are {TIMES} times as long")
    assert many < 1.01 * few
    assert few < 24 * TRIALS * REPORTS


# ------------------------------------------------------------------------------------- no curve is lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.h5"


def rerun_records(number: int) -> list[object]:
    """Records of a later attempt: no change for an ended trial; otherwise two more reports and an end."""
    steps = array("q", [100, 101])
    curves = {"loss": Curve(steps, array("d", [5.0, 4.0]), array("d", [1.0, 2.0]))}
    return [
        AssignedBlock([[1, 0]], 1002.0, [number], [1], {"x": number + 1, "mode": "fast"}),
        ReportBlock(1, number, 1, curves, 0),
        EndedBlock(1, 0, [number], [1], [2], [1003.0], [1.0], {"loss": [0.5]}),
    ]


def all_curves(path: Path) -> list[list[list[float]]]:
    sweep = mpisweep.load(path)
    return [
        [c.tolist() for c in sweep.curve(n, m)] for n in range(len(sweep.trials)) for m in sweep.curve_names
    ]


def grow(path: Path) -> None:
    """Make a file with the curves of every other trial, and a journal with more curves, from two epochs."""
    whole = records(12, 3)
    kept = [
        r
        for r in whole
        if getattr(r, "number", 0) % 2 == 0
        and [n % 2 for n in getattr(r, "numbers", [0])] in ([0], [0, 1] * 6)
    ]
    write_journal(path, kept, opening())
    compact_and_close(path)
    again = replace(opening(), epoch=1)
    write_journal(path, [*rerun_records(3), *rerun_records(11), *rerun_records(1)], again)


@pytest.mark.parametrize("window", [1, 7, 8192])
def test_curves_are_the_same_wherever_they_are_read_from(path, monkeypatch, window):
    monkeypatch.setattr(stored, "_WINDOW", window)
    grow(path)
    held, placed = read_merged(path), read_merged(path, reading=Reading.PLACES)
    assert sorted(placed.curve_names) == sorted(held.curve_names) == sorted(METRICS)
    lengths = set()
    for number in [*range(12), *reversed(range(12))]:
        for metric in METRICS:
            assert placed.curve(number, metric) == held.curve(number, metric)
            lengths.add(len(held.curve(number, metric).step))
    assert lengths == {0, 2, 6}
    placed.curves.close()
    before = all_curves(path)
    compact(path)
    assert all_curves(path) == before
    compact_and_close(path)
    assert all_curves(path) == before


@pytest.mark.parametrize("metric", METRICS)
def test_curves_in_another_tool_s_storage_layout_are_copied(path, metric):
    grow(path)
    compact_and_close(path)
    before = all_curves(path)
    other = path.with_name("other.h5")
    with h5py.File(path) as file, h5py.File(other, "w") as copy:
        copy.attrs.update(file.attrs)
        for name in file:
            file.copy(name, copy)
        for name, kind in (("step", "<i4"), ("value", ">f8"), ("time", "<f8")):
            samples = copy[f"curves/{metric}/{name}"][()].astype(kind)
            del copy[f"curves/{metric}/{name}"]
            copy.create_dataset(f"curves/{metric}/{name}", data=samples, compression="gzip", chunks=(5,))
    assert all_curves(other) == before
    write_journal(other, rerun_records(5), replace(opening(), epoch=2))
    with_more = all_curves(other)
    compact(other)
    assert all_curves(other) == with_more != before
    with h5py.File(other) as file:
        assert file[f"curves/{metric}/step"].dtype == np.dtype("<i8")
        assert file[f"curves/{metric}/value"].dtype == np.dtype("<f8")


def test_samples_that_cannot_be_decompressed_do_not_prevent_opening(path):
    grow(path)
    compact_and_close(path)
    other = path.with_name("other.h5")
    with h5py.File(path) as file, h5py.File(other, "w") as copy:
        copy.attrs.update(file.attrs)
        for name in file:
            file.copy(name, copy)
        samples = copy["curves/loss/value"][()]
        del copy["curves/loss/value"]
        copy.create_dataset("curves/loss/value", data=samples, compression="gzip", chunks=(5,))
        chunk = copy["curves/loss/value"].id.get_chunk_info(3)
    write_journal(other, rerun_records(5), replace(opening(), epoch=2))
    with other.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    assert read_sweep(other, reading=Reading.TABLES).count == 12
    with pytest.raises(ResultsError, match=r"other\.h5: is damaged .*; run `mpisweep repair"):
        compact(other)
    assert sorted(os.listdir(path.parent)) == ["other.h5", "other.h5.journal", "s.h5", "s.h5.journal"]
    assert "/curves/loss" in repair(other).lost
    assert mpisweep.load(other).curve(5, "loss").value.tolist() == [5.0, 4.0]


def test_no_curve_is_lost_when_members_rewrite_their_parts_during_the_merge(path, monkeypatch):
    """Between the reading and the copy each member replaces its file and removes its segments."""
    grow(path)
    folder = split(path)
    # Both members have the same file, and each counts for the trials of its lease.
    before = all_curves(path)
    assert sum(len(curve[0]) for curve in before) > 0
    write_file = merging.write_file

    def write_later(*arguments, **more):
        for member in "ab":
            part = part_file(folder, member)
            compact_and_close(part)
            assert segments(journal_folder(part)) == []
        return write_file(*arguments, **more)

    monkeypatch.setattr(merging, "write_file", write_later)
    write_whole(path, folder)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "shares_folder", lambda path: path / "none")
        assert all_curves(path) == before
    assert [name for name in os.listdir(folder) if name.startswith("merge-")] == []


def test_curves_are_not_read_from_a_file_or_segment_that_was_replaced_since(path):
    grow(path)
    state = read_merged(path, reading=Reading.PLACES)
    os.replace(path, path.with_name("old.h5"))
    write_journal(path.with_name("t.h5"), records(12, 5), opening())
    compact_and_close(path.with_name("t.h5"))
    os.replace(path.with_name("t.h5"), path)
    with pytest.raises(OSError, match="was replaced"):
        state.curve(0, "loss")
    name = segments(journal_folder(path))[0]
    segment = journal_folder(path) / name
    os.replace(segment, path.with_name("segment"))
    with pytest.raises(FileNotFoundError):
        state.curve(3, "loss")
    segment.write_bytes(bytes(path.with_name("segment").stat().st_size))
    with pytest.raises(OSError, match="was changed"):
        state.curve(3, "loss")
    state.curves.close()


# ------------------------------------------------------------------------------------- checksums


def damage_samples(path: Path) -> None:
    """Overwrite every sample of every curve, and nothing else."""
    with h5py.File(path) as file:
        places = [
            (d.id.get_offset(), d.nbytes)
            for m in METRICS
            for n in ("step", "value", "time")
            if (d := file[f"curves/{m}/{n}"])
        ]
    with path.open("r+b") as file:
        for at, length in places:
            file.seek(at)
            file.write(b"\xee" * length)


def test_damaged_samples_are_found_when_they_are_read(path):
    grow(path)
    whole = facts(path)
    damage_samples(path)
    spec = parse_spec(SPEC, source="sweep.toml", folder=path.parent)
    known = known_trials(spec, path)
    assert known is not None
    assert [state == 2 for state in known.states] == [n % 2 == 0 or n in (1, 3, 11) for n in range(12)]
    before = path.read_bytes()
    with pytest.raises(ResultsError, match="is damaged; run `mpisweep repair"):
        mpisweep.load(path)
    with pytest.raises(ResultsError, match="is damaged; run `mpisweep repair"):
        compact(path)
    assert path.read_bytes() == before
    assert len(segments(journal_folder(path))) == 1
    assert repair(path).is_changed
    assert facts(path)["trials"] == whole["trials"]
    assert mpisweep.load(path).curve(3, "loss").value.tolist() == [5.0, 4.0]


def test_any_other_changed_byte_is_found_by_opening(path):
    grow(path)
    with h5py.File(path) as file:
        places = sorted(
            (d.id.get_offset(), d.nbytes)
            for m in METRICS
            for n in ("step", "value", "time")
            if (d := file[f"curves/{m}/{n}"])
        )
    data = bytearray(path.read_bytes())
    samples = {n for at, length in places for n in range(at, at + length)}
    others = [n for n in range(len(data)) if n not in samples]
    # Opening ignores the last 16 bytes, the checksum of the whole file, if the checksums before them match.
    for at in [*others[::499], *others[-200:-8]]:
        data[at] ^= 4
        path.write_bytes(data)
        with pytest.raises(ResultsError):
            read_sweep(path, reading=Reading.TABLES)
        data[at] ^= 4
    path.write_bytes(data)
    assert read_sweep(path, reading=Reading.TABLES).count == 12


def test_file_checksums_are_compatible_with_earlier_versions_in_both_directions(path):
    grow(path)
    data = path.read_bytes()
    magic, length, checksum = struct.unpack("<4sQI", data[-16:])
    assert (magic, length) == (b"mSt1", len(data) - 16)
    assert checksum == zlib.crc32(data[:-16])
    with h5py.File(path) as file:
        size = (
            int.from_bytes(data[40:48], "little") if data[8] == 0 else int.from_bytes(data[28:36], "little")
        )
        assert file.attrs["format_version"] == 1
    before = facts(path)
    earlier = data[:size]
    path.write_bytes(earlier + struct.pack("<4sQI", b"mSt1", len(earlier), zlib.crc32(earlier)))
    assert facts(path) == before
    assert read_sweep(path, reading=Reading.TABLES).count == 12
    damage_samples(path)
    with pytest.raises(ResultsError, match="is damaged"):
        read_sweep(path, reading=Reading.TABLES)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 100_000))
def test_the_checksum_of_two_stretches_is_computed_from_their_checksums(first, second, zeros):
    second += bytes(zeros)
    assert image._combined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


# ------------------------------------------------------------------------------------- the journal


def test_a_backlog_from_a_missing_disk_is_split_into_segments_of_the_usual_size(path, monkeypatch):
    from mpisweep.results.journal import writer as module

    monkeypatch.setattr(module, "_PART_BYTES", 1 << 16)
    monkeypatch.setattr(module, "_COMMIT_BYTES", 1 << 16)
    folder = journal_folder(path)
    folder.mkdir()
    (path.parent / "token").mkdir()
    journal = Journal(folder, opening(), path.parent / "token")
    bodies = [mpisweep.blocks.encode(record) for record in records(300, 60)]
    for body in bodies:
        journal.append(body)
    journal.start()
    journal.close()
    journal.join()
    sizes = [(folder / name).stat().st_size for name in segments(folder)]
    assert sum(sizes) > 20 * (1 << 16)
    assert max(sizes) < 3 * (1 << 16)
    assert [
        mpisweep.blocks.encode(e.record) for e in read_journal(folder, {}, []) if e.record.kind != "run"
    ] == bodies


def test_reading_a_segment_does_not_depend_on_the_size_of_the_buffer(path, monkeypatch):
    from mpisweep.results.journal import reader as module

    write_journal(path, records(60, 5), opening())
    [name] = segments(journal_folder(path))
    segment = journal_folder(path) / name
    data = bytearray(segment.read_bytes())
    for at in (2000, 9000, 9100, 20_000):
        data[at] ^= 1
    data[30_000:30_000] = b"mSj1 mSj1" + struct.pack("<4sII", b"mSj1", 5000, 1) + b'{"kind":' * 3
    segment.write_bytes(data)
    found = []
    for held in (1, 13, 1000, 1 << 20):
        monkeypatch.setattr(module, "_HELD_BYTES", held)
        damages: list[object] = []
        entries = [
            (e.start, e.end, mpisweep.blocks.encode(e.record))
            for e in read_journal(journal_folder(path), {}, damages)
        ]
        found.append((entries, damages))
    assert len(found[0][0]) > 50
    assert len(found[0][1]) == 4
    assert all(one == found[0] for one in found)
    damages = []
    whole = [
        (e.start, e.end, mpisweep.blocks.encode(e.record))
        for e in module.read_segment(name, bytes(data), 0, damages)
    ]
    assert found[0] == (whole, damages)


def test_opening_reads_no_sample_from_hdf5(path, monkeypatch):
    grow(path)
    read: list[str] = []
    for name in ("__getitem__", "read_direct"):
        usual = getattr(h5py.Dataset, name)

        def noted(dataset, *arguments, usual=usual):
            read.append(dataset.name)
            return usual(dataset, *arguments)

        monkeypatch.setattr(h5py.Dataset, name, noted)
    read_merged(path, reading=Reading.TABLES)
    columns = ("step", "value", "time")
    assert any(name.startswith("/curves/") for name in read)
    assert not [name for name in read if name.startswith("/curves/") and name.endswith(columns)]
