from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from mpisweep.catalogue import BUILTIN
from mpisweep.preflight import see_that_it_starts
from mpisweep.spec import SpecError, parse_spec
from mpisweep.workloads.datasets import DataError, load_images, memory_batches
from mpisweep.workloads.resnet50 import run

METRICS = {metric.name for metric in BUILTIN["resnet50"].metrics}


@dataclass
class Trial:
    """A trial that remembers what was reported."""

    params: dict
    seed: int = 1
    device: str = "cpu"
    cores: int = 1
    stop_after: int = 10**9
    reports: list = field(default_factory=list)
    has_directory: bool = False
    directory: Path | None = None

    def report(self, step, **metrics):
        self.reports.append((step, metrics))

    rank, ranks = 0, 1

    def stop(self):
        pass

    def should_stop(self):
        return len(self.reports) >= self.stop_after

    @property
    def losses(self):
        return [metrics["loss"] for _, metrics in self.reports]


def trial(**options) -> Trial:
    small = {"batch_size": 2, "num_iter": 3, "image_size": 33, "num_classes": 10, "data": "digits", "warmup_iter": 1}
    return Trial(BUILTIN["resnet50"].defaults | small | options)


def test_all_metrics_are_there_and_mean_what_they_say():
    one = trial()
    metrics = run(one)
    assert set(metrics) == METRICS - {"iteration_time"}
    assert metrics["loss"] == one.losses[-1]
    assert metrics["loss_mean"] == one.losses[-1]
    seconds = [m["iteration_time"] for _, m in one.reports]
    assert metrics["train_time"] == pytest.approx(sum(seconds))
    assert metrics["images_per_second"] == pytest.approx(2 * 2 / sum(seconds[1:]))
    assert metrics["peak_memory"] > 50e6
    assert [step for step, _ in one.reports] == [0, 1, 2]


def test_the_same_seed_gives_the_same_curve_whatever_ran_before():
    first, between, again = trial(), trial(batch_size=3, optimizer="adamw"), trial()
    run(first)
    run(between)
    run(again)
    assert first.losses == again.losses
    assert first.losses != between.losses


def test_another_seed_gives_another_curve():
    first, second = trial(num_iter=1), trial(num_iter=1)
    second.seed = 2
    run(first)
    run(second)
    assert first.losses != second.losses


@pytest.mark.parametrize(
    "options",
    [
        {"data": "synthetic", "batch_size": 1},
        {"precision": "bf16", "channels_last": "on"},
        {"lr_scaling": "linear", "label_smoothing": 0.1, "weight_decay": 0.01},
    ],
    ids=["synthetic, one image", "bf16, channels last", "recipe"],
)
def test_options_train(options):
    metrics = run(trial(num_iter=1, **options))
    assert metrics["loss"] > 0
    assert ("accuracy" in metrics) == (options.get("data") != "synthetic")


def test_one_image_of_32_pixels_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="batch_size 1 at image_size 32 leaves batch normalisation a single value"):
        run(trial(batch_size=1, image_size=32))


def test_a_trial_that_is_told_to_stop_returns_at_once(tmp_path):
    one = trial(num_iter=1000)
    one.directory = tmp_path
    one.stop_after = 2
    run(one)
    assert len(one.reports) == 2


def test_too_few_classes_are_told():
    with pytest.raises(ValueError, match="num_classes is 5, but digits has 10 labels"):
        run(trial(num_classes=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cifar10"}, "needs data_root"),
        ({"data": "imagefolder", "data_root": "/no/such"}, "there is no such folder"),
    ],
)
def test_missing_data_is_told(options, message):
    with pytest.raises(DataError, match=message):
        run(trial(**options))


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ("", "fixed.data_root: is missing; data = 'cifar10' needs the folder where the images are"),
        ("data_root = 'nowhere'", "fixed.data_root: there is no folder {folder}/nowhere"),
    ],
)
def test_missing_data_is_told_before_anything_runs(tmp_path, fixed, message):
    text = f"workload = 'resnet50'\n[parameters]\nbatch_size = [1, 2]\n[fixed]\ndata = 'cifar10'\n{fixed}\n"
    with pytest.raises(SpecError) as caught:
        see_that_it_starts(parse_spec(text, source="s.toml", folder=tmp_path))
    assert str(caught.value) == f"s.toml: {message.format(folder=tmp_path)}"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    from PIL import Image

    for label, grey in (("dark", 10), ("light", 240)):
        (tmp_path / label).mkdir()
        for index in range(3):
            Image.new("RGB", (40, 30), (grey + index,) * 3).save(tmp_path / label / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("loaders", [0, 2])
def test_folders_of_images_are_trained_on_by_any_number_of_loaders(image_folder, loaders):
    one = trial(data="imagefolder", data_root=str(image_folder), loaders=loaders, batch_size=4, num_classes=2)
    metrics = run(one)
    assert metrics["loss"] > 0
    again = trial(data="imagefolder", data_root=str(image_folder), loaders=0, batch_size=4, num_classes=2)
    run(again)
    assert one.losses == again.losses


def test_epochs_follow_one_another_and_miss_no_image():
    data = load_images("digits", "")
    endless = memory_batches(data, 1000, 8, 3, torch.device("cpu"))
    seen = torch.cat([next(endless)[1] for _ in range(9)])
    counts = torch.bincount(seen)
    assert counts.sum() == 9000
    assert (counts >= 4 * torch.bincount(data.labels)).all()


def test_a_batch_may_be_larger_than_the_data():
    images, labels = next(memory_batches(load_images("digits", ""), 4000, 16, 3, torch.device("cpu")))
    assert images.shape == (4000, 3, 16, 16)
    assert labels.shape == (4000,)


def test_digits_keep_their_shades():
    data = load_images("digits", "")
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.max() == 255
    assert data.classes == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_ran_out_of_memory_is_clean_afterwards():
    too_large = trial(batch_size=100_000, image_size=224, data="synthetic", num_iter=1)
    too_large.device = "cuda:0"
    with pytest.raises(torch.OutOfMemoryError):
        run(too_large)
    assert torch.cuda.memory_allocated() < 1e6
