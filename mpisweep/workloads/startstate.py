"""What every trial finds when it starts, whatever ran before it in this process.

Signals.  A trial process descends from a launcher, a rank and a fork server, each of which ignores what is not for it;
a program would inherit that, and a shell script could not even trap it.  So a trial process starts with the
dispositions of a program that a shell has started.  Two signals by which batch systems ask for an end do not end
it: a function has until the end of the grace to save what it has.  They are handled, not ignored, because handlers end
with exec(): what a trial starts has the usual disposition of these, too.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["SURVIVED", "is_survived", "take_usual_signals"]

#: What asks for an end and leaves time for it, where the process is told to stop by other means as well.
SURVIVED = (signal.SIGUSR1, signal.SIGXCPU)
_Handler = Callable[[int, FrameType | None], Any] | int | None
#: What Python makes of signals when it starts.
_PYTHONS: dict[int, _Handler] = {
    signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN,
}  # fmt: skip
#: All signals but those that cannot be handled, and those that have no names.
_NUMBERS = [
    number for number in range(1, signal.SIGRTMIN)
    if number in signal.valid_signals() and number not in (signal.SIGKILL, signal.SIGSTOP)
]  # fmt: skip


def take_usual_signals() -> None:
    """Have every signal do what it does in a program that a shell has started, but for those that are survived."""
    for number in _NUMBERS:
        signal.signal(number, _survive if number in SURVIVED else _PYTHONS.get(number, signal.SIG_DFL))
    for number in SURVIVED:
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def is_survived() -> bool:
    """Whether the signals that are survived are still handled by nobody else."""
    return all(signal.getsignal(number) is _survive for number in SURVIVED)


def _survive(number: int, frame: FrameType | None) -> None:
    """Go on: the page or the line says that the trial is to stop."""
