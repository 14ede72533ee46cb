"""The training recipe of a configuration: model, optimiser, learning rate and number format."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from mpisweep.records import Value
from mpisweep.spec.training import planned_steps

__all__ = ["Precision", "Schedule", "is_channels_last", "make_model", "make_optimizer", "peak_rate"]


def make_model(options: Mapping[str, Value], device: torch.device) -> nn.Module:
    """ResNet50 in training mode on `device`; torch's default generator draws its parameters."""
    model: nn.Module = resnet50(
        num_classes=int(options["num_classes"]), zero_init_residual=bool(options["zero_init_gamma"])
    )
    model = model.to(device).train()
    if is_channels_last(options, device):
        model = model.to(memory_format=torch.channels_last)
    return model


def is_channels_last(options: Mapping[str, Value], device: torch.device) -> bool:
    """Whether model and images are laid out channels last; ``auto`` is for GPUs."""
    choice = options["channels_last"]
    return device.type == "cuda" if choice == "auto" else choice == "on"


def make_optimizer(
    options: Mapping[str, Value], model: nn.Module, device: torch.device, *, is_captured: bool = False
) -> torch.optim.Optimizer:
    """The optimiser; on GPUs in its fused form, which is one kernel for all parameters.

    Args:
        options: of the trial.
        model: whose parameters it changes.
        device: where they are.
        is_captured: whether its step becomes part of a CUDA graph.
    """
    fused = device.type == "cuda" or None
    rate = peak_rate(options)
    weight_decay = float(options["weight_decay"])
    if options["optimizer"] == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=weight_decay, fused=fused, capturable=is_captured
        )
    return torch.optim.SGD(
        model.parameters(), lr=rate, momentum=float(options["momentum"]), weight_decay=weight_decay,
        nesterov=bool(options["nesterov"]), fused=fused,
    )  # fmt: skip


def peak_rate(options: Mapping[str, Value]) -> float:
    """The learning rate after the warm-up, scaled to the batch size."""
    rate = float(options["learning_rate"])
    times = int(options["batch_size"]) / int(options["base_batch_size"])
    if options["lr_scaling"] == "linear":
        # Goyal et al., "Accurate, large minibatch SGD", 2017: k times the batch, k times the rate.
        return rate * times
    if options["lr_scaling"] == "sqrt":
        # Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
        return rate * math.sqrt(times)
    return rate


class Schedule:
    """The learning rate over the steps.

    Args:
        options: of the trial.
        optimizer: gets the rate of each step.
        device: of a captured step, whose replays read the rate there; None for an eager step.
    """

    def __init__(
        self,
        options: Mapping[str, Value],
        optimizer: torch.optim.Optimizer,
        device: torch.device | None = None,
    ) -> None:
        self._optimizer = optimizer
        if device is not None:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
        self._peak = peak_rate(options)
        self._kind = str(options["lr_schedule"])
        # Only a constant rate, which needs none, is allowed without a number of steps.
        self._steps = planned_steps(options) or 0
        self._warmup = int(options["lr_warmup_iter"])

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self._warmup:
            return self._peak * (step + 1) / self._warmup
        done = (step - self._warmup) / max(1, self._steps - self._warmup)
        if self._kind == "cosine":
            # Loshchilov and Hutter, "SGDR", 2017, without restarts.
            return self._peak * 0.5 * (1.0 + math.cos(math.pi * done))
        if self._kind == "step":
            # He et al., "Deep residual learning", 2016: a tenth at half and at three quarters of the steps.
            return self._peak * 0.1 ** sum(done >= at for at in (0.5, 0.75))
        return self._peak

    def set(self, step: int) -> None:
        """Set the rate of this step."""
        rate = self.rate(step)
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


#: Compute capabilities from 7.0 to 7.5, Volta and Turing, have tensor cores for fp16 and none for bf16.
_FP16_ONLY = ((7, 0), (8, 0))


class Precision:
    """The number format that the model computes in.

    ``auto`` is bf16 where the GPU computes in it (and does not emulate it), fp16 on Volta and Turing, and
    otherwise fp32.
    """

    def __init__(self, options: Mapping[str, Value], device: torch.device) -> None:
        wanted = str(options["precision"])
        if wanted == "auto":
            wanted = _best_of(device) if device.type == "cuda" else "fp32"
        self.name = wanted
        #: Bits of the format's significand: 24 for fp32, 11 for fp16, 8 for bf16.
        self.significand_bits = {"fp32": 24, "bf16": 8, "fp16": 11}[wanted]
        self._device = device.type
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
        # fp16 gradients underflow; scaling the loss keeps them representable.
        self.scaler = torch.amp.GradScaler(device.type, enabled=wanted == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self._dtype is None:
            return contextlib.nullcontext()
        # Its cache of cast weights would carry tensors from one replay into the next.
        return torch.autocast(self._device, self._dtype, cache_enabled=False)


def _best_of(device: torch.device) -> str:
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    lowest, beyond = _FP16_ONLY
    return "fp16" if lowest <= torch.cuda.get_device_capability(device) < beyond else "fp32"
