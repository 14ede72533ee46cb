"""Several objectives: the sweep file, results, views, and searches that learn from all of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.trial import TrialState
from test_figures import script
from test_learning import History, assert_reproducible, loss_and_time
from test_results import NAN, opening, write_journal

import mpisweep as package
from mpisweep.blocks import AssignedBlock, ClosedRecord, EndedBlock, JoinedRecord, TrialsBlock
from mpisweep.master.best import BestSoFar
from mpisweep.master.known import known_trials
from mpisweep.progress import Progress, progress_line
from mpisweep.records import Direction, Objective
from mpisweep.results import ResultsError
from mpisweep.results.compaction import compact_and_close
from mpisweep.search import thinning
from mpisweep.search.learning import NAMED
from mpisweep.spec import SamplerChoice, SpecError, load_spec, parse_spec, spec_from_flags
from mpisweep.spec.preflight import check_startable
from mpisweep.views import figures, tables
from mpisweep.views.findings import findings_of
from mpisweep.views.report import page
from mpisweep.views.status import status_lines, sweep_status
from mpisweep.workloads.function import to_metrics

Run = Callable[..., subprocess.CompletedProcess[str]]

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
HEAD = 'name = "s"\nworkload = "m:f"\n'
SPACE = "[parameters]\nx = { from = 1, to = 9 }\n"
TWO = 'objective = ["loss", "speed"]\ndirection = ["minimize", "maximize"]\n'


def parsed(text: str, folder: Path = Path()):
    return parse_spec(HEAD + text + SPACE, source="s.toml", folder=folder)


# ------------------------------------------------------------------------------------- the sweep file


def test_one_direction_applies_to_all_objectives_and_the_first_is_the_objective():
    assert parsed('objective = ["a", "b"]\n').objectives == (
        Objective("a", MINIMIZE),
        Objective("b", MINIMIZE),
    )
    assert {
        one.direction for one in parsed('objective = ["a", "b"]\ndirection = "maximize"\n').objectives
    } == {MAXIMIZE}
    spec = parsed(TWO)
    assert (spec.objective, spec.direction) == ("loss", MINIMIZE)
    assert spec.objectives[1] == Objective("speed", MAXIMIZE)
    assert parsed('objective = ["a"]\n').objectives == parsed('objective = "a"\n').objectives


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("objective = []\n", "objective: is []; expected a string, or a list of different strings"),
        ('objective = ["a", "a"]\n', "a list of different strings"),
        ('objective = ["a", 3]\n', "a list of different strings"),
        (
            'objective = ["a", "b", "c"]\ndirection = ["minimize", "maximize"]\n',
            "direction: lists 2 for 3 objectives; expected one word for all, or one for each",
        ),
        ('objective = "a"\ndirection = ["minimize", "maximize"]\n', "direction: lists 2 for 1 objective;"),
        ('direction = ["smaller"]\n', "expected one of minimize, maximize, or a list of these"),
        ("direction = []\n", "expected one of minimize, maximize, or a list of these"),
        (
            'objective = ["a", "b"]\nsearch = "largest_batch"\n',
            'objective: lists 2 metrics; search = "largest_batch" needs one',
        ),
        (TWO + "[stop]\npatience = 9\n", "stop.patience: needs one objective, and 'objective' lists 2"),
        (TWO + "[stop]\ntarget = 0.1\n", "stop.target: needs one objective"),
        (TWO + 'prune = "median"\n', "prune: needs one objective, and 'objective' lists 2; remove it"),
        (
            TWO + 'search = "tpe"\ntrials = 9\nimport = "old.h5"\n',
            "import: needs one objective, and 'objective' lists 2; remove it",
        ),
        (
            'objective = ["a", "b"]\nsearch = "batch_size"\n',
            'objective: lists 2 metrics; search = "batch_size" needs one',
        ),
    ],
)
def test_objectives_that_mean_nothing_are_refused_in_one_sentence(text, problem):
    with pytest.raises(SpecError) as refused:
        parsed(text)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_objective_must_be_a_metric_of_a_built_in_workload():
    text = 'workload = "resnet50"\nobjective = ["loss", "train_tim"]\n[parameters]\nbatch_size = [1]\n'
    with pytest.raises(SpecError, match="no metric 'train_tim'; did you mean 'train_time'"):
        parse_spec(text, source="s.toml", folder=Path())


def test_a_sampler_for_one_objective_is_refused_before_any_rank_starts(tmp_path):
    (tmp_path / "m.py").write_text("def f(trial): return 1.0\n")
    with pytest.raises(SpecError, match="CmaEsSampler takes one objective, and 'objective' lists 2; choose"):
        check_startable(parsed(TWO + 'search = "cmaes"\ntrials = 4\n', tmp_path))
    for search in ("tpe", "nsga2", "gp", "sobol"):
        check_startable(parsed(f'{TWO}search = "{search}"\ntrials = 4\n', tmp_path))


def test_flags_give_several_objectives():
    options = {"objective": ["loss", "speed"], "direction": ["minimize", "maximize"]}
    assert (
        spec_from_flags("m:f", ["x=1:9"], folder=Path(), options=options).objectives == parsed(TWO).objectives
    )


def test_a_sweep_with_other_objectives_is_not_resumed():
    assert parsed(TWO).differences(parsed(TWO)) == []
    assert parsed(TWO).differences(parsed('objective = "loss"\n')) == [
        "objective: the results file has 'loss', s.toml has ['loss', 'speed']",
        "direction: the results file has 'minimize', s.toml has ['minimize', 'maximize']",
    ]
    [swapped] = parsed(TWO).differences(
        parsed(TWO.replace('"minimize", "maximize"', '"maximize", "minimize"'))
    )
    assert "direction" in swapped


def test_a_function_may_return_a_tuple_in_the_order_of_the_objectives():
    assert to_metrics((1, 2.5), ["loss", "speed"]) == ({"loss": 1.0, "speed": 2.5}, "")
    assert to_metrics({"speed": 3}, ["loss", "speed"]) == ({"speed": 3.0}, "")
    assert to_metrics(4.0, ["loss", "speed"]) == ({"loss": 4.0}, "")
    metrics, odd = to_metrics((1, 2), ["loss"])
    assert np.isnan(metrics["loss"])
    assert "not a number" in odd


# ------------------------------------------------------------------------------------- results

#: (loss, speed) per trial; smaller losses and larger speeds are better.
VALUES = [
    (3.0, 9.0),
    (1.0, 2.0),
    (2.0, 5.0),
    (2.0, 5.0),
    (2.5, 4.0),
    (NAN, 99.0),
    (0.5, float("inf")),
    (1.0, 1.0),
]
FRONT = [1, 2, 3, 0]


def sweep_of(path: Path, values, objectives: str = TWO, names=("loss", "speed"), failed=()) -> Path:
    """A sweep whose trials end one after another, two seconds each."""
    count = len(values)
    xs = [1 + n % 9 for n in range(count)]
    states = [4 if n in failed else 2 for n in range(count)]
    columns = {name: [row[place] for row in values] for place, name in enumerate(names)}
    write_journal(
        path,
        [
            TrialsBlock(list(range(count)), {"x": xs}, baseline=0),
            JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
            *(AssignedBlock([[0, 0]], 1001.0, [n], [1], {"x": xs[n]}) for n in range(count)),
            EndedBlock(
                0, 0, list(range(count)), [1] * count, states, [1001.0 + 2 * n for n in range(count)],
                [2.0] * count, columns,
                [1 if n in failed else 0 for n in range(count)] if failed else [], [""] * count if failed else [],
            ),
            ClosedRecord(1001.0 + 2 * count, "complete"),
        ],
        opening(spec=HEAD + objectives + SPACE),
    )  # fmt: skip
    compact_and_close(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return sweep_of(tmp_path / "s.h5", VALUES)


def test_the_front_has_the_trials_that_no_other_dominates_and_equal_ones(path):
    sweep = package.load(path)
    assert sweep.pareto()["number"].tolist() == FRONT
    assert sweep.trials["diverged"].tolist() == [False] * 5 + [True, True, False]
    assert sweep.best(1, "speed")["number"].tolist() == [0]
    # A trial with an infinite speed is not the best by its loss.
    assert sweep.best(1)["number"].tolist() == [1]


def test_the_file_names_all_objectives_and_older_readers_find_the_first(path):
    with h5py.File(path) as file:
        assert (file.attrs["objective"], file.attrs["direction"]) == ("loss", "minimize")
        assert list(file.attrs["objectives"]) == ["loss", "speed"]
        assert list(file.attrs["directions"]) == ["minimize", "maximize"]
        assert file["trials/diverged"][:].tolist() == [False] * 5 + [True, True, False]


def test_hypervolume_grows_with_each_end_up_to_the_worst_values_or_a_given_point(path):
    sweep = package.load(path)
    history = sweep.hypervolume()
    # Of the six trials with finite objectives; the reference is the worst of them.
    assert history.reference == {"loss": 3.0, "speed": 1.0}
    # The run began at 1000 s, the first trial at 1001 s.
    assert history.time.tolist() == [3.0, 5.0, 7.0, 9.0, 11.0, 17.0]
    assert history.hypervolume.tolist() == [0.0, 2.0, 5.0, 5.0, 5.0, 5.0]
    given = sweep.hypervolume({"loss": 4.0, "speed": 0.0})
    assert given.hypervolume[-1] == compute_hypervolume(
        np.array([[loss, -speed] for loss, speed in VALUES[:5]]), np.array([4.0, 0.0])
    )
    for reference, problem in (
        ({"los": 1.0}, "did you mean 'loss'"),
        ({"loss": NAN}, "expected a finite number"),
    ):
        with pytest.raises(ResultsError, match=problem):
            sweep.hypervolume(reference)


def test_a_sweep_with_one_objective_has_a_front_but_no_hypervolume(tmp_path):
    sweep = package.load(sweep_of(tmp_path / "s.h5", [(2.0,), (1.0,), (1.0,)], "", ("loss",)))
    assert sweep.pareto()["number"].tolist() == [1, 2]
    with pytest.raises(ResultsError, match=r"s\.h5: the sweep has one objective, 'loss'"):
        sweep.hypervolume()
    with pytest.raises(ResultsError, match="a front needs several"):
        figures.draw_front(sweep)


def test_nothing_is_on_the_front_before_a_trial_has_all_objectives(tmp_path):
    empty = package.load(sweep_of(tmp_path / "a.h5", [(1.0,)], names=("loss",)))
    assert len(empty.pareto()) == len(empty.hypervolume().time) == 0
    assert sweep_status(empty).best is None
    with pytest.raises(ResultsError, match="no trial has reported the objective, 'speed'"):
        tables.top_table(empty)
    odd = package.load(sweep_of(tmp_path / "b.h5", [(1.0, NAN), (NAN, 1.0)]))
    assert len(odd.pareto()) == 0
    assert "2 completed trials have no finite loss" in "\n".join(status_lines(sweep_status(odd)))
    for draw in (figures.draw_front, figures.draw_hypervolume):
        with pytest.raises(ResultsError, match="no completed trial has finite objectives yet"):
            draw(odd)
    assert "<html" in page(odd)


#: (loss, speed) of the two repeats of each configuration.
REPEATED = [
    ((1.0, 5.0), (3.0, 5.0)),
    ((1.9, 6.0), (1.9, 6.0)),
    ((4.0, 9.0), (5.0, 9.0)),
    ((0.1, NAN), (2.5, 1.0)),
]


def repeated_sweep(path: Path) -> Path:
    """Four configurations, the first of them the baseline, each run twice; all firsts before all seconds."""
    runs = [one[repeat] for repeat in range(2) for one in REPEATED]
    numbers, xs = list(range(8)), [1, 2, 3, 4] * 2
    write_journal(
        path,
        [
            TrialsBlock(
                numbers, {"x": xs}, baseline=0, configurations=[0, 1, 2, 3] * 2, repeats=[0] * 4 + [1] * 4
            ),
            JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5),
            *(AssignedBlock([[0, 0]], 1001.0, [n], [1], {"x": xs[n]}) for n in numbers),
            EndedBlock(
                0, 0, numbers, [1] * 8, [2] * 8, [1001.0 + 2 * n for n in numbers], [2.0] * 8,
                {"loss": [run[0] for run in runs], "speed": [run[1] for run in runs]},
            ),
            ClosedRecord(1017.0, "complete"),
        ],
        opening(spec=(HEAD + TWO + SPACE).replace('name = "s"', 'name = "s"\nrepeats = 2')),
    )  # fmt: skip
    compact_and_close(path)
    return path


def test_with_repeats_the_front_is_that_of_the_means_and_not_of_the_luckiest_runs(tmp_path, mpisweep: Run):
    sweep = package.load(repeated_sweep(tmp_path / "s.h5"))
    front = sweep.pareto()
    # The first run of configuration 0 is lucky: no run dominates it, but the means of configuration 1 do.
    assert front["number"].tolist() == [1, 2]
    assert front["loss"].tolist() == [1.9, 4.5]
    assert front["speed"].tolist() == [6.0, 9.0]
    assert front["n"].tolist() == [2, 2]
    # Student's interval of two runs: 12.7 standard errors.
    assert front["half_loss"].tolist() == pytest.approx([0.0, 12.706 * 0.5], rel=1e-3)
    drawn = figures.front(sweep)
    assert (drawn.what, drawn.numbers.tolist(), drawn.x.tolist()) == (
        "configuration", [0, 1, 2, 3], [5.0, 6.0, 9.0, 1.0],
    )  # fmt: skip
    assert drawn.baseline == 0
    table = tables.top_table(sweep)
    assert table.title.endswith("2 configurations")
    assert [(row.rank, row.number, row.values) for row in table.rows] == [
        ("1", 1, (1.9, 6.0)), ("2", 2, (4.5, 9.0)), ("baseline", 0, (2.0, 5.0)),
    ]  # fmt: skip
    assert table.finding.startswith("values are means over up to 2 runs of a configuration")
    assert "2 configurations on the front" in "\n".join(status_lines(sweep_status(sweep)))
    found = json.loads(mpisweep("top", str(tmp_path / "s.h5"), "--json").stdout)["trials"][0]
    assert (found["configuration"], found["parameters"]) == (1, {"x": 2})
    # A configuration counts from the end of its last run.
    assert sweep.hypervolume().time.tolist() == [11.0, 13.0, 15.0, 17.0]


def test_100_000_trials_take_a_second(tmp_path):
    loss = np.random.default_rng(0).random(100_000)
    values = list(
        zip(loss.tolist(), (loss + 0.01 * np.random.default_rng(1).random(100_000)).tolist(), strict=True)
    )
    sweep = package.load(sweep_of(tmp_path / "s.h5", values))
    front = sweep.pareto()
    assert (np.diff(front["loss"]) > 0).all()
    assert (np.diff(front["speed"]) > 0).all()
    assert sweep.hypervolume().hypervolume[-1] > 0


# ------------------------------------------------------------------------------------- while it runs

rows = st.lists(
    st.tuples(*[st.sampled_from([None, NAN, float("inf"), 0.0, 1.0, 2.0, 3.0])] * 2), min_size=1, max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(values=rows, cut=st.integers(0, 30))
def test_the_master_the_next_master_and_the_reader_agree_about_the_best(tmp_path_factory, values, cut):
    path = sweep_of(tmp_path_factory.mktemp("best") / "s.h5", values)
    spec, sweep = parsed(TWO), package.load(path)
    followed = BestSoFar(spec.objectives)
    for part in (range(min(cut, len(values))), range(cut, len(values))):
        followed.note(list(part), [[values[n][place] for n in part] for place in range(2)])
    known = known_trials(spec, path)
    assert known is not None
    status = sweep_status(sweep)
    resumed = BestSoFar(spec.objectives)
    known.tell(resumed)
    for best in (followed, resumed):
        assert best.front == status.front == len(sweep.pareto())
        assert (best.value, best.number) == (status.best, status.best_trial)
        assert best.others == {one.objective: one.value for one in status.others}


def test_the_line_of_progress_tells_the_front_and_the_best_of_each():
    progress = Progress(
        9, 4, 0, 0, 0, 2, 1.0, 0.0, None, "loss", 0.5, 3, {"x": 1}, others={"speed": 8.0}, front=1
    )
    assert progress_line(progress).endswith("1 trial on the front, best loss 0.5, best speed 8")


# ------------------------------------------------------------------------------------- views


def test_top_prints_the_front_and_says_so(path, mpisweep: Run):
    table = tables.top_table(package.load(path))
    assert table.title == "s: Pareto front (smallest loss, largest speed), 4 trials"
    assert [row.number for row in table.rows] == [*FRONT, 0]
    assert table.rows[-1].rank == "baseline"
    assert table.rows[0].values == (1.0, 2.0)
    printed = mpisweep("top", path, "-k", "2").stdout
    assert "2 of 4 trials" in printed
    assert "2 completed trials have no finite loss or speed" in printed
    as_json = json.loads(mpisweep("top", path, "-k", "2", "--json").stdout)
    assert [row["metrics"] for row in as_json["trials"][:2]] == [
        {"loss": 1, "speed": 2},
        {"loss": 3, "speed": 9},
    ]
    # The ends of the front are always among those shown.
    assert [row.number for row in tables.top_table(package.load(path), 2).rows[:2]] == [FRONT[0], FRONT[-1]]
    assert (
        "best trials by largest speed"
        in mpisweep("top", path, "--by", "speed", "--direction", "maximize").stdout
    )


def test_status_counts_the_front_and_names_the_best_of_each(path, mpisweep: Run):
    told = mpisweep("status", path).stdout
    assert "  4 trials on the front\n  best loss 1 (trial 1: x=2)\n  best speed 9 (trial 0: x=1)\n" in told
    found = json.loads(mpisweep("status", path, "--json").stdout)
    assert (found["front"], found["best"], found["best_trial"]) == (4, 1.0, 1)
    assert found["others"] == [
        {"objective": "speed", "value": 9.0, "trial": 0, "parameters": {"x": 1}, "runs": 0}
    ]
    exported = json.loads(mpisweep("export", path, "--format", "json").stdout)
    assert exported["objectives"][1] == {"name": "speed", "direction": "maximize"}


def test_a_later_objective_is_judged_by_its_own_direction(path, mpisweep: Run):
    found = findings_of(package.load(path), "speed")
    assert not found.minimize
    assert found.means.mean[found.order()[0]] == np.nanmax(found.means.mean)
    assert tables.top_table(package.load(path), by="speed").title.endswith("largest speed")


def test_the_page_shows_the_front_and_both_figures(path):
    shown = page(package.load(path))
    assert "Pareto front (smallest loss, largest speed), 4 trials" in shown
    assert shown.count("<svg") >= 4
    assert "hypervolume up to loss 3, speed 1" in shown


def test_the_data_of_the_front_figure_is_a_staircase_whatever_the_directions(path):
    drawn = figures.front(package.load(path))
    assert (drawn.y_name, drawn.x_name, drawn.is_whole) == ("loss", "speed", True)
    assert drawn.numbers[drawn.front].tolist() == [0, 2, 3, 1]
    # From the best speed on: what is worse in it is better in the other.
    assert (np.diff(drawn.x[drawn.front]) <= 0).all()
    assert (np.diff(drawn.y[drawn.front]) <= 0).all()
    swapped = figures.front(package.load(path), x="loss")
    assert (swapped.y_name, swapped.x_name) == ("speed", "loss")


@pytest.mark.parametrize("name", ["pareto_front.py", "hypervolume.py"])
def test_the_scripts_draw_three_objectives_and_refuse_in_one_sentence(tmp_path, name):
    values = [(1.0, 2.0, 3.0), (2.0, 1.0, 3.0), (3.0, 3.0, 1.0)]
    three = sweep_of(tmp_path / "three.h5", values, 'objective = ["a", "b", "c"]\n', ("a", "b", "c"))
    done = script(name, three, "-o", "out.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").stat().st_size > 1000
    flags = ("--y", "d") if name == "pareto_front.py" else ("--reference", "d=1")
    done = script(name, three, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert "no objective 'd'" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------- searches that learn


def test_a_search_learns_from_both_objectives():
    directions = [MINIMIZE, MAXIMIZE]
    search, chance = (
        History(NAMED["tpe"], directions=directions),
        History(SamplerChoice("RandomSampler", {}), directions=directions),
    )
    volumes = []
    for kind in (search, chance):
        for number in range(80):
            kind.ask(1)
            kind.end(number)
        costs = np.array([[loss, -time] for loss, time in map(loss_and_time, kind.configurations)])
        volumes.append(compute_hypervolume(costs[(costs < [6.0, 0.0]).all(axis=1)], np.array([6.0, 0.0])))
    assert volumes[0] > volumes[1]


def test_after_many_trials_the_sampler_sees_the_front_and_a_rebuilt_one_sees_the_same(monkeypatch):
    monkeypatch.setattr(thinning, "BEST", 6)
    monkeypatch.setattr(thinning, "SHOWN", 20)
    # Of so few points the sampler repeats many, which a rebuilt study does not contain.
    search = History(NAMED["tpe"], ("x=1:12", "n=1:6"), directions=[MINIMIZE, MAXIMIZE])
    for number in range(50):
        search.ask(1)
        search.end(number)
    storage = search.proposer._storage
    shown = storage.get_all_trials(0, False, (TrialState.COMPLETE,))
    assert len(shown) == 20
    outcomes = [one.outcome for one in search.ends]
    first = [v for v in outcomes if not any(w != v and w[0] <= v[0] and w[1] >= v[1] for w in outcomes)]
    seen = [tuple(trial.values) for trial in shown]
    assert sum(tuple(v) in seen for v in first) >= min(6, len(first))
    assert search.rebuilt().ask(50, 6) == search.ask(6)


SCRIPT = """
import time
def run(trial):
    time.sleep(0.01)
    x, n = trial.params["x"], trial.params["n"]
    if x > 95:
        return {"loss": float("nan"), "speed": 1.0}
    return 3.0 / n**0.5 + abs(x - 33.3) / 100, 100 - n * 1.5 - abs(x - 60) / 20
