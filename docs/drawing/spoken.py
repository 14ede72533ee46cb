"""The processes of a sweep: the names of all that goes between them, and the files that each changes."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from drawing.source import Source, calls_in, word_of

__all__ = [
    "FORKS", "LAUNCHER", "LEASES", "MASTER", "PRUNER", "RANK", "SEARCH", "SNAPSHOTS", "TRIAL", "WORKER",
    "Spoken", "files_table", "spoken",
]  # fmt: skip


class Writer(NamedTuple):
    """A process that changes the results file, or one of the places beside it.

    `room` is the room or module where its path is made, by a call of `function`; else the picture is refused.
    """

    process: str
    function: str
    room: str


LAUNCHER, RANK, MASTER, WORKER = "launcher", "MPI ranks", "master", "worker"
FORKS, TRIAL, SNAPSHOTS, LEASES = "fork server", "trial process", "snapshot process", "lease agent"
SEARCH, IMPORTS, PRUNER = "search process", "import process", "pruner process"
STOP, REPAIR = "`mpisweep stop`", "`mpisweep repair`"
REQUESTS = "`mpisweep retry`, `skip`, `first` and `add`"

#: The functions that name a place, or write or move the results file, and who changes something by them.
WRITERS = (
    Writer(MASTER, "journal_folder", "master"),
    Writer(MASTER, "move_aside", "master"),
    Writer(SNAPSHOTS, "journal_folder", "results.compaction"),
    Writer(SNAPSHOTS, "write_file", "results.compaction"),
    Writer(LEASES, "write_whole", "results.shares.lease_agent"),
    Writer(MASTER, "shares_folder", "master"),
    Writer(LEASES, "shares_folder", "results.shares.lease_agent"),
    Writer(SEARCH, "shares_folder", "master.shared_search"),
    Writer(SNAPSHOTS, "shares_folder", "results.shares.merging"),
    Writer(SNAPSHOTS, "damaged_folder", "results.compaction"),
    Writer(LEASES, "damaged_folder", "results.shares.lease_agent"),
    Writer(TRIAL, "trials_folder", "rank"),
    Writer(SNAPSHOTS, "trials_folder", "rank"),
    Writer(TRIAL, "logs_folder", "rank"),
    Writer(MASTER, "stop_file", "rank"),
    Writer(LEASES, "stop_file", "results.shares.lease_agent"),
    Writer(STOP, "stop_file", "cli.stop"),
    Writer(REQUESTS, "requests_folder", "results.requests"),
    Writer(MASTER, "requests_folder", "results.requests"),
    *(
        Writer(REPAIR, function, "results.repair")
        for function in ("close_with", "journal_folder", "shares_folder", "damaged_folder")
    ),
)
#: Functions that write the results file itself, or move it.
_WHOLE = ("write_file", "write_whole", "close_with", "move_aside")
#: Module that has a process started -> what the picture calls that process.
_STARTERS = {
    "processes.child": TRIAL,
    "master.snapshotter": SNAPSHOTS,
    "master.lease_client": LEASES,
    "master.search_client": SEARCH,
    "master.importing": IMPORTS,
    "master.prune_client": PRUNER,
}
#: Process -> module and name of its code, where no other process names that when it starts it.
_CODE = {
    LAUNCHER: ("batch.launch", "launch"),
    RANK: ("rank.main", "run_rank"),
    MASTER: ("master.loop", "Master"),
    WORKER: ("rank.worker", "Worker"),
    FORKS: ("processes.fork_loop", "run_fork_server"),
}


@dataclass
class Spoken:
    """Every name that goes between processes, as the code has it."""

    #: Process -> what it runs, as ``module:name``.
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
    search_asks: list[str]
    search_answers: list[str]
    prune_asks: list[str]
    prune_answers: list[str]
    variables: list[str]
    threads: list[str]
    output: list[str]
    #: Process -> the places that it changes.
    changes: dict[str, list[str]] = field(default_factory=dict)


def spoken(source: Source) -> Spoken:
    """Read all of it.

    Raises:
        LookupError: when the code has none of a kind, since it is written in another way then.
    """
    to_master = source.union("messages", "ToMaster")
    to_worker = source.union("messages", "ToWorker")
    unions = {"ToMaster", "ToWorker", *to_master, *to_worker}
    found = Spoken(
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
        lease_tells=_keywords(source, "results.shares.lease_agent", "_send"),
        search_asks=source.keys_of_dicts("master.search_client", "ask"),
        search_answers=_subscripts(source, "search.serving", "answer"),
        prune_asks=source.keys_of_dicts("master.prune_client", "ask"),
        prune_answers=_yielded(source, "master.judge"),
        variables=_variables(source),
        threads=_threads(source),
        output=[word for name in ("ALIVE", "JsonProgress") if (word := source.defined("progress", name))],
        changes={process: _changed_by(source, process) for process, _, _ in WRITERS},
    )
    if none := [kind.name for kind in fields(found) if not getattr(found, kind.name)]:
        raise LookupError(f"the code seems to have no {', '.join(none)}")
    return found


def _entries(source: Source) -> dict[str, str]:
    top = source.package.name
    found = {
        process: f"{top}.{module}:{source.defined(module, name)}" for process, (module, name) in _CODE.items()
    }
    for module, tree in source.trees.items():
        if "spawn(" not in source.texts[module] and "SideProcess(" not in source.texts[module]:
            continue
        for call in [*calls_in(tree, "spawn"), *calls_in(tree, "SideProcess")]:
            for argument in call.args:
                if isinstance(argument, ast.Constant) and ":" in str(argument.value):
                    assert module in _STARTERS, f"{module} starts a process that the picture does not have"
                    # The first one stands for those of one kind.
                    found.setdefault(_STARTERS[module], argument.value)
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


def _subscripts(source: Source, module: str, name: str) -> list[str]:
    """The constant keys under which a module stores in a dictionary of this name."""
    found = [
        target.slice.value
        for node in ast.walk(source.trees[module])
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Constant)
        and word_of(target.value) == name
    ]
    return list(dict.fromkeys(found))


def _yielded(source: Source, module: str) -> list[str]:
    """The constant keys of the dictionaries that a module yields."""
    found = [
        key.value
        for node in ast.walk(source.trees[module])
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    ]
    return list(dict.fromkeys(found))


def _slots(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    for part in node.body:
        if isinstance(part, ast.Assign) and word_of(part.targets[0]) == "__slots__":
            return list(ast.literal_eval(part.value))
    raise LookupError(f"{node.name} has no __slots__")


def _variables(source: Source) -> list[str]:
    """The environment variables that a rank reads."""
    return [
        node.value.value
        for node in source.trees["batch.variables"].body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and word_of(node.targets[0]) in source.texts["cli.rank"]
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
    if not any(any(calls_in(source.trees[module], writer.function)) for module in source.below(writer.room)):
        raise LookupError(f"{writer.room} does not call {writer.function} any more: who changes that?")


def _changed_by(source: Source, process: str) -> list[str]:
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
    """The results file and the places beside it, what each is for, and who changes it."""
    rows = ["| file or folder | what it is | changed by |", "|---|---|---|"]
    writers = [writer.process for writer in WRITERS if writer.function in _WHOLE]
    rows.append(f"| `NAME.h5` | The results file. | {', '.join(writers)} |")
    for function, (place, why) in _places(source).items():
        writers = [writer.process for writer in WRITERS if writer.function == function]
        if not writers:
            raise LookupError(f"nobody is known to change {place}")
        rows.append(f"| `{place}` | {_plain(why)} | {', '.join(writers)} |")
    return "\n".join(rows)


def _plain(text: str) -> str:
    """A docstring's first sentence, without its marks for cross references."""
    return text.partition(", see :")[0].rstrip(".") + "."
