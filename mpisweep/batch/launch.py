"""Starting and restarting the ranks: the launcher half of ``mpisweep run``.

The results say how a run has ended, and not mpirun's exit code, which has been 0 after the loss of a node.
The two agree unless something was killed.

* If a run has ended cleanly, the launch is over.  If mpirun does not return because a rank hangs, the
  launcher ends it.
* If another run has taken over the sweep, the launch ends and touches nothing.
* If no rank was ever alive, the user gets the output of mpirun, and nothing is restarted.
* After a loss the ranks are restarted in the same allocation, on the nodes that still answer.

The file system may hang, so threads read the results while the main thread handles signals.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pwd
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from mpisweep.batch.hooks import HookRun, Reached
from mpisweep.batch.launchers import LaunchError, one_host_variables
from mpisweep.batch.output import Output, PlainView, RelayView, View
from mpisweep.batch.start import Start
from mpisweep.batch.stops import Stops
from mpisweep.batch.variables import (
    BEGUN_VARIABLE,
    ENDS_VARIABLE,
    HANDED_VARIABLE,
    LAUNCH_VARIABLE,
    ONE_HOST_VARIABLE,
    PROGRESS_VARIABLE,
    QUEUE_WAIT_VARIABLE,
    SYSTEM_VARIABLE,
)
from mpisweep.batch.watchdog import Results, RunEnd, Watchdog
from mpisweep.progress import counted
from mpisweep.records import EndReason

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Ended", "launch", "mpi_environment"]

_REFUSED = 2
_INTERRUPTED = 3
#: Restarts in a row that may be in vain.
_FRUITLESS = 2
#: Pause before a restart, in seconds: mpirun may still be cleaning up.
_RESTART_PAUSE_S = 1.0
#: Least time left of the allocation for a restart, in seconds.
_WORTHWHILE_S = 10.0
#: Exit codes of processes that a signal has ended; Hydra returns the signal number itself.
_BY_SIGNAL = (9, 15, *range(129, 193))

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Open MPI runs as root only with these four; a waiting rank must not keep a core from a data loader.  After
#: the loss of a node Slurm takes the job step for running: it keeps its CPUs on all nodes, and mpirun's next
#: srun would wait for them.
_MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "SLURM_OVERLAP": "1",
}


def mpi_environment() -> dict[str, str]:
    """The environment of this process, with defaults that MPI needs."""
    return _MPI_ENVIRONMENT | {"HOME": _home()} | os.environ


def _home() -> str:
    """The home folder, or else the temporary folder: Open MPI does not start without."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_dir
    return tempfile.gettempdir()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a launch has ended; without a reason if the user has been told already."""

    exit_code: int
    reason: EndReason | None = None

    @property
    def reached(self) -> Reached:
        """The end in words."""
        without = "refused" if self.exit_code == _REFUSED else "the ranks did not report an end"
        return Reached(without if self.reason is None else str(self.reason), self.exit_code)


def launch(
    start: Start,
    *,
    console: Console | None,
    results: Results,
    ends_at: float | None = None,
    restarts: int = 0,
    patience_s: float = math.inf,
    leave_s: float = math.inf,
    relays: bool = False,
    handed: Mapping[str, Any] | None = None,
    hooks: HookRun | None = None,
) -> Ended:
    """Start the ranks, restart them after losses that end all of them, and return the end.

    Restarts end with the first of: an orderly end, the restart limit, :data:`_FRUITLESS` of them in a row
    without an ended trial, the end of the allocation.

    The first SIGINT or SIGTERM asks the sweep to stop cleanly; the second ends it at once.

    Args:
        start: how to start the ranks, from :func:`~mpisweep.batch.start.plan_start`.
        console: terminal for a progress bar; None to pass the ranks' output on as it is.
        results: the state of the results.
        ends_at: when the allocation ends, in seconds since 1970; None for unknown.
        restarts: restart limit.
        patience_s: time until a rank must be alive.  An mpirun that cannot start its daemons on a node may
            wait for ever; after this time it is ended and restarted.
        leave_s: time for the ranks to exit after the end of the run; then they are ended.
        relays: whether the caller of this program draws the progress from marked lines.
        handed: what the ranks take in place of their command line; nothing if they parse it.
        hooks: called around the ranks; None for none.

    Raises:
        LaunchError: if no rank can be started.
    """
    stops = Stops(passes_hurry_on=start.passes_on(signal.SIGXCPU))
    with stops.watched():
        made = _Launch(start, console, results, ends_at, restarts, patience_s, leave_s, stops, relays=relays,
                       handed=handed or {})  # fmt: skip
        return made.run() if hooks is None else hooks.around(made.name, stops, made.run)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One start of the ranks and its outcome."""

    returned: int
    #: Whether any rank was alive.
    lived: bool
    #: Whether mpirun was ended because no rank was alive in time.
    was_hung: bool
    #: How its run ended, if mpirun had not returned by then.
    seen: RunEnd | None
    words: list[str]


