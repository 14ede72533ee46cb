"""The built-in ResNet50 workload: recipe, precision, timing, captured steps, data."""

from __future__ import annotations

import functools
import hashlib
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import datasets

from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.preflight import check_startable
from mpisweep.workloads import ranks
from mpisweep.workloads.datasets import (
    DataError,
    Images,
    cropped_and_flipped,
    held_out,
    load_images,
    memory_batches,
    without_held_out,
)
from mpisweep.workloads.folder.batches import Target, folder_batches
from mpisweep.workloads.folder.scan import find_images
from mpisweep.workloads.resnet50 import experiment, recipe, run, validation
from mpisweep.workloads.resnet50.clock import QUEUED, GpuClock
from mpisweep.workloads.resnet50.history import History
from mpisweep.workloads.resnet50.recipe import (
    Precision,
    Schedule,
    make_model,
    make_optimizer,
)
from mpisweep.workloads.resnet50.stepping import CapturedStep, Record, TrainStep, capture_cuda_graph

CPU = torch.device("cpu")
METRICS = {metric.name for metric in BUILTIN["resnet50"].metrics}
#: Metrics that need other options, other data or a GPU.
AT_BOUNDS = {
    f"{name}_at_{budget}" for name in ("loss_mean", "val_loss") for budget in ("steps", "samples", "seconds")
}
OPTIONAL_METRICS = AT_BOUNDS | {
    "iteration_time", "compile_time", "reserved_memory", "val_loss", "val_accuracy", "reached_target",
    "steps_to_target", "samples_to_target", "seconds_to_target", "noise_scale", "noise_scale_error",
    "gradient_variance", "gradient_square",
}  # fmt: skip


@dataclass
class Trial:
    """A trial that records its reports."""

    is_pruned = False
    data = None

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

    def local(self, path):
        return path

    def should_stop(self):
        return len(self.reports) >= self.stop_after

    @property
    def losses(self):
        return [metrics["loss"] for _, metrics in self.reports if "loss" in metrics]


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


def test_all_metrics_are_returned_and_agree_with_the_reports():
    one = trial()
    metrics = run(one)
    assert set(metrics) == METRICS - OPTIONAL_METRICS
    assert metrics["loss"] == one.losses[-1]
    assert metrics["loss_mean"] == one.losses[-1]
    assert len(set(one.losses)) == 3
    seconds = [m["iteration_time"] for _, m in one.reports]
    # The first step is the warm-up: its time beyond a usual step counts as setup.
    steady = sorted(seconds[1:])
    usual = sum(steady) / 2
    assert metrics["step_time"] == pytest.approx(usual)
    assert metrics["train_time"] == pytest.approx(min(seconds[0], usual) + sum(steady))
    assert metrics["setup_time"] > sum(seconds) - metrics["train_time"]
    assert 0 <= metrics["data_wait"] < sum(seconds) + metrics["setup_time"]
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
    """Return the options of a trial; options that are not given have their defaults."""
    return BUILTIN["resnet50"].defaults | given


def test_synthetic_data_repeats_one_random_batch_and_has_no_accuracy():
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    synthetic, digits = trial(data="synthetic", batch_size=1, **still), trial(**still)
    metrics = run(synthetic)
    run(digits)
    # The model does not learn, so that the loss depends on the batch alone.
    assert len(set(synthetic.losses)) == 1
    assert len(set(digits.losses)) == 3
    assert set(metrics) == METRICS - OPTIONAL_METRICS - {"accuracy"}


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
        made = make_optimizer(given, model, CPU)
        assert type(made) is torch.optim.SGD
        assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (
            pytest.approx(expected),
            0.01,
        )
        assert made.param_groups[0]["momentum"] == 0.7
    made = make_optimizer(options(optimizer="adamw", learning_rate=0.4, weight_decay=0.01), model, CPU)
    assert type(made) is torch.optim.AdamW
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.4, 0.01)


