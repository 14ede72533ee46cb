"""The command in a process of its own: its output, its end, and interrupts.

The launcher leads a session of its own, so that Ctrl-C in a terminal does not reach it directly, nor does the
end of a terminal.  The first SIGINT asks it to stop the sweep cleanly, the second one to end it at once; in
both cases the call returns when the launcher has ended.  If the caller dies, the launcher stops the sweep.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from mpisweep.batch.output import View
from mpisweep.batch.variables import CALLER_VARIABLE, PROGRESS_VARIABLE
from mpisweep.processes.kernel import end_family, python_command
from mpisweep.progress import parse

__all__ = ["Done", "call", "follow"]

#: Exit code of a command that refuses its input.
_WRONG = 2
#: Seconds between two looks at signals, if nothing is printed.
_LOOK_S = 0.1
#: The sentence with which a command refuses its input, or an argument of it.
_REFUSAL = re.compile(r"mpisweep(?: \w+)?: (?!warning: )(.*?)(?: \(see `mpisweep .* --help`\))?")
#: Variables that the kernel of a notebook sets for itself: in a trial they would import IPython, and colour
#: the output.
_OF_KERNELS = ("MPLBACKEND", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PAGER", "GIT_PAGER")


@dataclass(slots=True)
class Done:
    """How a command has ended.

    Attributes:
        returned: exit code; negative for the signal that ended it.
        message: its last words on standard error, if it has failed: one sentence, mostly.
        was_interrupted: whether the user has asked for the end.
    """

    returned: int
    message: str = ""
    was_interrupted: bool = False


def call(arguments: Sequence[str]) -> Done:
    """Run a command that does not take long, and show its warnings on standard error."""
    done = subprocess.run(
        _command(arguments), env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    refused = [found[1] for line in lines if (found := _REFUSAL.fullmatch(line))]
    message = "\n".join(refused) if done.returncode else ""
    return Done(done.returncode, message or done.stderr.strip())


def follow(arguments: Sequence[str], view: View, *, draws: bool, kept_open: int | None) -> Done:
    """Run a sweep's command to its end.

    Args:
        arguments: of ``mpisweep``.
        view: shows its output and progress, from this thread.
        draws: whether the ranks send their progress to the view.
        kept_open: a descriptor that the command inherits.
    """
    environment = _environment() | {CALLER_VARIABLE: str(os.getpid())}
    if draws:
        environment[PROGRESS_VARIABLE] = "json"
    with _Interrupts().watched() as interrupts:
        process = subprocess.Popen(
            _command(arguments), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
            pass_fds=() if kept_open is None else (kept_open,),
        )  # fmt: skip
        with process:
            try:
                interrupts.pass_on_to(process)
                words = _Words(view)
                for line, is_error in _lines(process):
                    words.take(line, is_error)
                returned = process.wait()
            except BaseException:
                # The view has failed: the sweep must not outlive this call.
                end_family(process.pid)
                raise
    message = words.end(is_shown=returned != _WRONG)
    return Done(returned, message, was_interrupted=interrupts.count > 0)


def _command(arguments: Sequence[str]) -> list[str]:
    return [*python_command(), "-m", "mpisweep", *arguments]


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    for name in _OF_KERNELS if "ipykernel" in sys.modules else ():
        environment.pop(name, None)
    return environment


class _Interrupts:
    """Takes SIGINT while a sweep runs; elsewhere than on the main thread nothing can be taken."""

    def __init__(self) -> None:
        self.count = 0
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[_Interrupts]:
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
            yield self
            return
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def pass_on_to(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self.count:
            self._pass_on()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._process is not None:
            self._pass_on()

    def _pass_on(self) -> None:
        assert self._process is not None
        # SIGUSR1 always asks for a clean stop, and ends a launcher that still imports without a traceback;
        # after it SIGINT is the second request, which ends the ranks.
        self._process.send_signal(signal.SIGUSR1 if self.count == 1 else signal.SIGINT)


@dataclass
class _Words:
    """What the command says: progress, output, and the sentence with which it refuses its input."""

    view: View
    #: From the first line on that may be a refusal.
    refusal: list[str] = field(default_factory=list)

    def take(self, line: str, is_error: bool) -> None:
        if (progress := parse(line)) is not None:
            self.view.show(progress)
        elif is_error and (self.refusal or _REFUSAL.fullmatch(line)):
            self.refusal.append(line)
        else:
            self.view.write(line, error=is_error)

    def end(self, *, is_shown: bool) -> str:
        """The sentence; if it was none, show the lines that were kept."""
        for line in self.refusal if is_shown else ():
            self.view.write(line, error=True)
        return "\n".join(_REFUSAL.sub(r"\1", line) for line in self.refusal)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield the lines of standard output and standard error as they come, and whether it is the latter.

    Views of notebooks must be used from the thread that runs the cell.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    lines: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
    streams = ((process.stdout, False), (process.stderr, True))
    for stream, is_error in streams:
        threading.Thread(target=_read, args=(stream, is_error, lines), daemon=True).start()
    still_open = len(streams)
    while still_open:
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=_LOOK_S)
            if line is None:
                still_open -= 1
            else:
                yield line


def _read(stream: IO[bytes], is_error: bool, lines: queue.SimpleQueue[tuple[str, bool] | None]) -> None:
    try:
        for raw in stream:
            lines.put((raw.decode("utf-8", "replace").rstrip("\r\n"), is_error))
    finally:
        lines.put(None)
