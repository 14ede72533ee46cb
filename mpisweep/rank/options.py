"""Options of a rank from the command line, and what it finds out before MPI is initialised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep.batch.jobfacts import Allocation
from mpisweep.dataclass import dataclass

if TYPE_CHECKING:
    from mpisweep.progress import ProgressSink

__all__ = ["Place", "RankOptions"]


@dataclass(frozen=True, slots=True)
class RankOptions:
    """Options of the command line, beside the sweep file."""

    path: Path
    fresh: bool
    master: str
    walltime_s: float | None
    sink: ProgressSink
    #: Names the command that started the ranks; the same after a restart.
    launch: str = ""
    #: Why the sweep cannot run, if that is known already; rank 0 tells the others, which wait for it.
    refusal: str = ""
    #: Number of shares of a split sweep; None if this allocation has the sweep alone.
    split: int | None = None
    #: Whether trial processes import from one file, see :mod:`mpisweep.processes.staging`.
    stage_env: bool = False
    #: Folder for each node's copy of the data, empty to choose one, and whether the copy outlives the run.
    stage_to: str = ""
    stage_keep: bool = False
    #: When the allocation ends, in seconds since 1970, if a launcher has found out.
    ends_at: float | None = None
    #: How long the job waited in the queue, if a launcher has found out.
    queue_wait_s: float | None = None
    #: Whether other ranks of this launch have begun the sweep.
    has_begun: bool = False
    #: Name of the batch system that a launcher has recognised; empty to find out.
    batch_system: str = ""
    #: Number of pilot trials to which this run is limited; 0 for no limit.
    pilot: int = 0
    #: What a plan predicted, as median and 95% bound in seconds; None without one.
    planned: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the results file lies, and in which allocation this run lives."""

    path: Path
    allocation: Allocation
