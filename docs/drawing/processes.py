"""The picture of the processes of a sweep, what goes between them, and the table of files that each writes."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from drawing.source import Source, calls_in, word_of
from drawing.svg import Canvas, wrapped

__all__ = ["Spoken", "files_table", "processes_picture", "spoken"]


class Writer(NamedTuple):
    """A process that writes to one of the places beside the results file.

    `module` is where its path is made, by a call of `function`; the picture is refused when it is not.
    """

    process: str
    function: str
    module: str


LAUNCHER, MASTER, TRIAL = "launcher", "master", "trial process"
SNAPSHOTS, LEASES = "snapshot process", "lease agent"
COMMANDS = "commands"

#: The functions of mpisweep.results that name a place, and who writes there.
WRITERS = (
    Writer(MASTER, "journal_folder", "master.opening"),
    Writer(SNAPSHOTS, "journal_folder", "results.compaction"),
    Writer(SNAPSHOTS, "write_file", "results.compaction"),
    Writer(LEASES, "write_whole", "results.shares.lease_agent"),
    Writer(MASTER, "shares_folder", "master.joining"),
    Writer(LEASES, "shares_folder", "results.shares.lease_agent"),
    Writer(SNAPSHOTS, "damaged_folder", "results.compaction"),
    Writer(LEASES, "damaged_folder", "results.shares.lease_agent"),
    Writer(TRIAL, "trials_folder", "rank.main"),
    Writer(TRIAL, "logs_folder", "rank.main"),
    Writer(COMMANDS, "stop_file", "cli.stop"),
    Writer(MASTER, "stop_file", "rank.office"),
)
#: Functions that write the results file itself.
_WHOLE = ("write_file", "write_whole")
#: Module that has a process started -> what the picture calls that process.
_STARTERS = {"processes.child": TRIAL, "master.snapshotter": SNAPSHOTS, "master.lease_client": LEASES}


@dataclass
class Spoken:
    """Every name that goes between processes, as the code has it."""

    #: Process -> the function that it runs, as its starter has it.
    entries: dict[str, str]
    to_master: list[str]
    to_worker: list[str]
    between_ranks: list[str]
    frames_there: list[str]
    frames_back: list[str]
    page: list[str]
    requests: list[str]
    notices: list[str]
    snapshot_asks: list[str]
    snapshot_answers: list[str]
    lease_asks: list[str]
    lease_tells: list[str]
    variables: list[str]
    threads: list[str]
    #: Process -> what it writes.
    writes: dict[str, list[str]] = field(default_factory=dict)


def spoken(source: Source) -> Spoken:
    """Read all of it."""
    to_master = source.union("messages", "ToMaster")
    to_worker = source.union("messages", "ToWorker")
    unions = {"ToMaster", "ToWorker", *to_master, *to_worker}
    return Spoken(
        entries=_entries(source),
        to_master=to_master,
        to_worker=to_worker,
        between_ranks=[name for name in source.union("messages", "Message") if name not in unions],
        frames_there=_frames(source, "processes"),
        frames_back=_frames(source, "workloads"),
        page=_page_fields(source),
        requests=_keywords(source, "processes.forkserver", "_request"),
        notices=source.union("processes.fork_loop", "Notice"),
        snapshot_asks=source.keys_of_dicts("master.snapshotter", "ask"),
        snapshot_answers=_slots(source.definition("master.snapshotter", "Answer")),
        lease_asks=source.keys_of_dicts("master.lease_client", "ask"),
        lease_tells=_keywords(source, "results.shares.lease_agent", "_tell"),
        variables=_variables(source),
        threads=_threads(source),
        writes={process: _written_by(source, process) for process, _, _ in WRITERS},
    )


def _entries(source: Source) -> dict[str, str]:
    found: dict[str, str] = {}
    for module, tree in source.trees.items():
        for call in [*calls_in(tree, "spawn"), *calls_in(tree, "SideProcess")]:
            for argument in call.args:
                if isinstance(argument, ast.Constant) and ":" in str(argument.value):
                    assert module in _STARTERS, f"{module} starts a process that the picture does not have"
                    found[_STARTERS[module]] = argument.value
    return found


def _frames(source: Source, room: str) -> list[str]:
    """The kinds of frames that the modules of a room send."""
    sent = {
        word_of(call.args[0])
        for module in source.below(room)
        for call in calls_in(source.trees[module], "send")
        if call.args
    }
    return [kind for kind in source.numbered("processes.channel") if kind in sent]


def _page_fields(source: Source) -> list[str]:
    for node in source.definition("processes.shared_page", "Page").body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            return [word_of(name).strip("_").lower() for name in node.targets[0].elts]
    raise LookupError("the shared page has no fields")


def _keywords(source: Source, module: str, function: str) -> list[str]:
    """The first keyword of each call of a function in its module, which says what is asked or told."""
    calls = calls_in(source.trees[module], function)
    return list(dict.fromkeys(call.keywords[0].arg or "" for call in calls if call.keywords))


def _slots(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    for part in node.body:
        if isinstance(part, ast.Assign) and word_of(part.targets[0]) == "__slots__":
            return list(ast.literal_eval(part.value))
    raise LookupError(f"{node.name} has no __slots__")


def _variables(source: Source) -> list[str]:
    return [
        node.value.value
        for node in source.trees["batch.launch"].body
        if isinstance(node, ast.Assign)
        and word_of(node.targets[0]).endswith("_VARIABLE")
        and isinstance(node.value, ast.Constant)
    ]


def _threads(source: Source) -> list[str]:
    """The threads of a master, by their names."""
    return [
        keyword.value.value
        for module in [*source.below("master"), *source.below("results.journal")]
        for call in calls_in(source.trees[module], "Thread")
        for keyword in call.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    ]


# ------------------------------------------------------------------------------------- files


def _places(source: Source) -> dict[str, tuple[str, str]]:
    """Function of mpisweep.results that names a place -> the place, and what it is for."""
    found: dict[str, tuple[str, str]] = {}
    for node in source.trees["results"].body:
        if isinstance(node, ast.FunctionDef):
            for call in calls_in(node, "with_name"):
                ending = ast.literal_eval(call.args[0].right)  # type: ignore[attr-defined]
                slash = "" if node.name.endswith("_file") else "/"
                why = " ".join((ast.get_docstring(node) or "").split())
                found[node.name] = (f"NAME.h5{ending}{slash}", why)
    return found


def _checked(source: Source, writer: Writer) -> None:
    if not any(calls_in(source.trees[writer.module], writer.function)):
        raise LookupError(f"{writer.module} does not call {writer.function} any more: who writes there?")


def _written_by(source: Source, process: str) -> list[str]:
    places = _places(source)
    for writer in WRITERS:
        _checked(source, writer)
    return list(
        dict.fromkeys(
            "NAME.h5" if writer.function in _WHOLE else places[writer.function][0]
            for writer in WRITERS
            if writer.process == process
        )
    )


def files_table(source: Source) -> str:
    """The places beside a results file, what each is for, and who writes there."""
    rows = ["| file or folder | what it holds | written by |", "|---|---|---|"]
    writers = [writer.process for writer in WRITERS if writer.function in _WHOLE]
    rows.append(f"| `NAME.h5` | The results file. | {', '.join(writers)} |")
    for function, (place, why) in _places(source).items():
        writers = [writer.process for writer in WRITERS if writer.function == function]
        if not writers:
            raise LookupError(f"nobody is known to write {place}")
        rows.append(f"| `{place}` | {_plain(why)} | {', '.join(writers)} |")
    return "\n".join(rows)


def _plain(text: str) -> str:
    """A docstring's first sentence, without its marks for cross references."""
    return text.partition(", see :")[0].rstrip(".") + "."


