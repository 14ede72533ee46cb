"""One process that runs trials, from start to end, as seen by its worker.

The worker never waits for it: frames on the line and the shared page show its progress, and the ledger
records the trials that it was given and their outcomes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from mpisweep.dataclass import asdict, dataclass
from mpisweep.messages import Team
from mpisweep.processes.channel import (
    CHECKED,
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
from mpisweep.processes.trial_events import (
    Checked,
    Reclaimed,
    RendezvousOpened,
    Reports,
    Result,
    TrialEvent,
)
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause

__all__ = ["Child", "Kill", "ProcessSetting", "reclaimed"]

#: How long the process has to skip a reclaimed trial before the worker checks again, in seconds.
_SKIPPED_S = 0.1


@dataclass(frozen=True, slots=True)
class ProcessSetting:
    """The arguments of every trial process of a worker."""

    spec: str
    source: str
    folder: Path
    trials_folder: Path
    #: Receives the whole traceback of every trial that raises.
    log_file: Path
    worker: int
    timeout_s: float | None
    stall_s: float | None
    #: Extra time for a trial process that ends a program on timeout itself and keeps the program's output.
    slack_s: float = 0.0
    #: Variables beside those of a worker's devices.
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Kill:
    """Why the worker kills a process."""

    why: FailureCause | AttemptEnd
    #: The trial that had exceeded its time.
    index: int = -1
    text: str = ""


class Child:
    """One process that runs trials.

    Args:
        server: forks it.
        setting: its arguments.
        slot: index of its slot in its worker.
        share: its devices and cores.
        left_by: a trial that ended with the previous process; this one cleans up after it.
        checks: whether it checks the device before its first trial.
    """

    def __init__(
        self,
        server: ForkServer,
        setting: ProcessSetting,
        slot: int,
        share: DeviceShare,
        left_by: int | None,
        *,
        checks: bool = False,
    ) -> None:
        self._server = server
        self._setting = setting
        ours, theirs = socket.socketpair()
        file = page_file()
        #: Its number at the fork server.
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
                "environment": dict((*share.environment, *setting.environment)),
                "gpus": list(share.gpus),
                "checks": checks,
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
        #: Why the worker has killed it; None if it has not.
        self.killed: Kill | None = None
        #: When it is killed after a stop request.
        self._kill_at: float | None = None
        #: The trial that reported last, and its number of blocks.
        self._reported: tuple[Task | None, int] = (None, 0)
        #: Trial to abandon -> deadline.
        self._abandoned: dict[Task, float] = {}

    # ------------------------------------------------------------------------------------- requests

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop, so that no process replaces it."""
        return self._kill_at is not None

    def fileno(self) -> int:
        """File descriptor for select(); -1 once the line is closed."""
        return self._line.fileno() if self.is_connected else -1

    @property
    def has_unsent(self) -> bool:
        """Whether some frames are not sent yet; :meth:`receive` retries."""
        return self.is_connected and self._line.has_unsent

    def give(self, body: bytes, count: int, team: Team | None) -> None:
        """Queue trials after the earlier ones; `team` goes with a trial of several ranks."""
        self.ledger.give(body, count, team)
        # A process that has just died is replaced later; its trials are reclaimed then.
        if not self.is_connected:
            return
        with contextlib.suppress(LineClosedError):
            if team is not None:
                self._line.send(TEAM, json.dumps(asdict(team)).encode())
            self._line.send(GIVEN, body)

    def set_rendezvous(self, number: int, attempt: int, address: str) -> None:
        """Send it the address of its trial's other ranks."""
        if self.is_connected:
            with contextlib.suppress(LineClosedError):
                self._line.send(RENDEZVOUS, address.encode(), number, attempt)

    def abandon(self, task: Task, until: float) -> None:
        """End a trial by `until` if it is still held; other trials of the process continue."""
        if self.ledger.index_of(task) is not None:
            self._abandoned[task] = min(until, self._abandoned.get(task, until))

    def prune(self, task: Task) -> None:
        """Ask a trial to return soon, if it is still held: it is hopeless."""
        index = self.ledger.index_of(task)
        if index is not None:
            self.page.prune(index)

    def begin_reclaim(self) -> None:
        """Reclaim the trials that have not begun."""
        self.page.reclaim_below(self.ledger.begin_reclaim())

    def stop(self, kill_at: float) -> None:
        """Ask the running trial to return, and kill the process if it has not by `kill_at`."""
        self.page.ask_to_stop()
        self._kill_at = kill_at

    def kill(self, why: Kill) -> None:
        """Kill it for this reason."""
        self.killed = why
        self._server.kill(self.number)

    def close(self) -> None:
        """Close the line; the process then ends by itself."""
        self._disconnect()
        self.page.close()

    # ------------------------------------------------------------------------------------- events

    def is_child(self, child: int) -> bool:
        """Whether a notice of the fork server is about this process."""
        return child == self.number

    def receive(self) -> list[TrialEvent]:
        """Receive its messages."""
        happened: list[TrialEvent] = []
        for frame in self._receive_frames():
            happened += self._on_frame(frame)
        return happened

    def drain(self) -> list[TrialEvent]:
        """Receive its remaining messages after its end, and close the line."""
        happened: list[TrialEvent] = []
        while frames := self._receive_frames():
            for frame in frames:
                happened += self._on_frame(frame)
        self._disconnect()
        return happened

    def _receive_frames(self) -> list[Frame]:
        if not self.is_connected:
            return []
        try:
            # Messages that it sent before it closed the line are readable, even if it accepts none.
            with contextlib.suppress(LineClosedError):
                self._line.flush()
            return self._line.receive()
        except LineClosedError:
            self._disconnect()
            # It has closed the line or died; either way it is of no more use.
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
            case k if k == CHECKED:
                return [Checked(frame.body)]
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
        """Number of ReportBlocks received from this trial, if it was the last to report."""
        return self._reported[1] if self._reported[0] == task else 0

    def carried(self) -> list[Given]:
        """The blocks for the next process: one that needs a pristine process, and those after it."""
        is_left = any(self.ledger.index_of(task) is not None for task in self._abandoned)
        if self.is_stopped or self.killed is not None or is_left:
            return []
        return self.ledger.carried(self.page.begun)

    # ------------------------------------------------------------------------------------- time

    def keep_time(self, now: float) -> None:
        """Kill it if a trial has exceeded its time or was not abandoned in time."""
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
                # The running trial is another one and must continue.
                self.page.reclaim_below(place + 1)
                self._abandoned[task] = now + _SKIPPED_S

    def _overdue(self) -> Kill | None:
        """Why the running trial must be killed; None if it is within its limits."""
        setting = self._setting
        timeout_s, stall_s = setting.timeout_s, setting.stall_s
        # Read before the start time, so that the time is never that of an earlier trial.
        index = self.page.begun - 1
        started_ns = self.page.started_ns if timeout_s is not None or stall_s is not None else 0
        if not started_ns:
            return None
        now_ns = time.monotonic_ns()
        if timeout_s is not None and now_ns - started_ns > (timeout_s + setting.slack_s) * 1e9:
            return Kill(FailureCause.TIMEOUT, index, f"killed after {timeout_s:g} s (limits.timeout)")
        silent_ns = now_ns - max(started_ns, self.page.reported_ns)
        if stall_s is None or silent_ns <= (stall_s + setting.slack_s) * 1e9:
            return None
        # In a trial of several ranks only rank 0 reports.
        team = self.ledger.team_of(index)
        if team is not None and team.rank:
            return None
        return Kill(
            FailureCause.TIMEOUT, index, f"killed after {stall_s:g} s without a report (limits.stall)"
        )


def reclaimed(tasks: Sequence[Task], end: AttemptEnd) -> Reclaimed:
    """A Reclaimed event for these trials."""
    return Reclaimed(tuple(task.number for task in tasks), tuple(task.attempt for task in tasks), end)
