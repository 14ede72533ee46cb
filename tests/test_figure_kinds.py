"""Every kind of figure on sweeps of 1 to 100,000 trials: readable, complete, and with the data it shows."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from figure_sweeps import made_sweep
from matplotlib.text import Text
from test_statistics import repeated, sweep_of

import mpisweep
from mpisweep.cli import main
from mpisweep.results import ResultsError
from mpisweep.statistics.importance import importances
from mpisweep.views import figures
from mpisweep.views.figure_kinds import KINDS
from mpisweep.views.figures.style import SweepFigure, style_of, wrapped
from mpisweep.views.figures.ticks import is_binary, tick_text
from mpisweep.views.figures.total import TotalTime, bars

ROOT = Path(__file__).parent.parent
#: Case -> the sweep of it.
CASES: dict[str, dict[str, Any]] = {
    "one": {"space": "sizes", "count": 1, "failed": 0, "pruned": 0, "nan": 0, "reports": 10},
    "three": {"space": "mixed", "count": 3, "failed": 0, "pruned": 0, "nan": 0, "reports": 10},
    "700": {"space": "sizes", "count": 700, "infeasible": 100, "reports": 20, "open_trials": 20},
    "grid": {"space": "mixed", "count": 80, "reports": 20, "workers": 1},
    "powers": {"space": "powers", "count": 70},
    "choices": {"space": "choices", "count": 10_000},
    "two": {"space": "two", "count": 700, "reports": 10, "objectives": ("loss", "train_time")},
    "five": {"space": "five", "count": 10_000, "workers": 64},
    "failed": {"space": "mixed", "count": 12, "failed": 1.0},
    "nan": {"space": "mixed", "count": 12, "failed": 0, "pruned": 0, "nan": 1.0, "reports": 5},
    "quick": {"space": "mixed", "count": 300, "seconds": 1e-4},
}
#: Case and kind -> the end of the sentence, where there is nothing to draw.
REFUSED = {
    "curves": dict.fromkeys(("powers", "choices", "five", "failed", "quick"), "no trial has reported a curve"),
    "trend": {
        "one": "a trend needs a finite loss at 8 values", "three": "a trend needs a finite loss at 8 values", "choices": "optimizer is text",
        "powers": "a trend needs a finite loss at 8 values", "failed": "a trend needs a finite loss at 8 values", "nan": "a trend needs a finite loss at 8 values",
    },
    "map": {
        "one": "no parameter is varied; a map needs two", "choices": "1 parameter is varied",
        "700": "1 parameter is varied", "powers": "1 parameter is varied",
    },
    "parallel": {"one": "no parameter is varied"},
    "importance": {
        "one": "importances need 10", "three": "importances need 10", "failed": "importances need 10",
        "nan": "importances need 10",
    },
    "budgets": {
        "powers": "budgets need its curves", "choices": "budgets need", "five": "budgets need",
        "failed": "budgets need", "quick": "budgets need",
    },
}  # fmt: skip
#: Kinds that need several objectives, several ranks or a batch size; their own tests draw them.
ELSEWHERE = ("front", "hypervolume", "scaling", "batch-sizes", "critical-batch")
SHOWN = [name for name in KINDS if name not in ELSEWHERE]

Load = Callable[[str], mpisweep.results.load.Sweep]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Make the sweep of a case once."""
    folder = tmp_path_factory.mktemp("sweeps")

    def loaded(case: str) -> mpisweep.results.load.Sweep:
        path = folder / f"{case}.h5"
        if not path.exists():
            made_sweep(path, **CASES[case])
        return mpisweep.load(path)

    return loaded


# ------------------------------------------------------------------------------------- what makes it readable


def texts_of(figure: SweepFigure) -> list[Text]:
    """All texts that a reader sees, but for ticks outside of their axes."""
    hidden = {
        id(text)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for text in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))
    }
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = {id(text) for axis_texts in tick_labels(figure) for text in axis_texts}
    return [text for text in found if id(text) not in hidden or id(text) in shown]


def tick_labels(figure: SweepFigure) -> list[list[Text]]:
    """The visible tick labels of each axis."""
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            margin = 1e-9 * (high - low)
            found.append([
                text for text, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=False)
                if text.get_visible() and text.get_text() and low - margin <= at <= high + margin
            ])  # fmt: skip
    return found


