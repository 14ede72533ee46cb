"""One slot's trial process as its worker sees it: give, listen, time out, reclaim, stop, replace.

Whatever happens in there becomes a :data:`TrialEvent`; the process (:class:`mpisweep.processes.child.Child`)
is replaced without anybody else taking notice.

Where a process was killed and does not end, because it is inside a driver or a file system that hangs, it may
hold the device for ever: the slot is given up.  So it is where no process could be started for it several
times.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from mpisweep.blocks import EndedBlock, ReportBlock, encode
from mpisweep.messages import Team
from mpisweep.processes.child import Child, ProcessSetting, reclaimed
from mpisweep.processes.forkserver import ForkServer, Notice, Stays
from mpisweep.processes.kernel import SENT_TO_EVERYBODY
from mpisweep.processes.ledger import Given, Task
from mpisweep.processes.trial_events import Broke, Reclaimed, Reports, Result, TrialEvent
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause, TrialState

__all__ = ["PROGRAM_END_S", "TrialProcess"]

#: How much longer than its trial a trial process has that ends a program, in seconds.
PROGRAM_END_S = 5.0
#: Processes that die this often before a trial has begun would do so for ever; their trials fail instead.
_STARTS_AT_MOST = 3


class TrialProcess:
    """The trial process of one slot, and each one that replaces it.

    Args:
        server: forks the processes.
        setting: what they are told.
        slot: index of the slot in its worker.
        share: what they may use.
    """

    def __init__(self, server: ForkServer, setting: ProcessSetting, slot: int, share: DeviceShare) -> None:
        self._server = server
        self._setting = setting
        self._slot = slot
        self._share = share
        self._failed_starts = 0
        #: How often in a row no process could be had.
        self._failed_forks = 0
        #: Whether nothing runs here any more.
        self.is_gone = False
        #: A trial that has ended with its process; the next one clears up after it.
        self._left_by: int | None = None
        #: What :meth:`meet` was last called with.
        self._rendezvous: tuple[int, int, str] | None = None
        self._child = self._started()

    def _started(self) -> Child:
        return Child(self._server, self._setting, self._slot, self._share, self._left_by)

    # ------------------------------------------------------------------------------------- orders

    @property
    def busy(self) -> bool:
        """Whether there are trials that are not accounted for."""
        return not self._child.ledger.is_settled

    @property
    def is_over(self) -> bool:
        """Whether it was stopped and its process has ended: what it is given now runs nowhere."""
        return self._child.is_stopped and not self._child.is_connected

    @property
    def held(self) -> list[tuple[int, int]]:
        """Number and attempt of the trials that are not accounted for, in order."""
        return [(task.number, task.attempt) for task in self._child.ledger.held]

    def fileno(self) -> int:
        """For select(); -1 while a dead process is waiting to be replaced."""
        return self._child.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether the process has not taken all that it was given; :meth:`listen` tries again."""
        return self._child.has_unsent

    def give(self, body: bytes, count: int, team: Team | None = None) -> None:
        """Have these trials run after those given before; `team` goes with a trial of several ranks."""
        # Of a slot that is gone whoever is master takes everything back that it has given, once it knows.
        if not self.is_gone:
            self._child.give(body, count, team)

    def set_rendezvous(self, number: int, attempt: int, address: str) -> None:
        """Tell the process where the other ranks of its trial are."""
        self._rendezvous = number, attempt, address
        self._child.set_rendezvous(number, attempt, address)

    def abandon(self, number: int, attempt: int, until: float) -> None:
        """See that a trial is let go of by then, if it is still held; those given with it are kept."""
        self._child.abandon(Task(number, attempt), until)

    def reclaim(self) -> None:
        """Reclaim what has not begun; :meth:`reclaimed`, a moment later, says what that was."""
        self._child.want_back()

    def reclaimed(self) -> Reclaimed:
        """What was reclaimed in time; call it at least a millisecond after :meth:`reclaim`."""
        return reclaimed(self._child.ledger.reclaimed(self._child.page.begun), AttemptEnd.RECLAIMED)

    def stop(self, grace_s: float, now: float) -> None:
        """Tell the running trial to return, and kill it if it has not done so after the grace."""
        self._child.stop(now + grace_s)

    def close(self) -> None:
        """Let the process go; it ends by itself when it sees the line closed."""
        self._child.close()

    # ------------------------------------------------------------------------------------- what happens

    def listen(self) -> list[TrialEvent]:
        """Whatever the process has sent."""
        return self._child.listen()

    def keep_time(self, now: float) -> None:
        """Kill a trial that has used up its time."""
        self._child.keep_time(now)

    def is_child(self, child: int) -> bool:
        """Whether the fork server's notice is about the present process."""
        return self._child.is_child(child)

    def on_notice(self, notice: Notice) -> list[TrialEvent]:
        """What the fork server has told; nothing happens where that is about another process."""
        if not self.is_child(notice.child):
            return []
        if isinstance(notice, Stays):
            return self.on_stays(notice.process)
        return self.on_died(notice.status, notice.why)

    def on_died(self, status: int, why: str = "") -> list[TrialEvent]:
        """The process has ended: blame the trial that ran, reclaim the others, start a new process.

        Args:
            status: exit code, or the negative number of the signal.
            why: why it never began, where it could not be forked.
        """
        child = self._child
        happened = child.last_words()
        if why and child.killed is None and not child.is_stopped:
            return happened + self._on_no_process(why)
        self._failed_forks = 0
        if child.page.begun:
            self._failed_starts = 0
        elif child.killed is None and (child.ledger.held or not child.is_ready):
            self._failed_starts += 1
        if self._failed_starts >= _STARTS_AT_MOST and child.ledger.held:
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
        """The process, or the `process` that it has left behind, does not end: give the slot up."""
        happened = self._child.last_words()
        within = f"{self._server.patience_s:g} s"
        return happened + self._give_up(f"process {process} did not end within {within} after it was killed")

    def _on_no_process(self, why: str) -> list[TrialEvent]:
        """No process could be had: that costs the next trial an attempt, and in the end the slot."""
        self._failed_forks += 1
        if self._failed_forks >= _STARTS_AT_MOST:
            return self._give_up(why)
        happened: list[TrialEvent] = []
        if held := self._child.ledger.held:
            happened = [*_reclaimed(held[1:], AttemptEnd.RECLAIMED), Broke(held[0], why, is_gone=False)]
        self._replace()
        return happened

    def _replace(self) -> None:
        self._child.page.close()
        self._child = self._started()

    def _give_up(self, why: str) -> list[TrialEvent]:
        """Nothing runs here any more; the trial that ran is lost, unless it was to let go anyway."""
        child = self._child
        lost, running, waiting = child.ledger.close(child.page.begun)
        happened = _reclaimed(lost, AttemptEnd.LOST)
        if child.killed is not None and isinstance(child.killed.why, AttemptEnd):
            happened += _reclaimed(running, child.killed.why)
            running = []
        happened += _reclaimed(waiting, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.RECLAIMED)
        self.is_gone = True
        return [*happened, Broke(running[0] if running else None, why, is_gone=True)]

    # ------------------------------------------------------------------------------------- whose fault it is

    def _account_for_death(self, status: int, carried: Sequence[Given]) -> list[TrialEvent]:
        child = self._child
        begun = child.page.begun
        lost, running, waiting = child.ledger.close(begun, carried)
        # Those before the running one have run, but their results died with the process.
        return [
            *_reclaimed(lost, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.LOST),
            *(self._blame(running[0], begun - 1, status) if running else []),
            *_reclaimed(waiting, AttemptEnd.INTERRUPTED if child.is_stopped else AttemptEnd.RECLAIMED),
        ]

    def _blame(self, task: Task, index: int, status: int) -> list[TrialEvent]:
        """What becomes of the trial that was running when its process ended."""
        killed = self._child.killed
        cause, text = FailureCause.CRASH, f"the trial process {_status_text(status)}"
        if killed is None and self._ended_with_everybody(status):
            return [reclaimed([task], AttemptEnd.INTERRUPTED)]
        if killed is not None:
            if isinstance(killed.why, AttemptEnd):
                return [reclaimed([task], killed.why)]
            cause, text = killed.why, killed.text
            # A kill may come too late for its trial and hit the next one.
            if index != killed.index:
                return [reclaimed([task], AttemptEnd.RECLAIMED)]
        self._left_by = task.number
        block = self._failed_block([task], self._child.page.started_ns, cause, text)
        return [*self._unsent_of(task), Result(encode(block))]

    def _unsent_of(self, task: Task) -> list[TrialEvent]:
        """What the trial had reported and not sent when its process ended."""
        received = self._child.reports_received(task)
        curves = self._child.page.unsent.curves(received)
        if not curves:
            return []
        block = ReportBlock(self._setting.worker, task.number, task.attempt, curves, received)
        return [Reports(task.number, task.attempt, encode(block))]

    def _ended_with_everybody(self, status: int) -> bool:
        """Whether the process was ended by what all processes of this job were sent while its trial ran."""
        is_sent = -status in (*SENT_TO_EVERYBODY, signal.SIGKILL)
        return is_sent and self._server.signals.any_since(self._child.page.started_ns)

    def _fail_all(self, status: int) -> list[TrialEvent]:
        """Process after process has died before a trial began: all that is held fails."""
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
    """These trials, as reclaimed, if there are any."""
    return [reclaimed(tasks, end)] if tasks else []


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "an unknown signal"
    return f"was killed by signal {-status} ({name})"
