"""A way to start the ranks of a run: on which nodes, by which launcher."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.launchers import Launcher, LauncherKind, find_launcher, session_variables, start_command
from mpisweep.batch.nodes import answering
from mpisweep.batch.placement import Placement
from mpisweep.processes.kernel import python_command

__all__ = ["Start", "plan_start"]

#: Variables that a rank needs, also on a node that is reached by a remote shell; beside our own.
_EXPORTED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "OMP_NUM_THREADS")
_OUR_OWN = "MPISWEEP_"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """A way to start the ranks."""

    allocation: Allocation
    placement: Placement
    #: None for a single rank on this node, without MPI.
    launcher: Launcher | None
    #: Of ``mpisweep run``, without ``--fresh``.
    arguments: tuple[str, ...]
    #: Whether the ranks start the sweep over.
    fresh: bool = False

    def command(self, environment: Mapping[str, str]) -> list[str]:
        """Write the whole command line, for ranks with this environment."""
        fresh = ["--fresh"] if self.fresh else []
        program = [*python_command(), "-m", "mpisweep", "run", *fresh, *self.arguments]
        if self.launcher is None:
            return program
        exported = [name for name in _EXPORTED if name in environment]
        exported += sorted(name for name in environment if name.startswith(_OUR_OWN))
        return [*start_command(self.launcher, self.allocation, self.placement, exported), *program]

    def session(self, environment: Mapping[str, str], folder: str) -> dict[str, str]:
        """Variables that make the launcher keep its session files in this folder."""
        return {} if self.launcher is None else session_variables(self.launcher, environment, folder)

    def passes_on(self, number: signal.Signals) -> bool:
        """Whether a signal to the started process reaches the ranks and does no harm."""
        if self.launcher is None or self.launcher.kind is LauncherKind.OPEN_MPI:
            return number in (signal.SIGUSR1, signal.SIGXCPU)
        return number == signal.SIGUSR1

    def on_what_answers(self) -> Start:
        """Probe the nodes, within seconds, and keep those that answer."""
        if self.launcher is None:
            return self
        hosts = [node.host for node in self.placement.nodes]
        alive = answering(self.allocation, self.launcher.remote_shell, hosts)
        gone = [host for host in hosts if host not in alive]
        if not gone:
            return self
        left = self.placement.only(alive)
        log.warning(
            "%s no longer %s; continuing with %d ranks on %d of %d nodes",
            ", ".join(gone), "answers" if len(gone) == 1 else "answer", left.ranks, len(left.nodes),
            len(hosts),
        )  # fmt: skip
        return replace(self, placement=left)


def plan_start(
    allocation: Allocation, placement: Placement, arguments: tuple[str, ...], *, fresh: bool = False
) -> Start:
    """Plan how to start the ranks.

    Raises:
        LaunchError: if there is no program to start them.
    """
    is_alone = placement.ranks == 1 and not allocation.is_elsewhere
    launcher = None if is_alone else find_launcher(allocation)
    return Start(allocation, placement, launcher, arguments, fresh)
