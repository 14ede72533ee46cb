"""One node's part in a pipeline of nodes, which moves chunks from the reader to everybody.

The nodes stand in a line.  Each passes every chunk on to the next while it writes it to its own disk, so the
source is read once, each link carries the data once, and the time is that of the slowest part plus one chunk
per node.  A node holds :data:`BUFFERS` chunks at most, so that a slow disk slows the line down and takes no
memory.

Threads read and write; :meth:`Relay.step` moves chunks between them and the neighbours, and never waits, for
MPI is served by one thread.  A node whose disk fails passes chunks on until the stream ends, because others
are behind it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from typing import Protocol

from mpisweep.staged.source import Source, StageError
from mpisweep.staged.stream import CHUNK_BYTES, FrameKind, is_last, pack, used_bytes

__all__ = ["BUFFERS", "Pending", "Relay", "Wire", "Writes"]

#: Chunks that a node holds at most.
BUFFERS = 4


class Pending(Protocol):
    """A transfer that has begun."""

    def is_done(self) -> bool:
        """Whether it is complete; to be asked until it is."""


class Wire(Protocol):
    """Transfers between nodes, by the ranks that act for them."""

    def send(self, rank: int, chunk: memoryview) -> Pending:
        """Begin to send a chunk, which must not change until that is done."""

    def receive(self, rank: int, into: memoryview) -> Pending:
        """Begin to receive a chunk into a buffer."""


class Writes(Protocol):
    """Writes chunks, as :class:`mpisweep.staged.copies.CopyWriter` does."""

    def write(self, chunk: memoryview) -> None:
        """Write a chunk."""

    def close(self) -> None:
        """Close all files."""


class Relay:
    """A node's part.

    Args:
        wire: to the neighbours.
        source: the rank before this one in the line; the data itself, and the number of its first entries to
            leave out, for the first one.
        after: the next rank in the line; None for the last one.
        writer: writes the copy of this node; None if it is complete.

    Attributes:
        failure: why the copy of this node could not be written; empty if it could.
        moved: number of chunks that have arrived.
        ended: at the reader, the last frame of the stream; END until then.
    """

    def __init__(
        self,
        wire: Wire,
        source: int | tuple[Source, int],
        after: int | None,
        writer: Writes | None,
    ) -> None:
        self._wire = wire
        self._before = source if isinstance(source, int) else None
        self._after = after
        self._writer = writer
        self.failure = ""
        self.moved = 0
        self.ended: tuple[FrameKind, str] = FrameKind.END, ""
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._to_write: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._written: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(CHUNK_BYTES)))
        self._receiving: tuple[Pending, memoryview] | None = None
        self._sending: deque[tuple[Pending, memoryview]] = deque()
        #: id of a chunk -> number of its users: the next node, the disk.
        self._users: dict[int, int] = {}
        self._is_last_here = False
        self._early: tuple[FrameKind, str] | None = None
        if writer is not None:
            threading.Thread(target=self._write_all, args=(writer,), daemon=True).start()
        if not isinstance(source, int):
            threading.Thread(
                target=pack,
                args=(*source, self._free.get, self._filled.put, lambda: self._early, self._note_end),
                daemon=True,
            ).start()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended and every chunk is sent and written."""
        return self._is_last_here and not self._users

    @property
    def writes(self) -> bool:
        """Whether this node writes a copy."""
        return self._writer is not None

    def _note_end(self, kind: FrameKind, text: str) -> None:
        self.ended = kind, text

    def end(self, kind: FrameKind, text: str = "") -> None:
        """At the reader: end the stream early."""
        self._early = self._early or (kind, text)

    def step(self) -> bool:
        """Move chunks as far as possible; True if anything has moved."""
        moved = False
        while self._sending and self._sending[0][0].is_done():
            self._release(self._sending.popleft()[1])
            moved = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._release(self._written.get_nowait())
                moved = True
        if not self._is_last_here and (chunk := self._arrived()) is not None:
            self._pass_on(chunk)
            moved = True
        return moved

    def _arrived(self) -> memoryview | None:
        if self._before is None:
            with contextlib.suppress(queue.Empty):
                return self._filled.get_nowait()
            return None
        if self._receiving is None:
            with contextlib.suppress(queue.Empty):
                buffer = self._free.get_nowait()
                self._receiving = self._wire.receive(self._before, buffer), buffer
        if self._receiving is None or not self._receiving[0].is_done():
            return None
        chunk, self._receiving = self._receiving[1], None
        return chunk

    def _pass_on(self, chunk: memoryview) -> None:
        self.moved += 1
        self._is_last_here = is_last(chunk)
        self._users[id(chunk)] = 1
        if self._after is not None:
            self._users[id(chunk)] += 1
            self._sending.append((self._wire.send(self._after, chunk[: used_bytes(chunk)]), chunk))
        if self._writer is not None:
            self._users[id(chunk)] += 1
            self._to_write.put(chunk)
        self._release(chunk)

    def _release(self, chunk: memoryview) -> None:
        self._users[id(chunk)] -= 1
        if not self._users[id(chunk)]:
            del self._users[id(chunk)]
            self._free.put(chunk)

    def _write_all(self, writer: Writes) -> None:
        """Write every chunk, in the thread of the disk; after a failure let them pass."""
        while True:
            chunk = self._to_write.get()
            is_over = is_last(chunk)
            try:
                if not self.failure:
                    writer.write(chunk)
            except StageError as error:
                self.failure = str(error)
            except Exception as error:
                self.failure = f"the data cannot be written: {type(error).__name__}: {error}"
            if is_over:
                writer.close()
            self._written.put(chunk)
            if is_over:
                return
