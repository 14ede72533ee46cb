"""Pareto front and hypervolume against brute force and against Optuna's."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from mpisweep.pareto import Hypervolume, fronts, hypervolume, is_on_front


@st.composite
def points(draw, at_least: int = 1, at_most: int = 4):
    """Points with many equal coordinates, and equal points."""
    count = draw(st.integers(at_least, at_most))
    row = st.tuples(*[st.sampled_from([-2.5, 0.0, 1.0, 1.5, 4.0, 7.0])] * count)
    return np.array(draw(st.lists(row, max_size=24)), dtype=float).reshape(-1, count)


def dominates(one, other) -> bool:
    return bool((one <= other).all() and (one < other).any())


@given(points())
def test_the_front_is_that_of_brute_force_and_equal_points_share_their_fate(costs):
    expected = [not any(dominates(other, one) for other in costs) for one in costs]
    assert is_on_front(costs).tolist() == expected


@given(points())
def test_each_front_is_the_front_of_what_is_left_and_together_they_are_all(costs):
    left = set(range(len(costs)))
    for front in fronts(costs):
        others = sorted(left)
        assert front.tolist() == [others[place] for place in np.flatnonzero(is_on_front(costs[others]))]
        left -= set(front.tolist())
    assert not left


@settings(deadline=None)
@given(points(at_least=2, at_most=4))
def test_the_hypervolume_is_optuna_s_however_the_points_come(costs):
    reference = [4.0] * costs.shape[1]
    inside = costs[(costs < 4.0).all(axis=1)]
    expected = compute_hypervolume(inside, np.array(reference)) if len(inside) else 0.0
    assert hypervolume(costs, reference) == pytest.approx(expected)
    grown = Hypervolume(reference)
    for number, point in enumerate(costs.tolist()):
        grown.add(point)
        assert grown.volume == pytest.approx(hypervolume(costs[: number + 1], reference))


def test_five_objectives_are_exact_too():
    costs = np.random.default_rng(3).random((25, 5))
    assert hypervolume(costs, [1.0] * 5) == pytest.approx(compute_hypervolume(costs, np.ones(5)))


def test_a_point_on_the_border_of_the_reference_adds_nothing():
    grown = Hypervolume([2.0, 2.0])
    grown.add([2.0, 0.0])
    grown.add([0.0, 5.0])
    assert grown.volume == 0.0
    grown.add([1.0, 0.0])
    assert grown.volume == 2.0


def test_100_000_points_on_the_front_take_seconds():
    angle = np.random.default_rng(0).permutation(np.linspace(0.0, np.pi / 2, 100_000))
    costs = 1.0 - np.stack([np.sin(angle), np.cos(angle)], axis=1)
    began = time.process_time()
    assert is_on_front(costs).all()
    grown = Hypervolume([1.0, 1.0])
    for point in costs.tolist():
        grown.add(point)
    # A quadratic method takes minutes.
    assert time.process_time() - began < 20
    assert grown.volume == pytest.approx(np.pi / 4, abs=1e-4)
