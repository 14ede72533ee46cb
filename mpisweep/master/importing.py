"""Trials known from elsewhere: read once, then kept in the results of the sweep.

They are read when it opens for the first time.  So a sweep continues with the same proposals when the sources
have changed or gone.
"""

from __future__ import annotations

import json
import logging

from mpisweep.blocks import ImportedBlock
from mpisweep.master.known import KnownSweep
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.results import ResultsError
from mpisweep.spec import Spec

__all__ = ["known_imports", "read_imports"]

log = logging.getLogger(__name__)


def known_imports(known: KnownSweep | None) -> ImportedBlock | None:
    """The trials that the results file has from elsewhere; None if there are none."""
    if known is None or not known.imported.get("source"):
        return None
    table = known.imported
    return ImportedBlock(
        list(table["source"]),
        [json.loads(text) for text in table["configuration"]],
        list(table["objective"]),
        [seconds if seconds == seconds else None for seconds in table["wall_time"]],
    )


def read_imports(server: ForkServer, spec: Spec) -> ImportedBlock:
    """Read the sources in a process of its own, and wait for it.

    Raises:
        ResultsError: if a source cannot be read, or nothing of it can be used.
        OSError: if the process was killed several times.
    """
    arguments = {"spec": spec.text, "source": spec.source, "folder": str(spec.folder)}
    process = SideProcess(
        server, "the process that imports trials", "mpisweep.prior.serving:serve_import", arguments
    )
    try:
        told = process.ask_and_wait({"ask": "import"})
    finally:
        process.close()
    if "error" in told:
        raise ResultsError(told["error"])
    for text in told["notes"]:
        log.info("%s", text)
    for text in told["warnings"]:
        log.warning("%s", text)
    return ImportedBlock(told["sources"], told["configurations"], told["objectives"], told["wall_time_s"])
