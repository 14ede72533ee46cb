"""Loss and accuracy on held-out images.

digits: a fixed fifth of the images.  cifar10: its test images.  imagefolder: the images under ``val_root``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpisweep.records import Value
from mpisweep.workloads.datasets import Batches, held_out, load_images
from mpisweep.workloads.folder.batches import Target, every_image_once, start_validation
from mpisweep.workloads.folder.device import is_decoding
from mpisweep.workloads.folder.scan import find_images
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.resnet50.recipe import Precision, is_channels_last

__all__ = ["Validation"]

#: Images per batch; without gradients this fits in memory if the training does.
_AT_A_TIME = 256


class Validation:
    """Measures a model on the held-out images, each rank on its part of them.

    Args:
        options: of the trial.
        device: of this rank.
        ranks: of the trial.
        precision: the number format.
        loaders: processes that read an imagefolder.
    """

    def __init__(
        self, options: Mapping[str, Value], device: torch.device, ranks: Ranks, precision: Precision,
        loaders: int,
    ) -> None:  # fmt: skip
        self._ranks = ranks
        self._precision = precision
        self._device = device
        data, size = str(options["data"]), int(options["image_size"])
        layout = torch.channels_last if is_channels_last(options, device) else torch.contiguous_format
        whose = slice(ranks.rank, None, ranks.size)
        self._batches: Callable[[], Batches]
        if data == "imagefolder":
            found = find_images(str(options["val_root"]), "val_root")
            on_device = is_decoding(str(options["decode"]), device)
            target = Target(size, device, layout, loaders, on_device)
            start_validation(found, target)
            self._batches = lambda: every_image_once(found, _AT_A_TIME, target, whose)
        else:
            images = held_out(data, load_images(data, str(options["data_root"])), str(options["data_root"]))
            self._batches = lambda: images.each_once(_AT_A_TIME, size, device, layout, whose)

    def measure(self, model: nn.Module) -> tuple[float, float]:
        """Mean loss and accuracy over all held-out images; leaves no trace in the training."""
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        model.eval()
        with torch.no_grad():
            for images, labels in self._batches():
                with self._precision.autocast():
                    logits = model(images)
                    loss = functional.cross_entropy(logits, labels, reduction="sum")
                sums += torch.stack([loss.double(), _right(logits, labels), _count(labels)])
        model.train()
        loss_sum, right, count = self._ranks.sum(sums).tolist()
        return loss_sum / count, right / count


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).sum().double()


def _count(labels: Tensor) -> Tensor:
    return torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device)
