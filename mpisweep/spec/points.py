"""Parse ``points``, a list of configurations: in the sweep file, or in a CSV file.

::

    points = [{ batch_size = 1, learning_rate = 0.1 }, { batch_size = 4, learning_rate = 0.2 }]
    points = { batch_size = [1, 4], learning_rate = [0.1, 0.2] }
    points = "points.csv"

All three are the same space.  Results files contain the second form in place of a file's name, so that they
can be read and resumed without the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mpisweep.records import Value
from mpisweep.spec.domains import Parameter, SpaceError
from mpisweep.spec.expression import kind_of
from mpisweep.spec.keys import IDENTIFIER
from mpisweep.spec.mapping import with_inline
from mpisweep.spec.parameters import parse_parameter, parse_value
from mpisweep.spec.space import SearchSpace
from mpisweep.spec.wording import Wording

__all__ = ["LISTED_AT_MOST", "parse_points", "read_points_file", "with_points_inline"]

#: Upper bound of the number of points, because the results file contains them as text.
LISTED_AT_MOST = 100_000

_IDENTIFIER = re.compile(IDENTIFIER)
#: Parameter -> its value in every point.
Columns = dict[str, list[Value]]


def parse_points(wording: Wording, raw: Any) -> SearchSpace:
    """Parse the list of points of a sweep file, or a table of equally long lists.

    Raises:
        SpecError: if it is invalid.
    """
    columns = _of_tables(wording, raw) if isinstance(raw, list) else _of_lists(wording, raw)
    count = len(next(iter(columns.values()), ()))
    if not count:
        wording.fail("points", "is empty; expected at least one point")
    if count > LISTED_AT_MOST:
        wording.fail("points", f"has {count:,} points; expected at most {LISTED_AT_MOST:,}")
    parameters: list[Parameter] = []
    for name, values in columns.items():
        _check_name(wording, "", name)
        parameters.append(_parameter(wording, name, values))
        if isinstance(parameters[-1].at(0), float):
            columns[name] = [float(value) for value in values]
    rows = tuple(zip(*columns.values(), strict=True))
    _check_distinct(wording, rows)
    return SearchSpace(tuple(parameters), points=rows)


def _check_name(wording: Wording, where: str, name: str) -> None:
    if not _IDENTIFIER.fullmatch(name):
        expected = "expected letters, digits and underscores"
        wording.fail("points", f"{where}{name!r} is not a valid parameter name; {expected}")


def _of_tables(wording: Wording, raw: list[Any]) -> Columns:
    columns: Columns = {}
    for place, point in enumerate(raw):
        if not isinstance(point, dict):
            wording.fail("points", f"entry {place + 1} is {point!r}; expected a table of parameters")
        if not columns:
            columns = {name: [] for name in point}
        for name in dict.fromkeys([*point, *columns]):
            if name not in columns or name not in point:
                has, first = ("has no", "has it") if name in columns else ("has", "has not")
                wording.fail(
                    "points",
                    f"entry {place + 1} {has} {name!r} and entry 1 {first}; expected the same parameters",
                )
            columns[name].append(point[name])
    return columns


def _of_lists(wording: Wording, raw: Any) -> Columns:
    if not isinstance(raw, dict) or not all(isinstance(values, list) for values in raw.values()):
        wording.fail(
            "points", f"is {raw!r}; expected a list such as [{{ batch_size = 1 }}], or the name of a CSV file"
        )
    if len({len(values) for values in raw.values()}) > 1:
        counts = " and ".join(f"{len(values):,} values of {name!r}" for name, values in raw.items())
        wording.fail("points", f"found {counts}; expected equally many")
    return {name: list(values) for name, values in raw.items()}


def _parameter(wording: Wording, name: str, values: list[Any]) -> Parameter:
    """The domain of a parameter: the values that it has in some point."""
    for place, value in enumerate(values):
        if not isinstance(value, (int, float, str, bool)) or kind_of(value) != kind_of(values[0]):
            wording.fail(
                "points",
                f"{name!r} is {value!r} in entry {place + 1} and {values[0]!r} in entry 1; expected numbers, "
                "strings or booleans, of one kind",
            )
    try:
        return parse_parameter(name, list(dict.fromkeys(values)))
    except SpaceError as error:
        wording.fail("points", f"{name!r}: {error}")


def _check_distinct(wording: Wording, rows: Iterable[tuple[Value, ...]]) -> None:
    seen: dict[tuple[Value, ...], int] = {}
    for place, row in enumerate(rows):
        first = seen.setdefault(row, place)
        if first != place:
            wording.fail("points", f"entries {first + 1} and {place + 1} are equal; remove one of them")


# ------------------------------------------------------------------------------------- CSV


def read_points_file(wording: Wording, path: Path) -> Columns:
    """Read a CSV file: a line of names, then one line per point.

    A column whose first entry is a number has numbers, one whose first entry is true or false has booleans,
    and any other has strings.

    Raises:
        SpecError: if it is invalid, with line and column.
    """
    import csv

    try:
        # Spreadsheets write a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            separator = max(",;\t", key=head.count)
            return _columns(wording, path, csv.reader(file, delimiter=separator, skipinitialspace=True))
    except OSError as error:
        wording.fail("points", f"{path} cannot be read: {error.strerror}")
    except (UnicodeDecodeError, csv.Error) as error:
        wording.fail("points", f"{path} is not CSV in UTF-8: {error}")


def _columns(wording: Wording, path: Path, lines: Any) -> Columns:
    names: list[str] = []
    columns: Columns = {}
    for cells in lines:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not names:
            names = cells
            columns = {name: [] for name in names}
            for name in names:
                _check_name(wording, f"{path}, line {lines.line_num}: ", name)
            if len(columns) < len(names):
                wording.fail("points", f"{path}, line {lines.line_num}: a column is there twice")
            continue
        if len(cells) != len(names):
            wording.fail(
                "points",
                f"{path}, line {lines.line_num}: has {len(cells)} entries; the first line has {len(names)}",
            )
        for name, cell in zip(names, cells, strict=True):
            try:
                columns[name].append(_entry(cell, columns[name][:1]))
            except ValueError as error:
                wording.fail("points", f"{path}, line {lines.line_num}, column {name}: {error}")
    if not names or not columns[names[0]]:
        wording.fail("points", f"{path}: has no points; expected a line of names, then one line per point")
    return columns


def _entry(cell: str, first: list[Value]) -> Value:
    """Parse an entry; `first` is that of the first point, if it has been read.

    Raises:
        ValueError: if it is empty or of another kind; the message is the end of a sentence.
    """
    if not cell:
        raise ValueError("is empty; every point has a value for every parameter")
    value = parse_value({"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}.get(cell, cell))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"is {cell}; expected a finite number")
    if first and kind_of(first[0]) == "string":
        return cell
    if first and kind_of(value) != kind_of(first[0]):
        raise ValueError(f"is {cell!r}; expected a {kind_of(first[0])}, as in the lines above")
    return value


def with_points_inline(wording: Wording, text: str, raw: Mapping[str, Any], columns: Columns) -> str:
    """The text of a sweep file with the points themselves in place of the name of their file."""
    return with_inline(wording, text, raw, "points", columns)
