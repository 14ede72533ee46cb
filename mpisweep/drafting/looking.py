"""Find out what a user wants to sweep: a workload, a function, a script or a program."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpisweep.drafting.flags import Flag, Kind, flags_in_help, flags_in_source
from mpisweep.drafting.functions import functions_in
from mpisweep.drafting.objectives import Objective, objectives_in
from mpisweep.drafting.prints import Guess, metrics_in_binary, metrics_in_source
from mpisweep.plugins import PluginError
from mpisweep.spec import nearest
from mpisweep.spec.catalogue import describe, is_workload

__all__ = ["DraftError", "Subject", "look_at"]

#: Libraries of Python scripts that answer ``--help``.
_ANSWERS_HELP = {
    "absl", "argparse", "click", "configargparse", "docopt", "fire", "hydra", "jsonargparse",
    "simple_parsing", "tap", "typer", "tyro",
}  # fmt: skip
#: Seconds after which a program that was asked for its help is killed.
_HELP_S = 20.0
#: Endings of sources that have to be compiled first.
_SOURCES = (".c", ".cc", ".cpp", ".cxx", ".f", ".f90", ".f95", ".f03", ".f08", ".for", ".cu", ".rs", ".go")


class DraftError(ValueError):
    """No sweep file can be drafted; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a sweep file is drafted for.

    Attributes:
        name: of the sweep.
        title: what was looked at, for the first line.
        words: of the command line before the options; empty unless it is a script or a program.
        workload: built-in workload or ``module:function``; empty for a script or a program.
        parameters: in the order in which they were found.
        metrics: name and pattern; the pattern is empty if the workload reports the metric itself.
        objective: of Optuna; None for anything else.
        asked: how the options were found, as the end of a sentence.
    """

    kind: Literal["workload", "function", "script", "program"]
    name: str
    title: str
    asked: str
    words: tuple[str, ...] = ()
    workload: str = ""
    parameters: tuple[Flag, ...] = ()
    metrics: tuple[Guess, ...] = ()
    objective: Objective | None = None


def look_at(target: str, folder: Path) -> Subject:
    """Look at a workload, ``module:function``, script or program.

    Args:
        target: as the user wrote it.
        folder: of the sweep file.

    Raises:
        DraftError: if it does not exist, or no sweep file can be written for it.
    """
    if not Path(target).exists():
        if is_workload(target):
            return _workload(target)
        module, _, function = target.partition(":")
        if function:
            is_file = module.endswith(".py")
            path = Path(module) if is_file else Path(*module.split(".")).with_suffix(".py")
            return _function(path, function, folder)
        if os.sep in target or (found := shutil.which(target)) is None:
            near = [str(path) for path in sorted(Path(target).parent.glob("*")) if path.is_file()]
            raise DraftError(f"{target}: no such script or program; {_hint(target, near)}")
        return _program(Path(found), (target,))
    path = Path(target)
    if path.is_dir():
        raise DraftError(f"{target}: is a folder; expected a script, a program or module:function")
    if path.suffix == ".py":
        return _script(path, folder)
    if path.suffix.lower() in _SOURCES:
        raise DraftError(f"{target}: is source code; compile it, and give the program")
    if not os.access(path, os.X_OK):
        raise DraftError(f"{target}: is not executable; expected a Python script or a program")
    return _program(path, (_relative(path, folder, is_program=True),))


def _hint(target: str, files: Sequence[str]) -> str:
    hint = nearest(target, files)
    return hint if hint.startswith("did you") else "expected a Python script, a program or module:function"


def _relative(path: Path, folder: Path, *, is_program: bool = False) -> str:
    """The path as seen from the folder of the sweep file, where the command runs."""
    found = os.path.relpath(path.resolve(), folder.resolve())
    return f"./{found}" if is_program and os.sep not in found else found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise DraftError(f"{path}: cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise DraftError(f"{where}: is not Python: {getattr(error, 'msg', error)}") from error


# ------------------------------------------------------------------------------------- kinds


def _workload(name: str) -> Subject:
    try:
        described = describe(name)
    except PluginError as error:
        raise DraftError(f"{name}: {error}") from error
    assert described is not None, "it is a workload"
    kinds: dict[str, Kind] = {
        "integer": "integer",
        "number": "number",
        "choice": "choice",
        "boolean": "switch",
    }
    return Subject(
        "workload", name, f"the workload {name}", "that it describes", workload=name,
        parameters=tuple(
            Flag(option.name, "", kinds.get(option.kind, "text"), option.default, option.values,
                 option.description, low=option.low)
            for option in described.options
        ),
        metrics=tuple(Guess(metric.name, "") for metric in described.metrics),
    )  # fmt: skip


def _function(path: Path, wanted: str, folder: Path) -> Subject:
    """A function of a module; if none is wanted, an objective of Optuna, or the first one."""
    if not path.is_file():
        raise DraftError(f"{path}: no such module; expected module:function, with module.py in this folder")
    tree = _parsed(path)
    objectives, found = objectives_in(tree), functions_in(tree)
    objective = next((one for one in objectives if wanted in ("", one.name)), None)
    function = next((one for one in found if wanted in ("", one.name)), None)
    if function is None and objective is None:
        names = [one.name for one in objectives] + [one.name for one in found]
        raise DraftError(f"{path}: has no function {wanted!r} of one argument; {nearest(wanted, names)}")
    module = _relative(path.with_suffix(""), folder)
    if module.startswith(".."):
        raise DraftError(
            f"{path}: is outside of {folder}, from which modules are imported; write the sweep file beside it"
        )
    if objective is not None:
        return Subject(
            "function", _sweep_name(path), f"{objective.name}(trial) in {path.name}, an objective of Optuna",
            "", workload=f"{module.replace(os.sep, '.')}:{objective.name}", objective=objective,
        )  # fmt: skip
    assert function is not None, "one of the two was found"
    return Subject(
        "function", _sweep_name(path), f"the function {function.name} of {path.name}",
        "found in its use of trial.params",
        workload=f"{module.replace(os.sep, '.')}:{function.name}",
        parameters=function.parameters,
        metrics=tuple(Guess(name, "") for name in function.metrics),
    )  # fmt: skip


def _script(path: Path, folder: Path) -> Subject:
    tree = _parsed(path)
    flags = flags_in_source(tree)
    # The options of a script with an objective are those of its study.
    if objectives_in(tree) or (not flags and functions_in(tree)):
        return _function(path, "", folder)
    asked = "found in its source"
    if not flags and _imported(tree) & _ANSWERS_HELP:
        flags, asked = _ask([sys.executable, str(path.resolve())]), "found in the output of --help"
    return Subject(
        "script", _sweep_name(path), f"the script {path.name}", asked,
        words=("python", _relative(path, folder)),
        parameters=tuple(flags),
        metrics=tuple(metrics_in_source(tree)),
    )  # fmt: skip


def _program(path: Path, words: tuple[str, ...]) -> Subject:
    flags = _ask([str(path.resolve())])
    metrics: list[Guess] = []
    with contextlib.suppress(OSError):
        metrics = metrics_in_binary(path.read_bytes())
    return Subject(
        "program", _sweep_name(path), f"the program {path.name}", "found in the output of --help",
        words=words, parameters=tuple(flags), metrics=tuple(metrics),
    )  # fmt: skip


def _sweep_name(path: Path) -> str:
    return re.sub(r"[^\w.-]", "-", path.stem, flags=re.ASCII).strip(".-") or "sweep"


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _ask(command: Sequence[str]) -> list[Flag]:
    """Read the options from the output of ``--help``; none if there is no answer in time."""
    with tempfile.TemporaryDirectory(prefix="mpisweep-") as empty:
        try:
            # A program that does not know the option may begin its work: in a folder without files.
            asked = subprocess.Popen(
                [*command, "--help"], cwd=empty, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError:
            return []
        try:
            said, _ = asked.communicate(timeout=_HELP_S)
        except subprocess.TimeoutExpired:
            return []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()
            if asked.stdout is not None:
                asked.stdout.close()
    return flags_in_help(said[:1_000_000].decode("utf-8", "replace"))