# ------------------------------------------------------------------------------------- the picture

_WIDTH = 1000
_LINE = 15
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
        if box.entry:
            canvas.text(x + 12, y + 38, box.entry, mono=True)
        at = y + (56 if box.entry else 40)
        canvas.lines(x + 12, at, box.words, _LINE, pale=True)
        self.named(box.named, x + 12, at + _LINE * len(box.words), width - 24)
        return y + height

    def height_of(self, box: _Box, width: float) -> float:
        """How high a box must be."""
        lines = len(box.words) + sum(1 + len(wrapped(names, width - 24)) for _, names in box.named)
        return (50 if box.entry else 34) + _LINE * lines

    def named(self, named: Sequence[tuple[str, Sequence[str]]], x: float, y: float, width: float) -> float:
        """Lists of names, each under what they are; returns the base line after them."""
        for what, names in named:
            self.canvas.text(x, y, what, pale=True)
            lines = wrapped(names, width)
            self.canvas.lines(x, y + _LINE, lines, _LINE, mono=True)
            y += _LINE * (1 + len(lines))
        return y


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
        "mpisweep.batch.launch:launch",
        ["starts the ranks, and starts them again after a loss;", "reads the results, writes none of them"],
        (),
    )
    bottom = picture.box(box, 30, y, 430, _PLAIN)
    mpirun = _Box("mpirun", "", ["or srun; starts one process per rank,", "on all nodes of the allocation"], ())
    picture.box(mpirun, 640, y, 330, _PLAIN, bottom - y)
    canvas.arrow([(460, y + 44), (640, y + 44)])
    canvas.text(550, y + 36, "starts", pale=True, anchor="middle")
    down = [("in the environment of every rank", said.variables)]
    end = picture.named(down, 664, bottom + 24, 310)
    picture.named([("on standard error and output", ["ALIVE", "JsonProgress"])], 64, bottom + 24, 310)
    canvas.arrow([(650, bottom), (650, end + 2)])
    canvas.arrow([(50, end + 2), (50, bottom)])
    return end + 2


