"""Device-hours and energy of a sweep in `status` and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_results import opening, write_journal

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    EndedBlock,
    JoinedRecord,
    LeftRecord,
    Record,
    TrialsBlock,
    UnfinishedBlock,
)
from mpisweep.cli import main
from mpisweep.records import AttemptEnd, EndReason
from mpisweep.views.report import page
from mpisweep.views.status import status_lines, sweep_status
from mpisweep.views.usage import usage_of

HOUR = 3600.0
INTERRUPTED, LOST, RECLAIMED = (
    int(end) for end in (AttemptEnd.INTERRUPTED, AttemptEnd.LOST, AttemptEnd.RECLAIMED)
)


def written(path: Path, gpus: float, *records: Record) -> mpisweep.results.load.Sweep:
    """Write a sweep of four trials on two workers with eight cores each."""
    device = "cpu 0-7" if gpus == 0 else "H200 #0"
    write_journal(
        path,
        [
            TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=None),
            *(JoinedRecord(rank, f"node{rank}", device, 8, 1, 1000.0, gpus=gpus) for rank in (0, 1)),
            *records,
        ],
        opening(),
    )
    return mpisweep.load(path)


def assigned(rank: int, at: float, *numbers: int, attempt: int = 1) -> AssignedBlock:
    return AssignedBlock([[rank, 0]], at, list(numbers), [attempt] * len(numbers), {"x": 1, "mode": "fast"})


def ended(
    rank: int, number: int, began: float, hours: float, energy_j: float | None = None, attempt: int = 1
):
    return EndedBlock(
        rank, 0, [number], [attempt], [2], [began], [hours * HOUR], {"loss": [1.0]},
        energy_j=[] if energy_j is None else [energy_j],
    )  # fmt: skip


def test_every_attempt_counts_from_its_start_to_its_end(tmp_path):
    usage = usage_of(written(
        tmp_path / "s.h5", 0.0,
        # Trial 1 waits for trial 0 for an hour, runs for an hour and is interrupted; trial 2 never starts.
        assigned(0, 0.0, 0, 1, 2),
        ended(0, 0, 0.0, 1.0),
        UnfinishedBlock(0, [1], [1], INTERRUPTED, 2 * HOUR),
        UnfinishedBlock(0, [2], [1], RECLAIMED, 2 * HOUR),
        # Trial 3 is lost after two hours; its second attempt takes half an hour on rank 0.
        assigned(1, 0.0, 3),
        UnfinishedBlock(1, [3], [1], LOST, 2 * HOUR),
        LeftRecord(1, 2 * HOUR, "lost"),
        assigned(0, 3 * HOUR, 3, attempt=2),
        ended(0, 3, 3 * HOUR, 0.5, attempt=2),
    ))  # fmt: skip
    assert usage.core_hours == pytest.approx(8 * (1.0 + 1.0 + 2.0 + 0.5))
    assert (usage.gpu_hours, usage.energy_kwh, usage.energy_trials, usage.ran) == (0.0, None, 0, 2)


def test_the_tables_of_a_sweep_are_made_once(tmp_path):
    sweep = written(tmp_path / "s.h5", 0.0, assigned(0, 0.0, 0), ended(0, 0, 0.0, 1.0))
    for name in ("allocations", "workers", "attempts", "ranks", "spans"):
        assert getattr(sweep, name) is getattr(sweep, name), name


def test_a_share_of_a_gpu_counts_as_a_share_and_all_ranks_of_a_trial_count(tmp_path):
    shared = usage_of(written(tmp_path / "a.h5", 0.5, assigned(0, 0.0, 0), ended(0, 0, 0.0, 3.0)))
    assert shared.gpu_hours == pytest.approx(1.5)
    wide = AssignedBlock([[0, 0], [1, 0]], 0.0, [0], [1], {"x": 1, "mode": "fast"})
    both = usage_of(written(tmp_path / "b.h5", 2.0, wide, ended(0, 0, 0.0, 3.0)))
    assert both.gpu_hours == pytest.approx(12.0)
    assert both.core_hours == pytest.approx(48.0)


def test_a_trial_counts_only_after_its_end(tmp_path):
    assert usage_of(written(tmp_path / "s.h5", 1.0, assigned(0, 0.0, 0))).gpu_hours == 0.0
    assert "GPU-hours" not in "".join(status_lines(sweep_status(mpisweep.load(tmp_path / "s.h5"))))


def test_status_report_and_json_show_device_hours_and_energy(tmp_path, capsys):
    path = tmp_path / "s.h5"
    sweep = written(
        path, 1.0,
        assigned(0, 0.0, 0, 1),
        ended(0, 0, 0.0, 2.0, 3.6e6),
        ended(0, 1, 2 * HOUR, 2.0, 1.8e6),
        ClosedRecord(5 * HOUR, EndReason.REQUEST.value),
    )  # fmt: skip
    line = "  4 GPU-hours, 1.5 kWh; per complete trial 2 GPU-hours, 750 Wh"
    assert line in status_lines(sweep_status(sweep))
    assert f"<li>{line.strip()}</li>" in page(sweep)
    assert main(["status", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu_hours"], found["core_hours"], found["energy_kwh"]) == (4.0, 32.0, 1.5)


def test_energy_of_some_trials_is_marked_as_incomplete(tmp_path):
    sweep = written(
        tmp_path / "s.h5",
        1.0,
        assigned(0, 0.0, 0, 1),
        ended(0, 0, 0.0, 2.0, 3.6e6),
        ended(0, 1, 2 * HOUR, 2.0),
    )
    line = "  4 GPU-hours, 1 kWh (measured in 1 of 2 trials); per complete trial 2 GPU-hours"
    assert line in status_lines(sweep_status(sweep))


def test_a_sweep_on_cores_shows_core_hours(tmp_path):
    sweep = written(tmp_path / "s.h5", 0.0, assigned(0, 0.0, 0), ended(0, 0, 0.0, 2.0))
    assert "  16 core-hours; per complete trial 16 core-hours" in status_lines(sweep_status(sweep))
