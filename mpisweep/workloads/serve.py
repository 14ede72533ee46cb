"""The main loop of a trial process: receive trials, run them, send their results.

One process runs many trials, one after another, and stays warm between them.  It ends when its worker closes
the line.  An exception in a trial does not end it.  Results of short trials gather into one block for a few
milliseconds; the result of a longer one is sent at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpisweep.blocks import AssignedBlock, Curve, ReportBlock, encode
from mpisweep.devices.energy import EnergyMeter
from mpisweep.messages import Team
from mpisweep.processes.channel import (
    CHECKED,
    ENDED,
    INTERRUPTED,
    READY,
    REPORTS,
    SKIPPED,
    Line,
    LineClosedError,
)
from mpisweep.processes.kernel import adopt_orphans
from mpisweep.processes.shared_page import Page, SignalPage
from mpisweep.records import ENDED_WELL, FailureCause, Value
from mpisweep.spec import Spec, parse_spec
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.workloads.devicecheck import TrialDevice
from mpisweep.workloads.failure import cause_of, exit_by, killed_by, log_failure, message_of
from mpisweep.workloads.function import to_metrics
from mpisweep.workloads.gathering import Gathered
from mpisweep.workloads.gpuuse import GpuUse
from mpisweep.workloads.jobsignals import JobSignals
from mpisweep.workloads.leftovers import end_leftovers, exit_now, has_children
from mpisweep.workloads.loading import load_or_report
from mpisweep.workloads.making import TrialMaker
from mpisweep.workloads.memory_limit import MemoryLimit, memory_is_limited
from mpisweep.workloads.orders import Orders, configurations
from mpisweep.workloads.outputs import output_file
from mpisweep.workloads.placement import take_place
from mpisweep.workloads.rendezvous import TrialRendezvous
from mpisweep.workloads.stageddata import StagedData
from mpisweep.workloads.startstate import StartState, take_usual_signals
from mpisweep.workloads.trial import DivergedError, Trial, remove_checkpoint

__all__ = ["serve"]

#: How long a process that holds memory of a GPU that others share waits for a trial, in seconds; the next one
#: holds none.
LINGER_S = 1.0
#: How long a result waits for others, in seconds, unless the next trial takes longer.
_GATHER_S = 0.005
#: A trial shorter than this cannot have started a process, in seconds.
_CHILDLESS_S = 0.0002
#: A trial shorter than this is not checked for rare changes, because the check takes 10 microseconds; in
#: seconds.
_CHANGELESS_S = 0.0002


def serve(files: list[int], arguments: dict[str, Any]) -> None:
    """Entry point of a trial process, called by the fork server.

    Args:
        files: the line's socket, the page, and the page of the fork server's signals.
        arguments: see :class:`mpisweep.processes.child.Child`.
    """
    line = Line(socket.socket(fileno=files[0]))
    page, signals = Page(files[1]), SignalPage(files[2])
    for file in files[1:]:
        os.close(file)
    take_usual_signals()
    adopt_orphans()
    take_place(arguments["environment"], arguments["cores"])
    data = StagedData.of(arguments["environment"])
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
        device=TrialDevice(
            arguments["device"],
            arguments["gpus"],
            worker=arguments["worker"],
            checks=arguments["checks"],
            spec=spec,
        ),
        cores=max(1, len(arguments["cores"])),
        trials_folder=Path(arguments["trials_folder"]),
        log_file=Path(arguments["log_file"]),
        watch_reports=arguments["watch_reports"],
        data=data,
    )
    try:
        loop.run()
    except LineClosedError:
        # The worker closes the line when it does not need this process any more.
        return
    except KeyboardInterrupt:
        # Between two trials this needs no traceback.
        raise SystemExit(128 + signal.SIGINT) from None


class _Loop:
    """The state of one trial process."""

    def __init__(
        self,
        line: Line,
        page: Page,
        signals: SignalPage,
        spec: Spec,
        *,
        worker: int,
        slot: int,
        device: TrialDevice,
        cores: int,
        trials_folder: Path,
        log_file: Path,
        watch_reports: bool,
        data: StagedData | None,
    ) -> None:
        #: The trial process; a fork in a trial that does not exit returns from it as well.
        self._process = os.getpid()
        self._log_file = log_file
        self._line = line
        self._page = page
        self._signals = signals
        self._spec = spec
        self._worker = worker
        self._slot = slot
        self._device = device
        self._make_trial = TrialMaker(
            spec, page, device.name, cores, trials_folder, watch_reports=watch_reports, data=data
        )
        self._objectives = [objective.name for objective in spec.objectives]
        limit = spec.limits.memory_bytes
        self._is_limited = limit is not None or memory_is_limited()
        #: The memory limit applies to the workload only, so that results can be sent after it.
        self._limited = contextlib.nullcontext() if limit is None else MemoryLimit(limit)
        self._built_in = spec.built_in
        #: Whether trials run in this process and may change it; a program is a process of its own.
        self._runs_here = not isinstance(spec.workload, CommandWorkload)
        self._job = JobSignals(page, signals, has_handlers=self._runs_here)
        self._uses_gpu = self._runs_here and device.name != "cpu"
        self._meter = EnergyMeter(())
        self._use = GpuUse(with_memory=spec.packs and device.name != "cpu")
        self._is_warm = False
        #: The state before the first trial; None before the workload is loaded, and for programs.
        self._start: StartState | None = None
        #: Whether a trial has changed something that cannot be restored.
        self._is_unrestorable = False
        #: Index of the next trial.
        self._next = 0
        #: Number of ReportBlocks that the running trial has sent.
        self._reports_sent = 0
        self._gathered = Gathered(worker, slot)
        self._orders = Orders(line)
        self._rendezvous = TrialRendezvous(
            line, self._orders, says_ranks=spec.says_ranks, own_device_only=self._uses_gpu
        )

    def run(self) -> None:
        """Run trials until the line is closed, or until it is better that another process goes on."""
        outputs = output_file(self._log_file.parent, self._worker, self._slot)
        with self._limited:
            run = load_or_report(self._spec, outputs, self._signals, self._use.watch)
        if os.getpid() != self._process:
            exit_now(0)
        if (checked := self._device.check()) is not None:
            self._line.send(CHECKED, encode(checked))
        sensors = self._device.open_sensors()
        self._meter = self._device.meter_of(sensors)
        self._use.open(sensors)
        if self._runs_here:
            self._start = StartState()
        self._line.send(READY)
        while not self._use.holds_memory or self._orders.arrive_within(LINGER_S):
            block, team = self._orders.next_block()
            self._run_block(block, run, team)

    def _run_block(self, block: AssignedBlock, run: Callable[[Trial], Any], team: Team | None = None) -> None:
        if block.fresh and self._is_warm:
            # The worker gives the block to the next process.
            raise SystemExit(0)
        begin = self._page.begin
        defaults = self._built_in.defaults_beside(block.parameters) if self._built_in else {}
        repeats = block.repeats or [0] * len(block.numbers)
        for number, attempt, repeat, params in zip(
            block.numbers, block.attempts, repeats, configurations(block, defaults), strict=True
        ):
            if begin(self._next):
                self._run_trial(number, attempt, repeat, params, run, team)
                self._is_warm = self._runs_here
            else:
                self._send_gathered()
                self._line.send(SKIPPED, first=self._next, second=1)
            self._next += 1
        self._page.note_idle()
        self._send_gathered()
        self._use.release()

    def _run_trial(
        self,
        number: int,
        attempt: int,
        repeat: int,
        params: dict[str, Value],
        run: Callable[[Trial], Any],
        team: Team | None,
    ) -> None:
        self._reports_sent = 0
        self._page.unsent.clear(0)
        if team is not None:
            # Results of others must not wait for this trial, nor its result for theirs.
            self._send_gathered()
        trial = self._make_trial(
            self._next, number, attempt, repeat, params, team, partial(self._send_reports, number, attempt)
        )
        self._meter.begin()
        self._use.begin()
        started_at = time.time()
        started = time.perf_counter()
        try:
            with self._rendezvous.around(team, number, attempt), self._limited:
                returned = _call(run, trial)
                if os.getpid() != self._process:
                    exit_now(0)
                metrics, odd = to_metrics(returned, self._objectives)
                metrics = trial.names.all_kept(metrics)
            wall_time_s = time.perf_counter() - started
            self._meter.end(wall_time_s)
            self._use.end(wall_time_s)
        except BaseException as error:
            wall_time_s = time.perf_counter() - started
            if os.getpid() != self._process:
                where = f"trial {number}, attempt {attempt}, in a process that it has forked"
                exit_by(error, where, self._log_file)
            self._meter.end(wall_time_s)
            self._use.end(wall_time_s)
            self._on_raised(trial, error, started_at, wall_time_s)
        else:
            if not self._on_returned(trial, metrics, odd, started_at, wall_time_s):
                return
        self._clear_up(started_at + wall_time_s, wall_time_s, team)

    def _on_raised(self, trial: Trial, error: BaseException, started_at: float, wall_time_s: float) -> None:
        """Handle a trial that has failed, diverged, or was ended by a signal to the whole job."""
        self._restore(wall_time_s)
        trial.flush()
        # Optuna's exception for this, by name: a trial process does not import it.
        if isinstance(error, DivergedError) or (trial.is_pruned and type(error).__name__ == "TrialPruned"):
            why = f"{error} (limits.diverged)" if isinstance(error, DivergedError) else ""
            self._add_pruned(trial, why, started_at, wall_time_s)
            self._renew(trial)
            return
        if self._job.was_signalled(killed_by(error), wall_time_s):
            self._send_interrupted()
            raise SystemExit(0) from None
        cause, of_device = cause_of(error, memory_is_limited=self._is_limited, uses_gpu=self._uses_gpu)
        log_failure(self._log_file, f"trial {trial.number}, attempt {trial.attempt}", error)
        gathered = self._gathered
        gathered.add_failed(
            trial.number, trial.attempt, started_at, wall_time_s, trial.last_reported, cause,
            message_of(error, cause, below=__file__),
        )  # fmt: skip
        self._note_measured(trial)
        if cause is FailureCause.OUT_OF_MEMORY or trial.team is not None or self._uses_gpu:
            # The trial may have left memory on the device, fragmentation or connections behind: a new process
            # for the next trial costs less than another trial that fails for that.
            gathered.warm = self._is_warm and (of_device or cause is FailureCause.OUT_OF_MEMORY)
            self._send_gathered()
            raise SystemExit(0) from None

    def _note_measured(self, trial: Trial) -> None:
        use = self._use
        self._gathered.note_last(self._meter.energy_j, trial.suggested, use.memory, use.busy)

    def _renew(self, trial: Trial) -> None:
        """End the process if the frames of an exception may hold memory on the device, or connections."""
        if trial.team is not None or self._uses_gpu:
            self._send_gathered()
            raise SystemExit(0) from None

    def _add_pruned(self, trial: Trial, message: str, started_at: float, wall_time_s: float) -> None:
        """Add the end of a hopeless trial, whose metrics are its last reports."""
        self._gathered.add_pruned(
            trial.number, trial.attempt, started_at, wall_time_s, trial.last_reported,
            message or trial.notice or trial.names.notice, trial.last_step,
        )  # fmt: skip
        self._note_measured(trial)

    def _on_returned(
        self, trial: Trial, metrics: dict[str, float], odd: str, started_at: float, wall_time_s: float
    ) -> bool:
        """Add a result; False if the trial was interrupted, so that its result may be incomplete."""
        handled = self._restore(wall_time_s)
        trial.flush()
        if trial.is_pruned:
            self._add_pruned(trial, "", started_at, wall_time_s)
            return True
        if trial.told_to_stop or self._job.may_cut_short(wall_time_s, handled=handled):
            self._send_interrupted()
            return False
        metrics = trial.last_reported | metrics
        odd = odd or trial.notice or trial.names.notice
        missing = [name for name in self._objectives if name not in metrics and trial.rank == 0]
        odd = odd or (f"{ENDED_WELL} its objective {missing[0]!r} was never reported" if missing else "")
        self._gathered.add_complete(trial.number, trial.attempt, started_at, wall_time_s, metrics, odd)
        self._note_measured(trial)
        return True

    def _clear_up(self, ended_at: float, wall_time_s: float, team: Team | None) -> None:
        """End leftover processes, send results that are due, and exit if the process is unusable."""
        if wall_time_s >= _CHILDLESS_S and has_children():
            # The result must not wait for the end of those processes.
            self._send_gathered()
            if end_leftovers():
                # The next process waits for them, because they may still use the device.
                raise SystemExit(0)
        gathered = self._gathered
        if ended_at - gathered.since >= _GATHER_S or team is not None or gathered.is_full:
            self._send_gathered()
        if self._is_unrestorable:
            self._send_gathered()
            raise SystemExit(0)

    def _restore(self, wall_time_s: float) -> bool:
        """Restore the state before the first trial; True if the trial has handled signals."""
        if self._start is None:
            return False
        try:
            return self._start.restore(all_of_it=wall_time_s >= _CHANGELESS_S)
        except Exception:
            # For example a limit that only root can raise; the next trial gets a new process.
            self._is_unrestorable = True
            return True

    def _send_interrupted(self) -> None:
        self._send_gathered()
        self._line.send(INTERRUPTED, first=self._next)

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


def _call(run: Callable[[Trial], Any], trial: Trial) -> Any:
    """Run the workload; after sys.exit() with code 0 or none it returns None."""
    try:
        return run(trial)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return None
        raise
