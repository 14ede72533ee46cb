"""Ownership of the trials of a split sweep, under any order of the members' steps."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisweep.blocks import ImportedBlock
from mpisweep.master.joining import cut, join
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.results import ResultsError, shares_folder
from mpisweep.results.claim import Claim
from mpisweep.results.holder import SUCCESSION_S
from mpisweep.results.shares.folder import (
    SharedSweep,
    clear_away,
    create_shares,
    left_file,
    members,
    read_leases,
    read_shared,
    take_lease,
)
from mpisweep.results.shares.leases import Lease, Leases, Left, owners, superseded
from mpisweep.results.shares.membership import Life, MemberWatch
from mpisweep.results.storing import read_here
from mpisweep.spec import parse_spec

SHARED = SharedSweep("text", "s.toml", 2, 4, "digest", [[0, 1], [2, 3]])


def lease(
    chunk: int, epoch: int, member: str, numbers: list[int], attempts: list[int] | None = None
) -> Lease:
    nothing = (0,) * len(numbers)
    return Lease(chunk, epoch, member, tuple(numbers), tuple(attempts or nothing), nothing)


def ask(view: Leases, *, gone=(), beside=(), left=None, shortest=False) -> Lease | None:
    return view.next(
        shortest=shortest, gone=gone, seen_alive=beside, left_by=lambda member: (left or {})[member]
    )


# ------------------------------------------------------------------------------------- rules


def test_the_longest_chunk_is_leased_first_and_the_shortest_if_time_is_short():
    view = Leases([[0, 1], [2], [3]], "a")
    assert ask(view) == lease(0, 1, "a", [0, 1])
    assert ask(view, shortest=True) == lease(2, 1, "a", [3])


def test_leases_of_a_live_member_are_left_to_it():
    view = Leases([[0, 1]], "a")
    view.learn([lease(0, 1, "b", [0, 1])])
    assert ask(view) is None
    assert view.holders == {"b"}


def test_unfinished_trials_of_a_dead_member_are_taken_over():
    view = Leases([[0, 1, 2, 3]], "a")
    view.learn([lease(0, 1, "b", [0, 1, 2, 3])])
    left = {"b": {0: Left(True, 1), 1: Left(False, 2, was_running=True), 2: Left(False, 1)}}
    taken = ask(view, gone={"b"}, beside={"b"}, left=left)
    assert taken == Lease(0, 2, "a", (1, 2, 3), (2, 1, 0), (1, 0, 0))
    # A member that was gone before this one came may have been ended by its user: no loss is counted.
    assert ask(view, gone={"b"}, left=left) == Lease(0, 2, "a", (1, 2, 3), (2, 1, 0), (0, 0, 0))


def test_a_chunk_whose_trials_have_all_ended_is_done():
    view = Leases([[0]], "a")
    view.learn([lease(0, 1, "b", [0])])
    assert ask(view, gone={"b"}, left={"b": {0: Left(True, 1)}}) is None
    assert view.holders == set()


def test_an_end_of_an_attempt_from_before_the_lease_does_not_count():
    view = Leases([[0]], "a")
    view.learn([lease(0, 1, "b", [0]), lease(0, 2, "c", [0], [3])])
    taken = ask(view, gone={"c"}, left={"c": {0: Left(True, 3)}})
    assert taken == lease(0, 3, "a", [0], [3])


def test_a_member_never_reclaims_a_lease_that_it_lost():
    view = Leases([[0]], "a")
    view.learn([lease(0, 1, "a", [0]), lease(0, 2, "b", [0], [1])])
    assert view.mine == []
    assert view.lost == [0]
    assert ask(view, gone={"b"}, left={"b": {}}) is None
    assert view.holders == {"b"}


def test_the_last_lease_that_lists_a_trial_owns_it():
    first, second = lease(0, 1, "a", [0, 1]), lease(0, 2, "b", [1], [4])
    assert owners([second, first]) == {0: (first, 0), 1: (second, 4)}
    assert superseded([second, first]) == {("a", 1): 4}


# ------------------------------------------------------------------------------------- files


def test_of_two_members_that_want_one_lease_one_gets_it(tmp_path: Path):
    assert create_shares(tmp_path / "s", SHARED, tmp_path / "none.h5")
    ours, theirs = lease(0, 1, "a", [0, 1]), lease(0, 1, "b", [0, 1])
    assert take_lease(tmp_path / "s", ours)
    assert not take_lease(tmp_path / "s", theirs)
    assert read_leases(tmp_path / "s") == [ours]
    assert sorted(os.listdir(tmp_path / "s")) == ["00000-000001.lease", "sweep.json"]


def test_shares_are_created_atomically_and_once(tmp_path: Path):
    (tmp_path / "r.h5").write_bytes(b"before")
    assert read_shared(tmp_path / "s") is None
    assert create_shares(tmp_path / "s", SHARED, tmp_path / "r.h5")
    assert not create_shares(tmp_path / "s", SharedSweep("other", "", 1, 0, "", []), tmp_path / "r.h5")
    assert read_shared(tmp_path / "s") == SHARED
    assert (tmp_path / "s" / "base.h5").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["r.h5", "s"]


def test_shares_are_kept_if_a_member_has_joined_meanwhile(tmp_path: Path):
    create_shares(tmp_path / "s", SHARED, tmp_path / "none.h5")
    (tmp_path / "s" / "a.h5").touch()
    (tmp_path / "s" / "b.h5.journal").mkdir()
    assert members(tmp_path / "s") == ["a", "b"]
    assert not clear_away(tmp_path / "s", ["a"], tmp_path / "r.h5.damaged")
    assert read_shared(tmp_path / "s") == SHARED
    (tmp_path / "s" / "a.h5.damaged").mkdir()
    (tmp_path / "s" / "a.h5.damaged" / "segment").touch()
    assert clear_away(tmp_path / "s", ["a", "b"], tmp_path / "r.h5.damaged")
    assert os.listdir(tmp_path) == ["r.h5.damaged"]
    assert [file.name for file in (tmp_path / "r.h5.damaged").glob("a.h5-*/*")] == ["segment"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"chunk": 1}', "\0"])
def test_a_damaged_lease_is_reported_by_name(tmp_path: Path, text: str):
    (tmp_path / "00000-000001.lease").write_text(text)
    with pytest.raises(ResultsError, match=r"00000-000001\.lease: is damaged"):
        read_leases(tmp_path)


def watched(tmp_path: Path) -> tuple[MemberWatch, Claim]:
    journal = tmp_path / "a.h5.journal"
    journal.mkdir()
    return MemberWatch(tmp_path, silence_s=10, every_s=1), Claim.take(journal, "7")


def test_a_member_is_alive_while_its_claim_changes_and_dead_after_the_silence(tmp_path: Path):
    watch, claim = watched(tmp_path)
    now = 100.0
    watch.look(["a"], now)
    assert watch.life("a") is Life.UNCERTAIN
    assert watch.seen_alive == set()
    time.sleep(0.01)  # The file system's clock must advance.
    claim.beat()
    watch.look(["a"], now + 1)
    assert watch.life("a") is Life.ALIVE
    for second in range(2, 12):
        watch.look(["a"], now + second)
    assert watch.gone == set()
    watch.look(["a"], now + 12)
    assert watch.gone == {"a"}
    assert watch.seen_alive == {"a"}
    assert "process" in watch.text("a")
    assert "job 7" in watch.text("a")
    time.sleep(0.01)
    claim.beat()
    watch.look(["a"], now + 13)
    assert watch.life("a") is Life.ALIVE


@pytest.mark.parametrize(("host", "life"), [("node7", Life.DEAD), ("node8", Life.UNCERTAIN)])
def test_a_member_of_this_host_is_checked_by_its_process_under_the_host_name_of_its_ranks(
    host: str, life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Regression: `mpisweep stop` compared the system's host name with the one that ranks write into claims."""
    monkeypatch.setenv("MPISWEEP_HOSTS", "node7")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    watch, _ = watched(tmp_path)
    holder = json.loads((tmp_path / "a.h5.journal" / "claim.json").read_text())
    assert holder["host"] == "node7"
    # Its process no longer exists.
    (tmp_path / "a.h5.journal" / "claim.json").write_text(
        json.dumps(holder | {"host": host, "process_start": 1})
    )
    for second in range(int(SUCCESSION_S) + 4):
        watch.look(["a"], float(second))
    assert watch.life("a") is life


