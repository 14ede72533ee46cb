"""The state in which every trial starts, whatever ran before it in this process.

Signals.  A trial process descends from a launcher, a rank and a fork server, each of which ignores signals
that are not meant for it; a program would inherit that, and a shell script could not even trap them.  So a
trial process starts with the dispositions that a shell gives a program.  Two signals with which batch systems
request an end do not end it, so that a function can save its state within the grace period.  They are
handled, not ignored, because exec() resets handlers: programs started by a trial have the usual disposition
of these, too.

State.  After the workload is loaded, the process records its working directory, its environment (Python's and
C's), signal handlers, timers and mask, umask, import path, arguments, locale, resource limits, and the states
of the default random number generators of Python, numpy and torch.  It restores them after every trial.  A
library that a trial was the first to import starts in the same state in all later trials.

Usually nothing has changed, and the check must cost almost nothing: 3 microseconds in all.  Hence the use of
the C module below :mod:`signal`, which creates no enum member (0.5 instead of 8 microseconds), and of the
memory of two generators, whose states take 14 and 33 microseconds to request.
"""

from __future__ import annotations

import ctypes
import importlib
import locale
import os
import random
import resource
import signal
import sys
import time
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["SURVIVED", "StartState", "has_survived_since", "take_usual_signals"]

#: Signals that request an end and leave time for it; the process also receives the stop by other means.
SURVIVED = (signal.SIGUSR1, signal.SIGXCPU)
_Handler = Callable[[int, FrameType | None], Any] | int | None
#: Python's own dispositions at its start.
_PYTHONS: dict[int, _Handler] = {
    signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN,
}  # fmt: skip
#: Signals with names, except those that cannot be handled and those that report faults of the process.
_NUMBERS = [
    int(getattr(signal, name))
    for name in (
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGCHLD",
        "SIGCONT",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
    )
]
_NUMPY = "numpy.random.mtrand"
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
#: Words in the state of a Mersenne twister, and the position in it, 32 bits each.
_TWISTER_BYTES = 4 * (624 + 1)


