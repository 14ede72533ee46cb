"""The inside of a trial process: receive trials, run them, send back what came of them.

One process runs many trials, one after another, and stays warm between them.  It ends when its worker closes
the line.  Nothing that a trial raises ends it.  Results of short trials gather into one block for a few
milliseconds; the result of a longer one leaves at once.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.bounds import LOG_CHARS, MESSAGE_CHARS, shortened
from mpisweep.messages import Team
from mpisweep.processes.kernel import SENT_TO_EVERYBODY, adopt_orphans, end_descendants
from mpisweep.processes.line import (
    ENDED,
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
    Page,
    SignalPage,
)
from mpisweep.records import ENDED_WELL, FailureCause, TrialState, Value
from mpisweep.spec import Spec, parse_spec
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.workloads.command import make_run
from mpisweep.workloads.devicefailure import is_of_device, lacks_memory, text_of
from mpisweep.workloads.function import load_function, to_metrics
from mpisweep.workloads.meeting import joined, reserved, variables
from mpisweep.workloads.outputs import output_file
from mpisweep.workloads.startstate import StartState, take_usual_signals
from mpisweep.workloads.trial import Trial, TrialFailedError, remove_checkpoint

__all__ = ["serve"]

#: Results wait at most this long for others to go with them, unless the next trial takes longer.
_GATHER_S = 0.005
#: Or until they have so many numbers and characters.
_GATHERED = 100_000
#: How long a trial that a signal has ended waits to see whether everybody was sent one, in seconds.
_EVERYBODY_S = 0.25
_LOOK_S = 0.005
#: A trial that is shorter than this has started no process.
_CHILDLESS_S = 0.0002
#: How long what a trial has left behind may take to end, in seconds.
_LEFTOVERS_S = 2.0
#: After a trial that is shorter than this nobody looks for changes that are rare and take 10 microseconds to look for.
_CHANGELESS_S = 0.0002
#: Where Python's libraries keep the numbers of their helper processes: module, object, attribute.
_HELPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)
#: How torch says that a device, or the main memory, is full.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
#: What oneDNN, torch's library for CPUs, says then, and no more.  Where something else is wrong it names the operation.
_NO_PRIMITIVE = "could not create a primitive"
#: How the dynamic linker says that a limit of memory leaves no room for a library; without a limit it is something else.
_NO_ROOM = "failed to map segment from shared object"
#: Lines of a traceback that the results file keeps.
_TRACEBACK_LINES = 4
#: How the variables begin by which launchers of MPI tell a process that it is a rank.
_MPI_PREFIXES = ("OMPI_COMM_", "PMIX_", "PMI_", "PRTE_", "MV2_COMM_")
_ALONE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_SOLE = Team(0, 1, 0, 1)
_COMPLETE = int(TrialState.COMPLETE)
_FAILED = int(TrialState.FAILED)


def serve(files: list[int], arguments: dict[str, Any]) -> None:
    """Entry of a trial process, called by the fork server.

    Args:
        files: the line's socket, the page, and the page of the fork server's signals.
        arguments: see :class:`mpisweep.processes.trialprocess.TrialProcess`.
    """
    line = Line(socket.socket(fileno=files[0]))
    page, signals = Page(files[1]), SignalPage(files[2])
    for file in files[1:]:
        os.close(file)
    take_usual_signals()
    _leave_mpi()
    adopt_orphans()
    os.environ.update(arguments["environment"])
    if arguments["cores"]:
        _keep_to_cores(arguments["cores"])
    folder = Path(arguments["folder"])
    os.chdir(folder)
    spec = parse_spec(arguments["spec"], source=arguments["source"], folder=folder)
    if arguments["left_by"] is not None:
        remove_checkpoint(Path(arguments["trials_folder"]) / str(arguments["left_by"]))
    loop = _Loop(
        line,
        page,
        signals,
        spec,
        worker=arguments["worker"],
        slot=arguments["slot"],
        device=arguments["device"],
        cores=max(1, len(arguments["cores"])),
        trials_folder=Path(arguments["trials_folder"]),
        log_file=Path(arguments["log_file"]),
        watch_reports=arguments["watch_reports"],
    )
    try:
        loop.run()
    except LineClosedError:
        # The worker has closed the line, which is how it says that it needs this process no longer.
        return
    except KeyboardInterrupt:
        # Between two trials; that is nothing to print a traceback for.
        raise SystemExit(128 + signal.SIGINT) from None


def _leave_mpi() -> None:
    """Forget that this process descends from a rank: a trial that uses MPI itself must not take itself for one."""
    for name in [name for name in os.environ if name.startswith(_MPI_PREFIXES)]:
        del os.environ[name]


def _keep_to_cores(cores: list[int]) -> None:
    count = str(len(cores))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class _Loop:
    """State of one trial process."""

    def __init__(
        self,
        line: Line,
        page: Page,
        signals: SignalPage,
        spec: Spec,
        *,
        worker: int,
        slot: int,
        device: str,
        cores: int,
        trials_folder: Path,
        log_file: Path,
        watch_reports: bool,
    ) -> None:
        #: The process that answers for trials; what they fork, and does not end, comes out of them as well.
        self._process = os.getpid()
        self._log_file = log_file
        self._note_report = page.note_report if watch_reports else None
        self._line = line
        self._page = page
        self._signals = signals
        self._spec = spec
        self._worker = worker
        self._slot = slot
        self._device = device
        self._cores = cores
        self._trials_folder = trials_folder
        self._objective = spec.objective
        limit = spec.limits.memory_bytes
        self._is_limited = limit is not None or _memory_is_limited()
        #: The limit of main memory is the workload's, and what it has left of it must not keep us from telling.
        self._limited: contextlib.AbstractContextManager[None] = _ALONE if limit is None else _MemoryLimit(limit)
        self._defaults: dict[str, Value] = {}
        if spec.built_in is not None:
            self._defaults = spec.built_in.defaults
        #: Whether trials leave anything behind in this process; a program takes everything with it.
        self._runs_here = not isinstance(spec.workload, CommandWorkload)
        self._uses_gpu = self._runs_here and device != "cpu"
        self._is_warm = False
        #: What every trial finds; None before the workload is loaded, and where no trial can change it.
        self._start: StartState | None = None
        #: Whether a trial has left something that cannot be made as it was.
        self._is_spoilt = False
        #: Index on the line of the next trial.
        self._next = 0
        #: Frames that have come and are not dealt with.
        self._frames: deque[Frame] = deque()
        #: Which rank of the next trial this is, where it has several.
        self._team: Team | None = None
        #: How many ReportBlocks the running trial has sent.
        self._reports_sent = 0
        self._gathered = _Gathered(worker, slot)

    def run(self) -> None:
        """Until the line is closed."""
        outputs = output_file(self._log_file.parent, self._worker, self._slot)
        with self._limited:
            run = _load_or_report(self._spec, outputs, self._signals)
        if os.getpid() != self._process:
            _leave(0)
        if self._runs_here:
            self._start = StartState()
        self._line.send(READY)
        while True:
            frame = self._next_frame()
            if frame.kind == TEAM:
                self._team = _team(frame.body)
            elif frame.kind != MEET:
                # Where others meet is of no use once their trial is over here.
                block = decode(frame.body)
                assert isinstance(block, AssignedBlock)
                self._run_block(block, run)
                self._team = None

    def _next_frame(self) -> Frame:
        if not self._frames:
            self._frames.extend(self._line.receive())
        return self._frames.popleft()

    def _told_address(self, number: int, attempt: int) -> str:
        """Wait to be told where the ranks of this trial meet."""
        while True:
            for frame in self._frames:
                if (frame.kind, frame.first, frame.second) == (MEET, number, attempt):
                    self._frames.remove(frame)
                    return frame.body.decode()
            self._frames.extend(self._line.receive())

    def _run_block(self, block: AssignedBlock, run: Callable[[Trial], Any]) -> None:
        if block.fresh and self._is_warm:
            # The worker gives it to the process that comes after this one.
            raise SystemExit(0)
        begin = self._page.begin
        for number, attempt, params in zip(
            block.numbers, block.attempts, _configurations(block, self._defaults), strict=True
        ):
            if begin(self._next):
                self._run_trial(number, attempt, params, run)
                self._is_warm = self._runs_here
            else:
                self._send_gathered()
                self._line.send(SKIPPED, first=self._next, second=1)
            self._next += 1
        self._page.rest()
        self._send_gathered()

    def _run_trial(
        self, number: int, attempt: int, params: dict[str, Value], run: Callable[[Trial], Any]
    ) -> None:
        self._reports_sent = 0
        self._page.unsent.clear(0)
        team = self._team
        if team is not None:
            # Its end must not wait for others, nor theirs for it.
            self._send_gathered()
        trial = self._trial(number, attempt, params, team)
        gathered = self._gathered
        started_at = time.time()
        started = time.perf_counter()
        try:
            with self._in_team(team, number, attempt), self._limited:
                returned = _returned(run, trial)
                if os.getpid() != self._process:
                    _leave(0)
                metrics, odd = to_metrics(returned, self._spec.objective)
                metrics = trial.names.all_kept(metrics)
            wall_time_s = time.perf_counter() - started
        except BaseException as error:
            wall_time_s = time.perf_counter() - started
            if os.getpid() != self._process:
                self._leave_by(error, f"trial {number}, attempt {attempt}, in a process that it has forked")
            self._restore(wall_time_s)
            trial.flush()
            if self._was_everybody_sent(_killed_by(error), wall_time_s):
                self._send_interrupted()
                raise SystemExit(0) from None
            cause, of_device = self._causes(error)
            self._log(f"trial {number}, attempt {attempt}", error)
            gathered.add_failed(
                number, attempt, started_at, wall_time_s, trial.last_reported, cause, _message(error, cause)
            )
            if cause is FailureCause.OUT_OF_MEMORY or team is not None or self._uses_gpu:
                # What the trial has left on the device, and how fragmented, or of its connections, nobody knows:
                # the next one gets a process of its own, which costs less than one more trial that fails for it.
                gathered.warm = self._is_warm and (of_device or cause is FailureCause.OUT_OF_MEMORY)
                self._send_gathered()
                raise SystemExit(0) from None
        else:
            handled = self._restore(wall_time_s)
            trial.flush()
            if trial.told_to_stop or self._may_have_been_told(handled, wall_time_s):
                self._send_interrupted()
                return
            metrics = trial.last_reported | metrics
            odd = odd or trial.notice or trial.names.notice
            if self._objective not in metrics and trial.rank == 0:
                odd = odd or f"{ENDED_WELL} its objective {self._objective!r} was never reported"
            gathered.add_complete(number, attempt, started_at, wall_time_s, metrics, odd)
        if wall_time_s >= _CHILDLESS_S and _has_children():
            # Its end must not wait for theirs.
            self._send_gathered()
            if end_descendants(keep=_helpers(), within_s=_LEFTOVERS_S):
                # Whoever comes after this process waits for them, and must not have their device.
                raise SystemExit(0)
        if started_at + wall_time_s - gathered.since >= _GATHER_S or team is not None or gathered.is_full:
            self._send_gathered()
        if self._is_spoilt:
            self._send_gathered()
            raise SystemExit(0)

    def _trial(self, number: int, attempt: int, params: dict[str, Value], team: Team | None) -> Trial:
        return Trial(
            number,
            params,
            sweep_seed=self._spec.seed,
            device=self._device,
            cores=self._cores,
            folder=self._trials_folder,
            send=_keep if team and team.rank else lambda curves: self._send_reports(number, attempt, curves),
            stop_asked=self._stop_asked,
            note_report=self._note_report,
            unsent=None if team and team.rank else self._page.unsent,
            attempt=attempt,
            team=team,
            objective=self._objective,
        )

    def _causes(self, error: BaseException) -> tuple[FailureCause, bool]:
        """Why a trial has failed, and whether its device has reported that."""
        cause = _cause(error, self._is_limited)
        of_device = self._uses_gpu and cause is FailureCause.EXCEPTION and is_of_device(error)
        return FailureCause.OUT_OF_MEMORY if of_device and lacks_memory(error) else cause, of_device

    def _restore(self, wall_time_s: float) -> bool:
        """Have everything as it was before the first trial; True when the trial has handled signals itself."""
        if self._start is None:
            return False
        try:
            return self._start.restore(all_of_it=wall_time_s >= _CHANGELESS_S)
        except Exception:
            # Such as a limit that only root may raise again; the next trial gets another process.
            self._is_spoilt = True
            return True

    def _leave_by(self, error: BaseException, where: str) -> NoReturn:
        """End a process that a trial has forked, with the status that Python gives it for this."""
        if not isinstance(error, SystemExit):
            self._log(where, error)
            _leave(1)
        if error.code is None or isinstance(error.code, int):
            _leave(error.code or 0)
        print(error.code, file=sys.stderr)
        _leave(1)

    def _was_everybody_sent(self, number: int, wall_time_s: float) -> bool:
        """Whether all processes of the job were sent a signal while a trial ran that has ended, by this one or by none."""
        is_sent = number in (*SENT_TO_EVERYBODY, signal.SIGKILL)
        # The fork server may be the last to get it; to find out may cost a fiftieth of what the trial has taken.
        until = time.monotonic() + (_EVERYBODY_S if is_sent else min(_EVERYBODY_S, wall_time_s / 50))
        while not self._signals.any_since(self._page.started_ns):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_S)
        return True

    def _may_have_been_told(self, handled: bool, wall_time_s: float) -> bool:
        """Whether a trial that has ended well may have done so, too early, because of what its job was sent."""
        if self._runs_here:
            return handled and self._was_everybody_sent(0, wall_time_s)
        return self._signals.any_since(self._page.started_ns)

    def _send_interrupted(self) -> None:
        self._send_gathered()
        self._line.send(INTERRUPTED, first=self._next)

    def _in_team(self, team: Team | None, number: int, attempt: int) -> contextlib.AbstractContextManager[None]:
        """What a trial of several ranks needs around it; nothing for any other."""
        if team is not None:
            return self._meet(team, number, attempt)
        # A program that is made for several ranks asks for the variables also when it is alone.
        return self._meet(_SOLE, number, attempt) if self._spec.says_ranks else _ALONE

    @contextlib.contextmanager
    def _meet(self, team: Team, number: int, attempt: int) -> Iterator[None]:
        """While inside, this process has the variables by which the trial's ranks find each other: rank 0 says where."""
        with contextlib.ExitStack() as inside:
            if team.rank:
                address = self._told_address(number, attempt)
            else:
                address = inside.enter_context(reserved(team))
                if team.size > 1:
                    self._line.send(MEETING, address.encode(), number, attempt)
            is_command = isinstance(self._spec.workload, CommandWorkload)
            found = variables(team, address, own_device_only=self._device != "cpu" and not is_command)
            inside.enter_context(joined(found))
            yield

    def _log(self, trial: str, error: BaseException) -> None:
        """Keep the whole traceback; the results file has the end of it."""
        if isinstance(error, TrialFailedError):
            what = str(error).partition("\n")[0] + "\n" + (error.details or str(error))
        else:
            what = "".join(traceback.format_exception(error))
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {trial}\n{shortened(what, LOG_CHARS)}\n"
        with contextlib.suppress(OSError):
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            with self._log_file.open("ab", buffering=0) as log:
                log.write(text.encode("utf-8", "backslashreplace"))

    def _stop_asked(self) -> bool:
        return self._page.stop_asked

    def _send_reports(self, number: int, attempt: int, curves: dict[str, Curve]) -> None:
        body = encode(ReportBlock(self._worker, number, attempt, curves, self._reports_sent))
        self._reports_sent += 1
        self._line.send(REPORTS, body, number, attempt)
        self._page.unsent.clear(self._reports_sent)

    def _send_gathered(self) -> None:
        gathered = self._gathered
        if gathered.numbers:
            self._gathered = _Gathered(self._worker, self._slot)
            self._line.send(ENDED, encode(gathered.block()), first=len(gathered.numbers))


