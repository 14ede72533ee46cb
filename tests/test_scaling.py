from __future__ import annotations

from pathlib import Path

import pytest
from test_figures import resnet_sweep, script
from test_results import opening, write_journal

import mpisweep
from mpisweep.blocks import AssignedBlock, ClosedRecord, EndedBlock, JoinedRecord, TrialsBlock
from mpisweep.results.compaction import compact_and_close
from mpisweep.views import figures
from mpisweep.views.scaling import scaling

RANKS, SIZES = (1, 2, 4), (64, 128)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sweep whose images per second grow with the ranks; each doubling loses a fifth."""
    spec = (
        'name = "flow"\n'
        'workload = "resnet50"\n'
        "[parameters]\n"
        "ranks_per_trial = [1, 2, 4]\n"
        "batch_size = [64, 128]\n"
    )
    configurations = [(ranks, size) for ranks in RANKS for size in SIZES]
    records: list[object] = [
        TrialsBlock(
            list(range(6)),
            {"ranks_per_trial": [r for r, _ in configurations], "batch_size": [b for _, b in configurations]},
        ),
        *(JoinedRecord(rank, "node1", f"V100 #{rank}", 10, 1, 1000.5) for rank in range(4)),
    ]
    for number, (ranks, size) in enumerate(configurations):
        speed = 100.0 * {1: 1.0, 2: 1.6, 4: 2.56}[ranks] * (1 if size == 64 else 1.1)
        records.append(
            AssignedBlock([[rank, 0] for rank in range(ranks)], 1001.0 + 10 * number, [number], [1], {})
        )
        failed = number == 5
        records.append(
            EndedBlock(
                0,
                0,
                [number],
                [1],
                [4 if failed else 2],
                [1001.0 + 10 * number],
                [5.0],
                {"images_per_second": [None if failed else speed]},
                [1] if failed else [],
                ["x"] if failed else [],
            )
        )
    records.append(ClosedRecord(1100.0, "complete"))
    made = tmp_path / "flow.h5"
    write_journal(made, records, opening(spec=spec))
    compact_and_close(made)
    return made


def test_speedup_and_efficiency_are_against_the_fewest_ranks_of_the_same_configuration(path):
    small, large = scaling(mpisweep.load(path), "images_per_second")
    assert (small.label, large.label) == ("batch_size=64", "batch_size=128")
    assert small.ranks.tolist() == [1, 2, 4]
    assert small.speedup.tolist() == pytest.approx([1.0, 1.6, 2.56])
    assert small.efficiency.tolist() == pytest.approx([1.0, 0.8, 0.64])
    assert large.ranks.tolist() == [1, 2], "a trial that has failed is no point"


def test_a_baseline_with_other_fixed_values_gets_no_speedup(tmp_path):
    spec = (
        'workload = "m:f"\n'
        'objective = "speed"\n'
        "[parameters]\n"
        "ranks_per_trial = [1, 2]\n"
        "[fixed]\n"
        'mode = "fast"\n'
        "[baseline]\n"
        'mode = "slow"\n'
        "ranks_per_trial = 1\n"
    )
    made = tmp_path / "s.h5"
    write_journal(
        made,
        [
            TrialsBlock(
                [0, 1, 2], {"ranks_per_trial": [1, 2, 1], "mode": ["fast", "fast", "slow"]}, baseline=2
            ),
            EndedBlock(
                0, 0, [0, 1, 2], [1, 1, 1], [2, 2, 2], [1001.0] * 3, [1.0] * 3, {"speed": [4.0, 6.0, 1.0]}
            ),
        ],
        opening(spec=spec),
    )
    [only] = scaling(mpisweep.load(made), "speed")
    assert only.numbers.tolist() == [0, 1]


def test_a_duration_is_better_when_it_is_shorter(path):
    [*_, last] = scaling(mpisweep.load(path), "wall_time")
    assert last.speedup.tolist() == [1.0, 1.0]


def test_the_timeline_has_a_box_for_every_rank_of_a_wide_trial(path):
    sweep = mpisweep.load(path)
    found = figures.spans(sweep)
    assert sorted(found.worker.tolist()) == sorted([0] * 6 + [1] * 4 + [2] * 2 + [3] * 2)
    total = figures.total_time(sweep)
    assert (total.trials_s, total.busy_s) == (30.0, 5.0 * (1 + 1 + 2 + 2 + 4 + 4))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_script_draws_every_format(path, suffix):
    done = script("scaling.py", path, "-o", f"s{suffix}", cwd=path.parent)
    assert done.returncode == 0, done.stderr
    assert (path.parent / f"s{suffix}").stat().st_size > 3000


def test_a_sweep_of_one_rank_trials_has_no_scaling_and_the_message_says_how_to_get_it(tmp_path):
    done = script("scaling.py", resnet_sweep(tmp_path / "flow.h5"), cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "all trials have one rank; to measure scaling, set ranks_per_trial = [1, 2, 4] under [parameters]"
        in done.stderr
    )
