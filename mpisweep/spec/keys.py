"""Every key of a sweep file: one table, from which all else that speaks of them is made.

The parser's checks and defaults (:mod:`~mpisweep.spec.sweepfile`), its messages, the reference in
``docs/sweep-file.md`` and the JSON schema for editors (:mod:`~mpisweep.spec.schema`) read this table.  A new
key is one row here, and a line where its value is used.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mpisweep.plugins import BUILT_IN, SEARCHES
from mpisweep.records import Direction, Value
from mpisweep.spec.units import parse_bytes, parse_duration

__all__ = [
    "DEVICES_AT_MOST", "FUNCTION", "IDENTIFIER", "INTEGER_AT_MOST", "KEYS", "MEMORY_WORDS", "NAME",
    "POINTS_AT_MOST", "RANKS", "RANKS_AT_MOST", "SEARCH_NAMES", "TEXT_CHARS", "USUAL_OBJECTIVE", "Key",
    "key_of", "keys_of", "names_of", "nearest", "right_place", "unknown_key",
]  # fmt: skip

#: The parameter that says how many ranks a trial has; every workload has it.
RANKS = "ranks_per_trial"
RANKS_AT_MOST = 4096
#: The objective of a sweep that names none.
USUAL_OBJECTIVE = "loss"
#: More GPUs in one node, or more workers on one GPU, than anybody has.
DEVICES_AT_MOST = 64
#: More grid points of real numbers than this are a slip of the pen.
POINTS_AT_MOST = 1_000_000
#: A text is part of every record of a trial that has it.
TEXT_CHARS = 1 << 16
#: What a results file can hold.
INTEGER_AT_MOST = 2**63 - 1
#: How the memory that a trial needs can go with a parameter's value.
MEMORY_WORDS = ("increasing", "decreasing")
#: The built-in searches.
SEARCH_NAMES = tuple(BUILT_IN[SEARCHES])

#: A sweep's name is that of its results file; a parameter's that of an argument; a function's
#: ``module:function``.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"

Kind = Literal[
    "text", "name", "choice", "integer", "number", "flag", "duration", "size", "devices", "table",
    # These are taken apart where they are used; here they have a place in the documentation and the schema.
    "workload", "command", "template", "variables", "values",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        table: the table that it is in; empty for the top of the file.
        default: as a sweep file would have it; None where there is none.
        meaning: for the documentation, and for an editor beside the key.
        unit: of a number without a unit of its own.
        low: the smallest number allowed.
        high: the largest one, where it is not simply that of 64 bits.
        values: of a choice.
        usual: what holds where the key is left out, in words, where the default does not say it.
        since: the first version that has it.
    """

    table: str
    name: str
    kind: Kind
    default: Value | None
    meaning: str
    unit: str = ""
    low: int | None = None
    high: int | None = None
    values: tuple[str, ...] = ()
    usual: str = ""
    is_required: bool = False
    since: str = "0.1.0"

    @property
    def path(self) -> str:
        """How messages call it."""
        return f"{self.table}.{self.name}" if self.table else self.name

    def problem(self, value: object) -> str | None:
        """What is wrong with the form of `value`, as the end of a sentence; None when nothing is."""
        match self.kind:
            case "text":
                fits, wanted = _is_text(value), "a text"
            case "name":
                fits = _is_text(value) and re.fullmatch(NAME, str(value)) is not None
                wanted = (
                    "letters, digits, '.', '_' and '-', as in a file name" if _is_text(value) else "a text"
                )
            case "choice":
                fits, wanted = value in self.values, f"one of {', '.join(self.values)}"
            case "integer":
                low = self.low or 0
                fits = (
                    isinstance(value, int) and not isinstance(value, bool) and low <= value <= INTEGER_AT_MOST
                )
                wanted = f"an integer of at least {low}"
            case "flag":
                fits, wanted = isinstance(value, bool), "true or false"
            case "duration":
                fits, wanted = parse_duration(value) is not None, 'a duration like "10m" or 600'
            case "size":
                fits, wanted = parse_bytes(value) is not None, 'a size like "4GiB" or "500MB"'
            case "devices":
                fits, wanted = _devices(value) is not None, "1, 2, ... GPUs, or a share like 0.5 or 0.25"
            case "table":
                fits, wanted = isinstance(value, dict), f"a table, [{self.path}]"
            case _:
                raise AssertionError(f"{self.path} is checked where it is used")
        return None if fits else f"is {value!r}; expected {wanted}"

    def read(self, value: Any) -> Any:
        """What a value without a :meth:`problem` means: seconds of a duration, bytes of a size."""
        match self.kind:
            case "duration":
                return parse_duration(value)
            case "size":
                return parse_bytes(value)
            case "devices":
                return _devices(value)
            case "table":
                return dict(value)
        return value

    def get(self, table: Mapping[str, Any]) -> Any:
        """What a table whose values have no problem says of it: the value, or the default."""
        if self.name in table:
            return self.read(table[self.name])
        return None if self.default is None else self.read(self.default)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _devices(value: object) -> float | None:
    """A whole number of GPUs, or 1 over one; shares may be rounded, as 0.33 is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if 1 <= value <= DEVICES_AT_MOST and value == round(value):
        return float(value)
    if 1 / DEVICES_AT_MOST <= value < 1 and abs(1 / value - round(1 / value)) < 0.05:
        return float(1 / round(1 / value))
    return None


_DIRECTIONS = tuple(direction.value for direction in Direction)

KEYS: tuple[Key, ...] = (
    Key("", "name", "name", "sweep",
        "name of the sweep; its results file is `NAME.h5` unless `-o` names another"),
    Key("", "workload", "workload", None,
        "what a trial runs: a built-in workload, a function `module:function`, or "
        "`{ command = \"...\" }`", is_required=True),
    Key("", "objective", "text", USUAL_OBJECTIVE,
        "the metric that decides which trial is best",
        usual="`loss`; `images_per_second` with `search = \"largest_batch\"` where the workload reports it"),
    Key("", "direction", "choice", "minimize",
        "whether smaller or larger objectives are better",
        values=_DIRECTIONS, usual="`minimize`; `maximize` with `search = \"largest_batch\"`"),
    Key("", "search", "choice", "grid",
        "which configurations of the space are tried, and in which order", values=SEARCH_NAMES),
    Key("", "trials", "integer", None,
        "how many configurations a search samples; it may grow from run to run; not for `grid` and "
        "`largest_batch`", low=1, usual="none; needed by searches that sample"),
    Key("", "seed", "integer", 0, "of the search, and of the trials' own seeds", low=0),
    Key("", "max_points", "integer", 1_000_000,
        "the largest grid that is accepted: a larger one is refused before anything runs",
        low=1, unit="points"),
    Key("", "devices_per_trial", "devices", 1,
        "GPUs of a trial; a share such as `0.5` runs that many trials per GPU at a time", unit="GPU"),
    Key("", RANKS, "integer", None,
        "MPI ranks of a trial; it may be searched too, under `[parameters]`",
        low=1, high=RANKS_AT_MOST, usual="`1`, in one process without a rendezvous"),
    Key("", "fresh_process", "flag", False, "start every trial in a process that has run none before"),
    Key("", "parameters", "table", None, "what is searched: a range or a list of choices per parameter"),
    Key("", "fixed", "table", None, "parameters with one value, the same in every trial"),
    Key("", "baseline", "table", None,
        "the configuration that the others are compared with; it is a trial too", usual="no baseline"),
    Key("", "metrics", "table", None,
        "for a command line: a regular expression per metric, searched in what the program prints"),
    Key("", "limits", "table", None, "what a trial may cost, and when the sweep gives up"),

    Key("limits", "timeout", "duration", None,
        "a trial that runs longer is killed; it has failed, with the cause `timeout`", usual="no limit"),
    Key("limits", "stall", "duration", None,
        "a trial that reports nothing for so long is killed; it has failed, with the cause `timeout`",
        usual="no limit"),
    Key("limits", "retries", "integer", 2, "how often a trial is run again after its worker was lost", low=0),
    Key("limits", "grace", "duration", "10s",
        "what running trials have to save and return when the sweep is stopped"),
    Key("limits", "silence", "duration", "30s",
        "a rank that gives no sign of life for so long counts as lost, and its trials run elsewhere"),
    Key("limits", "disk", "duration", "10m",
        "how long writing the journal may fail, as on a full disk, before the sweep stops"),
    Key("limits", "restarts", "integer", 20,
        "how often `mpisweep run` starts the ranks again after a loss that MPI did not survive", low=0),
    Key("limits", "same_failures", "integer", 20,
        "the sweep stops when its first so many trials all fail in the same way; `0`: never",
        low=0, unit="trials"),
    Key("limits", "quarantine", "flag", True,
        "give no more trials to a device that fails, or is slow, where others are not"),
    Key("limits", "memory", "size", None,
        "main memory that a trial process may have, and a program that it starts", usual="no limit"),

    Key("workload", "command", "command", None,
        "the program and its arguments, one text or a list of texts; `{name}` is a parameter, "
        "`{name:FORMAT}` one in Python's format", is_required=True),
    Key("workload", "template", "template", None,
        "a file beside the sweep file in which `{{name}}` is filled in; the program finds the result "
        "at `{template}`", usual="none"),
    Key("workload", "env", "variables", None,
        "variables of the program's environment; values may have placeholders", usual="none"),
    Key("workload", "directory", "choice", "sweep",
        "where the program runs: in the sweep file's folder, or in a folder of the trial's own",
        values=("sweep", "trial")),

    Key("range", "from", "number", None, "the smallest value", is_required=True),
    Key("range", "to", "number", None, "the largest value", is_required=True),
    Key("range", "step", "number", None,
        "distance of neighbouring values, above 0; not on a log scale",
        usual="`1` between integers; none between real numbers"),
    Key("range", "scale", "choice", "linear",
        "with `log` equal ratios, and not equal differences, are equally likely", values=("linear", "log")),
    Key("range", "points", "integer", None,
        "how many values a grid takes of a log scale, or of real numbers; instead of `step`",
        low=1, high=POINTS_AT_MOST, usual="all integers; real numbers have none"),
    Key("range", "memory", "choice", None,
        "whether larger values need more memory or less: the sweep then finds out which values do not "
        "fit, and runs none of those beyond", values=MEMORY_WORDS, usual="nothing is assumed"),

    Key("list", "values", "values", None, "the choices, all of them numbers", is_required=True),
    Key("list", "memory", "choice", None, "as in a range", values=MEMORY_WORDS, is_required=True),
)  # fmt: skip

#: Table -> where its keys are written, for messages.
_PLACES = {
    "": "at the top of the file, before the first [table]",
    "limits": "in [limits]",
    "workload": "in workload = { ... }",
    "range": "in an entry of [parameters]",
    "list": "in an entry of [parameters]",
}
_BY_PATH = {(key.table, key.name): key for key in KEYS}


def key_of(name: str, table: str = "") -> Key:
    """The key of that name in a table."""
    return _BY_PATH[table, name]


def keys_of(table: str) -> tuple[Key, ...]:
    """The keys of a table, in the order of the documentation."""
    return tuple(key for key in KEYS if key.table == table)


def names_of(table: str) -> tuple[str, ...]:
    """The names of a table's keys, in the order of the documentation."""
    return tuple(key.name for key in keys_of(table))


def nearest(name: str, known: Iterable[str]) -> str:
    """End a sentence about an unknown name: with the one that may be meant, or with all there are."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "known are " + (", ".join(names) or "none")


def right_place(name: str, table: str) -> str:
    """Where a key found in `table` belongs; empty when no other table has such a key."""
    places = (_PLACES[key.table] for key in KEYS if key.name == name and key.table != table)
    return " or ".join(dict.fromkeys(places))


def unknown_key(name: str, table: str) -> str:
    """What is wrong with a key that `table` does not have, as the end of a sentence."""
    place = right_place(name, table)
    return f"belongs {place}" if place else f"is not a known key; {nearest(name, names_of(table))}"