def overlapping(figure: SweepFigure) -> list[tuple[str, str]]:
    """Neighbouring tick labels that overlap."""
    renderer = figure.canvas.get_renderer()
    bad = []
    for labels in tick_labels(figure):
        for one, other in pairwise(labels):
            angle = math.radians(one.get_rotation())
            first, second = one.get_window_extent(renderer), other.get_window_extent(renderer)
            if one.get_rotation() % 90:
                # Parallel lines: the distance of their ends across their direction.
                apart = abs(second.x1 - first.x1) * abs(math.sin(angle))
                if apart < one.get_fontsize() * figure.dpi / 72:
                    bad.append((one.get_text(), other.get_text()))
            elif first.overlaps(second) and first.width and second.width:
                bad.append((one.get_text(), other.get_text()))
    return bad


def check_readable(figure: SweepFigure, width: str) -> None:
    """Check width, sizes of type, overlaps, and that nothing is cut off."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with mpl.rc_context(style_of(width)):
        figure.canvas.draw()
    wide, high = figure.get_size_inches() * 25.4
    assert wide == pytest.approx({"column": 89, "page": 183}[width])
    assert 20 < high < 260
    texts = texts_of(figure)
    assert min(text.get_fontsize() for text in texts) >= 6
    assert overlapping(figure) == []
    frame = figure.bbox
    for text in texts:
        box = text.get_window_extent()
        inside = frame.padded(2)
        assert inside.contains(box.x0, box.y0), f"cut off: {text.get_text()!r}"
        assert inside.contains(box.x1, box.y1), f"cut off: {text.get_text()!r}"
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert box.height > 0.15 * frame.height or len(figure.axes) > 2, "the legend leaves no room"


def legend_texts(figure: SweepFigure) -> list[str]:
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text().replace("\n", " ") for legend in found if legend for text in legend.get_texts()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", SHOWN)
def test_every_figure_is_readable_and_says_how_trials_ended(kind: str, case: str, load: Load) -> None:
    sweep = load(case)
    if case in REFUSED.get(kind, {}):
        with pytest.raises(ResultsError) as refused:
            figures.draw(kind, sweep)
        assert REFUSED[kind][case] in str(refused.value)
        assert str(refused.value).count("\n") == 0
        return
    for width in ("column", "page") if case in ("700", "grid") else ("column",):
        figure = figures.draw(kind, sweep, width=width)
        check_readable(figure, width)
        assert figure.layers
        if kind in ("metric", "history", "map", "parallel", "timeline", "utilisation"):
            said = " | ".join(legend_texts(figure))
            for state in ("failed", "pruned"):
                assert (state in said) == bool((sweep.trials["state"] == state).any()), said


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("kind", ["front", "hypervolume"])
def test_figures_of_several_objectives_are_readable(kind: str, width: str, load: Load) -> None:
    figure = figures.draw(kind, load("two"), width=width)
    check_readable(figure, width)


def test_means_with_intervals_are_readable(tmp_path: Path) -> None:
    figure = figures.draw("metric", sweep_of(tmp_path / "s.h5", repeated()), width="column")
    check_readable(figure, "column")
    assert {"single runs", "means"} <= set(figure.layers)


@pytest.mark.long
def test_100_000_trials_take_seconds_and_files_below_2_mb(tmp_path: Path) -> None:
    path = made_sweep(tmp_path / "large.h5", "five", 100_000, workers=64, objectives=("loss", "train_time"))
    sweep = mpisweep.load(path)
    for kind in ("metric", "total", "timeline", "trend", "map", "parallel", "importance", "history",
                 "utilisation", "front"):  # fmt: skip
        began = time.process_time()
        figure = figures.draw(kind, sweep, width="page")
        figures.save(figure, tmp_path / f"{kind}.pdf")
        assert time.process_time() - began < 20, kind
        assert (tmp_path / f"{kind}.pdf").stat().st_size < 2_000_000, kind
        check_readable(figure, "page")


@pytest.mark.parametrize("kind", ["metric", "history", "map", "parallel"])
def test_dense_layers_make_small_vector_files(kind: str, load: Load, tmp_path: Path) -> None:
    for suffix in (".svg", ".pdf"):
        figures.save(figures.draw(kind, load("five"), width="page"), tmp_path / f"f{suffix}")
        assert (tmp_path / f"f{suffix}").stat().st_size < 2_000_000
    drawn = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert "<image" in drawn or kind == "map"
    assert drawn.count("<use") + drawn.count("<path") < 5000


# ------------------------------------------------------------------------------------- the data


def rows_of(figure: SweepFigure, path: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of a figure's CSV by layer."""
    figures.write_data(figure, path)
    with path.open(encoding="utf-8", newline="") as text:
        found: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(text):
            found.setdefault(row["layer"], []).append(row)
    return found


