"""Trials known from elsewhere: what is told to a search, exactly once, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from test_learning import NOTHING, space_of
from test_reliability import ended, ranks_by_number
from test_results import opening, write_journal
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import ImportedBlock, decode, encode
from mpisweep.master.known import duration_model
from mpisweep.master.searching import learning_past
from mpisweep.prior.reading import read_imports
from mpisweep.records import Direction, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.compaction import compact_and_close
from mpisweep.results.journal.checking import is_valid
from mpisweep.results.merged import read_merged
from mpisweep.scheduling.durations import DurationModel
from mpisweep.search import make_sampler
from mpisweep.search.learning import NAMED
from mpisweep.search.numbering import number_trials
from mpisweep.search.proposing import End, Past, Proposer
from mpisweep.spec import SpecError, parse_spec

Run = Callable[..., subprocess.CompletedProcess[str]]

SPACE = """
x = { from = -5.0, to = 5.0 }
n = { from = 1, to = 40 }
o = ["sgd", "adamw"]
b = [8, 16, 32]
f = [true, false]
"""


def spec_of(folder: Path, imports: str, *, more: str = "", space: str = SPACE, search: str = "tpe"):
    text = (
        f'name = "s"\nworkload = "mine:run"\nsearch = "{search}"\ntrials = 20\n{imports}\n'
        f"[parameters]\n{space}\n{more}"
    )
    return parse_spec(text, source="s.toml", folder=folder)


def imported(folder: Path, imports: str, **more):
    return read_imports(spec_of(folder, imports, **more))


# ------------------------------------------------------------------------------------- CSV

LINES = """x,n,o,b,f,loss,wall_time,state
1.5,3,sgd,8,True,0.25,12.5,complete
2,4.0,adamw,16,false,0.5,,complete
9,3,sgd,8,true,0.1,1,complete
1,3,adam,8,true,0.1,1,complete
1,3.5,sgd,8,true,0.1,1,complete
1,3,sgd,8,true,nan,1,complete
1,3,sgd,8,true,,1,failed
1,3,sgd,8,true,0.1,1,pruned
"""


def test_of_a_csv_file_what_is_complete_finite_and_inside_the_space_is_told(tmp_path):
    (tmp_path / "old.csv").write_text(LINES)
    found = imported(tmp_path, 'import = "old.csv"')
    assert found.configurations == [
        {"x": 1.5, "n": 3, "o": "sgd", "b": 8, "f": True},
        {"x": 2.0, "n": 4, "o": "adamw", "b": 16, "f": False},
    ]
    assert [type(value) for value in found.configurations[1].values()] == [float, int, str, int, bool]
    assert (found.objectives, found.wall_time_s) == ([0.25, 0.5], [12.5, None])
    assert found.notes == [
        "2 trials imported from old.csv; left out: 3 without a finite loss and 3 outside the space"
    ]


def test_constraints_and_conditions_say_what_is_inside_the_space(tmp_path):
    (tmp_path / "old.csv").write_text(
        "n,o,m,loss\n1,sgd,0.5,1\n2,adamw,,2\n3,adamw,0.5,3\n9,sgd,0.5,4\n8,sgd,,5\n"
    )
    space = (
        'n = { from = 1, to = 9 }\no = ["sgd", "adamw"]\nm = { from = 0.0, to = 1.0, when = "o == \'sgd\'" }'
    )
    found = imported(tmp_path, 'import = "old.csv"\nwhere = "n < 9"', space=space)
    assert found.configurations == [
        {"n": 1, "o": "sgd", "m": 0.5},
        {"n": 2, "o": "adamw"},
        {"n": 3, "o": "adamw"},
    ]
    assert "2 outside the space" in found.notes[0]


# ------------------------------------------------------------------------------------- Optuna


def study(storage, name: str = "only", count: int = 5, **more) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(storage=storage, study_name=name, **more)
    for number in range(count):
        trial = made.ask()
        trial.suggest_float("x", -5, 5)
        trial.suggest_int("n", 1, 40)
        trial.suggest_categorical("o", ["sgd", "adamw"])
        trial.suggest_categorical("b", [8, 16, 32])
        trial.suggest_categorical("f", [True, False])
        if number == 1:
            made.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif number != 2:
            made.tell(trial, [float(number)] * len(made.directions))


def test_an_optuna_database_and_a_journal_file_are_read_as_optuna_made_them(tmp_path):
    study(f"sqlite:///{tmp_path}/old.db")
    study(JournalStorage(JournalFileBackend(str(tmp_path / "old.log"))))
    for place in ("sqlite:///old.db", "old.log"):
        found = imported(tmp_path, f'import = "{place}"')
        assert found.objectives == [0.0, 3.0, 4.0]
        assert all(seconds is not None and 0 <= seconds < 60 for seconds in found.wall_time_s)
        assert all(type(one["f"]) is bool and type(one["n"]) is int for one in found.configurations)
        assert found.notes == [f"3 trials imported from {place}; left out: 2 without a finite loss"]


def test_of_several_studies_one_is_chosen_by_name(tmp_path):
    storage = f"sqlite:///{tmp_path}/old.db"
    study(storage, "first", 5)
    study(storage, "second", 4)
    study(storage, "both", 4, directions=["minimize", "minimize"])
    table = '{{ from = "sqlite:///old.db", study = "{}" }}'
    assert imported(tmp_path, f"import = {table.format('second')}").objectives == [0.0, 3.0]
    for wanted, problem in (
        ('"sqlite:///old.db"', "has the studies first, second, both; expected one of them"),
        (table.format("third"), "has no study 'third'; it has "),
        (table.format("both"), "has 2 objectives; this sweep has one, 'loss'"),
        ('"sqlite:///none.db"', "does not exist"),
    ):
        with pytest.raises(ResultsError, match=problem):
            imported(tmp_path, f"import = {wanted}")
    assert not (tmp_path / "none.db").exists()


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x,n,o,b,f\n1,3,sgd,8,true\n", "has no column 'loss'; its columns are b, f, n, o, x"),
        ("x,n,o,b,loss\n1,3,sgd,8,1\n", "has no parameter 'f'; it has b, loss, n, o, x"),
        (
            "x,n,o,b,f,loss\n9,3,sgd,8,true,1\n1,3,sgd,8,true,inf\n",
            "has no trial that can be used: 1 without a finite loss and 1 outside the space",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_with_the_reason(tmp_path, text, problem):
    (tmp_path / "old.csv").write_text(text)
    with pytest.raises(ResultsError) as refused:
        imported(tmp_path, 'import = "old.csv"')
    assert str(refused.value) == f"s.toml: import: old.csv: {problem}"


def test_a_missing_file_and_one_of_another_kind_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text("hello\n")
    with pytest.raises(ResultsError, match=r"s.toml: import: none.h5: cannot be read: No such file"):
        imported(tmp_path, 'import = "none.h5"')
    with pytest.raises(ResultsError, match=r"text.txt: is neither a results file, a CSV file nor a journal"):
        imported(tmp_path, 'import = "text.txt"')


@pytest.mark.parametrize(
    ("imports", "search", "problem"),
    [
        ('import = "a.csv"', "random", "import: is only for a search that learns, such as 'tpe'"),
        ('import = "a.csv"', "nsga2", "import: is not for 'nsga2', which learns from its own trials alone"),
        ("import = 3", "tpe", "import: is 3; expected a file name"),
        ("import = []", "tpe", r"import: is \[\]; expected a file name"),
        ('import = { study = "x" }', "tpe", "import: is {'study': 'x'}; expected a file name"),
        ('import = { from = "a", stduy = "x" }', "tpe", "import: is {'from': 'a', 'stduy': 'x'}; expected"),
    ],
)
def test_bad_imports_are_refused_in_one_sentence(tmp_path, imports, search, problem):
    with pytest.raises(SpecError, match=f"s.toml: {problem}"):
        spec_of(tmp_path, imports, search=search)


# ------------------------------------------------------------------------------------- the search


@pytest.mark.parametrize("sampler", [NAMED["tpe"], NAMED["cmaes"]], ids=["tpe", "cmaes"])
def test_a_search_is_told_imported_trials_first_and_a_rebuilt_one_too(sampler):
    space = space_of("x=-5.0:5.0", "n=1:40")
    known = [({"x": 1.5 + i / 100, "n": 30}, i / 100) for i in range(20)]

    def proposer(past: Past) -> Proposer:
        return Proposer(space, sampler, 0, [Direction.MINIMIZE], past)

    first = proposer(Past([], {}, [], known))
    proposed = first.ask(0, 3)
    first.tell([End(0, [1.0])])
    proposed += first.ask(3, 2)
    again = proposer(Past(proposed[:3], {0: 0, 1: 0, 2: 0}, [End(0, [1.0])], known))
    assert again.ask(3, 2) == proposed[3:]
    assert proposed == proposer(Past([], {}, [], known)).ask(0, 3) + proposed[3:]


@pytest.mark.parametrize("sampler", [NAMED["tpe"], NAMED["cmaes"]], ids=["tpe", "cmaes"])
def test_what_was_imported_moves_the_first_proposals_towards_it(sampler):
    space = space_of("x=-5.0:5.0", "n=1:40")
    known = [
        ({"x": -5.0 + i / 5, "n": 1 + i % 40}, abs(-5.0 + i / 5 - 1.5) + abs(1 + i % 40 - 30) / 10)
        for i in range(50)
    ]

    def mean_error(past: Past) -> float:
        found = Proposer(space, sampler, 0, [Direction.MINIMIZE], past).ask(0, 8)
        return sum(abs(float(one["x"]) - 1.5) + abs(int(one["n"]) - 30) / 10 for one in found) / len(found)

    assert mean_error(Past([], {}, [], known)) < 0.7 * mean_error(NOTHING)


# ------------------------------------------------------------------------------------- on disk

ROWS = ImportedBlock(["a.csv", "b.h5"], [{"x": 1, "o": "sgd"}, {"x": 2}], [0.5, -1.0], [None, 3.0])


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False), st.none() | st.floats(0, 1e6))))
def test_a_record_of_imported_trials_is_read_as_it_was_written(rows):
    block = ImportedBlock(
        [source for source, _, _ in rows], [{"x": source} for source, _, _ in rows],
        [value for _, value, _ in rows], [seconds for _, _, seconds in rows],
    )  # fmt: skip
    read = decode(encode(block))
    assert is_valid(read)
    assert len(read.sources) == len(rows)
    assert read.objectives == block.objectives


def test_imported_trials_are_kept_once_in_journal_and_file_and_take_no_number(tmp_path):
    write_journal(tmp_path / "r.h5", [ROWS, ROWS], opening())
    for _ in range(2):
        state = read_merged(tmp_path / "r.h5")
        assert state.count == 0
        assert state.imported["source"] == ["a.csv", "b.h5"]
        assert [json.loads(text) for text in state.imported["configuration"]] == ROWS.configurations
        assert state.imported["objective"] == [0.5, -1.0]
        assert math.isnan(state.imported["wall_time"][0])
        assert state.imported["wall_time"][1] == 3.0
        compact_and_close(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5") as file:
        assert file["imported/objective"][()].tolist() == [0.5, -1.0]
        assert file.attrs["format_version"] == 1


def test_a_file_of_an_earlier_version_has_nothing_imported(tmp_path):
    write_journal(tmp_path / "r.h5", [], opening())
    compact_and_close(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        del file["imported"]
    assert read_merged(tmp_path / "r.h5").imported["source"] == []


# ------------------------------------------------------------------------------------- whole runs


WORKLOAD = """
import time
from pathlib import Path

