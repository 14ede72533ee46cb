"""Overhead per trial: a report(), the start of a trial, the built-in training loop.

    python benchmarks/trial.py                       all sizes: batch 8 to 1024, 64 and 224 px; needs a GPU
    python benchmarks/trial.py --quick               two small sizes: for a CPU
    python benchmarks/trial.py --only training --batch_sizes 64 256 --within 120 --json speed.json

The training loop is compared with bare PyTorch loops (`bare.py`), each eager, as a CUDA graph and compiled;
a CPU has no graphs.  Both sides run in turns, so that other load on the machine affects them equally.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

WORKLOADS = """
import time

def reports(trial):
    count, started = int(trial.params["x"]), time.perf_counter()
    for step in range(count):
        trial.report(step, loss=0.5)
    return {"loss": (time.perf_counter() - started) / count}

def noop(trial):
    return 0.5
"""


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.only != "training":
            costs(folder)
        if options.only != "costs":
            training_loop(options, folder)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=("costs", "training"), help="(default: both)")
    parser.add_argument("--quick", action="store_true", help="batch 4 and 16 at 64 px")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--executions", nargs="+", help="(default: all that the device has)")
    parser.add_argument("--compile_sizes", type=int, nargs="*", help="batch sizes to compile (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each loop")
    parser.add_argument("--steps", type=int, help="timed steps of a turn (default: 30; on a CPU 3)")
    parser.add_argument(
        "--within", type=float, default=math.inf, metavar="SECONDS", help="begin no size after"
    )
    parser.add_argument("--device", help="cpu or cuda:0 (default: the GPU if there is one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


def costs(folder: Path) -> None:
    """What a report and the start of a trial take."""
    (folder / "bench_workloads.py").write_text(WORKLOADS)
    seconds = [one for _ in range(3) for one in trial_process(folder, "reports", [200_000])[1]]
    print(f"report() of one metric, 200,000 in a row, curves sent in blocks: {1e6 * min(seconds):.2f} us")
    starts, _ = trial_process(folder, "noop", list(range(1, 501)))
    print(f"round trip of a no-op trial on a warm worker: {1e3 * statistics.median(starts):.3f} ms")


def training_loop(options: argparse.Namespace, folder: Path) -> None:
    """The built-in loop beside the bare ones."""
    # Imported here: nothing above runs in a process that has loaded torch.
    import bare
    import torch
    import training

    device = options.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    is_gpu = device.startswith("cuda")
    batch_sizes = [4, 16] if options.quick else options.batch_sizes
    compile_sizes = batch_sizes if options.compile_sizes is None else options.compile_sizes
    plan = training.Plan(
        device=device,
        image_sizes=(64,) if options.quick else tuple(options.image_sizes),
        batch_sizes=tuple(batch_sizes),
        executions=tuple(options.executions or (bare.EXECUTIONS if is_gpu else bare.CPU_EXECUTIONS)),
        compile_sizes=tuple(compile_sizes),
        rounds=options.rounds,
        steps=options.steps or (30 if is_gpu else 3),
        warmup=5 if is_gpu else 1,
        within_s=options.within,
    )
    found = training.compare(plan, folder)
    training.print_table(found)
    if options.json:
        training.write_json(found, options.json)


def trial_process(folder: Path, function: str, values: list[int]) -> tuple[list[float], list[float]]:
    """Run trials one by one in a real trial process; return round-trip seconds and losses."""
    from mpisweep.blocks import AssignedBlock, EndedBlock, decode, encode
    from mpisweep.processes.child import ProcessSetting
    from mpisweep.processes.forkserver import ForkServer
    from mpisweep.processes.trial_events import Result
    from mpisweep.processes.trialprocess import TrialProcess
    from mpisweep.records import DeviceShare

    spec = f'workload = "bench_workloads:{function}"\n[parameters]\nx = {{ from = 1, to = 1000000 }}\n'
    server = ForkServer.start()
    setting = ProcessSetting(spec, "s", folder, folder, folder / "log", 0, None, None)
    process = TrialProcess(server, setting, 0, DeviceShare("cpu", "cpu", ()))
    seconds: list[float] = []
    losses: list[float] = []
    for number, value in enumerate([values[0], *values]):
        body = encode(AssignedBlock([[0, 0]], 0.0, [number], [1], {"x": value}))
        started = time.perf_counter()
        process.give(body, 1)
        while process.busy:
            for happening in process.listen():
                if isinstance(happening, Result):
                    seconds.append(time.perf_counter() - started)
                    ended = decode(happening.body)
                    assert isinstance(ended, EndedBlock)
                    losses.append(ended.metrics["loss"][0] or 0.0)
    process.close()
    server.close()
    # The first trial also waits for the start of the process.
    return seconds[1:], losses[1:]


if __name__ == "__main__":
    main()
