"""Check a sweep's workload and search before any rank starts.

A valid sweep file can still name a missing program, a template with unknown placeholders, or a function whose
module cannot be imported.  Found here, the error costs a second; found later, a turn in the batch queue.
"""

from __future__ import annotations

import contextlib
import itertools
import locale
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import NamedTuple

from mpisweep.errors import how_to_add, missing_modules
from mpisweep.plugins import WORKLOADS, find_plugin
from mpisweep.processes.kernel import python_command
from mpisweep.spec import LEARNING, SEARCH_NAMES, FunctionWorkload, Spec, SpecError
from mpisweep.spec.catalogue import BUILTIN, WorkloadDescription
from mpisweep.spec.commandline import SPECIAL_NAMES, CommandWorkload, names_in_template
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.searches import check_pruner, load_search
from mpisweep.spec.space import Axis, Configuration, Value, ends
from mpisweep.spec.wording import Wording

__all__ = ["begin_import", "check_startable"]

#: Seconds after which the import check gives up and the sweep starts unchecked.
_IMPORT_S = 120.0
#: Most configurations whose options are checked.
_MOST_COMBINED = 4096
#: Python options that take the place of a script.
_NO_SCRIPT = ("-m", "-c", "-")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def begin_import(spec: Spec) -> Iterator[subprocess.Popen[bytes] | None]:
    """Start to import a user's function or a plugin's workload in a process; None for others.

    The process takes 50 ms, in which this one can do something else, and is gone after the block.
    """
    is_users = spec.built_in is None and isinstance(spec.workload, FunctionWorkload)
    if not is_users and (spec.built_in is None or spec.built_in.name in BUILTIN):
        yield None
        return
    with _importing(spec) as importing:
        try:
            yield importing
        finally:
            importing.kill()