def take_usual_signals() -> None:
    """Reset signals to their dispositions in a program of a shell, except :data:`SURVIVED`."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, _survive if number in SURVIVED else _PYTHONS.get(number, signal.SIG_DFL))
    _interrupt_no_calls()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


#: When this process last received a signal of SURVIVED, by the monotonic clock, in nanoseconds.
_survived_ns = 0


def _survive(number: int, frame: FrameType | None) -> None:
    """Record the signal; the page or the line carries the request to stop."""
    global _survived_ns
    _survived_ns = time.monotonic_ns()


def has_survived_since(ns: int) -> bool:
    """Whether this process has received a signal of SURVIVED since `ns` of the monotonic clock."""
    return _survived_ns >= ns


def _interrupt_no_calls() -> None:
    for number in SURVIVED:
        if getsignal(number) is _survive:
            signal.siginterrupt(number, False)


class StartState:
    """The state of this process now, to be restored later."""

    def __init__(self) -> None:
        # A descriptor stays valid when the folder is renamed, and needs no path lookup.
        self._folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        self._environment = _Environment()
        self._handlers = [getsignal(number) for number in _NUMBERS]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._path, self._paths = sys.path, list(sys.path)
        self._argv, self._arguments = sys.argv, list(sys.argv)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._limits = [resource.getrlimit(limit) for limit in _LIMITS]
        self._random = _PythonRandom()
        if "numpy" in sys.modules:
            # numpy imports this submodule on first use; without this line only the first trial would do so.
            importlib.import_module("numpy.random")
        self._numpy = _NumpyRandom() if _NUMPY in sys.modules else None
        self._torch = _TorchRandom(is_new=False) if _has_torch() else None

    def restore(self, *, all_of_it: bool) -> bool:
        """Restore the state; True if signal handlers had changed.

        Args:
            all_of_it: also restore what takes longer to check: resource limits, the locale, and the signal
                mask.

        Raises:
            OSError, ValueError: when something cannot be restored.
        """
        os.fchdir(self._folder)
        os.umask(self._umask)
        # A pending alarm would reach the next trial.
        signal.alarm(0)
        handled = list(map(getsignal, _NUMBERS)) != self._handlers
        if handled:
            self._restore_handlers()
        if self._environment.has_changed():
            self._environment.restore()
        sys.path, sys.argv = self._path, self._argv
        if self._path != self._paths or self._argv != self._arguments:
            self._path[:], self._argv[:] = self._paths, self._arguments
        self._random.restore()
        if self._numpy is not None or _NUMPY in sys.modules:
            self._restore_numpy()
        if self._torch is not None or "torch" in sys.modules:
            self._restore_torch()
        if all_of_it:
            self._restore_rarely_changed()
        return handled

    def _restore_handlers(self) -> None:
        for number, handler in zip(_NUMBERS, self._handlers, strict=True):
            if getsignal(number) is not handler:
                if handler is None:
                    raise ValueError(
                        f"the handler of signal {number} was not set by Python and cannot be restored"
                    )
                signal.signal(number, handler)
        _interrupt_no_calls()

    def _restore_numpy(self) -> None:
        if self._numpy is None:
            sys.modules["numpy.random"].seed()
            self._numpy = _NumpyRandom()
        self._numpy.restore()

    def _restore_torch(self) -> None:
        if self._torch is None and _has_torch():
            self._torch = _TorchRandom(is_new=True)
        if self._torch is not None:
            self._torch.restore()

    def _restore_rarely_changed(self) -> None:
        if signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        for limit, before in zip(_LIMITS, self._limits, strict=True):
            if resource.getrlimit(limit) != before:
                resource.setrlimit(limit, before)


class _Environment:
    """The environment variables; Python writes changes to C's, but does not read C's again."""

    def __init__(self) -> None:
        self._environ = os.environ
        self._variables = dict(os.environb)
        try:
            self._c = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
        except ValueError:
            self._c = ctypes.c_void_p(None)
        #: Size of C's list of pointers to variables, including its end.
        self._bytes = ctypes.sizeof(ctypes.c_void_p) * (len(self._c_variables()) + 1)
        self._pointers = ctypes.string_at(self._c.value, self._bytes) if self._c.value else b""

    def has_changed(self) -> bool:
        """Whether a variable was set or removed, from Python or C; both change the list of pointers."""
        at = self._c.value
        if at is None or os.environ is not self._environ:
            return True
        return ctypes.string_at(at, self._bytes) != self._pointers

    def restore(self) -> None:
        """Restore the recorded variables."""
        os.environ = self._environ  # noqa: B003 a trial has replaced the mapping
        for name in self._c_variables().keys() - self._variables.keys():
            os.unsetenv(name)
        for name in os.environb.keys() - self._variables.keys():
            del os.environb[name]
        for name, value in self._variables.items():
            os.environb[name] = value
        self._pointers = ctypes.string_at(self._c.value, self._bytes) if self._c.value else b""

    def _c_variables(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        at = self._c.value
        while at and (text := ctypes.c_char_p.from_address(at).value) is not None:
            name, _, value = text.partition(b"=")
            found[name] = value
            at += ctypes.sizeof(ctypes.c_void_p)
        return found


class _PythonRandom:
    """The generator behind the functions of :mod:`random`."""

    def __init__(self) -> None:
        self._state = random.getstate()
        self._generator: Any = random._inst
        self._memory: Any = self._find_memory()
        self._bytes = self._memory.raw if self._memory is not None else b""

    def restore(self) -> None:
        if (
            self._memory is None
            or self._memory.raw != self._bytes
            or self._generator.gauss_next != self._state[2]
        ):
            random.setstate(self._state)

    def _find_memory(self) -> Any:
        """The generator's own memory, after the object's head; None if draws do not change it."""
        if sys.getsizeof(self._generator) < object.__basicsize__ + _TWISTER_BYTES:
            return None
        memory = (ctypes.c_char * _TWISTER_BYTES).from_address(id(self._generator) + object.__basicsize__)
        before = memory.raw
        random.random()
        has_changed = memory.raw != before
        random.setstate(self._state)
        return memory if has_changed and memory.raw == before else None


class _NumpyRandom:
    """The generator behind the functions of ``numpy.random``."""

    def __init__(self) -> None:
        self._numpy: Any = sys.modules["numpy.random"]
        self._generator = self._numpy.get_bit_generator()
        self._state = self._numpy.get_state(legacy=False)
        is_twister = self._state["bit_generator"] == "MT19937" and not self._state["has_gauss"]
        address = self._generator.ctypes.state_address
        self._memory: Any = (ctypes.c_char * _TWISTER_BYTES).from_address(address) if is_twister else None
        self._bytes = self._memory.raw if self._memory is not None else b""

    def restore(self) -> None:
        if self._numpy.get_bit_generator() is not self._generator:
            self._numpy.set_bit_generator(self._generator)
        elif self._memory is not None and self._memory.raw == self._bytes:
            return
        self._numpy.set_state(self._state)


class _TorchRandom:
    """Torch's default generators.

    Args:
        is_new: whether a trial was the first to import torch.
    """

    def __init__(self, *, is_new: bool) -> None:
        self._torch: Any = sys.modules["torch"]
        # The first trial may have changed the default generator, and its initial state is lost.
        generator = self._torch.Generator() if is_new else self._torch.default_generator
        self._state, self._seed = generator.get_state(), generator.initial_seed()

    def restore(self) -> None:
        self._torch.default_generator.set_state(self._state)
        if self._torch.cuda.is_initialized():
            for generator in self._torch.cuda.default_generators:
                generator.manual_seed(self._seed)


def _has_torch() -> bool:
    return hasattr(sys.modules.get("torch"), "default_generator")
