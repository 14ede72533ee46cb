"""The inside of a trial process: receive trials, run them, send back what came of them.

One process runs many trials, one after another, and stays warm between them.  It ends when its worker closes
the line.  Nothing that a trial raises ends it.  Results of short trials gather into one block for a few
milliseconds; the result of a longer one leaves at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mpisweep.blocks import AssignedBlock, Curve, ReportBlock, encode
from mpisweep.messages import Team
from mpisweep.processes.channel import ENDED, INTERRUPTED, READY, REPORTS, SKIPPED, Line, LineClosedError
from mpisweep.processes.kernel import SENT_TO_EVERYBODY, adopt_orphans, delivery_s
from mpisweep.processes.shared_page import Page, SignalPage
from mpisweep.records import ENDED_WELL, FailureCause, Value
from mpisweep.spec import Spec, parse_spec
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.workloads.command import make_run
from mpisweep.workloads.failure import cause_of, killed_by, log_failure, message_of
from mpisweep.workloads.function import load_function, to_metrics
from mpisweep.workloads.gathering import Gathered
from mpisweep.workloads.leftovers import end_leftovers, has_children, leave
from mpisweep.workloads.memory_limit import MemoryLimit, memory_is_limited
from mpisweep.workloads.orders import Orders, configurations
from mpisweep.workloads.outputs import output_file
from mpisweep.workloads.rendezvous import TrialRendezvous
from mpisweep.workloads.startstate import StartState, has_survived_since, take_usual_signals
from mpisweep.workloads.trial import Trial, remove_checkpoint

__all__ = ["load_or_report", "serve"]

#: Results wait at most this long for others to go with them, unless the next trial takes longer.
_GATHER_S = 0.005
#: A trial that is shorter than this has started no process.
_CHILDLESS_S = 0.0002
#: After a trial that is shorter than this nobody looks for changes that are rare and take 10 microseconds to
#: look for.
_CHANGELESS_S = 0.0002
#: How the variables begin by which launchers of MPI tell a process that it is a rank.
_MPI_PREFIXES = ("OMPI_COMM_", "PMIX_", "PMI_", "PRTE_", "MV2_COMM_")


def serve(files: list[int], arguments: dict[str, Any]) -> None:
    """Entry of a trial process, called by the fork server.

    Args:
        files: the line's socket, the page, and the page of the fork server's signals.
        arguments: see :class:`mpisweep.processes.child.Child`.
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
    """Forget that this process descends from a rank: a trial that uses MPI must not take itself for one."""
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
        self._is_limited = limit is not None or memory_is_limited()
        #: The limit of main memory is the workload's, and what it has left of it must not keep us from
        #: telling.
        self._limited = contextlib.nullcontext() if limit is None else MemoryLimit(limit)
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
        #: How many ReportBlocks the running trial has sent.
        self._reports_sent = 0
        self._gathered = Gathered(worker, slot)
        self._orders = Orders(line)
        self._rendezvous = TrialRendezvous(
            line, self._orders, says_ranks=spec.says_ranks, own_device_only=self._uses_gpu
        )

    def run(self) -> None:
        """Until the line is closed."""
        outputs = output_file(self._log_file.parent, self._worker, self._slot)
        with self._limited:
            run = load_or_report(self._spec, outputs, self._signals)
        if os.getpid() != self._process:
            leave(0)
        if self._runs_here:
            self._start = StartState()
        self._line.send(READY)
        while True:
            block, team = self._orders.next_block()
            self._run_block(block, run, team)

    def _run_block(self, block: AssignedBlock, run: Callable[[Trial], Any], team: Team | None = None) -> None:
        if block.fresh and self._is_warm:
            # The worker gives it to the process that comes after this one.
            raise SystemExit(0)
        begin = self._page.begin
        for number, attempt, params in zip(
            block.numbers, block.attempts, configurations(block, self._defaults), strict=True
        ):
            if begin(self._next):
                self._run_trial(number, attempt, params, run, team)
                self._is_warm = self._runs_here
            else:
                self._send_gathered()
                self._line.send(SKIPPED, first=self._next, second=1)
            self._next += 1
        self._page.rest()
        self._send_gathered()

    def _run_trial(
        self,
        number: int,
        attempt: int,
        params: dict[str, Value],
        run: Callable[[Trial], Any],
        team: Team | None,
    ) -> None:
        self._reports_sent = 0
        self._page.unsent.clear(0)
        if team is not None:
            # Its end must not wait for others, nor theirs for it.
            self._send_gathered()
        trial = self._trial(number, attempt, params, team)
        started_at = time.time()
        started = time.perf_counter()
        try:
            with self._rendezvous.around(team, number, attempt), self._limited:
                returned = _returned(run, trial)
                if os.getpid() != self._process:
                    leave(0)
                metrics, odd = to_metrics(returned, self._spec.objective)
                metrics = trial.names.all_kept(metrics)
            wall_time_s = time.perf_counter() - started
        except BaseException as error:
            wall_time_s = time.perf_counter() - started
            if os.getpid() != self._process:
                self._leave_by(error, f"trial {number}, attempt {attempt}, in a process that it has forked")
            self._on_raised(trial, error, started_at, wall_time_s)
        else:
            if not self._on_returned(trial, metrics, odd, started_at, wall_time_s):
                return
        self._clear_up(started_at + wall_time_s, wall_time_s, team)

    def _on_raised(self, trial: Trial, error: BaseException, started_at: float, wall_time_s: float) -> None:
        """A trial has failed, or was ended by what all processes of its job were sent."""
        self._restore(wall_time_s)
        trial.flush()
        if self._was_everybody_sent(killed_by(error), wall_time_s):
            self._send_interrupted()
            raise SystemExit(0) from None
        cause, of_device = cause_of(error, memory_is_limited=self._is_limited, uses_gpu=self._uses_gpu)
        log_failure(self._log_file, f"trial {trial.number}, attempt {trial.attempt}", error)
        gathered = self._gathered
        gathered.add_failed(
            trial.number, trial.attempt, started_at, wall_time_s, trial.last_reported, cause,
            message_of(error, cause, below=__file__),
        )  # fmt: skip
        if cause is FailureCause.OUT_OF_MEMORY or trial.team is not None or self._uses_gpu:
            # What the trial has left on the device, and how fragmented, or of its connections, nobody knows:
            # the next one gets a process of its own, which costs less than one more trial that fails for it.
            gathered.warm = self._is_warm and (of_device or cause is FailureCause.OUT_OF_MEMORY)
            self._send_gathered()
            raise SystemExit(0) from None

    def _on_returned(
        self, trial: Trial, metrics: dict[str, float], odd: str, started_at: float, wall_time_s: float
    ) -> bool:
        """A trial has ended well; False when it may have done so, too early, because it was to stop."""
        handled = self._restore(wall_time_s)
        trial.flush()
        if trial.told_to_stop or self._may_have_been_told(handled, wall_time_s):
            self._send_interrupted()
            return False
        metrics = trial.last_reported | metrics
        odd = odd or trial.notice or trial.names.notice
        if self._objective not in metrics and trial.rank == 0:
            odd = odd or f"{ENDED_WELL} its objective {self._objective!r} was never reported"
        self._gathered.add_complete(trial.number, trial.attempt, started_at, wall_time_s, metrics, odd)
        return True

    def _clear_up(self, ended_at: float, wall_time_s: float, team: Team | None) -> None:
        """End what a trial has left running, send what is due, and leave where the next one cannot run."""
        if wall_time_s >= _CHILDLESS_S and has_children():
            # Its end must not wait for theirs.
            self._send_gathered()
            if end_leftovers():
                # Whoever comes after this process waits for them, and must not have their device.
                raise SystemExit(0)
        gathered = self._gathered
        if ended_at - gathered.since >= _GATHER_S or team is not None or gathered.is_full:
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

    def _restore(self, wall_time_s: float) -> bool:
        """Have everything as it was before the first trial; True when the trial has handled signals."""
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
            log_failure(self._log_file, where, error)
            leave(1)
        if error.code is None or isinstance(error.code, int):
            leave(error.code or 0)
        print(error.code, file=sys.stderr)
        leave(1)

    def _was_everybody_sent(self, number: int, wall_time_s: float) -> bool:
        """Whether all processes of the job were sent a signal while a trial ran that has ended, by this one
        or by none.
        """
        started_ns = self._page.started_ns
        is_sent = number in (*SENT_TO_EVERYBODY, signal.SIGKILL) or has_survived_since(started_ns)
        # The fork server may be the last to get it; to find out may cost a tenth of what the trial has taken.
        within_s = delivery_s()
        return self._signals.await_any(started_ns, within_s if is_sent else min(within_s, wall_time_s / 10))

    def _may_have_been_told(self, handled: bool, wall_time_s: float) -> bool:
        """Whether a trial may have ended too early, though well, because of what its job was sent."""
        if self._runs_here:
            return handled and self._was_everybody_sent(0, wall_time_s)
        return self._signals.any_since(self._page.started_ns)

    def _send_interrupted(self) -> None:
        self._send_gathered()
        self._line.send(INTERRUPTED, first=self._next)

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
            self._gathered = Gathered(self._worker, self._slot)
            self._line.send(ENDED, encode(gathered.block()), first=len(gathered.numbers))


def _returned(run: Callable[[Trial], Any], trial: Trial) -> Any:
    """What the workload returns; one that leaves by sys.exit() with code 0 or none returns nothing."""
    try:
        return run(trial)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return None
        raise


def load_or_report(spec: Spec, outputs: Path, signals: SignalPage) -> Callable[[Trial], Any]:
    """The workload as a function; where it cannot be loaded, one that says so for every trial."""
    try:
        if isinstance(spec.workload, CommandWorkload):
            return make_run(spec.workload, spec.folder, outputs, signals, spec.limits)
        return load_function(spec)
    except BaseException as error:
        problem, where = error, error.__traceback__

    def fail(trial: Trial) -> None:
        # Each time that it is raised it would go on from where it was raised before.
        raise problem.with_traceback(where)

    return fail


def _keep(curves: dict[str, Curve]) -> None:
    """A trial's curves are those of its rank 0."""
