"""The folder of users' requests, as the thread of the vigil watches it.

The thread reads new files and removes those of requests that are applied; the master takes what was read.  A
disk that hangs blocks only the thread.  A file is removed through the master's token, so that a superseded
master removes none (:mod:`mpisweep.results.claim`): what it applied may not count.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from mpisweep.records import Request
from mpisweep.results.claim import remove_through
from mpisweep.results.requests import read_requests, remove_if_empty, request_file

__all__ = ["RequestWatch"]

log = logging.getLogger(__name__)


class RequestWatch:
    """Reads and removes the files of requests.

    Args:
        path: of the results file.
        token: of the master.
        applied: names of requests that are applied already; their files are removed.
    """

    def __init__(self, path: Path, token: Path, applied: Iterable[str]) -> None:
        self._path = path
        self._token = token
        #: Names of requests that were read, or applied before.
        self._known = set(applied)
        self._found: deque[Request] = deque()
        #: Names of applied requests whose files may be there.
        self._applied = deque(self._known)
        self._unreadable: set[str] = set()

    # ------------------------------------------------------------------------------------- in the master

    def take(self) -> list[Request]:
        """Take the requests that were read since the last call."""
        return [self._found.popleft() for _ in range(len(self._found))]

    def note_applied(self, name: str) -> None:
        """Have the file of a request removed: its record is on the disk."""
        self._applied.append(name)

    # ------------------------------------------------------------------------------------- in the thread

    def look(self) -> None:
        """Read new requests, and remove applied ones.

        Raises:
            OSError: when the folder cannot be read.
        """
        requests, unreadable = read_requests(self._path, self._known)
        for request in requests:
            self._known.add(request.name)
            self._found.append(request)
        for name in sorted(set(unreadable) - self._unreadable):
            self._unreadable.add(name)
            log.warning("%s: is not a request that this mpisweep understands; it is ignored", name)
        if not self._applied:
            return
        while self._applied:
            with contextlib.suppress(FileNotFoundError):
                remove_through(self._token, request_file(self._path, self._applied[0]))
            # If the disk fails, the file stays for the next time.
            self._applied.popleft()
        remove_if_empty(self._path)
