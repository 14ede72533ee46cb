"""Looking after ranks that were started: whether any of them lives, and whether they leave when their run has
ended.

A rank that hangs alone on its node can be ended by no other rank, and mpirun waits for it for ever.  What its
run has come to is in the results all the same; so the launcher ends mpirun when it stays.
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

#: How often is looked whether the run has ended, in seconds.
_LOOK_S = 1.0
#: How long mpirun may stay after the run has ended, in seconds.
_LEAVE_S = 15.0
#: Looking into the results takes at most this share of the time.
_SHARE_OF_TIME = 0.02


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What the results say of the last run of a launch.

    Attributes:
        reason: why it has ended; None where it did not say.
        superseded_by: the run of another launch that has begun since and that had the sweep after it; empty
            for none.
    """

    reason: EndReason | None = None
    superseded_by: str = ""


class Results(Protocol):
    """What a launcher asks the results.  All of it may take long, but for :meth:`stamp`."""

    def end(self, launch: str, returned: int | None) -> RunEnd:
        """How the last run of a launch has ended; `returned` is mpirun's exit code, None while it runs."""

    def ended_trials(self) -> int:
        """How many trials have ended."""

    def begun_runs(self, launch: str) -> int:
        """How many runs of a launch have begun."""

    def stamp(self) -> tuple[int, ...]:
        """Changes when a run begins, and while it runs; empty when none is under way, as far as is cheap to
        see.
        """


class Watchdog:
    """Looks after one start of the ranks, from a thread that may wait for the file system.

    Args:
        results: what the results say.
        name: of the launch.
        begun: how many runs of it had begun before.
        output: of the ranks, which says whether one is alive.
        patience_s: see :func:`launch`.
    """

    def __init__(self, results: Results, name: str, begun: int, output: Output, patience_s: float) -> None:
        self._results = results
        self._name = name
        self._begun = begun
        self._output = output
        self._patience_s = patience_s
        self._done = threading.Event()
        #: Whether mpirun was ended because no rank was alive in time.
        self.was_hung = False
        #: How the run has ended, where mpirun was ended because it did not return.
        self.seen: RunEnd | None = None

    @contextlib.contextmanager
    def over(self, ranks: subprocess.Popen[bytes]) -> Iterator[None]:
        """While inside, these ranks are watched."""
        threading.Thread(target=self._watch, args=(ranks,), daemon=True).start()
        try:
            yield
        finally:
            self._done.set()

    def _watch(self, ranks: subprocess.Popen[bytes]) -> None:
        if not self._has_begun():
            self.was_hung = not self._done.is_set()
        else:
            self.seen = self._end_that_was_not_left()
        if (self.was_hung or self.seen) and not self._done.is_set():
            end_family(ranks.pid)

    def _has_begun(self) -> bool:
        """Wait for a sign of life of the ranks; False when none came in time."""
        until = time.monotonic() + self._patience_s
        before = self._results.stamp()
        while not self._done.wait(min(_LOOK_S, self._patience_s / 10)):
            # Not every launcher passes on what ranks print.
            if self._output.lives or self._results.stamp() != before:
                return True
            if time.monotonic() > until:
                return False
        return False

    def _end_that_was_not_left(self) -> RunEnd | None:
        """Wait until the run has been over for :data:`_LEAVE_S`; None when mpirun has returned before."""
        over_since: float | None = None
        pause_s = _LEAVE_S
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
                # It has let go of the sweep and could not write why.
                return RunEnd(EndReason.DISK)
            over_since, was_seen = time.monotonic(), True
            pause_s = max(_LEAVE_S, (over_since - now) / _SHARE_OF_TIME)
        return None
