"""The built-in training loop beside the bare ones: images per second over batch and image sizes.

Within a size the loops take turns, so that a busy machine is busy for both sides of each ratio; the
median of the turns counts.  Each turn builds its model and frees it, as each trial of a sweep does; a
compiled program is kept from turn to turn.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bare
import torch
from bare import Shape, Speed

from mpisweep.spec.catalogue import BUILTIN
from mpisweep.workloads import resnet50 as built_in
from mpisweep.workloads.trial import Trial

__all__ = ["Plan", "compare", "describe_device", "print_table"]

LOOPS = ("bare", "built in")
#: Execution -> the built-in workload's options.
OPTIONS = {
    "eager": {"step": "eager"},
    "graph": {"step": "graph"},
    "compile": {"step": "eager", "compile": True},
    "compile + graph": {"step": "graph", "compile": True},
}


@dataclass(frozen=True)
class Plan:
    """What is compared; sizes are run in this order."""

    device: str
    image_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    executions: tuple[str, ...]
    #: Batch sizes that are compiled too: compiling takes longer than all else.
    compile_sizes: tuple[int, ...]
    rounds: int
    steps: int
    warmup: int
    within_s: float = math.inf


@dataclass
class Cell:
    """One loop at one size; one entry per turn."""

    image_size: int
    batch_size: int
    execution: str
    loop: str
    images_per_second: list[float] = field(default_factory=list)
    setup_s: list[float] = field(default_factory=list)
    peak_memory_bytes: float = math.nan
    problem: str = ""

    @property
    def rate(self) -> float:
        """Median images per second of the turns; NaN if none was measured."""
        return statistics.median(self.images_per_second) if self.images_per_second else math.nan


def compare(plan: Plan, folder: Path) -> dict[str, Any]:
    """Run the whole comparison.

    Returns:
        A JSON document: device, one entry per cell, one ratio per size, sizes for which time did not suffice.
    """
    ends = time.monotonic() + plan.within_s
    cells: list[Cell] = []
    not_run: list[str] = []
    for image_size, batch_size, executions in groups(plan):
        if time.monotonic() >= ends:
            not_run.append(f"batch {batch_size} at {image_size} px: {', '.join(executions)}")
            continue
        found = [Cell(image_size, batch_size, e, loop) for e in executions for loop in LOOPS]
        in_turns(plan, found, folder, ends)
        cells += found
    return {
        "what": "images per second of ResNet50's training step, built-in and bare loops in turns",
        "device": describe_device(plan.device),
        "plan": asdict(plan) | {"within_s": plan.within_s if math.isfinite(plan.within_s) else None},
        "cells": [asdict(cell) | {"median_images_per_second": cell.rate} for cell in cells],
        "ratios": [ratio_of(group, plan.device) for group in by_size(cells)],
        "not_run": not_run,
    }


def groups(plan: Plan) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Sizes with the executions that take turns there; what compiles comes last."""
    quick = tuple(e for e in plan.executions if not e.startswith("compile"))
    slow = tuple(e for e in plan.executions if e.startswith("compile"))
    sizes = list(itertools.product(plan.image_sizes, plan.batch_sizes))
    # Where everything fits, a size is done at once: its ratios compare what ran side by side.
    together = quick + slow if math.isinf(plan.within_s) else quick
    for image_size, batch_size in sizes:
        compiled = batch_size in plan.compile_sizes
        yield image_size, batch_size, together if compiled else quick
    if together == quick and slow:
        for image_size, batch_size in sizes:
            if batch_size in plan.compile_sizes:
                yield image_size, batch_size, slow


def in_turns(plan: Plan, cells: list[Cell], folder: Path, ends: float) -> None:
    """Give each loop its turns; every second round goes backwards."""
    # A loop compiled for one size must not be found too full of programs for others.
    torch._dynamo.reset()
    for number in range(plan.rounds):
        for cell in cells if number % 2 == 0 else reversed(cells):
            if cell.problem or (number > 0 and time.monotonic() >= ends):
                continue
            shape = Shape(cell.batch_size, cell.image_size, plan.steps, plan.warmup)
            try:
                if cell.loop == "bare":
                    speed = bare.bare_loop(cell.execution, shape, torch.device(plan.device))
                else:
                    speed = built_in_loop(cell.execution, shape, plan.device, folder)
            except torch.OutOfMemoryError:
                cell.problem = "out of memory"
                continue
            finally:
                gc.collect()
                if plan.device.startswith("cuda"):
                    torch.cuda.empty_cache()
            cell.images_per_second.append(speed.images_per_second)
            cell.setup_s.append(speed.setup_s)
            cell.peak_memory_bytes = speed.peak_memory_bytes