class _MemoryLimit(contextlib.AbstractContextManager[None]):
    """What is inside may write to so much memory; a class, because leaving it must not need any."""

    def __init__(self, limit: int) -> None:
        # What is written to counts, and not address space: torch maps gigabytes that it never touches.
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        hard = self._before[1]
        self._inside = (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._inside)

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


class _Gathered:
    """An EndedBlock in the making, as columns from the start."""

    def __init__(self, worker: int, slot: int) -> None:
        self._worker = worker
        self._slot = slot
        self.since = float("inf")
        self.warm = False
        self._chars = 0
        self.numbers: list[int] = []
        self._attempts: list[int] = []
        self._states: list[int] = []
        self._started_at: list[float] = []
        self._wall_time_s: list[float] = []
        self._metrics: dict[str, list[float | None]] = {}
        self._causes: list[int] = []
        self._messages: list[str] = []

    def add_complete(
        self,
        number: int,
        attempt: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
        message: str,
    ) -> None:
        if message:
            self._fill_causes()
        self._add(number, attempt, _COMPLETE, started_at, wall_time_s, metrics)
        if self._causes or message:
            self._note(FailureCause.NONE, message)

    def add_failed(
        self,
        number: int,
        attempt: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
        cause: FailureCause,
        message: str,
    ) -> None:
        self._fill_causes()
        self._add(number, attempt, _FAILED, started_at, wall_time_s, metrics)
        self._note(cause, message)

    def _note(self, cause: FailureCause, message: str) -> None:
        message = shortened(message, MESSAGE_CHARS)
        self._chars += len(message)
        self._causes.append(int(cause))
        self._messages.append(message)

    @property
    def is_full(self) -> bool:
        """Whether no more should be added: trials may have metrics of other names each, and long messages."""
        return len(self.numbers) * len(self._metrics) + self._chars > _GATHERED

    def _fill_causes(self) -> None:
        """Those before this one had nothing to say."""
        self._causes += [int(FailureCause.NONE)] * (len(self.numbers) - len(self._causes))
        self._messages += [""] * (len(self.numbers) - len(self._messages))

    def block(self) -> EndedBlock:
        return EndedBlock(
            self._worker, self._slot, self.numbers, self._attempts, self._states, self._started_at,
            self._wall_time_s, self._metrics, self._causes, self._messages, self.warm,
        )  # fmt: skip

    def _add(
        self,
        number: int,
        attempt: int,
        state: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
    ) -> None:
        if not self.numbers:
            self.since = started_at
        columns = self._metrics
        if columns.keys() != metrics.keys():
            for name in metrics.keys() - columns.keys():
                columns[name] = [None] * len(self.numbers)
            for name in columns.keys() - metrics.keys():
                columns[name].append(None)
        for name, value in metrics.items():
            columns[name].append(value)
        self.numbers.append(number)
        self._attempts.append(attempt)
        self._states.append(state)
        self._started_at.append(started_at)
        self._wall_time_s.append(wall_time_s)


