"""A process that works beside a rank: it is asked one thing at a time and tells things, in lines of JSON.

Whoever uses it never waits for it, except where nothing else is to be done.  It can be killed, or hang:
another one is started in its place, and its user decides what that means for what was asked.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from mpisweep.processes.forkserver import ForkServer

__all__ = ["SideProcess"]

#: How often a question is asked of a process that does not live to answer it.
_TRIES = 3
#: What is read at once, in bytes.
_READ_BYTES = 1 << 20


class SideProcess:
    """One at a time; a process that is gone is replaced by another.

    Args:
        server: forks the process.
        name: what messages call the process.
        entry: what it runs, as ``module:function``; it gets the socket and the arguments.
        arguments: for the entry.

    Attributes:
        asked: the question that has no answer yet; None where there is none.
        asked_at: when it was asked, by the monotonic clock.
    """

    def __init__(self, server: ForkServer, name: str, entry: str, arguments: dict[str, Any]) -> None:
        self._server = server
        self._name = name
        self._entry = entry
        self._arguments = arguments
        self.asked: dict[str, Any] | None = None
        self.asked_at = 0.0
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair()
        self._child = self._server.spawn(self._entry, [theirs.fileno()], self._arguments)
        theirs.close()
        self._unread = b""

    def fileno(self) -> int:
        """For select(); readable when there is something to :meth:`hear`."""
        return self._line.fileno()

    def ask(self, request: dict[str, Any]) -> None:
        """Ask, and go on; the user says when it is answered, see :meth:`done`."""
        self.asked = request
        self.asked_at = time.monotonic()
        # One that has just died is replaced when its line is seen to be closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self._line.send(_text(request), socket.MSG_DONTWAIT)

    def done(self) -> None:
        """What was asked is answered."""
        self.asked = None

    def hear(self) -> list[dict[str, Any]] | None:
        """What the process has told, for when :meth:`fileno` is readable; None where it is gone, see
        :meth:`replace`.
        """
        try:
            received = self._line.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            received = b""
        if not received:
            return None
        *lines, self._unread = (self._unread + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask_and_wait(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its next line after this question, which another process is asked if this one is killed.

        Raises:
            OSError: when it was killed, and the others after it.
        """
        for _ in range(_TRIES):
            text = b""
            with contextlib.suppress(OSError):
                self._line.sendall(_text(request))
                with self._line.makefile("rb") as lines:
                    text = lines.readline()
            if text.endswith(b"\n"):
                answer: dict[str, Any] = json.loads(text)
                return answer
            self.replace()
        raise OSError(f"{self._name} was killed")

    def hangs(self, now: float, patience_s: float) -> bool:
        """Whether it has not answered for so long."""
        return self.asked is not None and now - self.asked_at > patience_s

    def replace(self) -> None:
        """End the process, if it is there, and start another one, which is not asked anything yet."""
        self.kill()
        self._start()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._server.kill(self._child)
        self.close()

    def close(self) -> None:
        """Let the process go; it ends by itself when it has done what it was asked for."""
        self._line.close()


def _text(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"
