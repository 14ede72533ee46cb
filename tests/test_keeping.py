"""The process that gets a member's leases, where the files that the members share cannot be used."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpisweep.results import journal_folder, shares_folder, stop_file
from mpisweep.results.shares.folder import (
    SharedSweep,
    clear_away,
    create_shares,
    left_file,
    part_file,
    take_lease,
)
from mpisweep.results.shares.lease_agent import serve_leases
from mpisweep.results.shares.leases import Lease


@pytest.fixture(autouse=True)
def _stay_as_quick(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    # The process takes the folder of the shares for its working directory.
    monkeypatch.chdir(tmp_path)


def words(path: Path, *asked: dict[str, object]) -> Iterator[dict[str, object]]:
    """What a new process tells its master, to each question a line or so; the master closes the line then."""
    ours, theirs = socket.socketpair()
    arguments = {"path": os.fspath(path), "member": "m", "job_id": "", "silence_s": 30.0}
    process = threading.Thread(target=serve_leases, args=([theirs.detach()], arguments), daemon=True)
    process.start()
    ours.settimeout(20)
    with ours, ours.makefile() as lines:
        for question in asked or [None]:
            if question is not None:
                ours.sendall(json.dumps(question).encode() + b"\n")
            yield json.loads(lines.readline())
    process.join()


def first_words(path: Path) -> dict[str, object]:
    [told] = words(path)
    return told


def test_where_somebody_has_removed_everything_the_member_ends(tmp_path):
    assert first_words(tmp_path / "r.h5") == {"over": 3}


def test_shares_that_cannot_be_read_are_told_of_and_looked_at_again(tmp_path):
    folder = shares_folder(tmp_path / "r.h5")
    folder.mkdir()
    (folder / "sweep.json").write_text("{")
    told = first_words(tmp_path / "r.h5")
    assert (told["nothing"], told["sure"]) == ("", False)
    assert "sweep.json: is damaged" in str(told["error"])


def test_what_a_part_that_cannot_be_read_holds_is_left_alone_and_told_and_all_else_is_done(tmp_path):
    path = tmp_path / "r.h5"
    folder = shares_folder(path)
    create_shares(folder, SharedSweep("text", "s.toml", 2, 3, "digest", [[0], [1], [2]]), path)
    for chunk, member in enumerate(("damaged", "killed")):
        assert take_lease(folder, Lease(chunk, 1, member, (chunk,), (0,), (0,)))
        left_file(folder, member).touch()
        journal_folder(part_file(folder, member)).mkdir()
    part_file(folder, "damaged").write_bytes(b"nothing")
    lease = {"ask": "lease", "shortest": False, "ranks": None}
    first, second, third = words(path, lease, lease, lease)
    assert (first["granted"], second["granted"]) == ([[2], [0], [0]], [[1], [0], [0]])
    assert (third["nothing"], third["sure"]) == ("", True)
    assert "damaged.h5: is not a readable HDF5 file" in str(third["error"])


def test_trials_of_more_ranks_than_there_are_workers_are_left_to_others_and_told(tmp_path):
    path = tmp_path / "r.h5"
    create_shares(
        shares_folder(path), SharedSweep("text", "s.toml", 2, 3, "digest", [[0], [1], [2]], [4, 2, 1]), path
    )
    lease = {"ask": "lease", "shortest": False, "ranks": 2}
    first, second, third = words(path, lease, lease, lease)
    assert (first["granted"], second["granted"]) == ([[1], [0], [0]], [[2], [0], [0]])
    assert (third["nothing"], third["sure"], third["wide"]) == ("", True, 4)


@pytest.mark.parametrize("question", [{"ask": "lease", "shortest": False, "ranks": None}, {"ask": "leave"}])
def test_a_process_of_an_earlier_split_changes_nothing_of_a_later_one(tmp_path, question):
    """It was paused while the others ended the sweep, which grew and was split again."""
    path = tmp_path / "r.h5"
    folder = shares_folder(path)
    split = SharedSweep("text", "s.toml", 2, 2, "digest", [[0], [1]])
    create_shares(folder, split, path)
    lease = {"ask": "lease", "shortest": False, "ranks": None}
    talk = words(path, lease, question)
    assert next(talk)["granted"] == [[0], [0], [0]]
    clear_away(folder, ["m"], tmp_path / "damaged")
    stop_file(path).touch()
    create_shares(folder, split, path)
    before = sorted(os.listdir(folder))
    assert next(talk) == {"over": 3}
    assert list(talk) == []
    assert sorted(os.listdir(folder)) == before
    assert sorted(os.listdir(tmp_path)) == ["r.h5.shares", "r.h5.stop"]
