"""The parts of the acceptance on a GPU; `gpu_acceptance.py` runs each in a process of its own.

Tolerances are at the top; what a part has shown is written after every check (`acceptance_record.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from acceptance_record import Part

import mpisweep
from mpisweep.processes.kernel import end_family

HERE = Path(__file__).resolve().parent

#: Largest relative difference between the curves of two executions of a step, in fp32 without TF32.
SAME_FP32 = 1e-3
#: The same in the default number format: in the first steps, and of the mean of all steps.
SAME_EARLY, SAME_MEAN, EARLY_STEPS = 0.03, 0.05, 5

#: Main memory for training in a rehearsal: enough for some ten to sixty images of 33 pixels.
ROOM_MIB = 480


def built_in(search: str, parameters: str, limits: str = "", **fixed: Any) -> str:
    """A sweep file of the built-in workload."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in fixed.items()]
    return (
        f'workload = "resnet50"\n{search}\n[parameters]\n{parameters}\n[fixed]\n' + "\n".join(lines)
        + f"\n[limits]\n{limits}\n"
    )  # fmt: skip


# ------------------------------------------------------------------------------------- parts


def replay(part: Part) -> None:
    """A trial that is replayed gives the same curve bit for bit."""
    sizes = [4, 8] if part.is_rehearsal else [64, 256]
    steps, pixels = (4, 33) if part.is_rehearsal else (30, 64)
    text = built_in(
        "", f"batch_size = {sizes}", data="digits", num_classes=10, deterministic=True, warmup_iter=1,
        learning_rate=0.001, num_iter=steps, image_size=pixels,
    )  # fmt: skip
    swept = part.sweep("deterministic", text)
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "replay", "deterministic.h5", "1"],
        cwd=part.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    said = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("curve of loss")]
    part.check("replay ends in the same state", done.returncode == 0, f"exit code {done.returncode}")
    part.check(
        "the curve is the same bit for bit",
        said == ["curve of loss: the same at every step"],
        "; ".join(said),
    )
    loss = swept.curve(1, "loss").value
    part.note(steps=len(loss), first_and_last_loss=[float(loss[0]), float(loss[-1])])


FAILURES = """
workload = "acceptance_workload:train"
objective = "loss"
[parameters]
x = {{ from = 0, to = {last} }}
[fixed]
with_failures = {with_failures}
num_iter = {steps}
[limits]
{limits}
"""


def failures(part: Part) -> None:
    """After each kind of failure the next trial is what it is without any."""
    (part.folder / "acceptance_workload.py").write_bytes((HERE / "acceptance_workload.py").read_bytes())
    (part.folder / "pid").unlink(missing_ok=True)
    limits = 'memory = "2GiB"' if part.is_rehearsal else ""
    steps = 3 if part.is_rehearsal else 20
    given = {"limits": limits, "steps": steps}
    reference = part.sweep("reference", FAILURES.format(last=6, with_failures="false", **given))
    killer = threading.Thread(target=kill_when_there, args=(part.folder / "pid",), daemon=True)
    killer.start()
    failing = part.sweep("failing", FAILURES.format(last=6, with_failures="true", **given))
    for number, causes, what in ((1, {"exception"}, "assertion"), (3, {"out_of_memory"}, "out of memory"),
                                 (5, {"crash"}, "SIGKILL while it trains")):  # fmt: skip
        row = failing.trials[number]
        told = f"{row['state']}, {row['cause']}: {str(row['message'])[:90]!r}"
        part.check(f"{what} costs its trial, with its cause", row["cause"] in causes, told)
    for number, after in ((0, "nothing yet"), (2, "the assertion"), (4, "out of memory"), (6, "the SIGKILL")):
        then, now = reference.curve(number, "loss").value, failing.curve(number, "loss").value
        is_same = len(now) == steps and np.array_equal(then, now)
        last = f"loss {now[-1]:.9g}, without failures {then[-1]:.9g}" if len(now) else "no curve"
        part.check(f"the trial that follows {after} is the same bit for bit", is_same, last)
    if part.is_rehearsal:
        part.leave_out("assertion on a device: not on a CPU, where the same line raises IndexError")
    else:
        free = failing.trials["free_memory"]
        part.check(
            "the GPU's memory is free again",
            free[6] >= 0.97 * free[0],
            f"{free[6] / 1e9:.1f} of {free[0] / 1e9:.1f} GB",
        )
    killed_as_a_whole(part, FAILURES.format(last=4, with_failures="false", **given), reference)


