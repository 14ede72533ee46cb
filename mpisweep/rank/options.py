"""What a rank is told by the command that has started it, and what it finds out before MPI is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep.batch.jobfacts import Allocation

if TYPE_CHECKING:
    from mpisweep.progress import ProgressSink

__all__ = ["Place", "RankOptions"]


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What the command line says beside the sweep file."""

    path: Path
    fresh: bool
    master: str
    walltime_s: float | None
    sink: ProgressSink
    #: Names the command that has started the ranks; the same when it starts them again.
    launch: str = ""
    #: Why the sweep cannot run, where that was seen already; rank 0 tells the others, which wait for it.
    refusal: str = ""
    #: In how many shares several allocations do the sweep together; None where this one has it alone.
    split: int | None = None
    #: Whether trial processes' imports come from one file, see :mod:`mpisweep.processes.staging`.
    stage_env: bool = False
    #: When the allocation ends, in seconds since 1970, where a launcher has found out.
    ends_at: float | None = None
    #: Whether other ranks of this launch have begun the sweep.
    has_begun: bool = False
    #: Name of the batch system that a launcher has recognised; empty to find out.
    batch_system: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What a rank finds out before MPI is there: where the results file lies, and where this run lives."""

    path: Path
    allocation: Allocation
