"""A side process of a rank: requests and answers are lines of JSON.

The rank does not wait for it, except when it has nothing else to do.  If the process dies or hangs, another
one is started, and the user of this class decides about the open request.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from mpisweep.processes.forkserver import ForkServer

__all__ = ["SideProcess"]

#: How often a request is sent when the process dies before it answers.
_TRIES = 3
#: Bytes per read.
_READ_BYTES = 1 << 20


class SideProcess:
    """A side process, and each one that replaces it.

    Args:
        server: forks the process.
        name: its name in messages.
        entry: its function, as ``module:function``, called with the socket and the arguments.
        arguments: for the entry.

    Attributes:
        arguments: for the entry of the next process that replaces this one.
        asked: the open request; None if there is none.
        asked_at: when it was sent, by the monotonic clock.
    """

    def __init__(self, server: ForkServer, name: str, entry: str, arguments: dict[str, Any]) -> None:
        self._server = server
        self._name = name
        self._entry = entry
        self.arguments = arguments
        self.asked: dict[str, Any] | None = None
        self.asked_at = 0.0
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair()
        self._child = self._server.spawn(self._entry, [theirs.fileno()], self.arguments)
        theirs.close()
        self._unread = b""

    def fileno(self) -> int:
        """File descriptor for select(); readable when :meth:`receive` has messages."""
        return self._line.fileno()

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request without waiting; the caller ends it with :meth:`done`."""
        self.asked = request
        self.asked_at = time.monotonic()
        # A process that has just died is replaced when its line is found closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self._line.send(_text(request), socket.MSG_DONTWAIT)

    def done(self) -> None:
        """Mark the request as answered."""
        self.asked = None

    def receive(self) -> list[dict[str, Any]] | None:
        """Receive messages; None if the process is gone and must be replaced (:meth:`replace`)."""
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
        """Send a request and wait for the next line; if the process dies, repeat with another one.

        Raises:
            OSError: when each of them died.
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
        """Whether a request has been open for longer than `patience_s`."""
        return self.asked is not None and now - self.asked_at > patience_s

    def replace(self) -> None:
        """Kill the process and start another one, without a request."""
        self.kill()
        self._start()

    def kill(self) -> None:
        """Kill the process."""
        self._server.kill(self._child)
        self.close()

    def close(self) -> None:
        """Close the line; the process ends by itself after its current request."""
        self._line.close()


def _text(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"
