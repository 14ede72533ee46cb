"""Repeats: numbers, seeds, files of earlier versions, and what a search is told of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_frontier import Devices
from test_learning import assert_reproducible
from test_reliability import ended, ranks_by_number
from test_results import opening, write_journal
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import AssignedBlock, EndedBlock, JoinedRecord, TrialsBlock, decode, encode
from mpisweep.master.best import BestMeans, follow_best
from mpisweep.master.known import known_trials
from mpisweep.progress import Progress, progress_line
from mpisweep.records import TrialState
from mpisweep.results.journal.checking import is_valid
from mpisweep.results.state import SweepState
from mpisweep.scheduling.decisions import AddTrials, Propose
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Proposed, WorkerJoined
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import make_sampler
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.search.repeated import MeanOfRepeats
from mpisweep.spec import SpecError, parse_spec, spec_from_flags
from mpisweep.views.findings import findings_of
from mpisweep.views.status import status_lines, sweep_status
from mpisweep.views.watch import look_at

Run = Callable[..., subprocess.CompletedProcess[str]]


def numbered(parameters, known=None, repeats=1, baseline=(), **options) -> Trials:
    spec = spec_from_flags(
        "m:f", parameters, folder=Path(), baseline=baseline, options={"repeats": repeats, **options}
    )
    return number_trials(spec, make_sampler(spec), known)


def known_of(trials: Trials) -> Known:
    return Known(
        trials.parameters, trials.states, trials.attempts, trials.baseline,
        configurations=trials.configuration_of, repeats=trials.repeat_of,
    )  # fmt: skip


def rows_of(trials: Trials) -> list[tuple]:
    return list(zip(*trials.parameters.values(), trials.configuration_of, trials.repeat_of, strict=True))


# ------------------------------------------------------------------------------------- numbers


def test_all_configurations_have_their_first_repeat_before_any_has_its_second():
    trials = numbered(["x=1:2"], repeats=3, baseline=["x=9"])
    assert rows_of(trials) == [
        (1, 0, 0), (2, 1, 0), (9, 2, 0), (1, 0, 1), (2, 1, 1), (9, 2, 1), (1, 0, 2), (2, 1, 2), (9, 2, 2),
    ]  # fmt: skip
    assert trials.baseline == 2


def test_more_repeats_and_a_larger_space_get_new_numbers():
    old = numbered(["x=2:3"])
    more = numbered(["x=2:3"], known_of(old), repeats=2)
    assert rows_of(more) == [(2, 0, 0), (3, 1, 0), (2, 0, 1), (3, 1, 1)]
    assert more.first_new == 2
    both = numbered(["x=1:3"], known_of(more), repeats=3)
    assert rows_of(both)[4:] == [(1, 2, 0), (1, 2, 1), (1, 2, 2), (2, 0, 2), (3, 1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)), max_size=5),
    st.sampled_from([(), ("x=2",), ("x=50",)]),
)
def test_whatever_grows_in_whatever_order_numbers_stay_and_nothing_comes_twice(steps, baseline):
    low, high, repeats = 5, 5, 1
    trials = numbered([f"x={low}:{high}"], baseline=baseline)
    for down, up, more in steps:
        low, high, repeats = max(1, low - down), high + up, repeats + more
        before = rows_of(trials)
        trials = numbered([f"x={low}:{high}"], known_of(trials), repeats, baseline)
        assert rows_of(trials)[: len(before)] == before
        assert rows_of(trials)[trials.first_new :] == rows_of(trials)[len(before) :]
    rows = rows_of(trials)
    values = {*range(low, high + 1), *(int(one.removeprefix("x=")) for one in baseline)}
    assert sorted((x, repeat) for x, _, repeat in rows) == sorted(
        (x, r) for x in values for r in range(repeats)
    )
    # One number per configuration, in the order in which they first appear.
    assert list(dict.fromkeys(number for _, number, _ in rows)) == list(range(len(values)))
    assert len({(x, number) for x, number, _ in rows}) == len(values)


def test_trials_whose_numbers_were_lost_do_not_take_those_of_others():
    old = numbered(["x=1:3"], repeats=2)
    known = replace(known_of(old), configurations=[-1, 1, 2, -1, 1, 2], repeats=[-1, 0, 0, -1, 1, 1])
    known = replace(known, parameters={"x": [None, 2, 3, None, 2, 3]})
    trials = numbered(["x=1:3"], known, repeats=2)
    assert trials.configuration_of[:6] == [0, 1, 2, 3, 1, 2]
    assert rows_of(trials)[6:] == [(1, 4, 0), (1, 4, 1)]


def test_the_repeats_of_the_baseline_run_whatever_the_constraints_are():
    old = numbered(["x=1:3"], repeats=2, baseline=["x=9"])
    spec = spec_from_flags(
        "m:f", ["x=1:3"], folder=Path(), baseline=["x=9"], options={"repeats": 2}, where=["x < 3"]
    )
    trials = number_trials(spec, make_sampler(spec), known_of(old))
    assert {trials.parameters["x"][number] for number in trials.excluded} == {3}
    assert len(trials.excluded) == 2


def test_an_even_order_covers_the_space_before_it_repeats():
    from mpisweep.search.spread import places

    spec = spec_from_flags("m:f", ["x=1:5"], folder=Path(), options={"repeats": 2, "order": "spread"})
    trials = number_trials(spec, make_sampler(spec), None)
    found = places(spec, trials)
    assert found is not None
    assert sorted(found[:5]) == [0, 1, 2, 3, 4]
    assert found[5:] == [place + 5 for place in found[:5]]


# ------------------------------------------------------------------------------------- records


def test_the_record_of_trials_without_repeats_says_nothing_about_them():
    assert numbered(["x=1:3"]).block([0, 1, 2]) == TrialsBlock([0, 1, 2], {"x": [1, 2, 3]})
    block = numbered(["x=1:2"], repeats=2).block([1, 2, 3])
    assert (block.configurations, block.repeats) == ([1, 0, 1], [0, 1, 1])
    assert decode(encode(block)) == block


@pytest.mark.parametrize(
    ("configurations", "repeats"), [([0], [0, 0]), ([0, 1], []), ([0, -1], [0, 0]), ([0, 1], [0, True])]
)
def test_damaged_numbers_are_no_record(configurations, repeats):
    good = TrialsBlock([0, 1], {"x": [1, 2]}, configurations=[0, 1], repeats=[0, 0])
    assert is_valid(good)
    assert not is_valid(replace(good, configurations=configurations, repeats=repeats))


def test_equal_parameters_are_repeats_of_one_configuration_if_a_file_does_not_number_them():
    state = SweepState(parameters={"x": [], "o": []})
    state.grow(5)
    state.parameters = {"x": [1, 2, 1, None, 1], "o": ["a", "a", "a", None, None]}
    state.index()
    assert state.trials["configuration"] == [0, 1, 0, -1, 2]
    assert state.trials["repeat"] == [0, 0, 1, -1, 0]


# ------------------------------------------------------------------------------------- the sweep file


def parse(text: str):
    return parse_spec(text, source="s.toml", folder=Path("/"))


GRID = 'workload = "m:f"\n{}\n[parameters]\nx = {{ from = 1, to = 9 }}\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("repeats = 0", "s.toml: repeats: is 0; expected an integer from 1 to 1,000"),
        ("repeats = true", "repeats: is True; expected"),
        ("repeats = 1001", "repeats: is 1001; expected"),
        ('repeats = "3"', "repeats: is '3'; expected"),
        ('repeats = 2\nsearch = "largest_batch"\nobjective = "v"', "measures memory and speed"),
    ],
)
def test_repeats_that_make_no_sense_are_refused_in_one_sentence(text, problem):
    with pytest.raises(SpecError) as refused:
        parse(GRID.format(text))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_repeats_may_grow_but_not_shrink_and_a_search_that_learns_keeps_them():
    few, many = (parse(GRID.format(f"repeats = {n}")) for n in (2, 4))
    assert many.differences(few) == []
    assert few.differences(many) == [
        "repeats: the results file has 4, s.toml has 2; it may grow but not shrink"
    ]
    few, many = (parse(GRID.format(f'search = "tpe"\ntrials = 5\nrepeats = {n}')) for n in (2, 4))
    assert "was told the means" in many.differences(few)[0]


# ------------------------------------------------------------------------------------- searches


def test_a_search_is_told_the_mean_once_all_repeats_have_ended():
    told = MeanOfRepeats([0, 1, 0, 1, 0, 1, 2, 2, 2], 3)
    assert [
        told.note(number, outcome)
        for number, outcome in [(0, [1.0]), (4, [6.0]), (1, None), (5, [float("nan")])]
    ] == ([None] * 4)
    # A trial that ends twice, because it was excluded for a while, counts once.
    assert told.note(1, None) is None
    assert told.note(3, [7.0]) == (1, [7.0], -1)
    assert told.note(2, [2.0]) == (0, [3.0], -1)
    assert told.note(2, [9.0]) is None
    assert [told.note(number, None) for number in (6, 7, 8)] == [None, None, (2, None, -1)]


def test_the_complete_repeats_count_and_without_any_the_pruned_one_that_got_furthest():
    told = MeanOfRepeats([0, 0, 0, 1, 1, 1], 3)
    ends = [(0, [1.0], -1), (1, [9.0], 4), (2, [3.0], -1), (3, [5.0], 2), (4, None, -1), (5, [8.0], 7)]
    assert [told.note(*end) for end in ends] == [None, None, (0, [2.0], -1), None, None, (1, [8.0], 7)]


def test_of_several_objectives_each_has_its_mean_over_the_repeats_in_which_all_are_finite():
    told = MeanOfRepeats([0, 0, 0], 3)
    assert told.note(0, [1.0, 10.0]) is None
    assert told.note(1, [2.0, None]) is None
    assert told.note(2, [3.0, 30.0]) == (0, [2.0, 20.0], -1)


def test_every_proposal_is_run_as_often_as_the_sweep_wants_and_no_more_are_asked_for():
    model = DurationModel({"x": []}, None, 0)
    scheduler = Scheduler([], [], model, retries=1, grace_s=1.0, proposals=Proposals(9, 0, repeats=3))
    assert scheduler.handle(WorkerJoined(1, 4), 0.0) == [Propose(2)]
    assert scheduler.to_come == 27
    answer = Proposed(({"x": 5}, {"x": 6}), (1, 1), 0, 0.01)
    added = scheduler.handle(answer, 0.1)[0]
    assert added == AddTrials([0, 1, 2, 3, 4, 5], [{"x": 5}, {"x": 6}], 0, 3)
    assert scheduler.to_come == 21
    scheduler.check()


@pytest.mark.parametrize(("room", "devices"), [(0, 4), (1, 3), (17, 1), (17, 6), (40, 3)])
def test_of_a_size_that_is_too_large_one_repeat_runs_and_the_others_are_infeasible(room, devices):
    sizes = [*range(1, 41)] * 3
    swept = Devices(
        {"x": sizes},
        {"x": "increasing"},
        lambda n, kind: sizes[n] <= room,
        ["gpu"] * devices,
        random=Random(7),
    )
    swept.run()
    lost = [sizes[number] for number in swept.lost]
    assert len(lost) == len(set(lost)) <= 8
    for number, state in enumerate(swept.states):
        if sizes[number] <= room:
            assert state == TrialState.COMPLETE
        else:
            assert state in (TrialState.FAILED, TrialState.INFEASIBLE)


# ------------------------------------------------------------------------------------- the best so far

SEVERAL = 'objective = ["loss", "cost"]\ndirection = ["minimize", "maximize"]\n'


def partly_ended(path: Path, ends, head: str) -> tuple:
    """Spec, trials and results file of four configurations with three repeats; (trial, values) have ended."""
    text = f'name = "s"\nworkload = "m:f"\nrepeats = 3\n{head}[parameters]\nx = [1, 2, 3, 4]\n'
    spec = parse_spec(text, source="s.toml", folder=Path())
    trials = number_trials(spec, make_sampler(spec), None)
    metrics = [one.name for one in spec.objectives]
    worker = JoinedRecord(0, "node1", "cpu 0", 1, 1, 1000.5)
    records: list[object] = [trials.block(list(range(12))), worker]
    for number, values in ends:
        configuration = {"x": trials.parameters["x"][number]}
        records.append(AssignedBlock([[0, 0]], 1001.0, [number], [1], configuration))
        found = {name: [value] for name, value in zip(metrics, values, strict=True)}
        state = [int(TrialState.COMPLETE)]
        records.append(EndedBlock(0, 0, [number], [1], state, [1001.0], [2.0], found))
    write_journal(path, records, opening(spec=text))
    return spec, trials


values = st.sampled_from([float("nan"), 0.0, 1.0, 2.5, 4.0])
some_ends = st.lists(
    st.tuples(st.integers(0, 11), st.tuples(values, values)), min_size=1, max_size=12, unique_by=lambda end: end[0]
)  # fmt: skip


@pytest.mark.parametrize("head", ['direction = "maximize"\n', SEVERAL])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(ends=some_ends, cut=st.integers(0, 12))
def test_master_next_master_status_and_tables_agree_about_the_best_configuration(
    tmp_path_factory, head, ends, cut
):
    count = 2 if head == SEVERAL else 1
    ends = [(number, found[:count]) for number, found in ends]
    path = tmp_path_factory.mktemp("best") / "s.h5"
    spec, trials = partly_ended(path, ends, head)
    followed, resumed = (follow_best(spec.objectives, trials, spec.repeats.first) for _ in range(2))
    for part in (ends[:cut], ends[cut:]):
        columns = [[found[place] for _, found in part] for place in range(count)]
        followed.note([number for number, _ in part], columns)
        assert followed.runs >= 0
    known = known_trials(spec, path)
    assert known is not None
    known.tell(resumed)
    sweep = package.load(path)
    status = sweep_status(sweep)
    for best in (followed, resumed):
        assert (best.value, best.runs, best.front) == (status.best, status.best_runs, status.front)
        assert best.others == {one.objective: one.value for one in status.others}
        if best.number is not None and best.runs:
            assert {"x": trials.parameters["x"][best.number]} == status.best_parameters
    if status.best_runs and count == 1:
        found = findings_of(sweep)
        first = found.order()[0]
        assert status.best == pytest.approx(found.means.mean[first])
        assert status.best_parameters == sweep.searched(int(found.runs.first[first]))


def test_with_repeats_the_best_is_that_of_the_means_and_not_the_luckiest_run(tmp_path):
    # The luckiest run is that of 1; the second seed is bad for all, and 4 has not run it yet.
    losses = {0: 0.1, 1: 1.0, 2: 5.0, 3: 1.1, 4: 6.1, 5: 2.0, 6: 6.0, 8: 0.2}
    spec, trials = partly_ended(tmp_path / "s.h5", [(number, (loss,)) for number, loss in losses.items()], "")
    best = follow_best(spec.objectives, trials, 3)
    for number, loss in [*losses.items()][:4]:
        best.note([number], [[loss]])
    # Nothing is repeated yet.
    assert (best.number, best.value, best.runs) == (0, 0.1, 0)
    for number, loss in [*losses.items()][4:]:
        best.note([number], [[loss]])
    assert (best.value, best.runs) == (1.5, 2)
    assert trials.parameters["x"][best.number] == 2
    sweep = package.load(tmp_path / "s.h5")
    assert "  best mean loss 1.5 (2 runs, x=2)" in status_lines(sweep_status(sweep))
    assert "best mean loss 1.5 (2 runs, x=2)" in progress_line(look_at(sweep, 1010.0).progress)


def test_ends_are_compared_when_the_best_is_asked_for_and_only_so_many_wait_for_that():
    spec = parse_spec(
        'name = "s"\nworkload = "m:f"\nrepeats = 2\n[parameters]\nx = { from = 1, to = 700 }\n',
        source="s.toml", folder=Path(),
    )  # fmt: skip
    trials = number_trials(spec, make_sampler(spec), None)
    best = follow_best(spec.objectives, trials, 2)
    for number in range(trials.count):
        best.note([number], [[float(trials.configuration_of[number])]])
    assert isinstance(best, BestMeans)
    assert 0 < len(best._waiting) < 1000
    assert (best.value, best.runs, best.number) == (0.0, 2, 0)
    assert not best._waiting


def test_a_sweep_of_many_repeats_is_ranked_by_plain_means_before_it_takes_long():
    spec = parse_spec(
        'name = "s"\nworkload = "m:f"\nrepeats = 300\n[parameters]\nx = [1, 2, 3]\n',
        source="s.toml", folder=Path(),
    )  # fmt: skip
    trials = number_trials(spec, make_sampler(spec), None)
    best = follow_best(spec.objectives, trials, 300)
    # The last configuration lacks the worst seed.
    losses = [[1.0] * 299 + [90.0], [1.1] * 300, [1.05] * 299]
    for configuration, runs in enumerate(losses):
        best.note([3 * repeat + configuration for repeat in range(len(runs))], [runs])
    assert (best.value, best.runs) == (pytest.approx(1.05), 299)


def test_the_line_of_progress_says_over_how_many_runs_the_best_mean_is():
    assert progress_line(
        Progress(9, 4, 0, 0, 0, 2, 1.0, 0.0, None, "loss", 0.5, 3, {"x": 1}, best_runs=1)
    ).endswith("best mean loss 0.5 (1 run, x=1)")
    assert progress_line(
        Progress(9, 4, 0, 0, 0, 2, 1.0, 0.0, None, "loss", 0.5, 3, {}, best_runs=2)
    ).endswith("best mean loss 0.5 (2 runs)")
    assert progress_line(
        Progress(
            9, 4, 0, 0, 0, 2, 1.0, 0.0, None, "loss", 0.5, 3, {"x": 1}, {"speed": 8.0}, front=2, best_runs=2
        )
    ).endswith("2 configurations on the front, best mean loss 0.5, best mean speed 8")


# ------------------------------------------------------------------------------------- whole sweeps

NOISY = """
import random
def run(trial):
    chance = random.Random(trial.seed)
    return {"loss": trial.params["x"] + chance.random(), "chance": chance.random(), "own": trial.repeat}
