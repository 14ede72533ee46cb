"""The process that gets a member's leases, where the files that the members share cannot be used."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from mpisweep.results import shares_folder
from mpisweep.results.keeping import serve


@pytest.fixture(autouse=True)
def _stay_as_quick(monkeypatch):
    monkeypatch.setattr(os, "nice", lambda increment: 0)


def first_words(path: Path) -> dict[str, object]:
    """What a new process tells its master, who closes the line then."""
    ours, theirs = socket.socketpair()
    arguments = {"path": os.fspath(path), "member": "m", "job_id": "", "silence_s": 30.0}
    process = threading.Thread(target=serve, args=([theirs.detach()], arguments))
    process.start()
    told: dict[str, object] = json.loads(ours.makefile().readline())
    ours.close()
    process.join()
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
