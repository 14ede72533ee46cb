"""Copies of a sweep for other tools, read back by those tools."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from test_results import history, opening, write_journal

import mpisweep
from mpisweep.blocks import ClosedRecord, EndedBlock, JoinedRecord, TrialsBlock
from mpisweep.cli import main
from mpisweep.results.compaction import compact_and_close


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "s.h5"
    write_journal(made, history())
    compact_and_close(made)
    return made


def refused(path: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", str(path), *arguments]) != 0
    return capsys.readouterr().err


def study_in(out: Path) -> optuna.Study:
    if out.suffix == ".journal":
        backend = optuna.storages.journal.JournalFileBackend(str(out))
        return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return optuna.load_study(study_name=None, storage=f"sqlite:///{out}")


@pytest.mark.parametrize("name", ["s.db", "s.journal"])
def test_an_optuna_study_has_the_trials_under_their_numbers(path: Path, name: str):
    out = path.with_name(name)
    for _ in range(2):
        # The second one replaces the first.
        assert main(["export", str(path), "-o", str(out)]) == 0
    sweep, study = mpisweep.load(path), study_in(out)
    assert study.study_name == sweep.name
    assert study.metric_names == ["loss"]
    assert [trial.state for trial in study.trials] == [
        # Complete in mpisweep, without a loss.
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert [trial.user_attrs["state"] for trial in study.trials] == sweep.trials["state"].tolist()
    assert study.best_trial.number == sweep.best()[0]["number"]
    assert study.best_value == sweep.best()[0]["loss"]
    assert [trial.params["x"] for trial in study.trials] == sweep.trials["x"].tolist()
    assert study.trials[1].intermediate_values == {0: 5.0, 1: 4.0}
    assert study.trials[2].user_attrs["message"] == "ValueError: ü"
    assert study.trials[1].datetime_start.timestamp() == pytest.approx(sweep.trials["started_at"][1])
    assert not list(path.parent.glob("*.tmp-*"))


def test_what_an_objective_has_suggested_is_exact_in_its_study(tmp_path: Path):
    path, out = tmp_path / "o.h5", tmp_path / "o.journal"
    floats = {
        "name": "FloatDistribution",
        "attributes": {"low": 0.0, "high": 1.0, "log": False, "step": None},
    }
    mixed = {"name": "CategoricalDistribution", "attributes": {"choices": [1, "a", 2.5]}}
    spec = 'name = "o"\nworkload = "m:f"\nsearch = "tpe"\ntrials = 3\n'
    suggested = [
        {
            "params": {"x": 0.5, "c": 1},
            "distributions": {"x": floats, "c": mixed},
            "user_attrs": {"n": [1, 2]},
        },
        {"params": {"c": "a"}, "distributions": {"c": mixed}, "user_attrs": {}},
    ]
    write_journal(
        path,
        [
            TrialsBlock([0, 1, 2], {"x": [0.5, 0.7, 0.2]}, known=0),
            JoinedRecord(0, "n0", "cpu 0", 1, 1, 100.0),
            EndedBlock(
                0,
                0,
                [0, 1],
                [1, 1],
                [2, 2],
                [101.0, 102.0],
                [1.0, 1.0],
                {"loss": [3.0, 2.0]},
                suggested=suggested,
            ),
            ClosedRecord(110.0, "stopped on request"),
        ],
        opening(spec=spec),
    )
    for _ in range(2):
        # From the journal, then from the file.
        sweep = mpisweep.load(path)
        assert sweep.user_attrs(0) == {"n": [1, 2]}
        assert sweep.searched(1) == {"c": "a"}
        assert main(["export", str(path), "-o", str(out)]) == 0
        study = study_in(out)
        assert [trial.params for trial in study.trials] == [{"x": 0.5, "c": 1}, {"c": "a"}, {}]
        assert study.trials[0].user_attrs["n"] == [1, 2]
        assert study.trials[2].state is TrialState.WAITING
        # A study that is continued in Optuna runs it as it was proposed.
        assert study.ask().suggest_float("x", 0, 1) == 0.2
        compact_and_close(path)


def test_xarray_has_parameters_as_coordinates_and_curves_on_request(path: Path):
    pytest.importorskip("xarray")
    sweep = mpisweep.load(path)
    found = sweep.to_xarray()
    assert dict(found.sizes) == {"trial": 4}
    assert found.x.dims == ("trial",)
    assert "x" in found.coords
    np.testing.assert_array_equal(found.loss, sweep.trials["loss"])
    assert found.wall_time.attrs == {"units": "s"}
    assert found.attrs["objective"] == "loss"
    with_curves = sweep.to_xarray(curves=True)
    assert with_curves.loss_curve.shape == (4, 3)
    assert with_curves.loss_curve[1].values.tolist()[:2] == [5.0, 4.0]
    assert math.isnan(with_curves.loss_curve[1, 2])
    assert with_curves.loss_step[1].values.tolist() == [0, 1, -1]


def test_parquet_has_the_columns_of_load_with_null_where_a_trial_has_none(path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = path.with_suffix(".parquet")
    assert main(["export", str(path), "-o", str(out)]) == 0
    table = parquet.read_table(out)
    assert tuple(table.column_names) == mpisweep.load(path).trials.names
    assert table["loss"].to_pylist() == [None, 4.0, None, 1.0]
    assert table.schema.field("wall_time").metadata == {b"units": b"s"}
    assert main(["export", str(path), "--curves", "-o", str(out)]) == 0
    assert [
        (row["number"], row["step"], row["value"])
        for row in parquet.read_table(out).to_pylist()
        if row["metric"] == "loss"
    ] == [(1, 0, 5.0), (1, 1, 4.0), (3, 0, 3.0), (3, 1, 2.0), (3, 0, 1.0)]


def test_tensorboard_has_a_run_per_trial(path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = path.with_name("tb")
    assert main(["export", str(path), "--format", "tensorboard", "-o", str(out)]) == 0
    runs = sorted(folder.name for folder in out.iterdir() if folder.is_dir())
    assert runs == [f"trial-0000{number}" for number in range(4)]
    read = EventAccumulator(str(out / "trial-00001")).Reload()
    assert [(one.step, one.value) for one in read.Scalars("loss")] == [(0, 5.0), (1, 4.0)]
    assert "hparams" in read.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name


def test_mlflow_has_a_run_per_trial(path: Path):
    mlflow = pytest.importorskip("mlflow")
    out = path.with_name("ml")
    assert main(["export", str(path), "--format", "mlflow", "-o", str(out)]) == 0
    client = mlflow.tracking.MlflowClient(f"sqlite:///{out}/mlflow.db")
    name = mpisweep.load(path).name
    [experiment] = client.search_experiments(filter_string=f"name = '{name}'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["trial-00001"].data.metrics["loss"] == 4.0
    assert runs["trial-00001"].data.params["x"] == "2"
    assert runs["trial-00002"].info.status == "FAILED"


def test_a_tool_that_is_not_installed_and_a_wrong_output_are_one_sentence(path: Path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "mpisweep.views.exported.parquet", raising=False)
    said = refused(path, "-o", str(path.with_suffix(".parquet")), capsys=capsys)
    assert said.endswith("needs 'pyarrow', which is not installed; run `pip install pyarrow`\n")
    assert "set -o" in refused(path, "--format", "optuna", capsys=capsys)
    assert "rename it" in refused(
        path, "--format", "optuna", "-o", str(path.with_name("s.txt")), capsys=capsys
    )
    assert "remove it" in refused(path, "--curves", "-o", str(path.with_name("s.db")), capsys=capsys)
    assert "results file" in refused(path, "--format", "optuna", "-o", str(path), capsys=capsys)
    (path.parent / "full").mkdir()
    (path.parent / "full" / "a").touch()
    full = str(path.parent / "full")
    assert "new folder" in refused(path, "--format", "mlflow", "-o", full, capsys=capsys)