def _returned(run: Callable[[Trial], Any], trial: Trial) -> Any:
    """What the workload returns; one that leaves by sys.exit() with code 0 or none returns nothing, as a program does."""
    try:
        return run(trial)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return None
        raise


def _leave(status: int) -> NoReturn:
    """End this process without the handlers of the one that it was forked from."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


def _killed_by(error: BaseException) -> int:
    """The signal that has ended a trial, or the program that it is; 0 where none has."""
    if isinstance(error, TrialFailedError):
        return error.killed_by
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0


def _load_or_report(spec: Spec, outputs: Path, signals: SignalPage) -> Callable[[Trial], Any]:
    """The workload as a function; where it cannot be loaded, one that says so for every trial."""
    try:
        if isinstance(spec.workload, CommandWorkload):
            return make_run(spec.workload, spec.folder, outputs, signals, spec.limits)
        return load_function(spec)
    except BaseException as error:
        problem = error

    def fail(trial: Trial) -> None:
        raise problem

    return fail


def _keep(curves: dict[str, Curve]) -> None:
    """A trial's curves are those of its rank 0."""


def _team(body: bytes) -> Team:
    fields = json.loads(body)
    fields["environment"] = tuple(tuple(variable) for variable in fields["environment"])
    return Team(**fields)


def _configurations(block: AssignedBlock, defaults: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """One dictionary a trial, in the order of the block."""
    constants = defaults | {
        name: column for name, column in block.parameters.items() if not isinstance(column, list)
    }
    lists = {name: column for name, column in block.parameters.items() if isinstance(column, list)}
    if not lists:
        return (dict(constants) for _ in block.numbers)
    names = tuple(lists)
    return (
        constants | dict(zip(names, values, strict=True))
        for values in itertools.islice(zip(*lists.values(), strict=True), len(block.numbers))
    )


def _cause(error: BaseException, memory_is_limited: bool) -> FailureCause:
    """Whether this is the device or the host running out of memory, or any other exception."""
    if isinstance(error, TrialFailedError):
        return error.cause
    text = text_of(error).lower()
    if (
        isinstance(error, MemoryError)
        # torch.OutOfMemoryError by name: a trial process whose workload does not use torch never imports it.
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and (any(sign in text for sign in _NO_MEMORY) or text == _NO_PRIMITIVE))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, (OSError, ImportError)) and _NO_ROOM in text and memory_is_limited)
    ):
        return FailureCause.OUT_OF_MEMORY
    return FailureCause.EXCEPTION


