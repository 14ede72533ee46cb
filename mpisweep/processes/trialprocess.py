"""One slot's trial process as its worker sees it: give, time out, reclaim, stop, replace.

Everything that happens in it becomes a :data:`TrialEvent`; a new process
(:class:`mpisweep.processes.child.Child`) replaces a dead one without the master's help.

A killed process that does not end, because it is inside a driver or a file system that hangs, may hold the
device for ever: the slot is declared broken.  The same happens if several forks for it fail.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from mpisweep.blocks import EndedBlock, ReportBlock, encode
from mpisweep.messages import Team
from mpisweep.processes.child import Child, ProcessSetting, reclaimed
from mpisweep.processes.forkserver import ForkServer, Notice, Stays
from mpisweep.processes.kernel import JOB_SIGNALS
from mpisweep.processes.ledger import Given, Task
from mpisweep.processes.trial_events import Broke, Reclaimed, Reports, Result, TrialEvent
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause, TrialState

__all__ = ["PROGRAM_END_S", "TrialProcess"]

#: Extra time of a trial process that ends a program, beyond its trial's, in seconds.
PROGRAM_END_S = 5.0
#: After this many processes that died before a trial began, the trials fail.
_MAX_STARTS = 3


class TrialProcess:
    """The trial process of one slot, and each one that replaces it.

    Args:
        server: forks the processes.
        setting: their arguments.
        slot: index of the slot in its worker.
        share: their devices and cores.
    """

    def __init__(self, server: ForkServer, setting: ProcessSetting, slot: int, share: DeviceShare) -> None:
        self._server = server
        self._setting = setting
        self._slot = slot
        self._share = share
        self._failed_starts = 0
        #: Number of failed forks in a row.
        self._failed_forks = 0
        #: Whether the slot is broken, so that nothing runs here any more.
        self.is_gone = False
        #: A trial that ended with its process; the next process cleans up after it.
        self._left_by: int | None = None
        #: The arguments of the last :meth:`set_rendezvous`.
        self._rendezvous: tuple[int, int, str] | None = None
        # Only the first process checks the device: the check itself may have been the end of it.
        self._child = self._started(checks=True)

    def _started(self, *, checks: bool = False) -> Child:
        return Child(self._server, self._setting, self._slot, self._share, self._left_by, checks=checks)

    # ------------------------------------------------------------------------------------- requests

    @property
    def busy(self) -> bool:
        """Whether some trials are not accounted for."""
        return not self._child.ledger.is_settled

    @property
    def is_over(self) -> bool:
        """Whether it was stopped and its process has ended, so that no new trial would run."""
        return self._child.is_stopped and not self._child.is_connected

    @property
    def held(self) -> list[tuple[int, int]]:
        """Number and attempt of the trials that are not accounted for, in order."""
        return [(task.number, task.attempt) for task in self._child.ledger.held]

    def fileno(self) -> int:
        """File descriptor for select(); -1 until a dead process is replaced."""
        return self._child.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether some frames are not sent yet; :meth:`receive` retries."""
        return self._child.has_unsent

    def give(self, body: bytes, count: int, team: Team | None = None) -> None:
        """Queue trials after the earlier ones; `team` goes with a trial of several ranks."""
        # The master reclaims the trials of a broken slot when it learns that it is broken.
        if not self.is_gone:
            self._child.give(body, count, team)

    def set_rendezvous(self, number: int, attempt: int, address: str) -> None:
        """Send the process the address of its trial's other ranks."""
        self._rendezvous = number, attempt, address
        self._child.set_rendezvous(number, attempt, address)

    def abandon(self, number: int, attempt: int, until: float) -> None:
        """End a trial by `until` if it is still held; other trials of the slot continue."""
        self._child.abandon(Task(number, attempt), until)

    def prune(self, number: int, attempt: int) -> None:
        """Ask a trial to return soon, if it is still held: it is hopeless."""
        self._child.prune(Task(number, attempt))

    def reclaim(self) -> None:
        """Reclaim the trials that have not begun; :meth:`reclaimed` returns them a moment later."""
        self._child.begin_reclaim()

    def reclaimed(self) -> Reclaimed:
        """The trials that were reclaimed; call it at least a millisecond after :meth:`reclaim`."""
        return reclaimed(self._child.ledger.reclaimed(self._child.page.begun), AttemptEnd.RECLAIMED)

    def stop(self, grace_s: float, now: float) -> None:
        """Ask the running trial to return, and kill it if it has not after the grace period."""
        self._child.stop(now + grace_s)

    def close(self) -> None:
        """Close the line; the process then ends by itself."""
        self._child.close()

    # ------------------------------------------------------------------------------------- events

    def receive(self) -> list[TrialEvent]:
        """Receive the messages of the process."""
        return self._child.receive()

    def keep_time(self, now: float) -> None:
        """Kill a trial that has exceeded its time."""
        self._child.keep_time(now)

    def is_child(self, child: int) -> bool:
        """Whether a notice of the fork server is about the current process."""
        return self._child.is_child(child)

    def on_notice(self, notice: Notice) -> list[TrialEvent]:
        """Handle a notice of the fork server; ignore it if it is about another process."""
        if not self.is_child(notice.child):
            return []
        if isinstance(notice, Stays):
            return self.on_stays(notice.process)
        return self.on_died(notice.status, notice.why)

    def on_died(self, status: int, why: str = "") -> list[TrialEvent]:
        """Handle a dead process: blame the running trial, reclaim the others, start a new one.

        Args:
            status: exit code, or the negative number of the signal.
            why: the reason, if it could not be forked.
        """
        child = self._child
        happened = child.drain()
        if why and child.killed is None and not child.is_stopped:
            return happened + self._on_failed_fork(why)
        self._failed_forks = 0
        if child.page.begun:
            self._failed_starts = 0
        elif child.killed is None and (child.ledger.held or not child.is_ready):
            self._failed_starts += 1
        if self._failed_starts >= _MAX_STARTS and child.ledger.held:
            carried: list[Given] = []
            happened += self._fail_all(status)
        else:
            carried = child.carried()
            happened += self._account_for_death(status, carried)
        if not child.is_stopped:
            self._replace()
            for given in carried:
                self.give(given.body, given.size, given.team)
            if carried and self._rendezvous is not None:
                self.set_rendezvous(*self._rendezvous)
        return happened

    def on_stays(self, process: int) -> list[TrialEvent]:
        """Declare the slot broken, because `process` does not end after SIGKILL."""
        happened = self._child.drain()
        within = f"{self._server.patience_s:g} s"
        return happened + self._declare_broken(
            f"process {process} did not end within {within} after it was killed"
        )

    def _on_failed_fork(self, why: str) -> list[TrialEvent]:
        """Handle a failed fork: it costs the next trial an attempt, and finally the slot."""
        self._failed_forks += 1
        if self._failed_forks >= _MAX_STARTS:
            return self._declare_broken(why)
        happened: list[TrialEvent] = []
        if held := self._child.ledger.held:
            happened = [*_reclaimed(held[1:], AttemptEnd.RECLAIMED), Broke(held[0], why, is_gone=False)]
        self._replace()
        return happened

    def _replace(self) -> None:
        self._child.page.close()
        self._child = self._started()

    def _declare_broken(self, why: str) -> list[TrialEvent]:
        """Declare the slot broken; the running trial is lost, unless it was to be abandoned anyway."""
        child = self._child
        lost, running, waiting = child.ledger.close(child.page.begun)
        happened = _reclaimed(lost, AttemptEnd.LOST)
        if child.killed is not None and isinstance(child.killed.why, AttemptEnd):
            happened += _reclaimed(running, child.killed.why)
            running = []
        happened += _reclaimed(waiting, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.RECLAIMED)
        self.is_gone = True
        return [*happened, Broke(running[0] if running else None, why, is_gone=True)]

    # ------------------------------------------------------------------------------------- blame

    def _account_for_death(self, status: int, carried: Sequence[Given]) -> list[TrialEvent]:
        child = self._child
        begun = child.page.begun
        lost, running, waiting = child.ledger.close(begun, carried)
        # Trials before the running one have run, but their results were lost with the process.
        return [
            *_reclaimed(lost, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.LOST),
            *(self._blame(running[0], begun - 1, status) if running else []),
            *_reclaimed(waiting, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.RECLAIMED),
        ]

    def _blame(self, task: Task, index: int, status: int) -> list[TrialEvent]:
        """Account for the trial that was running when its process ended."""
        killed = self._child.killed
        cause, text = FailureCause.CRASH, f"the trial process {_status_text(status)}"
        if killed is None and self._died_of_job_signal(status):
            return [reclaimed([task], AttemptEnd.INTERRUPTED)]
        if killed is not None:
            if isinstance(killed.why, AttemptEnd):
                return [reclaimed([task], killed.why)]
            cause, text = killed.why, killed.text
            # The kill may have come too late for its trial and hit the next one.
            if index != killed.index:
                return [reclaimed([task], AttemptEnd.RECLAIMED)]
        self._left_by = task.number
        block = self._failed_block([task], self._child.page.started_ns, cause, text)
        return [*self._unsent_of(task), Result(encode(block))]

    def _unsent_of(self, task: Task) -> list[TrialEvent]:
        """The reports that the trial had not sent when its process ended."""
        received = self._child.reports_received(task)
        curves = self._child.page.unsent.curves(received)
        if not curves:
            return []
        block = ReportBlock(self._setting.worker, task.number, task.attempt, curves, received)
        return [Reports(task.number, task.attempt, encode(block))]

    def _died_of_job_signal(self, status: int) -> bool:
        """Whether a signal to all processes of the job ended the process during its trial."""
        is_sent = -status in (*JOB_SIGNALS, signal.SIGKILL)
        return is_sent and self._server.signals.any_since(self._child.page.started_ns)

    def _fail_all(self, status: int) -> list[TrialEvent]:
        """Fail all held trials, because several processes have died before a trial began."""
        times = self._failed_starts
        self._failed_starts = 0
        text = f"the trial process ended {times} times before a trial began: it {_status_text(status)}"
        block = self._failed_block(self._child.ledger.held, 0, FailureCause.CRASH, text)
        self._child.ledger.close(self._child.page.begun)
        return [Result(encode(block))]

    def _failed_block(
        self, tasks: Sequence[Task], started_ns: int, cause: FailureCause, text: str
    ) -> EndedBlock:
        wall_time_s = (time.monotonic_ns() - started_ns) / 1e9 if started_ns else float("nan")
        started_at = time.time() - wall_time_s if started_ns else float("nan")
        count = len(tasks)
        return EndedBlock(
            worker=self._setting.worker,
            slot=self._slot,
            numbers=[task.number for task in tasks],
            attempts=[task.attempt for task in tasks],
            states=[int(TrialState.FAILED)] * count,
            started_at=[started_at] * count,
            wall_time_s=[wall_time_s] * count,
            metrics={},
            causes=[int(cause)] * count,
            messages=[text] * count,
        )


def _reclaimed(tasks: Sequence[Task], end: AttemptEnd) -> list[TrialEvent]:
    """A Reclaimed event for these trials; none if there are no trials."""
    return [reclaimed(tasks, end)] if tasks else []


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "an unknown signal"
    return f"was killed by signal {-status} ({name})"
