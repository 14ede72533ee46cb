"""One slot's trial process as its worker sees it: give, listen, time out, take back, stop, replace.

The worker never waits for the trial process and learns everything from three sources: frames on the line,
the shared page, and the fork server's word that the process has ended.  Whatever happens in there becomes a
:class:`Happening`; the process is replaced without anybody else taking notice.

Where a process was killed and does not end, because it is inside a driver or a file system that hangs, it may hold the
device for ever: the slot is given up.  So it is where no process could be started for it several times.

Trials are counted along the line: trial number *index* of this process.  `_accounted` is the index up to
which every trial has been answered for, by a result or by being given back; they are answered in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from mpisweep.blocks import AssignedBlock, EndedBlock, ReportBlock, decode, encode
from mpisweep.messages import Team
from mpisweep.processes.channel import (
    ENDED,
    GIVEN,
    INTERRUPTED,
    MEET,
    MEETING,
    READY,
    REPORTS,
    SKIPPED,
    TEAM,
    Frame,
    Line,
    LineClosedError,
)
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import SENT_TO_EVERYBODY
from mpisweep.processes.shared_page import Page, page_file
from mpisweep.records import AttemptEnd, DeviceShare, FailureCause, TrialState

__all__ = ["PROGRAM_END_S", "Back", "Broke", "Happening", "Met", "ProcessSetting", "Result", "Returned", "TrialProcess"]

#: How much longer than its trial a trial process has that ends a program, in seconds.
PROGRAM_END_S = 5.0
#: Processes that die this often before a trial has begun would do so for ever; their trials fail instead.
_STARTS_AT_MOST = 3
#: How long a trial that was declared void has to be skipped, in seconds, before it is looked at again.
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


class Result(NamedTuple):
    """An EndedBlock to be delivered."""

    body: bytes


class Back(NamedTuple):
    """A ReportBlock of a trial to be passed on."""

    number: int
    attempt: int
    body: bytes


class Returned(NamedTuple):
    """Trials given back; an answer to :meth:`TrialProcess.take_back` may be empty."""

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


class Met(NamedTuple):
    """Where the ranks of a trial meet, from its rank 0."""

    number: int
    attempt: int
    address: str


class Broke(NamedTuple):
    """The slot has failed, and not what it ran; see :class:`mpisweep.messages.Broken`."""

    trial: tuple[int, int] | None
    why: str
    is_gone: bool


Happening = Result | Back | Returned | Met | Broke


class _Given(NamedTuple):
    """A block that went down the line; its first trial has this index."""

    first: int
    size: int
    body: bytes
    team: Team | None = None


class _Task(NamedTuple):
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class _Kill:
    """Why a process is being killed, where it is our doing."""

    why: FailureCause | AttemptEnd
    #: The trial that ran when it was found to have used up its time.
    index: int = -1
    text: str = ""


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
        self._meeting: tuple[int, int, str] | None = None
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        file = page_file()
        setting, share = self._setting, self._share
        self._child = self._server.spawn(
            "mpisweep.workloads.serve:serve",
            [theirs.fileno(), file, self._server.signals_file],
            {
                "spec": setting.spec,
                "source": setting.source,
                "folder": os.fspath(setting.folder),
                "trials_folder": os.fspath(setting.trials_folder),
                "log_file": os.fspath(setting.log_file),
                "watch_reports": setting.stall_s is not None,
                "worker": setting.worker,
                "slot": self._slot,
                "left_by": self._left_by,
                "device": share.device,
                "cores": list(share.cores),
                "environment": dict(share.environment),
            },
        )
        self._page = Page(file)
        os.close(file)
        theirs.close()
        ours.setblocking(False)
        self._line = Line(ours)
        self._line_open = True
        self._ready = False
        #: What was given and is not wholly accounted for.
        self._given: deque[_Given] = deque()
        self._given_count = 0
        self._accounted = 0
        #: Indices that were given back while the process still had them; it will skip them.
        self._void: set[int] = set()
        #: The index below which :meth:`take_back` has declared void what had not begun, until that is answered.
        self._void_below: int | None = None
        self._killed: _Kill | None = None
        self._kill_at: float | None = None
        #: The trial that has reported last, and in how many blocks.
        self._reported: tuple[_Task | None, int] = (None, 0)
        #: Trials that are to be let go of, and when.
        self._abandoned: dict[_Task, float] = {}

    # ------------------------------------------------------------------------------------- orders

    @property
    def busy(self) -> bool:
        """Whether there are trials that are not accounted for."""
        return self._accounted < self._given_count

    @property
    def is_over(self) -> bool:
        """Whether it was stopped and its process has ended: what it is given now runs nowhere."""
        return self._kill_at is not None and not self._line_open

    @property
    def held(self) -> list[tuple[int, int]]:
        """Number and attempt of the trials that are not accounted for, in order."""
        return [(task.number, task.attempt) for task in self._tasks(self._accounted, self._given_count)]

    def fileno(self) -> int:
        """For select(); -1 while a dead process is waiting to be replaced."""
        return self._line.fileno() if self._line_open else -1

    @property
    def has_unsent(self) -> bool:
        """Whether the process has not taken all that it was given; :meth:`listen` tries again."""
        return self._line_open and self._line.has_unsent

    def give(self, body: bytes, count: int, team: Team | None = None) -> None:
        """Have these trials run after those that were given before; `team` goes with a trial of several ranks."""
        if self.is_gone:
            # Whoever is master takes everything back that it has given, once it knows.
            return
        self._given.append(_Given(self._given_count, count, body, team))
        self._given_count += count
        # A process that has just died is replaced by and by; what it was given is then given back.
        if not self._line_open:
            return
        with contextlib.suppress(LineClosedError):
            if team is not None:
                self._line.send(TEAM, json.dumps(asdict(team)).encode())
            self._line.send(GIVEN, body)

    def meet(self, number: int, attempt: int, address: str) -> None:
        """Tell the process where the other ranks of its trial are."""
        self._meeting = number, attempt, address
        if self._line_open:
            with contextlib.suppress(LineClosedError):
                self._line.send(MEET, address.encode(), number, attempt)

    def abandon(self, number: int, attempt: int, until: float) -> None:
        """See that a trial is let go of by then, if it is still held; those that were given with it are kept."""
        task = _Task(number, attempt)
        if self._index_of(task) is not None:
            self._abandoned[task] = min(until, self._abandoned.get(task, until))

    def take_back(self) -> None:
        """Declare void what has not begun; :meth:`taken_back`, a moment later, says what that was."""
        self._page.void_below(self._given_count)
        self._void_below = self._given_count

    def taken_back(self) -> Returned:
        """The trials that were void in time; to be called at least a millisecond after :meth:`take_back`."""
        if self._void_below is None:
            return _returned([], AttemptEnd.WITHDRAWN)
        end, self._void_below = self._void_below, None
        return self._give_back(max(self._page.begun, self._accounted), end)

    def stop(self, grace_s: float, now: float) -> None:
        """Tell the running trial to return, and kill it if it has not done so after the grace."""
        self._page.ask_to_stop()
        self._kill_at = now + grace_s

    def close(self) -> None:
        """Let the process go; it ends by itself when it sees the line closed."""
        if self._line_open:
            self._line_open = False
            self._line.close()
        self._page.close()

    # ------------------------------------------------------------------------------------- what happens

    def listen(self) -> list[Happening]:
        """Whatever the process has sent."""
        happened: list[Happening] = []
        for frame in self._receive():
            happened += self._on_frame(frame)
        return happened

    def _receive(self) -> list[Frame]:
        if not self._line_open:
            return []
        try:
            # What it has sent before it closed the line is there, whether it takes anything any more or not.
            with contextlib.suppress(LineClosedError):
                self._line.flush()
            return self._line.receive()
        except LineClosedError:
            self._line_open = False
            self._line.close()
            # Whether it has closed the line or died, it is of no use any more.
            self._server.kill(self._child)
            return []

    def keep_time(self, now: float) -> None:
        """Kill a trial that has used up its time."""
        if self._killed is not None or not self._line_open:
            return
        setting = self._setting
        timeout_s, stall_s = setting.timeout_s, setting.stall_s
        # Read first: it is never later than the start that is read after it.
        index = self._page.begun - 1
        started_ns = self._page.started_ns if timeout_s is not None or stall_s is not None else 0
        if started_ns:
            now_ns = time.monotonic_ns()
            if timeout_s is not None and now_ns - started_ns > (timeout_s + setting.slack_s) * 1e9:
                self._kill(_Kill(FailureCause.TIMEOUT, index, f"killed after {timeout_s:g} s, the timeout of a trial"))
            elif (
                stall_s is not None
                and self._speaks(index)
                and now_ns - max(started_ns, self._page.reported_ns) > (stall_s + setting.slack_s) * 1e9
            ):
                self._kill(_Kill(FailureCause.TIMEOUT, index, f"killed because it reported nothing for {stall_s:g} s"))
        if self._kill_at is not None and now >= self._kill_at and self.busy:
            self._kill(_Kill(AttemptEnd.INTERRUPTED))
            return
        for task in [task for task, until in self._abandoned.items() if now >= until]:
            place = self._index_of(task)
            if place is None:
                del self._abandoned[task]
            elif place < self._page.begun:
                self._kill(_Kill(AttemptEnd.WITHDRAWN))
                self._abandoned.clear()
                return
            else:
                # Another trial runs, which is nobody else's.
                self._page.void_below(place + 1)
                self._abandoned[task] = now + _SKIPPED_S

    def _speaks(self, index: int) -> bool:
        """Whether this trial's reports count: of several ranks only those of rank 0 do."""
        team = next((given.team for given in self._given if given.first <= index < given.first + given.size), None)
        return team is None or team.rank == 0

    def is_child(self, child: int) -> bool:
        """Whether the fork server's notice is about the present process."""
        return child == self._child

    def on_died(self, status: int, why: str = "") -> list[Happening]:
        """The process has ended: blame the trial that ran, give back the others, start a new process.

        Args:
            status: exit code, or the negative number of the signal.
            why: why it never began, where it could not be forked.
        """
        happened = self._last_words()
        if why and self._killed is None and self._kill_at is None:
            return happened + self._on_no_process(why)
        self._failed_forks = 0
        if self._page.begun:
            self._failed_starts = 0
        elif self._killed is None and (self.held or not self._ready):
            self._failed_starts += 1
        carried = self._carried_over()
        happened += self._account_for_death(status, carried)
        if self._kill_at is None:
            self._page.close()
            self._start()
            for given in carried:
                self.give(given.body, given.size, given.team)
            if carried and self._meeting is not None:
                self.meet(*self._meeting)
        else:
            self._account(self._given_count - self._accounted)
        return happened

    def on_stays(self, process: int) -> list[Happening]:
        """The process was killed, or has ended, and it or the `process` that it has left does not end: give the slot up."""
        happened = self._last_words()
        seconds = self._server.patience_s
        return happened + self._give_up(f"process {process} did not end within {seconds:g} s after it was killed")

    def _last_words(self) -> list[Happening]:
        """Whatever the process has sent; the line is closed then."""
        happened: list[Happening] = []
        while frames := self._receive():
            for frame in frames:
                happened += self._on_frame(frame)
        if self._line_open:
            self._line_open = False
            self._line.close()
        return happened

    def _on_no_process(self, why: str) -> list[Happening]:
        """No process could be had: that costs the next trial an attempt; after several times the slot is given up."""
        self._failed_forks += 1
        if self._failed_forks >= _STARTS_AT_MOST:
            return self._give_up(why)
        happened: list[Happening] = []
        tasks = self._indexed(self._accounted, self._given_count)
        if tasks:
            index, task = next(iter(tasks.items()))
            happened = [self._give_back(index + 1, self._given_count), Broke(task, why, is_gone=False)]
        self._page.close()
        self._start()
        return [h for h in happened if not isinstance(h, Returned) or h.numbers]

    def _give_up(self, why: str) -> list[Happening]:
        """Nothing runs here any more; the trial that ran is lost, unless it was to let go of its place anyway."""
        begun = self._page.begun
        ran = self._tasks(begun - 1, begun) if begun > self._accounted else []
        happened: list[Happening] = [self._give_back(self._accounted, begun - 1, AttemptEnd.LOST)]
        if ran and self._killed is not None and isinstance(self._killed.why, AttemptEnd):
            happened.append(_returned(ran, self._killed.why))
            ran = []
        end = AttemptEnd.WITHDRAWN if self._kill_at is None else AttemptEnd.INTERRUPTED
        happened.append(self._give_back(max(begun, self._accounted), self._given_count, end))
        self._account(self._given_count - self._accounted)
        self.is_gone = True
        return [
            *(h for h in happened if not isinstance(h, Returned) or h.numbers),
            Broke(ran[0] if ran else None, why, is_gone=True),
        ]

    def _on_frame(self, frame: Frame) -> list[Happening]:
        match frame.kind:
            case k if k == READY:
                self._ready = True
                return []
            case k if k == REPORTS:
                task, count = self._reported
                now = _Task(frame.first, frame.second)
                self._reported = now, count + 1 if now == task else 1
                return [Back(frame.first, frame.second, frame.body)]
            case k if k == MEETING:
                return [Met(frame.first, frame.second, frame.body.decode())]
            case k if k == ENDED:
                self._account(frame.first)
                return [Result(frame.body)]
            case k if k == SKIPPED:
                skipped = self._give_back(frame.first, frame.first + frame.second)
                self._account(frame.second)
                return [skipped] if skipped.numbers else []
            case k if k == INTERRUPTED:
                tasks = self._tasks(frame.first, frame.first + 1)
                self._account(1)
                return [_returned(tasks, AttemptEnd.INTERRUPTED)]
        raise AssertionError(f"a trial process sent a frame of kind {frame.kind}")

    def _carried_over(self) -> list[_Given]:
        """What is for the process to come: the next trial, where it must have one that has run nothing, and what follows it."""
        is_left = any(self._index_of(task) is not None for task in self._abandoned)
        if self._kill_at is not None or self._killed is not None or is_left or self._failed_starts >= _STARTS_AT_MOST:
            return []
        first = max(self._page.begun, self._accounted)
        left = [given for given in self._given if given.first >= first]
        if not left or left[0].first != first:
            return []
        block = decode(left[0].body)
        assert isinstance(block, AssignedBlock)
        if not block.fresh:
            return []
        return list(takewhile(lambda given: self._void.isdisjoint(range(given.first, given.first + given.size)), left))

    def _account_for_death(self, status: int, carried: Sequence[_Given]) -> list[Happening]:
        if self._failed_starts >= _STARTS_AT_MOST and self.held:
            return self._fail_all(status)
        happened: list[Happening] = []
        begun = self._page.begun
        interrupted = AttemptEnd.INTERRUPTED if self._kill_at is not None else None
        if begun > self._accounted:
            # Those before the running one have run, but their results died with the process.
            happened.append(self._give_back(self._accounted, begun - 1, interrupted or AttemptEnd.LOST))
            happened += self._blame(begun - 1, status)
        first = max(begun, self._accounted) + sum(given.size for given in carried)
        happened.append(self._give_back(first, self._given_count, interrupted or AttemptEnd.WITHDRAWN))
        return [h for h in happened if not isinstance(h, Returned) or h.numbers]

    def _blame(self, index: int, status: int) -> list[Happening]:
        """What becomes of the trial that was running when its process ended, unless it was about to be skipped."""
        tasks = self._tasks(index, index + 1)
        killed = self._killed
        cause, text = FailureCause.CRASH, f"the trial process {_status_text(status)}"
        if killed is None and self._ended_with_everybody(status):
            return [_returned(tasks, AttemptEnd.INTERRUPTED)]
        if killed is not None:
            if isinstance(killed.why, AttemptEnd):
                return [_returned(tasks, killed.why)]
            cause, text = killed.why, killed.text
        # A kill may come too late for its trial and hit the next one.
        if not tasks or (killed is not None and index != killed.index):
            return [_returned(tasks, AttemptEnd.WITHDRAWN)]
        self._left_by = tasks[0].number
        block = self._failed_block(tasks, self._page.started_ns, cause, text)
        return [*self._unsent_of(tasks[0]), Result(encode(block))]

    def _unsent_of(self, task: _Task) -> list[Happening]:
        """What the trial had reported and not sent when its process ended."""
        received = self._reported[1] if self._reported[0] == task else 0
        curves = self._page.unsent.curves(received)
        if not curves:
            return []
        block = ReportBlock(self._setting.worker, task.number, task.attempt, curves, received)
        return [Back(task.number, task.attempt, encode(block))]

    def _ended_with_everybody(self, status: int) -> bool:
        """Whether the process was ended by what all processes of this job were sent while its trial ran."""
        is_sent = -status in (*SENT_TO_EVERYBODY, signal.SIGKILL)
        return is_sent and self._server.signals.any_since(self._page.started_ns)

    def _fail_all(self, status: int) -> list[Happening]:
        tasks = self._tasks(self._accounted, self._given_count)
        times = self._failed_starts
        self._failed_starts = 0
        text = f"the trial process ended {times} times before a trial began: it {_status_text(status)}"
        return [Result(encode(self._failed_block(tasks, 0, FailureCause.CRASH, text)))]

    # ------------------------------------------------------------------------------------- book-keeping

    def _kill(self, why: _Kill) -> None:
        self._killed = why
        self._server.kill(self._child)

    def _give_back(self, first: int, end: int, how: AttemptEnd = AttemptEnd.WITHDRAWN) -> Returned:
        """Give back the trials from index `first` up to `end` that have not been given back before."""
        tasks = self._tasks(first, end)
        self._void.update(range(first, end))
        return _returned(tasks, how)

    def _account(self, count: int) -> None:
        if self._void:
            self._void.difference_update(range(self._accounted, self._accounted + count))
        self._accounted += count
        while self._given and self._given[0].first + self._given[0].size <= self._accounted:
            self._given.popleft()

    def _tasks(self, first: int, end: int) -> list[_Task]:
        """The trials from index `first` up to `end`, less those that were given back before."""
        return list(self._indexed(first, end).values())

    def _index_of(self, wanted: _Task) -> int | None:
        """Where a trial is on the line; None where it is not accounted for any more."""
        held = self._indexed(self._accounted, self._given_count)
        return next((index for index, task in held.items() if task == wanted), None)

    def _indexed(self, first: int, end: int) -> dict[int, _Task]:
        tasks: dict[int, _Task] = {}
        for given in self._given:
            if given.first + given.size <= first or given.first >= end:
                continue
            block = decode(given.body)
            assert isinstance(block, AssignedBlock)
            for position, (number, attempt) in enumerate(zip(block.numbers, block.attempts, strict=True)):
                index = given.first + position
                if first <= index < end and index not in self._void:
                    tasks[index] = _Task(number, attempt)
        return tasks

    def _failed_block(
        self, tasks: Sequence[_Task], started_ns: int, cause: FailureCause, text: str
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


def _returned(tasks: Sequence[_Task], end: AttemptEnd) -> Returned:
    return Returned(tuple(task.number for task in tasks), tuple(task.attempt for task in tasks), end)


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "an unknown signal"
    return f"was killed by signal {-status} ({name})"
