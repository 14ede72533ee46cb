"""Words of the page: what was run, on what, and how that differs from the poster."""

from __future__ import annotations

from typing import Any

import numpy as np
import poster
from comparing import Runs
from sweep import Plan

import mpisweep
from mpisweep.progress import counted

__all__ = ["counted", "counts_text", "device_name", "differences"]


def device_name(sweep: mpisweep.Sweep, decided: dict[str, Any]) -> str:
    """The devices of the last run."""
    workers = sweep.workers
    last = workers[workers["allocation"] == workers["allocation"].max()]
    if decided["plan"]["device"] == "GPU":
        return f"{len(last)} x {', '.join(sorted(set(map(str, last['device_kind']))))}"
    return f"{len(last)} cores ({decided['processor']}), one trial per core"


def counts_text(runs: Runs) -> str:
    """Runs per size: ``3 runs`` or ``2 to 3 runs``."""
    counts = [int((runs.size == size).sum()) for size in runs.sizes]
    if min(counts) == max(counts):
        return counted(counts[0], "run")
    return f"{min(counts)} to {counted(max(counts), 'run')}"


def sizes_text(runs: Runs) -> str:
    """``9: 2, 5, ...``, or their number and range if they are many."""
    sizes = runs.sizes.tolist()
    if len(sizes) > 20:
        return f"{len(sizes)}, from {sizes[0]} to {sizes[-1]}"
    return f"{len(sizes)}: {', '.join(map(str, sizes))}"


def differences(sweep: mpisweep.Sweep, decided: dict[str, Any], plan: Plan, runs: Runs) -> str:
    """What the poster and this sweep do not share."""
    params = sweep.configuration(int(runs.number[0]))
    planned = len(np.unique(sweep.trials["batch_size"]))
    ours = {
        "model": "ResNet50 (torchvision), from scratch",
        "data": f"{params['data']}: 1,797 images of 8 x 8 pixels from scikit-learn, 10 classes",
        "image size": f"{params['image_size']} pixels",
        "optimiser and learning rate": f"{params['optimizer']}, {params['learning_rate']:g}, constant",
        "number format": "chosen by the device: bf16 where it has it" if plan.device == "GPU" else "fp32",
        "device": device_name(sweep, decided),
        "loss": "cross entropy of the training batch before its update; last step, and mean of the last "
        "tenth of the steps",
        "iterations": str(params["num_iter"]),
        "batch sizes": sizes_text(runs) + (f" ({planned} planned)" if planned > len(runs.sizes) else ""),
        "runs per batch size": f"{counts_text(runs)}, each with its own seed",
    }
    versions = ", ".join(
        f"{name} {sweep.environment[name]}"
        for name in ("mpisweep", "torch", "torchvision", "python") if name in sweep.environment
    )  # fmt: skip
    return "\n".join([
        "## What differs", "", "| | the poster | this sweep |", "|---|---|---|",
        *(f"| {name} | {theirs} | {ours[name]} |" for name, theirs in poster.SETTING.items()), "",
        f"The poster's losses, {poster.BEST.loss:.1f} and more, are above ln 1,000 = {np.log(1000):.2f}, "
        "which guessing among 1,000 classes gives. If it has that many classes, its models are worse than "
        f"guessing after {poster.NUM_ITER} iterations; its text does not state the number.", "",
        f"Versions: {versions}.",
    ])  # fmt: skip
