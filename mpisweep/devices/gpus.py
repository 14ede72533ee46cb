"""Find the GPUs that this process may use without creating a CUDA context.

NVIDIA GPUs come from ``nvidia-smi -L``, AMD GPUs from the kernel driver's folder in sysfs.  Variables that
restrict visible devices apply:

* ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or prefixes of UUIDs, also of MIG instances;
* ``ROCR_VISIBLE_DEVICES``: indices; ``HIP_VISIBLE_DEVICES``: indices among those.

A GPU with MIG instances counts as its instances, because CUDA gives a process at most one of them.

Sources: CUDA C++ Programming Guide, "CUDA Environment Variables"; NVIDIA MIG User Guide,
"CUDA_VISIBLE_DEVICES"; ROCm documentation, "GPU isolation techniques".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mpisweep.dataclass import dataclass

__all__ = ["Gpu", "amd_gpus", "environment_for", "nvidia_gpus", "visible_gpus"]

_GPU_LINE = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[^)]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
#: Devices of the AMD driver; those without compute units are CPUs.
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of one.

    Attributes:
        selector: its value in the vendor's environment variable.
        name: product name.
        identity: the same in every process that sees this GPU.
        maker: ``nvidia`` or ``amd``.
    """

    selector: str
    name: str
    identity: str
    maker: str = "nvidia"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """Find the GPUs that this process may use; starts a program, so call it before MPI_Init."""
    # As shutil.which does, whose module takes 1.5 ms to import.
    tools = (Path(folder, "nvidia-smi") for folder in os.get_exec_path())
    tool = next((tool for tool in tools if os.access(tool, os.X_OK)), None)
    if tool is not None and environment.get("CUDA_VISIBLE_DEVICES") != "":
        import subprocess

        try:
            listed = subprocess.run(
                [tool, "-L"], capture_output=True, text=True, timeout=60, check=True
            ).stdout  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            listed = ""
        found = nvidia_gpus(listed, environment.get("CUDA_VISIBLE_DEVICES"))
        if found:
            return found
    return amd_gpus(_KFD, environment)


def nvidia_gpus(listed: str, allowed: str | None) -> tuple[Gpu, ...]:
    """Parse the output of ``nvidia-smi -L``.

    Args:
        listed: its output.
        allowed: ``CUDA_VISIBLE_DEVICES``; None if not set.
    """
    #: Index -> the GPU, or its MIG instances.
    by_index: dict[str, list[Gpu]] = {}
    whole: dict[str, str] = {}
    index = ""
    for line in listed.splitlines():
        if found := _GPU_LINE.match(line):
            index, name, uuid = found.groups()
            whole[index] = uuid
            by_index[index] = [Gpu(index, name, uuid)]
        elif (found := _MIG_LINE.match(line)) and index:
            profile, uuid = found.groups()
            if by_index[index][0].selector == index:
                name, by_index[index] = by_index[index][0].name, []
            else:
                name = by_index[index][0].name.partition(" MIG ")[0]
            by_index[index].append(Gpu(uuid, f"{name} MIG {profile}", uuid))
    if allowed is None:
        return tuple(gpu for gpus in by_index.values() for gpu in gpus)
    chosen: list[Gpu] = []
    for selector in (part.strip() for part in allowed.split(",")):
        gpus = by_index.get(selector) or [
            gpu
            for number, candidates in by_index.items()
            for gpu in candidates
            if selector.startswith(("GPU-", "MIG-"))
            and (gpu.identity.startswith(selector) or whole[number].startswith(selector))
        ]
        if not gpus:
            # As in CUDA, an invalid selector hides all that follow.
            break
        chosen += [gpu for gpu in gpus if gpu not in chosen]
    return tuple(chosen)


def amd_gpus(topology: Path, environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Find the GPUs of AMD's kernel driver.

    Args:
        topology: its folder in sysfs.
        environment: may contain the variables that restrict visible devices.
    """
    found: list[Gpu] = []
    for node in sorted(_folders(topology), key=lambda folder: int(folder.name)):
        try:
            lines = (node / "properties").read_text(encoding="ascii").splitlines()
            name = (node / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        facts = dict(line.split(maxsplit=1) for line in lines if " " in line)
        if int(facts.get("simd_count", "0")) == 0 or not _may_open(facts.get("drm_render_minor", "")):
            continue
        found.append(
            Gpu(str(len(found)), name or "AMD GPU", f"amd-{facts.get('unique_id', node.name)}", "amd")
        )
    chosen = _chosen(found, environment.get("ROCR_VISIBLE_DEVICES"))
    # The ROCm runtime falls back to CUDA's variable.
    return tuple(
        _chosen(chosen, environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES")))
    )


def environment_for(gpus: Sequence[Gpu]) -> tuple[tuple[str, str], ...]:
    """Variables that restrict a trial process to these GPUs."""
    selectors = ",".join(gpu.selector for gpu in gpus)
    if gpus[0].maker == "amd":
        own = ",".join(str(position) for position in range(len(gpus)))
        return (
            ("ROCR_VISIBLE_DEVICES", selectors),
            ("HIP_VISIBLE_DEVICES", own),
            ("CUDA_VISIBLE_DEVICES", own),
        )
    # nvidia-smi numbers GPUs by PCI bus; CUDA must do the same.
    return (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), ("CUDA_VISIBLE_DEVICES", selectors))


def _chosen(gpus: Sequence[Gpu], allowed: str | None) -> list[Gpu]:
    if allowed is None:
        return list(gpus)
    positions = [part.strip() for part in allowed.split(",")]
    return [gpus[int(part)] for part in positions if part.isdigit() and int(part) < len(gpus)]


def _folders(topology: Path) -> Iterable[Path]:
    try:
        return [folder for folder in topology.iterdir() if folder.name.isdigit()]
    except OSError:
        return []


def _may_open(minor: str) -> bool:
    """Whether the container or cgroup of this process permits the GPU."""
    device = Path(f"/dev/dri/renderD{minor}")
    return not device.exists() or os.access(device, os.R_OK | os.W_OK)
