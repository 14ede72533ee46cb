"""Two sweeps compared: pairs, intervals that hold, and what is printed, drawn and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_results import opening, write_journal

import mpisweep
from mpisweep.blocks import EndedBlock, TrialsBlock
from mpisweep.cli import main
from mpisweep.results import ResultsError
from mpisweep.results.pairing import mean_change, paired
from mpisweep.views.figures import save
from mpisweep.views.figures.paired import draw_paired

SPEC = 'name = "s"\nworkload = "m:f"\nrepeats = 2\n[parameters]\nx = {x}\n[fixed]\nmode = "{mode}"\n'


def written(path: Path, values: dict[int, list[float]], *, seconds: float = 2.0, mode: str = "fast") -> Path:
    """A sweep whose configuration `x` has these losses, one per repeat; NaN for one that failed."""
    xs = [x for x, losses in values.items() for _ in losses]
    losses = [loss for one in values.values() for loss in one]
    numbers = [*range(len(xs))]
    write_journal(
        path,
        [
            TrialsBlock(
                numbers, {"x": xs, "mode": mode}, configurations=[[*values].index(x) for x in xs],
                repeats=[place for one in values.values() for place in range(len(one))],
            ),
            *(
                EndedBlock(
                    0, 0, [number], [1], [4 if np.isnan(loss) else 2], [1001.0], [seconds],
                    {} if np.isnan(loss) else {"loss": [loss]},
                )
                for number, loss in zip(numbers, losses, strict=True)
            ),
        ],
        opening(spec=SPEC.format(x=[*values], mode=mode)),
    )  # fmt: skip
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    nan = float("nan")
    first = {1: [1.0, 2.0], 2: [3.0, 4.0], 3: [5.0, 5.0], 4: [nan, nan], 7: [1.0, 1.0]}
    second = {3: [4.0, 4.5], 2: [2.0, 3.0], 1: [0.5, 1.5], 4: [1.0, 1.0], 8: [0.0, 0.0], 9: [0.0, 0.0]}
    return (
        written(tmp_path / "a.h5", first, seconds=2.0),
        written(tmp_path / "b.h5", second, seconds=1.0, mode="exact"),
    )


def test_configurations_are_paired_by_their_values(two: tuple[Path, Path]):
    pairs = paired(*map(mpisweep.load, two))
    assert [one["x"] for one in pairs.configurations] == [1, 2, 3, 4]
    assert pairs.alone == (1, 2)
    assert pairs.difference.tolist()[:3] == [-0.5, -1.0, -0.75]
    assert np.isnan(pairs.difference[3])
    # The repeats of 1 and 2 differ by the luck of their seeds, which cancels.
    assert pairs.half_width.tolist()[:2] == [0.0, 0.0]
    assert pairs.half_width[2] > 1
    assert (pairs.change.count, pairs.change.mean) == (3, -0.75)
    assert pairs.change.low == pytest.approx(-0.75 - 4.302653 * 0.25 / 3**0.5)
    assert pairs.is_better is True
    assert (pairs.time.count, pairs.time.mean, pairs.time.low) == (3, 0.5, 0.5)
    assert pairs.energy.count == 0
    assert pairs.settings == {"mode": ("fast", "exact")}


def test_the_other_way_round_is_worse(two: tuple[Path, Path]):
    a, b = map(mpisweep.load, two)
    pairs = paired(b, a)
    assert pairs.change.mean == 0.75
    assert pairs.is_better is False
    # Nothing is said of a metric by which the sweep does not rank.
    assert paired(a, b, "wall_time").is_better is None


def test_the_interval_holds_the_true_difference(tell):
    """95 of 100: noise per run, differences that vary between configurations, and a common seed's luck."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(2000):
        true = -0.3
        differences = true + random.normal(0, 0.5, 12) + random.normal(0, 0.2, (12, 2)).mean(axis=1)
        found = mean_change(differences)
        held += found.low <= true <= found.high
    tell(f"{held} of 2,000 intervals hold the true difference of two sweeps")
    assert 0.93 <= held / 2000 <= 0.97


def test_compare_prints_what_differs(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    a, b = map(str, two)
    assert main(["compare", a, b, "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        f"A: {a}", f"B: {b}", "4 configurations in both; 1 only in A; 2 only in B",
        "B - A, mean loss: -0.75 (95%: -1.371 to -0.12897), over 3 configurations: B is better",
        "B / A, wall time: 0.5 (95%: 0.5 to 0.5), over 3 configurations",
        "parameters of A: mode=fast; of B: mode=exact",
    ]  # fmt: skip
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows[-2:]] == ["2", "3"]
    assert lines[-1] == "the 2 of 4 configurations that differ most"


def test_compare_without_a_difference_says_so(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    assert main(["compare", str(two[0]), str(two[0])]) == 0
    out = capsys.readouterr().out
    assert "B - A, mean loss: 0 (95%: 0 to 0), over 4 configurations: no difference can be told" in out
    assert "parameters of A" not in out


def test_compare_as_json_and_as_a_figure(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "both.svg"
    assert main(["compare", *map(str, two), "--json", "-o", str(out)]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["difference"]["mean"] == -0.75
    assert found["configurations"][3] == {
        "parameters": {"x": 4}, "first": None, "second": 1.0, "difference": None, "half_width": None,
        "first_s": None, "second_s": 1.0,
    }  # fmt: skip
    assert (found["only_first"], found["only_second"], found["is_better"]) == (1, 2, True)
    text = out.read_text()
    assert "95% interval" in text
    assert "loss, B - A" in text
    # Several parameters, or one of choices, have no order: the figure sorts by size.
    a, b = map(mpisweep.load, two)
    save(draw_paired(paired(a, b, "wall_time"), a, b), tmp_path / "time.png")


def test_sweeps_without_a_common_configuration_are_refused(two: tuple[Path, Path], tmp_path: Path, capsys):
    other = written(tmp_path / "c.h5", {20: [1.0, 1.0]})
    with pytest.raises(ResultsError, match=r"have no configuration in common; searched are x$"):
        paired(mpisweep.load(two[0]), mpisweep.load(other))
    assert main(["compare", str(two[0]), str(other)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["compare", str(two[0]), str(two[1]), "--metric", "lss"]) == 2
    assert "did you mean 'loss'" in capsys.readouterr().err