def kill_when_there(file: Path) -> None:
    """SIGKILL the process that writes its number into a file, two seconds into its training."""
    while not file.exists():
        time.sleep(0.05)
    time.sleep(2.0)
    os.kill(int(file.read_text()), signal.SIGKILL)


def killed_as_a_whole(part: Part, text: str, reference: mpisweep.Sweep) -> None:
    """SIGKILL launcher, ranks and trial in the middle of a sweep, and resume it."""
    file = part.folder / "killed.h5"
    process = part.start("killed", text, "--fresh")
    done = 0
    while process.poll() is None and done < 2:
        time.sleep(0.1)
        try:
            done = int((mpisweep.load(file).trials["state"] == "complete").sum())
        except mpisweep.ResultsError:
            continue
    end_family(process.pid)
    process.wait()
    before = mpisweep.load(file)
    kept = int((before.trials["state"] == "complete").sum())
    code = part.start("killed", text).wait()
    resumed = mpisweep.load(file)
    same = all(
        np.array_equal(reference.curve(number, "loss").value, resumed.curve(number, "loss").value)
        for number in range(len(resumed.trials))
    )
    part.check(
        "a sweep that was killed as a whole resumes, all curves bit for bit",
        code == 0 and same and 2 <= kept < 5,
        f"{kept} of {len(resumed.trials)} trials were complete at the kill; exit code {code}",
    )  # fmt: skip


def curves(part: Part) -> None:
    """The same trial in each execution, in this process.

    Residual branches start at zero.  Otherwise the first steps of ResNet50 amplify rounding: in fp32 two
    memory layouts of the same eager step agree to 1e-6 in the first loss, to 1 to 8% a few steps later.
    """
    import torch
    from training import OPTIONS

    is_gpu = torch.cuda.is_available() and not part.is_rehearsal
    shape = {"batch_size": 32, "image_size": 64, "num_iter": 30} if is_gpu else {
        "batch_size": 8, "image_size": 33, "num_iter": 8,
    }  # fmt: skip
    exact = {"precision": "fp32", "tf32": False, "deterministic": True}
    eager = losses_of(part, OPTIONS["eager"] | exact | shape)
    again = losses_of(part, OPTIONS["eager"] | exact | shape)
    part.check("eager twice, fp32: bit for bit", np.array_equal(eager, again), differs(eager, again))
    if is_gpu:
        graph = losses_of(part, OPTIONS["graph"] | exact | shape)
        part.check(
            f"graph and eager, fp32: within {SAME_FP32:g}",
            relative(eager, graph).max() <= SAME_FP32,
            differs(eager, graph),
        )
    else:
        part.leave_out("graph: not on a CPU")
    usual = losses_of(part, OPTIONS["eager"] | shape)
    early_bound, mean_bound = (SAME_EARLY, SAME_MEAN) if is_gpu else (SAME_FP32, SAME_FP32)
    for execution in ("graph", "compile", "compile + graph") if is_gpu else ("compile",):
        other = losses_of(part, OPTIONS[execution] | shape)
        early = relative(usual, other)[:EARLY_STEPS].max()
        mean = abs(other.mean() / usual.mean() - 1)
        part.check(
            f"{execution} and eager, default number format: {EARLY_STEPS} steps within {early_bound:g}, "
            f"mean of all {len(usual)} within {mean_bound:g}",
            early <= early_bound and mean <= mean_bound,
            f"{early:.2g} and {mean:.2g}; last loss {usual[-1]:.5f} and {other[-1]:.5f}",
        )  # fmt: skip


