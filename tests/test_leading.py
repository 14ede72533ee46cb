"""A rank that becomes master: notifying the ranks, waiting for them, then reading and syncing the journal."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_results import SPEC, history, opening, write_journal

from mpisweep.batch.jobfacts import Allocation
from mpisweep.blocks import EndedBlock, ImportedBlock, encode
from mpisweep.master.leading import DiskFailedError, Leading, Mastership
from mpisweep.master.opening import Opened, RunFacts, open_sweep
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.messages import Beat, Ended, Follow, Hello, Kill, Lead, Message
from mpisweep.rank.loop import Rank
from mpisweep.rank.options import Place, RankOptions
from mpisweep.results import ResultsError, journal_folder
from mpisweep.results.claim import RunOverError
from mpisweep.results.journal import writer as journal_module
from mpisweep.results.journal.reader import read_journal
from mpisweep.results.journal.segments import segments
from mpisweep.results.storing import read_here
from mpisweep.spec import parse_spec

ENDED = next(record for record in history() if isinstance(record, EndedBlock))
HERE = cast(Snapshotter, SimpleNamespace(read=read_here))


def outcome_of(leading: Leading) -> Opened | BaseException:
    assert select.select([leading.fileno()], [], [], 20)[0], "nothing comes of it"
    assert leading.outcome is not None
    return leading.outcome


# ------------------------------------------------------------------------------------- waiting for the ranks


def test_a_sweep_is_opened_once_every_rank_follows_or_is_lost():
    opened = threading.Event()

    def open_sweep() -> Opened:
        opened.set()
        raise ResultsError("opened")

    leading = Leading([1, 2, 3], open_sweep, 0.0)
    leading.follow(1)
    leading.keep(1, [])
    assert not opened.wait(0.1)
    leading.follow(3)
    assert not opened.wait(0.1)
    leading.lose(2, "it died")
    assert isinstance(outcome_of(leading), ResultsError)
    assert opened.is_set()
    assert leading.kept == [(1, []), (2, "it died")]
    leading.close()


class Ranks:
    """The transport of rank 1 of three; records the messages sent to each rank."""

    rank, size, host, node_ranks = 1, 3, "n2", (1,)

    def __init__(self) -> None:
        self.sent: list[tuple[int, Message]] = []

    def send(self, rank: int, messages: Sequence[Message]) -> None:
        self.sent += [(rank, message) for message in messages]


class Server:
    """A fork server that starts nothing."""

    def spawn(self, entry: str, files: list[int], arguments: dict[str, Any]) -> int:
        return 1


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Rank]:
    """Rank 1 of three, which followed rank 0 in a run that has ended."""
    (tmp_path / "s.h5").touch()
    spec = parse_spec(SPEC, source="sweep.toml", folder=tmp_path)
    options = RankOptions(tmp_path / "s.h5", False, "auto", None, cast(Any, None))
    place = Place(tmp_path / "s.h5", Allocation("local", ""))
    rank = Rank(spec, options, place, cast(Any, None), cast(Any, Server()), cast(Any, Ranks()), {}, None)
    rank._deliver(0, [Lead("run", "n1", 7, 70, 0, has_begun=True)], time.monotonic())
    yield rank
    if rank._office._snapshotter is not None:
        rank._office._snapshotter.close()
    if rank._office._leading is not None:
        rank._office._leading.drop()


def test_a_new_master_notifies_every_rank_and_reads_nothing_before_all_follow(second):
    transport = cast(Ranks, second._transport)
    second._on_lost(0, "it died", time.monotonic())
    lead = second._office.leader
    assert lead is not None
    assert (lead.run, lead.epoch, lead.has_begun) == ("run", 1, True)
    assert [rank for rank, message in transport.sent if message == lead] == [0, 1, 2]
    assert [rank for rank, message in transport.sent if message == Kill("n1", 7, 70)] == [0, 1, 2]
    leading = second._office._leading
    assert leading is not None
    second._deliver(1, [Follow(1)], time.monotonic())
    # Messages for the previous master, or that follow it, do not count as answers.
    second._deliver(2, [Beat(), Follow(0)], time.monotonic())
    assert leading._thread is None
    second._deliver(2, [Follow(1), Hello("n3", "cpu", 1, 1), Ended(1, b"")], time.monotonic())
    assert leading._thread is not None
    assert leading.kept == [
        (0, "it died before this master took over"),
        (2, [Hello("n3", "cpu", 1, 1), Ended(1, b"")]),
    ]
    assert isinstance(outcome_of(leading), BaseException)


def test_a_rank_follows_the_master_of_the_highest_epoch_and_answers_it_alone(second):
    transport = cast(Ranks, second._transport)
    transport.sent.clear()
    second._deliver(2, [Lead("run", "n3", 9, 90, 2)], time.monotonic())
    assert transport.sent == [(2, Follow(2))]
    second._deliver(0, [Lead("run", "n1", 7, 70, 0)], time.monotonic())
    assert transport.sent == [(2, Follow(2))]


def test_a_superseded_master_steps_down_at_the_first_message_of_its_successor(second):
    second._on_lost(0, "it died", time.monotonic())
    assert second._office._leading is not None
    assert second._office._snapshotter is not None
    second._office._leading.drop()
    second._office._leading = None
    stepped_down: list[bool] = []
    close = second._office._snapshotter.close
    second._office._master = cast(
        Any, SimpleNamespace(step_down=lambda: stepped_down.append(True) or close())
    )
    second._deliver(0, [Lead("run", "n1", 7, 70, 0)], time.monotonic())
    assert stepped_down == []
    second._deliver(2, [Lead("run", "n3", 9, 90, 2)], time.monotonic())
    assert stepped_down == [True]
    assert second._office._master is None


def test_a_failed_opening_is_retried_until_the_disk_limit(monkeypatch):
    monkeypatch.setattr("mpisweep.master.leading._AGAIN_S", 0.01)
    tries: list[float] = []

    def open_sweep() -> Opened:
        tries.append(time.monotonic())
        raise OSError(28, "No space left on device")

    leading = Leading([], open_sweep, 0.2)
    assert isinstance(outcome_of(leading), DiskFailedError)
    assert len(tries) > 2
    leading.close()
    first = Leading([], open_sweep, 0.0)
    assert isinstance(outcome_of(first), OSError)
    first.close()


# ------------------------------------------------------------------------------------- opening


def imports_nothing() -> ImportedBlock:
    raise AssertionError("the sweep file imports nothing")


def opened(path: Path, mastership: Mastership, **more: Any) -> Opened:
    spec = parse_spec(SPEC, source="sweep.toml", folder=path.parent)
    return open_sweep(
        spec, path, fresh=False, snapshotter=HERE, mastership=mastership, **more,
        facts=RunFacts(Allocation("local", ""), ranks=3, environment={}, version="0"),
        read_imports=imports_nothing,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.h5"


def test_records_of_an_earlier_master_are_synced_with_their_folder_before_they_count(path, monkeypatch):
    """The previous master died between its write and its fsync."""
    first = opened(path, Mastership("20260101T000000-aaaaaa", 0, is_first=True))
    first.journal.close()
    first.journal.join()
    synced: list[Path] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    start = journal_module.Journal.start
    counted: list[list[Path]] = []

    def start_and_count(journal: journal_module.Journal) -> None:
        # Nothing is acknowledged or assigned before this master has a journal.
        counted.append(list(synced))
        start(journal)

    monkeypatch.setattr(journal_module.Journal, "start", start_and_count)
    second = opened(path, Mastership(first.claim.run, 1, is_first=False, has_begun=True))
    folder = journal_folder(path).resolve()
    assert {folder / segments(folder)[0], folder} <= set(counted[0])
    second.journal.abandon()


def test_records_that_a_former_master_writes_after_its_successor_has_read_do_not_count(path):
    first = opened(path, Mastership("20260101T000000-aaaaaa", 0, is_first=True))
    second = opened(path, Mastership(first.claim.run, 1, is_first=False, has_begun=True))
    first.journal.append(encode(ENDED))
    first.journal.close()
    first.journal.join()
    kinds = [type(entry.record).__name__ for entry in read_journal(journal_folder(path), {}, [])]
    assert "EndedBlock" not in kinds
    second.journal.abandon()


def test_a_former_master_cannot_begin_a_segment(path, monkeypatch):
    monkeypatch.setattr(journal_module, "_PART_BYTES", 1)
    first = opened(path, Mastership("20260101T000000-aaaaaa", 0, is_first=True))
    second = opened(path, Mastership(first.claim.run, 1, is_first=False, has_begun=True))
    own = first.claim.token.name.removesuffix(".aside")
    before = [name for name in segments(journal_folder(path)) if name.startswith(own)]
    first.journal.append(encode(ENDED))
    first.journal.close()
    first.journal.join()
    assert first.journal.failure is not None
    assert [name for name in segments(journal_folder(path)) if name.startswith(own)] == before
    second.journal.abandon()


def test_a_run_that_is_over_is_not_opened_again(path):
    first = opened(path, Mastership("20260101T000000-aaaaaa", 0, is_first=True))
    first.journal.close()
    first.journal.join()
    first.claim.release()
    before = sorted(os.listdir(journal_folder(path)))
    for has_begun in (True, False):
        with pytest.raises(RunOverError):
            opened(path, Mastership(first.claim.run, 1, is_first=False, has_begun=has_begun))
    assert sorted(os.listdir(journal_folder(path))) == before


def test_the_successor_of_a_master_that_had_not_claimed_the_sweep_claims_it(path):
    second = opened(path, Mastership("20260101T000000-aaaaaa", 1, is_first=False))
    assert second.claim.run == "20260101T000000-aaaaaa"
    second.claim.beat()
    second.journal.abandon()


def test_a_fresh_sweep_is_not_started_afresh_by_the_next_master(path):
    """With an mpirun called by hand, every rank has the option `--fresh`."""
    spec = parse_spec(SPEC, source="sweep.toml", folder=path.parent)

    def open_fresh(mastership: Mastership) -> Opened:
        return open_sweep(
            spec, path, fresh=True, snapshotter=HERE, mastership=mastership,
            facts=RunFacts(Allocation("local", ""), ranks=3, environment={}, version="0"),
            read_imports=imports_nothing,
        )  # fmt: skip

    write_journal(path, [], opening())
    first = open_fresh(Mastership("20270101T000000-aaaaaa", 0, is_first=True))
    assert len(list(path.parent.glob("s.*.h5.journal"))) == 1
    second = open_fresh(Mastership(first.claim.run, 1, is_first=False))
    assert len(list(path.parent.glob("s.*.h5.journal"))) == 1, "what the first one has begun is still there"
    for one in (first, second):
        one.journal.abandon()
