"""A folder in which every example of the help runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MODEL", "SWEEP", "make_sweeps"]

MODEL = '''
import math


def train(trial):
    """A loss that falls faster with the width; 48 fails."""
    width = trial.params["width"]
    for step in range(40):
        trial.report(step, loss=math.exp(-step * width / 2000))
    if width == 48:
        raise ValueError("48 does not fit")
    return {"loss": math.exp(-width / 50)}
'''

SWEEP = """
name     = "flow"
workload = "model:train"

[parameters]
width = { from = 16, to = 96, step = 16 }

[fixed]
depth = 3

[baseline]
width = 32
"""

SCRIPT = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--lr", type=float, default=1e-3, help="step size")
asked = parser.parse_args()
for epoch in range(3):
    print(f"epoch {epoch} loss: {asked.lr / (asked.batch_size + epoch):.6g}")
"""


def make_sweeps(folder: Path, environment: Mapping[str, str]) -> None:
    """Write a sweep of a function and one of a program, and run both to their end."""
    (folder / "model.py").write_text(MODEL)
    (folder / "sweep.toml").write_text(SWEEP)
    (folder / "train.py").write_text(SCRIPT)
    program = [
        "-p", "batch_size=1:4", "--metric", "loss=loss: ", "--name", "program", "--",
        "python", "train.py", "--batch_size={batch_size}",
    ]  # fmt: skip
    for arguments in (["sweep.toml"], program):
        subprocess.run(
            [sys.executable, "-m", "mpisweep", "run", "-n", "1", "-q", *arguments],
            cwd=folder,
            env=dict(environment),
            check=True,
            capture_output=True,
        )
    # The same sweep again, to compare with.
    shutil.copy(folder / "flow.h5", folder / "new.h5")
