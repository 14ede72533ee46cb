"""Keeping the ranks running: the launcher half of ``mpisweep run``.

mpirun gets a session of its own and never a TERM or INT of ours, because it would kill the ranks within half
a second of one.  A polite stop is SIGUSR1, which it forwards to the ranks, or SIGXCPU where the batch system has
sent us that: it leaves the ranks less time.  The sweep's own last word, and not mpirun's exit code, says how the
run ended; the two agree except when something was killed.

When a node goes, the ranks are started again in the same allocation, on the nodes that still answer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

from rich.console import Console

from mpisweep.batch.start import Start
from mpisweep.processes import end_family
from mpisweep.progress import Bar, counted, parse
from mpisweep.records import EndReason

__all__ = ["ENDS_VARIABLE", "LAUNCH_VARIABLE", "PROGRESS_VARIABLE", "launch", "mpi_environment"]

#: Tells the ranks that their output is read by the launcher.
PROGRESS_VARIABLE = "MPISWEEP_PROGRESS"

#: Tells the ranks that a launcher has started them, and names it: the same when it starts them again.
LAUNCH_VARIABLE = "MPISWEEP_LAUNCH"

#: Tells the ranks when the allocation ends, in seconds since 1970; empty where the launcher could not find out.
ENDS_VARIABLE = "MPISWEEP_ENDS_AT"

#: What the ranks return when the user's input was refused.
_USER_ERRORS = (2,)
_INTERRUPTED = 3
#: So many restarts in a row may be in vain.
_FRUITLESS = 2
#: Pause before the ranks are started again, in seconds: mpirun may still be clearing up.
_RESTART_PAUSE_S = 1.0
#: How often the ranks are asked to stop until they do, in seconds.
_INSIST_S = 1.0
#: With less than this left of the allocation, in seconds, the ranks are not started again.
_WORTHWHILE_S = 10.0

log = logging.getLogger(__name__)

#: Open MPI as root wants to be told four times; a rank that waits must not keep a core from a data loader.
#: Of a lost node Slurm does not know that its part of a job step is over: the step keeps its CPUs on all nodes, and
#: mpirun's next srun would wait for them.
_MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "SLURM_OVERLAP": "1",
}


def mpi_environment() -> dict[str, str]:
    """The caller's environment, with what MPI needs where the caller has not said otherwise."""
    return _MPI_ENVIRONMENT | os.environ


