"""Loader processes: they read the parts of batches, and stay from trial to trial.

Starting two of them takes 0.1 s and ending them as long, each time in a trial of perhaps a second.  So a
trial process keeps the loaders of its last trial, for as long as folder and number of loaders stay the same.

A part of a batch goes to one loader.  A batch has at least two parts per loader, unless it is small: its
first images then arrive sooner, all loaders work on it, and about two batches are on their way.  When a
trial ends, parts on their way are of no use; each part names the turn it belongs to, and a loader that sees a
later turn leaves the rest of its part out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mpisweep.workloads.datasets import DataError
from mpisweep.workloads.folder.jpeg import shape_for_device
from mpisweep.workloads.folder.reading import decode_resized, read
from mpisweep.workloads.folder.scan import ImageFiles
from mpisweep.workloads.leftovers import give_up, keep

__all__ = ["Loaders", "Part", "drop_loaders", "loaders_for"]

#: Parts that each loader has before it, the one that it reads included.
_AHEAD = 4
#: Images in a part, unless batch or part ends before: below that, passing a part costs more than it gains.
_IMAGES = 8
#: Images that shrink more are left to the CPU: the device's filter would need too much of its fast memory.
_SHRINKING = 64


@dataclass(frozen=True, slots=True)
class _Request:
    """A part of a batch to read."""

    turn: int
    rows: list[int]
    size: int
    keep_encoded: bool
    #: Whether the batch ends with it.
    is_last: bool


_NOTHING = torch.empty(0, dtype=torch.uint8)


@dataclass(slots=True)
class Part:
    """A part of a batch; each image is either encoded or resized."""

    #: Labels (n,) int64.
    labels: Tensor
    #: Whether the batch ends with it.
    is_last: bool
    #: Rows of the images.
    rows: list[int] = field(default_factory=list)
    #: Bytes of each encoded image; 0 for a resized one.
    lengths: list[int] = field(default_factory=list)
    #: The encoded images one after another.
    encoded: Tensor = _NOTHING
    #: The resized images (k, 3, S, S) uint8.
    resized: Tensor = _NOTHING
    #: Why an image cannot be read; the part is empty then.
    problem: str = ""
    #: Whether it was left out, because its turn is over.
    is_stale: bool = False


class _Reader(Dataset[Part]):
    """Reads parts; the side of the loader process."""

    def __init__(self, files: ImageFiles, turn: Tensor) -> None:
        self._files = files
        self._turn = turn

    def __getitems__(self, request: _Request) -> Part:
        part = Part(torch.empty(0, dtype=torch.int64), request.is_last)
        try:
            self._read(request, part)
        except DataError as error:
            # Raised here, it would arrive as the text of a traceback.
            return Part(part.labels, request.is_last, problem=str(error))
        return part

    def _read(self, request: _Request, part: Part) -> None:
        encoded, resized = bytearray(), []
        for row in request.rows:
            if int(self._turn) != request.turn:
                part.is_stale = True
                return
            path = self._files.path(row)
            data = read(path)
            is_kept = request.keep_encoded and _is_for_device(data, request.size)
            part.lengths.append(len(data) if is_kept else 0)
            if is_kept:
                encoded += data
            else:
                resized.append(decode_resized(data, path, request.size))
        part.rows = request.rows
        part.labels = torch.tensor([self._files.label(row) for row in request.rows])
        if encoded:
            part.encoded = torch.frombuffer(encoded, dtype=torch.uint8)
        if resized:
            part.resized = torch.stack(resized)


def _is_for_device(data: bytes, size: int) -> bool:
    shape = shape_for_device(data)
    return shape is not None and max(shape) <= _SHRINKING * size


class _Requests:
    """What the data loader asks its processes for: the requests of the present turn."""

    def __init__(self) -> None:
        self.current: Iterable[_Request] = ()

    def __iter__(self) -> Iterator[_Request]:
        return iter(self.current)


class Loaders:
    """Processes that read images of a folder.

    Args:
        files: the images.
        processes: how many; 0 reads between the steps.
    """

    def __init__(self, files: ImageFiles, processes: int) -> None:
        self.files = files
        self.processes = processes
        #: Number of the present turn, in memory shared with the processes.
        self._turn = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._requests = _Requests()
        self._loader: DataLoader[Part] = DataLoader(
            _Reader(files, self._turn),
            batch_sampler=self._requests,  # type: ignore[arg-type]
            num_workers=processes,
            prefetch_factor=_AHEAD if processes else None,
            persistent_workers=processes > 0,
            multiprocessing_context="fork" if processes else None,
            # Without its own generator it would draw from the model's.
            generator=torch.Generator(),
            collate_fn=_as_it_is,  # type: ignore[arg-type]
        )
        self._running: list[BaseProcess] = []
        self._is_broken = False

    @property
    def is_usable(self) -> bool:
        """Whether they can read for another trial: a signal to the whole job may have ended them."""
        return not self._is_broken and all(process.is_alive() for process in self._running)

    def start(self) -> Iterator[Part]:
        """Start the processes, unless they run, and the iteration over the present requests."""
        before = _pids(multiprocessing.active_children())
        iterator = iter(self._loader)
        if not self._running:
            self._running = [child for child in multiprocessing.active_children() if child.pid not in before]
            keep(_pids(self._running))
        return iterator

    def parts(self, batches: Iterable[list[int]], size: int, *, keep_encoded: bool) -> Iterator[Part]:
        """Read batches in a new turn, which ends the one before.

        Args:
            batches: rows of each batch.
            size: S.
            keep_encoded: leave JPEGs to the device, at their original size.

        Raises:
            DataError: when an image cannot be read or decoded.
        """
        self._turn += 1
        turn = int(self._turn)
        self._requests.current = self._split(batches, turn, size, keep_encoded)
        try:
            for part in self.start():
                if part.is_stale or turn != int(self._turn):
                    return
                if part.problem:
                    raise DataError(part.problem)
                yield part
        except (DataError, GeneratorExit):
            raise
        except (ConnectionError, EOFError) as error:
            # A part comes as a descriptor, for which its loader is asked.
            self._is_broken = True
            raise RuntimeError("a loader process (DataLoader worker) has ended unexpectedly") from error
        except BaseException:
            # A loader has died, or the wait for it was interrupted.
            self._is_broken = True
            raise
        finally:
            if turn == int(self._turn):
                self.end_turn()

    def end_turn(self) -> None:
        """End the present turn: what is on its way is left out."""
        self._turn += 1

    def close(self) -> None:
        """End the processes."""
        self.end_turn()
        del self._loader
        give_up(_pids(self._running))

    def _split(
        self, batches: Iterable[list[int]], turn: int, size: int, keep_encoded: bool
    ) -> Iterator[_Request]:
        for rows in batches:
            each = max(_IMAGES, -(-len(rows) // (2 * self.processes))) if self.processes else len(rows)
            for first in range(0, len(rows), each):
                is_last = first + each >= len(rows)
                yield _Request(turn, rows[first : first + each], size, keep_encoded, is_last)


def _pids(processes: Iterable[BaseProcess]) -> set[int]:
    return {process.pid for process in processes if process.pid is not None}


def _as_it_is(part: Part) -> Part:
    return part


#: Use -> the loaders of the last trial.
_kept: dict[str, Loaders] = {}


def loaders_for(use: str, files: ImageFiles, processes: int) -> Loaders:
    """The loaders of the last trial for this use, or new ones if folder or number are others.

    Args:
        use: training and validation have loaders of their own.
        files: the images.
        processes: how many.
    """
    found = _kept.get(use)
    if found is None or not found.is_usable or found.files is not files or found.processes != processes:
        drop_loaders(use)
        found = _kept[use] = Loaders(files, processes)
    return found


def drop_loaders(use: str = "") -> None:
    """End the loaders of a use, or all."""
    for name in [use] if use else list(_kept):
        found = _kept.pop(name, None)
        if found is not None:
            found.close()
