"""Data is read once, checked on the way, and copied to every node: sources, streams, copies, real runs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from disks import Disk
from started import remember
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import HOSTS_VARIABLE, machine_id
from mpisweep.rank.staging import Staging, StagingOrder
from mpisweep.rank.transport import LoneTransport
from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.preflight import check_startable
from mpisweep.staged.copies import Copy, make_room, remove_if_unused
from mpisweep.staged.manifest import Identity
from mpisweep.staged.places import choose_place, size_text
from mpisweep.staged.relay import BUFFERS, Relay
from mpisweep.staged.source import Entry, EntryKind, Source, StageError, open_source
from mpisweep.staged.stream import CHUNK_BYTES, FrameKind, frames
from mpisweep.staged.writer import CopyWriter
from mpisweep.workloads.stageddata import StagedData

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with large and small files, an empty folder, and links of every kind."""
    root = tmp_path / "data"
    (root / "b" / "empty").mkdir(parents=True)
    (root / "a.bin").write_bytes(os.urandom(CHUNK_BYTES + 5))
    for number in range(40):
        (root / "b" / f"{number:02d}").write_bytes(os.urandom(1000 * number))
    (root / "b" / "run.sh").write_text("#!/bin/sh\n")
    (root / "b" / "run.sh").chmod(0o755)
    (root / "b" / "ü\udce4").write_text("a name that is no UTF-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("from elsewhere")
    (root / "inside").symlink_to("b/01")
    (root / "b" / "absolute").symlink_to(root / "a.bin")
    (root / "out").symlink_to(elsewhere)
    (root / "dangling").symlink_to("nothing")
    return root


def identity(source: Source, host: str = "n1", boot: str = "boot") -> Identity:
    return Identity(os.path.realpath(source.path), source.key, host, boot)


def tree(root: Path) -> dict[str, object]:
    """Everything below a folder; links count as what they lead to."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        within = os.path.relpath(folder, root)
        found |= {f"{within}/{name}/": None for name in folders}
        for name in files:
            path = Path(folder, name)
            found[f"{within}/{name}"] = path.read_bytes() if path.exists() else os.fspath(path.readlink())
    return found


class Wire:
    """Links between nodes of this process, which carry chunks as MPI does: whole, in order."""

    def __init__(self, damages: Callable[[bytearray], None] = lambda _: None) -> None:
        self._links: dict[tuple[int, int], deque[bytes]] = {}
        self._damages = damages

    def end(self, rank: int) -> _WireEnd:
        return _WireEnd(self._links, rank, self._damages)


class _WireEnd:
    def __init__(self, links, rank: int, damages) -> None:
        self._links, self._rank, self._damages = links, rank, damages

    def send(self, rank: int, chunk: memoryview) -> _Sent:
        link = self._links.setdefault((self._rank, rank), deque())
        carried = bytearray(chunk)
        self._damages(carried)
        link.append(bytes(carried))
        return _Sent(link)

    def receive(self, rank: int, into: memoryview) -> _Received:
        return _Received(self._links.setdefault((rank, self._rank), deque()), into)


class _Sent:
    def __init__(self, link: deque[bytes]) -> None:
        self._link = link

    def is_done(self) -> bool:
        return not self._link


class _Received:
    def __init__(self, link: deque[bytes], into: memoryview) -> None:
        self._link, self._into = link, into

    def is_done(self) -> bool:
        if not self._link:
            return False
        chunk = self._link.popleft()
        self._into[: len(chunk)] = chunk
        return True


def stage_on(source: Source, copies: list[Copy], start: int = 0, wire: Wire | None = None) -> list[Relay]:
    """Stage on several nodes of this process, in line, and return their parts when all are over."""
    wire = wire or Wire()
    relays = [
        Relay(
            wire.end(rank),
            rank - 1 if rank else (source, start),
            rank + 1 if rank + 1 < len(copies) else None,
            None if copy.is_complete else CopyWriter(copy, start),
        )
        for rank, copy in enumerate(copies)
    ]
    wait_for(lambda: not [relay for relay in relays if relay.step() or not relay.is_over])
    return relays


# ------------------------------------------------------------------------------------- from source to copies


def test_every_node_of_a_line_has_the_same_data_and_the_source_is_read_once(data, tmp_path):
    (data / "c.bin").write_bytes(os.urandom(2 * CHUNK_BYTES))
    source = open_source(data)
    copies = [Copy.claim(tmp_path, identity(source, host)) for host in ("n1", "n2", "n3")]
    relays = stage_on(source, copies)
    expected = tree(data)
    for copy, relay in zip(copies, relays, strict=True):
        assert relay.failure == ""
        assert copy.is_complete
        assert tree(copy.data) == expected
        assert (copy.data / "inside").readlink() == Path("b/01")
        assert (copy.data / "b" / "absolute").readlink() == Path("../a.bin")
        assert os.access(copy.data / "b" / "run.sh", os.X_OK)
        assert (copy.data / "a.bin").stat().st_mtime_ns == (data / "a.bin").stat().st_mtime_ns
        assert (copy.folder.stat().st_mode & 0o777) == 0o700
    assert source.read_bytes == source.size_bytes
    assert source.files == len([path for path in expected if not path.endswith("/")]) - 3


def test_nodes_hold_a_bounded_number_of_chunks_however_slow_a_disk_is(data):
    """A writer that stands still stops the line; it does not fill the memory."""
    goes_on: list[bool] = []

    class Slow:
        def write(self, chunk: memoryview) -> None:
            wait_for(lambda: goes_on)

        def close(self) -> None:
            pass

    (data / "c.bin").write_bytes(bytes(8 * CHUNK_BYTES))
    source, wire = open_source(data), Wire()
    relays = [Relay(wire.end(0), (source, 0), 1, None), Relay(wire.end(1), 0, None, Slow())]
    idle = 0
    # Threads fill the buffers meanwhile.
    while idle < 200:
        moved = [relay.step() for relay in relays]
        idle = 0 if any(moved) else idle + 1
        time.sleep(1e-3)
    assert relays[1].moved <= BUFFERS
    goes_on.append(True)
    wait_for(lambda: not [relay for relay in relays if relay.step() or not relay.is_over])
    assert relays[1].moved > 2 * BUFFERS


def test_a_file_that_arrives_damaged_is_not_complete(data, tmp_path):
    source = open_source(data)

    def damage(chunk: bytearray) -> None:
        for frame in frames(memoryview(chunk)):
            if frame.kind is FrameKind.CONTENT:
                frame.body[-1] ^= 1
                return

    copies = [Copy.claim(tmp_path, identity(source, host)) for host in ("n1", "n2")]
    relays = stage_on(source, copies, wire=Wire(damage))
    assert relays[0].failure == ""
    assert relays[1].failure == "a.bin: arrived damaged; run the same command again"
    assert [copy.is_complete for copy in copies] == [True, False]


def test_a_source_that_changes_or_vanishes_ends_the_stream_in_one_sentence(data, tmp_path):
    for change, expected in (
        (lambda: (data / "b" / "39").write_bytes(b"shorter"), "b/39: changed while it was staged"),
        (lambda: shutil.rmtree(data / "b"), "b/00: cannot be read: No such file or directory"),
    ):
        source = open_source(data)
        change()
        copy = Copy.claim(tmp_path, identity(source))
        (relay,) = stage_on(source, [copy])
        assert relay.ended[0] is FrameKind.FAILURE
        assert expected in relay.ended[1]
        assert not copy.is_complete
        copy.leave()


def test_every_change_of_a_source_changes_its_key(data):
    key = open_source(data).key
    os.utime(data / "b" / "01", ns=(1, 1))
    keys = {key, open_source(data).key}
    (data / "b" / "02").rename(data / "b" / "renamed")
    keys.add(open_source(data).key)
    (data / "inside").unlink()
    (data / "inside").symlink_to("b/03")
    keys.add(open_source(data).key)
    assert len(keys) == 4


def test_a_link_that_leads_back_is_refused_and_special_files_are_left_out(data, tmp_path):
    os.mkfifo(data / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(os.fspath(data / "s"))
    source = open_source(data)
    assert source.skipped == 2
    assert not {"pipe", "s"} & {entry.path for entry, _ in source.entries() if entry.kind is EntryKind.FILE}
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StageError, match="is a link to a folder that contains it"):
        open_source(data)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_file_is_unpacked_while_it_is_read(data, tmp_path, mode):
    (data / "a.bin").write_bytes(bytes(100_000))
    (data / "out").unlink()
    (data / "b" / "absolute").unlink()
    os.link(data / "b" / "05", data / "hard")
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, mode) as packed:
        packed.add(data, arcname="images")
    source = open_source(archive)
    assert source.is_compressed == (mode != "w")
    copies = [Copy.claim(tmp_path, identity(source, host)) for host in ("n1", "n2")]
    assert [relay.failure or relay.ended[1] for relay in stage_on(source, copies)] == ["", ""]
    for copy in copies:
        assert tree(copy.data / "images") == tree(data)
        assert (copy.data / "images" / "hard").samefile(copy.data / "images" / "b" / "05")
    if mode == "w":
        assert source.read_bytes <= source.size_bytes + 64 * 1024


def _tar(path: Path, *members: tuple[str, bytes, str]) -> Path:
    with tarfile.open(path, "w") as packed:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = 4 if kind == tarfile.REGTYPE else 0
            packed.addfile(member, io.BytesIO(b"evil"))
    return path


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("../out", tarfile.REGTYPE, "")], "has the member '../out', which lies outside of it"),
        ([("/etc/out", tarfile.REGTYPE, "")], "has the member '/etc/out', which lies outside of it"),
        ([("l", tarfile.SYMTYPE, "../..")], "has the link 'l' to '../..', which lies outside of it"),
        ([("l", tarfile.SYMTYPE, "/etc")], "has the link 'l' to '/etc', which lies outside of it"),
        ([("h", tarfile.LNKTYPE, "../lock")], "has the link 'h' to '../lock', which lies outside of it"),
    ],
)
def test_a_tar_file_cannot_write_outside_of_the_copy(tmp_path, members, expected):
    source = open_source(_tar(tmp_path / "evil.tar", *members))
    copy = Copy.claim(tmp_path, identity(source))
    (relay,) = stage_on(source, [copy])
    assert expected in relay.ended[1] + relay.failure
    assert not list(tmp_path.rglob("out"))


def test_links_in_a_tar_file_cannot_lead_out_together(tmp_path):
    """Each alone stays inside."""
    archive = _tar(
        tmp_path / "evil.tar",
        ("a/b", tarfile.DIRTYPE, ""),
        ("a/b/up", tarfile.SYMTYPE, "../.."),
        ("up", tarfile.SYMTYPE, "a/b/up/.."),
        ("up/out", tarfile.REGTYPE, ""),
    )
    source = open_source(archive)
    (relay,) = stage_on(source, [Copy.claim(tmp_path, identity(source))])
    assert relay.failure == "up leads out of the data through a link; nothing is staged"
    assert not list(tmp_path.rglob("out"))


def test_a_damaged_tar_file_is_reported_in_one_sentence(data, tmp_path):
    (data / "a.bin").write_bytes(os.urandom(100_000))
    archive = tmp_path / "data.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(data, arcname="images")
    archive.write_bytes(archive.read_bytes()[:-300_000])
    source = open_source(archive)
    (relay,) = stage_on(source, [Copy.claim(tmp_path, identity(source))])
    assert relay.ended[0] is FrameKind.FAILURE
    assert relay.ended[1].startswith(f"{archive}: is damaged: ")
    (tmp_path / "no.tar").write_text("no tar file")
    with pytest.raises(StageError, match="is neither a folder nor a tar file"):
        open_source(tmp_path / "no.tar")
    with pytest.raises(StageError, match="does not exist; --stage-data takes a folder or a tar file"):
        open_source(tmp_path / "missing")


# ------------------------------------------------------------------------------------- copies


def _interrupted(source: Source, place: Path, entries: int, host: str = "n1") -> Identity:
    """Leave what a writer that was killed within an entry leaves, as the kernel closes its lock."""
    whose = identity(source, host)
    copy = Copy.claim(place, whose)
    stage_on(source, [copy])
    manifest = copy.folder / "manifest"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[: 1 + entries]) + lines[1 + entries][:7])
    os.close(copy._lock)
    return whose


def test_a_partial_copy_continues_behind_its_last_complete_entry(data, tmp_path):
    whose = _interrupted(source := open_source(data), tmp_path, 10)
    (tmp_path / whose.name / "data" / "b" / "30").write_bytes(b"partial")
    copy = Copy.claim(tmp_path, whose)
    assert (copy.entries, copy.is_complete) == (10, False)
    again = open_source(data)
    stage_on(again, [copy], start=10)
    assert copy.is_complete
    assert tree(copy.data) == tree(data)
    assert again.read_bytes == source.size_bytes - copy.size_bytes
    os.close(copy._lock)
    found = Copy.claim(tmp_path, whose)
    assert found.is_complete


def test_nodes_with_more_than_others_skip_what_they_have(data, tmp_path):
    source = open_source(data)
    names = [_interrupted(source, tmp_path, count, host) for count, host in ((5, "n1"), (20, "n2"))]
    copies = [Copy.claim(tmp_path, whose) for whose in names]
    kept = copies[1].data / "b" / "03"
    # While it is open, no other file can get its inode.
    with kept.open("rb") as opened:
        stage_on(open_source(data), copies, start=5)
        assert os.path.samestat(os.fstat(opened.fileno()), kept.stat())
    assert all(copy.is_complete and tree(copy.data) == tree(data) for copy in copies)


@pytest.mark.parametrize("change", ["boot", "key", "file", "manifest"])
def test_a_copy_that_may_be_wrong_is_made_again(data, tmp_path, change):
    source = open_source(data)
    whose = identity(source)
    copy = Copy.claim(tmp_path, whose)
    stage_on(source, [copy])
    os.close(copy._lock)
    if change == "file":
        (copy.data / "a.bin").write_bytes(b"shorter")
    elif change == "manifest":
        (copy.folder / "manifest").write_bytes(b"\0" * 100)
    else:
        whose = replace(whose, **{change: "another"})
    found = Copy.claim(tmp_path, whose)
    assert (found.folder, found.entries, found.is_complete) == (copy.folder, 0, False)


def test_the_last_user_removes_a_copy_and_a_complete_one_is_shared(data, tmp_path):
    source = open_source(data)
    first = Copy.claim(tmp_path, identity(source))
    # Another run must not wait for this one, nor use what is not complete.
    other = Copy.claim(tmp_path, identity(source))
    assert other.folder != first.folder
    other.leave()
    assert not other.folder.exists()
    stage_on(source, [first])
    first.share()
    joined = Copy.join(first.folder, identity(source))
    second = Copy.claim(tmp_path, identity(source))
    assert second.folder == first.folder
    assert second.is_complete
    for copy in (first, joined):
        copy.leave()
        assert second.folder.exists()
    changed = Copy.claim(tmp_path, replace(identity(source), key="changed"))
    assert changed.folder != second.folder
    second.leave()
    assert not second.folder.exists()


def test_copies_that_no_process_uses_are_removed_unless_they_are_kept_or_not_ours(data, tmp_path):
    source = open_source(data)
    others = [replace(identity(source), source=f"/other/{number}") for number in range(3)]
    stale, kept, used = [Copy.claim(tmp_path, whose) for whose in others]
    kept.keep()
    for copy in (stale, kept):
        os.close(copy._lock)
    whose = _interrupted(source, tmp_path, 10)
    foreign = tmp_path / f"{whose.own}0123"
    foreign.mkdir(mode=0o755)
    # What is there of this copy counts, and what there was before the source changed does not stay.
    held, removed = make_room(tmp_path, whose)
    assert removed == [stale.folder]
    assert held == Copy.claim(tmp_path, whose).size_bytes > 0
    outdated = _interrupted(source, tmp_path, 10, "n2")
    assert make_room(tmp_path, replace(outdated, key="changed")) == (0, [tmp_path / outdated.name])
    own = Copy.claim(tmp_path, identity(source))
    assert [copy.folder.exists() for copy in (stale, kept, used, own)] == [False, True, True, True]
    assert foreign.exists()
    assert not remove_if_unused(used.folder)


def test_a_folder_that_another_user_could_have_made_is_not_used(data, tmp_path):
    source = open_source(data)
    whose = identity(source)
    (tmp_path / whose.name).mkdir(mode=0o777)
    (tmp_path / whose.name).chmod(0o777)
    assert Copy.claim(tmp_path, whose).folder == tmp_path / f"{whose.name}.1"


def test_a_process_whose_copy_another_one_replaced_leaves_that_alone(data, tmp_path):
    """The kernel releases a lock before it changes its kind; what happens in between is done by hand here."""
    source = open_source(data)
    first = Copy.claim(tmp_path, identity(source))
    shutil.rmtree(first.folder)
    second = Copy.claim(tmp_path, identity(source))
    assert second.folder == first.folder
    with pytest.raises(StageError, match="another run removed the copy of the data; run the same command"):
        first.share()
    first.leave()
    assert second.data.exists()
    second.leave()
    assert not second.folder.exists()


def test_a_copy_that_is_gone_cannot_be_joined(data, tmp_path):
    source = open_source(data)
    copy = Copy.claim(tmp_path, identity(source))
    copy.leave()
    with pytest.raises(StageError, match="the copy of the data is gone"):
        Copy.join(copy.folder, identity(source))
    assert not copy.folder.exists()


def test_a_place_without_locks_is_refused_in_one_sentence(data, tmp_path, monkeypatch):
    source = open_source(data)
    copy = Copy.claim(tmp_path, identity(source))

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    before = os.listdir("/proc/self/fd")
    why = "cannot hold a copy: No locks available; set --stage-to to another folder"
    for use in (
        lambda: Copy.claim(tmp_path, identity(source)),
        lambda: Copy.join(copy.folder, identity(source)),
        copy.share,
    ):
        with pytest.raises(StageError, match=why):
            use()
    assert not remove_if_unused(copy.folder)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    copy.leave()


def test_a_writer_whose_files_cannot_be_closed_still_ends_its_part(data, tmp_path):
    """As with a file system that reports a failed write at the end."""
    source = open_source(data)
    copy = Copy.claim(tmp_path, identity(source))

    class Early(CopyWriter):
        def write(self, chunk: memoryview) -> None:
            super().write(chunk)
            if self._file >= 0:
                os.close(self._file)
                raise StageError("the disk is gone")

    relay = Relay(Wire().end(0), (source, 0), None, Early(copy, 0))
    wait_for(lambda: not (relay.step() or not relay.is_over))
    assert relay.failure == "the disk is gone"
    assert not copy.is_complete


# ------------------------------------------------------------------------------------- one rank's part


class Silent:
    """The data of a compressed tar file of which all nodes have a long first part."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._looks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    @property
    def read_bytes(self) -> int:
        """More with each look, so that the reader cannot be too slow for the watch."""
        self._looks += 1
        return self._looks

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        wait_for(lambda: self._looks > 200)
        yield from self._source.entries(start)


def test_a_reader_that_unpacks_what_all_nodes_have_is_not_given_up(data, tmp_path, monkeypatch):
    """Neither is a copy removed, nor SIGTERM caught, once the fork server is about to be closed."""
    monkeypatch.setattr("mpisweep.rank.staging.open_source", lambda path: Silent(open_source(path)))
    order = StagingOrder(data, os.fspath(tmp_path / "to"), (), keeps=False, boot="boot", patience_s=0.2)
    server = ForkServer.start()
    staging = Staging(order, LoneTransport(), server)
    try:
        assert staging.run(os.open(os.devnull, os.O_RDONLY)) is None
        assert staging.copy is not None
        assert tree(staging.copy.data) == tree(data)
    finally:
        staging.close()
        server.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    folder = staging.copy.folder
    assert folder.exists()
    staging.leave()
    assert not folder.exists()


# ------------------------------------------------------------------------------------- places and paths


def test_the_place_is_the_first_local_folder_with_room(tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    environment = {"PJM_LOCALTMP": os.fspath(local), "TMPDIR": os.fspath(tmp_path)}
    assert choose_place("", ["PJM_LOCALTMP"], environment, 1000).folder == local
    assert choose_place("", ["PJM_LOCALDIR"], environment, 1000).folder == tmp_path
    assert choose_place("", [], {}, 1000).folder == Path("/dev/shm")
    assert choose_place("$PJM_LOCALTMP/x", [], environment, 1000).folder == local / "x"
    # What is there already needs no room.
    assert choose_place("", [], {}, 10**18, lambda _: 10**18).folder == Path("/dev/shm")
    with pytest.raises(StageError, match=r"no node-local folder has room for 1e\+06 TB of data: .*TMPDIR"):
        choose_place("", [], environment, 10**18)
    with pytest.raises(StageError, match=r"has .* free, but the data takes 1e\+06 TB; set it to a larger"):
        choose_place(os.fspath(local), [], environment, 10**18)
    with pytest.raises(StageError, match=r"--stage-to \$NOWHERE/x: \$NOWHERE is not set on this node"):
        choose_place("$NOWHERE/x", [], environment, 1)
    assert [size_text(size) for size in (7, 999, 20_000, 3.1e8, 1.24e9, 5e13)] == [
        "7 bytes", "999 bytes", "20 kB", "310 MB", "1.2 GB", "50 TB",
    ]  # fmt: skip


def test_paths_in_the_source_become_paths_in_the_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    staged = StagedData(Path("/copy"), os.fspath(tmp_path / "real"))
    assert staged.local("real") == "/copy"
    assert staged.local("real/train") == "/copy/train"
    assert staged.local(os.fspath(tmp_path / "real" / "train")) == "/copy/train"
    assert staged.local("link/train") == "/copy/train"
    assert staged.local("realm/train") == "realm/train"
    assert staged.local("..") == ".."
    assert staged.local("") == ""
    assert (
        StagedData(Path("/copy"), os.fspath(tmp_path / "images.tar")).local("images.tar/val") == "/copy/val"
    )


def test_what_cannot_be_staged_is_refused_before_anything_starts(tmp_path):
    def check(head: str) -> None:
        text = f'workload = {{ command = "true {{x}} {{data}}" }}\n{head}\nparameters.x = [1, 2]\n'
        check_startable(parse_spec(text, source="s.toml", folder=tmp_path))

    with pytest.raises(SpecError, match=r"contains \{data\}, but nothing is staged; set stage_data"):
        check("")
    with pytest.raises(SpecError, match=r"stage_data: .*/images does not exist"):
        check('stage_data = "images"')
    (tmp_path / "images").mkdir()
    check('stage_data = "images"')


# ------------------------------------------------------------------------------------- real runs

TRIALS = """
import os, time
from pathlib import Path

def look(trial):
    assert os.environ["MPISWEEP_DATA"] == str(trial.data) != "data"
    files = [path for path in trial.data.rglob("*") if path.is_file()]
    host = trial.data.parent.name.split("-")[3]
    with open("where.txt", "a") as where:
        where.write(f"{host}\\n")
    while Path("wait").exists():
        time.sleep(0.01)
    return {"loss": sum(path.stat().st_size for path in files)}

def idle(trial):
    with open("where.txt", "a") as where:
        where.write("here\\n")
    while Path("wait").exists():
        time.sleep(0.01)
    return {"loss": 0.0}
"""


@pytest.fixture
def nodes(folder: Path, data: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Two nodes with two ranks each; the data is beside the sweep."""
    (folder / "look.py").write_text(TRIALS)
    for number in range(8):
        (data / f"c{number}").write_bytes(os.urandom(CHUNK_BYTES // 2))
    environment |= {HOSTS_VARIABLE: "n1,n2", "TMPDIR": os.environ["TMPDIR"]}
    return environment


def _copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("to/mpisweep-data-*"))


def _started(folder: Path, environment: dict[str, str], *command: str) -> subprocess.Popen[str]:
    with (folder / "stderr").open("w") as errors:
        return remember(
            subprocess.Popen(command, cwd=folder, env=environment, stderr=errors, stdout=errors, text=True)
        )


@pytest.mark.mpi
def test_after_a_kill_the_next_run_continues_and_one_after_that_reads_nothing(
    folder, data, nodes, mpisweep: Run, tmp_path
):
    disk = Disk(data, tmp_path)
    disk.be("slow 0.1")
    command = [
        "run",
        "look:look",
        "-n",
        "4",
        "--stage-data",
        os.fspath(data),
        "--stage-to",
        "to",
        "-o",
        "r.h5",
    ]
    run = _started(
        folder, nodes | disk.environment, sys.executable, "-m", "mpisweep", *command, "-p", "x=1:8"
    )

    def has_begun() -> bool:
        found = [copy / "manifest" for copy in _copies(folder)]
        return len(found) == 2 and all(path.exists() and path.read_bytes().count(b"\n") > 2 for path in found)

    wait_for(has_begun)
    for member in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    run.kill()
    run.wait()
    assert len(_copies(folder)) == 2
    size = open_source(data).size_bytes

    again = mpisweep(*command, "-p", "x=1:8", "--stage-keep")
    assert again.returncode == 0, again.stderr
    (line,) = [line for line in again.stderr.splitlines() if " once, wrote to 2 nodes in " in line]
    assert f"read {size_text(size)} once" not in line
    assert (
        package.load(folder / "r.h5").trials["loss"].tolist()
        == [sum(len(content) for content in tree(data).values() if isinstance(content, bytes))] * 8
    )
    assert set((folder / "where.txt").read_text().split()) == {"n1", "n2"}
    assert len(_copies(folder)) == 2

    third = mpisweep(*command, "-p", "x=1:9")
    assert third.returncode == 0, third.stderr
    assert f"{data}: complete copies are on 2 nodes" in third.stderr
    assert "reading" not in third.stderr
    assert _copies(folder) == []


@pytest.mark.mpi
def test_a_full_disk_on_one_node_ends_all_with_one_sentence(folder, data, nodes, mpisweep: Run, tmp_path):
    source = open_source(data)
    full = (
        folder / "to" / Identity(os.path.realpath(data), source.key, "n2", machine_id()).name / "data" / "b"
    )
    disk = Disk(tmp_path / "disk", tmp_path)
    disk.be(f"fail {errno.ENOSPC}")
    nodes |= disk.environment | {"DISK_FOLDER": os.fspath(full)}
    done = mpisweep(
        "run", "look:look", "-p", "x=1:8", "-n", "4", "--stage-data", os.fspath(data), "--stage-to", "to"
    )
    assert done.returncode == 2, done.stderr
    assert "n2: " in done.stderr
    assert "the data cannot be written: No space left on device; set --stage-to" in done.stderr
    assert "Traceback" not in done.stderr
    assert _copies(folder) == []


@pytest.mark.mpi
def test_copies_go_when_ranks_are_ended_by_sigterm(folder, data, nodes):
    (folder / "wait").touch()
    run = _started(
        folder, nodes, "mpirun", "--with-ft", "ulfm", "--oversubscribe", "-n", "4", sys.executable, "-m",
        "mpisweep", "run", "look:look", "-p", "x=1:8", "--stage-data", os.fspath(data), "--stage-to", "to",
    )  # fmt: skip
    wait_for(lambda: (folder / "where.txt").exists())
    assert len(_copies(folder)) == 2
    # As a batch system does.  mpirun itself kills them half a second after this signal.
    for rank in _ranks(run):
        rank.send_signal(signal.SIGTERM)
    run.wait(PATIENCE_S)
    wait_for(lambda: _copies(folder) == [])


@pytest.mark.mpi
def test_no_rank_waits_for_one_that_removes_a_copy(folder, data, nodes, tmp_path):
    (folder / "wait").touch()
    disk = Disk(tmp_path / "disk", tmp_path)
    key = open_source(data).key
    slow = folder / "to" / Identity(os.path.realpath(data), key, "n2", machine_id()).name / "data"
    run = _started(
        folder, nodes | disk.environment | {"DISK_FOLDER": os.fspath(slow)},
        "mpirun", "--oversubscribe", "-n", "4", sys.executable, "-m",
        "mpisweep", "run", "look:idle", "-p", "x=1:4", "--stage-data", os.fspath(data), "--stage-to", "to",
    )  # fmt: skip
    wait_for(lambda: (folder / "where.txt").exists())
    ranks = _ranks(run)
    disk.be("hang")
    (folder / "wait").unlink()
    wait_for(lambda: len([rank for rank in ranks if rank.is_running()]) == 1)
    disk.be("fine")
    # Without fault tolerance, which makes mpirun forget how a rank has ended.
    assert run.wait(PATIENCE_S) == 0, (folder / "stderr").read_text()
    assert _copies(folder) == []


@pytest.mark.mpi
@pytest.mark.long
def test_a_rank_that_is_stopped_while_data_is_staged_does_not_hang_the_others(folder, data, nodes, tmp_path):
    disk = Disk(data, tmp_path)
    disk.be("slow 0.2")
    (folder / "s.toml").write_text(
        f'workload = "look:look"\nstage_data = "{data}"\nparameters.x = [1, 2]\nlimits.silence = 2\n'
    )
    run = _started(
        folder, nodes | disk.environment, sys.executable, "-m", "mpisweep", "run", "s.toml", "-n", "4",
        "--stage-to", "to",
    )  # fmt: skip
    wait_for(lambda: len(list(folder.glob("to/*/manifest"))) == 2)
    # It acts for its node; rank 0 and the other rank of its node wait for it.
    _ranks(run)[1].suspend()
    disk.be("fine")
    assert run.wait(PATIENCE_S) == 0, (folder / "stderr").read_text()
    assert "restarting the ranks" in (folder / "stderr").read_text()
    assert _copies(folder) == []


def _ranks(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The ranks of a run, in order."""
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "OMPI_COMM_WORLD_RANK" in process.environ() and process.parent().name() == "prterun":
                found.append(process)
    return sorted(found, key=lambda process: int(process.environ()["OMPI_COMM_WORLD_RANK"]))