@pytest.mark.parametrize("case", ["700", "grid", "choices"])
def test_the_data_of_figure_1_are_the_trials_that_it_draws(case: str, load: Load, tmp_path: Path) -> None:
    sweep = load(case)
    figure = figures.draw("metric", sweep)
    layers = rows_of(figure, tmp_path / "d.csv")
    trials = sweep.trials
    finite = np.isfinite(trials["loss"])
    for layer, expected in (
        ("trials", (trials["state"] == "complete") & finite),
        ("pruned", (trials["state"] == "pruned") & finite),
        ("pruned without a value", (trials["state"] == "pruned") & ~finite),
        ("failed", trials["state"] == "failed"),
        ("without a finite value", (trials["state"] == "complete") & ~finite),
    ):
        rows = layers.get(layer, [])
        assert sorted(int(row["number"]) for row in rows) == np.flatnonzero(expected).tolist(), layer
        for row in rows:
            assert row["loss"] == (
                ""
                if "without" in layer or layer == "failed"
                else repr(float(trials["loss"][int(row["number"])]))
            )
    # What is drawn: the heights of all points, by their markers.
    drawn = np.concatenate([
        np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[0].lines
        if line.get_marker() in ("o", "D") and len(line.get_xdata()) > 1
    ])  # fmt: skip
    assert sorted(drawn.tolist()) == sorted(float(row["loss"]) for row in layers["trials"])


@pytest.mark.parametrize("kind", ["history", "parallel", "map", "curves", "timeline", "utilisation", "total"])
def test_exported_numbers_are_those_of_the_layers(kind: str, load: Load, tmp_path: Path) -> None:
    figure = figures.draw(kind, load("grid"))
    layers = rows_of(figure, tmp_path / "d.csv")
    assert set(layers) == set(figure.layers)
    for name, columns in figure.layers.items():
        for column, values in columns.items():
            read = [row[column] for row in layers[name]]
            if values.dtype.kind == "f":
                assert np.array_equal([float(cell or "nan") for cell in read], values, equal_nan=True)
            else:
                assert read == [
                    str(value).lower() if values.dtype.kind == "b" else str(value)
                    for value in values.tolist()
                ]


def test_each_lane_of_failed_pruned_and_other_trials_has_its_own_height(load: Load) -> None:
    axes = figures.draw("metric", load("choices")).axes[0]
    lanes = [
        line for line in axes.lines if line.get_transform() != axes.transData and len(line.get_xdata()) > 1
    ]
    heights = [set(np.asarray(line.get_ydata()).tolist()) for line in lanes]
    assert all(len(height) == 1 for height in heights)
    assert len(set.union(*heights)) == len(lanes) == 3
    counts = {state: int((load("choices").trials["state"] == state).sum()) for state in ("failed", "pruned")}
    assert len(lanes[0].get_xdata()) == counts["failed"]
    # Below all points.
    lowest = min(
        axes.transData.transform((0, y))[1]
        for line in axes.lines
        if line not in lanes
        for y in line.get_ydata()
    )
    assert max(axes.get_xaxis_transform().transform((0, h))[1] for height in heights for h in height) < lowest


def test_the_history_is_the_best_of_the_complete_trials_so_far(load: Load) -> None:
    sweep = load("700")
    found = figures.history(sweep)
    trials = sweep.trials
    order = sorted(
        np.flatnonzero(np.isfinite(trials["ended_at"])),
        key=lambda n: (trials["ended_at"][n], trials["end_order"][n]),
    )
    assert found.numbers.tolist() == order
    best, expected = math.nan, []
    for number in order:
        if trials["state"][number] == "complete" and np.isfinite(trials["loss"][number]):
            best = min(float(trials["loss"][number]), best) if best == best else float(trials["loss"][number])
        expected.append(best)
    assert np.array_equal(found.best, expected, equal_nan=True)
    assert found.numbers[found.top].tolist() == sweep.best(5)["number"].tolist()


def test_several_sweeps_have_a_line_each(load: Load) -> None:
    figure = figures.draw("history", [load("grid"), load("700")], over="time", width="column")
    check_readable(figure, "column")
    assert len(figure.axes[0].lines) == 2
    assert len(legend_texts(figure)) == 2


