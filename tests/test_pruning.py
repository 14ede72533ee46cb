"""Pruning: the decisions are Optuna's, and reach functions, programs and trials of several ranks."""

from __future__ import annotations

import json
import math
import os
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_learning import hide

from mpisweep.blocks import Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.master.judge import EACH, Bench
from mpisweep.master.prune_client import PruneClient
from mpisweep.processes.shared_page import Page, page_file
from mpisweep.records import AttemptEnd, Direction, Slot, TrialState
from mpisweep.scheduling.decisions import Abandon, Commit, Prune
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import PruneAdvised, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.teams import LINGER_S, RETURN_S
from mpisweep.search import thinning
from mpisweep.search.judging import Judge, KnownTrial
from mpisweep.search.learning import NAMED as SAMPLERS
from mpisweep.search.proposing import End, Past, Proposer
from mpisweep.search.pruners import make_pruner
from mpisweep.search.pruning import NAMED, resolved
from mpisweep.spec import PRUNER_NAMES, PrunerChoice, SpecError, parse_spec, spec_from_flags
from mpisweep.spec.searches import check_pruner
from mpisweep.workloads.gathering import Gathered
from mpisweep.workloads.trial import DivergedError, Trial

COMPLETE, PRUNED, FAILED = int(TrialState.COMPLETE), int(TrialState.PRUNED), int(TrialState.FAILED)


# ------------------------------------------------------------------------------------- the sweep file


def spec_of(folder: Path, prune: str = 'prune = "median"', limits: str = ""):
    text = (
        f'name = "s"\nworkload = "workloads:slowly"\n{prune}\n'
        f"[parameters]\nx = {{ from = 1, to = 9 }}\n[limits]\n{limits}\n"
    )
    return parse_spec(text, source="s.toml", folder=folder)


@pytest.mark.parametrize("name", PRUNER_NAMES)
def test_each_short_name_is_a_pruner_of_optuna(folder, name):
    spec = spec_of(folder, f'prune = "{name}"')
    check_pruner(spec)
    assert set(NAMED) == set(PRUNER_NAMES)
    assert isinstance(make_pruner(resolved(spec.prune)), optuna.pruners.BasePruner)


@pytest.mark.parametrize(
    ("prune", "problem"),
    [
        ('prune = "medain"', "did you mean 'median'?"),
        ("prune = 5", "expected one of median"),
        ("prune = { patience = 3 }", "expected one of median"),
        ('prune = { pruner = "MedianPrunr" }', "did you mean 'MedianPruner'?"),
        ('prune = { pruner = "median", n_startup = 3 }', "did you mean 'n_startup_trials'?"),
        ('prune = { pruner = "asha", reduction_factor = 1 }', "refuses reduction_factor = 1"),
        ('prune = { pruner = "PatientPruner" }', "PatientPruner refuses its options"),
        ('prune = { pruner = "patient", wrapped_pruner = "medan" }', "'medan' does not exist"),
        ('prune = { pruner = "patient", wrapped_pruner = { pruner = "median", n = 1 } }', "no option 'n'"),
        ('prune = { pruner = "median", n_startup_trials = [1] }', "expected a number, string or boolean"),
        ('prune = { pruner = "NopPruner" }', "does not exist"),
    ],
)
def test_an_unknown_pruner_or_option_is_refused_before_any_rank_starts(folder, prune, problem):
    with pytest.raises(SpecError) as refused:
        check_pruner(spec_of(folder, prune))
    assert problem in str(refused.value)
    assert str(refused.value).startswith("s.toml: prune")
    assert "\n" not in str(refused.value)


def test_a_short_name_takes_options_and_wraps_another_pruner(folder):
    prune = 'prune = { pruner = "patient", patience = 2, wrapped_pruner = { pruner = "percentile", percentile = 10 } }'
    spec = spec_of(folder, prune)
    check_pruner(spec)
    assert spec.prune_text == "patient, patience = 2, wrapped_pruner = (percentile, percentile = 10)"
    assert resolved(spec.prune) == PrunerChoice(
        "PatientPruner",
        {"patience": 2, "wrapped_pruner": PrunerChoice("PercentilePruner", {"percentile": 10})},
    )
    assert resolved(PrunerChoice("threshold", {"upper": 5.0})).options == {"upper": 5.0}