def test_time_without_polling_does_not_count_as_silence(tmp_path: Path):
    watch, _ = watched(tmp_path)
    watch.look(["a"], 0.0)
    watch.look(["a"], 1000.0)
    watch.look(["a"], 2000.0)
    assert watch.gone == set()


def test_a_member_that_ends_cleanly_is_gone_at_once_and_one_that_never_came_gets_time(tmp_path: Path):
    watch, claim = watched(tmp_path)
    claim.release()
    watch.look(["a"], 0.0)
    assert watch.gone == set()
    left_file(tmp_path, "a").touch()
    watch.look(["a"], 1.0)
    assert watch.gone == {"a"}


# ------------------------------------------------------------------------------------- chunks


@given(
    weights=st.lists(st.floats(1e-3, 1e6), max_size=300),
    split=st.integers(1, 20),
)
def test_chunks_hold_every_trial_once_and_none_exceeds_its_share(weights, split):
    longest_first = sorted(range(len(weights)), key=lambda n: -weights[n])
    chunks = cut(longest_first, weights.__getitem__, split)
    assert [number for chunk in chunks for number in chunk] == longest_first
    assert all(chunks)
    for chunk in chunks:
        assert len(chunk) <= max(1, len(weights) / (2 * split))
    # The last chunks are small, so that the members end together.
    assert not chunks or len(chunks[-1]) <= max(1, len(weights) / (64 * split))


