"""One process that runs trials, from its start to its end, as its worker sees it.

The worker never waits for it.  What it does is known from the frames on the line and from the shared page;
which trials it was given, and what became of them, the ledger says.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mpisweep.messages import Team
from mpisweep.processes.channel import (
    ENDED,
    GIVEN,
    INTERRUPTED,
    READY,
    RENDEZVOUS,
    RENDEZVOUS_READY,
    REPORTS,
    SKIPPED,
    TEAM,
    Frame,
    Line,
    LineClosedError,
)
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.ledger import Given, Ledger, Task
from mpisweep.processes.shared_page import Page, page_file
from mpisweep.processes.trial_events import Reclaimed, RendezvousOpened, Reports, Result, TrialEvent
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause

__all__ = ["Child", "Kill", "ProcessSetting", "reclaimed"]

#: How long a reclaimed trial has to be skipped, in seconds, before it is looked at again.
_SKIPPED_S = 0.1


@dataclass(frozen=True, slots=True)
class ProcessSetting:
    """What every trial process of a worker is told when it starts."""

    spec: str
    source: str
    folder: Path
    trials_folder: Path
    #: Gets the whole traceback of every trial that raises.
    log_file: Path
    worker: int
    timeout_s: float | None
    stall_s: float | None
    #: How much longer the trial process has, which ends a program by itself and keeps what that has printed.
    slack_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Kill:
    """Why a process is being killed, where it is our doing."""

    why: FailureCause | AttemptEnd
    #: The trial that ran when it was found to have used up its time.
    index: int = -1
    text: str = ""


class Child:
    """One process that runs trials.

    Args:
        server: forks it.
        setting: what it is told.
        slot: index of its slot in its worker.
        share: what it may use.
        left_by: a trial that has ended with the process before; this one clears up after it.
    """

    def __init__(
        self, server: ForkServer, setting: ProcessSetting, slot: int, share: DeviceShare, left_by: int | None
    ) -> None:
        self._server = server
        self._setting = setting
        ours, theirs = socket.socketpair()
        file = page_file()
        #: What the fork server calls it.
        self.number = server.spawn(
            "mpisweep.workloads.serve:serve",
            [theirs.fileno(), file, server.signals_file],
            {
                "spec": setting.spec,
                "source": setting.source,
                "folder": os.fspath(setting.folder),
                "trials_folder": os.fspath(setting.trials_folder),
                "log_file": os.fspath(setting.log_file),
                "watch_reports": setting.stall_s is not None,
                "worker": setting.worker,
                "slot": slot,
                "left_by": left_by,
                "device": share.device,
                "cores": list(share.cores),
                "environment": dict(share.environment),
            },
        )
        self.page = Page(file)
        os.close(file)
        theirs.close()
        ours.setblocking(False)
        self._line = Line(ours)
        self.is_connected = True
        #: Whether the workload is loaded.
        self.is_ready = False
        self.ledger = Ledger()
        #: Why it is being killed, where it is.
        self.killed: Kill | None = None
        #: When it is killed after it was told to stop.
        self._kill_at: float | None = None
        #: The trial that has reported last, and in how many blocks.
        self._reported: tuple[Task | None, int] = (None, 0)
        #: Trials that are to be let go of, and when.
        self._abandoned: dict[Task, float] = {}

    # ------------------------------------------------------------------------------------- orders

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop: no process comes after it."""
        return self._kill_at is not None

    def fileno(self) -> int:
        """For select(); -1 once the line is closed."""
        return self._line.fileno() if self.is_connected else -1

    @property
    def has_unsent(self) -> bool:
        """Whether it has not taken all that it was given; :meth:`listen` tries again."""
        return self.is_connected and self._line.has_unsent

    def give(self, body: bytes, count: int, team: Team | None) -> None:
        """Have these trials run after those given before; `team` goes with a trial of several ranks."""
        self.ledger.give(body, count, team)
        # One that has just died is replaced by and by; what it was given is then reclaimed.
        if not self.is_connected:
            return
        with contextlib.suppress(LineClosedError):
            if team is not None:
                self._line.send(TEAM, json.dumps(asdict(team)).encode())
            self._line.send(GIVEN, body)

    def set_rendezvous(self, number: int, attempt: int, address: str) -> None:
        """Tell it where the other ranks of its trial are."""
        if self.is_connected:
            with contextlib.suppress(LineClosedError):
                self._line.send(RENDEZVOUS, address.encode(), number, attempt)

    def abandon(self, task: Task, until: float) -> None:
        """See that a trial is let go of by then, if it is still held; those given with it are kept."""
        if self.ledger.index_of(task) is not None:
            self._abandoned[task] = min(until, self._abandoned.get(task, until))

    def want_back(self) -> None:
        """Reclaim what has not begun."""
        self.page.reclaim_below(self.ledger.want_back())

    def stop(self, kill_at: float) -> None:
        """Tell the running trial to return, and kill the process if it has not done so by then."""
        self.page.ask_to_stop()
        self._kill_at = kill_at

    def kill(self, why: Kill) -> None:
        """End it for this reason."""
        self.killed = why
        self._server.kill(self.number)

    def close(self) -> None:
        """Let it go; it ends by itself when it sees the line closed."""
        self._disconnect()
        self.page.close()

    # ------------------------------------------------------------------------------------- what happens

    def is_child(self, child: int) -> bool:
        """Whether the fork server's notice is about this process."""
        return child == self.number

    def listen(self) -> list[TrialEvent]:
        """Whatever it has sent."""
        happened: list[TrialEvent] = []
        for frame in self._receive():
            happened += self._on_frame(frame)
        return happened

    def last_words(self) -> list[TrialEvent]:
        """Whatever it has sent, after its end; the line is closed then."""
        happened: list[TrialEvent] = []
        while frames := self._receive():
            for frame in frames:
                happened += self._on_frame(frame)
        self._disconnect()
        return happened

    def _receive(self) -> list[Frame]:
        if not self.is_connected:
            return []
        try:
            # What it has sent before it closed the line is there, whether it takes anything any more or not.
            with contextlib.suppress(LineClosedError):
                self._line.flush()
            return self._line.receive()
        except LineClosedError:
            self._disconnect()
            # Whether it has closed the line or died, it is of no use any more.
            self._server.kill(self.number)
            return []

    def _disconnect(self) -> None:
        if self.is_connected:
            self.is_connected = False
            self._line.close()

    def _on_frame(self, frame: Frame) -> list[TrialEvent]:
        match frame.kind:
            case k if k == READY:
                self.is_ready = True
                return []
            case k if k == REPORTS:
                task, count = self._reported
                now = Task(frame.first, frame.second)
                self._reported = now, count + 1 if now == task else 1
                return [Reports(frame.first, frame.second, frame.body)]
            case k if k == RENDEZVOUS_READY:
                return [RendezvousOpened(frame.first, frame.second, frame.body.decode())]
            case k if k == ENDED:
                self.ledger.on_ended(frame.first)
                return [Result(frame.body)]
            case k if k == SKIPPED:
                skipped = self.ledger.on_skipped(frame.first, frame.second)
                return [reclaimed(skipped, AttemptEnd.RECLAIMED)] if skipped else []
            case k if k == INTERRUPTED:
                return [reclaimed(self.ledger.on_interrupted(frame.first), AttemptEnd.INTERRUPTED)]
        raise AssertionError(f"a trial process sent a frame of kind {frame.kind}")

    def reports_received(self, task: Task) -> int:
        """How many ReportBlocks of this trial have come, if it was the last to report."""
        return self._reported[1] if self._reported[0] == task else 0

    def carried(self) -> list[Given]:
        """What is for the next process: a trial that needs a pristine one, and what follows it."""
        is_left = any(self.ledger.index_of(task) is not None for task in self._abandoned)
        if self.is_stopped or self.killed is not None or is_left:
            return []
        return self.ledger.carried(self.page.begun)

    # ------------------------------------------------------------------------------------- time

    def keep_time(self, now: float) -> None:
        """Kill it when a trial has used up its time, or has not been let go of in time."""
        if self.killed is not None or not self.is_connected:
            return
        if (overdue := self._overdue()) is not None:
            self.kill(overdue)
        if self._kill_at is not None and now >= self._kill_at and not self.ledger.is_settled:
            self.kill(Kill(AttemptEnd.INTERRUPTED))
            return
        for task in [task for task, until in self._abandoned.items() if now >= until]:
            place = self.ledger.index_of(task)
            if place is None:
                del self._abandoned[task]
            elif place < self.page.begun:
                self.kill(Kill(AttemptEnd.RECLAIMED))
                self._abandoned.clear()
                return
            else:
                # Another trial runs, which is nobody else's.
                self.page.reclaim_below(place + 1)
                self._abandoned[task] = now + _SKIPPED_S

    def _overdue(self) -> Kill | None:
        """Why the running trial has had its time, if it has."""
        setting = self._setting
        timeout_s, stall_s = setting.timeout_s, setting.stall_s
        # Read first: it is never later than the start that is read after it.
        index = self.page.begun - 1
        started_ns = self.page.started_ns if timeout_s is not None or stall_s is not None else 0
        if not started_ns:
            return None
        now_ns = time.monotonic_ns()
        if timeout_s is not None and now_ns - started_ns > (timeout_s + setting.slack_s) * 1e9:
            return Kill(FailureCause.TIMEOUT, index, f"killed after {timeout_s:g} s, the timeout of a trial")
        silent_ns = now_ns - max(started_ns, self.page.reported_ns)
        if stall_s is None or silent_ns <= (stall_s + setting.slack_s) * 1e9:
            return None
        # Of several ranks only the reports of rank 0 count.
        team = self.ledger.team_of(index)
        if team is not None and team.rank:
            return None
        return Kill(FailureCause.TIMEOUT, index, f"killed because it reported nothing for {stall_s:g} s")


def reclaimed(tasks: Sequence[Task], end: AttemptEnd) -> Reclaimed:
    """These trials, as reclaimed."""
    return Reclaimed(tuple(task.number for task in tasks), tuple(task.attempt for task in tasks), end)
