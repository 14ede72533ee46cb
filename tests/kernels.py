"""A kernel on which some processes cannot be killed, or on which fork fails; see kernel.c."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path

from libraries import build_library

__all__ = ["STUCK", "Kernel"]

SOURCE = Path(__file__).with_name("kernel.c")
#: Source of a function whose process gets stuck: neither its parent's death nor a signal from the run ends
#: it.  It closes the job's output unless `keeps_output`, because mpirun waits for that output.
STUCK = """
import ctypes, os, time
from pathlib import Path

def get_stuck(keeps_output=False):
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in () if keeps_output else (1, 2):
        os.dup2(nothing, file)
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    kernel = Path(os.environ["KERNEL_FOLDER"])
    with open(kernel / "stuck", "a") as stuck:
        stuck.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(1000)
"""


class Kernel:
    """The kernel that processes with :attr:`environment` see.

    Args:
        folder: for the library and the state; created if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        library = folder / "kernel.so"
        build_library(SOURCE, library)
        self.environment = {"LD_PRELOAD": os.fspath(library), "KERNEL_FOLDER": os.fspath(folder)}

    @property
    def stuck(self) -> list[int]:
        """Processes that no signal from the run reaches."""
        file = self._folder / "stuck"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def refused(self) -> int:
        """Number of forks that have failed."""
        file = self._folder / "refused"
        return len(file.read_text()) if file.exists() else 0

    def be_full(self) -> None:
        """Make every fork fail from now on."""
        aside = self._folder / "full.new"
        aside.write_text(str(errno.EAGAIN))
        aside.replace(self._folder / "full")

    def have_room(self) -> None:
        """Let forks succeed again."""
        (self._folder / "full").unlink(missing_ok=True)

    def end_stuck(self) -> None:
        """Kill the stuck processes, as a real kernel does when the driver answers."""
        for process in self.stuck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
