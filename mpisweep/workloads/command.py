"""Running a command line as a trial: start, read the output, pass on a stop, judge the end.

The program runs unmodified.  Its output goes through a pipe, line by line through the sweep's patterns and
unchanged into the packed output; a second, inherited pipe carries the calls of :func:`mpisweep.report`.  The
exit code decides whether the trial is complete.  The program leads a process group, so that a stop reaches it
and its children, and it dies with its trial process.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mpisweep.processes.kernel import exit_of, handles_any, kill_group
from mpisweep.processes.shared_page import SignalPage
from mpisweep.records import FailureCause, Value
from mpisweep.spec import Limits
from mpisweep.spec.commandline import (
    CommandWorkload,
    read_json_line,
    render,
    render_template,
)
from mpisweep.spec.printed import plain, read_number
from mpisweep.workloads.outputs import Tape, append_output
from mpisweep.workloads.programs import has_not_started, start_program
from mpisweep.workloads.startstate import SURVIVED
from mpisweep.workloads.trial import DivergedError, Trial, TrialFailedError

__all__ = ["make_run"]

#: How often the program checks whether the trial has to stop, in seconds.
_POLL_S = 0.1
#: How long a pipe is read after the program has ended, because a child may hold it open, in seconds.
_DRAIN_S = 0.5
_READ_BYTES = 1 << 16
#: Longest line, in bytes; longer ones are cut, because no metric is that long.
_LINE_BYTES = 1 << 20
#: The beginning of a line that would be a report if it were not cut.
_BEGUN_JSON = re.compile(rb'\s*\{\s*"')
#: Last lines of the output that the results file keeps of a failed trial.
_LAST_LINES = 5
#: Out-of-memory texts of programs: torch and CUDA, Python, C and C++, JAX and TensorFlow, ROCm.
_OUT_OF_MEMORY = (
    "out of memory",
    "OutOfMemoryError",
    "MemoryError",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
    "std::bad_alloc",
    "RESOURCE_EXHAUSTED",
    "hipErrorOutOfMemory",
    "not enough memory",
    "can't allocate memory",
)


def make_run(
    workload: CommandWorkload,
    folder: Path,
    outputs: Path,
    signals: SignalPage,
    limits: Limits,
    watch: Callable[[int], None],
) -> Callable[[Trial], None]:
    """Make the function that runs a trial of this command line.

    Args:
        workload: the command line.
        folder: of the sweep file.
        outputs: the file for the programs' output.
        signals: tells when all processes of the job received a signal.
        limits: on the program's run time and on the time without a report.
        watch: is called periodically with the process group of a program that runs.
    """
    template = (folder / workload.template).read_text(encoding="utf-8") if workload.template else ""

    def run(trial: Trial) -> None:
        _Run(workload, folder, outputs, signals, limits, watch, trial).run(template)

    return run


class _Run:
    """One program from start to end."""

    def __init__(
        self,
        workload: CommandWorkload,
        folder: Path,
        outputs: Path,
        signals: SignalPage,
        limits: Limits,
        watch: Callable[[int], None],
        trial: Trial,
    ) -> None:
        self._workload = workload
        self._folder = folder
        self._outputs = outputs
        self._signals = signals
        self._limits = limits
        self._watch = watch
        #: When a metric was last found; and why the program was killed, if it was.
        self._reported_ns = time.monotonic_ns()
        self._overdue = ""
        #: When a pruned program is killed, by the monotonic clock in nanoseconds.
        self._kill_at_ns: float = math.inf
        self._started_ns = time.monotonic_ns()
        self._trial = trial
        self._tape = Tape()
        self._patterns = [
            (metric.name, metric.compiled(), iter(range(1 << 62))) for metric in workload.metrics
        ]
        self._json_steps = iter(range(1 << 62))

    def run(self, template: str) -> None:
        """Run the program to its end.

        Raises:
            TrialFailedError: when it failed.
            DivergedError: when its objective was not finite; see ``limits.diverged``.
        """
        values = self._values()
        target: Path | None = None
        if template:
            target = self._trial.directory / Path(self._workload.template).name.removesuffix(".in")
            # The trial's other ranks write the same file.
            aside = target.with_name(f"{target.name}.{self._trial.rank}")
            aside.write_text(render_template(template, values), encoding="utf-8")
            aside.replace(target)
            values["template"] = os.fspath(target)
        arguments = [render(argument, values) for argument in self._workload.arguments]
        status, diverged = self._run_program(arguments, values)
        if has_not_started(status, self._tape.content()):
            self._tape = Tape()
            status, diverged = self._run_program(arguments, values, directly=True)
        self._end(arguments[0], status, diverged)
        is_interrupted = self._trial.told_to_stop and not self._trial.is_pruned
        if target is not None and self._trial.ranks == 1 and not is_interrupted:
            # File systems limit the number of files, and this one can be rendered again; a failed trial keeps
            # it for inspection.
            with contextlib.suppress(OSError):
                target.unlink()
                target.parent.rmdir()

    def _run_program(
        self, arguments: list[str], values: dict[str, Value], *, directly: bool = False
    ) -> tuple[int, DivergedError | None]:
        """Run the program and end its group; its exit code, and the error of an objective that diverged."""
        program, printed, reported = start_program(
            self._workload, self._folder, self._trial, arguments, values, directly=directly
        )
        diverged: DivergedError | None = None
        try:
            self._read_output(program, printed, reported)
        except DivergedError as error:
            diverged = error
        finally:
            for file in (printed, reported):
                os.close(file)
            kill_group(program.pid)
            status = program.wait()
        return status, diverged

    def _values(self) -> dict[str, Value]:
        trial, names = self._trial, self._workload.names
        values: dict[str, Value] = {
            "number": trial.number, "repeat": trial.repeat, "seed": trial.seed, "device": trial.device,
            "cores": trial.cores, "rank": trial.rank,
        }  # fmt: skip
        if "directory" in names:
            values["directory"] = os.fspath(trial.directory)
        if trial.data is not None:
            values["data"] = os.fspath(trial.data)
        elif "data" in names and "data" not in trial.params:
            raise TrialFailedError(
                FailureCause.EXCEPTION, "the command contains {data}, but no data is staged"
            )
        # The user's parameters take precedence over these names.
        return values | trial.params

    # ------------------------------------------------------------------------------------- while it runs

    def _read_output(self, program: subprocess.Popen[bytes], printed: int, reported: int) -> None:
        lines = {printed: _Lines(self._on_line), reported: _Lines(self._on_report)}
        until = float("inf")
        with selectors.DefaultSelector() as selector, exit_of(program.pid) as ended:
            for file in lines:
                os.set_blocking(file, False)
                selector.register(file, selectors.EVENT_READ)
            if ended is not None:
                selector.register(ended, selectors.EVENT_READ)
            while len(selector.get_map()) > (ended is not None) and time.monotonic() < until:
                for key, _ in selector.select(_POLL_S):
                    if key.fd == ended:
                        selector.unregister(ended)
                        ended = None
                    elif not self._read(key.fd, lines[key.fd]):
                        selector.unregister(key.fd)
                self._pass_on_stop(program)
                self._trial.flush_if_due()
                self._keep_time(program)
                if until == float("inf") and program.poll() is not None:
                    until = time.monotonic() + _DRAIN_S
            for some in lines.values():
                some.end()
            # It has closed its output and may still be running; mostly it ends in this moment.
            while program.poll() is None:
                self._pass_on_stop(program)
                self._keep_time(program)
                selector.select(_POLL_S / 10)

    def _keep_time(self, program: subprocess.Popen[bytes]) -> None:
        """Kill a program that has exceeded a limit; its output is kept like any other."""
        limits, now_ns = self._limits, time.monotonic_ns()
        self._watch(program.pid)
        if now_ns > self._kill_at_ns:
            kill_group(program.pid)
        if self._overdue or self._trial.is_pruned:
            return
        if limits.timeout_s is not None and now_ns - self._started_ns > limits.timeout_s * 1e9:
            self._overdue = f"killed after {limits.timeout_s:g} s (limits.timeout)"
        elif (
            limits.stall_s is not None
            and self._trial.rank == 0
            and now_ns - self._reported_ns > limits.stall_s * 1e9
        ):
            self._overdue = f"killed after {limits.stall_s:g} s without a report (limits.stall)"
        if self._overdue:
            kill_group(program.pid)

    def _pass_on_stop(self, program: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM once when the trial has to stop, unless the program handles the job's signal.

        A pruned program is killed after the grace period; an interrupted one by the worker.
        """
        if self._trial.is_pruned or program.poll() is not None or not self._must_tell():
            return
        if self._trial.is_pruned:
            self._kill_at_ns = time.monotonic_ns() + self._limits.grace_s * 1e9
        elif self._signals.any_since(self._started_ns) and handles_any(program.pid, SURVIVED):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGTERM)

    def _must_tell(self) -> bool:
        """Whether there is something that the program was not told yet."""
        trial = self._trial
        return trial.ask_pruner() if trial.told_to_stop else trial.should_stop()

    def _read(self, file: int, lines: _Lines) -> bool:
        try:
            data = os.read(file, _READ_BYTES)
        except BlockingIOError:
            return True
        lines.add(data)
        return bool(data)

    def _on_line(self, raw: bytes, whole: bytes) -> None:
        self._tape.add(whole)
        line = plain(raw.decode("utf-8", "replace"))
        for name, pattern, steps in self._patterns:
            for match in pattern.finditer(line):
                value = read_number(match["value"] or "")
                if value is None:
                    self._note_unread(name, match["value"] or "", line)
                    continue
                stated = read_number(match["step"] or "") if "step" in pattern.groupindex else None
                self._add(next(steps) if stated is None else _to_step(stated), {name: value})
        self._on_json(line, raw)

    def _note_unread(self, name: str, value: str, line: str) -> None:
        """Record the first value that is not a number, for the trial's message."""
        if not self._trial.notice:
            self._trial.notice = (
                f"metric {name!r}: {value[:80]!r} was not read as a number, in the line "
                f"{line.strip()[:200]!r}"
            )

    def _on_report(self, raw: bytes, whole: bytes) -> None:
        self._on_json(raw.decode("utf-8", "replace"), raw)

    def _on_json(self, line: str, raw: bytes) -> None:
        step, metrics = read_json_line(line.strip())
        if metrics:
            self._add(next(self._json_steps) if step is None else step, metrics)
        elif len(raw) > _LINE_BYTES and not self._trial.notice and _BEGUN_JSON.match(raw):
            begins = line.strip()[:80]
            self._trial.notice = (
                f"a report of more than {_LINE_BYTES:,} bytes was not read: the line that "
                f"begins with {begins!r}"
            )

    def _add(self, step: int, metrics: Mapping[str, float]) -> None:
        self._reported_ns = time.monotonic_ns()
        self._trial.add(step, metrics)

    # ------------------------------------------------------------------------------------- its end

    def _end(self, name: str, status: int, diverged: DivergedError | None) -> None:
        trial = self._trial
        how = (
            self._overdue
            or str(diverged or "")
            or (f"exit code {status}" if status >= 0 else f"killed by {_signal_name(-status)}")
        )
        with contextlib.suppress(OSError):
            which = f"rank {trial.rank} of {trial.ranks}, {how}" if trial.ranks > 1 else how
            append_output(self._outputs, trial.number, trial.attempt, which, self._tape.content())
        if diverged is not None:
            raise diverged
        if self._overdue:
            raise TrialFailedError(
                FailureCause.TIMEOUT, "\n".join([self._overdue, *self._tape.last_lines(_LAST_LINES)]),
                self._tape.content().decode("utf-8", "replace"),
            )  # fmt: skip
        # A rank of a pruned trial may fail because another one was told first.
        if status == 0 or trial.told_to_stop or (trial.ranks > 1 and trial.ask_pruner()):
            return
        last = self._tape.last_lines(_LAST_LINES)
        ended = f"{Path(name).name} {'exited with code ' + str(status) if status > 0 else 'was ' + how}"
        cause = FailureCause.CRASH
        if any(sign in line for line in self._tape.last_lines(200, 10_000) for sign in _OUT_OF_MEMORY):
            cause = FailureCause.OUT_OF_MEMORY
        first = f"{ended}: {last[-1]}" if last else ended
        details = self._tape.content().decode("utf-8", "replace")
        # A shell adds 128 to the signal that ended its command.
        killed_by = -status if status < 0 else max(0, status - 128)
        raise TrialFailedError(cause, "\n".join([first, *last[:-1]]), details, killed_by=killed_by)


class _Lines:
    """Splits bytes into lines; a carriage return ends a line too, as in progress bars."""

    def __init__(self, on_line: Callable[[bytes, bytes], None]) -> None:
        self._on_line = on_line
        self._begun = b""

    def add(self, data: bytes) -> None:
        """Add bytes; call `on_line` for each complete line, without its end and with it."""
        *whole, self._begun = (self._begun + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            self._on_line(line, line + b"\n")
        if len(self._begun) > _LINE_BYTES:
            self.end()

    def end(self) -> None:
        """Treat the rest as a line, because no more bytes follow."""
        if self._begun:
            begun, self._begun = self._begun, b""
            self._on_line(begun, begun)


def _to_step(number: float) -> int:
    """Convert a printed step to an integer; clamp it, because the program would see no error."""
    return int(max(-(2.0**62), min(2.0**62, number))) if number == number else 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
