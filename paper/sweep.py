"""The sweep behind the page: the poster's, as large as the device and the time allow.

A pilot of three sizes measures what trials take here.  Then the space grows to the finest spacing of sizes
whose trials are expected to end in time, and the same results file is resumed.

Every size is run several times, each time with another seed (`repeats`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mpisweep
from mpisweep.devices.nodes import this_node

__all__ = [
    "PLANS",
    "Plan",
    "SweepFailedError",
    "device_kind",
    "plan_of",
    "run_sweep",
    "sizes_of",
    "tiny",
]

#: Seconds that a start of the ranks takes, with importing torch.
_START_S = 15.0
#: Trials of a full machine take longer than those of the pilot.
_MARGIN = 1.15
#: The walltime leaves as much beyond the plan: a sweep stops some ten seconds before its walltime ends.
_SLACK_S = 60.0


class SweepFailedError(Exception):
    """The sweep did not run; the message is for the user."""


@dataclass(frozen=True)
class Plan:
    """The sweep for one kind of device."""

    device: str
    lowest: int
    highest: int
    baseline: int
    #: Distances between sizes, the finest first.
    spacings: tuple[int, ...]
    repeats: int
    num_iter: int
    image_size: int
    #: Options beyond these; the recipe is the same on every device.
    more: tuple[str, ...]
    within_s: float


PLANS = {
    "GPU": Plan(
        "GPU", 1, 700, 256, (10, 14, 20, 28, 35, 50, 70, 100, 140), 3, 300, 64, ("val_every = 0",), 1500.0
    ),
    # The poster's default is 256 of 700; 12 of 32 is the same share.
    "CPU": Plan("CPU", 2, 32, 12, (2, 3, 4, 5, 6, 10, 15), 3, 40, 32, (), 400.0),
}


def tiny(plan: Plan) -> Plan:
    """A plan for a rehearsal: everything runs, and nothing can be concluded."""
    return Plan("CPU", 2, 8, 4, (2, 6), 2, 6, 32, plan.more, 120.0)


def plan_of(decided: dict[str, Any]) -> Plan:
    """The plan that :func:`run_sweep` has recorded."""
    found = dict(decided["plan"])
    return Plan(**found | {name: tuple(found[name]) for name in ("spacings", "more")})


def sizes_of(plan: Plan, spacing: int) -> list[int]:
    """Batch sizes: every `spacing`-th one, both ends and the default."""
    grid = range(spacing, plan.highest + 1, spacing)
    return sorted({size for size in grid if size >= plan.lowest} | {plan.lowest, plan.baseline, plan.highest})


def sweep_text(plan: Plan, sizes: list[int], repeats: int) -> str:
    """The sweep file."""
    return "\n".join([
        'name      = "paper"',
        'workload  = "resnet50"',
        'objective = "loss_mean"',
        "seed      = 1",
        f"repeats   = {repeats}",
        "",
        "[parameters]",
        f"batch_size = {sizes}",
        "",
        "[fixed]",
        f"num_iter = {plan.num_iter}",
        'data = "digits"',
        f"image_size = {plan.image_size}",
        "num_classes = 10",
        'optimizer = "adamw"',
        "learning_rate = 1e-3",
        f"warmup_iter = {min(5, plan.num_iter // 3)}",
        *plan.more,
        "",
        "[baseline]",
        f"batch_size = {plan.baseline}",
        "",
        "[limits]",
        'timeout = "10m"',
        "",
    ])  # fmt: skip


def run_sweep(plan: Plan, file: Path, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the pilot, then all sizes that fit into the time.

    Args:
        plan: of the sweep.
        file: for the results.
        earlier: what this returned for the results that are there; they are kept and serve as the pilot.

    Returns:
        What was decided: spacing, repeats, predicted and actual seconds.

    Raises:
        SweepFailedError: when no size completes.
    """
    began = time.monotonic()
    known: set[int] = set()
    if earlier is None:
        pilot = [plan.lowest, plan.baseline, plan.highest]
        mpisweep_run(sweep_text(plan, pilot, 1), file, plan.within_s + _SLACK_S, "--fresh")
    measured = mpisweep.load(file)
    left_s = plan.within_s - (time.monotonic() - began) - _START_S
    workers = max(1, measured.most_workers)
    spacing, repeats, predicted_s = choose(plan, measured, left_s * workers)
    if earlier is not None:
        # A sweep may grow, and nothing else.
        known, repeats = set(measured.trials["batch_size"].tolist()), max(repeats, earlier["repeats"])
    sizes = sorted({*sizes_of(plan, spacing), *known})
    mpisweep_run(sweep_text(plan, sizes, repeats), file, left_s + _SLACK_S)
    return {
        "plan": asdict(plan),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "spacing": spacing,
        "repeats": repeats,
        "predicted_s": round(predicted_s / workers, 1),
        "seconds": round(time.monotonic() - began + (earlier["seconds"] if earlier else 0.0), 1),
    }


def choose(plan: Plan, pilot: mpisweep.Sweep, seconds: float) -> tuple[int, int, float]:
    """The finest spacing whose trials are expected to take `seconds` or less in sum, its repeats, the sum."""
    done = pilot.trials[np.isfinite(pilot.trials["wall_time"])]
    size, took = done["batch_size"], done["wall_time"]
    known = np.unique(size)
    usual = [took[size == one].mean() for one in known]
    repeats = range(plan.repeats, 0, -1)
    choices = [(spacing, plan.repeats) for spacing in plan.spacings]
    choices += [(plan.spacings[-1], fewer) for fewer in repeats]
    for spacing, count in choices:
        expected = np.interp(sizes_of(plan, spacing), known, usual).sum() * count * _MARGIN
        if expected - took.sum() <= seconds:
            break
    return spacing, count, float(expected - took.sum())


def mpisweep_run(text: str, file: Path, walltime_s: float, *more: str) -> None:
    """Run or resume the sweep with the launcher, as a user does; the walltime ends it in order."""
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mpisweep", "run", "sweep.toml", "-o", file.name, *more]
    done = subprocess.run([*command, "--walltime", str(max(60, int(walltime_s)))], cwd=folder, check=False)
    # 3: stopped by the walltime, which is an answer too.
    if done.returncode not in (0, 3):
        raise SweepFailedError(
            f"mpisweep run of {folder / 'sweep.toml'} ended with exit code {done.returncode}"
        )


def device_kind() -> str:
    """``GPU`` where mpisweep finds one."""
    return "GPU" if this_node().gpus else "CPU"


def processor() -> str:
    """Model of the processor, from the kernel."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
