"""What the batch system says about the allocation."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from mpisweep.batch.allocation import Allocation, ends_at, this_allocation


def test_the_job_is_known_by_its_variable():
    assert this_allocation({"PJM_JOBID": "17"}) == Allocation("pjm", "17")
    assert this_allocation({"SLURM_JOB_ID": "18"}) == Allocation("slurm", "18")
    assert this_allocation({}) == Allocation("local", "")


def test_slurm_says_when_it_ends_by_a_variable():
    assert ends_at(Allocation("slurm", "1"), {"SLURM_JOB_END_TIME": "1800000000"}) == 1.8e9
    assert ends_at(Allocation("local", ""), {"SLURM_JOB_END_TIME": "1800000000"}) is None


@pytest.mark.parametrize("answer", ["time", "N/A", "", "exit 1"])
def test_or_by_its_own_command_or_not_at_all(tmp_path, monkeypatch, answer):
    ends = time.time() + 100
    shown = datetime.fromtimestamp(ends).isoformat(timespec="seconds") if answer == "time" else answer
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\n{'exit 1' if answer == 'exit 1' else f'echo {shown}'}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = ends_at(Allocation("slurm", "1"), {})
    assert found == (pytest.approx(ends, abs=1.5) if answer == "time" else None)
