"""What can be seen to be wrong with a workload before any rank has started.

A sweep file may be right in itself and still name a program that is not there, a template that asks for what
is no parameter, or a function whose module cannot be imported.  Found here, it costs a sentence on the
terminal; found later, a place in the queue.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import NamedTuple

from mpisweep.plugins import WORKLOADS, find_plugin
from mpisweep.processes.kernel import python_command
from mpisweep.spec import SEARCH_NAMES, FunctionWorkload, Spec, SpecError
from mpisweep.spec.catalogue import BUILTIN, WorkloadDescription
from mpisweep.spec.commandline import SPECIAL_NAMES, CommandWorkload, names_in_template
from mpisweep.spec.searches import load_search

__all__ = ["check_startable"]

#: How long importing the user's module may take before the sweep is started without knowing, in seconds.
_IMPORT_S = 120.0
#: Of Python's own options those after which no script follows.
_NO_SCRIPT = ("-m", "-c", "-")

log = logging.getLogger(__name__)


def check_startable(spec: Spec) -> None:
    """Look for the data, or for the program and the template, or import the function in a process of its own.

    Raises:
        SpecError: see the class.
    """
    if spec.search not in SEARCH_NAMES:
        load_search(spec)
    if spec.built_in is not None:
        _see_data(spec, spec.built_in)
        if spec.built_in.name not in BUILTIN:
            _see_plugin(spec, spec.built_in)
    elif isinstance(spec.workload, CommandWorkload):
        _see_program(spec, spec.workload)
        _see_script(spec, spec.workload)
        _see_template(spec, spec.workload)
    elif isinstance(spec.workload, FunctionWorkload):
        _see_function(spec, spec.workload)


def _see_data(spec: Spec, built_in: WorkloadDescription) -> None:
    values = spec.full({})
    if not built_in.folder or built_in.folder in spec.space.names or not built_in.needs_folder(values):
        return
    where = f"{spec.source}: fixed.{built_in.folder}:"
    folder = str(values[built_in.folder])
    if not folder:
        of_images = f"data = {values.get('data')!r} needs the folder where the images are"
        needs = of_images if "data" in values else "name the folder of the data"
        raise SpecError(f"{where} is missing; {needs}")
    if not (spec.folder / folder).is_dir():
        raise SpecError(f"{where} there is no folder {spec.folder / folder}")


def _see_plugin(spec: Spec, built_in: WorkloadDescription) -> None:
    """Import a plugin's workload in a process of its own: it may bring torch, and whatever else."""
    reason = _why_no_import(spec)
    plugin = find_plugin(WORKLOADS, built_in.name)
    if reason and plugin is not None:
        raise SpecError(f"{spec.source}: workload: {plugin.unfit(f'cannot be loaded: {reason}')}")


def _see_script(spec: Spec, workload: CommandWorkload) -> None:
    """Python starts whatever script it is given, and says afterwards that it is not there."""
    program, *rest = workload.arguments
    if not Path(program).name.startswith("python") or workload.own_directory:
        return
    script = next(
        (argument for argument in rest if argument in _NO_SCRIPT or not argument.startswith("-")), "-"
    )
    if script.endswith(".py") and "{" not in script and not (spec.folder / script).is_file():
        raise SpecError(f"{spec.source}: workload.command: there is no script {script!r} in {spec.folder}")


def _see_program(spec: Spec, workload: CommandWorkload) -> None:
    program = workload.arguments[0]
    if "{" in program:
        return
    variables = dict(workload.environment)
    if "/" in program and workload.own_directory and not program.startswith("/"):
        return
    where = os.fspath(spec.folder / program) if "/" in program else program
    found = shutil.which(where, path=variables.get("PATH"))
    problem = _why_no_script(found, program) if found else _why_no_program(spec, where, program)
    if problem:
        raise SpecError(f"{spec.source}: workload.command: {problem}")


def _why_no_program(spec: Spec, where: str, program: str) -> str:
    if "/" not in program:
        return f"there is no program {program!r} on PATH"
    if Path(where).is_dir():
        return f"{program!r} is a folder"
    if Path(where).exists():
        allow = f"chmod +x {shlex.quote(program)}"
        return f"{program!r} cannot be started: it may not be executed; allow it with {allow}"
    return f"there is no program {program!r} in {spec.folder}"


