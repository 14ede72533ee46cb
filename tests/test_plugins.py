"""Packages that add workloads, searches, sites and batch systems by entry points, and the built-in ones."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import fastjsonschema
import h5py
import pytest

from mpisweep.batch.chain import Submitted, note
from mpisweep.plugins import BUILT_IN
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.keys import SEARCH_NAMES

ROOT = Path(__file__).parent.parent
#: The commands of the batch system in docs/plugins.md.
QUEUE = ROOT / "tests" / "standins" / "tiny"


def documented(module: str) -> str:
    """A module of the example package in docs/plugins.md."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"```python\n# my_package/{module}\n(.*?)```", text, re.DOTALL)
    return str(found)


TINY = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "tiny-plugin"
version = "1.5"

[project.entry-points."mpisweep.workloads"]
tiny = "tiny_plugin.described:TINY"

[project.entry-points."mpisweep.searches"]
downwards = "tiny_plugin.downwards:Downwards"

[project.entry-points."mpisweep.sites"]
tiny = "tiny_plugin.sites"

[project.entry-points."mpisweep.batch"]
tinyqueue = "tiny_plugin.tinyqueue:TINY_QUEUE"

[tool.setuptools]
packages = ["tiny_plugin"]
package-data = { tiny_plugin = ["sites/*.toml"] }
""",
    "tiny_plugin/__init__.py": "",
    "tiny_plugin/described.py": """
from mpisweep.spec.catalogue import Metric, Option, WorkloadDescription

TINY = WorkloadDescription(
    name="tiny",
    module="tiny_plugin.train",
    options=(
        Option("width", "integer", 4, "units of the layer", low=1),
        Option("bend", "choice", "relu", "of the layer", values=("relu", "tanh")),
    ),
    metrics=(Metric("loss", "what is lost", "nat"),),
    preload=("tiny_plugin.train",),
)
""",
    "tiny_plugin/train.py": """
def run(trial):
    return {"loss": 1 / trial.params["width"] + (trial.params["bend"] == "tanh")}
""",
    "tiny_plugin/downwards.py": """
from mpisweep.search import DistinctSampler


class Downwards(DistinctSampler):
    def proposals(self):
        count = self.space.size
        while True:
            yield from (self.space.point(index) for index in reversed(range(count)))
""",
    "tiny_plugin/sites/tinycluster.toml": 'title = "The tiny cluster"\nsystem = "slurm"\ngpus_per_node = 2\n',
    "tiny_plugin/tinyqueue.py": documented("tinyqueue.py"),
    "tiny_plugin/sites/tinyqueue.toml": (
        'title = "a Tiny Queue cluster"\n'
        'system = "tinyqueue"\n'
        "gpus_per_node = 0\n"
        "ranks_per_node = 1\n"
        "local_folders = []\n"
    ),
}

BROKEN = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "broken-plugin"
version = "0.3"

[project.entry-points."mpisweep.workloads"]
absent = "broken_plugin.described:ABSENT"
raising = "broken_plugin.raising:THING"
odd = "broken_plugin.odd:ODD"
misnamed = "broken_plugin.odd:MISNAMED"
unrunnable = "broken_plugin.odd:UNRUNNABLE"

[project.entry-points."mpisweep.searches"]
nowhere = "broken_plugin.nowhere:Search"
aimless = "broken_plugin.odd:ODD"
downwards = "broken_plugin.odd:ODD"

[project.entry-points."mpisweep.sites"]
broken = "broken_plugin.sites"

[tool.setuptools]
packages = ["broken_plugin"]
""",
    "broken_plugin/__init__.py": "",
    "broken_plugin/raising.py": "raise RuntimeError('the licence\\nhas run out')\n",
    "broken_plugin/odd.py": """
from mpisweep.spec.catalogue import Metric, WorkloadDescription

ODD = 3
MISNAMED = WorkloadDescription("other", "broken_plugin.run", (), (Metric("loss", ""),))
UNRUNNABLE = WorkloadDescription("unrunnable", "broken_plugin.no_such_module", (), (Metric("loss", ""),))
""",
}

