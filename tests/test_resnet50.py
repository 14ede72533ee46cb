from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import datasets

from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.preflight import check_startable
from mpisweep.workloads import ranks, resnet50
from mpisweep.workloads.datasets import DataError, Images, folder_batches, load_images, memory_batches
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
    small = {
        "batch_size": 2,
        "num_iter": 3,
        "image_size": 33,
        "num_classes": 10,
        "data": "digits",
        "warmup_iter": 1,
    }
    return Trial(BUILTIN["resnet50"].defaults | small | options)


def test_all_metrics_are_there_and_mean_what_they_say():
    one = trial()
    metrics = run(one)
    assert set(metrics) == METRICS - {"iteration_time"}
    assert metrics["loss"] == one.losses[-1]
    assert metrics["loss_mean"] == one.losses[-1]
    assert len(set(one.losses)) == 3
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


def options(**given) -> dict:
    """The options of a trial; what is not given is the default."""
    return BUILTIN["resnet50"].defaults | given


def test_synthetic_data_is_one_random_batch_again_and_again_and_has_no_accuracy():
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    synthetic, digits = trial(data="synthetic", batch_size=1, **still), trial(**still)
    metrics = run(synthetic)
    run(digits)
    # A model that does not learn tells the batches apart.
    assert len(set(synthetic.losses)) == 1
    assert len(set(digits.losses)) == 3
    assert set(metrics) == METRICS - {"iteration_time", "accuracy"}


def test_linear_scaling_multiplies_the_learning_rate_by_the_batch_size_over_the_base():
    model = nn.Linear(2, 2)
    for scaling, expected in (("none", 0.4), ("linear", 0.1)):
        given = options(
            learning_rate=0.4,
            lr_scaling=scaling,
            batch_size=64,
            base_batch_size=256,
            weight_decay=0.01,
            momentum=0.7,
        )
        made = resnet50._optimizer(given, model)
        assert type(made) is torch.optim.SGD
        assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (
            pytest.approx(expected),
            0.01,
        )
        assert made.param_groups[0]["momentum"] == 0.7
    made = resnet50._optimizer(options(optimizer="adamw", learning_rate=0.4, weight_decay=0.01), model)
    assert type(made) is torch.optim.AdamW
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.4, 0.01)


def test_label_smoothing_mixes_the_right_label_with_all_of_them():
    one, half, all_alike = (trial(num_iter=1, label_smoothing=share) for share in (0.0, 0.5, 1.0))
    for each in (one, half, all_alike):
        run(each)
    # The loss of the first step is that of the same model on the same batch: it is linear in the share.
    assert half.losses[0] == pytest.approx((one.losses[0] + all_alike.losses[0]) / 2, rel=1e-6)
    assert one.losses[0] != pytest.approx(all_alike.losses[0], rel=1e-3)


def test_channels_last_is_another_layout_of_the_same_model():
    cpu = torch.device("cpu")

    def is_channels_last(choice: str) -> bool:
        model = resnet50._bare_model(options(channels_last=choice, num_classes=10), cpu)
        return all(
            p.is_contiguous(memory_format=torch.channels_last)
            for p in model.parameters()
            if p.ndim == 4 and p.shape[2] > 1
        )

    assert [is_channels_last(choice) for choice in ("on", "off", "auto")] == [True, False, False]
    # Where the device is a GPU.
    assert [resnet50._is_on(choice, True) for choice in ("on", "off", "auto")] == [True, False, True]
    plain, moved = trial(num_iter=1, channels_last="off"), trial(num_iter=1, channels_last="on")
    run(plain)
    run(moved)
    assert moved.losses == pytest.approx(plain.losses, rel=1e-4)


# ------------------------------------------------------------------------------------- in what numbers


class Small(nn.Sequential):
    """A network that takes what ResNet50 takes, and remembers in what numbers it has answered."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, stride=4),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, num_classes),
        )

    def forward(self, images):
        logits = super().forward(images)
        answered_in.append(logits.dtype)
        return logits


answered_in: list[torch.dtype] = []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The experiment with another network in ResNet50's place, where the network is not what is looked at."""
    monkeypatch.setattr(resnet50, "resnet50", Small)
    answered_in.clear()
    yield
    answered_in.clear()


