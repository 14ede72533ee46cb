"""Training one model on several ranks: each computes its piece of every batch.

A trial's batch size is that of all its ranks together, so that a configuration means the same experiment on
any number of ranks.  Rank *r* takes the *r*-th piece of each batch, and gradients are averaged; if the pieces
differ in size, each loss is weighted, so that the average is the gradient of the whole batch.  Batch
normalisation uses the statistics of each rank's own piece, as in PyTorch's DistributedDataParallel.

All ranks take common decisions, such as to stop, together: if one rank left alone, the others would wait for
its gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["Ranks"]


class Ranks:
    """The ranks of one trial for its training; a trial of one rank needs no communication.

    Args:
        trial: torchrun's variables for it are in the environment.
        device: of this rank.
        batch_size: images per step, over all ranks.

    Raises:
        ValueError: when there are fewer images than ranks.
    """

    def __init__(self, trial: Trial, device: torch.device, batch_size: int) -> None:
        self.rank, self.size = trial.rank, trial.ranks
        self._device = device
        if batch_size < self.size:
            raise ValueError(f"batch_size {batch_size} cannot be split over {self.size} ranks")
        self._batch_size = batch_size
        if self.size > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """Leave the process group; no communication is possible afterwards."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this rank is rank 0, which saves the checkpoints."""
        return self.rank == 0

    @property
    def piece(self) -> slice:
        """The part of each batch for this rank."""
        first = self.rank * self._batch_size // self.size
        return slice(first, (self.rank + 1) * self._batch_size // self.size)

    @property
    def images(self) -> int:
        """Number of images in that part."""
        return int(self.piece.stop - self.piece.start)

    def together(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the ranks; every rank gets rank 0's parameters."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def weighted(self, loss: Tensor) -> Tensor:
        """Weight this rank's mean loss so that the mean over ranks is that over the whole batch."""
        return loss if self.size == 1 else loss * (self.images * self.size / self._batch_size)

    def mean(self, values: Tensor) -> Tensor:
        """Combine each rank's means into means over all images, (N,) float32."""
        if self.size == 1:
            return values
        summed = values * (self.images / self._batch_size)
        dist.all_reduce(summed)
        return summed

    def sum(self, values: Tensor) -> Tensor:
        """The sums over the ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.most(float(flag)) > 0

    def most(self, value: float) -> float:
        """The largest value of any rank."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=self._device, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return cast(float, found.item())

    def agree(self, value: int, what: str) -> None:
        """Verify that all ranks have the same number.

        Raises:
            RuntimeError: when they differ.
        """
        if self.most(value) != value or self.most(-value) != -value:
            raise RuntimeError(
                f"the ranks of this trial see different {what}s; its folder must be on a shared file system"
            )
