"""Trials with different budgets, compared after equal steps, samples or seconds."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_figures import script
from test_results import opening, write_journal

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    Curve,
    EndedBlock,
    JoinedRecord,
    ReportBlock,
    TrialsBlock,
)
from mpisweep.cli import main
from mpisweep.results import ResultsError, reports
from mpisweep.results.budgets import Budget, parse_budget
from mpisweep.results.compaction import compact_and_close
from mpisweep.views import figures, tables

RESNET50 = 'name = "flow"\nworkload = "resnet50"\nobjective = "loss_mean"\n[parameters]\n'
FUNCTION = 'name = "own"\nworkload = "m:f"\n[parameters]\n'

#: Metric -> (steps, values, times), or values alone: steps from 0 on, and 0.1 s per step.
Curves = Mapping[str, Sequence[float] | tuple[Sequence[int], Sequence[float], Sequence[float]]]


def as_curve(given) -> Curve:
    if not isinstance(given, tuple):
        given = range(len(given)), given, [0.1 * (n + 1) for n in range(len(given))]
    step, value, time = given
    return Curve(array("q", step), array("d", value), array("d", time))


def sweep(
    path: Path, head: str, column: tuple[str, list], curves: list[Curves], finals=None
) -> mpisweep.Sweep:
    """Write a sweep of one parameter whose trials reported these curves and completed."""
    name, values = column
    count = len(values)
    spec = f"{head}{name} = {values!r}\n[baseline]\n{name} = {values[0]!r}\n"
    records: list[object] = [
        TrialsBlock(list(range(count)), {name: values}, baseline=0),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
    ]
    for number, (value, reported) in enumerate(zip(values, curves, strict=True)):
        last = {metric: as_curve(c).value[-1] for metric, c in reported.items()}
        if finals is not None:
            last |= finals[number]
        records += [
            AssignedBlock([[0, 0]], 1001.0 + 100 * number, [number], [1], {name: value}),
            ReportBlock(0, number, 1, {metric: as_curve(c) for metric, c in reported.items()}),
            EndedBlock(
                0, 0, [number], [1], [2], [1001.0 + 100 * number], [99.0],
                {metric: [x] for metric, x in last.items()}, [], [],
            ),
        ]  # fmt: skip
    records.append(ClosedRecord(2000.0, "complete"))
    write_journal(path, records, opening(spec=spec))
    compact_and_close(path)
    return mpisweep.load(path)


def resnet50(path: Path, sizes=(10, 30, 400), steps=(300, 100, 2)) -> mpisweep.Sweep:
    """Write a sweep with losses that fall from 100; a step takes 10 ms, and 100 ms of wall time."""
    curves: list[Curves] = []
    for count in steps:
        losses = [100.0 - n for n in range(count)]
        seconds = list(range(5, count)), [0.01 * (n + 1) for n in range(5, count)], [0.1] * (count - 5)
        curves.append({"loss": losses} | ({"train_time": seconds} if count > 5 else {}))
    finals = [{"loss_mean": float(np.mean(c["loss"][-max(1, len(c["loss"]) // 10) :]))} for c in curves]
    return sweep(path, RESNET50, ("batch_size", list(sizes)), curves, finals)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    resnet50(tmp_path / "flow.h5")
    return tmp_path / "flow.h5"


# ------------------------------------------------------------------------------------- values at a budget


def test_at_the_end_of_a_trial_its_mean_loss_is_the_one_that_it_returned(path: Path):
    ended = mpisweep.load(path).trials["loss_mean"]
    assert mpisweep.load(path).at(samples=3000).trials["loss_mean"][:2].tolist() == ended[:2].tolist()
    assert mpisweep.load(path).at(step=300).trials["loss_mean"][0] == ended[0]
    assert mpisweep.load(path).at(seconds=3).trials["loss_mean"][0] == ended[0]


def test_a_value_is_the_mean_over_the_last_tenth_of_the_steps_until_then(path: Path):
    at = mpisweep.load(path).at(samples=600).trials
    # 60 steps of 10 images, whose last tenth has the losses from 46 on; 20 steps of 30; 2 steps of 400.
    assert at["loss_mean"].tolist() == [np.mean([100 - n for n in range(54, 60)]), 81.5, 99.0]
    assert at["loss"].tolist() == at["loss_mean"].tolist()
    assert at["at_steps"].tolist() == [60, 20, 2]
    assert at["at_samples"].tolist() == [600, 600, 800], "a budget is rounded up to whole steps"


@pytest.mark.parametrize("samples", [1, 29, 30, 31, 2999, 3000])
def test_samples_are_rounded_up_to_whole_steps(path: Path, samples: int):
    at = mpisweep.load(path).at(samples=samples).trials
    assert at["at_steps"][:2].tolist() == [math.ceil(samples / 10), math.ceil(samples / 30)]


def test_a_trial_that_used_less_has_no_value(path: Path):
    at = mpisweep.load(path).at(samples=801)
    assert np.isnan(at.trials["loss_mean"]).tolist() == [False, False, True]
    assert at.unreached == 1
    assert mpisweep.load(path).at(samples=800).unreached == 0
    assert mpisweep.load(path).unreached == 0
    assert np.isnan(mpisweep.load(path).at(step=301).trials["loss"]).all()


def test_seconds_are_those_of_the_training_where_a_trial_reports_them(path: Path):
    at = mpisweep.load(path).at(seconds=0.5).trials
    assert at["at_steps"].tolist()[:2] == [50, 50]
    assert at["at_seconds"][:2] == pytest.approx([0.5, 0.5])
    # Before the first report of the training time, all steps are taken to be equally long.
    assert mpisweep.load(path).at(seconds=0.03).trials["at_steps"][:2].tolist() == [3, 3]
    # The last trial is too short to report it; its second step ends after 0.2 s of wall time.
    assert mpisweep.load(path).at(seconds=0.2).trials["at_steps"][2] == 2


def test_samples_of_a_function_are_known_only_if_it_reports_them(tmp_path: Path):
    reports = {"loss": ([10, 20, 30], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0])}
    silent = sweep(tmp_path / "a.h5", FUNCTION, ("x", [1, 2]), [reports, reports])
    with pytest.raises(
        ResultsError, match=r"a\.h5: the trials do not say how many samples they have used; re"
    ):
        silent.at(samples=10)
    # Steps that do not start at 0 count the completed steps.
    assert silent.at(step=20).trials["loss"].tolist() == [2.0, 2.0]
    assert silent.at(step=29).trials["loss"].tolist() == [2.0, 2.0]
    assert silent.at(seconds=2.0).trials["loss"].tolist() == [2.0, 2.0]
    telling = [
        reports | {"samples": ([10, 20, 30], [100.0 * k, 200.0 * k, 300.0 * k], [1.0, 2.0, 3.0])}
        for k in (1, 2)
    ]
    told = sweep(tmp_path / "b.h5", FUNCTION, ("x", [1, 2]), telling)
    assert told.at(samples=200).trials["loss"].tolist() == [2.0, 3.0]
    assert told.at(samples=250).trials["loss"].tolist() == [2.0, 3.0]
    assert told.at(samples=250).trials["samples"].tolist() == [200.0, 200.0], "a count has no mean"
    assert told.at(samples=301).unreached == 1


def test_a_metric_with_few_reports_has_the_value_of_its_last_one(tmp_path: Path):
    losses = [float(n) for n in range(100)]
    found = sweep(
        tmp_path / "v.h5", RESNET50, ("batch_size", [10]),
        [{"loss": losses, "val_loss": ([39, 79, 99], [4.0, 3.0, 2.0], [1.0, 2.0, 3.0])}],
    )  # fmt: skip
    assert [found.at(step=n).trials["val_loss"][0] for n in (40, 79, 80, 100)] == [4.0, 4.0, 3.0, 2.0]
    assert np.isnan(found.at(step=39).trials["val_loss"][0])


def test_a_loss_that_is_not_finite_affects_the_means_that_include_it(tmp_path: Path):
    losses = [1.0] * 50 + [math.inf, math.nan] + [1.0] * 48
    found = sweep(tmp_path / "n.h5", RESNET50, ("batch_size", [10]), [{"loss": losses}])
    assert [math.isfinite(found.at(step=n).trials["loss"][0]) for n in (50, 51, 54, 57, 80)] == [
        True, False, False, True, True,
    ]  # fmt: skip
    assert found.at(step=54).unreached == 0


def test_a_sweep_without_curves_has_no_values_at_a_budget(tmp_path: Path):
    found = sweep(tmp_path / "c.h5", FUNCTION, ("x", [1]), [{}], [{"loss": 1.0}])
    with pytest.raises(ResultsError, match=r"no trial has reported curves, so none has a value at steps = 5"):
        found.at(step=5)


def test_progress_gives_steps_samples_and_seconds_of_each_report(path: Path, monkeypatch):
    read: list[int] = []
    of_trial = reports.Curves.of_trial

    def counted(curves: reports.Curves, number: int, metrics):
        read.append(number)
        return of_trial(curves, number, metrics)

    monkeypatch.setattr(reports.Curves, "of_trial", counted)
    progress = mpisweep.load(path).progress(1, "loss")
    assert read == [1]
    assert progress.steps.tolist() == list(range(1, 101))
    assert progress.samples.tolist() == [30.0 * n for n in range(1, 101)]
    assert progress.seconds == pytest.approx(0.01 * np.arange(1, 101))
    with pytest.raises(KeyError, match="there is no curve of 'los'"):
        mpisweep.load(path).progress(1, "los")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("samples=76800", Budget("samples", 76800)),
        ("samples=7.68e4", Budget("samples", 76800)),
        ("step=300", Budget("step", 300)),
        ("seconds=2m", Budget("seconds", 120)),
        ("seconds=1.5", Budget("seconds", 1.5)),
    ],
)
def test_a_budget_is_an_axis_and_a_number(text: str, expected: Budget):
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text", ["", "samples", "samples=", "samples=0", "epochs=3", "step=nan", "seconds=x"]
)
def test_an_invalid_budget_is_refused(text: str):
    with pytest.raises(ValueError, match=r"is no budget; expected step=N, samples=N or seconds=N"):
        parse_budget(text)


def test_exactly_one_budget_is_accepted(path: Path):
    for given in ({}, {"step": 1, "samples": 2}):
        with pytest.raises(ValueError, match="expected one of step, samples, seconds"):
            mpisweep.load(path).at(**given)
    with pytest.raises(ValueError, match="step=-1 is no budget"):
        mpisweep.load(path).at(step=-1)


# ------------------------------------------------------------------------------------- tables, figures and exports


def test_the_table_ranks_trials_at_the_budget_and_counts_those_that_did_not_reach_it(path: Path, capsys):
    assert main(["top", str(path)]) == 0
    assert "1st" in capsys.readouterr().out
    assert main(["top", str(path), "--at", "samples=900"]) == 0
    printed = capsys.readouterr().out
    assert "flow: best trials by smallest loss_mean at samples = 900" in printed
    assert "1 completed trial used less than samples = 900" in printed
    table = tables.top_table(mpisweep.load(path).at(samples=900), 5)
    assert [(row.rank, *row.parameters) for row in table.rows] == [
        ("1st", "10"), ("2nd", "30"), ("baseline", "10"),
    ]  # fmt: skip
    assert [row.wall_time_s for row in table.rows[:2]] == pytest.approx([0.9, 0.3]), "the time until there"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "epochs=3"], "--at: 'epochs=3' is no budget; expected step=N, samples=N or seconds=N"),
        (
            ["--at", "step=5", "--by", "images_per_second"],
            "there is no metric 'images_per_second' with a curve",
        ),
    ],
)
def test_an_unknown_axis_and_a_metric_without_curve_are_refused(
    path: Path, capsys, arguments: list[str], message: str
):
    assert main(["top", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_figures_and_the_report_are_drawn_at_the_budget(path: Path, tmp_path: Path):
    series = figures.metric_series(mpisweep.load(path).at(samples=900), "batch_size", "loss_mean")
    assert series.x.tolist() == [10, 30]
    assert series.without_x.tolist() == [400]
    assert series.x[series.best] == 10
    done = script("loss_vs_batch_size.py", path, "--at", "samples=900", "-o", "a.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        script("learning_curves.py", path, "--over", "samples", "--metric", "loss", cwd=tmp_path).returncode
        == 0
    )
    assert "at samples = 900" in script("top_configs.py", path, "--at", "samples=900", cwd=tmp_path).stdout
    assert main(["report", str(path), "--at", "samples=900", "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 completed trial used less than samples = 900" in page


def test_learning_curves_over_samples_end_at_the_samples_used(path: Path):
    axes = figures.draw_learning_curves(mpisweep.load(path), "loss", over="samples").axes[0]
    lines = [segment for drawn in axes.collections for segment in drawn.get_segments()]
    assert {float(line[-1][0]) for line in lines} == {3000.0, 800.0}


def test_exported_curves_hold_samples(path: Path, capsys):
    assert main(["export", str(path), "--curves"]) == 0
    rows = [row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["metric"] == "loss"]
    assert [row["samples"] for row in rows[:2]] == ["10.0", "20.0"]
