from __future__ import annotations

import itertools
from pathlib import Path

from mpisweep.search import make_sampler
from mpisweep.spec import spec_from_flags


class SamplerContract:
    """The contract of every sampler; the tests of a new one inherit this class and set its name."""

    search: str

    def make(self, trials: int = 40, seed: int = 0, parameters=("x=1:700", "y=1e-4:1e-1:log")):
        options = {"search": self.search, "trials": trials, "seed": seed}
        return make_sampler(spec_from_flags("m:f", parameters, options=options, folder=Path()))

    def test_it_yields_the_requested_number_of_configurations(self):
        assert len(list(self.make(40))) == 40

    def test_no_configuration_comes_twice(self):
        found = [tuple(c.values()) for c in self.make(60, parameters=("x=1:8", "y=1:8"))]
        assert len(found) == len(set(found)) == 60

    def test_the_seed_determines_the_sequence(self):
        assert list(self.make(seed=1)) == list(self.make(seed=1))
        assert list(self.make(seed=1)) != list(self.make(seed=2))

    def test_more_trials_continue_the_sequence(self):
        assert list(self.make(90))[:40] == list(self.make(40))

    def test_a_small_space_is_exhausted(self):
        assert len(self.make(100, parameters=("x=1:3", "y=a,b"))) == 6

    def test_a_range_with_fewer_numbers_than_trials_is_exhausted_too(self):
        assert len(self.make(9, parameters=("x=1.0:1.0000000000000002",))) <= 2

    def test_configurations_belong_to_the_space(self):
        spec = spec_from_flags(
            "m:f", ["x=1:9", "y=a,b"], options={"search": self.search, "trials": 9}, folder=Path()
        )
        assert all(spec.space.contains(c) for c in make_sampler(spec))


class TestRandom(SamplerContract):
    search = "random"


class TestSobol(SamplerContract):
    search = "sobol"

    def test_it_spreads_better_than_chance(self):
        xs = sorted(c["y"] for c in self.make(64, parameters=("y=0.0:1.0",)))
        assert max(b - a for a, b in itertools.pairwise(xs)) < 0.05


def test_a_grid_is_every_point_in_order():
    sampler = make_sampler(spec_from_flags("m:f", ["x=1:3", "y=a,b"], folder=Path()))
    assert [tuple(sampler[i].values()) for i in range(len(sampler))] == [
        (1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b"),
    ]  # fmt: skip


def test_a_grid_without_parameters_is_one_trial():
    sampler = make_sampler(spec_from_flags("m:f", [], folder=Path()))
    assert [sampler[i] for i in range(len(sampler))] == [{}]
