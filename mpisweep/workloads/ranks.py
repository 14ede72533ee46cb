"""Training one model on several ranks: each computes its share of every batch, and gradients are averaged.

The batch size of a trial is that of all its ranks together, so that the same configuration means the same
experiment however many there are.  Rank *r* takes the *r*-th piece of each batch; where the pieces are not
equally large, its loss is weighted, so that the averaged gradient is that of the whole batch.  Batch
normalisation uses the statistics of each rank's own piece, as PyTorch's DistributedDataParallel does.

Decisions that all ranks must take alike, such as to stop, are taken together: a rank that left alone would
leave the others waiting for its gradients.
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
    """The ranks of one trial, as its training sees them; a trial of one rank needs no communication.

    Args:
        trial: the variables that torchrun would set are in the environment.
        device: of this rank.
        batch_size: images in one step of all ranks together.

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
        """Let the others go; nothing may be asked of them after that."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for the trial."""
        return self.rank == 0

    @property
    def piece(self) -> slice:
        """Which images of each batch are this rank's."""
        first = self.rank * self._batch_size // self.size
        return slice(first, (self.rank + 1) * self._batch_size // self.size)

    @property
    def images(self) -> int:
        """How many of each batch are this rank's."""
        return int(self.piece.stop - self.piece.start)

    def together(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over the ranks; every rank gets rank 0's parameters."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def weighted(self, loss: Tensor) -> Tensor:
        """The mean loss of this rank's images, such that the mean over the ranks is that over the whole
        batch.
        """
        return loss if self.size == 1 else loss * (self.images * self.size / self._batch_size)

    def mean(self, values: Tensor) -> Tensor:
        """The means over all images of means over each rank's own, (N,) float32."""
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
        """Whether any rank says so."""
        return self.most(float(flag)) > 0

    def most(self, value: float) -> float:
        """The largest value of any rank."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=self._device, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return cast(float, found.item())

    def agree(self, value: int, what: str) -> None:
        """See that all ranks have the same number.

        Raises:
            RuntimeError: when they have not.
        """
        if self.most(value) != value or self.most(-value) != -value:
            raise RuntimeError(
                f"the ranks of this trial do not see the same {what}: is its folder on a shared file system?"
            )