"""


def noisy_sweep(folder: Path, head: str, name: str = "s.toml") -> str:
    (folder / "mine.py").write_text(NOISY)
    (folder / name).write_text(
        f'name = "s"\nworkload = "mine:run"\nseed = 4\n{head}\n[parameters]\nx = {{ from = 1, to = 4 }}\n'
        "[baseline]\nx = 9\n"
    )
    return name


def test_configurations_are_compared_on_common_seeds_and_repeats_may_grow(folder, mpisweep: Run):
    assert mpisweep("run", noisy_sweep(folder, "repeats = 2"), "-n", "2", "-o", "r.h5").returncode == 0
    before = package.load(folder / "r.h5").trials
    assert before["configuration"].tolist() == [0, 1, 2, 3, 4] * 2
    assert before["repeat"].tolist() == before["own"].tolist() == [0] * 5 + [1] * 5
    assert len(np.unique(before["chance"])) == 2
    done = mpisweep("run", noisy_sweep(folder, "repeats = 3"), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    after = package.load(folder / "r.h5").trials
    assert after["repeat"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert after["loss"].tolist()[:10] == before["loss"].tolist()
    # None ran again; one that waited behind another may have been reclaimed, which counts as an attempt.
    assert after["started_at"].tolist()[:10] == before["started_at"].tolist()
    assert len(np.unique(after["chance"])) == 3
    fewer = mpisweep("run", noisy_sweep(folder, "repeats = 2"), "-n", "2", "-o", "r.h5")
    assert fewer.returncode == 2
    assert "repeats: the results file has 3, s.toml has 2; it may grow but not shrink" in fewer.stderr


def test_a_file_without_the_columns_is_resumed_and_its_trials_stay(folder, mpisweep: Run):
    assert mpisweep("run", noisy_sweep(folder, ""), "-n", "1", "-o", "r.h5").returncode == 0
    before = package.load(folder / "r.h5").trials["loss"].tolist()
    with h5py.File(folder / "r.h5", "r+") as file:
        del file["trials/configuration"], file["trials/repeat"]
    assert package.load(folder / "r.h5").trials["configuration"].tolist() == [0, 1, 2, 3, 4]
    done = mpisweep("run", noisy_sweep(folder, "repeats = 2"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["loss"].tolist()[:5] == before
    assert trials["configuration"].tolist() == [0, 1, 2, 3, 4] * 2
    assert trials["repeat"].tolist() == [0] * 5 + [1] * 5


def test_the_command_line_has_repeats_and_a_program_is_told_which(folder, mpisweep: Run):
    (folder / "p.py").write_text("import os, sys; print('loss:', sys.argv[1], os.environ['MPISWEEP_REPEAT'])")
    words = ("-p", "x=1:2", "--repeats", "3", "--metric", "loss=loss: ", "-o", "r.h5")
    command = ("--", "python", "p.py", "{repeat}.{x}")
    assert "2 configurations x 3 repeats" in mpisweep("check", *words, *command).stdout
    done = mpisweep("run", *words, "-n", "1", *command)
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["loss"].tolist() == [0.1, 0.2, 1.1, 1.2, 2.1, 2.2]
    assert mpisweep("export", "r.h5").stdout.splitlines()[0].count(",configuration,repeat,") == 1


@pytest.mark.mpi
def test_a_search_that_learns_and_is_killed_goes_on_with_the_means_it_was_told(
    folder, environment, mpisweep: Run
):
    (folder / "mine.py").write_text(
        "import random, time\n"
        "def run(trial):\n"
        "    time.sleep(0.02)\n"
        "    if trial.params['x'] > 90 and trial.repeat:\n"
        "        raise ValueError('too large')\n"
        "    return abs(trial.params['x'] - 33.3) + random.Random(trial.seed).random()\n"
    )
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "mine:run"\nsearch = "tpe"\ntrials = 16\nseed = 5\nrepeats = 3\n'
        "[parameters]\nx = { from = 1.0, to = 100.0 }\n[baseline]\nx = 50.0\n"
    )
    sweep = start(folder, environment, "run", "s.toml", "-n", "3", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 14)
    ranks_by_number(sweep)[0].kill()
    assert sweep.wait() == 0
    trials = package.load(folder / "r.h5").trials
    assert len(trials) == 3 * 17
    assert (trials["proposed_after"] >= 0).sum() == 3 * 16
    assert np.bincount(trials["configuration"]).tolist() == [3] * 17
    assert_reproducible(folder / "r.h5")


@pytest.mark.mpi
def test_the_members_of_a_split_sweep_agree_on_the_numbers_of_its_repeats(folder, environment, mpisweep: Run):
    noisy_sweep(folder, "repeats = 4")
    first = start(folder, environment, "run", "s.toml", "-n", "1", "--split", "2", "-o", "r.h5")
    second = mpisweep("run", "s.toml", "-n", "1", "--split", "2", "-o", "r.h5")
    assert second.returncode in (0, 3), second.stderr
    assert first.wait() in (0, 3)
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5").returncode == 0
    sweep = package.load(folder / "r.h5")
    trials, attempts = sweep.trials, sweep.attempts
    assert trials["configuration"].tolist() == [0, 1, 2, 3, 4] * 4
    assert trials["own"].tolist() == trials["repeat"].tolist() == [r for r in range(4) for _ in range(5)]
    assert sorted(attempts["trial"][attempts["end"] == "ended"].tolist()) == list(range(20))
