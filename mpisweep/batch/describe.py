"""The lines of ``mpisweep run --dry-run``: how a run would start, and when it would stop."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.registry import batch_system
from mpisweep.batch.start import Start
from mpisweep.batch.walltime import StopPlan

__all__ = ["describe_end", "describe_start"]


def describe_start(start: Start, command: Sequence[str], gpus_per_node: int) -> list[str]:
    """Describe the allocation, the ranks per node and the command.

    Args:
        start: how the ranks would be started.
        command: the whole command line.
        gpus_per_node: 0 for none or unknown.
    """
    rows = [("node", "ranks", "GPUs")]
    rows += [
        (node.host or "this machine", str(node.ranks), str(gpus_per_node or "none"))
        for node in start.placement.nodes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    launcher = "" if start.launcher is None else f" by {start.launcher.kind.value}"
    return [
        f"allocation  {_allocation(start.allocation)}",
        f"ranks       {start.placement.ranks}{launcher or ', without MPI'}",
        *(f"  {line}" for line in table),
        f"command     {shlex.join(command)}",
    ]


def describe_end(
    allocation: Allocation, ends_at: float | None, by: str, plan: StopPlan | None, now: float
) -> list[str]:
    """Describe when the run must end, and when the sweep stops for that.

    Args:
        allocation: of the run.
        ends_at: in seconds since 1970; None for unknown.
        by: the source of that time.
        plan: for that end.
        now: seconds since 1970; time 0 of the plan.
    """
    if ends_at is None or plan is None:
        system = batch_system(allocation.system)
        if system is None:
            return ["ends        when every trial has ended"]
        return [f"ends        unknown ({system.title} does not report it); set {system.how_to_say}"]
    return [
        f"ends        {_clock(ends_at)}, in {_span(ends_at - now)} ({by})",
        f"stops       {_clock(now + plan.stop_at)}: {plan.trials_end_at - plan.stop_at:g} s of grace for "
        f"running trials and {plan.ends_at - plan.trials_end_at:.1f} s for closing before that",
    ]


def _allocation(allocation: Allocation) -> str:
    system = batch_system(allocation.system)
    if system is None:
        return "none; this machine"
    nodes = len(allocation.nodes)
    facts = (
        [f"{nodes} nodes" if nodes != 1 else "1 node"] if nodes else ["nodes not known: this machine alone"]
    )
    if allocation.ranks is not None:
        facts.append(f"{allocation.ranks} ranks asked for")
    return f"{system.title} job {allocation.job_id}: {', '.join(facts)}"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _span(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