def test_utilisation_adds_up_to_the_time_of_all_slots(load: Load) -> None:
    sweep = load("700")
    found = figures.utilisation(sweep)
    width = np.diff(found.edges_s)
    areas = {name: float((counts * width).sum()) for name, counts in found.slots.items()}
    trials = sweep.trials
    for state in ("complete", "pruned", "failed"):
        own = trials["state"] == state
        assert areas[state] == pytest.approx(float(trials["wall_time"][own].sum()), rel=1e-6)
    [[began, ended]] = sweep.spans
    assert sum(areas.values()) == pytest.approx(4 * (ended - began), rel=1e-6)
    first = [trials["started_at"][trials["worker"] == w].min() for w in range(4)]
    assert areas["idle: start-up"] == pytest.approx(float((np.array(first) - began).sum()), rel=1e-6)


def test_trials_as_single_jobs_wait_in_the_queue_each() -> None:
    total = TotalTime(
        trials_s=7000.0, busy_s=7000.0, wall_s=1000.0, available_s=8000.0, workers=8, allocations=1,
        trials=700, ranks=700,
    )  # fmt: skip
    assert [(bar.name, bar.waiting_s, bar.running_s) for bar in bars(total, 600.0)] == [
        ("700 trials one by one", 0.0, 7000.0),
        ("700 single jobs, one after another", 420_000.0, 7000.0),
        ("700 single jobs, 8 at a time", 52_500.0, 875.0),
        ("1 allocation, 8 workers", 600.0, 1000.0),
    ]
    assert [bar.name for bar in bars(total)] == ["700 trials one by one", "1 allocation, 8 workers"]


def test_very_short_trials_are_not_said_to_be_slow(load: Load) -> None:
    figure = figures.draw("total", load("quick"))
    assert "the trials took 0.03 s in all, the allocation" in figure.get_suptitle().replace("\n", " ")
    # Failures of microseconds are marks and no boxes that would look like time.
    timeline = figures.draw("timeline", load("quick"))
    assert "failed at once" in legend_texts(timeline)


def test_the_map_of_a_grid_has_the_value_of_each_trial_in_its_cell(load: Load) -> None:
    sweep = load("grid")
    cells = figures.draw("map", sweep).layers["cells"]
    trials = sweep.trials
    shown = (trials["state"] == "complete") & np.isfinite(trials["loss"])
    expected = {(int(t["batch_size"]), str(t["optimizer"])): float(t["loss"]) for t in trials[shown]}
    value = next(name for name in cells if name.endswith("_loss"))
    assert {
        (int(x), str(y)): float(v)
        for x, y, v in zip(cells["batch_size"], cells["optimizer"], cells[value], strict=True)
    } == expected


# ------------------------------------------------------------------------------------- importance


@pytest.mark.parametrize("method", ["ped-anova", "fanova"])
def test_the_parameter_that_decides_has_the_largest_share(method: str) -> None:
    generator = np.random.default_rng(3)
    columns = {
        "x": generator.random(300),
        "y": generator.random(300),
        "kind": np.array(["a", "b"])[generator.integers(0, 2, 300)],
    }
    found = importances(columns, (columns["x"] - 0.3) ** 2 + 0.01 * columns["y"], method=method)
    assert max(found, key=found.__getitem__) == "x"
    assert found["x"] > 0.6
    assert sum(found.values()) == pytest.approx(1)


def test_importances_without_optuna_are_refused_in_one_sentence(load: Load) -> None:
    program = (
        "import sys; sys.modules['optuna'] = None\nfrom mpisweep.cli import main\n"
        f"sys.exit(main(['figure', 'importance', {str(load('grid').path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "mpisweep: importances need optuna, which is not installed; `pip install optuna cmaes` adds them\n"
    )


# ------------------------------------------------------------------------------------- ticks


def ticks_of(figure: SweepFigure, which: str = "x") -> list[str]:
    axis = figure.axes[0].xaxis if which == "x" else figure.axes[0].yaxis
    low, high = axis.get_view_interval()
    return [
        t.get_text()
        for t, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        if low <= at <= high
    ]


def test_ticks_are_round_or_powers_of_two(load: Load) -> None:
    for case, width, expected in (
        ("powers", "page", ["16", "32", "64", "128", "256", "512", "1,024"]),
        ("grid", "page", ["0", "128", "256", "384", "512", "640"]),
        ("700", "page", ["0", "100", "200", "300", "400", "500", "600", "700"]),
    ):
        figure = figures.draw("metric", load(case), width=width)
        figure.draw_without_rendering()
        assert ticks_of(figure) == expected, case
    assert is_binary(np.array([16.0, 48.0, 640.0]))
    assert not is_binary(np.array([10.0, 20.0, 30.0]))
    assert [tick_text(v) for v in (0, 0.1 + 0.2, 1e5, -2.5, 1e-5, 2e8)] == [
        "0", "0.3", "100,000", "\N{MINUS SIGN}2.5", "$10^{-5}$", r"$2\times 10^{8}$",
    ]  # fmt: skip


