"""Unusual environments of shells and containers: no home or temporary folder, locales, spaces in paths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE_S

import mpisweep as package
from mpisweep.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: The only lines that a run without problems prints: none of MPI's.
OURS = re.compile(r"\d\d:\d\d:\d\d (3/3 trials, .*|s: complete; 3 of 3 trials have ended)")


def sweep_file(folder: Path, value: str = "ş") -> str:
    text = f'name = "s"\nworkload = "workloads:said"\n[parameters]\nx = ["{value}", "b", "c"]\n'
    (folder / "s.toml").write_text(text, encoding="utf-8")
    with (folder / "workloads.py").open("a", encoding="utf-8") as more:
        more.write("\n\ndef said(trial):\n    print('日本')\n    return 1.0\n")
    return "s.toml"


@pytest.fixture(scope="session")
def turkish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two Turkish locales, a single-byte one and UTF-8."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/tr_TR").exists():
        pytest.skip("needs localedef and the sources of locales (Debian: locales)")
    folder = tmp_path_factory.mktemp("locales")
    for name, charset in (("tr_TR", "ISO-8859-9"), ("tr_TR.UTF-8", "UTF-8")):
        subprocess.run(
            ["localedef", "-i", "tr_TR", "-f", charset, folder / name], check=True, capture_output=True
        )
    return folder


@pytest.mark.parametrize("changes", [
    {"HOME": None}, {"HOME": "/dev/null/home"}, {"HOME": "", "TMPDIR": ""}, {"TMPDIR": "/dev/null/folder"}, {"TMPDIR": "s.toml"},
    {"TMPDIR": "with spaces"}, {"LC_ALL": "C", "LANG": None}, {"LC_ALL": "xx_YY.UTF-8"}, {"LC_ALL": "POSIX", "HOME": None, "TMPDIR": None},
], ids=str)  # fmt: skip
def test_a_sweep_runs_without_variables_that_shells_usually_set(
    folder: Path, environment: dict[str, str], mpisweep: Run, changes: dict[str, str | None]
):
    (folder / "with spaces").mkdir()
    for name, value in changes.items():
        environment.pop(name, None)
        environment.update({} if value is None else {name: value})
    done = mpisweep("run", sweep_file(folder), "-n", "2", "-o", "results of mine.h5")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not OURS.match(line)] == []
    assert sorted(package.load(folder / "results of mine.h5").trials["x"]) == ["b", "c", "ş"]


@pytest.mark.parametrize("locale", ["tr_TR", "tr_TR.UTF-8"])
def test_a_sweep_runs_and_is_shown_in_a_turkish_locale(
    folder: Path, environment: dict[str, str], mpisweep: Run, turkish: Path, locale: str
):
    """Turkish case rules must not break names, and characters that the locale cannot write are escaped."""
    environment |= {"LOCPATH": os.fspath(turkish), "LC_ALL": locale, "PYTHONIOENCODING": ""}
    sweep_file(folder, "日 ış")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["python", "-m", "mpisweep", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        text = (done.stdout + done.stderr).decode("iso8859-9" if locale == "tr_TR" else "utf-8")
        assert done.returncode == 0, text
        assert "Traceback" not in text
        return text

    shown = "日 ış" if locale.endswith("8") else r"\u65e5 ış"
    assert "complete; 3 of 3 trials have ended" in run("run", "s.toml", "-n", "2", "-o", "ö.h5")
    assert f"best said 1 (trial 0: x={shown})".replace("said", "loss") in run("status", "ö.h5")
    assert shown in run("top", "ö.h5")
    assert shown in run("export", "ö.h5")
    assert shown in run("check", "s.toml")
    run("report", "ö.h5")
    assert package.load(folder / "ö.h5").trials["x"][0] == "日 ış"


def test_without_a_writable_temporary_folder_the_run_is_refused_in_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null/folder"])
    assert main(["run", sweep_file(folder), "-n", "2"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "mpisweep: MPI needs a folder for temporary files; set TMPDIR to one that can be written (No usable "
        "temporary directory"
    )
    assert len(said.splitlines()) == 1


def test_characters_outside_the_locale_are_escaped_and_file_names_keep_their_bytes(
    folder: Path, environment: dict[str, str]
):
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    for stream in ("stdout", "stderr"):
        code = (
            "import sys; from mpisweep.cli.answers import escape_output; escape_output(); "
            f"print('\\u65e5 \\udcff', file=sys.{stream})"
        )
        done = subprocess.run(["python", "-c", code], env=environment, capture_output=True, check=True)
        assert getattr(done, stream) == b"\\u65e5 \xff\n"
