from __future__ import annotations

import tracemalloc
from pathlib import Path

from mpisweep.records import TrialState
from mpisweep.search import make_sampler
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.spec import spec_from_flags


def numbered(parameters, known=None, **options):
    spec = spec_from_flags("m:f", parameters, folder=Path(), **options)
    return number_trials(spec, make_sampler(spec), known)


def known_of(trials, state=TrialState.COMPLETE) -> Known:
    return Known(trials.parameters, [int(state)] * trials.count, [1] * trials.count, trials.baseline)


def test_trials_are_numbered_in_the_order_of_the_space_and_the_baseline_comes_last():
    trials = numbered(["x=1:3", "mode=fast"], baseline=["x=9"])
    assert trials.parameters == {"x": [1, 2, 3, 9], "mode": ["fast"] * 4}
    assert trials.baseline == 3


def test_a_baseline_inside_the_space_is_not_run_twice():
    trials = numbered(["x=1:3"], baseline=["x=2"])
    assert trials.count == 3
    assert trials.baseline == 1


def test_a_baseline_may_differ_in_fixed_values():
    trials = numbered(["x=1:2", "mode=fast"], baseline=["x=1", "mode=slow"])
    assert trials.parameters == {"x": [1, 2, 1], "mode": ["fast", "fast", "slow"]}


def test_a_grown_space_gives_its_new_points_new_numbers():
    old = numbered(["x=2:3", "y=a,b"], baseline=["x=7", "y=a"])
    new = numbered(["x=1:3", "y=a,b"], known_of(old), baseline=["x=7", "y=a"])
    rows = list(zip(*new.parameters.values(), strict=True))
    assert rows == [(2, "a"), (2, "b"), (3, "a"), (3, "b"), (7, "a"), (1, "a"), (1, "b")]
    assert new.first_new == 5
    assert new.baseline == 4
    assert new.states == [TrialState.COMPLETE] * 5 + [TrialState.WAITING] * 2


def test_more_trials_of_a_random_search_continue_it():
    few = {"options": {"search": "random", "trials": 5, "seed": 3}}
    more = {"options": {"search": "random", "trials": 9, "seed": 3}}
    old = numbered(["x=0.0:1.0"], **few)
    new = numbered(["x=0.0:1.0"], known_of(old), **more)
    assert new.count == 9
    assert new.first_new == 5
    assert new.parameters["x"][:5] == old.parameters["x"]


def test_a_complete_sweep_gets_no_new_trials():
    old = numbered(["x=1:3"])
    assert numbered(["x=1:3"], known_of(old)).first_new == 3


def test_one_trial_without_parameters_is_a_sweep():
    old = numbered([])
    assert old.count == 1
    assert numbered([], known_of(old)).count == 1


def test_values_that_all_trials_of_a_block_share_are_sent_once():
    trials = numbered(["x=1:3", "mode=fast"])
    assert trials.columns([0, 2]) == {"x": [1, 3], "mode": "fast"}


class NotWalked(list):
    def __iter__(self):
        raise AssertionError("a proposal looks at every trial")


def test_a_proposal_costs_the_same_however_many_trials_there_are():
    count = 100_000
    trials = Trials(
        {"x": [1] * count}, [0] * count, [0] * count, [*range(count)], [0] * count, None, 0, is_open=True
    )
    trials.configuration_of = NotWalked(trials.configuration_of)
    # Python makes room for more entries in each list.
    trials.grow([{"x": 2}])
    tracemalloc.start()
    trials.grow([{"x": 3}, {"x": 4}], repeats=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count
    assert (trials.configurations, trials.configuration_of[-4:]) == (count + 3, [100_001, 100_002] * 2)
    trials.configuration_of = trials.configuration_of[:]
    trials.repeat([5], [1])
    assert trials.configurations == count + 3