def _importing(spec: Spec) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*python_command(), "-m", "mpisweep.workloads.function", spec.source, os.fspath(spec.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def check_startable(
    spec: Spec, *, importing: subprocess.Popen[bytes] | None = None, has_sampler: bool = False
) -> None:
    """Check options, folders, program and template, or import the function in a new process.

    Args:
        spec: the sweep.
        importing: the process of :func:`begin_import`, if that has been called.
        has_sampler: whether its sampler was made before, which checks conditions and constraints.

    Raises:
        SpecError: if the workload or the search cannot start.
    """
    if importing is None:
        with begin_import(spec) as begun:
            _check(spec, begun, has_sampler=has_sampler)
    else:
        _check(spec, importing, has_sampler=has_sampler)


def _check(spec: Spec, importing: subprocess.Popen[bytes] | None, *, has_sampler: bool) -> None:
    _check_installed(spec, "", "mpisweep", "h5py", "numpy")
    _check_search(spec, has_sampler=has_sampler)
    check_pruner(spec)
    _check_hooks(spec)
    if spec.stage_data and not Path(spec.stage_data).exists():
        Wording(spec.source).fail("stage_data", f"{spec.stage_data} does not exist")
    if spec.built_in is not None:
        if spec.built_in.name in BUILTIN:
            _check_installed(spec, "workload", repr(spec.built_in.name), *spec.built_in.preload)
        _check_options(spec, spec.built_in)
        if importing is not None:
            _check_plugin(spec, spec.built_in, importing)
    elif isinstance(spec.workload, CommandWorkload):
        _check_staged(spec, spec.workload)
        _check_program(spec, spec.workload)
        if not spec.workload.own_directory:
            _check_script(spec, "workload.command", spec.workload.arguments)
        _check_template(spec, spec.workload)
    elif isinstance(spec.workload, FunctionWorkload):
        _check_modules(spec, spec.workload)
        assert importing is not None
        _check_function(spec, spec.workload, importing)


def _check_installed(spec: Spec, key: str, user: str, *modules: str) -> None:
    """Check that modules are installed, without importing them."""
    if missing := missing_modules(*(module.partition(".")[0] for module in modules)):
        are = "which is" if len(missing) == 1 else "which are"
        Wording(spec.source).fail(
            key, f"{user} needs {' and '.join(missing)}, {are} not installed; {how_to_add(*missing)}"
        )


def _check_search(spec: Spec, *, has_sampler: bool) -> None:
    if spec.search == "sobol":
        _check_installed(spec, "search", "'sobol'", "scipy")
    if spec.repeats.is_race:
        _check_installed(spec, "repeats", "a race", "scipy")
    is_plain = spec.search in SEARCH_NAMES and spec.search not in LEARNING
    if is_plain and (spec.space.is_product or has_sampler):
        # Nothing can be wrong with it, and loading it may import scipy.
        return
    search = load_search(spec)
    if hasattr(search, "check_sweep"):
        search.check_sweep(spec)
    elif not spec.space.is_product and not has_sampler:
        sampler = search.from_spec(spec)
        for warning in getattr(sampler, "warnings", ()):
            log.warning("%s: %s", spec.source, warning)


def _check_options(spec: Spec, built_in: WorkloadDescription) -> None:
    """Check options that contradict each other, and the folders of the data."""
    checked: set[tuple[str, Value]] = set()
    modules: dict[str, None] = {}
    for values in _configurations(spec):
        found = built_in.contradiction(values)
        if found is not None:
            Wording(spec.source).fail(_key_of(spec, found[0]), found[1])
        for module in built_in.modules(values):
            modules.setdefault(module)
        for name in built_in.folders(values):
            # One look per folder, which may be on a slow file system.
            if (name, values[name]) not in checked:
                checked.add((name, values[name]))
                _check_data(spec, name, values)
    _check_installed(spec, "workload", repr(built_in.name), *modules)


def _configurations(spec: Spec) -> Iterator[Configuration]:
    """Configurations with all choices and the ends of all ranges, as far as they are not too many."""
    space = spec.space
    combined = itertools.product(*map(_steps, space.axes))
    for steps in itertools.islice(combined, _MOST_COMBINED):
        values: Configuration = {}
        for axis, step in zip(space.axes, steps, strict=True):
            values.update(zip(axis.names, step, strict=True))
        # The search reports a condition or constraint without a value.
        with contextlib.suppress(ExpressionError):
            configuration = space.complete(values)
            if space.broken_constraint(configuration) is None:
                yield spec.full(configuration)
    if spec.baseline is not None:
        yield spec.full(spec.baseline)


def _steps(axis: Axis) -> Iterable[tuple[Value, ...]]:
    """The ends of a range; every step of any other axis."""
    if axis.rows is None and len(axis.parameters) == 1:
        return [(value,) for value in ends(axis.parameters[0])]
    return map(axis.at, range(min(axis.count or 0, _MOST_COMBINED)))


def _key_of(spec: Spec, option: str) -> str:
    """The key that sets an option; or that can, if none does."""
    tables = {"parameters": spec.space.names, "fixed": spec.fixed, "baseline": spec.baseline or ()}
    return f"{next((table for table, names in tables.items() if option in names), 'fixed')}.{option}"


def _check_data(spec: Spec, option: str, values: Configuration) -> None:
    wording, key = Wording(spec.source), _key_of(spec, option)
    folder = str(values[option])
    if spec.stage_data and _is_in_copy(spec, option, folder):
        return
    if not folder:
        of_images = f"data = {values.get('data')!r} needs the folder of the images"
        needs = of_images if "data" in values else "set it to the folder of the data"
        wording.fail(key, f"is missing; {needs}")
    if not (spec.folder / folder).is_dir():
        wording.fail(key, f"folder {spec.folder / folder} does not exist")


def _is_in_copy(spec: Spec, option: str, folder: str) -> bool:
    """Whether it names staged data that cannot be looked at: in a tar file, or the copy itself."""
    if not folder:
        return option == "data_root"
    staged = Path(spec.stage_data)
    return not staged.is_dir() and (spec.folder / folder).resolve().is_relative_to(staged.resolve())


def _check_staged(spec: Spec, workload: CommandWorkload) -> None:
    """Check that there is a copy of data, if the command line needs the path of one."""
    if "data" in workload.names and not spec.stage_data and "data" not in (*spec.space.names, *spec.fixed):
        Wording(spec.source).fail(
            "workload.command", "contains {data}, but nothing is staged; set stage_data, or --stage-data"
        )


def _check_plugin(spec: Spec, built_in: WorkloadDescription, importing: subprocess.Popen[bytes]) -> None:
    """Check that a plugin's workload can be imported; in a process, since it may import torch."""
    reason = _why_no_import(spec, importing)
    plugin = find_plugin(WORKLOADS, built_in.name)
    if reason and plugin is not None:
        raise SpecError(f"{spec.source}: workload: {plugin.unfit(f'cannot be loaded: {reason}')}")


def _check_script(spec: Spec, key: str, arguments: Sequence[str]) -> None:
    """Check that the script of a Python command exists; `which` only finds the interpreter."""
    program, *rest = arguments
    if not Path(program).name.startswith("python"):
        return
    script = next(
        (argument for argument in rest if argument in _NO_SCRIPT or not argument.startswith("-")), "-"
    )
    if script.endswith(".py") and "{" not in script and not (spec.folder / script).is_file():
        Wording(spec.source).fail(key, f"script {script!r} does not exist in {spec.folder}")


def _check_program(spec: Spec, workload: CommandWorkload) -> None:
    program = workload.arguments[0]
    if "{" in program:
        return
    variables = dict(workload.environment)
    if "/" in program and workload.own_directory and not program.startswith("/"):
        return
    _check_found(spec, "workload.command", program, variables.get("PATH"))


def _check_hooks(spec: Spec) -> None:
    for name, arguments in spec.hooks.commands.items():
        _check_found(spec, f"hooks.{name}", arguments[0])
        _check_script(spec, f"hooks.{name}", arguments)


def _check_found(spec: Spec, key: str, program: str, path: str | None = None) -> None:
    """Check that a program can start in the sweep's folder; `path` stands for PATH."""
    where = os.fspath(spec.folder / program) if "/" in program else program
    found = shutil.which(where, path=path)
    problem = _why_no_script(found, program) if found else _why_no_program(spec, where, program)
    if problem:
        Wording(spec.source).fail(key, problem)


def _why_no_program(spec: Spec, where: str, program: str) -> str:
    if "/" not in program:
        return f"program {program!r} is not on PATH"
    if Path(where).is_dir():
        return f"{program!r} is a folder"
    if Path(where).exists():
        allow = f"chmod +x {shlex.quote(program)}"
        return f"{program!r} is not executable; run {allow}"
    return f"program {program!r} does not exist in {spec.folder}"


def _why_no_script(path: str, program: str) -> str:
    """Why an executable script cannot start, which the system reports as a missing file."""
    try:
        with open(path, "rb") as script:
            first = script.readline(4096)
    except OSError:
        # Executable but not readable.
        return ""
    words = first[2:].strip(b" \t\n").split(maxsplit=1) if first.startswith(b"#!") else []
    if not words:
        return ""
    interpreter = os.fsdecode(words[0].rstrip(b"\r"))
    if first.rstrip(b"\n").endswith(b"\r"):
        return (
            f"{program!r} cannot start: it has Windows line endings (CRLF), so its interpreter {interpreter} "
            f"is not found; run sed -i 's/\\r$//' {shlex.quote(program)}"
        )
    if not Path(interpreter).exists():
        return f"{program!r} cannot start: its interpreter {interpreter!r} does not exist"
    return ""


def _check_template(spec: Spec, workload: CommandWorkload) -> None:
    if not workload.template:
        return
    path = spec.folder / workload.template
    try:
        asked = names_in_template(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SpecError(f"{spec.source}: workload.template: {path} cannot be read: {reason}") from error
    known = [*spec.space.names, *spec.fixed]
    for name in sorted(asked - set(known) - SPECIAL_NAMES.keys()):
        raise SpecError(
            f"{path}: has the placeholder {{{{{name}}}}}, which is not a parameter; "
            f"known are {', '.join([*known, *SPECIAL_NAMES])}"
        )
    for name in spec.space.names:
        if name not in asked | workload.names:
            raise SpecError(
                f"{spec.source}: parameters.{name}: is not used: workload.command, workload.env and "
                f"{workload.template} do not contain it"
            )


def _check_modules(spec: Spec, workload: FunctionWorkload) -> None:
    """Check for module names that installed modules shadow: the sweep's folder is searched last."""
    shadowed = _shadowed(spec.folder)
    own = shadowed.get(workload.module.partition(".")[0])
    if own is not None:
        raise SpecError(
            f"{spec.source}: workload: {spec.folder / own.file} cannot be imported: a module in {own.by} has "
            f"the same name; rename the file"
        )
    files = [module.file for module in shadowed.values()]
    if len(files) > 1:
        log.warning(
            "%s: %s and %s are shadowed by installed modules of the same names; rename the files",
            spec.folder, ", ".join(files[:-1]), files[-1],
        )  # fmt: skip
    elif files:
        log.warning(
            "%s: %s is shadowed by an installed module of the same name; rename the file",
            spec.folder, files[0],
        )  # fmt: skip


class _Shadowed(NamedTuple):
    """A shadowed file or package, and where its shadow is."""

    file: str
    by: str


def _shadowed(folder: Path) -> dict[str, _Shadowed]:
    """Find the modules in a folder that others shadow, by name."""
    found: dict[str, _Shadowed] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in all_suffixes() if path.name.endswith(suffix)), "")
        name = path.name.removesuffix(suffix)
        if not name.isidentifier() or not (suffix or (path / "__init__.py").is_file()):
            continue
        by = _shadow_of(name, path)
        if by:
            found[name] = _Shadowed(path.name, by)
    return found


