"""The hooks of a sweep, around the ranks of one launch.

A thread of the launcher calls them, so that nothing waits for a hook but the beginning and the end of the
launch, both for a bounded time:

* ``before_sweep`` is called before any rank starts, once per launch.
* ``after_trial`` is told every trial that ended in this launch, once, in the order of the ends.  The thread
  reads ended trials from the results, as every other reader does; so the master's death is nothing special.
  At most :data:`_HELD` of them are in memory; others wait in the results.
* ``after_sweep`` is called after the ranks have ended, when ``after_trial`` has been told everything or
  ``hooks.backlog`` is over.

A call that fails, or takes too long, is logged and changes nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from mpisweep.batch.hookcall import HookCalls, HookLog, json_line
from mpisweep.batch.stops import Stops
from mpisweep.errors import UserError
from mpisweep.progress import counted
from mpisweep.spec import Hooks

__all__ = ["EndedTrials", "HookFacts", "HookRun", "Reached"]

#: Ended trials that are held in memory, each as a line of some 500 bytes.
_HELD = 100_000
#: Interval of reading the results, in seconds, and the greatest share of the time for it.
_LOOK_S = 1.0
_SHARE_OF_TIME = 0.02
#: How long a trial waits for its call until the launcher says that calls lag, and until it says so again.
_LAG_S = 60.0
_LAG_AGAIN_S = 600.0
#: Failures of one hook that are logged one by one.
_FAILURES_SHOWN = 3
#: Share of the time left of an allocation that is kept for the hook after the sweep, at most.
_RESERVE_SHARE = 0.05
#: How long reading the results may take at the end of a launch, in seconds.
_READ_S = 30.0
#: Time between the last hook and the end of the allocation, in seconds.
_SPARE_S = 1.0

log = logging.getLogger(__name__)


class EndedTrials(NamedTuple):
    """Trials that ended in a launch and were not asked for before."""

    #: What is told of each, for JSON.
    trials: list[dict[str, Any]]
    #: Number of further ones.
    others: int


class _Waiting(NamedTuple):
    """A trial that waits for its call: when it was seen, and what is told of it."""

    since: float
    number: int
    line: bytes


class Reached(NamedTuple):
    """How a launch ended."""

    reason: str
    exit_code: int


class HookFacts(Protocol):
    """What hooks are told, read from the results; every method may take long."""

    def before(self) -> dict[str, Any]:
        """The sweep before its ranks start."""

    def ended(self, launch: str, at_most: int) -> EndedTrials | None:
        """The next trials that have ended in this launch, in the order of their ends.

        None if the results cannot be read now.
        """

    def after(self, launch: str, reached: Reached) -> dict[str, Any]:
        """The sweep after a launch."""


class _Ended(Protocol):
    """The end of a launch."""

    @property
    def reached(self) -> Reached:
        """In words."""


Answer = TypeVar("Answer", bound=_Ended)


class HookRun:
    """Calls the hooks of one launch.

    Args:
        hooks: of the sweep file.
        folder: where they run: that of the sweep file.
        log_file: receives their output and failures.
        facts: what they are told.
        ends_at: when the allocation ends, in seconds since 1970; None for unknown.
    """

    def __init__(
        self, hooks: Hooks, folder: Path, log_file: Path, facts: HookFacts, ends_at: float | None
    ) -> None:
        self._hooks = hooks
        self._facts = facts
        self._until = math.inf if ends_at is None else time.monotonic() + ends_at - time.time() - _SPARE_S
        self._calls = HookCalls(folder)
        self._log = HookLog(log_file)
        self._failures: Counter[str] = Counter()
        #: Trials that wait in memory.
        self._waiting: deque[_Waiting] = deque()
        #: Number of trials that wait in the results.
        self._others = 0
        self._look_at = 0.0
        self._say_lag_at = 0.0
        self._has_begun = threading.Event()
        self._has_ended = threading.Event()
        #: When calls of ``after_trial`` end, by the monotonic clock; known once the launch is over.
        self._give_up_at = math.inf
        self._reached: Reached | None = None

    @staticmethod
    def reserve_s(hooks: Hooks, left_s: float) -> float:
        """Seconds between the stop of the ranks and the end of the allocation, for the last hook."""
        return min(hooks.timeout_s, _RESERVE_SHARE * left_s) if hooks.after_sweep else 0.0

    def around(self, launch: str, stops: Stops, run: Callable[[], Answer]) -> Answer:
        """Call `run`, which starts the ranks and waits for their end, and the hooks around it.

        Args:
            launch: its name.
            stops: requests to stop; the second one also ends the hooks.
            run: returns how the launch has ended.
        """
        caller = threading.Thread(target=self._call_all, args=(launch,), daemon=True)
        caller.start()
        _await(self._has_begun.wait, self._hooks.timeout_s + _READ_S, stops, at=1)
        try:
            answer = run()
        except UserError as error:
            self._finish(caller, stops, Reached(str(error), 2))
            raise
        self._finish(caller, stops, answer.reached)
        return answer

    def _finish(self, caller: threading.Thread, stops: Stops, reached: Reached) -> None:
        self._reached = reached
        # The hook after the sweep keeps its time.
        reserved_s = self._hooks.timeout_s if self._hooks.after_sweep else 0.0
        self._give_up_at = min(time.monotonic() + self._hooks.backlog_s, self._until - reserved_s)
        self._has_ended.set()
        limit_s = self._hooks.backlog_s + 2 * (self._hooks.timeout_s + _READ_S)
        _await(lambda seconds: _ends_within(caller, seconds), limit_s, stops, at=2)
        # Requested twice, or the file system hangs: a thread that is still alive calls nothing any more.
        self._calls.end()

    # ------------------------------------------------------------------------------------- the thread

    def _call_all(self, launch: str) -> None:
        hooks = self._hooks
        try:
            if hooks.before_sweep:
                self._call("before_sweep", json_line(self._facts.before()))
        finally:
            self._has_begun.set()
        if hooks.after_trial:
            self._tell_trials(launch)
        self._has_ended.wait()
        assert self._reached is not None
        if hooks.after_sweep:
            self._call("after_sweep", json_line(self._facts.after(launch, self._reached)))
        for name, count in self._failures.items():
            if count > _FAILURES_SHOWN:
                log.warning("%s failed %d times; see %s", name, count, self._log.path)

    def _tell_trials(self, launch: str) -> None:
        """Tell trials until the launch is over and nothing waits, or the time for that is up."""
        was_over = has_read_last = False
        is_read = True
        while (now := time.monotonic()) < self._give_up_at:
            is_over = self._has_ended.is_set()
            if is_over and not was_over:
                # Some trials ended after the last look.
                self._look_at, was_over = 0.0, True
            # After the end nothing is added: one look is enough, unless it fails or leaves others.
            if now >= self._look_at and len(self._waiting) < _HELD and (self._others or not has_read_last):
                is_read = self._look(launch)
                if is_over and is_read and not has_read_last:
                    self._say_backlog()
                    has_read_last = True
            if self._waiting:
                self._say_lag()
                self._tell_next()
            elif has_read_last and not self._others:
                return
            elif is_over:
                time.sleep(max(0.0, min(self._look_at, self._give_up_at) - time.monotonic()))
            else:
                self._has_ended.wait(max(0.0, self._look_at - time.monotonic()))
        if not is_read:
            log.warning("after_trial was not told the trials that ended last: the results cannot be read")
        if left := len(self._waiting) + self._others:
            log.warning(
                "after_trial was not told %s: hooks.backlog (%.3g s) is over",
                counted(left, "ended trial"), self._hooks.backlog_s,
            )  # fmt: skip

    def _look(self, launch: str) -> bool:
        """Read the trials that have ended since the last time; False if that is not possible now."""
        before = time.monotonic()
        found = self._facts.ended(launch, max(0, _HELD - len(self._waiting)))
        now = time.monotonic()
        # If others wait there, reading them is due as soon as the last one in memory is told.
        self._look_at = now + max(_LOOK_S, (now - before) / _SHARE_OF_TIME)
        if found is None:
            return False
        self._waiting += (_Waiting(now, trial["number"], json_line(trial)) for trial in found.trials)
        self._others = found.others
        return True

    def _tell_next(self) -> None:
        count = min(self._hooks.trials_per_call, len(self._waiting))
        told = [self._waiting.popleft() for _ in range(count)]
        self._call("after_trial", b"".join(one.line for one in told), _trials(told))
        if not self._waiting and self._others:
            self._look_at = 0.0

    def _say_backlog(self) -> None:
        if (waiting := len(self._waiting) + self._others) > self._hooks.trials_per_call:
            log.info("%s wait for after_trial", counted(waiting, "ended trial"))

    def _say_lag(self) -> None:
        now = time.monotonic()
        if now - self._waiting[0].since > _LAG_S and now >= self._say_lag_at:
            self._say_lag_at = now + _LAG_AGAIN_S
            log.warning(
                "%s wait for after_trial, which takes longer than trials do; a larger hooks.trials_per_call "
                "tells several at a time",
                counted(len(self._waiting) + self._others, "ended trial"),
            )

    def _call(self, name: str, told: bytes, trials: str = "") -> None:
        """Call a hook within the allocation, and log how it failed."""
        began = time.monotonic()
        latest = min(began + self._hooks.timeout_s, self._until)
        if began >= latest:
            log.warning("%s was not called: the allocation is over", name)
            return

        def ends_at() -> float:
            return min(latest, self._give_up_at) if name == "after_trial" else latest

        outcome = self._calls.call(self._hooks.commands[name], told, ends_at)
        what = f"{name} ({trials})" if trials else name
        self._log.add(what, outcome, time.monotonic() - began)
        if not outcome.problem:
            return
        self._failures[name] += 1
        if self._failures[name] <= _FAILURES_SHOWN:
            lines = outcome.output.split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            more = "; further failures are only there" if self._failures[name] == _FAILURES_SHOWN else ""
            log.warning(
                "hook %s %s%s; see %s%s", what, outcome.problem, f": {last[:300]}" if last else "",
                self._log.path, more,
            )  # fmt: skip


def _trials(told: Sequence[_Waiting]) -> str:
    first, last = told[0].number, told[-1].number
    return f"trial {first}" if len(told) == 1 else f"{len(told):,} trials, {first} to {last}"


def _ends_within(thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def _await(wait: Callable[[float], bool], limit_s: float, stops: Stops, *, at: int) -> None:
    """Wait for an event, a time, or this number of requests to stop."""
    until = time.monotonic() + limit_s
    while not wait(0.1) and stops.asked < at and time.monotonic() < until:
        pass