def test_a_machine_without_optuna_is_told_what_to_install(folder, environment, mpisweep):
    hide(folder, environment, "optuna")
    (folder / "s.toml").write_text(spec_of(folder).text)
    done = mpisweep("run", "s.toml", "-n", "1")
    assert done.returncode == 2
    assert "prune" in done.stderr
    assert "`pip install optuna cmaes` adds them" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pruner_may_change_when_a_sweep_is_resumed_and_its_limits_too(folder):
    before, now = spec_of(folder), spec_of(folder, 'prune = "asha"', 'diverged = "stop"')
    assert now.differences(before) == []
    assert (before.limits.diverged, now.limits.diverged) == ("ignore", "stop")


# ------------------------------------------------------------------------------------- agreement with Optuna

CHOICES = [
    PrunerChoice("median", {"n_startup_trials": 2}),
    PrunerChoice("percentile", {"n_startup_trials": 1, "n_warmup_steps": 1, "interval_steps": 2}),
    PrunerChoice("asha", {"reduction_factor": 2}),
    PrunerChoice("asha", {"min_resource": 1, "reduction_factor": 2, "bootstrap_count": 1}),
    PrunerChoice("hyperband", {"max_resource": 6, "reduction_factor": 2}),
    PrunerChoice("hyperband", {"reduction_factor": 2}),
    PrunerChoice(
        "patient", {"patience": 1, "wrapped_pruner": PrunerChoice("median", {"n_startup_trials": 1})}
    ),
    PrunerChoice("PatientPruner", {"patience": 1}),
    PrunerChoice("threshold", {"lower": -1.0, "upper": 1.5}),
    PrunerChoice("WilcoxonPruner", {"p_threshold": 0.4}),
]
VALUES = st.one_of(
    st.floats(-2.0, 2.0, width=16), st.just(math.nan), st.sampled_from([math.inf, -math.inf, 0.5])
)
#: Which of the running trials reports (its step: the next one, or one that repeats the last), or ends.
TURNS = st.lists(
    st.tuples(st.integers(0, 3), VALUES, st.sampled_from(["report"] * 7 + ["again", "end", "fail"])),
    min_size=10,
    max_size=70,
)


class Beside:
    """A judge of ours beside a study of Optuna, for the same reports in the same order."""

    def __init__(self, choice: PrunerChoice, direction: Direction) -> None:
        self.choice, self.direction = resolved(choice), direction
        self.judge = Judge(self.choice, direction, seed=7)
        self.study = optuna.create_study(
            study_name="7", direction=direction.value, pruner=make_pruner(self.choice)
        )
        #: Trial of the sweep, of Optuna, and its reports with their times; four at a time.
        self.running: list[tuple[int, optuna.Trial, list[tuple[int, float, float]]]] = []
        self.clock = 0.0
        self.known: list[KnownTrial] = []
        self.pruned = 0
        for _ in range(4):
            self.begin()

    def begin(self) -> None:
        trial = self.study.ask()
        self.running.append((trial.number, trial, []))

    def turn(self, which: int, value: float, what: str) -> None:
        number, trial, reports = self.running[which]
        self.clock += 1.0
        if what in ("report", "again"):
            step = len(reports) if what == "report" else max(0, len(reports) - 1)
            if what == "again" and not reports:
                return
            trial.report(value, step)
            ours = self.judge.report(number, 1, step, value)
            assert ours == (what == "report"), "Optuna does not count a step twice"
            if what == "report":
                reports.append((step, value, self.clock))
            expected = trial.should_prune()
            assert self.judge.is_hopeless(number) == expected, (number, reports)
            if expected:
                self.end(which, PRUNED)
            return
        self.end(which, COMPLETE if what == "end" else FAILED)

    def end(self, which: int, state: int) -> None:
        number, trial, reports = self.running.pop(which)
        objective = reports[-1][1] if reports else math.nan
        if state == PRUNED:
            self.pruned += 1
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif state == COMPLETE and objective == objective:
            self.study.tell(trial, objective)
        else:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self.judge.end(number, state, objective)
        self.known.append(known(number, state, reports, self.clock + 0.5))
        self.begin()
        assert trial_states(self.study) == trial_states(self.judge._study)


def known(number: int, state: int, reports: list[tuple[int, float, float]], ended_at: float = math.inf):
    steps, values, times = [[report[place] for report in reports] for place in range(3)]
    return KnownTrial(number, state, 1, values[-1] if values else math.nan, steps, values, times, ended_at)


