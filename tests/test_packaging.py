"""What is shipped is whole, and what is written about it works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
JOBSCRIPTS = sorted((ROOT / "jobscripts").glob("*.sh"))


def test_the_wheel_holds_the_package_the_analysis_and_the_job_scripts(tmp_path: Path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "demo", "build", "*.egg-info", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True, capture_output=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("mpisweep-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in [*(ROOT / "mpisweep").rglob("*.py"), ROOT / "mpisweep" / "py.typed"]:
        assert str(path.relative_to(ROOT)) in names
    for path in [*(ROOT / "analysis").glob("*.py"), *JOBSCRIPTS, *(ROOT / "examples").rglob("*.toml")]:
        assert any(name.endswith(f"share/mpisweep/{path.relative_to(ROOT)}") for name in names), path
    entry_points = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "mpisweep = mpisweep.cli:main" in entry_points


@pytest.mark.parametrize("script", JOBSCRIPTS, ids=lambda path: path.name)
def test_a_job_script_is_valid_bash(script: Path):
    subprocess.run(["bash", "-n", script], check=True)


def test_without_an_environment_of_its_own_make_uses_the_folder_it_is_in(tmp_path: Path, environment):
    shutil.copytree(ROOT / "mpisweep", tmp_path / "mpisweep")
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", "-s", "VENV=none", "--eval", "where: ; @cd / && $(PY) -c 'import mpisweep; print(mpisweep.__file__)'", "where"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "mpisweep" / "__init__.py")


def test_the_readme_shows_a_sweep_file_that_runs_and_code_that_works(tmp_path: Path, environment):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL))
    assert {"toml", "python", "sh"} <= set(blocks)
    for language, block in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL):
        if language == "toml":
            (tmp_path / "sweep.toml").write_text(block, encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "mpisweep", "check", "sweep.toml"], cwd=tmp_path, capture_output=True, text=True,
                env=environment, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    functions = [b for lang, b in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL) if lang == "python" and "def " in b]
    readers = [b for lang, b in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL) if lang == "python" and "load(" in b]
    (tmp_path / "my_train.py").write_text(functions[0], encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "mpisweep", "run", "my_train:train", "-p", "width=1:3", "-n", "1", "-o", "my.h5"],
        cwd=tmp_path, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "resnet50-batch-size.h5").write_bytes((tmp_path / "my.h5").read_bytes())
    done = subprocess.run([sys.executable, "-c", readers[0]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout or "best" in done.stdout or done.stdout
