"""The picture of the processes of a sweep and of what goes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drawing.source import Source
from drawing.spoken import (
    FORKS,
    IMPORTS,
    LAUNCHER,
    LEASES,
    MASTER,
    PRUNER,
    RANK,
    SEARCH,
    SNAPSHOTS,
    TRIAL,
    WORKER,
    Spoken,
    spoken,
)
from drawing.svg import MONO_PX, Canvas, wrapped

__all__ = ["processes_picture"]

_WIDTH = 1180
_LINE = 15
#: Above a list of names.
_SPACE = 4
_PLAIN, _RANK, _OWN, _SIDE, _RUNS = "#f6f8fa", "#f3f9ff", "#ddf4ff", "#fff8c5", "#dafbe1"


class _Box(NamedTuple):
    """A process and what is said of it in its box."""

    title: str
    entry: str
    words: Sequence[str]
    named: Sequence[tuple[str, Sequence[str]]]


class _Picture:
    """The picture while it is drawn."""

    def __init__(self, said: Spoken) -> None:
        self.said = said
        self.canvas = Canvas(_WIDTH, "The processes of a sweep and what goes between them")

    def box(self, box: _Box, x: float, y: float, width: float, fill: str, height: float = 0) -> float:
        """Draw a process; returns where its box ends."""
        canvas = self.canvas
        height = max(height, self.height_of(box, width))
        canvas.box(x, y, width, height, fill)
        canvas.text(x + 12, y + 21, box.title, size=14, bold=True)
        entry = _broken(box.entry, width - 24)
        canvas.lines(x + 12, y + 38, entry, _LINE, mono=True)
        at = y + 40 + _LINE * len(entry)
        canvas.lines(x + 12, at, box.words, _LINE, pale=True)
        self.named(box.named, x + 12, at + _LINE * len(box.words), width - 24)
        return y + height

    def height_of(self, box: _Box, width: float) -> float:
        """How high a box must be."""
        lines = len(_broken(box.entry, width - 24)) + len(box.words)
        return 36 + _LINE * lines + self.height_of_names(box.named, width - 24)

    def height_of_names(self, named: Sequence[tuple[str, Sequence[str]]], width: float) -> float:
        """How high lists of names are."""
        return sum(_SPACE + _LINE * (1 + len(wrapped(names, width))) for _, names in named)

    def named(self, named: Sequence[tuple[str, Sequence[str]]], x: float, y: float, width: float) -> float:
        """Lists of names, each under what they are; returns the base line after them."""
        for what, names in named:
            y += _SPACE
            self.canvas.text(x, y, what, pale=True)
            lines = wrapped(names, width)
            self.canvas.lines(x, y + _LINE, lines, _LINE, mono=True)
            y += _LINE * (1 + len(lines))
        return y


def _broken(entry: str, width: float) -> list[str]:
    """What a process runs, in two lines where one is too narrow."""
    if not entry or len(entry) * 12 * MONO_PX <= width:
        return [entry] if entry else []
    module, _, name = entry.partition(":")
    return [f"{module}:", name]


def processes_picture(source: Source) -> str:
    """The processes as an SVG."""
    picture = _Picture(spoken(source))
    canvas = picture.canvas
    canvas.text(30, 28, "The processes of a sweep and what goes between them", size=16, bold=True)
    top = _draw_launcher(picture, 46)
    bottom = _draw_ranks(picture, top)
    bottom = _draw_children(picture, bottom)
    bottom = _draw_fork_server(picture, top, bottom)
    return canvas.svg(bottom + 16)


def _draw_launcher(picture: _Picture, y: float) -> float:
    """The launcher and mpirun; returns where the ranks begin."""
    said, canvas = picture.said, picture.canvas
    box = _Box(
        LAUNCHER,
        said.entries[LAUNCHER],
        [
            "starts the ranks, and restarts them after a loss; ends mpirun",
            "if that hangs; reads the results, changes none",
        ],
        (),
    )
    bottom = picture.box(box, 30, y, 430, _PLAIN)
    mpirun = _Box(
        "mpirun", "", ["or srun; starts one process per rank,", "on the nodes of the allocation"], ()
    )
    picture.box(mpirun, 640, y, 330, _PLAIN, bottom - y)
    canvas.arrow([(460, y + 44), (640, y + 44)])
    canvas.text(550, y + 36, "starts", pale=True, anchor="middle")
    down = [("in the environment of every rank", said.variables)]
    end = picture.named(down, 664, bottom + 24, 310)
    picture.named([("on standard error and output", said.output)], 64, bottom + 24, 310)
    canvas.arrow([(650, bottom), (650, end + 2)])
    canvas.arrow([(50, end + 2), (50, bottom)])
    return end + 2


def _draw_ranks(picture: _Picture, y: float) -> float:
    """A rank with a master and one with a worker; returns where the boxes of the two end."""
    said, canvas = picture.said, picture.canvas
    master = _Box(
        MASTER,
        said.entries[MASTER],
        [
            "on one rank at a time: rank 0, or the lowest living rank;",
            "passes events to the scheduler and carries its decisions out:",
            "a record to the journal first, then a message",
        ],
        (("threads", said.threads), ("changes", said.changes[MASTER])),
    )
    worker = _Box(
        WORKER,
        said.entries[WORKER],
        [
            "on every rank; on rank 0 if a device",
            "would be idle otherwise;",
            "keeps every result until the master",
            "acknowledges it; ends trials that",
            "exceed their time",
        ],
        (),
    )
    lists = (
        ("MPI: worker to master", said.to_master, "left"),
        ("MPI: master to worker", said.to_worker, "right"),
        ("MPI: between all ranks", said.between_ranks, "both"),
    )
    height = 20 + sum(30 + _LINE * len(wrapped(names, 200)) for _, names, _ in lists)
    canvas.box(20, y, 1140, height + 50, _RANK, dashed=True)
    canvas.text(34, y + 21, RANK, size=14, bold=True)
    canvas.text(126, y + 21, said.entries[RANK], mono=True)
    top = y + 34
    picture.box(master, 40, top, 600, _OWN, height)
    picture.box(worker, 872, top, 268, _OWN, height)
    at = top + 20
    for what, names, heading in lists:
        canvas.text(655, at, what, pale=True)
        ends = [(870, at + 9), (642, at + 9)]
        canvas.arrow(ends if heading == "left" else ends[::-1], both=heading == "both")
        lines = wrapped(names, 205)
        canvas.lines(655, at + 25, lines, _LINE, mono=True)
        at += 30 + _LINE * len(lines)
    return top + height


def _draw_children(picture: _Picture, y: float) -> float:
    """What the fork server starts, each under whom it works for; returns where the boxes end."""
    said, canvas = picture.said, picture.canvas
    columns = (
        (
            20, 206, SNAPSHOTS, _SIDE, "reads and writes HDF5",
            (("lines of JSON ask", said.snapshot_asks), ("and are answered with", said.snapshot_answers)),
        ),
        (
            236, 288, LEASES, _SIDE, "for a sweep of several jobs",
            (("lines of JSON ask", said.lease_asks), ("and are told", said.lease_tells)),
        ),
        (
            534, 200, SEARCH, _SIDE, "for a search that learns",
            (("lines of JSON ask", said.search_asks), ("and are answered with", said.search_answers)),
        ),
        (
            744, 186, PRUNER, _SIDE, "ends hopeless trials",
            (("lines of JSON ask", said.prune_asks), ("and are answered with", said.prune_answers)),
        ),
        (
            940, 220, TRIAL, _RUNS, "one per slot; owns its device",
            (
                ("frames to it", said.frames_there),
                ("frames from it", said.frames_back),
                ("both see a page of memory", said.page),
            ),
        ),
    )  # fmt: skip
    start = y + 44
    top = start + max(picture.height_of_names(named, width - 56) for _, width, _, _, _, named in columns)
    # It ends before the search begins, and so has no box.
    more = {SEARCH: ["before it, to import trials:", *_broken(said.entries[IMPORTS], 220)]}
    boxes = [
        _Box(
            title,
            said.entries[title],
            [what, *more.get(title, ())],
            [("changes", said.changes.get(title, ["nothing"]))],
        )
        for _, _, title, _, what, _ in columns
    ]
    height = max(picture.height_of(box, column[1]) for box, column in zip(boxes, columns, strict=True))
    for box, (x, width, title, fill, _, named) in zip(boxes, columns, strict=True):
        # The pruner's box is further right than the master's.
        upper = [(626, y), (626, y + 26), (x + 40, y + 26)] if title == PRUNER else [(x + 40, y)]
        canvas.arrow([*upper, (x + 40, top)], both=True)
        picture.named(named, x + 52, start, width - 56)
        picture.box(box, x, top, width, fill, height)
    return top + height


def _draw_fork_server(picture: _Picture, ranks_top: float, y: float) -> float:
    """The fork server below all that it starts; returns where its box ends."""
    said, canvas = picture.said, picture.canvas
    box = _Box(
        FORKS,
        said.entries[FORKS],
        ["one per rank, forked before MPI is initialised; ends its children when the rank dies"],
        (("asked by the rank to", said.requests), ("and tells it", said.notices)),
    )
    top = y + 46
    bottom = picture.box(box, 30, top, 1120, _PLAIN)
    for x in (123, 380, 634, 837, 1050):
        canvas.arrow([(x, top), (x, y)])
        canvas.text(x + 8, top - 18, "forks", pale=True)
    middle = (top + bottom) / 2
    canvas.arrow([(1160, ranks_top + 60), (1171, ranks_top + 60), (1171, middle), (1150, middle)], both=True)
    return bottom
