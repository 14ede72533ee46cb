"""Results files for the commands and the code of the pages, which name them as a reader's would be named."""

from __future__ import annotations

import configparser
import re
from array import array
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from test_results import opening, write_journal
from voice import ROOT

from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    Curve,
    EndedBlock,
    JoinedRecord,
    ReportBlock,
    TrialsBlock,
)
from mpisweep.records import FailureCause, TrialState
from mpisweep.results.compaction import compact_and_close

__all__ = ["Kind", "check_layout", "make", "setup"]

#: A sweep of ResNet50, so that samples follow from steps, over the parameters that the pages use.
SPEC = """
name      = "NAME"
workload  = "resnet50"
objective = ["val_loss", "train_time"]
search    = "random"
trials    = COUNT

[parameters]
batch_size    = { from = 1, to = 700 }
learning_rate = { from = 1e-4, to = 1.0, scale = "log" }
optimizer     = ["sgd", "adamw"]

[baseline]
batch_size    = 256
learning_rate = 0.01
optimizer     = "sgd"
"""
#: A grid of which most trials wait.
GRID = """
name      = "NAME"
workload  = "resnet50"
objective = "val_loss"

[parameters]
batch_size = { from = 1, to = COUNT }
"""
#: Trials of several ranks.
SCALING = """
name      = "NAME"
workload  = "my_train:train"
objective = "val_loss"

[parameters]
batch_size      = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
ranks_per_trial = [1, 2, 4]
"""


class Kind(Enum):
    """What a results file holds."""

    SEARCHED = "ended trials of ResNet50, with curves and times to a target"
    WAITS = "a grid of which most trials wait"
    SCALES = "a grid of numbers of ranks"
    OWN = "ended trials of a function with a parameter `lr`"


_STEPS = 12
_ENDED = 24


@cache
def setup() -> configparser.ConfigParser:
    """The package's metadata."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def make(path: Path, kind: Kind = Kind.SEARCHED) -> None:
    """Write a results file of 24 ended trials, of which one failed."""
    spec, columns = _space(kind)
    count = len(columns["batch_size"])
    first = 100 if kind is Kind.WAITS else 0
    numbers, ones = list(range(first, first + _ENDED)), [1] * _ENDED
    failed = first + 5
    sizes = [int(columns["batch_size"][n]) for n in numbers]
    final = [0.5 + abs(np.log2(size / 64)) / 4 for size in sizes]
    seconds = [60.0 + n for n in range(_ENDED)]
    begun = [1002.0 + 100 * n for n in range(_ENDED)]
    values = {
        "loss": final,
        "loss_mean": final,
        "val_loss": [1.1 * one for one in final],
        "train_time": seconds,
    }
    if kind is Kind.SEARCHED:
        values["steps_to_target"] = [42 * (1 + 40 / size) for size in sizes]
        values["samples_to_target"] = [42 * (size + 40.0) for size in sizes]
    metrics = {
        name: [None if n == failed else one for n, one in zip(numbers, column, strict=True)]
        for name, column in values.items()
    }
    curves = {name: values[name] for name in _CURVES}
    if kind is Kind.OWN:
        curves["samples"] = [90_000.0] * _ENDED
    records: list[object] = [
        TrialsBlock(list(range(count)), columns, baseline=0 if kind is Kind.SEARCHED else None),
        JoinedRecord(0, "node1", "gpu 0", 8, 1, 1001.0),
        AssignedBlock(
            [[0, 0]], begun[0], numbers, ones,
            {name: [column[n] for n in numbers] for name, column in columns.items()},
        ),
        *(
            ReportBlock(
                0, number, 1,
                {name: _curve(column[n], sizes[n], seconds[n]) for name, column in curves.items()},
            )
            for n, number in enumerate(numbers) if number != failed
        ),
        EndedBlock(
            0, 0, numbers, ones,
            [int(TrialState.FAILED if n == failed else TrialState.COMPLETE) for n in numbers], begun, seconds, metrics,
            [int(FailureCause.EXCEPTION) if n == failed else 0 for n in numbers],
            ["it failed" if n == failed else "" for n in numbers],
        ),
        ClosedRecord(begun[-1] + 100, "stopped" if kind is Kind.WAITS else "complete"),
    ]  # fmt: skip
    write_journal(path, records, opening(spec=spec.replace("NAME", path.stem).replace("COUNT", str(count))))
    compact_and_close(path)


def _space(kind: Kind) -> tuple[str, dict[str, list[Any]]]:
    """The sweep file, and all configurations."""
    if kind is Kind.WAITS:
        return GRID, {"batch_size": list(range(1, 701))}
    if kind is Kind.SCALES:
        sizes = [64 * 2 ** (n // 3) for n in range(_ENDED)]
        return SCALING, {"batch_size": sizes, "ranks_per_trial": [(1, 2, 4)[n % 3] for n in range(_ENDED)]}
    rates = [0.01, *(10 ** (-4 + n / 8) for n in range(_ENDED - 1))]
    columns: dict[str, list[Any]] = {
        "batch_size": [256, *(8 + 16 * n for n in range(_ENDED - 1))],
        "learning_rate": rates,
        "optimizer": [("sgd", "adamw")[n % 2] for n in range(_ENDED)],
    }
    if kind is Kind.SEARCHED:
        return SPEC, columns
    columns["lr"] = columns.pop("learning_rate")
    return SPEC.replace("learning_rate", "lr").replace("resnet50", "my_train:train"), columns


#: The metrics that have curves.
_CURVES = ("loss", "val_loss", "train_time")


def _curve(final: float, size: int, seconds: float) -> Curve:
    """A curve to its final value, over 90,000 samples."""
    steps = np.linspace(0, 90_000 // size, _STEPS).astype(int)
    values = final * (1 + np.linspace(1, 0, _STEPS) ** 2)
    return Curve(
        array("q", steps.tolist()),
        array("d", values.tolist()),
        array("d", np.linspace(1, seconds, _STEPS).tolist()),
    )


def check_layout(path: Path, shown: str) -> None:
    """Check that a results file has all groups that a page's layout shows."""
    with h5py.File(path) as file:
        for place in re.findall(r"^/(\S*)", shown, flags=re.MULTILINE):
            parts = [part for part in place.split("/") if part not in ("", "...")]
            named = [part for part in parts if not part.startswith("<")]
            found = file["/".join(named)] if named else file
            assert isinstance(found, h5py.Group), place
            assert len(found) or len(found.attrs), place
