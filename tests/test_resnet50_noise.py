"""The gradient noise scale: accurate within its stated error, no effect on the training."""

from __future__ import annotations

import ast
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_resnet50 import captured, small, trial  # noqa: F401  (fixtures)
from torch import nn
from torch.nn import functional
from waiting import PATIENCE_S

from mpisweep.spec.catalogue import BUILTIN
from mpisweep.workloads import ranks
from mpisweep.workloads.resnet50 import run
from mpisweep.workloads.resnet50.noise import GradientNoise, NoiseMeter, noise_scale
from mpisweep.workloads.resnet50.recipe import Precision

CPU = torch.device("cpu")
IMAGES, CLASSES = 64, 4


def options(**given) -> dict:
    return BUILTIN["resnet50"].defaults | {"noise_scale": 1, "image_size": 33} | given


class Population:
    """Labelled images and a network without batch normalisation, whose noise scale is exact."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.images = torch.randn(IMAGES, 3, 2, 2)
        # The images explain the labels in part, so that there is a gradient in addition to the noise.
        self.labels = (self.images.flatten(1)[:, :CLASSES] + torch.randn(IMAGES, CLASSES)).argmax(1)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))

    @property
    def truth(self) -> tuple[float, float]:
        """The exact S and |G|^2 of one image drawn at random."""
        parameters = list(self.model.parameters())
        gradients = torch.stack([
            torch.cat([g.flatten() for g in torch.autograd.grad(
                functional.cross_entropy(self.model(image[None]), label[None]), parameters
            )])
            for image, label in zip(self.images, self.labels, strict=True)
        ]).double()  # fmt: skip
        mean = gradients.mean(0)
        return ((gradients - mean) ** 2).sum(1).mean().item(), (mean @ mean).item()

    def measured(self, batch_size: int, count: int, seed: int = 0, **given) -> list[GradientNoise]:
        """Measure batches drawn with replacement."""
        asked = options(batch_size=batch_size, **given)
        alone = ranks.Ranks(trial(), CPU, batch_size)
        meter = NoiseMeter(asked, self.model, Precision(asked, CPU), alone)
        rows = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(count):
            drawn = torch.randint(IMAGES, (batch_size,), generator=rows)
            found.append(meter.measure(self.images[drawn], self.labels[drawn]))
        return found


def standard_errors_off(values: list[float], truth: float) -> float:
    """Return the distance of the mean of the values from the truth, in standard errors."""
    return abs(np.mean(values) - truth) / (np.std(values, ddof=1) / math.sqrt(len(values)))


@pytest.mark.parametrize(
    "given", [{}, {"accumulate": 4}, {"precision": "fp16"}], ids=["plain", "parts", "fp16"]
)
@pytest.mark.parametrize("batch_size", [2, 5, 16])
def test_variance_and_square_are_unbiased_at_any_batch_size(batch_size: int, given: dict):
    population = Population()
    variance, square = population.truth
    found = population.measured(batch_size, 600, **given)
    assert standard_errors_off([each.variance for each in found], variance) < 3.5
    assert standard_errors_off([each.square for each in found], square) < 3.5


def test_equal_halves_give_the_estimators_of_the_paper():
    population = Population()
    [found] = population.measured(8, 1, seed=5)
    drawn = torch.randint(IMAGES, (8,), generator=torch.Generator().manual_seed(5))
    images, labels = population.images[drawn], population.labels[drawn]
    parameters = list(population.model.parameters())

    def squared(part: slice) -> float:
        loss = functional.cross_entropy(population.model(images[part]), labels[part])
        return sum((g**2).sum().item() for g in torch.autograd.grad(loss, parameters))

    small_square = (squared(slice(0, 4)) + squared(slice(4, 8))) / 2
    big_square = squared(slice(0, 8))
    # McCandlish et al. 2018, appendix A.1, with B_small = 4 and B_big = 8.
    assert found.square == pytest.approx((8 * big_square - 4 * small_square) / (8 - 4), rel=1e-4)
    assert found.variance == pytest.approx((small_square - big_square) / (1 / 4 - 1 / 8), rel=1e-4)


def test_the_stated_error_covers_the_true_noise_scale_in_95_percent_of_trials():
    """95% of the intervals of two standard errors, of 60 measurements each, contain the truth."""
    population = Population()
    variance, square = population.truth
    held, scales = 0, []
    for number in range(200):
        scale, error = noise_scale(population.measured(16, 60, seed=number))
        held += abs(scale - variance / square) < 2 * error
        scales.append(scale)
    assert 0.89 <= held / 200 <= 0.99
    assert np.mean(scales) == pytest.approx(variance / square, rel=0.05)


def test_too_few_measurements_have_no_scale_or_no_error():
    assert all(map(math.isnan, noise_scale([])))
    assert all(map(math.isnan, noise_scale([GradientNoise(1.0, -0.1)])))
    scale, error = noise_scale([GradientNoise(6.0, 2.0)])
    assert scale == 3.0
    assert math.isnan(error)


def test_the_measurement_leaves_model_and_random_state_unchanged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 4))
    asked = options(batch_size=6)
    meter = NoiseMeter(asked, model, Precision(asked, CPU), ranks.Ranks(trial(), CPU, 6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    noise = meter.measure(torch.randn(6, 3, 2, 2, generator=torch.Generator()), torch.arange(6) % 4)
    assert noise.variance > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())


# ------------------------------------------------------------------------------------- in a trial


@pytest.mark.usefixtures("small", "captured")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"step": "graph", "optimizer": "adamw"},
        {"accumulate": 2, "clip_norm": 0.5},
        {"precision": "fp16"},
        {"val_every": 2, "augment": True},
    ],
    ids=["eager", "graph", "accumulate", "fp16", "validation"],
)
def test_the_measurement_leaves_the_curve_unchanged_bit_for_bit(given: dict):
    plain, measured = (trial(num_iter=6, batch_size=6, noise_scale=n, **given) for n in (0, 2))
    without, metrics = run(plain), run(measured)
    assert measured.losses == plain.losses
    assert len(set(plain.losses)) == 6
    for name in ("loss", "loss_mean", "val_loss"):
        assert metrics.get(name) == without.get(name)
    found = [(step, m["gradient_square"]) for step, m in measured.reports if "gradient_square" in m]
    assert [step for step, _ in found] == [1, 3, 5]
    assert metrics["gradient_square"] == pytest.approx(sum(value for _, value in found) / 3)
    assert metrics["gradient_variance"] > 0
    assert "noise_scale" not in without


def test_the_measurement_leaves_the_curve_of_resnet50_unchanged():
    plain, measured = trial(num_iter=3), trial(num_iter=3, noise_scale=1)
    run(plain)
    metrics = run(measured)
    assert measured.losses == plain.losses
    assert metrics["gradient_variance"] > 0


@pytest.mark.usefixtures("small")
def test_no_step_includes_the_time_of_the_measurement(monkeypatch: pytest.MonkeyPatch):
    import time

    measure = NoiseMeter.measure

    def slow(self, images, labels):
        time.sleep(0.3)
        return measure(self, images, labels)

    monkeypatch.setattr(NoiseMeter, "measure", slow)
    one = trial(num_iter=6, noise_scale=1)
    metrics = run(one)
    assert metrics["train_time"] < 0.3
    assert max(m["iteration_time"] for _, m in one.reports if "iteration_time" in m) < 0.3


@pytest.mark.usefixtures("small")
def test_measurements_before_a_stop_count_after_it(tmp_path: Path):
    whole, cut, again = (trial(num_iter=6, batch_size=4, noise_scale=1) for _ in range(3))
    expected = run(whole)
    for one, stop_after in ((cut, 6), (again, 10**9)):
        one.has_directory, one.directory, one.stop_after = True, tmp_path, stop_after
    assert run(cut) == {}
    metrics = run(again)
    for name in ("noise_scale", "noise_scale_error", "gradient_variance", "gradient_square"):
        assert metrics[name] == pytest.approx(expected[name], nan_ok=True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("given", "is_measured"),
    [
        ({"batch_size": 1}, False),
        ({"batch_size": 2}, True),
        ({"batch_size": 3, "image_size": 32}, False),
        ({"batch_size": 4, "image_size": 32}, True),
    ],
)
def test_a_batch_without_two_halves_that_can_be_normalised_has_no_noise_scale(given: dict, is_measured: bool):
    metrics = run(trial(num_iter=2, noise_scale=1, **given))
    assert math.isnan(metrics["gradient_variance"]) != is_measured
    assert math.isnan(metrics["noise_scale_error"]) or is_measured


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("step", ["graph", "eager"])
def test_the_measurement_leaves_the_curve_of_a_real_graph_unchanged(step: str):
    plain, measured = (
        trial(num_iter=8, batch_size=16, step=step, deterministic=True, noise_scale=n) for n in (0, 2)
    )
    plain.device = measured.device = "cuda:0"
    run(plain)
    assert run(measured)["gradient_variance"] > 0
    assert measured.losses == plain.losses


# ------------------------------------------------------------------------------------- on several ranks

ON_A_RANK = """
import sys
sys.path[:0] = [sys.argv[1]]
import torch
from test_resnet50_noise import CPU, NoiseMeter, Population, Precision, options, ranks, trial
from mpisweep.workloads.resnet50.budget import Budget
from mpisweep.workloads.resnet50.history import History
torch.set_num_threads(1)
one = trial()
one.rank, one.ranks = int(sys.argv[2]), 2
team = ranks.Ranks(one, CPU, 9)
population = Population()
asked = options(batch_size=9)
meter = NoiseMeter(asked, population.model, Precision(asked, CPU), team)
print(*meter.measure(population.images[:9][team.piece], population.labels[:9][team.piece]))

