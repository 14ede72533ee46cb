"""A trial's exception: its cause, its message in the results file, and its text in the log."""

from __future__ import annotations

import contextlib
import errno
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from mpisweep.bounds import LOG_CHARS, shortened
from mpisweep.records import FailureCause
from mpisweep.workloads.devicefailure import is_of_device, lacks_memory, text_of
from mpisweep.workloads.leftovers import exit_now
from mpisweep.workloads.trial import TrialFailedError

__all__ = ["cause_of", "exit_by", "killed_by", "log_failure", "message_of"]

#: torch's texts for a full device or full main memory.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
#: The whole text of oneDNN, torch's CPU library, when memory is full.  Its other errors name the operation.
_NO_PRIMITIVE = "could not create a primitive"
#: Its text when memory is full later; without a memory limit it may have another cause.
_NOT_EXECUTED = "could not execute a primitive"
#: The dynamic linker's text when a memory limit leaves no room for a library; without a limit it has another
#: cause.
_NO_ROOM = "failed to map segment from shared object"
#: The interpreter's texts when it could not allocate the exception; without a memory limit the cause is a bug
#: in an extension module.
_NO_EXCEPTION = ("error return without exception set", "returned null without setting an exception")
#: Lines of a traceback that the results file keeps.
_TRACEBACK_LINES = 4


def cause_of(error: BaseException, *, memory_is_limited: bool, uses_gpu: bool) -> tuple[FailureCause, bool]:
    """The cause of a trial's failure, and whether its device reported it."""
    cause = _cause(error, memory_is_limited)
    of_device = uses_gpu and cause is FailureCause.EXCEPTION and is_of_device(error)
    return FailureCause.OUT_OF_MEMORY if of_device and lacks_memory(error) else cause, of_device


def _cause(error: BaseException, memory_is_limited: bool) -> FailureCause:
    """Tell out of memory, on the device or the host, from any other exception."""
    if isinstance(error, TrialFailedError):
        return error.cause
    text = text_of(error).lower()
    if (
        isinstance(error, MemoryError)
        # torch.OutOfMemoryError by name, because a trial process may not have imported torch.
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(sign in text for sign in _NO_MEMORY))
        or (isinstance(error, RuntimeError) and text == _NO_PRIMITIVE)
        or (isinstance(error, RuntimeError) and text == _NOT_EXECUTED and memory_is_limited)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, (OSError, ImportError)) and _NO_ROOM in text and memory_is_limited)
        or (
            isinstance(error, SystemError)
            and memory_is_limited
            and any(sign in text for sign in _NO_EXCEPTION)
        )
    ):
        return FailureCause.OUT_OF_MEMORY
    return FailureCause.EXCEPTION


def killed_by(error: BaseException) -> int:
    """The signal that ended a trial or its program; 0 if none did."""
    if isinstance(error, TrialFailedError):
        return error.killed_by
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0


def message_of(error: BaseException, cause: FailureCause, *, below: str) -> str:
    """The end of the traceback, exception first; the log gets the whole traceback.

    Args:
        error: the exception.
        cause: of the failure.
        below: the file that called the workload; the user's frames come after it.
    """
    if isinstance(error, TrialFailedError):
        return str(error)
    what = "".join(traceback.format_exception_only(error)).strip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != below]
    where = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_TRACEBACK_LINES:]]
    peak = [_peak_text()] if cause is FailureCause.OUT_OF_MEMORY else []
    return "\n".join([what, *peak, *(f"  at {place}" for place in reversed(where))])


def _peak_text() -> str:
    """Peak memory of this process: on its GPU if it uses one, else main memory."""
    torch = sys.modules.get("torch")
    # After some failures every CUDA call fails.
    with contextlib.suppress(Exception):
        if torch is not None and torch.cuda.is_initialized():
            used, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
            return f"peak {used / 2**30:.2f} GiB of {total / 2**30:.2f} GiB on the device"
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of main memory"


def log_failure(log_file: Path, trial: str, error: BaseException) -> None:
    """Append the whole traceback to the log; the results file keeps only its end."""
    if isinstance(error, TrialFailedError):
        what = str(error).partition("\n")[0] + "\n" + (error.details or str(error))
    else:
        what = "".join(traceback.format_exception(error))
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {trial}\n{shortened(what, LOG_CHARS)}\n"
    with contextlib.suppress(OSError):
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab", buffering=0) as log:
            log.write(text.encode("utf-8", "backslashreplace"))


def exit_by(error: BaseException, where: str, log_file: Path) -> NoReturn:
    """Exit a process that a trial has forked, with Python's usual status for this exception."""
    if not isinstance(error, SystemExit):
        log_failure(log_file, where, error)
        exit_now(1)
    if error.code is None or isinstance(error.code, int):
        exit_now(error.code or 0)
    print(error.code, file=sys.stderr)
    exit_now(1)