def _memory_is_limited() -> bool:
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in (resource.RLIMIT_DATA, resource.RLIMIT_AS))


def _peak_text() -> str:
    """The most memory that this process has used: on its GPU where it has one in use, else in all."""
    torch = sys.modules.get("torch")
    # After some failures CUDA does not answer any more.
    with contextlib.suppress(Exception):
        if torch is not None and torch.cuda.is_initialized():
            used, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
            return f"peak {used / 2**30:.2f} GiB of {total / 2**30:.2f} GiB on the device"
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of main memory"


def _has_children() -> bool:
    """Whether a trial has left processes behind, which are to be gone before the next one starts."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _helpers() -> set[int]:
    """Processes that Python's own libraries keep for as long as this one lives."""
    found: set[int] = set()
    for module, holder, name in _HELPERS:
        if module in sys.modules:
            pid = getattr(getattr(sys.modules[module], holder, None), name, None)
            found |= {pid} if isinstance(pid, int) else set()
    return found


def _message(error: BaseException, cause: FailureCause) -> str:
    """The end of the traceback, the exception first; the whole of it goes to the log."""
    if isinstance(error, TrialFailedError):
        return str(error)
    what = "".join(traceback.format_exception_only(error)).strip()
    # The first frames are this module's; the user's begin below them.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_TRACEBACK_LINES:]]
    peak = [_peak_text()] if cause is FailureCause.OUT_OF_MEMORY else []
    return "\n".join([what, *peak, *(f"  at {place}" for place in reversed(where))])