def losses_of(part: Part, options: dict[str, Any]) -> np.ndarray:
    """The loss curve of a trial of the built-in workload."""
    import torch

    from mpisweep.spec.catalogue import BUILTIN
    from mpisweep.workloads import resnet50
    from mpisweep.workloads.trial import Trial

    params = BUILTIN["resnet50"].defaults | {
        "data": "digits", "num_classes": 10, "learning_rate": 0.001, "warmup_iter": 1,
        "zero_init_gamma": True,
    } | options  # fmt: skip
    found: list[float] = []
    trial = Trial(
        0, params, sweep_seed=1, device="cpu" if part.is_rehearsal else "cuda:0", folder=part.folder,
        cores=torch.get_num_threads(), send=lambda curves: found.extend(curves["loss"].value),
        stop_asked=lambda: False,
    )  # fmt: skip
    resnet50.run(trial)
    trial.flush()
    print(options, found, flush=True)
    return np.array(found)


def relative(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one - other) / np.abs(one)


def differs(one: np.ndarray, other: np.ndarray) -> str:
    gap = relative(one, other)
    return f"largest difference {gap.max():.2g} at step {int(gap.argmax())} of {len(gap)}"


def memory(part: Part) -> None:
    """The largest batch that fits, and a sweep beyond it."""
    fixed: dict[str, Any] = {"num_iter": 2, "warmup_iter": 1, "image_size": 33 if part.is_rehearsal else 224}
    limits = f'memory = "{data_mib() + ROOM_MIB}MiB"' if part.is_rehearsal else 'timeout = "60s"'
    most = 96 if part.is_rehearsal else 4096
    found = part.sweep(
        "largest",
        built_in('search = "largest_batch"', f"batch_size = {{ from = 2, to = {most} }}", limits, **fixed),
    )
    tried = found.trials
    fits = tried["batch_size"][tried["state"] == "complete"]
    fails = tried["batch_size"][tried["cause"] == "out_of_memory"]
    largest, smallest = int(fits.max(initial=0)), int(fails.min(initial=most + 1))
    part.check(
        "largest_batch finds the frontier", 0 < largest < smallest and len(fails) > 0,
        f"{largest} fits, {smallest} does not; {len(tried)} trials, {len(fails)} out of memory",
    )  # fmt: skip
    if largest == 0:
        return
    best = found.best(1)[0]
    peak = float(tried["peak_memory"][tried["batch_size"] == largest][0])
    part.note(
        largest_batch=largest, fastest_batch=int(best["batch_size"]),
        fastest_images_per_second=round(float(best["images_per_second"]), 1),
        peak_memory_at_largest_gb=round(peak / 1e9, 2),
    )  # fmt: skip
    sizes = sorted({max(2, largest * eighths // 8) for eighths in range(1, 13)})
    swept = part.sweep(
        "frontier",
        built_in("", f'batch_size = {{ values = {sizes}, memory = "increasing" }}', limits, **fixed),
    ).trials
    fitting = sorted(map(int, swept["batch_size"][swept["state"] == "complete"]))
    beyond = [int(size) for size in sizes if size > largest]
    out = swept["batch_size"][swept["cause"] == "out_of_memory"]
    inferred = swept["batch_size"][swept["state"] == "infeasible"]
    part.check(
        "memory = increasing: what fits is complete, what does not is out of memory or infeasible",
        fitting == [size for size in sizes if size <= largest]
        and sorted({*map(int, out), *map(int, inferred)}) == beyond and len(inferred) > 0,
        f"{len(fitting)} complete up to {max(fitting, default=0)}, {len(out)} out of memory, {len(inferred)} "
        f"infeasible from {min(map(int, inferred), default=0)}",
    )  # fmt: skip


def data_mib() -> int:
    """What a process that has imported torch holds without training, as `limits.memory` counts it."""
    import torchvision  # noqa: F401

    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmData:")) // 1024


def paper(part: Part) -> None:
    """`make paper`, with the time that this part has."""
    folder = part.folder / "results"
    size = ["--tiny"] if part.is_rehearsal else ["--within", str(part.budget_s - 45)]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE.parent / "paper" / "run.py"), "-o", str(folder), *size], check=False
    )
    part.check("make paper ends", done.returncode == 0, f"exit code {done.returncode}")
    there = [
        name
        for name in ("README.md", "figure1.png", "figure2.png", "budgets.png")
        if (folder / name).exists()
    ]
    part.check("the page and its figures are there", len(there) == 4, ", ".join(there))
    swept = mpisweep.load(folder / "paper.h5")
    complete = swept.trials["state"] == "complete"
    part.check("all trials completed", bool(complete.all()), f"{int(complete.sum())} of {len(complete)}")
    part.note(
        batch_sizes=len(np.unique(swept.trials["batch_size"][complete])),
        seconds=round(time.monotonic() - began, 1),
        median_trial_s=round(float(np.median(swept.trials["wall_time"][complete])), 2),
    )  # fmt: skip


