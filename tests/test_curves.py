"""Cost of reading, compacting and merging large sweeps as trials, reports and files grow."""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from test_results import SPEC, opening, write_journal

import mpisweep
from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, JoinedRecord, ReportBlock, TrialsBlock
from mpisweep.results.compaction import compact
from mpisweep.results.merged import read_merged
from mpisweep.results.shares.folder import SharedSweep
from mpisweep.results.shares.leases import Lease
from mpisweep.results.shares.merging import merge
from mpisweep.views.export import write_csv, write_json

METRICS = ("loss", "accuracy")


def curve(number: int, metric: str, reports: int, first: int = 0) -> Curve:
    """A part of a curve whose values differ from those of every other trial and metric."""
    steps = range(first, first + reports)
    values = array("d", [1000.0 * number + len(metric) + 0.001 * step for step in steps])
    return Curve(array("q", steps), values, array("d", [0.1 * step for step in steps]))


def records(trials: int, reports: int) -> list[object]:
    """A sweep in which each trial reports in two blocks and ends."""
    made: list[object] = [
        TrialsBlock(list(range(trials)), {"x": list(range(1, trials + 1)), "mode": "fast"}),
        JoinedRecord(1, "node1", "cpu 0", 1, 1, 1001.0),
    ]
    for number in range(trials):
        made.append(AssignedBlock([[1, 0]], 1002.0, [number], [1], {"x": number + 1, "mode": "fast"}))
        for sequence in range(2):
            curves = {name: curve(number, name, reports, sequence * reports) for name in METRICS}
            made.append(ReportBlock(1, number, 1, curves, sequence))
        made.append(EndedBlock(1, 0, [number], [1], [2], [1003.0], [1.0], {"loss": [0.5]}))
    return made


# ------------------------------------------------------------------------------------- nothing is quadratic


def calls_in(work: Callable[[], object]) -> int:
    """Number of calls of Python and C functions; it does not depend on the load of the machine."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def every_curve(path: Path) -> None:
    sweep = mpisweep.load(path)
    for number in range(len(sweep.trials)):
        for metric in sweep.curve_names:
            assert len(sweep.curve(number, metric).value) == 4


def merged(path: Path) -> None:
    part = read_merged(path)
    shared = SharedSweep(SPEC, "sweep.toml", 2, part.count, "", [list(range(part.count))])
    numbers = tuple(range(part.count))
    lease = Lease(0, 1, "a", numbers, (0,) * part.count, (0,) * part.count)
    state = merge(shared, read_merged(path), {"a": part}, [lease])
    assert list(state.curve(part.count - 1, "loss").step) == [0, 1, 2, 3]


WORK: dict[str, Callable[[Path], object]] = {
    "reading": read_merged,
    "loading": mpisweep.load,
    "every curve": every_curve,
    "merging": merged,
    "compacting": compact,
    "CSV": lambda path: write_csv(mpisweep.load(path), io.StringIO(), curves=True),
    "JSON": lambda path: write_json(mpisweep.load(path), io.StringIO(), curves=True),
}


@pytest.mark.parametrize("where", ["journal", "file"])
@pytest.mark.parametrize("what", WORK)
def test_four_times_the_trials_take_four_times_the_work(tmp_path, what, where):
    counted = []
    for trials in (150, 600):
        path = tmp_path / f"{trials}.h5"
        write_journal(path, records(trials, 2), opening())
        if where == "file":
            compact(path)
        counted.append(calls_in(lambda path=path: WORK[what](path)))
    assert counted[1] / counted[0] < 5, counted
