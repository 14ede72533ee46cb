"""The gradient noise scale: the batch size whose gradient has as much noise as signal.

McCandlish et al., "An empirical model of large-batch training", 2018, arXiv:1812.06162.  With the expected
gradient G and the covariance Sigma of one image's gradient, B_simple = S / |G|^2, where S = tr(Sigma).

Appendix A.1 there estimates both from the gradients of a small and of a large batch.  Here the small batches
are the two halves of a batch, of b1 and b2 images, with gradients G1 and G2, and the large batch is both::

    |G|^2 = G1 . G2                                unbiased: the halves are independent
    S     = |G1 - G2|^2 / (1 / b1 + 1 / b2)        unbiased: E|G1 - G2|^2 = S (1 / b1 + 1 / b2)

For equal halves that is the appendix to the letter; these forms hold for unequal ones as well, so the batch
size may be odd.  The ratio of two noisy numbers is biased, so the trial's noise scale is the ratio of their
averages.

On several ranks each half consists of the halves of all ranks' pieces.  Each half is a forward and a backward
pass in training mode, so batch normalisation uses the statistics of the half, or of its part with
`accumulate`.  The passes leave no trace: gradients go to memory of their own, and batch normalisation's
statistics and the random numbers are restored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpisweep.records import Value
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.resnet50.recipe import Precision

__all__ = ["GradientNoise", "NoiseMeter", "noise_scale"]


class GradientNoise(NamedTuple):
    """Unbiased estimates from one batch."""

    #: Of S, the sum of the variances of one image's gradient.
    variance: float
    #: Of |G|^2, the squared norm of the expected gradient; noise can make it negative.
    square: float


def noise_scale(measured: Sequence[GradientNoise]) -> tuple[float, float]:
    """The ratio of the averages, and its standard error by the delta method.

    NaN if there are too few measurements: none, or one for the error, or the average of |G|^2 is not above 0.
    The error takes measurements for independent, so a drift during the training counts as noise.
    """
    count = len(measured)
    if not count:
        return math.nan, math.nan
    variance = math.fsum(each.variance for each in measured) / count
    square = math.fsum(each.square for each in measured) / count
    if not square > 0:
        return math.nan, math.nan
    scale = variance / square
    if count == 1:
        return scale, math.nan
    residuals = math.fsum((each.variance - scale * each.square) ** 2 for each in measured)
    return scale, math.sqrt(residuals / (count * (count - 1))) / square


class NoiseMeter:
    """Measures the gradient noise of batches.

    Args:
        options: of the trial.
        model: the bare one, whose parameters are trained; maps (B, 3, S, S) to (B, classes).
        precision: the number format.
        ranks: of the trial.
    """

    def __init__(
        self, options: Mapping[str, Value], model: nn.Module, precision: Precision, ranks: Ranks
    ) -> None:
        self._model = model
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._precision = precision
        self._ranks = ranks
        self._every = int(options["noise_scale"])
        self._smoothing = float(options["label_smoothing"])
        # At most as many parts as give each part as many images as in training.
        self._parts = max(1, int(options["accumulate"]) // 2)
        # Batch normalisation needs two values per channel; in the last stage an image of 32 pixels is one.
        per_half = 2 if int(options["image_size"]) <= 32 else 1
        self._is_possible = int(options["batch_size"]) // ranks.size >= 2 * per_half

    def is_due(self, step: int) -> bool:
        """Whether the batch of a step, counted from 0, is measured before that step."""
        return self._is_possible and self._every > 0 and (step + 1) % self._every == 0

    def measure(self, images: Tensor, labels: Tensor) -> GradientNoise:
        """Measure this rank's piece of a batch, (B, 3, S, S) and (B,); a CPU-GPU sync point."""
        with _undisturbed(self._model, images.device):
            (first, b1), (second, b2) = (
                self._gradient(some, theirs)
                for some, theirs in zip(images.tensor_split(2), labels.tensor_split(2), strict=True)
            )
        difference = first - second
        variance = torch.dot(difference, difference) / (1 / b1 + 1 / b2)
        return GradientNoise(variance.item(), torch.dot(first, second).item())

    def _gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """The gradient over one half, (parameters,) float32, and its number of images on all ranks."""
        # The last entry counts images.
        summed = torch.zeros(sum(p.numel() for p in self._parameters) + 1, device=images.device)
        parts = min(self._parts, len(labels))
        for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            with self._precision.autocast():
                logits = self._model(some)  # (B, classes)
                loss = functional.cross_entropy(logits, theirs, label_smoothing=self._smoothing)
            summed[:-1] += self._unscaled(loss) * len(theirs)
            summed[-1] += len(theirs)
        count = self._ranks.sum(summed)[-1].item()
        return summed[:-1] / count, count

    def _unscaled(self, loss: Tensor) -> Tensor:
        """The gradient of a loss, (parameters,) float32."""
        scaler = self._precision.scaler
        scale = scaler.get_scale()
        while True:
            # In memory of its own: a captured step keeps the addresses of the parameters' gradients.
            gradients = torch.autograd.grad(loss * scale, self._parameters, retain_graph=scaler.is_enabled())
            found = torch.cat([each.flatten() for each in gradients]) / scale
            # The scale of the training may be too large for half a batch, and must stay as it is.
            if not scaler.is_enabled() or scale <= 1 or bool(found.isfinite().all()):
                return found
            scale /= 16


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore a model's buffers and the random numbers afterwards."""
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(model.buffers(), before, strict=True):
                    buffer.copy_(value)