SWEEP = """
name = "tiny"
workload = "tiny"
search = "downwards"
trials = 6

[parameters]
width = { from = 1, to = 9 }

[baseline]
width = 2
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def install(files: Mapping[str, str], source: Path, target: Path) -> None:
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--target",
            target,
            source,
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny package is installed."""
    folder = tmp_path_factory.mktemp("tiny")
    install(TINY, folder / "source", folder / "target")
    return folder / "target"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package whose plugins all fail to load."""
    folder = tmp_path_factory.mktemp("broken")
    install(BROKEN, folder / "source", folder / "target")
    return folder / "target"


@pytest.fixture
def run(folder: Path, environment: dict[str, str], mpisweep: Run) -> Run:
    """Run ``mpisweep ARGUMENTS`` with the packages in `folders`; ``ranks=N`` starts it with mpirun."""
    (folder / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    before = environment.get("PYTHONPATH")

    def started(
        *arguments: str, folders: list[Path], ranks: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        paths = [*map(str, folders), str(ROOT), *filter(None, [before])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        return mpisweep(*arguments, ranks=ranks)

    return started


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command prints when it refuses its input."""
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [None, 3])
def test_a_sweep_runs_with_the_workload_and_the_search_of_an_installed_package(folder, tiny, run: Run, ranks):
    workers = ["-n", "2"] if ranks is None else []
    done = run("run", "sweep.toml", "-o", "r.h5", *workers, folders=[tiny], ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    with h5py.File(folder / "r.h5") as file:
        # The six largest in descending order, then the baseline.
        assert list(file["trials/parameters/width"][()]) == [9, 8, 7, 6, 5, 4, 2]
        assert list(file["trials/metrics/loss"][()]) == [1 / width for width in (9, 8, 7, 6, 5, 4, 2)]
        assert file["trials/metrics/loss"].attrs["units"] == "nat"
        assert file["trials/metrics/loss"].attrs["description"] == "final value: what is lost"
        assert file.attrs["workload"] == "tiny"


def test_results_are_readable_without_the_package(folder, tiny, run: Run):
    assert run("run", "sweep.toml", "-o", "r.h5", "-n", "1", folders=[tiny]).returncode == 0
    for command in (["status", "r.h5"], ["top", "r.h5"]):
        done = run(*command, folders=[])
        assert done.returncode == 0, done.stderr
    assert "0.11111" in done.stdout
    missing = sentence(run("run", "sweep.toml", "-o", "r.h5", "-n", "1", folders=[]))
    assert missing.startswith(
        "mpisweep: sweep.toml: workload: is 'tiny'; expected 'resnet50', a function like"
    )


def test_a_sweep_without_a_sweep_file_can_use_them_too(folder, tiny, run: Run):
    arguments = [
        "run",
        "tiny",
        "-p",
        "width=1:5",
        "--search",
        "downwards",
        "--trials",
        "2",
        "-n",
        "1",
        "-o",
        "r.h5",
    ]
    done = run(*arguments, folders=[tiny])
    assert done.returncode == 0, done.stdout + done.stderr
    with h5py.File(folder / "r.h5") as file:
        assert list(file["trials/parameters/width"][()]) == [5, 4]
    refused = run(*arguments, folders=[])
    assert refused.returncode == 2
    assert "--search: found 'downwards'; known are" in refused.stderr


def test_options_of_a_plugin_are_checked_like_those_of_a_built_in_workload(folder, tiny, run: Run):
    for wrong, message in (
        ("[fixed]\nbent = 'tanh'", "sweep.toml: fixed.bent: tiny has no such option; did you mean 'bend'?"),
        (
            "[fixed]\nbend = 'sigmoid'",
            "sweep.toml: fixed.bend: is 'sigmoid'; expected one of 'relu', 'tanh'",
        ),
    ):
        (folder / "sweep.toml").write_text(SWEEP + wrong, encoding="utf-8")
        assert sentence(run("check", "sweep.toml", folders=[tiny])) == f"mpisweep: {message}"
    (folder / "sweep.toml").write_text(SWEEP.replace("downwards", "downward"), encoding="utf-8")
    assert sentence(run("check", "sweep.toml", folders=[tiny])) == (
        "mpisweep: sweep.toml: search: is 'downward'; expected one of grid, points, random, sobol, largest_batch, batch_size, "
        "tpe, gp, cmaes, nsga2, downwards; did you mean 'downwards'?"
    )


def test_the_schema_that_check_prints_includes_installed_plugins(tiny, broken, run: Run):
    sweep = {
        "workload": "tiny",
        "search": "downwards",
        "trials": 3,
        "parameters": {"width": {"from": 1, "to": 9}},
    }
    known = fastjsonschema.compile(
        json.loads(run("check", "--schema", folders=[tiny]).stdout), use_default=False
    )
    known(sweep)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        known(sweep | {"fixed": {"bend": "sigmoid"}})
    unknown = fastjsonschema.compile(
        json.loads(run("check", "--schema", folders=[broken]).stdout), use_default=False
    )
    unknown({"workload": "raising", "fixed": {"anything": 1}})
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        unknown(sweep)


def test_a_plugin_s_site_is_listed_and_has_job_scripts(tiny, run: Run):
    listed = run("sites", folders=[tiny])
    assert listed.returncode == 0, listed.stderr
    assert any(
        line.split()[:1] == ["tinycluster"] and "The tiny cluster" in line
        for line in listed.stdout.splitlines()
    )
    assert any(line.split()[:1] == ["genkai"] for line in listed.stdout.splitlines())
    script = run(
        "jobscript",
        "sweep.toml",
        "--site",
        "tinycluster",
        "--nodes",
        "1",
        "--elapse",
        "1:00:00",
        folders=[tiny],
    )
    assert script.returncode == 0, script.stderr
    assert "#SBATCH" in script.stdout


# ------------------------------------------------------------------------------------- a batch system


@pytest.fixture
def venv(tmp_path: Path, tiny: Path, environment: dict[str, str], standins) -> Path:
    """An environment for jobs of Tiny Queue: the tiny package, and the queue's commands on PATH."""
    environment |= standins.environment
    environment["PATH"] = os.pathsep.join([str(QUEUE), environment["PATH"]])
    scripts = tmp_path / "with the package" / "bin"
    scripts.mkdir(parents=True)
    paths = shlex.quote(os.pathsep.join([str(tiny), str(ROOT)]))
    (scripts / "activate").write_text(f"export PATH={shlex.quote(str(scripts))}:$PATH PYTHONPATH={paths}\n")
    (scripts / "mpisweep").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mpisweep "$@"\n')
    (scripts / "mpisweep").chmod(0o755)
    return scripts.parent


@pytest.mark.mpi
def test_a_plugin_s_batch_system_runs_a_chain_of_jobs(folder, tiny, venv, standins, run: Run):
    job = ("sweep.toml", "--site", "tinyqueue", "--elapse", "1:00:00", "-o", "r.h5", "--venv", str(venv))
    submitted = run("submit", *job, "--chain", "2", folders=[tiny])
    assert submitted.returncode == 0, submitted.stderr
    first, second = re.findall(r"^Tiny Queue job (\d+)", submitted.stdout, re.MULTILINE)
    assert standins.wait_for(second)["after"] == [first]
    assert standins.job(first)["code"] == 0, standins.log(first)
    assert "this job has nothing to do: all 7 trials have ended" in standins.log(second)
    with h5py.File(folder / "r.h5") as file:
        assert file["allocations/batch_system"].asstr()[()].tolist() == ["tinyqueue"]
        assert file["allocations/job_id"].asstr()[()].tolist() == [first]
        assert len(file["trials/metrics/loss"]) == 7
    for folders, jobs in ([tiny], []), ([], None):
        status = run("status", "r.h5", "--json", folders=folders)
        assert json.loads(status.stdout)["jobs"] == jobs


def test_job_scripts_of_a_plugin_s_batch_system_are_written_and_checked(folder, tiny, run: Run):
    job = ("sweep.toml", "--site", "tinyqueue", "--nodes", "3", "--elapse", "1:00:00", "--project", "p1")
    written = run("jobscript", *job, "--venv", "/shared/venv", folders=[tiny])
    assert written.returncode == 0, written.stderr
    assert "#TINY --nodes=3\n#TINY --time=1:00:00\n" in written.stdout
    script = folder / "job.sh"
    script.write_text(written.stdout)
    checked = run("jobscript", "--check", "job.sh", "--site", "tinyqueue", folders=[tiny])
    assert (checked.returncode, checked.stdout) == (0, "job.sh: OK\n")
    script.write_text(written.stdout.replace("--time=", "--tine=") + "#SBATCH --nodes=2\n")
    checked = run("jobscript", "--check", "job.sh", "--site", "tinyqueue", folders=[tiny])
    assert checked.returncode == 2
    assert "tsub has no option --tine; did you mean --time?" in checked.stdout
    assert "#SBATCH means nothing to Tiny Queue" in checked.stdout


def test_jobs_of_a_batch_system_that_is_not_installed_are_still_named(folder, tiny, venv, standins, run: Run):
    note(folder / "r.h5", [Submitted("9714", "tinyqueue", "job.sh", str(folder), 1.0)])
    known = run("status", "r.h5", folders=[tiny])
    assert known.stdout.splitlines()[-1] == "  no Tiny Queue job of this sweep is waiting or running"
    unknown = run("status", "r.h5", folders=[])
    assert unknown.stdout.splitlines()[-1] == (
        "  no usable package has the batch system 'tinyqueue'; the last job submitted was 9714"
    )
    stopped = run("stop", "r.h5", folders=[])
    assert stopped.stdout.splitlines()[0] == (
        "r.h5: no usable package has the batch system 'tinyqueue'; jobs that begin later will find the sweep "
        "stopped"
    )


def test_a_job_of_a_built_in_system_is_not_mistaken_for_a_plugin_s(tiny, environment, run: Run):
    environment |= {"TINY_JOB": "5"}
    shown = run("run", "sweep.toml", "-n", "1", "--dry-run", folders=[tiny])
    assert shown.stdout.startswith("allocation  Tiny Queue job 5: nodes not known"), shown.stderr
    assert "unknown (Tiny Queue does not report it); set --walltime" in shown.stdout
    environment |= {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    shown = run("run", "sweep.toml", "-n", "1", "--dry-run", folders=[tiny])
    assert shown.stdout.startswith("allocation  Slurm job 7"), shown.stderr


#: Entry point -> why it cannot be used.
UNUSABLE = {
    "absent": "cannot be loaded: ModuleNotFoundError: No module named 'broken_queues.absent'",
    "raising": "cannot be loaded: RuntimeError: the licence has run out",
    "odd": "cannot be used: it is of type int and not a BatchSystem",
    "misnamed": "cannot be used: it describes 'other'",
    "untitled": "cannot be used: it has no title and no submit",
    "everywhere": "cannot be used: it takes every process for a job of its own",
    "faulty": "cannot be used: job_id: KeyError: 'FAULTY_JOB'",
    "local": "cannot be used: its name stands for no batch system",
}


@pytest.fixture
def broken_queues(tmp_path: Path) -> Path:
    """A folder with an installed package whose batch systems all fail to load."""
    target = tmp_path / "queues"
    package, notes = target / "broken_queues", target / "broken_queues-0.4.dist-info"
    package.mkdir(parents=True)
    notes.mkdir()
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-queues\nVersion: 0.4\n")
    modules = {
        name: "absent" if name == "absent" else "raising" if name == "raising" else "queues"
        for name in UNUSABLE
    }
    entries = [f"{name} = broken_queues.{module}:{name.upper()}" for name, module in modules.items()]
    (notes / "entry_points.txt").write_text("\n".join(["[mpisweep.batch]", *entries]) + "\n")
    (package / "__init__.py").write_text("")
    (package / "raising.py").write_text("raise RuntimeError('the licence\\nhas run out')\n")
    (package / "queues.py").write_text(QUEUES)
    return target


QUEUES = """
from mpisweep.batch.base import BatchSystem


def queue(**attributes):
    return type("Queue", (BatchSystem,), {"title": "a queue", "submit": "qsub", **attributes})()


ODD = 3
MISNAMED = queue(name="other")
UNTITLED = type("Queue", (BatchSystem,), {"name": "untitled"})()
EVERYWHERE = queue(name="everywhere", job_id=lambda self, environment: "1")
FAULTY = queue(name="faulty", job_id=lambda self, environment: environment["FAULTY_JOB"])
LOCAL = queue(name="local")
"""


def test_an_unusable_batch_system_is_an_error_if_a_site_names_it(folder, broken_queues, tiny, run: Run):
    for name, why in UNUSABLE.items():
        (folder / "site.toml").write_text(f'system = "{name}"\ngpus_per_node = 1\n')
        refused = run("jobscript", "sweep.toml", "--site", "./site.toml", folders=[tiny, broken_queues])
        assert sentence(refused).endswith(
            f"site.toml: system: '{name}' of the package broken-queues 0.4 {why}"
        )


def test_an_unusable_batch_system_does_not_prevent_a_sweep(
    folder, environment, broken_queues, tiny, run: Run
):
    folders = [tiny, broken_queues]
    done = run("run", "sweep.toml", "-n", "1", "-q", "-o", "r.h5", folders=folders)
    assert done.returncode == 0, done.stderr
    told = [line.partition("batch systems: ")[2] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(
        f"'{name}' of the package broken-queues 0.4 {why}" for name, why in UNUSABLE.items()
    )
    environment["SLURM_JOB_ID"] = "7"
    within = run("run", "sweep.toml", "-n", "1", "--dry-run", "-o", "r.h5", folders=folders)
    assert (within.returncode, within.stderr) == (0, "")
    (folder / "job.sh").write_text("#!/bin/bash\n#TINY --nodes=1\nmpisweep run sweep.toml -o r.h5\n")
    checked = run("jobscript", "--check", "job.sh", folders=folders)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "no time limit is set" in checked.stdout


# ------------------------------------------------------------------------------------- broken plugins


@pytest.mark.parametrize(
    ("workload", "search", "message"),
    [
        ("absent", "random", "workload: 'absent' of the package broken-plugin 0.3 cannot be loaded: "
                             "ModuleNotFoundError: No module named 'broken_plugin.described'"),
        ("raising", "random", "workload: 'raising' of the package broken-plugin 0.3 cannot be loaded: "
                              "RuntimeError: the licence has run out"),
        ("odd", "random", "workload: 'odd' of the package broken-plugin 0.3 cannot be used: expected a "
                          "WorkloadDescription, found int"),
        ("misnamed", "random", "workload: 'misnamed' of the package broken-plugin 0.3 cannot be used: it "
                               "describes 'other', not 'misnamed'"),
        ("unrunnable", "random", "workload: 'unrunnable' of the package broken-plugin 0.3 cannot be loaded: "
                                 "ModuleNotFoundError: No module named 'broken_plugin.no_such_module'"),
        ("m:f", "nowhere", "search: 'nowhere' of the package broken-plugin 0.3 cannot be loaded: "
                           "ModuleNotFoundError: No module named 'broken_plugin.nowhere'"),
        ("m:f", "aimless", "search: 'aimless' of the package broken-plugin 0.3 cannot be used: it has no "
                           "method 'from_spec'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_unusable_plugin_is_refused_in_one_sentence_that_names_its_package(
    folder, broken, run: Run, command, workload, search, message
):
    (folder / "m.py").write_text("def f(trial): return 1.0\n", encoding="utf-8")
    space = "[parameters]\nranks_per_trial = [1]"
    (folder / "sweep.toml").write_text(
        f'workload = "{workload}"\nsearch = "{search}"\ntrials = 1\n{space}', encoding="utf-8"
    )
    found = sentence(run(command, "sweep.toml", folders=[broken]))
    assert found.startswith(f"mpisweep: sweep.toml: {message}")
    assert not list(folder.glob("*.h5*"))


def test_a_name_in_two_packages_is_refused(tiny, broken, run: Run):
    assert sentence(run("check", "sweep.toml", folders=[tiny, broken])) == (
        "mpisweep: sweep.toml: search: 'downwards' is in the packages broken-plugin 0.3 and tiny-plugin "
        "1.5; uninstall one of them"
    )


def test_missing_sites_do_not_hide_the_others(tiny, broken, run: Run):
    listed = run("sites", folders=[tiny, broken])
    assert listed.returncode == 0
    assert "tinycluster" in listed.stdout
    [line] = listed.stderr.splitlines()
    assert line.endswith(
        "sites: 'broken' of the package broken-plugin 0.3 cannot be loaded: there is no package "
        "'broken_plugin.sites'"
    )


def test_built_in_entries_are_registered_like_plugins():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    registered = {
        group: dict(
            tuple(part.strip() for part in line.split("=", 1)) for line in entries.strip().splitlines()
        )
        for group, entries in config["options.entry_points"].items()
        if group != "console_scripts"
    }
    assert registered == BUILT_IN
    assert list(BUILT_IN["mpisweep.workloads"]) == list(BUILTIN)
    assert tuple(BUILT_IN["mpisweep.searches"]) == SEARCH_NAMES


@pytest.mark.parametrize("has_plugin", [False, True])
def test_outside_of_jobs_only_packages_with_a_batch_system_are_loaded(tiny, has_plugin: bool):
    program = """
import sys
before = "importlib.metadata" in sys.modules
from mpisweep.batch.allocation import this_allocation
assert this_allocation({}).system == "local"
assert ("importlib.metadata" in sys.modules) == (before or "tiny_plugin" in sys.modules)
print("tiny_plugin" in sys.modules)
"""
    path = os.pathsep.join([*([str(tiny)] if has_plugin else []), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{has_plugin}\n", "")


def test_built_in_entries_are_found_without_reading_installed_packages():
    program = """
import importlib.metadata
importlib.metadata.entry_points = None
from pathlib import Path
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.allocation import this_allocation
from mpisweep.batch.registry import find_system
from mpisweep.plugins import BUILT_IN, find_plugin
from mpisweep.search import make_sampler
from mpisweep.spec import parse_spec
for group, entries in BUILT_IN.items():
    for name in entries:
        assert find_plugin(group, name).folder() if group == "mpisweep.sites" else find_plugin(group, name).load()
for search, trials in (("grid", ""), ("random", "trials = 3"), ("sobol", "trials = 3"), ("largest_batch", "")):
    text = f'workload = "resnet50"\\nsearch = "{search}"\\n{trials}\\n[parameters]\\nbatch_size = {{ from = 1, to = 9 }}'
    assert make_sampler(parse_spec(text, source="s", folder=Path()))[0]["batch_size"]
assert load_site("genkai").gpus_per_node == 4
for name in BUILT_IN["mpisweep.batch"]:
    assert find_system(name).name == name
assert this_allocation({"SLURM_JOB_ID": "7"}).system == "slurm"
# A launcher outside of a job sets this for its ranks.
assert this_allocation({}, known="local").system == "local"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


#: The tiny package with a workload that has a speed.
FAST = {
    **TINY,
    "tiny_plugin/described.py": TINY["tiny_plugin/described.py"].replace(
        'nat"),', 'nat"), Metric("images_per_second", "speed", "images/s"),'
    ),
    "tiny_plugin/train.py": """
def run(trial):
    width = trial.params["width"]
    return {"loss": 1 / width + (trial.params["bend"] == "tanh"), "images_per_second": 8.0 * width}
""",
}


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    """A folder with that package installed."""
    install(FAST, tmp_path / "fast-source", tmp_path / "fast-target")
    return tmp_path / "fast-target"


@pytest.mark.parametrize(
    ("search", "space"),
    [
        # The baseline leaves `width` at its default, which comes from the workload's description.
        ('search = "downwards"\ntrials = 3', "width = { from = 1, to = 9 }\n[baseline]\nbend = 'tanh'"),
        # The objective defaults to the speed, which comes from the workload's description.
        ('search = "largest_batch"', "width = { from = 1, to = 9 }"),
    ],
)
def test_defaults_of_a_plugin_are_shown_from_the_results_without_the_package(
    tmp_path, fast, run: Run, search, space
):
    (tmp_path / "sweep.toml").write_text(
        f'workload = "tiny"\nname = "fast"\n{search}\n[parameters]\n{space}\n', encoding="utf-8"
    )
    made = run("run", "sweep.toml", "-o", "r.h5", "-n", "1", folders=[fast])
    assert made.returncode == 0, made.stdout + made.stderr
    with_package = run("top", "r.h5", folders=[fast])
    without = run("top", "r.h5", folders=[])
    assert (without.returncode, without.stderr) == (0, "")
    assert without.stdout == with_package.stdout