def imports_nothing() -> ImportedBlock:
    raise AssertionError("the sweep file imports nothing")


def test_the_trials_of_a_chunk_need_equally_many_ranks(tmp_path: Path):
    text = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 9 }\nranks_per_trial = [1, 2]\n'
    snapshotter = cast(Snapshotter, SimpleNamespace(read=read_here))
    spec = parse_spec(text, source="s.toml", folder=tmp_path)
    join(
        spec, tmp_path / "r.h5", 2, snapshotter, job_id="", member="m", has_begun=False,
        read_imports=imports_nothing,
    )  # fmt: skip
    shared = read_shared(shares_folder(tmp_path / "r.h5"))
    assert shared is not None
    assert sorted(number for chunk in shared.chunks for number in chunk) == list(range(18))
    assert [{1 + number % 2 for number in chunk} for chunk in shared.chunks] == [
        {width} for width in shared.widths
    ]
    assert shared.widths == sorted(shared.widths, reverse=True)


def test_very_long_trials_do_not_all_go_to_one_member():
    weights = [1000.0] * 8 + [1.0] * 700
    chunks = cut(range(708), weights.__getitem__, 4)
    assert max(sum(weights[n] for n in chunk) for chunk in chunks) <= 2000
    assert len(chunks) < 80


# ------------------------------------------------------------------------------------- all interleavings


