"""Log lines of launchers and ranks on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

__all__ = ["configure_logging", "is_on_one_host"]

#: What launchers of MPI tell a rank of its node and of the whole, where they do: ranks here, and ranks in
#: all.
_SIZES = (("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_SIZE"), ("MPI_LOCALNRANKS", "PMI_SIZE"))


def configure_logging(rank: int | None, host: str, *, quiet: bool) -> None:
    """Have Python's logging print lines that begin with the time and with who says it.

    Args:
        rank: of this process; None for a launcher.
        host: of this rank; empty where all are on one, which then needs no name.
        quiet: print warnings only.
    """
    who = "launcher: " if rank is None and host else ""
    if rank is not None and (rank or host):
        who = f"rank {rank} {host}".rstrip() + ": "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s {who.replace('%', '%%')}%(message)s", datefmt="%H:%M:%S")
    )
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)


def is_on_one_host(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher of MPI has started all its ranks on this host; where it does not say so they may be
    on several.
    """
    return any(here in environment and environment[here] == environment.get(whole) for here, whole in _SIZES)