@pytest.mark.parametrize(
    ("precision", "dtype", "near"),
    [("fp32", torch.float32, 0.0), ("bf16", torch.bfloat16, 0.05), ("fp16", torch.float16, 0.01)],
)
@pytest.mark.usefixtures("small")
def test_the_model_computes_in_the_numbers_that_are_asked_for(
    precision: str, dtype: torch.dtype, near: float
):
    exact, one = trial(precision="fp32"), trial(precision=precision)
    run(exact)
    answered_in.clear()
    run(one)
    assert answered_in == [dtype] * 3
    assert one.losses == pytest.approx(exact.losses, rel=near)
    assert (one.losses != exact.losses) == (precision != "fp32")


def test_resnet50_trains_in_bf16():
    exact, one = trial(num_iter=1, precision="fp32"), trial(num_iter=1, precision="bf16")
    run(exact)
    run(one)
    assert one.losses == pytest.approx(exact.losses, rel=0.05)
    assert one.losses != exact.losses


def test_gradients_that_fp16_cannot_hold_arrive_and_a_step_that_overflows_is_left_out():
    cpu = torch.device("cpu")
    precision = resnet50._Precision(options(precision="fp16"), cpu)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    tiny = 2.0**-30  # the smallest of fp16 is 2**-24
    precision.step(weight.half().sum().float() * tiny, optimizer)
    assert weight.grad is not None
    assert weight.grad.item() == tiny
    before, scale = weight.item(), precision.scaler.get_scale()
    precision.step(weight.half().sum().float() * 1e6, optimizer)
    assert weight.item() == before
    assert precision.scaler.get_scale() == scale / 2
    precision.step(weight.half().sum().float(), optimizer)
    assert weight.item() == before - 1.0


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_is_bf16_where_the_gpu_has_it_and_fp32_elsewhere(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: has_bf16)
    auto = options(precision="auto")
    on_gpu, on_cpu = (resnet50._Precision(auto, torch.device(device)) for device in ("cuda", "cpu"))
    with on_cpu.autocast():
        assert not torch.is_autocast_enabled("cpu")
    assert on_gpu._dtype == (torch.bfloat16 if has_bf16 else None)
    assert not on_gpu.scaler.is_enabled()


def test_a_compiled_model_is_what_is_trained(monkeypatch: pytest.MonkeyPatch):
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    plain, one = trial(num_iter=2), trial(num_iter=2, compile=True)
    run(plain)
    # Inductor's own kernels take minutes on a CPU; what is ours is which module is compiled, and that it is
    # the one that is used.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    run(one)
    assert sum(compiled) > 160, "all layers of ResNet50"
    assert one.losses == plain.losses


# ------------------------------------------------------------------------------------- clocks


class Gpu:
    """A GPU that computes later: work is queued, and is done when somebody waits for it."""

    def __init__(self) -> None:
        self.done_at_ms = 0.0
        #: What is queued between one event and the next, beside what a test queues.
        self.each_ms = 0.0
        self.said: list[str] = []

    def work(self, ms: float) -> None:
        self.done_at_ms += ms

    def synchronize(self, *_: object) -> None:
        self.said.append("all is waited for")

    def event(self, *, enable_timing: bool) -> GpuEvent:
        assert enable_timing
        return GpuEvent(self)