def launch(
    start: Start,
    *,
    console: Console | None,
    recorded_end: Callable[[str, int], EndReason | None],
    ends_at: float | None = None,
    restarts: int = 0,
    ended_trials: Callable[[], int] = lambda: 0,
    begun_runs: Callable[[str], int] = lambda launch: 0,
    patience_s: float = math.inf,
) -> int:
    """Start the ranks, start them again after a loss that they did not survive, and return the exit code.

    Neither what mpirun returns nor that it returns says how the sweep stands: it has been seen to return 0
    after the loss of a node.  So the sweep's own state decides.  Starting again ends with the first of: an
    orderly end, as many restarts as are allowed, :data:`_FRUITLESS` of them in a row in which no trial ended,
    the end of the allocation.

    The first SIGINT or SIGTERM asks the sweep to stop in order; the second ends it at once.

    Args:
        start: how the ranks are started, from :func:`~mpisweep.batch.start.plan_start`.
        console: the terminal to draw a bar on, or None to leave the ranks' output as it is.
        recorded_end: given the name of this launch and what mpirun has returned, why its last run has ended, as the
            results say; None when they say nothing.
        ends_at: when the allocation ends, in seconds since 1970; None where nobody knows.
        restarts: how often the ranks may be started again.
        ended_trials: how many trials have ended, as the results say.
        begun_runs: given the name of this launch, how many runs of it have begun, as the results say.
        patience_s: how long the ranks may take to begin a run.  An mpirun that cannot start its daemons on a node
            has been seen to wait for ever; after so long it is ended, and started again.
    """
    environment = mpi_environment()
    environment[LAUNCH_VARIABLE] = name = secrets.token_hex(8)
    environment[ENDS_VARIABLE] = "" if ends_at is None else repr(ends_at)
    if console is not None:
        environment[PROGRESS_VARIABLE] = "json"
    stops = _Stops(start.passes_on(signal.SIGXCPU))
    fruitless = 0
    runs = 0
    present = start
    with stops.watched():
        while True:
            stops.expect(patience_s, lambda: begun_runs(name), runs)
            returned = _run_once(present, environment, console, stops)
            if returned in _USER_ERRORS:
                return returned
            reason = recorded_end(name, returned)
            if reason is not None and not reason.is_passing:
                return reason.exit_code
            if stops.asked:
                log.warning("stopped; everything that was acknowledged is on disk: run again to go on")
                return _INTERRUPTED
            now_ended = ended_trials()
            fruitless = 0 if now_ended > stops.ended_before else fruitless + 1
            stops.ended_before = now_ended
            is_over = ends_at is not None and time.time() > ends_at - _WORTHWHILE_S
            how = f"the ranks have ended without a word (mpirun returned {returned})" if reason is None else str(reason)
            if restarts == 0 or fruitless > _FRUITLESS or is_over:
                log.error(
                    "%s, %s; everything that was acknowledged is on disk: run again to go on",
                    how,
                    "and the allocation is over" if is_over
                    else "and starting them again is not allowed any more" if restarts == 0
                    else f"{fruitless} times in a row before any trial had ended",
                )  # fmt: skip
                return _INTERRUPTED
            restarts -= 1
            so_far = f"{counted(now_ended, 'trial')} {'has' if now_ended == 1 else 'have'} ended"
            log.warning("%s; starting the ranks again, %s", how, so_far)
            stops.wait(_RESTART_PAUSE_S)
            if not stops.asked:
                runs = begun_runs(name)
                # What the first run has begun anew is gone on with.
                present = replace(start.on_what_answers(), fresh=start.fresh and runs == 0)
            if stops.asked:
                return _INTERRUPTED


def _run_once(start: Start, environment: dict[str, str], console: Console | None, stops: _Stops) -> int:
    pipe = None if console is None else subprocess.PIPE
    with tempfile.TemporaryDirectory(prefix="mpisweep-", ignore_cleanup_errors=True) as notes:
        ranks = subprocess.Popen(
            start.command(environment),
            env=environment | start.session(environment, notes),
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

    def __init__(self, passes_hurry_on: bool) -> None:
        #: Whether SIGXCPU reaches the ranks; other launchers than Open MPI's die of it.
        self._passes_hurry_on = passes_hurry_on
        self.asked = 0
        self.ended_before = 0
        self.ranks: subprocess.Popen[str] | None = None
        #: When the ranks must have begun a run, by the monotonic clock, and what says whether they have.
        self._begin_by = math.inf
        self._has_begun: Callable[[], bool] = lambda: True
        #: What the ranks are asked by.
        self._request = signal.SIGUSR1
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

    def expect(self, patience_s: float, begun_runs: Callable[[], int], before: int) -> None:
        """The ranks that are about to be started must begin one run more than before within this time."""
        self._begin_by = time.monotonic() + patience_s
        self._has_begun = lambda: begun_runs() > before

    def insist(self, ranks: subprocess.Popen[str]) -> None:
        """Repeat the polite request: a rank that is still starting Python does not hear the first one.

        And end those that have not begun in time.
        """
        while ranks.poll() is None:
            self._wake.wait(_INSIST_S)
            self._wake.clear()
            if self.asked == 1 and ranks.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    ranks.send_signal(self._request)
            if time.monotonic() > self._begin_by:
                self._begin_by = math.inf
                if not self._has_begun():
                    log.error("the ranks have not begun although there was time enough; ending what should start them")
                    end_family(ranks.pid)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # SIGUSR1 and SIGXCPU come from batch systems, which send them more than once and never mean "at once".
        polite = number in (signal.SIGUSR1, signal.SIGXCPU)
        self.asked += 0 if polite and self.asked else 1
        if number == signal.SIGXCPU and self._passes_hurry_on:
            self._request = signal.SIGXCPU
        ranks = self.ranks
        if ranks is None:
            return
        if self.asked == 1:
            self._wake.set()
        else:
            end_family(ranks.pid)