def built_in_loop(execution: str, shape: Shape, device: str, folder: Path) -> Speed:
    """One trial of the built-in workload, in this process."""
    params = BUILTIN["resnet50"].defaults | OPTIONS[execution] | {
        "batch_size": shape.batch_size, "image_size": shape.image_size, "warmup_iter": shape.warmup,
        "num_iter": shape.steps + shape.warmup, "precision": bare.best_precision(torch.device(device)),
    }  # fmt: skip
    trial = Trial(
        0, params, sweep_seed=1, device=device, cores=torch.get_num_threads(), folder=folder,
        send=lambda curves: None, stop_asked=lambda: False,
    )  # fmt: skip
    metrics = built_in.run(trial)
    return Speed(metrics["images_per_second"], metrics["setup_time"], metrics["peak_memory"])


def by_size(cells: list[Cell]) -> list[list[Cell]]:
    """The cells of each size."""
    sizes = dict.fromkeys((cell.image_size, cell.batch_size) for cell in cells)
    return [[c for c in cells if (c.image_size, c.batch_size) == size] for size in sizes]


def ratio_of(cells: list[Cell], device: str) -> dict[str, Any]:
    """The built-in loop as it is without options, and at its best, over the best of the bare ones."""
    default = "graph" if device.startswith("cuda") else "eager"
    rates = {(c.loop, c.execution): c.rate for c in cells if math.isfinite(c.rate)}
    best = {
        loop: max((e for name, e in rates if name == loop), key=lambda e: rates[loop, e], default=None)
        for loop in LOOPS
    }
    fastest = rates.get(("bare", best["bare"]), math.nan)
    return {
        "image_size": cells[0].image_size,
        "batch_size": cells[0].batch_size,
        "best_bare": best["bare"],
        "best_built_in": best["built in"],
        "best_over_best_bare": rates.get(("built in", best["built in"]), math.nan) / fastest,
        "default": default,
        "default_over_best_bare": rates.get(("built in", default), math.nan) / fastest,
        "same_execution": {
            e: rates["built in", e] / rates["bare", e]
            for e in OPTIONS if ("built in", e) in rates and ("bare", e) in rates
        },
    }  # fmt: skip


def describe_device(device: str) -> dict[str, Any]:
    """Names and versions behind the numbers."""
    is_gpu = device.startswith("cuda")
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "name": torch.cuda.get_device_name(0) if is_gpu else processor,
        "kind": "GPU" if is_gpu else "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_gpu else None,
        "precision": bare.best_precision(torch.device(device)),
    }


def print_table(found: dict[str, Any]) -> None:
    """Print one line per size and execution, then the ratios."""
    device = found["device"]
    print(
        f"ResNet50's training step on {device['name']} ({device['precision']}, torch {device['torch']}, "
        f"{device['threads']} threads), medians of {found['plan']['rounds']} turns"
    )
    print(
        f"{'px':>5} {'batch':>6}  {'execution':<16} {'bare':>18} {'built in':>18} {'ratio':>7} "
        f"{'setup s':>15}"
    )
    cells = found["cells"]
    for mine, theirs in zip(cells[1::2], cells[::2], strict=True):
        ratio = mine["median_images_per_second"] / theirs["median_images_per_second"]
        setup = (
            f"{min(theirs['setup_s'], default=math.nan):.1f} / {max(mine['setup_s'], default=math.nan):.1f}"
        )
        print(
            f"{mine['image_size']:>5} {mine['batch_size']:>6}  {mine['execution']:<16} "
            f"{speed_text(theirs):>18} {speed_text(mine):>18} {ratio:>7.3f} {setup:>15}"
        )
    for ratio in found["ratios"]:
        print(
            f"  batch {ratio['batch_size']} at {ratio['image_size']} px: built in over best bare "
            f"({ratio['best_bare']}): {ratio['default_over_best_bare']:.3f} as it is ({ratio['default']}), "
            f"{ratio['best_over_best_bare']:.3f} at its best ({ratio['best_built_in']})"
        )
    for line in found["not_run"]:
        print(f"  not run, out of time: {line}")


def speed_text(cell: dict[str, Any]) -> str:
    rate = cell["median_images_per_second"]
    return cell["problem"] or f"{rate:,.1f}/s {1e3 * cell['batch_size'] / rate:,.1f} ms"


def write_json(found: dict[str, Any], path: Path) -> None:
    """Write the document; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(without_nan(found), indent=1) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