def _why_no_script(path: str, program: str) -> str:
    """Why a script that may be executed cannot be started; the system says that there is no such file."""
    try:
        with open(path, "rb") as script:
            first = script.readline(4096)
    except OSError:
        # It may be executed and not read.
        return ""
    words = first[2:].strip(b" \t\n").split(maxsplit=1) if first.startswith(b"#!") else []
    if not words:
        return ""
    interpreter = os.fsdecode(words[0].rstrip(b"\r"))
    if first.rstrip(b"\n").endswith(b"\r"):
        return (
            f"{program!r} cannot be started: its lines end with a carriage return (CRLF), so that its "
            f"interpreter, {interpreter}, is not found; "
            f"remove them with sed -i 's/\\r$//' {shlex.quote(program)}"
        )
    if not Path(interpreter).exists():
        return f"{program!r} cannot be started: its interpreter, {interpreter!r}, is not there"
    return ""


def _see_template(spec: Spec, workload: CommandWorkload) -> None:
    if not workload.template:
        return
    path = spec.folder / workload.template
    try:
        asked = names_in_template(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(f"{spec.source}: workload.template: {path} cannot be read: {reason}") from error
    known = [*spec.space.names, *spec.fixed]
    for name in sorted(asked - set(known) - SPECIAL_NAMES.keys()):
        raise SpecError(
            f"{path}: has {{{{{name}}}}}, which is no parameter; "
            f"known are {', '.join([*known, *SPECIAL_NAMES])}"
        )
    for name in spec.space.names:
        if name not in asked | workload.names:
            raise SpecError(
                f"{spec.source}: parameters.{name}: is not used: workload.command, workload.env and "
                f"{workload.template} do not have it"
            )


def _see_modules(spec: Spec, workload: FunctionWorkload) -> None:
    """The folder comes last where modules are looked for: see that it is not asked for what others have."""
    hidden = _hidden(spec.folder)
    own = hidden.get(workload.module.partition(".")[0])
    if own is not None:
        raise SpecError(
            f"{spec.source}: workload: {spec.folder / own.file} cannot be imported: its name is that of a "
            f"module in {own.by}; give it another one"
        )
    files = [module.file for module in hidden.values()]
    if len(files) > 1:
        log.warning(
            "%s: %s and %s have the names of installed modules, which trials import instead; "
            "give them other ones",
            spec.folder, ", ".join(files[:-1]), files[-1],
        )  # fmt: skip
    elif files:
        log.warning(
            "%s: %s has the name of an installed module, which trials import instead; give it another one",
            spec.folder, files[0],
        )  # fmt: skip


class _Hidden(NamedTuple):
    """A file or a package that an import does not find, and what is found in its place."""

    file: str
    by: str


def _hidden(folder: Path) -> dict[str, _Hidden]:
    """Modules in a folder whose names others have, by these names."""
    found: dict[str, _Hidden] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in all_suffixes() if path.name.endswith(suffix)), "")
        name = path.name.removesuffix(suffix)
        if not name.isidentifier() or not (suffix or (path / "__init__.py").is_file()):
            continue
        by = _found_elsewhere(name, path)
        if by:
            found[name] = _Hidden(path.name, by)
    return found


def _found_elsewhere(name: str, path: Path) -> str:
    """Where a module of this name is found before this folder; "" where it is not, or is this one."""
    if name in sys.stdlib_module_names:
        return "the standard library"
    if name == __name__.partition(".")[0]:
        # Whichever is running: it has been imported already.
        return ""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None
        if spec is not None and spec.origin is not None and spec.has_location:
            place = Path(spec.origin).resolve()
            return "" if path.resolve() in (place, place.parent) else os.fspath(Path(spec.origin).parent)
    return ""


def _see_function(spec: Spec, workload: FunctionWorkload) -> None:
    _see_modules(spec, workload)
    reason = _why_no_import(spec)
    if reason:
        raise SpecError(
            f"{spec.source}: workload: {workload.module}:{workload.function} cannot be loaded: {reason}"
        )


def _why_no_import(spec: Spec) -> str:
    """Why the function that a sweep names cannot be imported; "" where it can, or takes too long to tell."""
    try:
        done = subprocess.run(
            [*python_command(), "-m", "mpisweep.workloads.function", spec.source, os.fspath(spec.folder)],
            input=spec.text, capture_output=True, text=True, errors="replace", timeout=_IMPORT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ""
    if not done.returncode:
        return ""
    return " ".join(_last_lines(done.stderr)) or f"importing it ended Python with code {done.returncode}"


def _last_lines(text: str) -> Iterator[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return iter(lines[-4:])