def _draw_ranks(picture: _Picture, y: float) -> float:
    """A rank with a master and one with a worker; returns where the boxes of the two end."""
    said, canvas = picture.said, picture.canvas
    master = _Box(
        MASTER,
        "mpisweep.master.loop:Master",
        ["on one rank at a time: first on rank 0, then on", "any other when that is lost"],
        (("threads", said.threads), ("writes", said.writes[MASTER])),
    )
    worker = _Box(
        "worker",
        "mpisweep.rank.worker:Worker",
        ["on every rank, on rank 0 if a device", "would be idle otherwise"],
        (),
    )
    lists = (
        ("MPI: worker to master", said.to_master, "left"),
        ("MPI: master to worker", said.to_worker, "right"),
        ("MPI: between all ranks", said.between_ranks, "both"),
    )
    height = 20 + sum(30 + _LINE * len(wrapped(names, 200)) for _, names, _ in lists)
    canvas.box(20, y, 960, height + 50, _RANK, dashed=True)
    canvas.text(34, y + 21, "MPI ranks", size=14, bold=True)
    canvas.text(112, y + 21, "mpisweep.rank.main:run_rank", mono=True)
    top = y + 34
    picture.box(master, 40, top, 420, _OWN, height)
    picture.box(worker, 690, top, 270, _OWN, height)
    at = top + 20
    for what, names, heading in lists:
        canvas.text(475, at, what, pale=True)
        ends = [(688, at + 9), (462, at + 9)]
        canvas.arrow(ends if heading == "left" else ends[::-1], both=heading == "both")
        lines = wrapped(names, 205)
        canvas.lines(475, at + 25, lines, _LINE, mono=True)
        at += 30 + _LINE * len(lines)
    return top + height


def _draw_children(picture: _Picture, y: float) -> float:
    """What the fork server starts, each under whom it works for; returns where the boxes end."""
    said, canvas = picture.said, picture.canvas
    columns = (
        (
            30, 260, SNAPSHOTS, _SIDE, "reads and writes the file",
            (("lines of JSON ask", said.snapshot_asks), ("and are answered with", said.snapshot_answers)),
        ),
        (
            310, 330, LEASES, _SIDE, "of a sweep split over several allocations",
            (("lines of JSON ask", said.lease_asks), ("and are told", said.lease_tells)),
        ),
        (
            660, 310, TRIAL, _RUNS, "one per slot; imports the workload, owns the device",
            (
                ("frames to it", said.frames_there),
                ("frames from it", said.frames_back),
                ("both see a page of memory", said.page),
            ),
        ),
    )  # fmt: skip
    start = y + 44
    heights = [
        sum(1 + len(wrapped(names, width - 56)) for _, names in named) for _, width, _, _, _, named in columns
    ]
    top = start + _LINE * max(heights) + 4
    boxes = [
        _Box(title, said.entries[title], [what], [("writes", said.writes[title])])
        for _, _, title, _, what, _ in columns
    ]
    height = max(picture.height_of(box, column[1]) for box, column in zip(boxes, columns, strict=True))
    for box, (x, width, _, fill, _, named) in zip(boxes, columns, strict=True):
        canvas.arrow([(x + 40, y), (x + 40, top)], both=True)
        picture.named(named, x + 52, start, width - 56)
        picture.box(box, x, top, width, fill, height)
    return top + height


def _draw_fork_server(picture: _Picture, ranks_top: float, y: float) -> float:
    """The fork server below all that it starts; returns where its box ends."""
    said, canvas = picture.said, picture.canvas
    box = _Box(
        "fork server",
        "mpisweep.processes.fork_loop:run_fork_server",
        ["one per rank, forked before MPI is initialised; ends its children when the rank has died"],
        (("asked by the rank to", said.requests), ("and tells it", said.notices)),
    )
    top = y + 46
    bottom = picture.box(box, 30, top, 940, _PLAIN)
    for x in (160, 475, 815):
        canvas.arrow([(x, top), (x, y)])
        canvas.text(x + 8, top - 18, "forks", pale=True)
    middle = (top + bottom) / 2
    canvas.arrow([(980, ranks_top + 60), (991, ranks_top + 60), (991, middle), (970, middle)], both=True)
    return bottom
