"""The workload of the part `failures`: the built-in training, or a failure, by the number of the trial."""

import os
import time
from pathlib import Path

import torch
from torch.nn import functional

from mpisweep.spec.catalogue import BUILTIN
from mpisweep.workloads import resnet50

#: What each trial does, by `x`.
ACTS = ("train", "assert", "train", "out of memory", "train", "killed", "train")

SMALL = {
    "data": "digits", "image_size": 33, "num_classes": 10, "batch_size": 4, "deterministic": True,
    "learning_rate": 0.001, "warmup_iter": 1,
}  # fmt: skip


def train(trial):
    act = ACTS[trial.params["x"]] if trial.params["with_failures"] else "train"
    if act == "assert":
        # Label 1000 of 10: an assertion on the device on a GPU, an exception on a CPU.
        labels = torch.full((4,), 1000, device=trial.device)
        print(functional.cross_entropy(torch.zeros(4, 10, device=trial.device), labels).item())
    if act == "out of memory":
        held = []
        while True:
            held.append(torch.ones(2**26, device=trial.device))  # 256 MiB
    free = torch.cuda.mem_get_info()[0] if trial.device != "cpu" else float("nan")
    if act == "killed":
        pid = Path(__file__).parent / "pid"
        pid.with_suffix(".new").write_text(str(os.getpid()))
        pid.with_suffix(".new").rename(pid)
    steps = 10_000 if act == "killed" else trial.params["num_iter"]
    trial.params = BUILTIN["resnet50"].defaults | SMALL | {"num_iter": steps}
    began = time.monotonic()
    metrics = resnet50.run(trial)
    return metrics | {"free_memory": free, "seconds": time.monotonic() - began}