def _shadow_of(name: str, path: Path) -> str:
    """Where another module of this name is found first; "" if nowhere."""
    if name in sys.stdlib_module_names:
        return "the standard library"
    if name == __name__.partition(".")[0]:
        # The running mpisweep, which is imported already.
        return ""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None
        if spec is not None and spec.origin is not None and spec.has_location:
            place = Path(spec.origin).resolve()
            return "" if path.resolve() in (place, place.parent) else os.fspath(Path(spec.origin).parent)
    return ""


def _check_function(spec: Spec, workload: FunctionWorkload, importing: subprocess.Popen[bytes]) -> None:
    if reason := _why_no_import(spec, importing):
        raise SpecError(
            f"{spec.source}: workload: {workload.module}:{workload.function} cannot be loaded: {reason}"
        )


def _why_no_import(spec: Spec, importing: subprocess.Popen[bytes]) -> str:
    """Why the sweep's function cannot be imported; "" if it can, or takes too long."""
    try:
        text = spec.text.encode(errors="surrogateescape")
        _, complaint = importing.communicate(text, timeout=_IMPORT_S)
    except subprocess.TimeoutExpired:
        importing.kill()
        return ""
    if not importing.returncode:
        return ""
    lines = [
        line.strip()
        for line in complaint.decode(locale.getencoding(), errors="replace").splitlines()
        if line.strip()
    ]
    return " ".join(lines[-4:]) or f"Python exited with {importing.returncode} during import"
