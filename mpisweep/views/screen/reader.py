"""A thread that reads a sweep again whenever its files have changed."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisweep.errors import UserError
from mpisweep.results.load import load
from mpisweep.spec.expression import ExpressionError
from mpisweep.views.changes import SHARE_OF_TIME, change_times, without_heartbeats
from mpisweep.views.screen.facts import Facts, facts_of, judged
from mpisweep.views.screen.table import filtered

__all__ = ["Reader", "Reading"]

#: Seconds without a heartbeat after which it is checked whether the run still exists; one comes every 5 s.
_BEAT_S = 7.0


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was read last.

    Attributes:
        facts: of the sweep.
        judgement: how sure the best is, as of a read before if that takes long; may be empty.
        filter: that was applied; empty for none.
        mask: the trials that it keeps; None keeps all.
        problem: why the filter, or the last read, failed; empty if both are fine.
        changed_at: when a file was last seen to change, by the monotonic clock.
        read_s: how long the last read took.
    """

    facts: Facts
    judgement: str
    filter: str
    mask: NDArray[np.bool_] | None
    problem: str
    changed_at: float
    read_s: float


class Reader:
    """Reads in a thread of its own, so that keys do not wait.

    Args:
        path: of the results file.
        every_s: seconds between two looks at the files; more if reading takes long.

    Raises:
        ResultsError: if there is no sweep.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self._path = path
        self._every_s = every_s
        self._wakes = threading.Condition()
        self._wanted = ""
        self._looks_now = self._ends = False
        self._failure: Exception | None = None
        self._times = change_times(path)
        began = time.monotonic()
        self._sweep = load(path)
        facts = facts_of(self._sweep, time.time())
        self._latest = Reading(facts, "", "", None, "", began, time.monotonic() - began)
        #: Number of ended trials of which the judgement speaks, and when the next one may be computed.
        self._judged, self._judges_at = -1, -math.inf
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Reading:
        """What was read last; a bug in the thread ends the screen instead of leaving it as it was."""
        if self._failure is not None:
            raise self._failure
        return self._latest

    def want(self, text: str) -> None:
        """Apply this filter from now on."""
        with self._wakes:
            self._wanted = text
            self._wakes.notify()

    def look_now(self) -> None:
        """Look at the files at once, because a request was made."""
        with self._wakes:
            self._looks_now = True
            self._wakes.notify()

    def end(self) -> None:
        """End the thread, once it has read what it reads."""
        with self._wakes:
            self._ends = True
            self._wakes.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._read_until_the_end()
        except Exception as failure:
            self._failure = failure

    def _read_until_the_end(self) -> None:
        while not self._ends:
            self._judge()
            pause_s = max(self._every_s, self._latest.read_s / SHARE_OF_TIME)
            with self._wakes:
                self._wakes.wait_for(
                    lambda: self._ends or self._looks_now or self._wanted != self._latest.filter, pause_s
                )
                wanted, self._looks_now = self._wanted, False
            if not self._ends:
                self._look(wanted)

    def _look(self, wanted: str) -> None:
        """Read the files again if they have changed, and apply the filter."""
        latest, times, began = self._latest, change_times(self._path), time.monotonic()
        changed_at = latest.changed_at if times == self._times else began
        # Heartbeats say that the run is alive; there is nothing new to read.
        is_same = without_heartbeats(times) == without_heartbeats(self._times)
        self._times = times
        facts, problem, read_s = latest.facts, "", latest.read_s
        if is_same and facts.watched.state == "running" and began - changed_at > _BEAT_S:
            # Its process may have been killed.
            facts = facts_of(self._sweep, time.time())
        if not is_same:
            try:
                self._sweep = load(self._path)
                facts = facts_of(self._sweep, time.time())
            except (UserError, OSError) as error:
                # Shown beside what was read before; the next look may succeed.
                self._times, problem = {}, str(error)
            read_s = time.monotonic() - began
        mask = None
        if wanted:
            try:
                mask = filtered(facts.table, wanted)
            except ExpressionError as error:
                problem = f"filter: {error}"
        self._latest = Reading(facts, latest.judgement, wanted, mask, problem, changed_at, read_s)

    def _judge(self) -> None:
        """Compute how sure the best is, for a small share of the time."""
        ended, began = self._latest.facts.watched.progress.ended, time.monotonic()
        if ended == self._judged or began < self._judges_at:
            return
        self._latest = replace(self._latest, judgement=judged(self._sweep))
        now = time.monotonic()
        self._judged, self._judges_at = ended, now + (now - began) / SHARE_OF_TIME
