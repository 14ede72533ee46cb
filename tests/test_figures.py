"""Figures and their scripts, on ordinary and on unusual sweeps."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from test_results import NAN, curve, opening, write_journal

import mpisweep
from mpisweep.blocks import AssignedBlock, ClosedRecord, EndedBlock, JoinedRecord, ReportBlock, TrialsBlock
from mpisweep.results import journal_folder
from mpisweep.results.compaction import compact_and_close
from mpisweep.views import figures, tables
from mpisweep.views.figures.curves import _smoothed
from mpisweep.views.report import page

ANALYSIS = Path(__file__).parent.parent / "analysis"
SCRIPTS = sorted(path.name for path in ANALYSIS.glob("*.py"))
#: Scaling needs trials of several ranks, two scripts several objectives; see test_scaling and test_objectives.
ELSEWHERE = ("top_configs.py", "scaling.py", "pareto_front.py", "hypervolume.py", "critical_batch.py")
DRAWING = [name for name in SCRIPTS if name not in ELSEWHERE]
#: What a sweep of a few trials over one parameter has too little of -> words of the refusal.
REFUSED = {
    "batch_sizes.py": "fewer than four batch sizes have a value",
    "importance.py": "importances need 10 complete trials",
    "parameter_map.py": "a map needs two",
    "trend.py": "trend",
}
COUNT = 40


def resnet_sweep(path: Path, *, first: int = 0, last: int = COUNT, losses=None, state: int = 2) -> Path:
    """Trials of ResNet50 at batch sizes 16, 32, ... on two workers; every 7th is out of memory."""
    spec = (
        'name = "flow"\nworkload = "resnet50"\n[parameters]\nbatch_size = { from = 16, to = 640, step = 16 }\n'
        "[baseline]\nbatch_size = 256\n"
    )
    records: list[object] = [
        TrialsBlock(list(range(COUNT)), {"batch_size": [16 * (n + 1) for n in range(COUNT)]}, baseline=15),
        JoinedRecord(0, "node1", "V100 #0", 10, 1, 1000.5),
        JoinedRecord(1, "node1", "V100 #1", 10, 1, 1000.5),
    ]
    clock = [1001.0, 1001.0]
    for n in range(first, last):
        worker = n % 2
        size = 16 * (n + 1)
        loss = 8.4 + abs(size - 210) / 1000 if losses is None else losses
        seconds = 20 + size / 4
        bad = n % 7 == 6
        records.append(AssignedBlock([[worker, 0]], clock[worker], [n], [1], {"batch_size": size}))
        if not bad:
            records.append(
                ReportBlock(worker, n, 1, {"loss": curve(*(loss + np.exp(-np.arange(30) / 5)).tolist())})
            )
        records.append(
            EndedBlock(
                worker, 0, [n], [1], [4 if bad else state], [clock[worker]], [seconds],
                {"loss": [None if bad else loss], "train_time": [seconds - 1]},
                [2] if bad else [], ["out of memory"] if bad else [],
            )
        )  # fmt: skip
        clock[worker] += seconds + 0.5
    records.append(ClosedRecord(max(clock), "complete"))
    write_journal(path, records, opening(spec=spec))
    compact_and_close(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return resnet_sweep(tmp_path / "flow.h5")


def script(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ANALYSIS / name), *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_table_is_that_of_the_poster(path):
    table = tables.top_table(mpisweep.load(path), 3)
    assert [(row.rank, *row.parameters) for row in table.rows] == [
        ("1st", "208"), ("2nd", "192"), ("3rd", "240"), ("baseline", "256"),
    ]  # fmt: skip
    assert table.cells()[0] == ("1st", "208", "8.4020", "72.0", "12")
    assert tables.to_csv(table).splitlines()[0] == "rank,batch_size,loss,time [s],trial"
    assert tables.to_markdown(table).count("\n") == 6
    assert r"batch\_size" in tables.to_latex(table)


def test_texts_with_characters_of_table_markup_stay_in_their_cells():
    table = tables.TopTable(
        "t",
        ("op|tion",),
        ("loss",),
        (
            tables.TopRow("1st", 0, ("a|b\nc",), (1.0,), 2.0),
            tables.TopRow("2nd", 1, (r"x^2~\y_{1}",), (1.0,), 2.0),
        ),
    )
    markdown = tables.to_markdown(table).splitlines()
    assert r"a\|b c" in markdown[2]
    assert {line.replace(r"\|", "").count("|") for line in markdown} == {6}
    assert r"x\textasciicircum{}2\textasciitilde{}\textbackslash{}y\_\{1\}" in tables.to_latex(table)


def test_a_curve_of_one_report_is_visible(tmp_path):
    path = tmp_path / "s.h5"
    write_journal(
        path,
        [
            TrialsBlock([0, 1], {"x": [1, 2]}, baseline=None),
            *(
                ReportBlock(0, number, 1, {"loss": curve(*values)})
                for number, values in enumerate(([3.0], [3.0, 2.0]))
            ),
        ],
        opening(),
    )
    axes = figures.draw_learning_curves(mpisweep.load(path), "loss").axes[0]
    assert [line.get_marker() for line in axes.lines] == ["."]
    assert [len(segment) for segment in axes.collections[0].get_segments()] == [1, 2]


def test_a_value_that_is_not_finite_affects_only_the_means_that_include_it():
    values = np.array([1.0, NAN, 3.0, 5.0, np.inf, 7.0, 9.0])
    assert _smoothed(values, 2).tolist() == pytest.approx([1.0, NAN, NAN, 4.0, NAN, NAN, 8.0], nan_ok=True)
    assert _smoothed(values, 1) is values


def test_the_table_can_be_ranked_by_another_metric_in_its_own_direction(path):
    table = tables.top_table(mpisweep.load(path), 1, "train_time", "maximize")
    assert table.title.endswith("best trials by largest train_time")
    assert table.rows[0].parameters == ("640",)


def test_the_series_of_figure_1(path):
    series = figures.metric_series(mpisweep.load(path), "batch_size", "loss")
    assert series.x[series.best] == 208
    assert series.x[series.baseline] == 256
    assert len(series.failed_x) == 5
    assert set(series.failed_causes) == {"out_of_memory"}
    assert len(series.x) == COUNT - 5


def test_the_best_trial_is_that_of_the_objective_whatever_is_drawn(path):
    series = figures.metric_series(mpisweep.load(path), "batch_size", "train_time")
    assert series.x[series.best] == 208


def test_trials_without_the_metric_are_shown_as_such(tmp_path):
    series = figures.metric_series(
        mpisweep.load(resnet_sweep(tmp_path / "nan.h5", last=3, losses=NAN)), "batch_size", "loss"
    )
    assert series.without_x.tolist() == [16, 32, 48]
    assert len(series.x) == 0
    assert series.best is None


def test_a_timeline_is_in_order_of_ranks(tmp_path):
    path = tmp_path / "late.h5"
    records = [
        TrialsBlock([0, 1], {"x": [1, 2]}, baseline=None),
        JoinedRecord(1, "node1", "cpu 1", 1, 1, 1000.5),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.6),
        AssignedBlock([[0, 0]], 1001.0, [0], [1], {"x": 1}),
        AssignedBlock([[1, 0]], 1001.0, [1], [1], {"x": 2}),
        EndedBlock(0, 0, [0], [1], [2], [1001.0], [1.0], {"loss": [1.0]}, [], []),
        EndedBlock(1, 0, [1], [1], [2], [1001.0], [3.0], {"loss": [1.0]}, [], []),
        ClosedRecord(1005.0, "complete"),
    ]
    write_journal(path, records, opening())
    compact_and_close(path)
    found = figures.spans(mpisweep.load(path))
    assert found.labels == ("rank 0, cpu 0", "rank 1, cpu 1")
    assert (found.end_s - found.start_s)[found.worker == 1].tolist() == [3.0]
    assert found.utilisation.tolist() == pytest.approx([0.2, 0.6])


def test_total_time_is_the_sum_against_the_wall(path):
    sweep = mpisweep.load(path)
    total = figures.total_time(sweep)
    assert total.trials_s == pytest.approx(sum(20 + 4 * (n + 1) for n in range(COUNT)))
    assert total.workers == 2
    assert 1.8 < total.speedup < 2
    assert 0.9 < total.utilisation < 1


def runs_of_one_trial(
    path: Path, *runs: tuple[str, float, int], jobs: Sequence[tuple[str, float]] = ()
) -> Path:
    """Write runs, each given by its name, end and number of workers.

    Each starts at 1000 s and runs one trial of 4 s from 1001 s on; it may have the id and the queue wait of a job.
    """
    records = [TrialsBlock(list(range(len(runs))), {"x": list(range(1, len(runs) + 1))}, baseline=None)]
    for number, (run, end, workers) in enumerate(runs):
        records += [
            *(JoinedRecord(rank, "node1", f"cpu {rank}", 1, 1, 1000.5) for rank in range(workers)),
            AssignedBlock([[0, 0]], 1001.0, [number], [1], {"x": number + 1}),
            EndedBlock(0, 0, [number], [1], [2], [1001.0], [4.0], {"loss": [1.0]}, [], []),
            ClosedRecord(end, "complete"),
        ]
        first = opening(run)
        if jobs:
            job_id, wait_s = jobs[number]
            first = replace(first, batch_system="slurm", job_id=job_id, queue_wait_s=wait_s)
        write_journal(path, records, first)
        records = []
    return path


def test_the_time_of_overlapping_runs_counts_once_and_their_workers_add_up(tmp_path):
    path = runs_of_one_trial(tmp_path / "s.h5", ("a", 1010.0, 2), ("b", 1020.0, 1))
    total = figures.total_time(mpisweep.load(path))
    assert (total.wall_s, total.workers, total.allocations, total.trials_s) == (20.0, 3, 2, 8.0)
    assert total.utilisation == pytest.approx(8.0 / (2 * 10 + 20))


def test_the_wait_of_the_sweeps_own_jobs_stands_for_that_of_single_jobs(tmp_path):
    path = runs_of_one_trial(
        tmp_path / "s.h5",
        ("a", 1010.0, 1), ("b", 1020.0, 1), ("c", 1030.0, 2),
        jobs=[("7", 600.0), ("7", 600.0), ("8", 300.0)],
    )  # fmt: skip
    sweep = mpisweep.load(path)
    total = figures.total_time(sweep)
    assert (total.allocations, total.own_wait_s, total.measured_jobs) == (2, 450.0, 2)
    assert total.waited_s == 600.0, "both waited at the same time"
    assert [(bar.waiting_s, bar.running_s) for bar in figures.bars(total)] == [
        (0.0, 12.0), (3 * 450.0, 12.0), (3 * 450.0 / total.workers, 12.0 / total.workers), (600.0, 30.0),
    ]  # fmt: skip
    assert figures.bars(total, 60.0)[-1].waiting_s == 120.0, "what the user states comes first"
    figure = figures.draw_total_time(sweep)
    assert figure.note == "Measured: this sweep's own 2 jobs waited 8 min in the queue on average."
    shown = unescape(page(sweep))
    assert figure.note in shown
    assert "<td>10 min</td>" in shown
    assert "8 min per job (measured)" in figure.legends[0].get_texts()[0].get_text()
    assert (
        "measured" not in figures.draw_total_time(sweep, queue_wait_s=60).legends[0].get_texts()[0].get_text()
    )


def test_a_run_of_which_the_beginning_is_lost_is_drawn_from_its_first_trial_on(tmp_path):
    path = runs_of_one_trial(tmp_path / "s.h5", ("a", 1010.0, 1), ("b", 1020.0, 1))
    segment = journal_folder(path) / "b-000000.000000"
    segment.write_bytes(b"\0" + segment.read_bytes()[1:])
    sweep = mpisweep.load(path)
    assert sweep.damages
    assert sweep.spans.tolist() == [[1000.0, 1010.0], [1001.0, 1020.0]]
    assert figures.total_time(sweep).wall_s == 20.0
    figures.draw_total_time(sweep)
    figures.draw_timeline(sweep)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((name, ".svg") for name in DRAWING if name != "parameter_map.py"),
        # Dense layers are images in the one, and markers in the other.
        *((name, suffix) for name in ("loss_vs_batch_size.py", "learning_curves.py") for suffix in (".png", ".pdf")),
    ],
)  # fmt: skip
def test_every_script_draws_every_format_the_same_each_time(path, name, suffix):
    outputs = [path.parent / f"{index}{suffix}" for index in range(2)]
    for output in outputs:
        done = script(name, path, "-o", output, cwd=path.parent)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(output)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert outputs[0].stat().st_size > 3000


def test_a_wide_table_is_printed_whole(tmp_path):
    path = tmp_path / "wide.h5"
    names = [f"a_parameter_with_a_long_name_{i}" for i in range(8)]
    spec = 'name = "wide"\nworkload = "m:f"\n[parameters]\n' + "".join(
        f"{name} = [0.25, 0.5]\n" for name in names
    )
    records = [
        TrialsBlock([0], {name: [0.25] for name in names}, baseline=None),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
        AssignedBlock([[0, 0]], 1001.0, [0], [1], dict.fromkeys(names, 0.25)),
        EndedBlock(0, 0, [0], [1], [2], [1001.0], [1.5], {"loss": [0.125]}, [], []),
        ClosedRecord(1005.0, "complete"),
    ]
    write_journal(path, records, opening(spec=spec))
    compact_and_close(path)
    printed = script("top_configs.py", path, cwd=tmp_path).stdout
    assert all(name in printed for name in names)
    assert "…" not in printed


def test_a_sweep_that_varies_nothing_and_texts_with_mathematical_markup_can_be_drawn(tmp_path):
    for name, parameters, values in (
        ("fixed", "[fixed]\nx = 1\n", {"x": [1, 1]}),
        ("signs", "[parameters]\nx = ['$a_{', 'b$\\frac{']\n", {"x": ["$a_{", "b$\\frac{"]}),
    ):
        path = tmp_path / f"{name}.h5"
        records = [
            TrialsBlock([0, 1], values, baseline=None),
            JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
            AssignedBlock([[0, 0]], 1001.0, [0, 1], [1, 1], values),
            ReportBlock(0, 0, 1, {"loss": curve(3.0, 2.0)}),
            EndedBlock(
                0, 0, [0, 1], [1, 1], [2, 2], [1001.0, 1003.0], [1.5, 1.0], {"loss": [2.0, 1.0]}, [], []
            ),
            ClosedRecord(1005.0, "complete"),
        ]
        write_journal(path, records, opening(spec=f'name = "{name}"\nworkload = "m:f"\n{parameters}'))
        compact_and_close(path)
        for drawing in ("loss_vs_batch_size.py", "learning_curves.py"):
            done = script(drawing, path, cwd=tmp_path)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "latex"])
def test_the_table_is_printed_in_every_form(path, form):
    done = script("top_configs.py", path, "-k", 2, "--format", form, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    assert "208" in done.stdout
    assert "baseline" in done.stdout


@pytest.mark.parametrize("name", DRAWING)
def test_an_unended_sweep_has_nothing_to_draw_and_says_so(tmp_path, name):
    path = resnet_sweep(tmp_path / "empty.h5", last=0)
    done = script(name, path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("last", "losses"), [(1, None), (2, NAN), (3, 0.0)])
@pytest.mark.parametrize("name", DRAWING)
def test_odd_sweeps_can_be_drawn(tmp_path, name, last, losses):
    path = resnet_sweep(tmp_path / "odd.h5", last=last, losses=losses)
    done = script(name, path, cwd=tmp_path)
    if name in REFUSED:
        assert done.returncode == 2
        assert re.fullmatch(f"{re.escape(str(path))}: .*{REFUSED[name]}.*\n", done.stderr)
        return
    assert done.returncode == 0, done.stderr


def test_a_sweep_whose_trials_all_failed_can_be_drawn(tmp_path):
    path = resnet_sweep(tmp_path / "failed.h5", first=6, last=7)
    assert script("loss_vs_batch_size.py", path, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "loss_vs_batch_size.py",
            ["--metric", "los"],
            "there is no parameter or metric 'los'; did you mean 'loss'?",
        ),
        ("loss_vs_batch_size.py", ["--parameter", "size"], "there is no parameter or metric 'size'"),
        ("learning_curves.py", ["--metric", "los"], "there is no curve of 'los'; did you mean 'loss'?"),
        ("timeline.py", ["-o", "x.gif"], "x.gif: figures end in .png, .svg or .pdf"),
        (
            "timeline.py",
            ["-o", "nowhere/x.png"],
            "nowhere/x.png: cannot be written: No such file or directory",
        ),
        ("loss_vs_batch_size.py", ["--metric", "host"], "host is text"),
        ("top_configs.py", ["--metric", "host"], "host is a text"),
        ("top_configs.py", ["-k", "0"], "there is no best 0 of the trials"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_message(path, name, arguments, message):
    done = script(name, path, *arguments, cwd=path.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_reported(tmp_path):
    done = script("timeline.py", "no.h5", cwd=tmp_path)
    assert done.returncode == 2
    assert "no.h5: no such results file" in done.stderr
