"""A kernel that cannot end some processes, or has none to give; see kernel.c.  Takes a C compiler, as mpi4py
does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from pathlib import Path

__all__ = ["STUCK", "Kernel"]

SOURCE = Path(__file__).with_name("kernel.c")
#: For a process that is to be stuck: neither its parent's death nor any signal ends it, until the file `free`
#: is there.  What it holds of the job's output is let go of, unless it `keeps_output`: mpirun waits for that,
#: and the launcher for mpirun.
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
    while not (kernel / "free").exists():
        time.sleep(0.01)
    os._exit(0)
"""


class Kernel:
    """What is told of the kernel to the processes that have :attr:`environment`.

    Args:
        folder: for the library and the state; made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        library = folder / "kernel.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": os.fspath(library), "KERNEL_FOLDER": os.fspath(folder)}

    @property
    def stuck(self) -> list[int]:
        """The processes that no signal reaches."""
        file = self._folder / "stuck"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def refused(self) -> int:
        """How many forks have failed."""
        file = self._folder / "refused"
        return len(file.read_text()) if file.exists() else 0

    def be_full(self) -> None:
        """Have every fork fail from now on."""
        aside = self._folder / "full.new"
        aside.write_text(str(errno.EAGAIN))
        aside.replace(self._folder / "full")

    def have_room(self) -> None:
        """Have forks succeed again."""
        (self._folder / "full").unlink(missing_ok=True)

    def end_stuck(self) -> None:
        """Let the driver answer: what is stuck ends."""
        for process in self.stuck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