# Rank 1 is slower; the seconds of rank 0 count on both ranks.
for bounds in ({"num_iter": 0}, {"num_iter": 6, "ends_at": "last"}):
    history = History(one, batch_size=9, warmup=0)
    history.begin_attempt()
    budget = Budget(options(batch_size=9, seconds=5.0, **bounds), team)
    seen = []
    for step in range(4):
        history.add([2.0 + 7 * one.rank], [(0.0, 0.0)])
        seen.append((budget.steps_to_read(history, 20), budget.is_over(history), budget.lacks_validation(history)))
    print(seen)
team.leave()
"""


def test_several_ranks_measure_the_halves_of_the_whole_batch_and_agree_on_the_end():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ON_A_RANK, str(Path(__file__).parent), str(rank)],
            env=shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=PATIENCE_S)[0].splitlines() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    # Rank 0 has the first four images, in halves of 2 and 2; rank 1 the other five, in halves of 3 and 2.
    halves = [0, 1, 4, 5, 6, 2, 3, 7, 8]
    population = Population()
    alone = NoiseMeter(
        options(batch_size=9), population.model, Precision(options(), CPU), ranks.Ranks(trial(), CPU, 9)
    )
    expected = alone.measure(population.images[halves], population.labels[halves])
    assert list(map(float, outputs[0][0].split())) == pytest.approx(list(expected), rel=1e-4)
    assert [ast.literal_eval(line) for line in outputs[0][1:]] == [
        [(1, False, False), (1, False, False), (1, True, False), (1, True, False)],
        [(1, False, False), (1, False, False), (3, False, True), (2, False, True)],
    ]
