"""Imports from a pack: the same modules and paths as usual, and a new pack when a module has changed."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import mpisweep as package
from mpisweep.processes.staging import PackError, imported_from, pack_file, prepare_pack

Run = Callable[..., subprocess.CompletedProcess[str]]

#: Modules of the standard library that the tests do not import, with packages and an extension module.
MODULES = ("xml.dom.minidom", "wsgiref.simple_server")

LOOK = """
import sys
from mpisweep.processes.staging import imported_from, prepare_pack
pack = prepare_pack({modules!r})
read = []
sys.addaudithook(lambda event, given: read.append(str(given[0])) if event == "open" else None)
before = list(sys.meta_path)
{how}
    import xml.dom.minidom
    import wsgiref.simple_server
assert sys.meta_path == before
print(*[name for name in read if name.endswith((".pyc", ".py"))])
print(xml.dom.minidom.__file__, xml.dom.__path__, xml.dom.minidom.parseString("<a/>").documentElement.tagName)
import inspect, xml.sax.handler
print(inspect.getsource(xml.dom.minidom.Node)[:11], xml.sax.handler.__spec__.origin)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    return tmp_path / "cache"


def look(how: str) -> list[str]:
    command = [sys.executable, "-c", LOOK.format(how=how, modules=MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_imports_from_a_pack_are_the_same_and_open_no_module_file(cache: Path):
    usual = look("if True:")
    staged = look("with imported_from(pack):")
    assert len(usual[0].split()) > 10
    assert staged[0] == ""
    assert staged[1:] == usual[1:]


def test_a_pack_is_made_once_and_remade_when_a_file_has_changed(cache: Path):
    path = prepare_pack(MODULES)
    made = path.stat()
    assert prepare_pack(MODULES).stat().st_ino == made.st_ino
    data = path.read_bytes()
    # As if the file had been different when the pack was made.
    origin = str(Path(sysconfig.get_path("stdlib")) / "xml" / "dom" / "minidom.py")
    changed = str(Path(origin).stat().st_mtime_ns)
    assert changed.encode() in data
    path.write_bytes(data.replace(changed.encode(), changed[::-1].encode()))
    assert prepare_pack(MODULES).stat().st_ino != made.st_ino
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100])
def test_a_file_that_is_not_a_pack_is_refused_and_replaced(cache: Path, data: bytes):
    path = pack_file(MODULES)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(PackError, match="imports-"), imported_from(path):
        pass
    prepare_pack(MODULES)
    with imported_from(path):
        pass


def test_a_damaged_pack_is_refused(cache: Path):
    path = prepare_pack(MODULES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackError, match="is not a pack of imports"), imported_from(path):
        pass


def test_a_failure_to_pack_is_reported_in_one_sentence(cache: Path):
    with pytest.raises(
        PackError,
        match=r"cannot pack the imports of trials into .* \(ModuleNotFoundError: No module named 'nothing_of",
    ):
        prepare_pack(["nothing_of_that_name"])
    cache.mkdir(exist_ok=True)
    (cache / "mpisweep").write_text("in the way")
    with pytest.raises(PackError, match="cannot pack the imports of trials into"):
        prepare_pack(MODULES)


def test_another_import_path_needs_another_pack(cache: Path, monkeypatch):
    path = prepare_pack(MODULES)
    monkeypatch.setattr(sys, "path", [sys.path[0], "elsewhere", *sys.path[1:]])
    assert pack_file(MODULES) != path
    with pytest.raises(PackError, match="for another Python or another module path"), imported_from(path):
        pass


def test_users_own_modules_are_not_packed(cache: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "of_mine.py").write_text("value = 1\n")
    monkeypatch.setattr(sys, "path", [sys.path[0], os.fspath(tmp_path), *sys.path[1:]])
    path = prepare_pack(["of_mine", *MODULES])
    assert b"xml.dom.minidom" in path.read_bytes()
    assert b"of_mine" not in path.read_bytes()


@pytest.mark.mpi
def test_resnet50_from_a_pack_gives_the_same_results(folder, mpisweep: Run, cache: Path, environment):
    environment["XDG_CACHE_HOME"] = os.fspath(cache)
    quick = ["resnet50", "-p", "batch_size=2", "-p", "num_iter=1", "-p", "image_size=32", "-n", "1"]
    for name, more in (("usual.h5", []), ("staged.h5", ["--stage-env"])):
        done = mpisweep("run", *quick, "-o", name, *more)
        assert done.returncode == 0, done.stderr
    losses = [package.load(folder / name).trials["loss"].tolist() for name in ("usual.h5", "staged.h5")]
    assert losses[0] == losses[1]
    assert list(cache.glob("mpisweep/imports-*.pack"))


@pytest.mark.long
def test_an_unwritable_cache_is_reported_and_the_sweep_runs_without_it(
    folder, mpisweep: Run, cache: Path, environment
):
    cache.mkdir()
    (cache / "mpisweep").write_text("in the way")
    environment["XDG_CACHE_HOME"] = os.fspath(cache)
    quick = ["resnet50", "-p", "batch_size=2", "-p", "num_iter=1", "-p", "image_size=32", "-n", "1"]
    done = mpisweep("run", *quick, "-o", "r.h5", "--stage-env")
    assert done.returncode == 0, done.stderr
    assert "cannot pack the imports of trials into" in done.stderr
    assert "importing the installed modules" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_home_folder_the_pack_is_refused_in_one_sentence(monkeypatch, tmp_path):
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackError, match="there is no home folder for the pack"):
        prepare_pack(MODULES)
    assert not list(tmp_path.iterdir())