class Members:
    """Members of a split sweep that take random steps of the protocol; any may be declared dead at any time.

    The disk is a list of leases, created exclusively, and for each member its last attempt at each trial.
    After every step all guarantees of the protocol are checked.
    """

    CHUNKS = ([0, 1], [2])
    COUNT = 3

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk: list[Lease] = []
        #: Member -> trial -> its last attempt at it.
        self.parts: dict[str, dict[int, Left]] = {}
        self.views: dict[str, Leases] = {}
        #: Members that were declared dead, and those that are dead.
        self.gone: set[str] = set()
        self.dead: set[str] = set()
        #: Member -> the lease that it is about to create.
        self.about: dict[str, Lease] = {}
        #: Trial -> (member, attempt) that ended it while no other member was about to take it over.
        self.firm: dict[int, tuple[str, int]] = {}
        #: (Member, trial, attempt) of all attempts.
        self.attempts: list[tuple[str, int, int]] = []
        for _ in range(3):
            self.a_member_joins()

    def live(self) -> str | None:
        """Pick a random member that is not dead; None if there is none."""
        names = sorted(self.views.keys() - self.dead)
        return self.random.choice(names) if names else None

    def counted(self) -> dict[int, tuple[str, int]]:
        """Ended trials as a reader sees them: trial -> (member, attempt)."""
        ends = {}
        for number, (owner, known) in owners(self.disk).items():
            found = self.parts[owner.member].get(number, Left(False, 0))
            if found.ended and found.attempt > known:
                ends[number] = owner.member, found.attempt
        return ends

    # Steps

    def a_member_joins(self) -> None:
        name = f"m{len(self.views):02d}"
        self.views[name] = Leases(self.CHUNKS, name)
        self.parts[name] = {}

    def it_reads_the_leases_in_a_listing(self) -> None:
        """A listing may be out of date."""
        if (name := self.live()) is not None:
            until = len(self.disk) - self.random.choice([0, 0, 1, 2])
            self.views[name].learn(self.disk[: max(0, until)])

    def it_decides_what_to_lease(self) -> None:
        if (name := self.live()) is None:
            return
        found = self.views[name].next(
            shortest=self.random.random() < 0.3,
            gone=self.gone - {name},
            seen_alive=self.gone,
            left_by=lambda member: dict(self.parts[member]),
        )
        if found is not None:
            self.about[name] = found

    def it_creates_the_lease_unless_another_was_faster(self) -> None:
        if not (names := sorted(self.about.keys() - self.dead)):
            return
        wanted = self.about.pop(self.random.choice(names))
        if not any((one.chunk, one.epoch) == (wanted.chunk, wanted.epoch) for one in self.disk):
            self.disk.append(wanted)
            self.views[wanted.member].learn([wanted])

    def it_runs_a_trial_that_it_believes_to_own(self) -> None:
        name = self.live()
        if name is None or not self.views[name].mine:
            return
        held = self.random.choice(self.views[name].mine)
        number = self.random.choice(held.numbers)
        before = self.parts[name].get(number, Left(False, 0))
        if before.ended:
            return
        attempt = max(before.attempt, held.attempts[held.numbers.index(number)]) + 1
        ends = self.random.random() < 0.5
        self.parts[name][number] = Left(ends, attempt, not ends)
        self.attempts.append((name, number, attempt))
        is_wanted = any(number in one.numbers for one in self.about.values())
        if self.counted().get(number) == (name, attempt) and not is_wanted:
            self.firm[number] = name, attempt

    def it_is_declared_dead(self) -> None:
        if names := sorted(self.views.keys() - self.gone):
            name = self.random.choice(names)
            self.gone.add(name)
            if self.random.random() < 0.3:
                self.dead.add(name)

    def it_is_seen_alive_again(self) -> None:
        if names := sorted(self.gone - self.dead):
            self.gone.discard(self.random.choice(names))

    STEPS = (
        (it_reads_the_leases_in_a_listing, 6),
        (it_decides_what_to_lease, 6),
        (it_creates_the_lease_unless_another_was_faster, 5),
        (it_runs_a_trial_that_it_believes_to_own, 6),
        (it_is_declared_dead, 2),
        (it_is_seen_alive_again, 1),
        (a_member_joins, 1),
    )

    def step(self) -> None:
        steps, weights = zip(*self.STEPS, strict=True)
        self.random.choices(steps, weights)[0](self)
        self.check()

    # Guarantees

    def check(self) -> None:
        # An end stays, unless another member was about to take the trial over.
        assert self.firm.items() <= self.counted().items()
        # No two attempts that count have the same number.
        limit = superseded(self.disk)
        kept = [
            (n, attempt) for name, n, attempt in self.attempts if attempt <= limit.get((name, n), attempt)
        ]
        assert len(kept) == len(set(kept))
        # A member can still end every trial that it holds.
        for name, view in self.views.items():
            for held in view.mine:
                for number, known in zip(held.numbers, held.attempts, strict=True):
                    found = self.parts[name].get(number, Left(False, 0))
                    assert not found.ended or found.attempt > known
        # The epochs of a chunk have no gaps.
        for chunk in range(len(self.CHUNKS)):
            epochs = [one.epoch for one in self.disk if one.chunk == chunk]
            assert epochs == list(range(1, len(epochs) + 1))

    def complete(self) -> None:
        """Let one new member complete the sweep alone; it must not rerun an ended trial."""
        self.gone |= set(self.views)
        self.dead |= set(self.views)
        ended = self.counted()
        self.a_member_joins()
        (name,) = self.views.keys() - self.dead
        view = self.views[name]
        view.learn(self.disk)
        while wanted := view.next(
            shortest=False, gone=self.gone, seen_alive=set(), left_by=self.parts.__getitem__
        ):
            assert not any((one.chunk, one.epoch) == (wanted.chunk, wanted.epoch) for one in self.disk)
            assert not set(wanted.numbers) & ended.keys()
            self.disk.append(wanted)
            view.learn(self.disk)
            for number, attempt in zip(wanted.numbers, wanted.attempts, strict=True):
                self.parts[name][number] = Left(True, attempt + 1)
        assert self.counted().keys() == set(range(self.COUNT))
        assert ended.items() <= self.counted().items()


def test_in_any_order_of_steps_every_trial_has_one_end_that_stays():
    taken_over = 0
    for seed in range(1500):
        walk = Members(seed)
        for _ in range(60):
            walk.step()
        taken_over += max((one.epoch for one in walk.disk), default=0) > 1
        walk.complete()
    # Enough of the random walks include takeovers.
    assert taken_over > 400