def run(trial):
    time.sleep(0.2 * Path("slow").exists())
    return abs(trial.params["x"] - 1.5) + abs(trial.params["n"] - 30) / 10
"""


def sweep_file(folder: Path, name: str, trials: int, more: str = "", fixed: str = "1") -> str:
    (folder / "mine.py").write_text(WORKLOAD)
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\nworkload = "mine:run"\nsearch = "tpe"\ntrials = {trials}\n{more}\n[parameters]\n'
        f"x = {{ from = -5.0, to = 5.0 }}\nn = {{ from = 1, to = 40 }}\n[fixed]\ndepth = {fixed}\n"
    )
    return f"{name}.toml"


@pytest.mark.mpi
def test_a_sweep_imports_once_through_kills_and_goes_on_when_the_old_file_has_gone(
    folder, environment, mpisweep: Run
):
    old = sweep_file(folder, "old", 30)
    assert mpisweep("run", old, "-n", "2").returncode == 0
    name = sweep_file(folder, "new", 24, 'import = ["old.h5"]', fixed="2")
    shown = mpisweep("check", name).stdout
    assert "import      30 trials imported from old.h5" in shown
    assert "import: old.h5 has depth = 1, here 2; its trials are told nevertheless" in shown
    (folder / "slow").touch()
    sweep = start(folder, environment, "run", name, "-n", "2", "-o", "new.h5")
    wait_for(lambda: ended(folder / "new.h5") >= 6)
    for rank in ranks_by_number(sweep).values():
        rank.kill()
    sweep.kill()
    sweep.wait()
    (folder / "old.h5").unlink()
    (folder / "slow").unlink()
    assert mpisweep("run", name, "-n", "2", "-o", "new.h5").returncode == 0
    found = package.load(folder / "new.h5")
    assert found.count(TrialState.COMPLETE) == len(found.trials) == 24
    assert "  30 trials imported from old.h5\n" in mpisweep("status", "new.h5").stdout
    assert json.loads(mpisweep("status", "--json", "new.h5").stdout)["imported"] == {"old.h5": 30}
    assert_proposals_follow(folder / "new.h5")


def assert_proposals_follow(path: Path) -> None:
    """Check that each proposal is the one of a search that was told the imported trials first."""
    sweep, state = package.load(path), read_merged(path)
    known = list(
        zip(map(json.loads, state.imported["configuration"]), state.imported["objective"], strict=True)
    )
    order = sweep.trials["end_order"].argsort()
    ends = [End(int(number), [float(sweep.trials["loss"][number])]) for number in order]
    configurations = [sweep.searched(number) for number in range(len(sweep.trials))]
    after = [int(count) for count in sweep.trials["proposed_after"]]
    for number in (0, len(configurations) // 2, len(configurations) - 1):
        past = Past(configurations[:number], dict(enumerate(after[:number])), ends[: after[number]], known)
        proposer = Proposer(sweep.spec.space, NAMED["tpe"], 0, [Direction.MINIMIZE], past)
        assert proposer.ask(number, 1) == [configurations[number]]


def test_another_import_is_a_difference_that_forbids_to_resume(tmp_path):
    old, new = spec_of(tmp_path, 'import = "a.csv"'), spec_of(tmp_path, 'import = ["a.csv", "b.csv"]')
    assert new.differences(old) == ["import: the results file has 'a.csv', s.toml has 'a.csv, b.csv'"]
    assert not new.differences(new)


# ------------------------------------------------------------------------------------- the baseline


@pytest.mark.parametrize(("depth", "others"), [("1", set()), ("2", {0})])
def test_a_baseline_with_other_fixed_options_is_no_result_of_the_searched_configuration(
    tmp_path, depth, others
):
    more = f"[fixed]\ndepth = 1\n[baseline]\nx = 1.0\nn = 3\no = 'sgd'\nb = 8\nf = true\ndepth = {depth}\n"
    spec = spec_of(tmp_path, "", more=more)
    sampler = make_sampler(spec)
    past = learning_past(spec, sampler, number_trials(spec, sampler, None), None, None)
    assert past is not None
    assert set(past.others) == others


# ------------------------------------------------------------------------------------- durations


def test_durations_elsewhere_predict_those_here_before_any_trial_has_run():
    elsewhere = [({"n": n, "o": o}, n * (2.0 if o == "b" else 1.0)) for n in range(1, 30) for o in "ab"]
    model = DurationModel({"n": [], "o": []}, [], 0, None, elsewhere)
    assert model.is_due
    model.fit()
    model.grow([{"n": 8, "o": "a"}, {"n": 16, "o": "a"}, {"n": 16, "o": "b"}])
    found = [model.expected_s(number) for number in range(3)]
    assert found == pytest.approx([8.0, 16.0, 32.0], rel=0.2)
    # What is measured here counts as much.
    model.observe([0, 1, 2] * 40, [80.0, 160.0, 320.0] * 40)
    model.fit()
    assert model.expected_s(1) > 60.0


def test_trials_elsewhere_without_a_duration_leave_it_unknown(tmp_path):
    spec = spec_of(tmp_path, 'import = "a.csv"', space="x = { from = 1, to = 9 }")
    trials = number_trials(spec, make_sampler(spec), None)
    rows = [{"x": number} for number in range(1, 7)]
    for seconds, is_known in ((None, False), (3.0, True)):
        block = ImportedBlock(["a.csv"] * 6, rows, [1.0] * 6, [seconds] * 6)
        assert duration_model(spec, trials, None, block).is_known is is_known
