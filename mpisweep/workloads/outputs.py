"""The packed output of command lines: one file per slot instead of one per trial.

File systems of supercomputers limit the number of files.  So the output of each trial is appended, as one
gzip member, to the one file of its slot: ``zcat`` prints them all, each under a title line.  Readers skip a
member that was torn by a kill.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Output",
    "Tape",
    "append_output",
    "files_with_output",
    "first_lines",
    "output_file",
    "read_outputs",
]

#: Sizes of the kept beginning and end of an output, in bytes; the middle of a longer one is left out.
_HEAD_BYTES = 1 << 20
_TAIL_BYTES = 3 << 20
#: Bytes of an output in which its first line is looked for.
_LINE_BYTES = 4096
_MAGIC = b"\x1f\x8b\x08"
_TITLE = re.compile(rb"==== trial (\d+), attempt (\d+): (.*) ====\n")


class Output(NamedTuple):
    """The output of one attempt, standard output and standard error in order."""

    number: int
    attempt: int
    how: str
    text: str


class Tape:
    """Output as it is read; keeps the beginning and the end, whatever the length."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Append bytes."""
        room = _HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        if len(self._tail) > 2 * _TAIL_BYTES:
            self._dropped += len(self._tail) - _TAIL_BYTES
            del self._tail[:-_TAIL_BYTES]

    def content(self) -> bytes:
        """The kept output."""
        if not self._dropped:
            return bytes(self._head + self._tail)
        gap = f"\n[mpisweep: {self._dropped:,} bytes are left out here]\n".encode()
        return bytes(self._head + gap + self._tail)

    def last_lines(self, count: int, width: int = 400) -> list[str]:
        """The last non-empty lines, each cut to `width` characters."""
        end = bytes((self._head + self._tail)[-16384:]).decode("utf-8", "replace")
        lines = [line.strip()[:width] for line in re.split(r"[\r\n]+", end)]
        return [line for line in lines if line][-count:]


def output_file(folder: Path, rank: int, slot: int) -> Path:
    """The file of a slot in the folder of logs."""
    return folder / f"output-{rank:04d}-{slot}.gz"


def append_output(path: Path, number: int, attempt: int, how: str, content: bytes) -> None:
    """Append one attempt's output.

    Raises:
        OSError: when the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"==== trial {number}, attempt {attempt}: {how} ====\n".encode()
    end = b"" if content.endswith(b"\n") or not content else b"\n"
    with path.open("ab", buffering=0) as file:
        import gzip

        file.write(gzip.compress(title + content + end, compresslevel=6))


def read_outputs(folder: Path, number: int) -> list[Output]:
    """The outputs of all attempts at a trial, in order."""
    found: list[Output] = []
    for path in sorted(folder.rglob("output-*.gz")):
        found += _of_trial(path, number)
    return sorted(found, key=lambda output: output.attempt)


def _of_trial(path: Path, number: int) -> Iterator[Output]:
    for member in _members(path.read_bytes()):
        title = _TITLE.match(member)
        if title and int(title[1]) == number:
            text = member[title.end() :].decode("utf-8", "replace")
            yield Output(number, int(title[2]), title[3].decode("utf-8", "replace"), text)


def first_lines(folder: Path, numbers: Collection[int]) -> dict[int, str]:
    """Trial -> first line of its output that is not empty; each file is read once."""
    found: dict[int, str] = {}
    for path in sorted(folder.rglob("output-*.gz")):
        for member in _members(path.read_bytes()):
            title = _TITLE.match(member)
            if title and int(title[1]) in numbers and int(title[1]) not in found:
                text = member[title.end() : title.end() + _LINE_BYTES].decode("utf-8", "replace")
                found[int(title[1])] = next((line.strip() for line in text.splitlines() if line.strip()), "")
        if len(found) == len(numbers):
            break
    return found


def files_with_output(folder: Path, number: int) -> list[Path]:
    """The files that hold output of a trial."""
    return [path for path in sorted(folder.rglob("output-*.gz")) if next(_of_trial(path, number), None)]


def _members(data: bytes) -> Iterator[bytes]:
    start = data.find(_MAGIC)
    while start >= 0:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            content = unpacker.decompress(data[start:])
        except zlib.error:
            start = data.find(_MAGIC, start + 1)
            continue
        if unpacker.eof:
            yield content
            start = data.find(_MAGIC, len(data) - len(unpacker.unused_data))
        else:
            start = data.find(_MAGIC, start + 1)
