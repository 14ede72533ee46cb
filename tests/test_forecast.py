"""Predicted duration of a sweep: computed by hand in simple cases, otherwise within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.forecast import Forecast, forecast, forecast_lines


def unmeasured(count: int) -> DurationModel:
    return DurationModel({"x": list(range(count))}, None, count)


def measured(durations: list[float]) -> DurationModel:
    model = DurationModel({"x": [str(number) for number in range(len(durations))]}, None, len(durations))
    model.observe(list(range(len(durations))), durations)
    model.fit()
    return model


def test_without_measurements_the_timeout_is_the_bound():
    found = forecast(unmeasured(10), range(10), workers=2, timeout_s=60.0, walltime_s=150.0)
    assert found == Forecast(10, 2, 600.0, 300.0, fitting=4, is_bound=True)
    assert forecast_lines(found, 150.0) == [
        "up to 10 min of trials; with 2 workers up to 5 min",
        "4 of 10 trials fit into 2 min, if every trial takes its timeout",
    ]


def test_without_measurements_and_without_a_timeout_nothing_is_known():
    assert forecast(unmeasured(10), range(10), workers=2, timeout_s=None, walltime_s=None) is None


def test_what_has_ended_takes_no_more_time():
    found = forecast(unmeasured(10), [], workers=2, timeout_s=60.0, walltime_s=30.0)
    assert found == Forecast(0, 2, 0.0, 0.0, fitting=0, is_bound=False)


def test_measured_trials_predict_the_durations_of_the_others():
    model = measured([10.0] * 8)
    found = forecast(model, range(4), workers=4, timeout_s=None, walltime_s=None)
    assert found is not None
    assert found.wall_time_s == pytest.approx(10.0, rel=0.05)
    assert found.trial_time_s == pytest.approx(40.0, rel=0.05)
    assert not found.is_bound
    assert forecast_lines(found, None) == ["about 40 s of trials; with 4 workers about 10 s"]
    # The expected duration just fits; its upper bound does not.
    tight = forecast(model, range(4), workers=4, timeout_s=None, walltime_s=10.1)
    assert tight is not None
    assert tight.fitting == 0


@given(
    durations=st.lists(st.floats(0.1, 100.0), min_size=3, max_size=12),
    workers=st.integers(1, 5), walltime_s=st.floats(0.01, 500.0),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_schedule_is_shorter_than_its_work_or_longer_than_twice_the_best(durations, workers, walltime_s):
    model = measured(durations)
    numbers = range(len(durations))
    expected = [model.expected_s(number) or 0.0 for number in numbers]
    found = forecast(model, numbers, workers=workers, timeout_s=None, walltime_s=walltime_s)
    assert found is not None
    best = max(sum(expected) / workers, max(expected))
    assert best * (1 - 1e-9) <= found.wall_time_s <= 2 * best
    everything = forecast(model, numbers, workers=workers, timeout_s=None, walltime_s=None)
    assert everything is not None
    assert 0 <= found.fitting <= everything.fitting == len(durations)


def test_trials_of_several_ranks_take_as_many_workers_at_once():
    model = measured([10.0] * 6)
    found = forecast(model, range(6), workers=4, timeout_s=None, walltime_s=None, widths=[4, 4, 2, 2, 1, 1])
    assert found is not None
    assert found.wall_time_s == pytest.approx(40.0, rel=0.05)
    assert found.trial_time_s == pytest.approx(140.0, rel=0.05)
    assert (
        forecast(model, range(6), workers=3, timeout_s=None, walltime_s=None, widths=[4, 1, 1, 1, 1, 1])
        is None
    )