def trial_states(study: optuna.Study) -> list[tuple[int, str, list[tuple[int, str]]]]:
    return [
        (trial.number, trial.state.name, [(step, repr(v)) for step, v in trial.intermediate_values.items()])
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(choice=st.sampled_from(CHOICES), direction=st.sampled_from(list(Direction)), turns=TURNS)
def test_the_decisions_are_those_of_optuna_for_the_same_reports_in_the_same_order(choice, direction, turns):
    beside = Beside(choice, direction)
    for which, value, what in turns:
        beside.turn(which, value, what)


@pytest.mark.filterwarnings("ignore")
def test_the_histories_above_hold_pruned_trials_for_every_pruner():
    for choice in CHOICES:
        beside = Beside(choice, Direction.MINIMIZE)
        for turn in range(160):
            slot = turn % 4
            number, _, reports = beside.running[slot]
            what = "end" if len(reports) == 6 else "report"
            beside.turn(slot, 0.1 * ((7 * number) % 23) + 0.01 * len(reports), what)
        assert beside.pruned > 3, choice


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(choice=st.sampled_from(CHOICES), direction=st.sampled_from(list(Direction)), turns=TURNS)
def test_a_judge_that_is_rebuilt_decides_as_the_first_one_would_have(choice, direction, turns):
    beside = Beside(choice, direction)
    for which, value, what in turns:
        # What was decided by the reports of an attempt that ran again cannot be known: they are gone.
        if what != "again":
            beside.turn(which, value, what)
    running = [known(number, int(TrialState.RUNNING), reports) for number, _, reports in beside.running]
    other = Judge(beside.choice, direction, seed=7)
    assert other.add(sorted([*beside.known, *running], key=lambda trial: trial.number)) == []
    beside.judge = other
    for which, value, what in turns:
        beside.turn(which, value, what)


def test_what_was_not_judged_before_is_judged_by_what_had_ended_by_then():
    past = [
        known(0, COMPLETE, [(0, 1.0, 1.0), (1, 1.0, 2.0)], 5.0),
        # At its first report trial 0 had not ended; at its third there is nothing to compare it with.
        known(1, int(TrialState.RUNNING), [(0, 9.0, 4.0), (2, 9.0, 8.0)]),
        known(2, int(TrialState.RUNNING), [(0, 9.0, 6.0), (2, 9.0, 8.0)]),
    ]
    judge = Judge(PrunerChoice("MedianPruner", {"n_startup_trials": 1}), Direction.MINIMIZE, seed=0)
    assert judge.add(past) == [2]


# ------------------------------------------------------------------------------------- the process


def reports(number: int, block: int, *values: float, attempt: int = 1, first: int = 0):
    return [number, attempt, block, 3, list(range(first, first + len(values))), list(values)]


def bench_of(folder: Path, prune: str = 'prune = { pruner = "threshold", upper = 5.0 }') -> Bench:
    return Bench(spec_of(folder, prune))


def test_a_hopeless_trial_is_named_with_its_attempt_and_the_rank_that_reported_it(folder):
    bench = bench_of(folder)
    assert bench.judge([reports(0, 0, 1.0, 2.0), reports(1, 0, 9.0), reports(2, 0, 1.0)]) == [[1, 1, 3]]
    assert bench.judge([reports(1, 1, 1.0, first=1), reports(2, 1, math.nan, first=1)]) == [
        [1, 1, 3],
        [2, 1, 3],
    ]
    assert bench.judge([[1, PRUNED, 1.0], reports(0, 1, 6.0, first=2), [0, COMPLETE, 6.0]]) == []


def test_reports_that_arrive_twice_late_or_of_an_old_attempt_do_not_count(folder):
    bench = bench_of(folder)
    assert bench.judge([reports(0, 0, 1.0)]) == []
    assert bench.judge([reports(0, 0, 9.0, first=1)]) == [], "the same block again"
    assert bench.judge([reports(0, 2, 1.0, first=2), reports(0, 2, 9.0, first=3)]) == []
    assert bench.judge([reports(0, 0, 1.0, attempt=2)]) == []
    assert bench.judge([reports(0, 1, 9.0, attempt=1, first=4)]) == [], "attempt 1 is over"
    assert bench.judge([reports(0, 1, 9.0, attempt=2, first=1)]) == [[0, 2, 3]]
    assert bench.judge([reports(5, 0, -1.0), [5, COMPLETE, -1.0], reports(5, 1, 9.0)]) == []


def test_a_new_attempt_forgets_the_reports_of_the_one_before(folder):
    bench = bench_of(folder, 'prune = { pruner = "median", n_startup_trials = 1 }')
    bench.judge([reports(0, 0, 1.0, 1.0), [0, COMPLETE, 1.0]])
    # The best report of an attempt counts, and 0.5 is better than the median.
    assert bench.judge([reports(1, 0, 0.5)]) == []
    assert bench.judge([reports(1, 1, 2.0, first=1)]) == []
    assert bench.judge([reports(1, 0, 2.0, attempt=2)]) == [[1, 2, 3]]


def test_more_reports_than_can_be_judged_have_the_last_of_each_block_judged(folder):
    bench = bench_of(folder)
    few, many = [9.0, 1.0], [9.0] + [1.0] * EACH
    assert bench.judge([reports(0, 0, *few)]) == [[0, 1, 3]]
    assert bench.judge([reports(1, 0, *many)]) == []
    assert bench.judge([reports(2, 0, *reversed(many))]) == [[2, 1, 3]]


# ------------------------------------------------------------------------------------- the scheduler


def scheduler_of(trials: int, widths: list[int] | None = None) -> Scheduler:
    model = DurationModel({"x": list(range(trials))}, None, trials)
    return Scheduler([0] * trials, [0] * trials, model, retries=1, grace_s=1.0, widths=widths)


def ended(
    slot: Slot, number: int, state: int, *, attempt: int = 1, message: str = "", at: int = -1, **metrics
):
    causes = [1 if state == FAILED else 0] if message else []
    columns = {name: [value] for name, value in metrics.items()}
    return EndedBlock(
        slot.rank, slot.place, [number], [attempt], [state], [0.0], [1.0], columns, causes,
        [message] if message else [], pruned_at=[at] if state == PRUNED else [],
    )  # fmt: skip


def test_a_hopeless_trial_is_pruned_in_the_slot_that_runs_it():
    scheduler = scheduler_of(3)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    [number] = scheduler.held[Slot(2, 0)]
    assert scheduler.handle(PruneAdvised(number, 1, 2), 1.0) == [Prune(Slot(2, 0), number, 1)]
    block = ended(Slot(2, 0), number, PRUNED, at=4, loss=3.0)
    decisions = scheduler.handle(TrialsEnded(block), 1.1)
    assert decisions[0] == Commit(block)
    assert scheduler.count(TrialState.PRUNED) == 1
    scheduler.check()


@pytest.mark.parametrize(
    "advice", [PruneAdvised(0, 1, 1), PruneAdvised(0, 3, 1), PruneAdvised(0, 2, 2), PruneAdvised(1, 1, 1)]
)
def test_advice_about_another_attempt_or_slot_is_dropped(advice):
    scheduler = scheduler_of(1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(TrialsReclaimed(Slot(1, 0), (0,), (1,), AttemptEnd.RECLAIMED), 0.5)
    assert scheduler.held[Slot(1, 0)] == {0: 2}
    assert scheduler.handle(advice, 1.0) == []
    assert scheduler.handle(PruneAdvised(0, 2, 1), 1.1) == [Prune(Slot(1, 0), 0, 2)]
    scheduler.handle(TrialsEnded(ended(Slot(1, 0), 0, COMPLETE, attempt=2, loss=1.0)), 1.2)
    assert scheduler.handle(PruneAdvised(0, 2, 1), 1.3) == []
    scheduler.check()


def team_of_two() -> Scheduler:
    scheduler = scheduler_of(1, widths=[2])
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    assert len(scheduler.team(0)) == 2
    return scheduler


def committed(decisions) -> EndedBlock:
    [found] = [decision.block for decision in decisions if isinstance(decision, Commit)]
    return found


def test_all_ranks_of_a_hopeless_trial_are_asked_and_it_is_pruned_once():
    scheduler = team_of_two()
    lead, other = scheduler.team(0)
    assert scheduler.handle(PruneAdvised(0, 2, lead.rank), 0.9) == []
    assert scheduler.handle(PruneAdvised(0, 1, lead.rank), 1.0) == [Prune(lead, 0, 1), Prune(other, 0, 1)]
    assert scheduler.handle(TrialsEnded(ended(other, 0, PRUNED, at=6)), 1.1) == []
    assert scheduler.handle(PruneAdvised(0, 1, lead.rank), 1.2) == [Prune(lead, 0, 1)]
    block = committed(scheduler.handle(TrialsEnded(ended(lead, 0, PRUNED, at=7, loss=2.0)), 1.3))
    assert (block.states, block.metrics, block.pruned_at) == ([PRUNED], {"loss": [2.0]}, [7])
    assert scheduler.count(TrialState.PRUNED) == 1
    scheduler.check()


def test_a_rank_that_fails_because_another_one_has_returned_does_not_fail_a_pruned_trial():
    scheduler = team_of_two()
    lead, other = scheduler.team(0)
    scheduler.handle(PruneAdvised(0, 1, lead.rank), 1.0)
    asked = scheduler.handle(TrialsEnded(ended(lead, 0, FAILED, message="connection reset", loss=2.0)), 1.1)
    assert asked == [Abandon(other, 0, 1, RETURN_S)], "it was asked to return, and may take its time"
    block = committed(scheduler.handle(TrialsEnded(ended(other, 0, PRUNED, at=5)), 1.2))
    assert (block.states, block.worker, block.metrics) == ([PRUNED], lead.rank, {"loss": [2.0]})


def test_the_ranks_of_a_trial_that_rank_0_ends_by_itself_are_not_waited_for():
    scheduler = team_of_two()
    lead, other = scheduler.team(0)
    diverged = ended(lead, 0, PRUNED, message="diverged", at=3, loss=math.nan)
    assert scheduler.handle(TrialsEnded(diverged), 1.0) == [Abandon(other, 0, 1, LINGER_S)]
    end = TrialsReclaimed(other, (0,), (1,), AttemptEnd.RECLAIMED)
    assert committed(scheduler.handle(end, 1.1)).states == [PRUNED]


# ------------------------------------------------------------------------------------- page, trial, records


@pytest.fixture
def page():
    file = page_file()
    made = Page(file)
    os.close(file)
    yield made
    made.close()


def test_the_page_prunes_the_trial_with_this_index_and_no_other(page):
    assert not page.is_pruned(0)
    page.prune(3)
    assert [page.is_pruned(index) for index in range(5)] == [False, False, False, True, False]
    # A request for an earlier trial is late: that trial has ended.
    page.prune(2)
    assert page.is_pruned(3)
    assert not page.stop_asked


def trial_of(folder: Path, page: Page, index: int = 0, *, prunes: bool = True, ends: bool = False, sent=None):
    return Trial(
        4, {}, sweep_seed=0, device="cpu", cores=1, folder=folder,
        send=(sent.append if sent is not None else lambda curves: None),
        stop_asked=lambda: page.stop_asked, objectives=["loss"],
        is_pruned=(lambda: page.is_pruned(index)) if prunes else None, ends_diverged=ends,
    )  # fmt: skip


def test_a_trial_learns_that_it_is_hopeless_and_that_is_no_interruption(folder, page):
    trial, next_trial = trial_of(folder, page), trial_of(folder, page, 1)
    assert not trial.should_stop()
    page.prune(0)
    page.ask_to_stop()
    assert trial.should_stop()
    assert trial.is_pruned
    assert next_trial.should_stop()
    assert not next_trial.is_pruned


def test_reports_reach_the_pruner_sooner_than_those_who_watch(folder, page):
    for prunes in (True, False):
        sent: list[dict[str, Curve]] = []
        trial = trial_of(folder, page, prunes=prunes, sent=sent)
        trial.report(3, loss=0.5)
        assert len(sent) == int(prunes)
        trial.flush()
        assert trial.last_step == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_report_of_an_objective_that_is_not_finite_ends_the_trial_where_that_is_asked_for(
    folder, page, value
):
    ignored = trial_of(folder, page)
    ignored.report(0, loss=value)
    trial = trial_of(folder, page, ends=True)
    trial.report(0, loss=1.0, accuracy=value)
    with pytest.raises(DivergedError, match=f"loss is {value} at step 5"):
        trial.report(5, loss=value)
    assert not issubclass(DivergedError, Exception), "the workload's own handlers must let it pass"
    trial.flush()
    assert trial.last_step == 5
    assert repr(trial.last_reported["loss"]) == repr(value), "the report is part of the curve"


def test_a_block_of_ends_says_at_which_step_each_trial_was_pruned():
    gathered = Gathered(1, 0)
    gathered.add_complete(0, 1, 0.0, 1.0, {"loss": 1.0}, "")
    assert gathered.block().pruned_at == []
    gathered.add_pruned(1, 1, 1.0, 1.0, {"loss": 2.0}, "diverged: loss is nan", 12)
    gathered.add_complete(2, 1, 2.0, 1.0, {"loss": 3.0}, "")
    block = decode(encode(gathered.block()))
    assert isinstance(block, EndedBlock)
    assert block.pruned_at == [-1, 12, -1]
    assert block.states == [COMPLETE, PRUNED, COMPLETE]
    assert block.messages == ["", "diverged: loss is nan", ""]


def test_a_block_of_ends_has_its_metrics_in_the_order_in_which_trials_return_them():
    gathered = Gathered(1, 0)
    # So many that the order of a set is another one.
    names = [f"metric_{index}" for index in range(40)]
    gathered.add_complete(0, 1, 0.0, 1.0, dict.fromkeys(names[:20], 1.0), "")
    gathered.add_complete(1, 1, 1.0, 1.0, dict.fromkeys(names, 2.0), "")
    assert list(gathered.block().metrics) == names


def test_a_block_of_reports_is_what_the_process_is_sent():
    curve = Curve(array("q", [1]), array("d", [0.5]), array("d", [0.1]))
    assert decode(encode(ReportBlock(2, 7, 1, {"loss": curve}, 4))) == ReportBlock(
        2, 7, 1, {"loss": curve}, 4
    )


# ------------------------------------------------------------------------------------- searches that learn


@pytest.mark.parametrize("direction", list(Direction))
def test_a_sampler_is_told_pruned_trials_as_optuna_s_own_study_would_tell_it(direction):
    """The trials that TPE finds good, from pruned and complete ones, are those of Optuna."""
    space = spec_from_flags(
        "m:f", ["x=0.0:1.0"], options={"search": "random", "trials": 9}, folder=Path()
    ).space
    configurations = [{"x": number / 40} for number in range(40)]
    ends = [End(n, [None if n == 7 else (n % 9) / 10], -1 if n % 3 == 0 else n % 4) for n in range(40)]
    ours = Proposer(space, SAMPLERS["tpe"], 3, [direction], Past(configurations, {}, ends))
    later = Proposer(space, SAMPLERS["tpe"], 3, [direction], Past(configurations, {}, []))
    later.tell(ends)
    study = optuna.create_study(direction=direction.value)
    distribution = optuna.distributions.FloatDistribution(0.0, 1.0)
    for end in ends:
        trial = study.ask({"x": distribution})
        if end.pruned_at >= 0:
            trial.report(end.last, end.pruned_at)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif end.values is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, end.values)
    assert trial_states(ours._study) == trial_states(later._study) == trial_states(study)
    values = [[trial.value for trial in one._study.get_trials(deepcopy=False)] for one in (ours, later)]
    assert values == [[trial.value for trial in study.trials]] * 2
    assert ours.ask(40, 2) == later.ask(40, 2)


def test_of_several_objectives_a_trial_that_a_divergence_ended_counts_as_failed():
    space = spec_from_flags(
        "m:f", ["x=0.0:1.0"], options={"search": "random", "trials": 9}, folder=Path()
    ).space
    configurations = [{"x": number / 20} for number in range(20)]
    # What such a trial reported last may be finite, if it caught the exception.
    ends = [End(n, [0.5, math.nan if n == 4 else n / 10], 3 if n % 4 == 0 else -1) for n in range(20)]
    both = [Direction.MINIMIZE, Direction.MAXIMIZE]
    ours = Proposer(space, SAMPLERS["tpe"], 3, both, Past(configurations, {}, ends))
    later = Proposer(space, SAMPLERS["tpe"], 3, both, Past(configurations, {}, []))
    later.tell(ends)
    for one in (ours, later):
        failed = [trial.number for trial in one._study.get_trials(deepcopy=False) if trial.values is None]
        assert failed == [0, 4, 8, 12, 16]
    assert ours.ask(20, 2) == later.ask(20, 2)


def test_a_sample_of_many_trials_holds_the_best_complete_ones_before_the_longest_pruned_ones(monkeypatch):
    monkeypatch.setattr(thinning, "BEST", 3)
    monkeypatch.setattr(thinning, "SHOWN", 3)
    storage = thinning.ThinnedStorage([1.0])
    study = optuna.create_study(storage=storage)
    known = [(5.0, -1), (0.1, 1), (0.2, 9), (0.3, 9), (4.0, -1), (math.nan, 9)]
    for number, (value, step) in enumerate(known):
        state = optuna.trial.TrialState.COMPLETE if step < 0 else optuna.trial.TrialState.PRUNED
        reports = {step: value} if step >= 0 else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=None if value != value else value, intermediate_values=reports
            )
        )
        storage.note(number, End(number, [value], step))
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    assert [trial.number for trial in study.get_trials(deepcopy=False, states=states)] == [0, 2, 4]


