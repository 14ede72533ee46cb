"""What each rank may use: a GPU, or a set of CPU cores; and whether rank 0 works.

Rules
-----
* A node's GPUs are those that the batch system leaves visible to the rank.  Where there are GPUs, a worker
  gets one, by its index among the workers of its node.
* Cores: where the MPI launcher has bound the ranks of a node to different cores, each keeps its own.  Where
  they may all use the same ones, these are divided into contiguous sets of equal size.
* Rank 0 hosts a worker exactly when a device of its node would idle otherwise: when its node does not have
  more ranks than devices (GPUs, or cores where there is no GPU).  ``--master works`` and ``--master idle``
  override that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from mpisweep.records import DeviceShare

__all__ = ["Gpu", "LayoutError", "Node", "default_workers", "master_works", "share_of", "this_node"]

#: CPU-only workers that plain `mpisweep run` starts at most; more cores make the sets larger.
#: Each holds its own copy of the model and the libraries, a gigabyte or so with torch.
_CPU_WORKERS_AT_MOST = 16


class LayoutError(ValueError):
    """Ranks and devices do not fit together; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: what selects it in CUDA_VISIBLE_DEVICES, and its name."""

    selector: str
    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """What this process can see of its node."""

    cores: tuple[int, ...]
    gpus: tuple[Gpu, ...]


def this_node() -> Node:
    """Look at the cores and GPUs that this process may use; may start a program, so before MPI."""
    if hasattr(os, "sched_getaffinity"):
        cores = tuple(sorted(os.sched_getaffinity(0)))
    else:
        cores = tuple(range(os.cpu_count() or 1))
    return Node(cores, _visible_gpus())


def default_workers(node: Node) -> int:
    """How many workers `mpisweep run` starts on this machine: one a GPU, else up to 16, one core or more each."""
    return len(node.gpus) or min(len(node.cores), _CPU_WORKERS_AT_MOST)


def master_works(policy: str, node: Node, ranks_of_node: int) -> bool:
    """Whether rank 0 hosts a worker.

    Args:
        policy: ``works``, ``idle``, or ``auto`` for the rule of this module.
        node: rank 0's node.
        ranks_of_node: how many ranks it has, rank 0 among them.
    """
    if policy != "auto":
        return policy == "works"
    return ranks_of_node <= (len(node.gpus) or len(node.cores))


def share_of(node: Node, worker: int, core_sets: Sequence[tuple[int, ...]], host: str) -> DeviceShare:
    """What one worker of a node may use.

    Args:
        node: as this rank sees it.
        worker: index of this worker among those of its node.
        core_sets: the cores that each worker of the node may use, as its own rank sees them.
        host: name of the node, for messages.

    Raises:
        LayoutError: when there are more workers than GPUs.
    """
    workers = len(core_sets)
    cores = _own_cores(worker, core_sets)
    if not node.gpus:
        return DeviceShare("cpu", f"cpu {_ranges(cores)}", cores)
    if workers > len(node.gpus):
        raise LayoutError(
            f"{host} has {len(node.gpus)} GPUs and {workers} workers; "
            f"start at most {len(node.gpus)} ranks there, or one more if rank 0 is not to work (--master idle)"
        )
    gpu = node.gpus[worker]
    return DeviceShare(
        "cuda:0", f"{gpu.name} #{gpu.selector}", cores, (
            # The tool that counted them counts by bus, and so must CUDA.
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("CUDA_VISIBLE_DEVICES", gpu.selector),
        )
    )


def _own_cores(worker: int, core_sets: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    own = core_sets[worker]
    if any(cores != own for cores in core_sets):
        return own
    workers = len(core_sets)
    if workers > len(own):
        return (own[worker % len(own)],)
    first, last = worker * len(own) // workers, (worker + 1) * len(own) // workers
    return own[first:last]


def _visible_gpus() -> tuple[Gpu, ...]:
    """GPUs by the driver's own tool: asking CUDA itself would make a context in this process."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    tool = shutil.which("nvidia-smi")
    if tool is None or allowed == "":
        return ()
    try:
        listed = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    names = [line.strip() for line in listed.splitlines() if line.strip()]
    if allowed is None:
        return tuple(Gpu(str(index), name) for index, name in enumerate(names))
    selectors = [part.strip() for part in allowed.split(",") if part.strip() not in ("", "-1")]
    return tuple(Gpu(selector, _name_of(selector, names)) for selector in selectors)


def _name_of(selector: str, names: Sequence[str]) -> str:
    if selector.isdigit() and int(selector) < len(names):
        return names[int(selector)]
    return names[0] if len(set(names)) == 1 else "GPU"


def _ranges(cores: Sequence[int]) -> str:
    """``0-3,8`` for (0, 1, 2, 3, 8)."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
