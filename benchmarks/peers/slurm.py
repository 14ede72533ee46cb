"""A Slurm for the job array: the private one of the tests, with enough cores for 32 workers."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peers.processes import TOKEN

TESTS = Path(__file__).parent.parent.parent / "tests"


@dataclass(frozen=True, slots=True)
class Around:
    """What the programs of a job array need; `error` says why there is no Slurm."""

    variables: dict[str, str] = field(default_factory=dict)
    version: str = ""
    error: str = ""


@contextlib.contextmanager
def started(*, wanted: bool) -> Iterator[Around]:
    """Start a Slurm while this is entered, if it is wanted and can be had."""
    sys.path.insert(0, str(TESTS))
    from private_slurm import DAEMONS, Cluster

    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if not wanted or missing or os.geteuid() != 0:
        why = f"{', '.join(missing)} not installed" if missing else "starting a Slurm takes root"
        yield Around(error=why)
        return
    token = secrets.token_hex(8)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder), {**outside, TOKEN: token}, cores=12)
        try:
            cluster.start()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            cluster.stop()
            yield Around(error=f"Slurm did not start: {error}")
            return
        try:
            variables = {"SLURM_CONF": cluster.environment["SLURM_CONF"], "PEERS_SLURM_TOKEN": token}
            yield Around(variables, cluster.ask("sinfo", "--version").rpartition(" ")[2])
        finally:
            cluster.stop()