def energy(part: Part) -> None:
    """Joules of the paper's trials, if this mpisweep measures them."""
    file = part.output / "paper" / "results" / "paper.h5"
    if not file.exists():
        part.leave_out("the part `paper` has left no results")
        return
    swept = mpisweep.load(file)
    named = [name for name in swept.metrics if "energy" in name]
    if not named:
        part.leave_out("this mpisweep has no metric of energy")
    for name in named:
        values = swept.trials[swept.metric_column(name)]
        finite = values[np.isfinite(values)]
        if len(finite) == 0:
            part.leave_out(f"{name}: this device reports none")
            continue
        part.check(
            f"{name} is positive", bool((finite > 0).all()), f"{finite.min():.4g} to {finite.max():.4g}"
        )


def training(part: Part) -> None:
    """The built-in loop over the bare ones."""
    file = part.folder / "training.json"
    sizes = (
        ["--batch_sizes", "4", "--image_sizes", "33", "--steps", "3", "--rounds", "2", "--device", "cpu"]
        if part.is_rehearsal
        else ["--batch_sizes", "64", "256", "1024", "8", "--compile_sizes", "256", "--rounds", "2"]
    )
    done = subprocess.run([
        sys.executable, str(HERE / "trial.py"), "--only", "training", "--json", str(file),
        "--within", str(part.budget_s - 40), *sizes,
    ], check=False)  # fmt: skip
    part.check("the benchmark ends", done.returncode == 0, f"exit code {done.returncode}")
    found = json.loads(file.read_text(encoding="utf-8"))
    least = 0.5 if part.is_rehearsal else 0.95
    for ratio in found["ratios"]:
        best, default = ratio["best_over_best_bare"], ratio["default_over_best_bare"]
        part.check(
            f"batch {ratio['batch_size']} at {ratio['image_size']} px: built in / best bare >= {least}",
            best is not None and best >= least,
            f"{best:.3f} ({ratio['best_built_in']} over {ratio['best_bare']}), {default:.3f} by default "
            f"({ratio['default']})" if best and default else "not measured",
        )  # fmt: skip
    for line in found["not_run"]:
        part.leave_out(line)


PARTS: dict[str, Callable[[Part], None]] = {
    one.__name__: one for one in (replay, failures, curves, memory, paper, energy, training)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("output", type=Path)
    parser.add_argument("budget_s", type=float)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    folder = options.output / options.name
    PARTS[options.name](Part(folder, options.output, options.budget_s, is_rehearsal=options.rehearse))


if __name__ == "__main__":
    main()
