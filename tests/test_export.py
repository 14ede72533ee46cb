"""Export of a sweep as CSV and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_results import history, opening, write_journal

import mpisweep
from mpisweep.blocks import ClosedRecord, EndedBlock, JoinedRecord, TrialsBlock
from mpisweep.cli import main
from mpisweep.results.compaction import compact_and_close
from mpisweep.spec.quick import toml_value
from mpisweep.views.export import write_csv, write_json


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "s.h5"
    write_journal(made, history())
    compact_and_close(made)
    return made


def exported(path: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", str(path), *arguments]) == 0
    return capsys.readouterr().out


def test_csv_has_one_row_per_trial_with_the_column_names_of_load(path, capsys):
    rows = list(csv.DictReader(io.StringIO(exported(path, capsys=capsys))))
    assert tuple(rows[0]) == mpisweep.load(path).trials.names
    assert [(row["number"], row["x"], row["state"], row["loss"]) for row in rows] == [
        ("0", "1", "complete", ""),
        ("1", "2", "complete", "4.0"),
        ("2", "3", "failed", ""),
        ("3", "4", "complete", "1.0"),
    ]
    assert rows[2]["message"] == "ValueError: ü"


def test_csv_of_curves_has_one_row_per_report(path, capsys):
    rows = list(csv.DictReader(io.StringIO(exported(path, "--curves", capsys=capsys))))
    assert [(row["number"], row["step"], row["value"]) for row in rows if row["metric"] == "loss"] == [
        ("1", "0", "5.0"), ("1", "1", "4.0"), ("3", "0", "3.0"), ("3", "1", "2.0"), ("3", "0", "1.0"),
    ]  # fmt: skip


def test_json_describes_the_sweep_and_holds_the_curves_on_request(path, capsys):
    found = json.loads(exported(path, "--format", "json", "--curves", capsys=capsys))
    assert (found["objective"], found["direction"], found["baseline"], found["parameters"]) == (
        "loss",
        "minimize",
        1,
        ["x", "mode"],
    )
    assert found["units"]["wall_time"] == "s"
    assert [trial["loss"] for trial in found["trials"]] == [None, 4.0, None, 1.0]
    assert found["trials"][1]["curves"]["loss"]["value"] == [5.0, 4.0]
    assert "curves" not in json.loads(exported(path, "--format", "json", capsys=capsys))["trials"][1]


def test_the_suffix_of_the_file_selects_the_format(path, tmp_path, capsys):
    exported(path, "-o", str(tmp_path / "t.json"), capsys=capsys)
    assert len(json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["trials"]) == 4
    exported(path, "-o", str(tmp_path / "t.csv"), capsys=capsys)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").startswith("number,state,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "t.xlsx"], "t.xlsx: the suffix is neither .csv, .json, .parquet nor .db; set --format"),
        (["-o", "nowhere/t.csv"], "nowhere/t.csv: cannot be written: No such file or directory"),
        (["-o", "s.h5", "--format", "csv"], "s.h5: is the results file; set -o to another file"),
    ],
)
def test_an_impossible_export_is_refused_in_one_sentence(path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(path.parent)
    before = path.read_bytes()
    assert main(["export", "s.h5", *arguments]) == 2
    assert capsys.readouterr().err == f"mpisweep: {message}\n"
    assert path.read_bytes() == before


def test_characters_of_a_message_that_no_file_can_hold_are_escaped_in_every_format(tmp_path, capsys):
    path = tmp_path / "s.h5"
    block = EndedBlock(0, 0, [0], [1], [4], [1001.0], [1.0], {}, [1], ["FileNotFoundError: \\ \udce4.txt"])
    write_journal(path, [TrialsBlock([0], {"x": [1]}, baseline=None), block])
    shown = "FileNotFoundError: \\ \\udce4.txt"
    assert shown in exported(path, capsys=capsys)
    assert json.loads(exported(path, "--format", "json", capsys=capsys))["trials"][0]["message"] == shown
    assert main(["report", str(path)]) == 0
    assert shown in (tmp_path / "s.html").read_text(encoding="utf-8")
    compact_and_close(path)
    assert mpisweep.load(path).trials["message"][0] == shown


@given(
    loss=st.floats(),
    message=st.text(),
    choice=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_any_loss_message_and_choice_can_be_read_back_from_both_formats(
    tmp_path_factory, loss, message, choice
):
    path = tmp_path_factory.mktemp("any") / "s.h5"
    records = [
        TrialsBlock([0], {"c": [choice]}, baseline=None),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
        EndedBlock(0, 0, [0], [1], [2], [1001.0], [1.0], {"loss": [loss]}, [0], [message]),
        ClosedRecord(1005.0, "complete"),
    ]
    write_journal(
        path, records, opening(spec=f'workload = "m:f"\n[parameters]\nc = [{toml_value(choice)}]\n')
    )
    sweep = mpisweep.load(path)
    kept = str(sweep.trials["c"][0]), str(sweep.trials["message"][0])
    out = io.StringIO(newline="")
    write_csv(sweep, out)
    [row] = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert (row["c"], row["message"]) == kept
    assert math.isnan(loss) if row["loss"] == "" else float(row["loss"]) == loss
    out = io.StringIO()
    write_json(sweep, out)
    [trial] = json.loads(out.getvalue())["trials"]
    assert (trial["c"], trial["message"]) == kept
    assert math.isnan(loss) if trial["loss"] is None else float(trial["loss"]) == loss