class GpuEvent:
    """What torch.cuda.Event is: it has a time once the GPU has come to it, and that was waited for."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.at_ms: float | None = None

    def record(self) -> None:
        self._gpu.work(self._gpu.each_ms)
        self.at_ms = self._gpu.done_at_ms

    def synchronize(self) -> None:
        self._gpu.said.append(f"waited for {self.at_ms:g}")

    def elapsed_time(self, end: GpuEvent) -> float:
        assert self.at_ms is not None
        assert end.at_ms is not None
        assert self._gpu.said, "an event that was not waited for has no time yet"
        return end.at_ms - self.at_ms


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    return made


def test_a_step_on_a_gpu_takes_from_the_end_of_the_step_before_to_its_own(gpu: Gpu):
    clock = resnet50._GpuClock(ranks.Ranks(trial(), torch.device("cpu"), 2))
    gpu.work(5000)
    clock.start()
    assert gpu.said == ["all is waited for"], "the setup is no step's"
    for number, ms in enumerate((20, 30, 40)):
        gpu.work(ms)
        clock.mark(number, torch.tensor(float(number)), torch.tensor(0.5))
    assert gpu.said == ["all is waited for"], "a step waits for no other"
    read = clock.read()
    assert [(step.number, step.seconds, step.loss, step.accuracy) for step in read] == [
        (0, 0.02, 0.0, 0.5), (1, 0.03, 1.0, 0.5), (2, 0.04, 2.0, 0.5),
    ]  # fmt: skip
    assert gpu.said[1:] == ["waited for 5090"], "the last one, once"
    assert clock.read() == []
    gpu.work(70)
    clock.mark(3, torch.tensor(3.0), torch.tensor(0.5))
    [step] = clock.read()
    assert step.seconds == 0.07, "reading is at no step's cost, and loses no time"
    gpu.work(9000)
    clock.start()
    gpu.work(10)
    clock.mark(4, torch.tensor(4.0), torch.tensor(0.5))
    assert clock.read()[0].seconds == 0.01, "what came in between, such as a checkpoint, is no step's"


@pytest.mark.usefixtures("small")
def test_on_a_gpu_steps_are_read_some_at_a_time_and_none_is_missed(gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    expected = trial(num_iter=8)
    run(expected)
    assert gpu.said == []
    # The clock of a GPU on this machine's CPU: what it measures is what the fake says.
    monkeypatch.setattr(resnet50, "_CpuClock", resnet50._GpuClock)
    monkeypatch.setattr(resnet50._GpuClock, "read_every", 3)
    gpu.each_ms = 8.0
    one = trial(num_iter=8)
    metrics = run(one)
    assert one.losses == expected.losses
    assert [metrics["iteration_time"] for _, metrics in one.reports] == [0.008] * 8
    assert metrics["images_per_second"] == pytest.approx(2 / 0.008)
    assert [step for step, _ in one.reports] == list(range(8))
    assert sum(word.startswith("waited for") for word in gpu.said) == 3, "after 3, 6 and 8 steps"
    assert metrics["loss"] == one.losses[-1]


def test_seconds_and_images_per_second_leave_out_the_warm_up():
    history = resnet50._History(trial(), batch_size=10, warmup=2)
    history.add([resnet50._Step(n, seconds, float(n), 0.0) for n, seconds in enumerate([7.0, 3.0, 1.0, 1.0])])
    metrics = history.metrics(real_labels=False)
    assert (metrics["train_time"], metrics["images_per_second"]) == (12.0, 10.0)


@pytest.mark.parametrize(("device", "backend"), [("cuda", "nccl"), ("cpu", "gloo")])
def test_ranks_on_gpus_talk_over_nccl_and_others_over_gloo(
    monkeypatch: pytest.MonkeyPatch, device: str, backend: str
):
    begun: list[str] = []
    monkeypatch.setattr(ranks.dist, "init_process_group", begun.append)
    one = trial()
    one.ranks = 2
    ranks.Ranks(one, torch.device(device), 4)
    assert begun == [backend]
    with pytest.raises(ValueError, match="batch_size 1 cannot be split over 2 ranks"):
        ranks.Ranks(one, torch.device(device), 1)
    assert begun == [backend], "a trial that cannot be does not wait for its other ranks"


# ------------------------------------------------------------------------------------- refusals


def test_one_image_of_32_pixels_is_refused_with_the_reason():
    with pytest.raises(
        ValueError, match="batch_size 1 at image_size 32 leaves batch normalisation a single value"
    ):
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
        ({"data": "imagefolder", "data_root": "/no/such"}, "no such folder"),
    ],
)
def test_missing_data_is_told(options, message):
    with pytest.raises(DataError, match=message):
        run(trial(**options))


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ("", "fixed.data_root: is missing; data = 'cifar10' needs the folder of the images"),
        ("data_root = 'nowhere'", "fixed.data_root: folder {folder}/nowhere does not exist"),
    ],
)
def test_missing_data_is_told_before_anything_runs(tmp_path, fixed, message):
    text = f"workload = 'resnet50'\n[parameters]\nbatch_size = [1, 2]\n[fixed]\ndata = 'cifar10'\n{fixed}\n"
    with pytest.raises(SpecError) as caught:
        check_startable(parse_spec(text, source="s.toml", folder=tmp_path))
    assert str(caught.value) == f"s.toml: {message.format(folder=tmp_path)}"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    from PIL import Image

    for label, grey in (("dark", 10), ("light", 240)):
        (tmp_path / label).mkdir()
        for index in range(3):
            Image.new("RGB", (40, 30), (grey + index,) * 3).save(tmp_path / label / f"{index}.png")
    return tmp_path


def test_folders_of_images_are_trained_on_by_any_number_of_loaders(image_folder):
    none, two = (
        trial(data="imagefolder", data_root=str(image_folder), loaders=loaders, batch_size=4, num_classes=2)
        for loaders in (0, 2)
    )
    run(none)
    run(two)
    assert two.losses == none.losses
    assert len(set(none.losses)) == 3


def test_folders_of_images_are_labels_and_every_image_has_its_turn(image_folder):
    endless, classes = folder_batches(str(image_folder), 4, 16, 3, torch.device("cpu"), loaders=0)
    assert classes == 2
    images, labels = (torch.cat(parts) for parts in zip(*(next(endless) for _ in range(3)), strict=True))
    assert images.shape == (12, 3, 16, 16)
    brightness = images.mean(dim=(1, 2, 3))
    assert brightness[labels == 0].max() < brightness[labels == 1].min(), "dark comes before light"
    assert [len(set(epoch.tolist())) for epoch in brightness.split(6)] == [6, 6], "two epochs of six images"


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of six images in its own files; torchvision is told their checksums."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    # An image is 1,024 reds, 1,024 greens and 1,024 blues, row by row.
    images = np.zeros((6, 3, 32, 32), dtype=np.uint8)
    for number in range(6):
        images[number, number % 3, 0, :] = 100 + number
    contents = {
        "data_batch_1": {"data": images[:4].reshape(4, -1), "labels": [3, 1, 4, 1]},
        "data_batch_2": {"data": images[4:].reshape(2, -1), "labels": [5, 9]},
        "test_batch": {"data": images[:1].reshape(1, -1), "labels": [7]},
        "batches.meta": {"label_names": [f"class {label}" for label in range(10)]},
    }
    sums: dict[str, str] = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        datasets.CIFAR10,
        "meta",
        {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    )
    return tmp_path


def test_cifar10_is_its_training_images_with_their_colours_and_labels(cifar10: Path):
    data = load_images("cifar10", str(cifar10))
    assert data.images.shape == (6, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert data.classes == 10
    assert [image.flatten(1).amax(1).tolist() for image in data.images] == [
        [100 + n if colour == n % 3 else 0 for colour in range(3)] for n in range(6)
    ]
    assert data.images[0, 0, 0].tolist() == [100] * 32, "a row of the picture is a row of the tensor"
    assert data.images[0, 0, 1:].max() == 0


@pytest.mark.usefixtures("small")
def test_cifar10_is_trained_on(cifar10: Path):
    one = trial(data="cifar10", data_root=str(cifar10), batch_size=6, num_iter=2)
    metrics = run(one)
    assert 0.0 <= metrics["accuracy"] <= 1.0
    assert len(set(one.losses)) == 2


def test_a_cifar10_that_is_not_what_it_should_be_is_told(cifar10: Path):
    (cifar10 / datasets.CIFAR10.base_folder / "data_batch_2").write_bytes(b"torn")
    with pytest.raises(DataError, match="no cifar10 data there"):
        load_images("cifar10", str(cifar10))


def test_epochs_follow_one_another_and_miss_no_image():
    digits = load_images("digits", "").images[:179]
    # Labels that tell the images apart.
    endless = memory_batches(Images(digits, torch.arange(179)), 100, 8, 3, torch.device("cpu"))
    seen = torch.cat([next(endless)[1] for _ in range(9)])
    epochs = [set(seen[at : at + 179].tolist()) for at in range(0, 5 * 179, 179)]
    assert epochs == [set(range(179))] * 5
    assert seen[:179].tolist() != seen[179 : 2 * 179].tolist(), "each in an order of its own"


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