def test_long_texts_are_broken_between_words() -> None:
    assert wrapped("a few words in a row", 40, 10) == "a few\nwords\nin a row"
    assert wrapped("unbreakable", 5, 10) == "unbreakable"


# ------------------------------------------------------------------------------------- the command


def test_the_command_writes_figure_and_data(load: Load, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(load("grid").path)
    assert main(["figure", "metric", path, "--width", "column", "--data", "d.csv"]) == 0
    assert capsys.readouterr().out == "grid-metric.pdf\nd.csv\n"
    assert Path("grid-metric.pdf").read_bytes().startswith(b"%PDF")
    assert Path("d.csv").read_text(encoding="utf-8").startswith("layer,number,batch_size,optimizer,loss")
    assert main(["figure", "history", path, str(load("700").path), "-o", "h.svg"]) == 0
    assert main(["figure", "--list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(KINDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["histry", "{file}"], "did you mean 'history'?"),
        (["timeline", "{file}", "--metric", "loss"], "figure timeline: takes no --metric; it is for metric, "),
        (["metric", "{file}", "{file}"], "figure metric: found 2 files; it takes 1"),
        (["curves", "{file}", "--over", "trials"], "figure curves: --over is 'trials'; expected step or samples or time"),
        (["trend", "{file}", "--parameter", "a", "--parameter", "b"], "takes --parameter at most once"),
        (["metric", "{file}", "--metric", "los"], "did you mean 'loss'?"),
        (["metric", "{file}", "-o", "x.gif"], "x.gif: figures end in .png, .svg or .pdf"),
        (["total", "{file}", "--queue-wait", "soon"], "'soon' is not a valid duration"),
        (["metric"], "figure: expected KIND and FILE"),
        (["metric", "{file}", "-o", "{file}"], "is a results file; write to another file"),
        (["metric", "{file}", "--data", "no/such/d.csv", "-o", "x.png"], "d.csv: cannot be written"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(arguments, said, load: Load, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(load("grid").path)
    try:
        code = main(["figure", *(word.format(file=path) for word in arguments)])
    except SystemExit as left:
        code = left.code
    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_same_figures_by_name_in_python(load: Load) -> None:
    assert set(figures.draw("metric", load("grid"), parameter=["optimizer"]).layers["trials"]) >= {
        "optimizer"
    }
    with pytest.raises(KeyError, match="there is no figure 'metrc'; did you mean 'metric'"):
        figures.draw("metrc", load("grid"))
    with pytest.raises(ResultsError, match="figure timeline: takes no option 'metric'; it takes none"):
        figures.draw("timeline", load("grid"), metric="loss")


# ------------------------------------------------------------------------------------- the gallery


def test_in_python_the_values_of_options_are_checked_as_the_command_checks_them(load: Load) -> None:
    with pytest.raises(
        ResultsError, match="figure curves: --over is 'trials'; expected step or samples or time"
    ):
        figures.draw("curves", load("three"), over="trials")
    with pytest.raises(ResultsError, match="figure metric: takes --parameter at most twice"):
        figures.draw("metric", load("three"), parameter=["a", "b", "c"])


@pytest.mark.parametrize("option", ["--output", "--data"])
def test_no_script_overwrites_a_results_file(option: str, tmp_path: Path) -> None:
    file = made_sweep(tmp_path / "s.h5", **CASES["three"])
    before = file.read_bytes()
    done = subprocess.run(
        [sys.executable, ROOT / "analysis" / "timeline.py", file.name, option, file.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "s.h5: is a results file; write to another file\n")
    assert file.read_bytes() == before


def test_the_gallery_shows_every_kind_and_its_pictures_can_be_drawn(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert re.search(rf"\b{kind}\b", page), kind
    pictures = set(re.findall(r"figures/(gallery-.*?\.png)", page))
    assert pictures == {path.name for path in (ROOT / "docs" / "figures").glob("gallery-*.png")}
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import draw_gallery
    finally:
        sys.path.pop(0)
    assert {f"gallery-{kind}.png" for kind in draw_gallery.PICTURES} == pictures
    assert draw_gallery.draw("importance", tmp_path).stat().st_size > 5000