# ------------------------------------------------------------------------------------- the client


class FakeServer:
    """Keeps the other ends of the lines of side processes."""

    def __init__(self) -> None:
        self.lines: list[socket.socket] = []

    def spawn(self, entry: str, files: list[int], arguments: dict) -> int:
        assert entry == "mpisweep.master.judge:serve_pruner"
        self.lines.append(socket.socket(fileno=os.dup(files[0])))
        return len(self.lines)

    def kill(self, child: int) -> None:
        pass

    def asked(self) -> dict:
        """The request that the last process has received."""
        text = self.lines[-1].recv(1 << 20)
        assert text.endswith(b"\n")
        return json.loads(text)

    def answer(self, **answer: object) -> None:
        self.lines[-1].sendall(json.dumps(answer).encode() + b"\n")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    for line in made.lines:
        line.close()


class FakeJournal:
    written = 0


def block_of(number: int, block: int, value: float) -> bytes:
    curve = Curve(array("q", [block]), array("d", [value]), array("d", [0.1]))
    return encode(ReportBlock(2, number, 1, {"loss": curve}, block))


def test_another_process_reads_the_journal_once_all_is_written_and_judges_what_came_meanwhile(folder, server):
    journal = FakeJournal()
    client = PruneClient(server, spec_of(folder), Path("s.h5"), journal, is_new=True)
    client.report(block_of(0, 0, 0.5), 1)
    assert server.asked() == {"ask": "judge", "events": [[0, 1, 0, 2, [0], [0.5]]]}
    client.report(block_of(1, 0, 0.5), 2)
    server.lines[-1].close()
    assert list(client.hear()) == []
    assert len(server.lines) == 2
    # The journal does not have the second block yet.
    client.report(block_of(1, 1, 0.75), 3)
    client.keep_time(0.0)
    with pytest.raises(BlockingIOError):
        server.lines[-1].recv(1, socket.MSG_DONTWAIT)
    journal.written = 2
    client.keep_time(0.0)
    assert server.asked() == {"ask": "load"}
    server.answer(hopeless=[[1, 1, 2]])
    assert list(client.hear()) == [PruneAdvised(1, 1, 2)]
    assert server.asked() == {"ask": "judge", "events": [[1, 1, 1, 2, [1], [0.75]]]}
    client.tell(ended(Slot(2, 0), 1, PRUNED, at=1, loss=0.75), 4)
    server.answer(hopeless=[])
    assert list(client.hear()) == []
    assert server.asked() == {"ask": "judge", "events": [[1, PRUNED, 0.75]]}
    client.close()


def test_a_pruner_that_fails_or_keeps_dying_prunes_nothing_more(folder, server, caplog):
    client = PruneClient(server, spec_of(folder), Path("s.h5"), FakeJournal(), is_new=False)
    for _ in range(4):
        assert server.asked() == {"ask": "load"}
        server.lines[-1].close()
        assert list(client.hear()) == []
    assert client.has_failed
    assert "died 4 times in a row" in caplog.text
    client.report(block_of(0, 0, 0.5), 1)
    client.tell(ended(Slot(2, 0), 0, COMPLETE, loss=0.5), 2)
    other = PruneClient(server, spec_of(folder), Path("s.h5"), FakeJournal(), is_new=False)
    server.answer(error="ValueError: no")
    assert list(other.hear()) == []
    assert other.has_failed
    assert "no further trial is pruned: ValueError: no" in caplog.text
