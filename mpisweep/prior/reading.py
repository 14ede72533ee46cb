"""Read the sources of ``import``, and choose what a search can be told of them.

A trial is used if it is complete, has a finite objective, and lies in the search space: every parameter has
one of its values, and every constraint holds.  A source of which nothing can be used is refused: the user
expects knowledge that is not there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpisweep.errors import how_to_add
from mpisweep.prior.foreign import ForeignError, ForeignSweep, ForeignTrial, read_csv, read_results
from mpisweep.records import Value
from mpisweep.results import ResultsError, journal_folder
from mpisweep.spec import ImportSource, Spec
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.space import Choice, Configuration, FloatRange, IntegerRange, Parameter

__all__ = ["Imported", "read_imports"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class Imported:
    """Trials known from elsewhere, one entry of each list per trial.

    Attributes:
        notes: for each source, how many of its trials are told, and which are not.
        warnings: differences between a source and this sweep.
    """

    sources: list[str] = field(default_factory=list)
    configurations: list[Configuration] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    wall_time_s: list[float | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_imports(spec: Spec) -> Imported:
    """Read the trials that a sweep imports.

    Raises:
        ResultsError: if a source cannot be read, or nothing of it can be used.
    """
    found = Imported()
    with _within(spec.folder):
        for source in spec.imports:
            try:
                _add(found, spec, source, _read(source, spec))
            except (ForeignError, ResultsError) as error:
                # The message of a results file that cannot be read names it.
                text = str(error).removeprefix(f"{source.place}: ")
                raise ResultsError(f"{spec.source}: import: {source.place}: {text}") from error
            except OSError as error:
                raise ResultsError(
                    f"{spec.source}: import: {source.place}: cannot be read: {error.strerror or error}"
                ) from error
    return found


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    """Resolve relative names, also those in a URL, as the sweep file's."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _read(source: ImportSource, spec: Spec) -> ForeignSweep:
    path = Path(source.place)
    is_url = "://" in source.place
    if not is_url and (_is_results(path) or path.suffix == ".csv"):
        if source.study:
            raise ForeignError("is not an Optuna storage; remove 'study'")
        return read_csv(path, spec) if path.suffix == ".csv" else read_results(path, spec)
    if not is_url and not _is_journal(path):
        raise ForeignError("is neither a results file, a CSV file nor a journal file of Optuna")
    try:
        from mpisweep.prior.optuna_storage import read_study
    except ImportError as error:
        raise ForeignError(
            f"needs Optuna, which is not installed ({error}); {how_to_add('optuna')}"
        ) from None
    return read_study(source.place, source.study, spec)


def _is_results(path: Path) -> bool:
    if not path.exists():
        return journal_folder(path).exists()
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5


def _is_journal(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return "op_code" in json.loads(file.readline())
        except (ValueError, TypeError):
            return False


def _add(found: Imported, spec: Spec, source: ImportSource, sweep: ForeignSweep) -> None:
    """Add the trials of a source that can be told."""
    missing = [
        name for name in spec.space.names if name not in sweep.names and name not in spec.space.absentable
    ]
    if missing:
        raise ForeignError(
            f"has no parameter {missing[0]!r}; it has {', '.join(sorted(sweep.names)) or 'none'}"
        )
    outside = without = 0
    before = len(found.sources)
    for trial in sweep.trials:
        configuration = _inside(spec, trial)
        if trial.objective is None or not math.isfinite(trial.objective):
            without += 1
        elif configuration is None:
            outside += 1
        else:
            found.sources.append(source.place)
            found.configurations.append(configuration)
            found.objectives.append(trial.objective)
            found.wall_time_s.append(trial.wall_time_s)
    count = len(found.sources) - before
    left_out = [
        f"{number} {why}"
        for number, why in ((without, f"without a finite {spec.objective}"), (outside, "outside the space"))
        if number
    ]
    if not count:
        raise ForeignError(f"has no trial that can be used: {' and '.join(left_out) or 'it is empty'}")
    text = f"{count:,} trial{'s' * (count > 1)} imported from {source.place}"
    found.notes.append("; left out: ".join([text, *([" and ".join(left_out)] if left_out else [])]))
    if sweep.differences:
        found.warnings.append(
            f"import: {source.place} has {', '.join(sweep.differences)}; its trials are told nevertheless"
        )


def _inside(spec: Spec, trial: ForeignTrial) -> Configuration | None:
    """The configuration of a trial in this space; None if it is outside."""
    values: Configuration = {}
    for parameter in spec.space.parameters:
        value = _value(parameter, trial.parameters)
        if value is not None:
            values[parameter.name] = value
    try:
        configuration = spec.space.complete(values)
        return configuration if spec.space.contains(configuration) else None
    except (ExpressionError, KeyError):
        return None


def _value(parameter: Parameter, values: Mapping[str, Value]) -> Value | None:
    """The value of a parameter, of this space's type; None if there is none that is equal to it."""
    raw = values.get(parameter.name)
    if raw is None:
        return None
    if isinstance(parameter, Choice):
        return next((one for one in parameter.values if _is_same(one, raw)), None)
    try:
        number = float(raw)
    except ValueError:
        return None
    match parameter:
        case IntegerRange():
            return int(number) if number.is_integer() else None
        case FloatRange():
            return number


def _is_same(value: Value, raw: Value) -> bool:
    if isinstance(raw, str) and not isinstance(value, str):
        # A cell of a CSV file.
        if isinstance(value, bool):
            return raw.lower() == str(value).lower()
        with contextlib.suppress(ValueError):
            return float(raw) == value
        return False
    return isinstance(raw, bool) == isinstance(value, bool) and raw == value
