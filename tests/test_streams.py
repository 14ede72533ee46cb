"""A sweep does not depend on its output: closed, full or broken streams change nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from waiting import PATIENCE_S


@pytest.mark.mpi
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("streams", [">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_a_sweep_ends_whatever_becomes_of_its_output(
    folder: Path, environment: dict[str, str], streams: str, workers: int
):
    command = f"'{sys.executable}' -m mpisweep run workloads:half -p x=1:5 -o out.h5 -n {workers} {streams}"
    script = f"set -o pipefail; {command}; echo $? > code"
    subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, check=True, timeout=PATIENCE_S,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert (folder / "code").read_text().strip() == "0"
    with h5py.File(folder / "out.h5") as file:
        assert list(file["trials/state"]) == [2] * 5