class _Launch:
    """All starts of the ranks by one launcher."""

    def __init__(
        self, start: Start, console: Console | None, results: Results, ends_at: float | None, restarts: int,
        patience_s: float, leave_s: float, stops: Stops, *, relays: bool, handed: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._start = start
        self._console = console
        self._relays = relays
        self._handed = handed
        self._results = results
        self._ends_at = ends_at
        self._restarts = restarts
        self._patience_s = patience_s
        self._leave_s = leave_s
        self._stops = stops
        self.name = secrets.token_hex(8)
        self._program = os.path.basename(start.launcher.program if start.launcher else sys.executable)
        #: Runs that have begun, starts in a row without an ended trial, and trials that had ended before the
        #: last start.
        self._begun = 0
        self._fruitless = 0
        self._ended_before = 0

    def run(self) -> Ended:
        """See :func:`launch`."""
        present = self._start
        while True:
            attempt = self._run_once(present)
            if attempt.returned == _REFUSED and attempt.lived:
                return Ended(_REFUSED)
            if attempt.seen is not None:
                log.warning("a rank did not exit after the end of the run; ended %s", self._program)
            end = attempt.seen or self._ask(lambda: self._results.end(self.name, attempt.returned), RunEnd())  # noqa: B023
            if (over := self._over(attempt, end)) is not None:
                return over
            self._say_that_it_starts_again(attempt, end)
            following = self._before_the_next()
            if isinstance(following, Ended):
                return following
            present = following

    # ------------------------------------------------------------------------------------- between two starts

    def _over(self, attempt: _Attempt, end: RunEnd) -> Ended | None:
        """How the launch ends after an attempt; None to restart the ranks."""
        reason = end.reason
        if reason is EndReason.DISK and self._stops.asked and not self._ask(self._runs, 0):
            # Ranks that are stopped while they stage data exit with the same code.
            reason = None
        if reason is not None and not reason.is_passing:
            return Ended(reason.exit_code, reason)
        if end.superseded_by:
            return self._superseded(end)
        self._begun = self._ask(self._runs, self._begun)
        if self._stops.asked:
            # With a second request to stop, the question whether the run had begun may have no answer.
            may_have_begun = self._begun or (attempt.lived and self._stops.at_once)
            log.warning(
                "stopped before the sweep %s",
                "reported an end; run the same command to resume" if may_have_begun else "had begun",
            )
            return Ended(_INTERRUPTED)
        if (
            not attempt.lived
            and not self._begun
            and not attempt.was_hung
            and attempt.returned not in (0, *_BY_SIGNAL)
        ):
            raise LaunchError(_cannot_start(self._program, attempt))
        now_ended = self._ask(self._results.ended_trials, 0)
        self._fruitless = 0 if now_ended > self._ended_before else self._fruitless + 1
        self._ended_before = now_ended
        is_late = self._ends_at is not None and time.time() > self._ends_at - _WORTHWHILE_S
        if self._restarts > 0 and self._fruitless <= _FRUITLESS and not is_late:
            return None
        if not self._begun:
            raise LaunchError(_cannot_start(self._program, attempt, self._fruitless))
        why = (
            "the allocation is over" if is_late
            else "restart limit (limits.restarts) reached" if self._restarts == 0
            else f"no trial has ended in {self._fruitless} starts in a row"
        )  # fmt: skip
        log.error("%s; %s; run the same command to resume", self._how(attempt, reason), why)
        return Ended(_INTERRUPTED)

    def _runs(self) -> int:
        """Number of runs of this launch that have begun; may take long."""
        return self._results.begun_runs(self.name)

    def _superseded(self, end: RunEnd) -> Ended:
        log.error(
            "another run (%s) has taken over this sweep; this launch ends and leaves the results to it",
            end.superseded_by,
        )
        return Ended(_INTERRUPTED)

    def _how(self, attempt: _Attempt, reason: EndReason | None) -> str:
        if reason is not None:
            return str(reason)
        if attempt.was_hung:
            return f"no rank started within {self._patience_s / 60:.3g} min"
        return f"{self._program} exited with {attempt.returned} before the sweep reported an end"

    def _say_that_it_starts_again(self, attempt: _Attempt, end: RunEnd) -> None:
        so_far = (
            f"{counted(self._ended_before, 'trial')} {'has' if self._ended_before == 1 else 'have'} ended"
        )
        log.warning("%s; restarting the ranks (%s)", self._how(attempt, end.reason), so_far)

    def _before_the_next(self) -> Start | Ended:
        """Pause, probe the nodes, and check that no other launch has taken over the sweep."""
        self._restarts -= 1
        self._stops.wait(_RESTART_PAUSE_S)
        following = self._start if self._stops.asked else self._start.on_what_answers()
        end = self._ask(lambda: self._results.end(self.name, None), RunEnd())
        if end.superseded_by:
            return self._superseded(end)
        if self._stops.asked:
            log.warning("stopped before the ranks were restarted; run the same command to resume")
            return Ended(_INTERRUPTED)
        # Only the first run starts over; later ones resume it.
        return replace(following, fresh=self._start.fresh and not self._begun)

    def _ask(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Ask the file system; `otherwise` if the user wants the end at once before it answers."""
        answers: list[Answer] = []
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(question())
            except BaseException as error:
                failures.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        while asking.is_alive() and not self._stops.at_once:
            asking.join(0.1)
        if failures:
            raise failures[0]
        return answers[0] if answers else otherwise

    # ------------------------------------------------------------------------------------- one start

    def _run_once(self, start: Start) -> _Attempt:
        environment = self._environment(start)
        with _folder_for_notes() as notes, contextlib.ExitStack() as drawn:
            view: View = RelayView() if self._relays else PlainView()
            if self._console is not None:
                from mpisweep.batch.bar import Bar

                view = drawn.enter_context(Bar(self._console))
            output = Output(view)
            watchdog = Watchdog(
                self._results, self.name, self._begun, output, self._patience_s, self._leave_s
            )
            ranks = _started(start, environment, notes)
            output.follow(ranks)
            with self._stops.passed_on_to(ranks), watchdog.over(ranks):
                returned = self._stops.await_end(ranks)
            code = returned if returned >= 0 else 128 - returned
            # If no rank was alive, its output becomes part of our message.
            output.finish(
                quietly=not output.lives
                or code in (0, _REFUSED, _INTERRUPTED, 4)
                or watchdog.seen is not None
            )
            words = output.words()
            if output.lives or code in (0, *_BY_SIGNAL):
                output.release()
        return _Attempt(code, output.lives, watchdog.was_hung, watchdog.seen, words)

    def _environment(self, start: Start) -> dict[str, str]:
        environment = mpi_environment()
        environment[LAUNCH_VARIABLE] = self.name
        environment[ENDS_VARIABLE] = "" if self._ends_at is None else repr(self._ends_at)
        wait_s = start.allocation.queue_wait_s
        environment[QUEUE_WAIT_VARIABLE] = "" if wait_s is None else repr(wait_s)
        environment[SYSTEM_VARIABLE] = start.allocation.system
        environment[BEGUN_VARIABLE] = "1" if self._begun else ""
        if len(start.placement.nodes) == 1:
            environment[ONE_HOST_VARIABLE] = "1"
            if start.launcher is not None:
                environment |= one_host_variables(start.launcher, environment)
        if self._console is not None or self._relays:
            environment[PROGRESS_VARIABLE] = "json"
        if self._handed:
            asked = {**self._handed["asked"], "fresh": start.fresh}
            environment[HANDED_VARIABLE] = json.dumps({**self._handed, "asked": asked})
        return environment


def _folder_for_notes() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="mpisweep-", ignore_cleanup_errors=True)
    except OSError as error:
        raise LaunchError(
            "MPI needs a folder for temporary files; set TMPDIR to one that can be written "
            f"({error.strerror})"
        ) from error


def _started(start: Start, environment: dict[str, str], notes: str) -> subprocess.Popen[bytes]:
    command = start.command(environment)
    try:
        return subprocess.Popen(
            command, env=environment | start.session(environment, notes), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be started: {error.strerror}") from error


def _cannot_start(program: str, attempt: _Attempt, times: int = 1) -> str:
    how = (
        f"{program} could not start any rank"
        if not attempt.lived
        else f"no rank could begin the sweep: {program}"
    )
    code = f"exit code {attempt.returned}" + (f", {times} times" if times > 1 else "")
    if not attempt.words:
        return f"{how} ({code}), and said nothing; `mpisweep run ... --dry-run` prints the command"
    said = (
        f": {attempt.words[0]}"
        if len(attempt.words) == 1
        else "; it printed:" + "".join(f"\n  {line}" for line in attempt.words)
    )
    return f"{how} ({code}){said}"
