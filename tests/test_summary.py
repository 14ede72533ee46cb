"""What a sweep, its tables and their rows show of themselves, as text and as HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_results import curve, history, opening, write_journal

import mpisweep
from mpisweep.blocks import ClosedRecord, EndedBlock, ReportBlock, TrialsBlock
from mpisweep.records import EndReason

SPEC = 'name = "s"\nworkload = "m:f"\n[parameters]\nx = { from = 1, to = 4 }\n'


def loaded(path: Path, records: list[object], spec: str = SPEC) -> mpisweep.Sweep:
    write_journal(path, records, opening(spec=spec))
    return mpisweep.load(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.h5"


def test_a_sweep_prints_its_state_and_its_best_trials(path: Path):
    sweep = loaded(path, history(), SPEC + '[fixed]\nmode = "fast"\n')
    assert repr(sweep).splitlines() == [
        f"sweep 's' in {path}: complete; 4 of 4 trials have ended (1 failed)",
        "best trials by smallest loss:",
        "number     state  x  mode  loss  wall_time",
        "     3  complete  4  fast     1          2",
        "     1  complete  2  fast     4          3",
        "     0  complete  1  fast   nan          1",
    ]
    assert (sweep.ended, sweep.ended and sweep.ended.is_final) == (EndReason.COMPLETE, True)


@pytest.mark.parametrize(("records", "shown", "ended"), [
    ([], "running; 0 of 4 trials have ended", None),
    ([ClosedRecord(1010.0, EndReason.WALLTIME.value)], "stopped before the walltime; 0 of 4 trials have ended", "stopped before the walltime"),
])  # fmt: skip
def test_a_sweep_without_a_complete_trial_prints_its_state_alone(
    path: Path, records: list[object], shown: str, ended: str | None
):
    sweep = loaded(path, [TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4]}), *records])
    assert repr(sweep) == f"sweep 's' in {path}: {shown}"
    assert sweep._repr_html_().count("<p>") == 1
    assert sweep.ended == ended


def ended(number: int, **metrics: float) -> EndedBlock:
    return EndedBlock(
        0, 0, [number], [1], [2], [1001.0], [1.0], {name: [value] for name, value in metrics.items()}
    )


def test_several_objectives_show_the_front(path: Path):
    spec = SPEC.replace(
        "workload", 'objective = ["loss", "speed"]\ndirection = ["minimize", "maximize"]\nworkload'
    )
    sweep = loaded(
        path,
        [
            TrialsBlock([0, 1, 2], {"x": [1, 2, 3]}),
            ended(0, loss=1.0, speed=1.0), ended(1, loss=2.0, speed=3.0), ended(2, loss=3.0, speed=2.0),
        ],
        spec,
    )  # fmt: skip
    lines = repr(sweep).splitlines()
    assert lines[1] == "Pareto front (smallest loss, largest speed):"
    assert [line.split()[0] for line in lines[3:]] == ["0", "1"]


def test_repeats_show_configurations_by_their_mean(path: Path):
    numbers, values = [*range(4)], [5.0, 1.0, 2.5, 2.5]
    sweep = loaded(
        path,
        [
            TrialsBlock(numbers, {"x": [1, 1, 2, 2]}, configurations=[0, 0, 1, 1], repeats=[0, 1, 0, 1]),
            *(ended(number, loss=value) for number, value in zip(numbers, values, strict=True)),
        ],
        SPEC.replace("workload", "repeats = 2\nworkload"),
    )
    lines = repr(sweep).splitlines()
    assert lines[1] == "best configurations by smallest mean loss:"
    # The luckiest trial is one of the other configuration.
    assert [line.split()[:2] for line in lines[3:]] == [["1", "2"], ["0", "1"]]


def test_a_sweep_at_a_budget_says_so(path: Path):
    sweep = loaded(
        path,
        [
            TrialsBlock([0], {"x": [1]}),
            ReportBlock(0, 0, 1, {"loss": curve(9.0, 8.0, 7.0)}),
            ended(0, loss=7.0),
        ],
    )
    assert repr(sweep.at(step=2)).startswith(f"sweep 's' in {path}, at {sweep.at(step=2).budget}: ")


def test_html_is_escaped(path: Path):
    spec = SPEC.replace("x = { from = 1, to = 4 }", 'x = ["<b>&"]').replace('"s"', '"s"\nobjective = "a<i>"')
    sweep = loaded(path, [TrialsBlock([0], {"x": ["<b>&"]}), ended(0, **{"a<i>": 1.0})], spec)
    for text in (sweep._repr_html_(), sweep.best(1)._repr_html_(), sweep.best(1)[0]._repr_html_()):
        assert "&lt;b&gt;&amp;" in text
        assert "<th>a&lt;i&gt;</th>" in text
        tags = re.findall(r"</?(\w+)>", text)
        assert set(tags) <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
        assert "<b>&" not in text
        assert "<i>" not in text


def test_a_row_prints_a_line_for_each_column_that_has_a_value(path: Path):
    row = loaded(path, history(), SPEC + '[fixed]\nmode = "fast"\n').best(1)[0]
    lines = dict(line.split(maxsplit=1) for line in repr(row).splitlines())
    assert (lines["number"], lines["state"], lines["x"], lines["loss"]) == ("3", "complete", "4", "1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines["started_at"])
    assert not {"cause", "message", "device_energy"} & lines.keys()
    assert str(row) == repr(row)
