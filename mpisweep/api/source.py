"""The sweep of a call: a sweep file, a dict, keywords or a function.

A sweep without a file is written beside its results file, as ``NAME.h5.toml``: ranks on other nodes read it,
and ``mpisweep run NAME.h5.toml -o NAME.h5`` in a shell resumes what a notebook began.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpisweep.api.errors import InputError
from mpisweep.api.functions import named_function
from mpisweep.api.keys import Source
from mpisweep.results import ResultsError, file_to_create
from mpisweep.spec import After, ReadAfter, Spec, SpecError, load_spec, parse_spec
from mpisweep.spec.catalogue import names_workload
from mpisweep.spec.mapping import sweep_text
from mpisweep.spec.points import read_points_file
from mpisweep.spec.quick import default_name
from mpisweep.spec.wording import Wording

__all__ = ["Asked", "asked_sweep"]

#: Name of a sweep without a file in messages.
_SOURCE = "sweep"
#: First line of the files that are written here; others are never overwritten.
_HEADING = "# Written by mpisweep from a call in Python; the next call writes it again."


@dataclass(frozen=True, slots=True)
class Asked:
    """The sweep of a call.

    Attributes:
        spec: the parsed sweep.
        results: the results file.
        file: the sweep file.
        text: what to write there first; empty for a sweep file of the user's.
        folder: where modules, programs and relative paths are found, if not beside the file.
    """

    spec: Spec
    results: Path
    file: Path
    text: str = ""
    folder: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``mpisweep run`` for the sweep and its results file."""
        return [
            os.fspath(self.file), "-o", os.fspath(self.results),
            *([] if self.folder is None else ["--folder", os.fspath(self.folder)]),
        ]  # fmt: skip

    @contextlib.contextmanager
    def written(self) -> Iterator[int | None]:
        """Write the sweep file, if the user has none, and keep it as it is within the context.

        Yields:
            A descriptor for the command to inherit: as long as any process has it open, no other call
            changes the file.  None for a file of the user's.

        Raises:
            InputError: if it cannot be written, is not ours, or another sweep runs from it.
        """
        if not self.text:
            yield None
            return
        try:
            file = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"{self.file}: cannot be written: {error.strerror}") from error
        with os.fdopen(file, "r+", encoding="utf-8") as opened:
            self._write(opened)
            yield file

    def _write(self, opened: Any) -> None:
        _lock(opened.fileno(), fcntl.LOCK_SH)
        text = opened.read()
        if text != self.text:
            if text and not text.startswith(_HEADING):
                raise InputError(
                    f"{self.file}: was not written by mpisweep; move it aside, or set output to another file"
                )
            if not _lock(opened.fileno(), fcntl.LOCK_EX):
                raise InputError(
                    f"{self.file}: another sweep runs from this file; stop it first, or set output to "
                    "another file"
                )
            opened.seek(0)
            opened.truncate()
            opened.write(self.text)
            opened.flush()
            os.fsync(opened.fileno())
        _lock(opened.fileno(), fcntl.LOCK_SH)


def _lock(file: int, kind: int) -> bool:
    """Take a lock without waiting; False if another process prevents it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        # Some file systems have no locks; the claim still keeps two runs apart.
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN)
    return True


def asked_sweep(
    source: Source | None, keys: Mapping[str, Any], output: str | os.PathLike[str] | None
) -> Asked:
    """Read the sweep of a call.

    Args:
        source: a sweep file, a dict, a workload, or None for a workload among `keys`.
        keys: keys of a sweep file; they take precedence over those of a dict.
        output: the results file; ``NAME.h5`` unless given.

    Raises:
        InputError: if it is wrong, in the words of the command.
    """
    given = {name.removesuffix("_"): value for name, value in keys.items() if value is not None}
    if source is not None and (file := _sweep_file(source)) is not None:
        if given:
            raise InputError(f"{', '.join(given)}: only applies without a sweep file; set it in {file}")
        with _as_input_errors():
            spec = load_spec(file, read_after=_reader(str(file), file.resolve().parent, output))
        return Asked(spec, _results(output, spec.name), file)
    return _from_keys(source, given, output)


def _reader(source: str, folder: Path, output: str | os.PathLike[str] | None) -> ReadAfter:
    def read(file: str, name: str) -> After:
        # Most sweeps name no earlier one, and reading results is slow to import.
        from mpisweep.results.after import read_after

        return read_after(file, name, source=source, folder=folder, output=output)

    return read


def _sweep_file(source: Source) -> Path | None:
    """The sweep file; None for anything else.  A name without a file is a workload if it can be one."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    name = os.fspath(source)
    return None if isinstance(source, str) and names_workload(name) else Path(name)


def _from_keys(source: Source | None, given: dict[str, Any], output: str | os.PathLike[str] | None) -> Asked:
    if isinstance(source, Mapping):
        given = {**source, **given}
    elif source is not None:
        if "workload" in given:
            raise InputError("workload: is given twice, as the first argument and by name")
        given = {"workload": source, **given}
    folder = Path.cwd()
    workload = given.get("workload")
    if callable(workload):
        given["workload"], folder = named_function(workload)
    elif isinstance(workload, Sequence) and not isinstance(workload, str):
        given["workload"] = {"command": list(workload)}
    if "name" not in given:
        given = {"name": _name(given), **given}
    with _as_input_errors():
        text = f"{_HEADING}\n{sweep_text(_with_files(given, folder), Wording(_SOURCE))}"
        read_after = _reader(_SOURCE, folder, output)
        spec = parse_spec(text, source=_SOURCE, folder=folder, read_after=read_after)
    results = _results(output, spec.name)
    file = results.with_name(results.name + ".toml")
    return Asked(spec, results, file, text, folder)


def _name(given: Mapping[str, Any]) -> str:
    workload, parameters = given.get("workload", ""), given.get("parameters", {})
    command = workload.get("command", "") if isinstance(workload, Mapping) else workload
    words = command.split()[:2] if isinstance(command, str) and " " in command else command
    searched = [str(name) for name in parameters] if isinstance(parameters, Mapping) else []
    return default_name(words, searched) if words else "sweep"


def _with_files(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The keys with files of the working directory, wherever the module of the function is.

    Raises:
        SpecError: if the file of points is wrong.
    """
    found = dict(given)
    if isinstance(points := given.get("points"), (str, os.PathLike)):
        found["points"] = read_points_file(Wording(_SOURCE), Path(points))
    if "import" in given and folder != Path.cwd():
        found["import"] = _absolute(given["import"])
    if isinstance(after := given.get("after"), (str, os.PathLike)) and folder != Path.cwd():
        found["after"] = _absolute(after)
    return found


def _absolute(source: Any) -> Any:
    """The sources of known trials with absolute paths; URLs of storages stay."""
    if isinstance(source, Mapping):
        return {**source, "from": _absolute(source.get("from"))}
    if isinstance(source, (list, tuple)):
        return [_absolute(one) for one in source]
    is_path = isinstance(source, (str, os.PathLike)) and "://" not in os.fspath(source)
    return os.fspath(Path.cwd() / source) if is_path else source


def _results(output: str | os.PathLike[str] | None, name: str) -> Path:
    path = Path(output if output is not None else f"{name}.h5")
    try:
        return file_to_create(path, name, "output")
    except ResultsError as error:
        raise InputError(str(error)) from None


@contextlib.contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise InputError(str(error)) from None
