"""Who may import whom, and which library has which one importer: the plan of the house, held to."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mpisweep"

#: Packages whose modules are rooms of their own.
PARTED = {"scheduling"}

#: Room -> rooms it may import from; a room is a module or a subpackage.
ALLOWED = {
    "records": set(),
    "processes": set(),
    "succession": set(),
    "space": {"records"},
    "catalogue": {"records"},
    "printed": set(),
    "commandline": {"records", "printed"},
    "outputs": set(),
    "spec": {"space", "catalogue", "commandline", "records"},
    "preflight": {"spec", "catalogue", "commandline", "processes"},
    "blocks": {"records"},
    "unsent": {"blocks"},
    "line": {"unsent"},
    "messages": {"blocks", "records"},
    "search": {"space", "spec", "blocks", "records"},
    "scheduling": set(),
    "scheduling.planner": {"records"},
    "numbering": {"search", "spec", "blocks", "records"},
    "scheduling.memory": {"search", "blocks", "records"},
    "scheduling.waiting": {"scheduling.planner"},
    "scheduling.ranking": set(),
    "scheduling.health": {"scheduling.ranking", "blocks", "records"},
    "scheduling.supply": {"messages"},
    "scheduling.teams": {"blocks", "records"},
    "scheduling.states": {"records"},
    "scheduling.slots": {"scheduling.ranking", "records"},
    "scheduling.timetable": {"scheduling.planner", "scheduling.ranking", "scheduling.slots", "records"},
    "scheduling.room": {"scheduling.ranking", "records"},
    "scheduling.handout": {
        *(f"scheduling.{below}" for below in (
            "health", "memory", "planner", "room", "slots", "states", "teams", "timetable", "waiting",
        )),
        "messages", "records",
    },
    "scheduling.scheduler": {
        *(f"scheduling.{below}" for below in (
            "handout", "health", "memory", "planner", "slots", "states", "supply", "teams", "waiting",
        )),
        "search", "messages", "blocks", "records",
    },
    "staging": set(),
    "forkserver": {"processes", "staging", "line"},
    "trialprocess": {"forkserver", "line", "messages", "blocks", "records", "processes"},
    "transport": {"messages", "processes"},
    "worker": {"trialprocess", "forkserver", "messages", "blocks", "records", "processes"},
    "gpus": set(),
    "devices": {"gpus", "records"},
    "layout": {"devices", "records", "spec", "transport"},
    "environment": set(),
    "results": {"spec", "catalogue", "blocks", "records", "processes"},
    "recorder": {"forkserver", "results"},
    "vigil": {"results"},
    "leading": {"opening", "messages"},
    "keeper": {"forkserver", "messages", "records"},
    "progress": {"records", "spec"},
    "batch": {"progress", "processes", "records", "spec"},
    "workloads": {"messages", "spec", "catalogue", "commandline", "outputs", "printed", "unsent", "blocks", "line", "records", "processes"},
    "opening": {
        "search", "numbering", "scheduling.planner", "scheduling.scheduler", "results", "recorder", "processes", "batch",
        "spec", "blocks", "records",
    },
    "splitting": {"opening", "numbering", "search", "results", "recorder", "processes", "spec", "records"},
    "master": {
        "scheduling.scheduler", "scheduling.teams", "numbering", "results", "recorder", "keeper", "vigil", "progress", "spec", "messages",
        "blocks", "records",
    },
    "rank": {
        "master", "leading", "recorder", "keeper", "vigil", "worker", "opening", "splitting", "staging", "transport", "trialprocess", "forkserver", "devices", "environment",
        "batch", "progress", "results", "spec", "messages", "records", "succession", "processes", "",
    },
    "rerun": {"scheduling.teams", "messages", "trialprocess", "forkserver", "devices", "outputs", "results", "blocks", "records"},
    "tables": {"rerun", "progress", "results", "spec", "catalogue", "records"},
    "forecast": {"scheduling.planner", "progress", "spec"},
    "export": {"tables", "results"},
    "watch": {"tables", "progress", "results", "spec", "records"},
    "page": {"figures", "tables", "results", "spec"},
    "scaling": {"tables", "results", "spec", "records"},
    "figures": {"scaling", "tables", "progress", "results", "records"},
    "cli": {
        "page",
        "rank", "opening", "numbering", "search", "devices", "batch", "progress", "tables", "results",
        "catalogue", "space", "spec", "transport", "records", "commandline", "outputs", "preflight",
        "layout", "rerun", "watch", "export", "forecast", "gpus", "processes", "",
    },
    "__main__": {"cli"},
    "": {"results", "workloads"},
}  # fmt: skip

#: Library -> files that may import it.
ONE_IMPORTER = {
    "mpi4py": {"transport.py"},
    "h5py": {"results/snapshot.py", "results/stored.py"},
    "matplotlib": {f"figures/{name}.py" for name in ("curves", "metric", "scaling", "style", "timeline", "total")},
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


@pytest.mark.parametrize("module", ["mpisweep", "mpisweep.cli", "mpisweep.rank", "mpisweep.master"])
def test_an_mpi_process_does_not_import_what_it_does_not_need(module: str) -> None:
    program = (
        f"import {module}, sys; "
        "print([n for n in ('torch', 'matplotlib', 'h5py', 'scipy', 'mpi4py') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
