"""ResNet50, trained for `num_iter` steps at one batch size, on one or several ranks.

Metrics
-------
``loss``               cross entropy (with label smoothing, if any) of the last step's batch, in training
                       mode and before that step's update: the last point of the loss curve.
``loss_mean``          mean of the loss over the last tenth of the steps, at least one step.
``accuracy``           share of correct predictions over the same steps; only with real labels.
``setup_time``         seconds to load the data and to build the model and the optimiser.
``train_time``         seconds for all steps.
``images_per_second``  images per second, without the first `warmup_iter` steps, in which kernels are chosen
                       and compiled.
``peak_memory``        bytes: torch's peak on the GPU; on a CPU, this process's peak since the trial began.
                       With several ranks, the largest of them.

With several ranks (:mod:`mpisweep.workloads.ranks`) `batch_size` is that of all ranks together, losses and
accuracies are means over the whole batch, and times are those of rank 0.

Loss and time of every step are curves.  On a GPU, CUDA events time the steps, and losses stay on the device
until :data:`READ_BACK` of them are read at once: no step waits for a read.

The same seed on the same device gives the same curve, whatever ran in this process before; on a GPU exactly
the same only with ``deterministic``, which forbids kernels that add in a varying order.

If the sweep is stopped, and every `checkpoint_every` steps, the trial saves a checkpoint and later resumes
from it: its curve is that of an uninterrupted run.

Batch normalisation needs two values per channel.  In the last stage an image of 32 pixels is a single one, so
batch size 1 needs an image_size above 32.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from mpisweep.records import Value
from mpisweep.workloads.checkpoint import Checkpoint
from mpisweep.workloads.datasets import (
    Batches,
    folder_batches,
    load_images,
    memory_batches,
    synthetic_batches,
)
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.trial import remove_checkpoint

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["run"]

#: Number of steps between reads of a GPU's losses and times: often enough to watch, too seldom to cost time.
READ_BACK = 20


def run(trial: Trial) -> dict[str, float]:
    """Train once; the entry point of a trial.

    Args:
        trial: its `params` are the options in mpisweep.spec.catalogue.

    Raises:
        DataError: when the data is missing.
        torch.OutOfMemoryError: when the batch does not fit; the device's memory is free again by then.
    """
    device = torch.device(trial.device)
    try:
        _prepare(trial, device)
        ranks = Ranks(trial, device, int(trial.params["batch_size"]))
        metrics = _experiment(trial, device, ranks)
        # Not after a failure: it may wait for other ranks, and this process ends anyway.
        ranks.leave()
        if metrics:
            _forget_checkpoint(trial)
        return metrics
    except Exception:
        # A failed trial is not resumed.
        _forget_checkpoint(trial)
        raise
    finally:
        # Free a failed trial's memory for the next trial.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _experiment(trial: Trial, device: torch.device, ranks: Ranks) -> dict[str, float]:
    options = trial.params
    num_iter, checkpoint_every = int(options["num_iter"]), int(options["checkpoint_every"])
    started = time.perf_counter()
    bare = _bare_model(options, device)
    optimizer = _optimizer(options, bare)
    precision = _Precision(options, device)
    checkpoint = Checkpoint(
        trial, device, {"model": bare, "optimizer": optimizer, "scaler": precision.scaler}
    )
    steps_done, measured = checkpoint.restore()
    ranks.agree(steps_done, "checkpoint")
    model = _compiled(options, ranks.together(bare))
    data = _data(options, trial, device, ranks, first=steps_done)
    clock = _GpuClock(ranks) if device.type == "cuda" else _CpuClock(ranks)
    setup_time = time.perf_counter() - started

    history = _History(trial, batch_size=int(options["batch_size"]), warmup=int(options["warmup_iter"]))
    history.restore(measured)
    clock.start()
    for step in range(steps_done, num_iter):
        images, labels = next(data)  # (B, 3, S, S), (B,): this rank's piece of the batch
        with precision.autocast():
            logits = model(images)  # (B, classes)
            loss = functional.cross_entropy(logits, labels, label_smoothing=float(options["label_smoothing"]))
        precision.step(ranks.weighted(loss), optimizer)
        clock.mark(step, loss.detach(), (logits.detach().argmax(1) == labels).float().mean())
        is_due = checkpoint_every > 0 and (step + 1) % checkpoint_every == 0 and step + 1 < num_iter
        if is_due or (step + 1) % clock.read_every == 0:
            history.add(clock.read())  # note: this is a CPU-GPU sync point
            stop = ranks.any(trial.should_stop())
            if stop or is_due:
                if ranks.leads:
                    checkpoint.save(step + 1, history.measured)
                clock.start()  # no step includes the time of the save
            if stop:
                trial.stop()
                return {}
    history.add(clock.read())
    return history.metrics(real_labels=options["data"] != "synthetic") | {
        "setup_time": setup_time,
        "peak_memory": ranks.most(_peak_memory(device)),
    }


def _forget_checkpoint(trial: Trial) -> None:
    if trial.rank == 0 and trial.has_directory:
        remove_checkpoint(trial.directory)


# ------------------------------------------------------------------------------------- the parts


def _prepare(trial: Trial, device: torch.device) -> None:
    """Reset all process-wide state, so that no trial depends on an earlier one."""
    torch.set_num_threads(trial.cores)
    torch.manual_seed(trial.seed)
    deterministic = bool(trial.params["deterministic"])
    if deterministic:
        # cuBLAS reads it on first use: cuBLAS documentation, "Results reproducibility".
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    # The benchmark mode times kernels and does not always choose the same one.
    torch.backends.cudnn.benchmark = bool(trial.params["cudnn_benchmark"]) and not deterministic
    _forget_peak_memory(device)


def _data(
    options: Mapping[str, Value], trial: Trial, device: torch.device, ranks: Ranks, first: int
) -> Batches:
    batch_size, image_size = int(options["batch_size"]), int(options["image_size"])
    data, root, num_classes = str(options["data"]), str(options["data_root"]), int(options["num_classes"])
    if ranks.images == 1 and image_size <= 32:
        many = f" on {ranks.size} ranks" if ranks.size > 1 else ""
        raise ValueError(
            f"batch_size {batch_size}{many} at image_size {image_size} leaves batch normalisation a single "
            "value per channel; use an image_size above 32"
        )
    if data == "synthetic":
        return synthetic_batches(ranks.images, image_size, num_classes, trial.seed + ranks.rank, device)
    if data == "imagefolder":
        loaders = int(options["loaders"]) if int(options["loaders"]) >= 0 else trial.cores - 1
        found, classes = folder_batches(
            root, batch_size, image_size, trial.seed, device, loaders, first, ranks.piece
        )
    else:
        images = load_images(data, root)
        found = memory_batches(images, batch_size, image_size, trial.seed, device, first, ranks.piece)
        classes = images.classes
    if classes > num_classes:
        raise ValueError(f"num_classes is {num_classes}, but {data} has {classes} labels")
    return found


def _bare_model(options: Mapping[str, Value], device: torch.device) -> nn.Module:
    model: nn.Module = resnet50(num_classes=int(options["num_classes"]))
    model = model.to(device).train()
    if _is_on(options["channels_last"], device.type == "cuda"):
        model = model.to(memory_format=torch.channels_last)
    return model


def _compiled(options: Mapping[str, Value], model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model)) if options["compile"] else model


def _optimizer(options: Mapping[str, Value], model: nn.Module) -> torch.optim.Optimizer:
    learning_rate = float(options["learning_rate"])
    if options["lr_scaling"] == "linear":
        # Goyal et al., "Accurate, large minibatch SGD", 2017: k times the batch, k times the rate.
        learning_rate *= int(options["batch_size"]) / int(options["base_batch_size"])
    weight_decay = float(options["weight_decay"])
    if options["optimizer"] == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=float(options["momentum"]), weight_decay=weight_decay
    )


class _Precision:
    """The number format of the model.  ``auto``: bf16 if the GPU supports it, else fp32."""

    def __init__(self, options: Mapping[str, Value], device: torch.device) -> None:
        wanted = str(options["precision"])
        if wanted == "auto":
            wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        self._device = device.type
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
        # fp16 gradients underflow; scaling the loss keeps them representable.
        self.scaler = torch.amp.GradScaler(device.type, enabled=wanted == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device, self._dtype)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(optimizer)
        self.scaler.update()


# ------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Step:
    """The measurements of one step."""

    number: int
    seconds: float
    loss: float
    accuracy: float


class _CpuClock:
    """Times steps on a CPU, which ends a step when the call returns."""

    read_every = 1

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def start(self) -> None:
        self._last = time.perf_counter()
        self._steps: list[_Step] = []

    def mark(self, number: int, loss: Tensor, accuracy: Tensor) -> None:
        now = time.perf_counter()
        mean_loss, mean_accuracy = self._ranks.mean(torch.stack([loss.float(), accuracy])).tolist()
        self._steps.append(_Step(number, now - self._last, mean_loss, mean_accuracy))
        self._last = time.perf_counter() if self._ranks.size > 1 else now

    def read(self) -> list[_Step]:
        steps, self._steps = self._steps, []
        return steps


class _GpuClock:
    """Times steps on a GPU by events in its queue, because it computes asynchronously."""

    read_every = READ_BACK

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def start(self) -> None:
        torch.cuda.synchronize()  # so that the first step does not include the setup
        self._last = self._event()
        self._marks: list[tuple[int, torch.cuda.Event, Tensor, Tensor]] = []

    def mark(self, number: int, loss: Tensor, accuracy: Tensor) -> None:
        self._marks.append((number, self._event(), loss, accuracy))

    def read(self) -> list[_Step]:
        if not self._marks:
            return []
        marks, self._marks = self._marks, []
        # note: this is a CPU-GPU sync point; it waits for the last mark, hence for all of them
        losses = self._ranks.mean(torch.stack([loss.float() for _, _, loss, _ in marks])).tolist()
        accuracies = self._ranks.mean(torch.stack([accuracy for _, _, _, accuracy in marks])).tolist()
        marks[-1][1].synchronize()
        steps: list[_Step] = []
        for (number, event, _, _), loss, accuracy in zip(marks, losses, accuracies, strict=True):
            steps.append(_Step(number, self._last.elapsed_time(event) / 1000, loss, accuracy))
            self._last = event
        return steps

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class _History:
    """All steps so far, and the final metrics."""

    def __init__(self, trial: Trial, *, batch_size: int, warmup: int) -> None:
        self._trial = trial
        self._batch_size = batch_size
        self._warmup = warmup
        self._steps: list[_Step] = []

    def add(self, steps: list[_Step]) -> None:
        for step in steps:
            self._trial.report(step.number, loss=step.loss, iteration_time=step.seconds)
        self._steps += steps

    @property
    def measured(self) -> dict[str, list[float]]:
        """The measurements for a checkpoint."""
        return {
            "seconds": [step.seconds for step in self._steps],
            "loss": [step.loss for step in self._steps],
            "accuracy": [step.accuracy for step in self._steps],
        }

    def restore(self, measured: Mapping[str, list[float]]) -> None:
        """Report the steps of an earlier attempt again, because the curve belongs to this attempt."""
        columns = (measured.get(name, []) for name in ("seconds", "loss", "accuracy"))
        self.add([_Step(number, *values) for number, values in enumerate(zip(*columns, strict=True))])

    def metrics(self, *, real_labels: bool) -> dict[str, float]:
        steps = self._steps
        tail = steps[-max(1, len(steps) // 10) :]
        # A run shorter than the warm-up is timed as a whole: a rough speed is better than none.
        timed = steps[self._warmup :] or steps
        metrics = {
            "loss": steps[-1].loss,
            "loss_mean": sum(step.loss for step in tail) / len(tail),
            "train_time": sum(step.seconds for step in steps),
            "images_per_second": self._batch_size * len(timed) / sum(step.seconds for step in timed),
        }
        if real_labels:
            metrics["accuracy"] = sum(step.accuracy for step in tail) / len(tail)
        return metrics


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    # Linux resets the process's peak to its current memory; elsewhere an older peak may remain.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    return float("nan")


def _is_on(choice: Value, automatic: bool) -> bool:
    return automatic if choice == "auto" else choice == "on"
