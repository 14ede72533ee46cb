"""The poster's own numbers, as printed, and what it leaves out.

Tatsuro Hanyu, Masatoshi Kawai, Takahiro Katagiri, Tasuku Hiraishi, Tetsuya Hoshino, Toru Nagai: "Auto-tuning
of Hyperparameters by Parallel Search Using Xcrypt" (Nagoya University and Kyoto Tachibana University).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BEST", "CITATION", "DEFAULT", "HIGHEST", "LOWEST", "NUM_ITER", "SETTING", "TABLE_1", "PosterRow"]

CITATION = (
    "T. Hanyu, M. Kawai, T. Katagiri, T. Hiraishi, T. Hoshino, T. Nagai: *Auto-tuning of Hyperparameters by "
    "Parallel Search Using Xcrypt* (poster; Nagoya University, Kyoto Tachibana University)"
)


@dataclass(frozen=True)
class PosterRow:
    """One line of Table 1."""

    rank: str
    batch_size: int
    loss: float
    time_s: float


#: Table 1: "Top Five Batch Size Optimization Results by Smallest Loss".
TABLE_1 = (
    PosterRow("1st", 210, 8.4305, 71.3),
    PosterRow("2nd", 223, 8.4332, 74.8),
    PosterRow("3rd", 202, 8.4385, 68.1),
    PosterRow("4th", 192, 8.4415, 80.5),
    PosterRow("5th", 231, 8.4458, 89.6),
)
DEFAULT = PosterRow("default", 256, 8.5044, 95.0)
BEST = TABLE_1[0]

#: "Exploration covered batch sizes ranging from 1 to 700"; `--num_iter=300` in its job script.
LOWEST, HIGHEST, NUM_ITER = 1, 700, 300

#: What differs between two such sweeps -> what the poster says of it.
SETTING = {
    "model": "ResNet50",
    "data": "not stated",
    "image size": "not stated",
    "optimiser and learning rate": "not stated",
    "number format": "not stated",
    "device": "resource group cx-share of Flow Type II (one V100 of a shared node)",
    "loss": "not stated whether of the last step, and of which images",
    "iterations": "300",
    "batch sizes": "700: every one from 1 to 700",
    "runs per batch size": "not stated; one by the count of 700 configurations",
}
