"""Who may import whom, and which library has which one importer: the plan of the house, held to."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mpisweep"

#: Packages whose modules are rooms of their own.
PARTED = {"scheduling", "processes"}

#: Room -> rooms it may import from; a room is a module or a subpackage.
ALLOWED = {
    "records": set(),
    "bounds": set(),
    "plugins": set(),
    "blocks": {"records"},
    "progress": {"records", "spec"},
    "messages": {"blocks", "records"},
    "spec": {"plugins", "processes.kernel", "records"},
    "search": {"spec", "plugins", "blocks", "records"},
    "scheduling": set(),
    "scheduling.ranking": set(),
    "scheduling.durations": {"records"},
    "scheduling.trials": {"records"},
    "scheduling.slots": {"scheduling.ranking", "records"},
    "scheduling.memory": {"search", "blocks", "records"},
    "scheduling.queues": {"scheduling.durations"},
    "scheduling.health": {"scheduling.ranking", "blocks", "records"},
    "scheduling.leasing": {"messages"},
    "scheduling.teams": {"blocks", "records"},
    "scheduling.timetable": {"scheduling.durations", "scheduling.ranking", "scheduling.slots", "records"},
    "scheduling.room": {"scheduling.ranking", "records"},
    "scheduling.handout": {
        *(f"scheduling.{below}" for below in (
            "health", "memory", "durations", "room", "slots", "trials", "teams", "timetable", "queues",
        )),
        "messages", "records",
    },
    "scheduling.scheduler": {
        *(f"scheduling.{below}" for below in (
            "handout", "health", "memory", "durations", "slots", "trials", "leasing", "teams", "queues",
        )),
        "search", "messages", "blocks", "records",
    },
    "scheduling.forecast": {"scheduling.durations", "progress", "spec"},
    "devices": {"records"},
    "processes": set(),
    "processes.kernel": set(),
    "processes.staging": set(),
    "processes.unsent": {"blocks"},
    "processes.line": {"processes.unsent"},
    "processes.forkserver": {"processes.kernel", "processes.staging", "processes.line"},
    "processes.side_process": {"processes.forkserver"},
    "processes.trialprocess": {"processes.forkserver", "processes.line", "processes.kernel", "messages", "blocks", "bounds", "records"},
    "workloads": {"processes.kernel", "processes.line", "processes.unsent", "spec", "messages", "blocks", "bounds", "records"},
    "results": {"processes.kernel", "spec", "blocks", "records"},
    "batch": {"processes.kernel", "progress", "spec", "plugins", "records"},
    "master": {
        "scheduling.durations", "scheduling.scheduler", "scheduling.teams", "processes.forkserver", "processes.side_process", "processes.kernel",
        "search", "results", "batch", "progress", "spec", "messages", "blocks", "records",
    },
    "rank": {
        "master", "results", "workloads", "batch", "devices", "scheduling.teams",
        "processes.forkserver", "processes.kernel", "processes.staging", "processes.trialprocess",
        "progress", "spec", "messages", "blocks", "records", "",
    },
    "views": {"rank", "results", "progress", "spec", "records"},
    "cli": {
        "rank", "master", "views", "results", "batch", "devices", "workloads", "scheduling.forecast", "processes.kernel",
        "search", "progress", "spec", "plugins", "records", "",
    },
    "__main__": {"cli"},
    "": {"results", "workloads"},
}  # fmt: skip

#: Library -> files that may import it.
ONE_IMPORTER = {
    "mpi4py": {"rank/transport.py"},
    "h5py": {"results/snapshot.py", "results/stored.py"},
    "matplotlib": {f"views/figures/{name}.py" for name in ("curves", "metric", "scaling", "style", "timeline", "total")},
    "scipy": {"search/sobol.py"},
    "sklearn": {"workloads/datasets.py"},
    "torch": {
        "workloads/resnet50.py", "workloads/datasets.py", "workloads/checkpoint.py", "workloads/ranks.py",
    },
    "torchvision": {"workloads/resnet50.py", "workloads/datasets.py"},
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room(module: str) -> str:
    parts = module.removeprefix("mpisweep").lstrip(".").split(".")
    return ".".join(parts[: 2 if parts[0] in PARTED else 1])


def _room_of(file: Path) -> str:
    return _room(".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip("."))


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_below_it(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    room = _room_of(inside)
    used = {_room(name) for name in _imports(path) if name == "mpisweep" or name.startswith("mpisweep.")}
    known = {_room_of(p.relative_to(PACKAGE)) for p in FILES}
    # `from mpisweep import __version__` is an import of the package itself.
    used = {name if name in known else "" for name in used}
    if all(name != "mpisweep" for name in _imports(path)):
        used.discard("")
    assert used - {room} <= ALLOWED[room]


def test_the_plan_has_no_circle() -> None:
    plan = {room: set(below) for room, below in ALLOWED.items()}
    # The package itself exports lazily, by name.
    plan = {room: below - {""} for room, below in plan.items() if room}
    while plan:
        leaves = {room for room, below in plan.items() if not below}
        assert leaves, f"these rooms import each other in a circle: {sorted(plan)}"
        plan = {room: below - leaves for room, below in plan.items() if room not in leaves}


@pytest.mark.parametrize("library", ONE_IMPORTER)
def test_a_heavy_library_has_its_one_importer(library: str) -> None:
    importers = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name == library or name.startswith(library + ".") for name in _imports(path))
    }
    assert importers == ONE_IMPORTER[library]


@pytest.mark.parametrize("module", ["mpisweep", "mpisweep.cli", "mpisweep.rank.main", "mpisweep.master.loop"])
def test_an_mpi_process_does_not_import_what_it_does_not_need(module: str) -> None:
    program = (
        f"import {module}, sys; "
        "print([n for n in ('torch', 'matplotlib', 'h5py', 'scipy', 'mpi4py') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
