"""The lease agent: leases of a member, also when the shared files are missing, damaged or replaced."""

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
def _keep_priority_and_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    # The agent changes its working directory to the folder of the shares.
    monkeypatch.chdir(tmp_path)


def answers(path: Path, *asked: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield the first answer of a new lease agent to each request; close the channel after the last."""
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


def first_answer(path: Path) -> dict[str, object]:
    [told] = answers(path)
    return told


def test_a_member_ends_when_the_shares_folder_was_removed(tmp_path):
    assert first_answer(tmp_path / "r.h5") == {"over": 3}


def test_unreadable_shares_are_reported_and_retried(tmp_path):
    folder = shares_folder(tmp_path / "r.h5")
    folder.mkdir()
    (folder / "sweep.json").write_text("{")
    told = first_answer(tmp_path / "r.h5")
    assert (told["nothing"], told["sure"]) == ("", False)
    assert "sweep.json: is damaged" in str(told["error"])


def test_leases_of_an_unreadable_part_are_left_alone_and_reported_and_the_others_are_granted(tmp_path):
    path = tmp_path / "r.h5"
    folder = shares_folder(path)
    create_shares(folder, SharedSweep("text", "s.toml", 2, 3, "digest", [[0], [1], [2]]), path)
    for chunk, member in enumerate(("damaged", "killed")):
        assert take_lease(folder, Lease(chunk, 1, member, (chunk,), (0,), (0,)))
        left_file(folder, member).touch()
        journal_folder(part_file(folder, member)).mkdir()
    part_file(folder, "damaged").write_bytes(b"nothing")
    lease = {"ask": "lease", "shortest": False, "ranks": None}
    first, second, third = answers(path, lease, lease, lease)
    assert (first["granted"], second["granted"]) == ([[2], [0], [0]], [[1], [0], [0]])
    assert (third["nothing"], third["sure"]) == ("", True)
    assert "damaged.h5: is not a readable HDF5 file" in str(third["error"])


def test_trials_of_more_ranks_than_workers_are_left_to_other_members_and_reported(tmp_path):
    path = tmp_path / "r.h5"
    create_shares(
        shares_folder(path), SharedSweep("text", "s.toml", 2, 3, "digest", [[0], [1], [2]], [4, 2, 1]), path
    )
    lease = {"ask": "lease", "shortest": False, "ranks": 2}
    first, second, third = answers(path, lease, lease, lease)
    assert (first["granted"], second["granted"]) == ([[1], [0], [0]], [[2], [0], [0]])
    assert (third["nothing"], third["sure"], third["wide"]) == ("", True, 4)


@pytest.mark.parametrize("question", [{"ask": "lease", "shortest": False, "ranks": None}, {"ask": "leave"}])
def test_a_process_of_an_earlier_split_changes_nothing_of_a_later_one(tmp_path, question):
    """The agent was paused while the others ended the sweep; then the sweep grew and was split again."""
    path = tmp_path / "r.h5"
    folder = shares_folder(path)
    split = SharedSweep("text", "s.toml", 2, 2, "digest", [[0], [1]])
    create_shares(folder, split, path)
    lease = {"ask": "lease", "shortest": False, "ranks": None}
    talk = answers(path, lease, question)
    assert next(talk)["granted"] == [[0], [0], [0]]
    clear_away(folder, ["m"], tmp_path / "damaged")
    stop_file(path).touch()
    create_shares(folder, split, path)
    before = sorted(os.listdir(folder))
    assert next(talk) == {"over": 3}
    assert list(talk) == []
    assert sorted(os.listdir(folder)) == before
    assert sorted(os.listdir(tmp_path)) == ["r.h5.shares", "r.h5.stop"]
