"""Log lines of launchers and ranks on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

__all__ = ["configure_logging", "is_on_one_host"]

#: Variables with which MPI launchers tell a rank the number of ranks on its node and in all.
_SIZES = (("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_SIZE"), ("MPI_LOCALNRANKS", "PMI_SIZE"))


class _StandardError(logging.Handler):
    """Writes to standard error as it is now: a live bar replaces it, to print lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            # One write, because several threads log.
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def configure_logging(rank: int | None, host: str, *, quiet: bool) -> None:
    """Log to standard error; each line begins with the time and the name of the process.

    Args:
        rank: rank of this process; None for a launcher.
        host: host of this process; empty if all ranks are on one host.
        quiet: log warnings only.
    """
    who = "launcher: " if rank is None and host else ""
    if rank is not None and (rank or host):
        who = f"rank {rank} {host}".rstrip() + ": "
    handler = _StandardError()
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s {who.replace('%', '%%')}%(message)s", datefmt="%H:%M:%S")
    )
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)


def is_on_one_host(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the MPI launcher says that all ranks are on this host."""
    return any(here in environment and environment[here] == environment.get(whole) for here, whole in _SIZES)
