"""The wheel is complete, and the examples in the documentation work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mpisweep

ROOT = Path(__file__).parent.parent
JOBSCRIPTS = sorted((ROOT / "jobscripts").glob("*.sh"))


def test_the_wheel_holds_the_package_the_analysis_and_the_job_scripts(tmp_path: Path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "demo", "build", "*.egg-info", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            source,
        ],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("mpisweep-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sites = (ROOT / "mpisweep" / "batch" / "sites").glob("*.toml")
    schema = ROOT / "mpisweep" / "spec" / "sweep-file.schema.json"
    for path in [*(ROOT / "mpisweep").rglob("*.py"), ROOT / "mpisweep" / "py.typed", schema, *sites]:
        assert str(path.relative_to(ROOT)) in names
    for path in [
        *(ROOT / "analysis").glob("*.py"),
        *JOBSCRIPTS,
        *(ROOT / "jobscripts" / "sites").glob("*.toml"),
        *(ROOT / "examples").rglob("*.toml"),
    ]:
        assert any(name.endswith(f"share/mpisweep/{path.relative_to(ROOT)}") for name in names), path
    entry_points = (
        zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    )
    assert "mpisweep = mpisweep.cli:main" in entry_points


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


@pytest.mark.parametrize("page", ["README.md", "docs/sweep-file.md", "docs/workloads.md", "docs/resnet50.md"])
def test_every_documented_sweep_file_passes_check(tmp_path: Path, mpisweep_in, page):
    (tmp_path / "my_train.py").write_text("def train(trial): pass\n", encoding="utf-8")
    shown = blocks_of(page, "toml")
    assert shown
    for block in shown:
        # Some blocks show only part of a file, without the workload.
        workload = "" if "workload" in block else 'workload = "my_train:train"\n'
        (tmp_path / "sweep.toml").write_text(workload + block, encoding="utf-8")
        mpisweep_in("check", "sweep.toml")


@pytest.mark.parametrize("page", ["README.md", "docs/workloads.md"])
def test_every_documented_run_without_a_sweep_file_passes_check(mpisweep_in, page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", "")
    shown = re.findall(r"(?:^|`)mpisweep run ((?:resnet50 )?-p [^`\n]+)", text, flags=re.MULTILINE)
    assert shown
    for line in shown:
        mpisweep_in("check", *shlex.split(line))


def test_every_command_in_the_readme_exists(environment):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)mpisweep ([a-z]+)", text, flags=re.MULTILINE))
    assert "run" in named
    for command in sorted(named):
        subprocess.run(
            [sys.executable, "-m", "mpisweep", command, "--help"],
            env=environment,
            check=True,
            capture_output=True,
        )


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


@pytest.mark.parametrize("page", ["pjm", "slurm", "pbs", "grid-engine", "workstation"])
def test_the_commands_of_a_page_write_scripts_that_pass_check(page: str, tmp_path: Path, environment):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", "")
    shown = re.findall(r"(?:^|`)mpisweep ((?:check|jobscript|submit) [^`#\n]+)", text, flags=re.MULTILINE)
    # Commands with placeholders are for the reader to complete.
    commands = [command for command in shown if "SWEEP.toml" not in command and "..." not in command]
    assert commands
    work = tmp_path / "mpisweep"
    environment["WORK"] = str(tmp_path)
    (work / "examples").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "resnet50-batch-size.toml", work / "examples")
    for command in commands:
        # No batch system here: write the script that would be submitted, without the chain.
        arguments = shlex.split(
            re.sub(r" --chain \w+| > job.sh", "", re.sub("^submit", "jobscript", command))
        )
        done = subprocess.run(
            [sys.executable, "-m", "mpisweep", *arguments],
            cwd=work,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout + done.stderr)
        if done.stdout.startswith("#!"):
            # The folder of the tests is node-local, which `jobscript --check` reports.
            (work / "job.sh").write_text(done.stdout.replace(str(tmp_path), "$WORK"))
