"""The layers: imports between modules, the importers of heavy libraries, and size limits."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mpisweep"

#: Packages whose modules are layers of their own.
SPLIT_PACKAGES = {"scheduling", "scheduling.rules", "processes", "results"}

#: The scheduler's rules, in an order in which each imports only those before it.
RULES = (
    "stops", "retries", "reclaiming", "assigning", "keeping", "handout", "leases", "sharing", "learning",
    "pruning", "withholding", "blame", "several_ranks", "ends", "losses", "workers", "requests",
)  # fmt: skip

#: Unit -> units it may import from; a unit is a module or a subpackage.
ALLOWED = {
    "errors": set(),
    "dataclass": set(),
    "records": set(),
    "bounds": set(),
    "pareto": set(),
    "trend": set(),
    "plugins": set(),
    "curves": set(),
    "blocks": {"curves", "records"},
    "progress": {"records", "spec"},
    "messages": {"records"},
    "statistics": {"trend"},
    "staged": set(),
    "spec": {"plugins", "processes.kernel", "records"},
    "search": {"processes.one_core", "spec", "plugins", "trend", "blocks", "pareto", "records"},
    "scheduling": set(),
    "scheduling.events": {"blocks", "records"},
    "scheduling.decisions": {"blocks", "records"},
    "scheduling.ranking": set(),
    "scheduling.regression": {"records"},
    "scheduling.durations": {"scheduling.regression", "records"},
    "scheduling.trials": {"records"},
    "scheduling.refusals": {"records"},
    "scheduling.slots": {"scheduling.ranking", "records"},
    "scheduling.proposals": set(),
    "scheduling.memory": {"search", "blocks", "records"},
    "scheduling.queues": {"scheduling.durations"},
    "scheduling.footprints": {"search", "records"},
    "scheduling.sharing": set(),
    "scheduling.packing": {"scheduling.footprints", "scheduling.sharing", "records"},
    "scheduling.health": {"scheduling.ranking", "blocks", "records"},
    "scheduling.leasing": {"scheduling.decisions"},
    "scheduling.teams": {"blocks", "records"},
    "scheduling.timetable": {"scheduling.durations", "scheduling.ranking", "scheduling.slots", "records"},
    "scheduling.room": {"scheduling.ranking", "records"},
    "scheduling.ended": {"scheduling.trials", "blocks", "records"},
    "scheduling.core": {
        *(
            f"scheduling.{below}"
            for below in (
                "durations",
                "health",
                "leasing",
                "memory",
                "packing",
                "proposals",
                "queues",
                "room",
                "slots",
                "teams",
                "timetable",
                "trials",
            )
        ),
        "search",
        "records",
    },
    "scheduling.rules": set(),
    **{
        f"scheduling.rules.{name}": {
            *(
                f"scheduling.{below}"
                for below in (
                    "core",
                    "decisions",
                    "ended",
                    "events",
                    "leasing",
                    "packing",
                    "proposals",
                    "refusals",
                    "sharing",
                    "teams",
                    "timetable",
                    "trials",
                )
            ),
            *(f"scheduling.rules.{above}" for above in RULES[:place]),
            "search",
            "spec",
            "blocks",
            "records",
        }
        for place, name in enumerate(RULES)
    },
    "scheduling.scheduler": {
        *(
            f"scheduling.{below}"
            for below in ("core", "decisions", "durations", "events", "packing", "proposals", "trials")
        ),
        *(f"scheduling.rules.{name}" for name in RULES),
        "search",
        "records",
    },
    "scheduling.forecast": {"scheduling.durations", "progress", "spec"},
    "scheduling.simulation": {
        *(f"scheduling.{below}" for below in ("decisions", "durations", "events", "scheduler")),
        "blocks",
        "records",
    },
    "scheduling.pilot": {"scheduling.regression", "records"},
    "scheduling.drawing": {"scheduling.durations"},
    "scheduling.layout": {"scheduling.drawing"},
    "scheduling.plan": {
        *(f"scheduling.{below}" for below in ("drawing", "durations", "forecast", "layout", "simulation"))
    },
    "devices": {"records"},
    "processes": set(),
    "processes.kernel": set(),
    "processes.staging": set(),
    "processes.unsent": {"blocks"},
    "processes.channel": set(),
    "processes.shared_page": {"processes.unsent"},
    "processes.fork_loop": {"processes.kernel", "processes.staging", "processes.shared_page", "staged"},
    "processes.forkserver": {"processes.fork_loop", "processes.kernel", "processes.shared_page"},
    "processes.side_process": {"processes.forkserver"},
    "processes.ledger": {"messages", "blocks"},
    "processes.trial_events": {"records"},
    "processes.one_core": set(),
    "processes.child": {
        "processes.forkserver",
        "processes.channel",
        "processes.shared_page",
        "processes.ledger",
        "processes.trial_events",
        "messages",
        "records",
    },
    "processes.trialprocess": {
        "processes.child",
        "processes.forkserver",
        "processes.ledger",
        "processes.trial_events",
        "processes.kernel",
        "messages",
        "blocks",
        "records",
    },
    "workloads": {
        "staged",
        "devices",
        "processes.kernel",
        "processes.one_core",
        "processes.channel",
        "processes.shared_page",
        "processes.unsent",
        "spec",
        "messages",
        "blocks",
        "bounds",
        "records",
    },
    "results": set(),
    "results.syncing": set(),
    "results.columns": {"records"},
    "results.reports": {"blocks"},
    "results.holder": {"processes.kernel"},
    "results.device_time": {"results.state", "records"},
    "results.stopping": {"results.device_time", "results.state", "search", "spec", "records"},
    "results.journal": {"results.reports", "results.syncing", "blocks", "records"},
    "results.runs": {"results.journal", "results"},
    "results.claim": {"results.holder", "results.runs", "results.journal"},
    "results.state": {"results.columns", "results.reports", "blocks", "records"},
    "results.requested": {"results.state", "blocks", "records"},
    "results.suggested": {"results.state", "spec"},
    "results.members": {"results.state", "blocks"},
    "results.requests": {"results.syncing", "results", "records"},
    "results.replay": {
        "results.members",
        "results.requested",
        "results.suggested",
        "results.state",
        "results.journal",
        "results.columns",
        "results.reports",
        "blocks",
        "records",
    },
    "results.file": {
        "results.state",
        "results.columns",
        "results.reports",
        "results.syncing",
        "results",
        "spec",
        "records",
    },
    "results.merged": {
        *(f"results.{below}" for below in ("file", "replay", "state", "journal", "reports")),
        "results",
    },
    "results.compaction": {
        *(
            f"results.{below}"
            for below in (
                "merged",
                "claim",
                "file",
                "state",
                "journal",
                "reports",
                "syncing",
            )
        ),
        "results",
    },
    "results.shares": {
        *(
            f"results.{below}"
            for below in (
                "merged",
                "holder",
                "file",
                "state",
                "stopping",
                "journal",
                "reports",
                "syncing",
            )
        ),
        "results",
        "processes.kernel",
        "spec",
        "records",
    },
    "results.storing": {
        *(f"results.{below}" for below in ("compaction", "shares", "claim", "state", "journal", "reports")),
        "results",
        "processes.one_core",
    },
    "results.trial_table": {"results.state", "results.columns", "spec", "records"},
    "results.occupancy": {"results.trial_table", "records"},
    "results.tables": {
        "results.suggested",
        "results.state",
        "results.trial_table",
        "results.occupancy",
        "records",
    },
    "results.tradeoff": {
        "results.trial_table",
        "results.occupancy",
        "results",
        "spec",
        "pareto",
        "statistics",
        "records",
    },
    "results.budgets": {"results.state", "results", "spec", "blocks"},
    "results.criticality": set(),
    "results.batch_sizes": {
        "results.configurations",
        "results.trial_table",
        "results.criticality",
        "results",
        "spec",
        "statistics",
        "trend",
        "records",
    },
    "results.configurations": {"results.trial_table", "statistics", "records"},
    "results.summary": {
        *(f"results.{below}" for below in ("budgets", "configurations", "state", "tradeoff", "trial_table")),
        "spec",
        "records",
    },
    "results.dataset": {"results.columns", "results.trial_table", "spec"},
    "results.load": {
        *(
            f"results.{below}"
            for below in (
                "dataset",
                "summary",
                "batch_sizes",
                "configurations",
                "budgets",
                "device_time",
                "file",
                "journal",
                "occupancy",
                "reports",
                "shares",
                "state",
                "stopping",
                "suggested",
                "trial_table",
                "tables",
                "tradeoff",
            )
        ),
        "results",
        "spec",
        "blocks",
        "records",
    },
    "results.pairing": {
        "results.configurations",
        "results.load",
        "results",
        "statistics",
        "spec",
        "records",
    },
    "results.best": {"results.configurations", "results.load", "records"},
    "results.after": {
        *(f"results.{below}" for below in ("best", "load", "reports", "shares")),
        "results",
        "spec",
        "records",
    },
    "results.comparison": {"results.load", "blocks", "records"},
    "results.repair": {
        *(
            f"results.{below}"
            for below in (
                "compaction",
                "shares",
                "merged",
                "claim",
                "holder",
                "file",
                "state",
                "journal",
                "reports",
            )
        ),
        "results",
        "records",
    },
    "prior": {"results", "results.load", "spec", "records"},
    "batch": {"processes.kernel", "progress", "spec", "plugins", "records"},
    "master": {
        "scheduling.decisions",
        "scheduling.drawing",
        "scheduling.durations",
        "scheduling.regression",
        "scheduling.events",
        "scheduling.footprints",
        "scheduling.packing",
        "scheduling.pilot",
        "scheduling.plan",
        "scheduling.proposals",
        "scheduling.scheduler",
        "scheduling.sharing",
        "scheduling.teams",
        "processes.forkserver",
        "processes.side_process",
        "processes.kernel",
        *(
            f"results.{below}"
            for below in (
                "claim",
                "columns",
                "holder",
                "journal",
                "merged",
                "reports",
                "requested",
                "requests",
                "runs",
                "shares",
                "state",
                "stopping",
                "storing",
                "suggested",
            )
        ),
        "search",
        "results",
        "batch",
        "progress",
        "spec",
        "messages",
        "blocks",
        "pareto",
        "statistics",
        "records",
    },
    "rank": {
        "master",
        "results",
        "results.claim",
        "results.columns",
        "results.comparison",
        "results.load",
        "results.runs",
        "workloads",
        "batch",
        "devices",
        "scheduling.teams",
        "processes.forkserver",
        "processes.kernel",
        "processes.staging",
        "processes.child",
        "processes.trial_events",
        "processes.trialprocess",
        "processes.one_core",
        "progress",
        "staged",
        "spec",
        "messages",
        "blocks",
        "records",
        "",
    },
    "views": {
        *(
            f"results.{below}"
            for below in (
                "batch_sizes",
                "best",
                "budgets",
                "columns",
                "comparison",
                "configurations",
                "criticality",
                "holder",
                "load",
                "occupancy",
                "pairing",
                "reports",
                "requests",
                "shares",
                "state",
                "suggested",
                "tradeoff",
                "trial_table",
            )
        ),
        "results",
        "statistics",
        "progress",
        "spec",
        "records",
    },
    "drafting": {"plugins", "records", "spec"},
    "cli": {
        *(
            f"results.{below}"
            for below in ("after", "holder", "journal", "load", "pairing", "repair", "requests", "shares")
        ),
        "processes.one_core",
        "rank",
        "master",
        "views",
        "results",
        "batch",
        "devices",
        "drafting",
        "workloads",
        "prior",
        "scheduling.forecast",
        "scheduling.plan",
        "processes.kernel",
        "search",
        "plugins",
        "progress",
        "staged",
        "spec",
        "records",
        "",
    },
    "api": {"batch", "results", "results.after", "results.load", "progress", "processes.kernel", "spec"},
    "__main__": {"cli"},
    "": {"api", "results", "results.load", "workloads"},
}

#: Units that every layer may import.
GROUND = {"errors", "dataclass"}

#: Libraries that thousands of ranks would import for nothing: one rank reads and draws, and Optuna and the
#: workload have processes of their own.
NOT_IN_RANKS = ("h5py", "numpy", "rich", "torch", "optuna", "matplotlib", "scipy", "mpi4py")

#: Modules that not every rank needs, and whose import takes milliseconds.
SELDOM_IN_RANKS = {
    "ast", "dataclasses", "difflib", "hashlib", "importlib.abc", "importlib.metadata", "inspect", "secrets",
    "subprocess", "tempfile", "mpisweep.batch.registry", "mpisweep.results.claim",
    "mpisweep.results.journal.reader", "mpisweep.spec.grammar", "mpisweep.spec.printed",
}  # fmt: skip

#: Library -> files that may import it.
ONE_IMPORTER = {
    "curses": {"views/screen/terminal.py"},
    "pynvml": {"devices/nvml.py"},
    "mpi4py": {"rank/exchange.py", "rank/transport.py"},
    "h5py": {f"results/file/{name}.py" for name in ("reading", "salvage", "stored", "writing")},
    "matplotlib": {
        f"views/figures/{name}.py"
        for name in (
            "batch_sizes",
            "budgets",
            "certainty",
            "colouring",
            "curves",
            "front",
            "history",
            "importance",
            "inline",
            "maps",
            "metric",
            "parallel",
            "paired",
            "scaling",
            "states",
            "style",
            "ticks",
            "timeline",
            "total",
            "trend",
            "utilisation",
        )
    },
    "scipy": {
        "results/criticality.py",
        "search/racing.py",
        "search/samplers.py",
        "search/sobol.py",
        *(f"statistics/{name}.py" for name in ("best_set", "means", "noise", "trend")),
    },
    "optuna": {
        *(
            f"search/{name}.py"
            for name in ("judging", "past", "proposing", "pruners", "samplers", "suggesting", "thinning")
        ),
        "prior/optuna_storage.py",
        "views/exported/study.py",
        "workloads/objective.py",
        "statistics/importance.py",
    },
    "sklearn": {"workloads/datasets.py"},
    "torch": {
        *(
            f"workloads/resnet50/{name}.py"
            for name in (
                "allocator",
                "clock",
                "compiling",
                "experiment",
                "noise",
                "recipe",
                "stepping",
                "validation",
            )
        ),
        *(f"workloads/folder/{name}.py" for name in ("batches", "device", "loading", "reading")),
        "workloads/datasets.py",
        "workloads/matmul.py",
        "workloads/checkpoint.py",
        "workloads/ranks.py",
    },
    "torchvision": {
        "workloads/resnet50/recipe.py",
        "workloads/datasets.py",
        *(f"workloads/folder/{name}.py" for name in ("device", "scan")),
    },
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


def _unit(module: str) -> str:
    unit, *parts = module.removeprefix("mpisweep").lstrip(".").split(".")
    for part in parts:
        if unit not in SPLIT_PACKAGES:
            break
        unit += f".{part}"
    return unit


def _unit_of(file: Path) -> str:
    return _unit(".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip("."))


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below_it(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    unit = _unit_of(inside)
    used = {_unit(name) for name in _imports(path) if name == "mpisweep" or name.startswith("mpisweep.")}
    known = {_unit_of(p.relative_to(PACKAGE)) for p in FILES}
    # `from mpisweep import __version__` is an import of the package itself.
    used = {name if name in known else "" for name in used}
    if all(name != "mpisweep" for name in _imports(path)):
        used.discard("")
    assert used - {unit} - GROUND <= ALLOWED[unit]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_no_private_name_of_another(path: Path) -> None:
    private = {
        name for name in _imports(path) if name.startswith("mpisweep.") and re.search(r"\._(?!_)", name)
    }
    assert private == set()


def test_the_layers_have_no_cycle() -> None:
    layers = {unit: set(below) for unit, below in ALLOWED.items()}
    # The package itself exports lazily, by name.
    layers = {unit: below - {""} for unit, below in layers.items() if unit}
    while layers:
        leaves = {unit for unit, below in layers.items() if not below}
        assert leaves, f"these modules import each other in a cycle: {sorted(layers)}"
        layers = {unit: below - leaves for unit, below in layers.items() if unit not in leaves}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_the_scheduler_is_functions_over_the_core_without_state_of_its_own(name: str) -> None:
    tree = ast.parse((PACKAGE / "scheduling" / "rules" / f"{name}.py").read_text(encoding="utf-8"))
    for node in tree.body[1:]:
        match node:
            case ast.FunctionDef(args=ast.arguments(args=[ast.arg("core", ast.Name("Core")), *_])):
                if node.name.startswith("on_"):
                    assert node.returns is not None
                    assert ast.unparse(node.returns) == "list[Decision]", node.name
            case ast.Assign(targets=[ast.Name(target)], value=ast.Constant() | ast.List()):
                assert target.isupper() or target == "__all__", f"line {node.lineno}: {ast.unparse(node)}"
            case _:
                assert isinstance(node, ast.Import | ast.ImportFrom), (
                    f"line {node.lineno}: {ast.unparse(node)}"
                )
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree))


@pytest.mark.parametrize("library", ONE_IMPORTER)
def test_a_heavy_library_is_imported_only_where_allowed(library: str) -> None:
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


#: Longest file, class and function, in lines.
LINES_PER_FILE, LINES_PER_CLASS, LINES_PER_FUNCTION = 400, 250, 60


def test_no_file_class_or_function_is_longer_than_its_bound() -> None:
    over: dict[str, int] = {}
    for path in FILES:
        inside, text = str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > LINES_PER_FILE:
            over[inside] = lines
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.ClassDef():
                    bound = LINES_PER_CLASS
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    bound = LINES_PER_FUNCTION
                case _:
                    continue
            assert node.end_lineno is not None
            if (lines := node.end_lineno - node.lineno + 1) > bound:
                over[f"{inside}: {node.name}"] = lines
    assert over == {}


def loaded(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_rank_that_is_not_the_master_imports_neither_the_masters_part_nor_heavy_libraries():
    """What every rank imports costs each node its number of ranks times as much, before the first trial."""
    found = loaded("import mpisweep.cli.handed, mpisweep.cli.rank")
    assert not found & {"argparse", "mpisweep.cli.program", "mpisweep.cli.sweepargs"}
    assert not found & {*NOT_IN_RANKS, *SELDOM_IN_RANKS}
    assert "mpisweep.rank.worker" in found
    assert not {name for name in found if name.startswith(("mpisweep.scheduling", "mpisweep.search."))}
    assert not found & {f"mpisweep.master.{name}" for name in ("opening", "loop", "known", "joining")}


@pytest.mark.parametrize(
    "process",
    {
        "command": "import mpisweep; from mpisweep.cli.program import make_parser; make_parser('run')",
        "rank": "import mpisweep.cli.run, mpisweep.cli.rank, mpisweep.rank.main, mpisweep.master.loop",
        "fork server and trial process": "import mpisweep.processes.forkserver, mpisweep.workloads.serve",
        "replayed trial": "import mpisweep.rank.rerun",
    }.items(),
    ids=lambda process: process[0],
)
def test_only_a_sweep_that_stages_data_imports_what_copies_it(process: tuple[str, str]):
    found = loaded(process[1])
    assert not {name for name in found if name.startswith("mpisweep.staged.")}
    assert not found & {"tarfile", "concurrent.futures", "mpisweep.rank.staging"}


def test_a_command_imports_no_other_commands():
    found = loaded("from mpisweep.cli.program import make_parser; make_parser('run')")
    others = {name for name in found if name.startswith("mpisweep.cli.")}
    assert others == {
        f"mpisweep.cli.{name}"
        for name in (
            "after",
            "answers",
            "arguments",
            "handed",
            "parser",
            "pilots",
            "program",
            "run",
            "stageargs",
            "sweepargs",
        )
    }
