"""Overhead per trial: a report(), the start of a trial, the built-in training loop.

    python benchmarks/trial.py [--batch_size 4] [--steps 30] [--device cpu]

Both sides of each ratio run in turns, so that other load on the machine affects them equally.
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "bench_workloads.py").write_text(WORKLOADS)
        seconds = [one for _ in range(3) for one in trial_process(folder, "reports", [200_000])[1]]
        print(f"report() of one metric, 200,000 in a row, curves sent in blocks: {1e6 * min(seconds):.2f} us")
        starts, _ = trial_process(folder, "noop", list(range(1, 501)))
        print(f"round trip of a no-op trial on a warm worker: {1e3 * statistics.median(starts):.3f} ms")
        loop(options, folder)


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


def loop(options: argparse.Namespace, folder: Path) -> None:
    """Compare the built-in loop with the same loop in plain PyTorch, in turns."""
    import torch
    from torch.nn import functional
    from torchvision.models import resnet50

    from mpisweep.spec.catalogue import BUILTIN
    from mpisweep.workloads import resnet50 as built_in
    from mpisweep.workloads.trial import Trial, trial_seed

    device = torch.device(options.device)
    cores = torch.get_num_threads()

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> float:
        # Same random numbers as the built-in loop: the speed of a processor may depend on the values.
        torch.manual_seed(trial_seed(1, 0))
        model = resnet50(num_classes=1000).to(device).train()
        if device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        generator = torch.Generator(device).manual_seed(trial_seed(1, 0))
        size = options.image_size
        images = torch.randn(options.batch_size, 3, size, size, generator=generator, device=device)
        labels = torch.randint(1000, (options.batch_size,), generator=generator, device=device)
        for step in range(options.steps + 5):
            if step == 5:
                synchronize()
                started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        synchronize()
        return time.perf_counter() - started

    def ours() -> float:
        params = BUILTIN["resnet50"].defaults | {
            "batch_size": options.batch_size, "image_size": options.image_size, "num_iter": options.steps + 5,
        }  # fmt: skip
        trial = Trial(
            0, params, sweep_seed=1, device=options.device, cores=cores, folder=folder,
            send=lambda curves: None, stop_asked=lambda: False,
        )  # fmt: skip
        metrics = built_in.run(trial)
        return options.batch_size * options.steps / metrics["images_per_second"]

    torch.backends.cudnn.benchmark = True
    bare(), ours()
    pairs = [(bare(), ours()) for _ in range(options.rounds)]
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    rate = options.batch_size * options.steps / min(mine for _, mine in pairs)
    print("  seconds, plain and built-in: " + ", ".join(f"{theirs:.2f} {mine:.2f}" for theirs, mine in pairs))
    print(
        f"built-in loop over plain PyTorch, {options.device}, batch {options.batch_size} at "
        f"{options.image_size} px, {options.steps} steps, median of {options.rounds} pairs: {ratio:.4f} "
        f"({rate:.1f} images/s)"
    )


if __name__ == "__main__":
    main()
