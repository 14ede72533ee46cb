"""The inside of a trial process: receive trials, run them, send back what came of them.

One process runs many trials, one after another, and stays warm between them.  It ends when its worker closes
the line.  Nothing that a trial raises ends it.  Results of short trials gather into one block for a few
milliseconds; the result of a longer one leaves at once.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.catalogue import BUILTIN
from mpisweep.line import ENDED, INTERRUPTED, READY, REPORTS, SKIPPED, Line, LineClosedError, Page
from mpisweep.records import FailureCause, TrialState, Value
from mpisweep.spec import BuiltinWorkload, Spec, parse_spec
from mpisweep.workloads.function import load_function, to_metrics
from mpisweep.workloads.trial import Trial

__all__ = ["serve"]

#: Results wait at most this long for others to go with them, unless the next trial takes longer.
_GATHER_S = 0.005
#: Lines of a traceback that the results file keeps.
_TRACEBACK_LINES = 4
#: How the variables begin by which launchers of MPI tell a process that it is a rank.
_MPI_PREFIXES = ("OMPI_COMM_", "PMIX_", "PMI_", "PRTE_", "MV2_COMM_")
_COMPLETE = int(TrialState.COMPLETE)
_FAILED = int(TrialState.FAILED)


def serve(files: list[int], arguments: dict[str, Any]) -> None:
    """Entry of a trial process, called by the fork server.

    Args:
        files: the line's socket and the page.
        arguments: see :class:`mpisweep.trialprocess.TrialProcess`.
    """
    line = Line(socket.socket(fileno=files[0]))
    page = Page(files[1])
    os.close(files[1])
    _leave_mpi()
    os.environ.update(arguments["environment"])
    if arguments["cores"]:
        _keep_to_cores(arguments["cores"])
    folder = Path(arguments["folder"])
    os.chdir(folder)
    spec = parse_spec(arguments["spec"], source=arguments["source"], folder=folder)
    loop = _Loop(
        line,
        page,
        spec,
        worker=arguments["worker"],
        slot=arguments["slot"],
        device=arguments["device"],
        cores=max(1, len(arguments["cores"])),
        trials_folder=Path(arguments["trials_folder"]),
    )
    try:
        loop.run()
    except LineClosedError:
        # The worker has closed the line, which is how it says that it needs this process no longer.
        return


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
        spec: Spec,
        *,
        worker: int,
        slot: int,
        device: str,
        cores: int,
        trials_folder: Path,
    ) -> None:
        self._line = line
        self._page = page
        self._spec = spec
        self._worker = worker
        self._slot = slot
        self._device = device
        self._cores = cores
        self._trials_folder = trials_folder
        self._defaults: dict[str, Value] = {}
        if isinstance(spec.workload, BuiltinWorkload):
            self._defaults = {option.name: option.default for option in BUILTIN[spec.workload.name].options}
        #: Index on the line of the next trial.
        self._next = 0
        self._gathered = _Gathered(worker, slot)

    def run(self) -> None:
        """Until the line is closed."""
        run = _load_or_report(self._spec)
        self._line.send(READY)
        while True:
            for frame in self._line.receive():
                block = decode(frame.body)
                assert isinstance(block, AssignedBlock)
                self._run_block(block, run)

    def _run_block(self, block: AssignedBlock, run: Callable[[Trial], Any]) -> None:
        begin = self._page.begin
        for number, attempt, params in zip(
            block.numbers, block.attempts, _configurations(block, self._defaults), strict=True
        ):
            if begin(self._next):
                self._run_trial(number, attempt, params, run)
            else:
                self._send_gathered()
                self._line.send(SKIPPED, first=self._next, second=1)
            self._next += 1
        self._page.rest()
        self._send_gathered()

    def _run_trial(
        self, number: int, attempt: int, params: dict[str, Value], run: Callable[[Trial], Any]
    ) -> None:
        trial = Trial(
            number,
            params,
            sweep_seed=self._spec.seed,
            device=self._device,
            cores=self._cores,
            folder=self._trials_folder,
            send=lambda curves: self._send_reports(number, attempt, curves),
            stop_asked=self._stop_asked,
        )
        gathered = self._gathered
        started_at = time.time()
        started = time.perf_counter()
        try:
            metrics = to_metrics(run(trial), self._spec.objective)
            wall_time_s = time.perf_counter() - started
        except BaseException as error:
            wall_time_s = time.perf_counter() - started
            trial.flush()
            gathered.add_failed(
                number, attempt, started_at, wall_time_s, trial.last_reported, _cause(error), _message(error)
            )
        else:
            trial.flush()
            if trial.told_to_stop:
                self._send_gathered()
                self._line.send(INTERRUPTED, first=self._next)
                return
            gathered.add_complete(number, attempt, started_at, wall_time_s, trial.last_reported | metrics)
        if started_at + wall_time_s - gathered.since >= _GATHER_S:
            self._send_gathered()

    def _stop_asked(self) -> bool:
        return self._page.stop_asked

    def _send_reports(self, number: int, attempt: int, curves: dict[str, Curve]) -> None:
        body = encode(ReportBlock(self._worker, number, attempt, curves))
        self._line.send(REPORTS, body)

    def _send_gathered(self) -> None:
        gathered = self._gathered
        if gathered.numbers:
            self._gathered = _Gathered(self._worker, self._slot)
            self._line.send(ENDED, encode(gathered.block()), first=len(gathered.numbers))


class _Gathered:
    """An EndedBlock in the making, as columns from the start."""

    def __init__(self, worker: int, slot: int) -> None:
        self._worker = worker
        self._slot = slot
        self.since = float("inf")
        self.numbers: list[int] = []
        self._attempts: list[int] = []
        self._states: list[int] = []
        self._started_at: list[float] = []
        self._wall_time_s: list[float] = []
        self._metrics: dict[str, list[float | None]] = {}
        self._causes: list[int] = []
        self._messages: list[str] = []

    def add_complete(
        self, number: int, attempt: int, started_at: float, wall_time_s: float, metrics: Mapping[str, float]
    ) -> None:
        self._add(number, attempt, _COMPLETE, started_at, wall_time_s, metrics)
        if self._causes:
            self._causes.append(int(FailureCause.NONE))
            self._messages.append("")

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
        self._causes += [int(FailureCause.NONE)] * (len(self.numbers) - len(self._causes))
        self._messages += [""] * (len(self.numbers) - len(self._messages))
        self._add(number, attempt, _FAILED, started_at, wall_time_s, metrics)
        self._causes.append(int(cause))
        self._messages.append(message)

    def block(self) -> EndedBlock:
        return EndedBlock(
            self._worker, self._slot, self.numbers, self._attempts, self._states, self._started_at,
            self._wall_time_s, self._metrics, self._causes, self._messages,
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


def _load_or_report(spec: Spec) -> Callable[[Trial], Any]:
    """The workload's function; where it cannot be loaded, one that says so for every trial."""
    try:
        return load_function(spec)
    except BaseException as error:
        problem = error

    def fail(trial: Trial) -> None:
        raise problem

    return fail


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


def _cause(error: BaseException) -> FailureCause:
    """Whether this is the device or the host running out of memory, or any other exception."""
    text = str(error).lower()
    if (
        isinstance(error, MemoryError)
        # torch.OutOfMemoryError by name: a trial process whose workload does not use torch never imports it.
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("out of memory" in text or "not enough memory" in text))
    ):
        return FailureCause.OUT_OF_MEMORY
    return FailureCause.EXCEPTION


def _message(error: BaseException) -> str:
    """The end of the traceback, the exception first; the whole of it goes to the log."""
    print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    what = "".join(traceback.format_exception_only(error)).strip()
    # The first frame is this module's; the user's begin below it.
    frames = traceback.extract_tb(error.__traceback__)[1:]
    where = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_TRACEBACK_LINES:]]
    return "\n".join([what, *(f"  at {place}" for place in reversed(where))])