"""


def real(folder: Path, search: str, trials: int) -> None:
    (folder / "m.py").write_text(SCRIPT.replace("def run", "def f"))
    (folder / "s.toml").write_text(
        f'{HEAD}{TWO}search = "{search}"\ntrials = {trials}\nseed = 5\n'
        "[parameters]\nx = { from = 1.0, to = 100.0 }\nn = { from = 1, to = 60 }\n"
        "[baseline]\nx = 50.0\nn = 20\n"
    )


@pytest.mark.mpi
@pytest.mark.parametrize("search", ["tpe", "nsga2"])
def test_a_run_and_its_resumption_learn_from_all_objectives(folder, mpisweep: Run, search):
    real(folder, search, 12)
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    real(folder, search, 30)
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert len(sweep.trials) == 31
    assert_reproducible(folder / "r.h5", search)
    assert f"{len(sweep.pareto())} trials on the front, best loss" in done.stderr
    assert load_spec(folder / "s.toml").objectives == sweep.objectives


@pytest.mark.mpi
def test_a_sweep_in_which_no_trial_has_all_objectives_says_so(folder, mpisweep: Run):
    (folder / "m.py").write_text('def f(trial): return {"loss": 1.0}\n')
    done = mpisweep(
        "run", "m:f", "-p", "x=1:3", "--objective", "loss", "--objective", "speed", "-n", "1", "-o", "r.h5"
    )
    assert done.returncode == 4, done.stderr
    assert "no trial reported 'speed'; reported: loss" in done.stderr
    assert "its objective 'speed' was never reported" in str(
        package.load(folder / "r.h5").trials["message"][0]
    )
    shown = mpisweep("check", "m:f", "-p", "x=1:3", "--objective", "loss", "--objective", "speed").stdout
    assert "  objective   loss, minimize\n  objective   speed, minimize\n" in shown