def test_label_smoothing_mixes_the_true_label_with_all_labels():
    one, half, all_alike = (trial(num_iter=1, label_smoothing=share) for share in (0.0, 0.5, 1.0))
    for each in (one, half, all_alike):
        run(each)
    # In the first step, model and batch are the same in all trials: the loss is linear in the share.
    assert half.losses[0] == pytest.approx((one.losses[0] + all_alike.losses[0]) / 2, rel=1e-6)
    assert one.losses[0] != pytest.approx(all_alike.losses[0], rel=1e-3)


def test_channels_last_is_another_layout_of_the_same_model():
    cpu = torch.device("cpu")

    def is_laid_out(choice: str) -> bool:
        model = make_model(options(channels_last=choice, num_classes=10), cpu)
        return all(
            p.is_contiguous(memory_format=torch.channels_last)
            for p in model.parameters()
            if p.ndim == 4 and p.shape[2] > 1
        )

    assert [is_laid_out(choice) for choice in ("on", "off", "auto")] == [True, False, False]
    # On a GPU.
    assert [
        recipe.is_channels_last(options(channels_last=choice), torch.device("cuda"))
        for choice in ("on", "off", "auto")
    ] == [True, False, True]
    plain, moved = trial(num_iter=1, channels_last="off"), trial(num_iter=1, channels_last="on")
    run(plain)
    run(moved)
    assert moved.losses == pytest.approx(plain.losses, rel=1e-4)


# ------------------------------------------------------------------------------------- precision


class Small(nn.Sequential):
    """A small network with the interface of ResNet50 that records the dtypes of its logits."""

    def __init__(self, num_classes: int, **_: object) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, stride=4),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, num_classes),
        )

    def forward(self, images):
        logits = super().forward(images)
        logit_dtypes.append(logits.dtype)
        return logits


logit_dtypes: list[torch.dtype] = []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace ResNet50 by a small network in tests that do not depend on the network."""
    monkeypatch.setattr(recipe, "resnet50", Small)
    logit_dtypes.clear()
    yield
    logit_dtypes.clear()


@pytest.mark.parametrize(
    ("precision", "dtype", "near"),
    [("fp32", torch.float32, 0.0), ("bf16", torch.bfloat16, 0.05), ("fp16", torch.float16, 0.01)],
)
@pytest.mark.usefixtures("small")
def test_the_model_computes_in_the_requested_precision(precision: str, dtype: torch.dtype, near: float):
    exact, one = trial(precision="fp32"), trial(precision=precision)
    run(exact)
    logit_dtypes.clear()
    run(one)
    assert logit_dtypes == [dtype] * 3
    assert one.losses == pytest.approx(exact.losses, rel=near)
    assert (one.losses != exact.losses) == (precision != "fp32")


def test_resnet50_trains_in_bf16():
    exact, one = trial(num_iter=1, precision="fp32"), trial(num_iter=1, precision="bf16")
    run(exact)
    run(one)
    assert one.losses == pytest.approx(exact.losses, rel=0.05)
    assert one.losses != exact.losses


class OneWeight(nn.Module):
    """Return the weight in fp16, times a factor that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2))
        self.factor = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight.half().float() * self.factor + torch.zeros(len(images), 2)


def test_small_fp16_gradients_do_not_underflow_and_a_step_that_overflows_is_skipped():
    precision = Precision(options(precision="fp16"), CPU)
    model = OneWeight()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = TrainStep(options(), model, optimizer, precision, ranks.Ranks(trial(), CPU, 2), Record(4, CPU))
    images, labels = torch.zeros(1, 3, 1, 1), torch.tensor([0])
    model.factor = 2.0**-29  # the smallest fp16 number is 2**-24
    step(images, labels)
    assert model.weight.grad is not None
    assert model.weight.grad[0].tolist() == pytest.approx([-(2.0**-30), 2.0**-30], rel=1e-3)
    before, scale = model.weight.detach().clone(), precision.scaler.get_scale()
    model.factor = 1e6
    step(images, labels)
    assert torch.equal(model.weight, before)
    assert precision.scaler.get_scale() == scale / 2


