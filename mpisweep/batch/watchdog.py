"""Watching started ranks: whether any is alive, and whether they exit after their run.

No other rank can end a rank that hangs alone on its node, and mpirun waits for it for ever.  The results of
the run are complete all the same, so the launcher ends an mpirun that does not return.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mpisweep.batch.output import Output
from mpisweep.processes.kernel import end_family
from mpisweep.records import EndReason

__all__ = ["Results", "RunEnd", "Watchdog"]

#: Interval of checking whether the run has ended, in seconds.
_LOOK_S = 1.0
#: Greatest share of the time for reading the results.
_SHARE_OF_TIME = 0.02


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of the last run of a launch, by the results.

    Attributes:
        reason: why it has ended; None for unknown.
        superseded_by: the run of another launch that has taken over the sweep since; empty for none.
    """

    reason: EndReason | None = None
    superseded_by: str = ""


class Results(Protocol):
    """A launcher's view of the results; all methods but :meth:`stamp` may take long."""

    def prepare(self) -> None:
        """Load what it takes to read results, while the ranks start."""

    def end(self, launch: str, returned: int | None) -> RunEnd:
        """The end of the last run of a launch; `returned` is mpirun's exit code, None while it runs."""

    def ended_trials(self) -> int:
        """Number of ended trials."""

    def begun_runs(self, launch: str) -> int:
        """Number of runs of a launch that have begun."""

    def stamp(self) -> tuple[int, ...]:
        """A value that changes when a run begins and while it runs; empty without one.  Cheap."""


class Watchdog:
    """Watches one start of the ranks, in a thread that may wait for the file system.

    Args:
        results: the state of the results.
        name: of the launch.
        begun: number of its runs that had begun before.
        output: of the ranks, which shows whether one is alive.
        patience_s, leave_s: see :func:`launch`.
    """

    def __init__(
        self, results: Results, name: str, begun: int, output: Output, patience_s: float, leave_s: float
    ) -> None:
        self._results = results
        self._name = name
        self._begun = begun
        self._output = output
        self._patience_s = patience_s
        self._leave_s = leave_s
        self._done = threading.Event()
        #: Whether mpirun was ended because no rank was alive in time.
        self.was_hung = False
        #: How the run has ended, if mpirun was ended because it did not return.
        self.seen: RunEnd | None = None

    @contextlib.contextmanager
    def over(self, ranks: subprocess.Popen[bytes]) -> Iterator[None]:
        """Watch these ranks, within the context."""
        threading.Thread(target=self._watch, args=(ranks,), daemon=True).start()
        try:
            yield
        finally:
            self._done.set()

    def _watch(self, ranks: subprocess.Popen[bytes]) -> None:
        self._results.prepare()
        if not self._has_begun():
            self.was_hung = not self._done.is_set()
        else:
            self.seen = self._end_that_was_not_left()
        if (self.was_hung or self.seen) and not self._done.is_set():
            end_family(ranks.pid)

    def _has_begun(self) -> bool:
        """Wait for a sign of life of the ranks; False if none comes in time."""
        until = time.monotonic() + self._patience_s
        before = self._results.stamp()
        while not self._done.wait(min(_LOOK_S, self._patience_s / 10)):
            # Not every launcher passes the ranks' output on.
            if self._output.lives or self._results.stamp() != before:
                return True
            if time.monotonic() > until:
                return False
        return False

    def _end_that_was_not_left(self) -> RunEnd | None:
        """Wait until the run has been over for `leave_s`; None if mpirun returns before."""
        over_since: float | None = None
        pause_s = self._leave_s
        was_seen = False
        while not self._done.wait(_LOOK_S):
            now = time.monotonic()
            if self._results.stamp():
                over_since, was_seen = None, False
                continue
            over_since = now if over_since is None else over_since
            if now - over_since < pause_s:
                continue
            end = self._results.end(self._name, None)
            if end.reason is not None or end.superseded_by:
                return end
            if was_seen and self._results.begun_runs(self._name) > self._begun:
                # It has released the sweep and could not write why.
                return RunEnd(EndReason.DISK)
            over_since, was_seen = time.monotonic(), True
            pause_s = max(self._leave_s, (over_since - now) / _SHARE_OF_TIME)
        return None
