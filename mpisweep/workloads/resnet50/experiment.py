"""The trial: prepare, train, measure, save, clean up."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpisweep.records import Value
from mpisweep.spec.training import last_bounds
from mpisweep.workloads.checkpoint import Checkpoint
from mpisweep.workloads.datasets import (
    Batches,
    load_images,
    memory_batches,
    synthetic_batches,
    without_held_out,
)
from mpisweep.workloads.folder.batches import Target, folder_batches
from mpisweep.workloads.folder.device import is_decoding
from mpisweep.workloads.folder.loading import drop_loaders
from mpisweep.workloads.folder.scan import find_images
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.resnet50.allocator import use_expandable_segments
from mpisweep.workloads.resnet50.budget import Budget
from mpisweep.workloads.resnet50.clock import make_clock
from mpisweep.workloads.resnet50.compiling import compiled, end_compilers
from mpisweep.workloads.resnet50.history import History
from mpisweep.workloads.resnet50.noise import NoiseMeter
from mpisweep.workloads.resnet50.recipe import (
    Precision,
    Schedule,
    is_channels_last,
    make_model,
    make_optimizer,
)
from mpisweep.workloads.resnet50.stepping import (
    CapturedStep,
    Record,
    Step,
    TrainStep,
    capture_cuda_graph,
)
from mpisweep.workloads.resnet50.validation import Validation
from mpisweep.workloads.trial import DivergedError, remove_checkpoint

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["READ_BACK", "READ_EVERY_S", "run"]

#: Maximum number of steps between reads of losses and times: often enough to watch, too seldom to cost time.
READ_BACK = 20
#: Maximum time between these reads, in seconds.
READ_EVERY_S = 0.5


def run(trial: Trial) -> dict[str, float]:
    """Train once; the entry point of a trial.

    Args:
        trial: its `params` are the options in mpisweep.spec.catalogue.

    Raises:
        DataError: when the data is missing.
        DivergedError: when the objective was not finite; see ``limits.diverged``.
        torch.OutOfMemoryError: when the batch does not fit; the device's memory is free again by then.
    """
    device = torch.device(trial.device)
    try:
        _prepare(trial, device)
        ranks = Ranks(trial, device, int(trial.params["batch_size"]))
        metrics = _Experiment(trial, device, ranks).run()
        # Not after a failure: it may wait for other ranks, and this process ends anyway.
        ranks.leave()
        if metrics or trial.is_pruned:
            _forget_checkpoint(trial)
        return metrics
    except (Exception, DivergedError) as error:
        # A failed or hopeless trial is not resumed.
        _forget_checkpoint(trial)
        # The frames of the traceback hold model and batch: free them for the next trial.
        seen: BaseException | None = error
        while seen is not None:
            traceback.clear_frames(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        raise
    finally:
        if trial.ranks > 1:
            # They hold this trial's connections to its other ranks.
            drop_loaders()
        end_compilers()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


class _Experiment:
    """One attempt at one trial."""

    def __init__(self, trial: Trial, device: torch.device, ranks: Ranks) -> None:
        self._trial = trial
        self._device = device
        self._ranks = ranks
        self._options = options = _on_this_node(trial)
        self._started = time.perf_counter()
        self._budget = Budget(options, ranks)
        self._is_captured = _is_captured(options, device, ranks)
        bare = make_model(options, device)
        optimizer = make_optimizer(options, bare, device, is_captured=self._is_captured)
        precision = Precision(options, device)
        self._checkpoint = Checkpoint(
            trial, device, {"model": bare, "optimizer": optimizer, "scaler": precision.scaler}
        )
        self._record = Record(READ_BACK, device)
        self._history = History(
            trial, batch_size=int(options["batch_size"]), warmup=int(options["warmup_iter"]),
            target=self._budget.target, has_noise=int(options["noise_scale"]) > 0,
            bounds=last_bounds(options),
        )  # fmt: skip
        self._done, measured = self._checkpoint.restore()
        ranks.agree(self._done, "checkpoint")
        # After the checkpoint, which brings a learning rate in main memory.
        self._schedule = Schedule(options, optimizer, device if self._is_captured else None)
        self._history.restore(measured)
        together = ranks.together(bare)
        model = compiled(together, trial.cores) if options["compile"] else together
        self._train = TrainStep(options, model, optimizer, precision, ranks, self._record)
        self._data = _data(options, trial, device, ranks, first=self._done)
        self._bare = bare
        self._validation = _validation(options, trial, device, ranks, precision)
        self._noise = NoiseMeter(options, bare, precision, ranks)
        self._clock = make_clock(device)
        self._data_wait = 0.0
        #: Steps whose losses and times were not read yet.
        self._unread = 0

    def run(self) -> dict[str, float]:
        """Train to the end, or until the trial is interrupted or pruned; then it has no metrics."""
        budget, history, clock, ranks = self._budget, self._history, self._clock, self._ranks
        step: Step = self._train
        number, setup_time = self._done, 0.0
        history.begin_attempt()
        is_due = self._is_due("val_every", number) and history.last_validation != number - 1
        if is_due or self._lacks_validation():
            self._validate(number)  # it was stopped between the step and its validation
        read_after = budget.steps_to_read(history, READ_BACK)
        is_over = budget.is_over(history)
        while not is_over:
            images, labels = self._next_batch()
            self._schedule.set(number)
            if number == self._done:
                if self._is_captured:
                    step = self._captured(images, labels)
                setup_time = time.perf_counter() - self._started
                clock.start()
                last_read = time.monotonic()
            if self._noise.is_due(number):
                self._measure_noise(number, images, labels)
            step(images, labels)
            clock.mark()
            clock.pace()
            number += 1
            self._unread += 1
            # Several ranks decide together, each after the same step.
            asks = ranks.size == 1 or self._reads_each or self._unread >= read_after
            late = ranks.size == 1 and time.monotonic() - last_read >= READ_EVERY_S
            saves, validates = self._is_due("checkpoint_every", number), self._is_due("val_every", number)
            if saves or validates or late or self._reads_each or self._unread >= read_after:
                self._read()
                last_read = time.monotonic()
                read_after = budget.steps_to_read(history, READ_BACK)
                validates |= self._lacks_validation()
            is_over = budget.is_last(number) or (not self._unread and budget.is_over(history))
            stop = not is_over and asks and ranks.any(self._trial.should_stop())
            if validates and not stop:
                self._validate(number)
                is_over = is_over or budget.is_over(history)
            if stop and ranks.any(self._trial.is_pruned):
                self._read()
                self._trial.stop(is_pruned=True)
                return {}
            if stop or (saves and not is_over):
                self._save(number)
            if stop:
                self._trial.stop()
                return {}
        self._read()
        if int(self._options["val_every"]) >= 0 and history.last_validation != number - 1:
            self._validate(number)
        return self._metrics(setup_time or time.perf_counter() - self._started)

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """The next batch, of which this rank takes its piece: (B, 3, S, S), (B,)."""
        asked = time.perf_counter()
        found = next(self._data)
        self._data_wait += time.perf_counter() - asked
        return found

    def _measure_noise(self, number: int, images: Tensor, labels: Tensor) -> None:
        self._read()
        self._history.add_noise(number, self._noise.measure(images, labels))
        self._clock.start()  # no step includes the time of the measurement

    def _lacks_validation(self) -> bool:
        """Whether a bound is reached at which the held-out images are not measured yet."""
        return self._validation is not None and self._budget.lacks_validation(self._history)

    def _is_due(self, option: str, step: int) -> bool:
        """Whether a step, counted from 1, is one of every so many."""
        every = int(self._options[option])
        return every > 0 and step > 0 and step % every == 0

    def _save(self, step: int) -> None:
        """Save a checkpoint after this many steps."""
        self._read()
        if self._ranks.leads:
            self._checkpoint.save(step, self._history.measured)
        self._clock.start()  # no step includes the time of the save

    def _captured(self, images: Tensor, labels: Tensor) -> Step:
        """The captured step; the eager one if the capture fails and nobody asked for a graph."""
        try:
            return CapturedStep(self._train, images, labels, capture_cuda_graph)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._options["step"] == "graph":
                raise
            warnings.warn(
                f"the step cannot be captured as a CUDA graph and runs eagerly: {error}", stacklevel=2
            )
            return self._train

    @property
    def _reads_each(self) -> bool:
        """Whether each step is read at once, which is free on a CPU."""
        return self._device.type == "cpu"

    def _read(self) -> None:
        """Read the steps that were not read yet; a CPU-GPU sync point."""
        if self._unread:
            values = self._record.last(self._unread)
            means = [self._ranks.mean(column.contiguous()).tolist() for column in values.unbind(1)]
            self._history.add(self._clock.read(), list(zip(*means, strict=True)))
            self._unread = 0

    def _validate(self, step: int) -> None:
        """Validate after this many steps."""
        assert self._validation is not None
        self._history.add_validation(step - 1, *self._validation.measure(self._bare))
        self._clock.start()  # no step includes the time of the validation

    def _metrics(self, setup_time: float) -> dict[str, float]:
        metrics = self._history.metrics(real_labels=self._options["data"] != "synthetic")
        metrics["setup_time"] = setup_time + self._history.excess
        metrics["data_wait"] = self._data_wait
        metrics["significand_bits"] = float(self._train.significand_bits)
        if self._options["compile"]:
            metrics["compile_time"] = self._history.first_excess
        metrics["peak_memory"] = self._ranks.most(_peak_memory(self._device))
        if self._device.type == "cuda":
            metrics["reserved_memory"] = self._ranks.most(float(torch.cuda.max_memory_reserved()))
        return metrics


def _is_captured(options: Mapping[str, Value], device: torch.device, ranks: Ranks) -> bool:
    """Whether the step is replayed as a CUDA graph.

    Raises:
        ValueError: when it is asked for and cannot be.
    """
    wanted = options["step"]
    if wanted == "graph" and device.type != "cuda":
        raise ValueError(f"step = 'graph' needs a CUDA device, and this trial runs on {device.type}")
    if wanted == "graph" and ranks.size > 1:
        # DistributedDataParallel in a graph takes a side stream around its construction, 11 eager steps, and
        # NCCL without asynchronous error handling: PyTorch's notes on CUDA graphs.
        raise ValueError(f"step = 'graph' is for trials of one rank, and this one has {ranks.size}")
    return device.type == "cuda" and ranks.size == 1 and wanted != "eager"


def _on_this_node(trial: Trial) -> dict[str, Value]:
    """The trial's options, with the folders of staged data on this node's disk."""
    options = trial.params
    roots = {name: trial.local(str(options[name])) for name in ("data_root", "val_root")}
    if not options["data_root"] and trial.data is not None:
        roots["data_root"] = os.fspath(trial.data)
    return options | roots


def _forget_checkpoint(trial: Trial) -> None:
    if trial.rank == 0 and trial.has_directory:
        remove_checkpoint(trial.directory)


def _prepare(trial: Trial, device: torch.device) -> None:
    """Reset all process-wide state, so that no trial depends on an earlier one."""
    torch.set_num_threads(trial.cores)
    if device.type == "cuda":
        use_expandable_segments()
    torch.manual_seed(trial.seed)
    deterministic = bool(trial.params["deterministic"])
    if deterministic:
        # cuBLAS reads it on first use: cuBLAS documentation, "Results reproducibility".
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    # The benchmark mode times kernels and does not always choose the same one.
    torch.backends.cudnn.benchmark = bool(trial.params["cudnn_benchmark"]) and not deterministic
    tf32 = bool(trial.params["tf32"])
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
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
    layout = torch.channels_last if is_channels_last(options, device) else torch.contiguous_format
    if data == "synthetic":
        return synthetic_batches(
            ranks.images, image_size, num_classes, trial.seed + ranks.rank, device, layout
        )
    if data == "imagefolder":
        files = find_images(root)
        on_device = is_decoding(str(options["decode"]), device)
        target = Target(image_size, device, layout, _loaders(options, trial), on_device)
        found = folder_batches(files, batch_size, trial.seed, target, first, ranks.piece)
        classes = len(files.classes)
    else:
        images = load_images(data, root)
        if int(options["val_every"]) >= 0:
            images = without_held_out(data, images)
        found = memory_batches(
            images, batch_size, image_size, trial.seed, device, first, ranks.piece, layout,
            augment=bool(options["augment"]),
        )  # fmt: skip
        classes = images.classes
    if classes > num_classes:
        raise ValueError(f"num_classes is {num_classes}, but {data} has {classes} labels")
    return found


def _loaders(options: Mapping[str, Value], trial: Trial) -> int:
    """Processes that read an imagefolder."""
    return int(options["loaders"]) if int(options["loaders"]) >= 0 else trial.cores - 1


def _validation(
    options: Mapping[str, Value], trial: Trial, device: torch.device, ranks: Ranks, precision: Precision
) -> Validation | None:
    if int(options["val_every"]) < 0:
        return None
    if options["data"] == "synthetic":
        raise ValueError("val_every needs real data: synthetic images have nothing that could be held out")
    return Validation(options, device, ranks, precision, _loaders(options, trial))


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