@pytest.mark.parametrize(
    ("has_bf16", "capability", "expected"),
    [
        (True, (9, 0), "bf16"),
        # A V100 and a T4 emulate bf16, which is slow.
        (False, (7, 0), "fp16"),
        (False, (7, 5), "fp16"),
        (False, (6, 0), "fp32"),
    ],
)
def test_auto_precision_is_native_to_the_gpu_and_fp32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, capability: tuple[int, int], expected: str
):
    def is_supported(including_emulation: bool = True) -> bool:
        return has_bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    auto = options(precision="auto")
    with warnings.catch_warnings():
        # torch warns if there is no GPU.
        warnings.simplefilter("ignore")
        on_gpu, on_cpu = Precision(auto, torch.device("cuda")), Precision(auto, CPU)
    with on_cpu.autocast():
        assert not torch.is_autocast_enabled("cpu")
    assert (on_gpu.name, on_cpu.name) == (expected, "fp32")
    assert on_gpu.scaler.is_enabled() == (expected == "fp16" and torch.cuda.is_available())


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Record the sizes of the compiled programs, with a backend that runs them unchanged.

    Inductor takes minutes on a CPU. This project decides which module is compiled, how often, and that
    the compiled one is used.
    """
    programs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        programs.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield programs
    torch._dynamo.reset()


def test_the_compiled_model_is_the_one_that_is_trained(compiled: list[int]):
    plain, one = trial(num_iter=2), trial(num_iter=2, compile=True)
    run(plain)
    metrics = run(one)
    assert sum(compiled) > 160, "all layers of ResNet50"
    assert one.losses == plain.losses
    assert 0 <= metrics["compile_time"] <= metrics["setup_time"]


def test_every_batch_size_gets_the_same_program_whichever_comes_first(compiled: list[int]):
    """Regression: the first batch size of a process got its own program, all others a second."""
    for batch_size in (4, 2, 3):
        run(trial(num_iter=1, batch_size=batch_size, compile=True))
    assert len(compiled) == 1, "one program for all of them, made once"


# ------------------------------------------------------------------------------------- clocks


class Gpu:
    """A fake GPU with asynchronous work: it is queued, and complete after a synchronization."""

    def __init__(self) -> None:
        self.done_at_ms = 0.0
        #: Work queued before each event, in addition to the calls of work().
        self.each_ms = 0.0
        self.log: list[str] = []

    def work(self, ms: float) -> None:
        self.done_at_ms += ms

    def synchronize(self, *_: object) -> None:
        self.log.append("synchronized")

    def event(self, *, enable_timing: bool, blocking: bool) -> GpuEvent:
        assert enable_timing
        assert blocking
        return GpuEvent(self)


class GpuEvent:
    """A fake torch.cuda.Event: it has a time after a synchronization."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.at_ms: float | None = None

    def record(self) -> None:
        self._gpu.work(self._gpu.each_ms)
        self.at_ms = self._gpu.done_at_ms

    def synchronize(self) -> None:
        self._gpu.log.append(f"waited for {self.at_ms:g}")

    def elapsed_time(self, end: GpuEvent) -> float:
        assert self.at_ms is not None
        assert end.at_ms is not None
        assert self._gpu.log, "an event that was not waited for has no time yet"
        return end.at_ms - self.at_ms


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    return made


def test_a_gpu_step_is_timed_from_the_end_of_the_previous_one_to_its_own_end(gpu: Gpu):
    clock = GpuClock()
    gpu.work(5000)
    clock.start()
    assert gpu.log == ["synchronized"], "the setup is no step's"
    for ms in (20, 30, 40):
        gpu.work(ms)
        clock.mark()
    assert gpu.log == ["synchronized"], "a step waits for no other"
    assert clock.read() == [0.02, 0.03, 0.04]
    assert gpu.log[1:] == ["waited for 5090"], "the last one, once"
    assert clock.read() == []
    gpu.work(70)
    clock.mark()
    assert clock.read() == [0.07], "reading is at no step's cost, and loses no time"
    gpu.work(9000)
    clock.start()
    gpu.work(10)
    clock.mark()
    assert clock.read() == [0.01], "what came in between, such as a checkpoint, is no step's"


