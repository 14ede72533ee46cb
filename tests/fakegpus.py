"""A node with NVIDIA GPUs as far as nvidia-smi and NVML say; pynvml itself is the real one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from libraries import build_library

__all__ = ["FakeGpu", "fake_gpus", "uuid_of"]

SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True)
class FakeGpu:
    """What its sensors say; a negative number for a sensor that it does not have."""

    watts: float = 300.0
    free_bytes: int = 139 << 30
    clock_mhz: int = 1980
    errors: int = 0
    busy_percent: int = 50
    name: str = "NVIDIA H200"


def uuid_of(index: int) -> str:
    """UUID of a GPU of the node; the order of UUIDs is not that of indices."""
    return f"GPU-{9 - index}2345678-1234-1234-1234-123456789012"


def fake_gpus(folder: Path, environment: dict[str, str], gpus: list[FakeGpu]) -> None:
    """Have programs of this environment find these GPUs.

    Args:
        folder: for the files that describe them; call it again to change what the sensors say.
        environment: of the programs.
        gpus: by their indices; NVML lists them in the reverse order.
    """
    folder.mkdir(exist_ok=True)
    library, described, tool = folder / "libnvidia-ml.so.1", folder / "gpus", folder / "nvidia-smi"
    if not library.exists():
        build_library(SOURCE, library)
    listed = [f"GPU {index}: {gpu.name} (UUID: {uuid_of(index)})" for index, gpu in enumerate(gpus)]
    tool.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(listed) + "\nEND\n")
    tool.chmod(0o755)
    lines = [
        f"{uuid_of(index)} {gpu.watts} {gpu.free_bytes} {gpu.clock_mhz} {gpu.errors} {gpu.busy_percent}\n"
        for index, gpu in enumerate(gpus)
    ]
    described.with_name("gpus.new").write_text("".join(reversed(lines)))
    described.with_name("gpus.new").replace(described)
    environment["NVML_GPUS"] = str(described)
    # A file per process that holds memory, named after it: how many bytes.
    processes = folder / "processes"
    processes.mkdir(exist_ok=True)
    environment["NVML_PROCESSES"] = str(processes)
    if str(folder) not in environment["PATH"]:
        environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])
        libraries = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    environment.pop("CUDA_VISIBLE_DEVICES", None)