def test_up_to_two_steps_are_queued_behind_the_running_one(gpu: Gpu):
    """A stop is seen, and the queue drained, within a few steps, however long a step takes."""
    clock = GpuClock()
    clock.start()
    del gpu.log[:]
    for number in range(1, 6):
        gpu.work(700)
        clock.mark()
        clock.pace()
        waited_for = [f"waited for {700 * max(0, n - QUEUED)}" for n in range(QUEUED, number + 1)]
        assert gpu.log == waited_for


@pytest.mark.usefixtures("small")
def test_on_a_gpu_steps_are_read_in_groups_and_none_is_missed(gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    expected = trial(num_iter=8)
    run(expected)
    assert gpu.log == []
    # Use the clock of a GPU on a CPU; the fake GPU sets the times.
    monkeypatch.setattr(experiment, "make_clock", lambda device: GpuClock())
    monkeypatch.setattr(experiment._Experiment, "_reads_each", False)
    monkeypatch.setattr(experiment, "READ_BACK", 3)
    monkeypatch.setattr(experiment, "READ_EVERY_S", 1e9)
    gpu.each_ms = 8.0
    one = trial(num_iter=8)
    metrics = run(one)
    assert one.losses == expected.losses
    assert [metrics["iteration_time"] for _, metrics in one.reports] == [0.008] * 8
    assert metrics["images_per_second"] == pytest.approx(2 / 0.008)
    assert [step for step, _ in one.reports] == list(range(8))
    assert metrics["loss"] == one.losses[-1]


@pytest.mark.usefixtures("small")
def test_losses_are_read_periodically_even_if_few_steps_have_run(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(experiment, "make_clock", lambda device: GpuClock())
    monkeypatch.setattr(experiment._Experiment, "_reads_each", False)
    monkeypatch.setattr(experiment, "READ_EVERY_S", 0.0)
    one = trial(num_iter=1000)
    one.stop_after, one.directory = 2, tmp_path
    run(one)
    assert len(one.reports) == 2, "a stop is looked at after each step"


def test_a_warm_up_step_counts_as_the_median_of_the_others():
    history = History(trial(), batch_size=10, warmup=2)
    history.begin_attempt()
    history.add([7.0, 3.0, 1.0, 1.0, 2.0], [(float(n), 0.0) for n in range(5)])
    metrics = history.metrics(real_labels=False)
    assert (metrics["train_time"], metrics["step_time"]) == (6.0, 1.0)
    assert metrics["images_per_second"] == 10 * 3 / 4
    assert history.excess == 8.0
    assert history.first_excess == 6.0


def test_a_resumed_attempt_has_its_own_warm_up():
    """Regression: choosing kernels after a resume lowered the speed from 50 to 15 images/s."""
    before = History(trial(), batch_size=10, warmup=1)
    before.begin_attempt()
    before.add([7.0, 1.0], [(0.0, 0.0)] * 2)
    after = History(trial(), batch_size=10, warmup=1)
    after.restore(before.measured)
    after.begin_attempt()
    after.add([9.0, 1.0], [(0.0, 0.0)] * 2)
    metrics = after.metrics(real_labels=False)
    assert (metrics["images_per_second"], metrics["train_time"]) == (10.0, 4.0)
    assert after.measured["attempts"] == [0.0, 2.0]


# ------------------------------------------------------------------------------------- captured steps


def capture_by_calling(step):
    """Emulate a capture on a CPU: three steps of warm-up, and each replay runs the step."""
    for _ in range(3):
        step()
    return step


RECIPES = [
    {},
    {"optimizer": "adamw", "learning_rate": 0.001},
    {"nesterov": True, "clip_norm": 0.5, "accumulate": 2},
    {"precision": "bf16"},
    {"precision": "fp16"},
    {"lr_schedule": "cosine", "lr_warmup_iter": 2},
]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture steps although the device is a CPU."""
    monkeypatch.setattr(experiment, "_is_captured", lambda options, *_: options["step"] == "graph")
    monkeypatch.setattr(experiment, "capture_cuda_graph", capture_by_calling)
    # An optimiser on a CPU cannot be capturable.
    made = experiment.make_optimizer
    monkeypatch.setattr(
        experiment, "make_optimizer", lambda *given, is_captured: made(*given, is_captured=False)
    )


@pytest.mark.usefixtures("small", "captured")
@pytest.mark.parametrize("recipe_options", RECIPES)
def test_the_warm_up_of_a_capture_leaves_no_trace(recipe_options: dict):
    eager = trial(num_iter=6, batch_size=4, step="eager", **recipe_options)
    graph = trial(num_iter=6, batch_size=4, step="graph", **recipe_options)
    run(eager)
    run(graph)
    # A learning rate that is a tensor is multiplied in another order.
    assert graph.losses == pytest.approx(eager.losses, rel=1e-5)
    assert len(set(eager.losses)) == 6


@pytest.mark.usefixtures("small", "captured")
@pytest.mark.parametrize("recipe_options", [*RECIPES[:2], RECIPES[-1]])
def test_a_resumed_trial_with_a_captured_step_has_the_curve_of_an_uninterrupted_one(
    tmp_path, recipe_options: dict
):
    whole = trial(num_iter=6, step="graph", **recipe_options)
    run(whole)
    first = trial(num_iter=6, step="graph", **recipe_options)
    first.has_directory, first.directory, first.stop_after = True, tmp_path, 3
    assert run(first) == {}
    again = trial(num_iter=6, step="graph", **recipe_options)
    again.has_directory, again.directory = True, tmp_path
    run(again)
    assert again.losses == whole.losses


@pytest.mark.usefixtures("small", "captured")
def test_a_capture_that_fails_falls_back_to_eager_unless_a_graph_is_required(monkeypatch: pytest.MonkeyPatch):
    def fails(step):
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    eager = trial(num_iter=3, step="eager")
    run(eager)
    monkeypatch.setattr(experiment, "_is_captured", lambda *_: True)
    monkeypatch.setattr(experiment, "capture_cuda_graph", fails)
    auto = trial(num_iter=3, step="auto")
    with pytest.warns(
        UserWarning, match="cannot be captured as a CUDA graph and runs eagerly: operation not"
    ):
        run(auto)
    assert auto.losses == eager.losses
    with pytest.raises(RuntimeError, match="not permitted"):
        run(trial(num_iter=3, step="graph"))


@pytest.mark.parametrize("where", ["at once", "as the cause", "in the middle"])
def test_out_of_memory_within_a_capture_is_raised_as_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, where: str
):
    """After an error within a capture, leaving the capture raises another error."""

    class Stub:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *raised: object) -> None:
            if where != "at once" and raised[0] is not None:
                raise RuntimeError("operation failed due to a previous error during capture")

        def wait_stream(self, _: object) -> None:
            pass

    for name in ("Stream", "stream", "graph", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, Stub)
    monkeypatch.setattr(torch.cuda, "current_stream", Stub)
    ran: list[int] = []

    def step() -> None:
        ran.append(1)
        if len(ran) == 4:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except torch.OutOfMemoryError as error:
                if where == "in the middle":
                    raise RuntimeError("backward failed") from error
                raise

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        capture_cuda_graph(step)


@pytest.mark.usefixtures("small")
def test_a_replay_reads_the_batch_that_it_is_given():
    model = make_model(options(num_classes=10), CPU)
    optimizer = make_optimizer(options(), model, CPU)
    record = Record(4, CPU)
    step = TrainStep(
        options(), model, optimizer, Precision(options(), CPU), ranks.Ranks(trial(), CPU, 2), record
    )
    seen: list[torch.Tensor] = []

    def capture(run_step):
        def replay() -> None:
            seen.append(replayed._images.clone())
            run_step()

        return replay

    images, labels = torch.randn(3, 2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    replayed = CapturedStep(step, images[0], labels, capture)
    for one in images:
        replayed(one, labels)
    assert torch.equal(torch.stack(seen), images)
    assert len(set(record.last(3)[:, 0].tolist())) == 3


def test_a_graph_is_refused_on_a_cpu_and_for_several_ranks():
    with pytest.raises(ValueError, match="step = 'graph' needs a CUDA device, and this trial runs on cpu"):
        run(trial(step="graph"))
    of_two = ranks.Ranks(trial(), CPU, 2)
    of_two.size = 2
    cuda = torch.device("cuda")
    with pytest.raises(ValueError, match="step = 'graph' is for trials of one rank, and this one has 2"):
        experiment._is_captured(options(step="graph"), cuda, of_two)
    assert not experiment._is_captured(options(), cuda, of_two), "auto is eager then"
    of_one = ranks.Ranks(trial(), CPU, 2)
    assert experiment._is_captured(options(), cuda, of_one)
    assert not experiment._is_captured(options(step="eager"), cuda, of_one)


def test_a_record_keeps_the_last_steps_in_order():
    record = Record(3, CPU)
    for number in range(5):
        record.write(torch.tensor(float(number)), torch.tensor(number / 10))
    assert record.last(3).tolist() == [
        [2.0, pytest.approx(0.2)],
        [3.0, pytest.approx(0.3)],
        [4.0, pytest.approx(0.4)],
    ]


# ------------------------------------------------------------------------------------- the recipe


def test_the_learning_rate_follows_warm_up_schedule_and_scaling():
    def rates(**given: object) -> list[float]:
        weight = nn.Parameter(torch.zeros(1))
        schedule = Schedule(
            options(num_iter=8, learning_rate=1.0, **given), torch.optim.SGD([weight], lr=1.0)
        )
        return [schedule.rate(step) for step in range(8)]

    assert rates() == [1.0] * 8
    assert rates(lr_schedule="step") == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)
    cosine = rates(lr_schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[4] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    assert rates(lr_warmup_iter=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(lr_scaling="sqrt", batch_size=64, base_batch_size=256) == [0.5] * 8


def test_a_captured_step_reads_its_rate_on_its_device_also_after_a_checkpoint():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1))
    Schedule(options(), optimizer, torch.device("meta")).set(0)
    assert optimizer.param_groups[0]["lr"].device.type == "meta"


@pytest.mark.usefixtures("small")
def test_each_step_uses_its_own_learning_rate():
    still = trial(num_iter=4, data="synthetic", lr_warmup_iter=2, learning_rate=0.5)
    moving = trial(num_iter=4, data="synthetic", learning_rate=0.5)
    run(still)
    run(moving)
    assert still.losses[0] == moving.losses[0]
    assert still.losses[1] != moving.losses[1]


@pytest.mark.usefixtures("small")
def test_accumulated_gradients_equal_the_gradient_of_the_batch():
    """The network has no batch normalisation, whose statistics depend on the parts."""
    torch.manual_seed(1)
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    images, labels = torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    records = []
    for net, parts in zip(nets, (1, 3), strict=True):
        given = options(accumulate=parts)
        records.append(Record(1, CPU))
        TrainStep(
            given, net, torch.optim.SGD(net.parameters(), lr=0.1), Precision(given, CPU),
            ranks.Ranks(trial(), CPU, 5), records[-1],
        )(images, labels)  # fmt: skip
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert records[0].values.tolist()[0] == pytest.approx(records[1].values.tolist()[0])


def test_clip_norm_bounds_the_length_of_a_step():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    before = [p.detach().clone() for p in net.parameters()]
    given = options(clip_norm=1e-3)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step = TrainStep(
        given, net, optimizer, Precision(given, CPU), ranks.Ranks(trial(), CPU, 4), Record(1, CPU)
    )
    step(10 * torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))
    moved = torch.cat([(p - b).flatten() for p, b in zip(net.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_images_are_cropped_and_flipped_by_seed_and_position_alone():
    images = torch.arange(4 * 3 * 16 * 16, dtype=torch.uint8).reshape(4, 3, 16, 16) | 1
    whole = cropped_and_flipped(images, 4, 1, 5, slice(None))
    halves = [cropped_and_flipped(images[part], 4, 1, 5, part) for part in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat(halves), whole), "the same on any number of ranks"
    assert not torch.equal(cropped_and_flipped(images, 4, 1, 6, slice(None)), whole)
    # Every image is a window of the padded one, mirrored or not.
    padded = functional.pad(images, (2,) * 4)
    for number in range(4):
        windows = [
            window if not mirrored else window.flip(-1)
            for y in range(5) for x in range(5) for mirrored in (False, True)
            for window in [padded[number, :, y : y + 16, x : x + 16]]
        ]  # fmt: skip
        assert any(torch.equal(whole[number], window) for window in windows)


@pytest.mark.parametrize(("device", "backend"), [("cuda", "nccl"), ("cpu", "gloo")])
def test_ranks_on_gpus_communicate_over_nccl_and_others_over_gloo(
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


def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes is 5, but digits has 10 labels"):
        run(trial(num_classes=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cifar10"}, "needs data_root"),
        ({"data": "imagefolder", "data_root": "/no/such"}, "no such folder"),
    ],
)
def test_missing_data_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        run(trial(**options))


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ("", "fixed.data_root: is missing; data = 'cifar10' needs the folder of the images"),
        ("data_root = 'nowhere'", "fixed.data_root: folder {folder}/nowhere does not exist"),
    ],
)
def test_missing_data_is_refused_before_any_trial_runs(tmp_path, fixed, message):
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


def test_the_curve_of_an_image_folder_does_not_depend_on_the_number_of_loaders(image_folder):
    none, two = (
        trial(data="imagefolder", data_root=str(image_folder), loaders=loaders, batch_size=4, num_classes=2)
        for loaders in (0, 2)
    )
    run(none)
    run(two)
    assert two.losses == none.losses
    assert len(set(none.losses)) == 3


def test_folders_are_labels_and_every_image_comes_once_per_epoch(image_folder):
    files = find_images(str(image_folder))
    assert files.classes == ("dark", "light")
    endless = folder_batches(files, 4, 3, Target(16, CPU))
    images, labels = (torch.cat(parts) for parts in zip(*(next(endless) for _ in range(3)), strict=True))
    assert images.shape == (12, 3, 16, 16)
    brightness = images.mean(dim=(1, 2, 3))
    assert brightness[labels == 0].max() < brightness[labels == 1].min(), "dark comes before light"
    assert [len(set(epoch.tolist())) for epoch in brightness.split(6)] == [6, 6], "two epochs of six images"


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a CIFAR-10 of six images in its file format, and patch the checksums of torchvision."""
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    # An image is 1,024 red, 1,024 green and 1,024 blue values, row by row.
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


def test_cifar10_loads_the_training_images_with_their_colours_and_labels(cifar10: Path):
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
def test_a_trial_trains_on_cifar10(cifar10: Path):
    one = trial(data="cifar10", data_root=str(cifar10), batch_size=6, num_iter=2)
    metrics = run(one)
    assert 0.0 <= metrics["accuracy"] <= 1.0
    assert len(set(one.losses)) == 2


def test_a_damaged_cifar10_is_refused(cifar10: Path):
    (cifar10 / datasets.CIFAR10.base_folder / "data_batch_2").write_bytes(b"torn")
    with pytest.raises(DataError, match="no cifar10 data there"):
        load_images("cifar10", str(cifar10))


def test_every_epoch_uses_each_image_once_in_its_own_order():
    digits = load_images("digits", "").images[:179]
    # Unique labels identify the images.
    endless = memory_batches(Images(digits, torch.arange(179)), 100, 8, 3, torch.device("cpu"))
    seen = torch.cat([next(endless)[1] for _ in range(9)])
    epochs = [set(seen[at : at + 179].tolist()) for at in range(0, 5 * 179, 179)]
    assert epochs == [set(range(179))] * 5
    assert seen[:179].tolist() != seen[179 : 2 * 179].tolist(), "each in an order of its own"


def test_a_batch_may_be_larger_than_the_data():
    images, labels = next(memory_batches(load_images("digits", ""), 4000, 16, 3, torch.device("cpu")))
    assert images.shape == (4000, 3, 16, 16)
    assert labels.shape == (4000,)


def test_digits_are_scaled_to_8_bit_grey_levels():
    data = load_images("digits", "")
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.max() == 255
    assert data.classes == 10


# ------------------------------------------------------------------------------------- held-out images


def test_a_fixed_fifth_of_digits_is_held_out():
    digits = load_images("digits", "")
    held, rest = held_out("digits", digits, ""), without_held_out("digits", digits)
    assert (len(held), len(rest)) == (359, 1438)
    pixels = {image.numpy().tobytes() for image in rest.images}
    assert sum(image.numpy().tobytes() in pixels for image in held.images) <= 1, "some digits look the same"
    assert set(held.labels.tolist()) == set(range(10))


def test_cifar10_is_validated_on_its_test_images(cifar10: Path):
    train = load_images("cifar10", str(cifar10))
    held = held_out("cifar10", train, str(cifar10))
    assert held.labels.tolist() == [7]
    assert without_held_out("cifar10", train) is train


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("every", "expected"), [(0, [6]), (2, [2, 4, 6]), (4, [4, 6])])
def test_a_trial_is_validated_every_val_every_steps_and_at_its_end(every: int, expected: list[int]):
    plain, one = trial(num_iter=6, val_every=0), trial(num_iter=6, val_every=every)
    run(plain)
    metrics = run(one)
    found = [(step + 1, m) for step, m in one.reports if "val_loss" in m]
    assert [step for step, _ in found] == expected
    assert {name: metrics[name] for name in ("val_loss", "val_accuracy")} == found[-1][1]
    losses = [[m["loss"] for _, m in each.reports if "loss" in m] for each in (plain, one)]
    assert losses[0] == losses[1], "the training goes on as if there had been no validation"


@pytest.mark.usefixtures("small")
def test_a_validation_is_the_mean_over_all_held_out_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validation, "_AT_A_TIME", 100)
    given = options(data="digits", image_size=33, num_classes=10)
    model = make_model(given, CPU)
    alone = ranks.Ranks(trial(), CPU, 2)
    found = validation.Validation(given, CPU, alone, Precision(given, CPU), 0).measure(model)
    held = held_out("digits", load_images("digits", ""), "")
    [(images, labels)] = held.each_once(1000, 33, CPU, torch.contiguous_format, slice(None))
    logits = model.eval()(images)
    assert found[0] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found[1] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_synthetic_images_cannot_be_held_out():
    with pytest.raises(ValueError, match="val_every needs real data"):
        run(trial(data="synthetic", val_every=0))


@pytest.mark.usefixtures("small")
def test_an_image_folder_is_validated_on_val_root(image_folder: Path, tmp_path: Path):
    one = trial(
        data="imagefolder", data_root=str(image_folder), val_root=str(image_folder), loaders=0, val_every=0
    )
    metrics = run(one)
    # A share of six images.
    assert metrics["val_accuracy"] * 6 == pytest.approx(round(metrics["val_accuracy"] * 6))
    missing = trial(data="imagefolder", data_root=str(image_folder), loaders=0, val_every=0)
    with pytest.raises(ValueError, match="val_root is missing; val_every needs the folder"):
        run(missing)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_gpu_memory_stays_allocated_after_out_of_memory():
    too_large = trial(batch_size=100_000, image_size=224, data="synthetic", num_iter=1)
    too_large.device = "cuda:0"
    with pytest.raises(torch.OutOfMemoryError):
        run(too_large)
    assert torch.cuda.memory_allocated() < 1e6
