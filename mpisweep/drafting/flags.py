"""The options of a program, from the source of a Python script or the text of its help."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mpisweep.records import Value

__all__ = ["Flag", "Kind", "flags_in_help", "flags_in_source"]

Kind = Literal["integer", "number", "text", "choice", "switch"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of a program, or one parameter of a function.

    Attributes:
        name: of the parameter.
        flag: as on the command line, e.g. ``--lr`` or ``-n``; empty for an argument without one.
        default: None if there is none or it is not known.
        low: smallest value that the program accepts, if it says so.
        high: largest value.
    """

    name: str
    flag: str
    kind: Kind
    default: Value | None = None
    choices: tuple[Value, ...] = ()
    help: str = ""
    is_required: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def placed(self) -> tuple[str, ...]:
        """The words of the command line that pass the parameter."""
        if not self.flag:
            return (f"{{{self.name}}}",)
        if self.flag.startswith("--"):
            return (f"{self.flag}={{{self.name}}}",)
        return self.flag, f"{{{self.name}}}"


# ------------------------------------------------------------------------------------- from source

_TYPES: dict[str, Kind] = {
    "int": "integer", "INT": "integer", "IntRange": "integer",
    "float": "number", "FLOAT": "number", "FloatRange": "number",
}  # fmt: skip


def flags_in_source(tree: ast.Module) -> list[Flag]:
    """The options that a script declares with argparse or click, in the order of the text."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: dict[str, Flag] = {}
    for node in sorted(
        (node for node in ast.walk(tree) if isinstance(node, ast.Call)), key=lambda call: call.lineno
    ):
        called = _last_name(node.func)
        names = [part.value for part in node.args if isinstance(part, ast.Constant)]
        if called not in ("add_argument", "option", "argument") or not all(
            isinstance(name, str) for name in names
        ):
            continue
        options = {word.arg: constants.get(getattr(word.value, "id", ""), word.value)
                   for word in node.keywords if word.arg}  # fmt: skip
        flag = _declared([str(name) for name in names], options, is_click=called != "add_argument")
        if flag is not None:
            found.setdefault(flag.name, flag)
    return list(found.values())


def _declared(names: Sequence[str], options: Mapping[str, ast.expr], *, is_click: bool) -> Flag | None:
    dashed = [name for name in names if name.startswith("-")]
    plain = [name for name in names if not name.startswith("-")]
    flag = max(dashed, key=lambda name: (name.startswith("--"), -dashed.index(name)), default="")
    is_switch = "/" in flag or _is_switch(options)
    flag = flag.partition("/")[0]
    name = _literal(options.get("dest")) or next(reversed(plain), "") or flag
    name = re.sub(r"\W", "_", str(name).lstrip("-"))
    if is_click:
        name = name.lower()
    if not name.isidentifier() or name in ("help", "version"):
        return None
    default, choices = _literal(options.get("default")), _choices(options)
    kind = _kind(options.get("type"), default if is_click else None, choices)
    low, high = _bounds(options.get("type"))
    return Flag(
        name=name,
        flag=flag,
        kind="switch" if is_switch else kind,
        default=default if isinstance(default, int | float | str) else None,
        choices=choices,
        help=" ".join(str(_literal(options.get("help")) or "").split()),
        is_required=(not flag and "nargs" not in options) or bool(_literal(options.get("required"))),
        low=low,
        high=high,
    )


def _is_switch(options: Mapping[str, ast.expr]) -> bool:
    action = options.get("action")
    named = _literal(action) if isinstance(action, ast.Constant) else _last_name(action)
    # Options with several values cannot be passed as one word either.
    return named not in (None, "", "store") or bool(_literal(options.get("is_flag"))) or "nargs" in options


def _kind(given: ast.expr | None, default: Any, choices: Sequence[Value]) -> Kind:
    if choices:
        return "choice"
    name = _last_name(given.func if isinstance(given, ast.Call) else given)
    if not name and isinstance(default, int | float):
        return "switch" if isinstance(default, bool) else "integer" if isinstance(default, int) else "number"
    return _TYPES.get(name, "text")


def _choices(options: Mapping[str, ast.expr]) -> tuple[Value, ...]:
    given = options.get("choices")
    kind = options.get("type")
    if given is None and isinstance(kind, ast.Call) and _last_name(kind.func) == "Choice" and kind.args:
        given = kind.args[0]
    values = _literal(given)
    if not isinstance(values, list | tuple) or len({type(value) for value in values}) != 1:
        return ()
    return tuple(value for value in values if isinstance(value, int | float | str))


def _bounds(kind: ast.expr | None) -> tuple[float | None, float | None]:
    if not isinstance(kind, ast.Call) or _last_name(kind.func) not in ("IntRange", "FloatRange"):
        return None, None
    given = dict(zip(("min", "max"), map(_literal, kind.args), strict=False))
    given |= {word.arg: _literal(word.value) for word in kind.keywords if word.arg in ("min", "max")}
    low, high = given.get("min"), given.get("max")
    return (low if isinstance(low, int | float) else None, high if isinstance(high, int | float) else None)


def _last_name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


# ------------------------------------------------------------------------------------- from help

_LINE = re.compile(
    r"^\s{0,12}(?:(?P<short>-\w)(?:[ =](?P<short_value>[A-Z<\[{][\w.|,<>\[\]{}-]*))?)?"
    r"(?:,?\s*(?P<long>--[A-Za-z][\w-]*)"
    r"(?:[ =](?P<value>\[?[A-Z<{][\w.|,<>\[\]{}-]*|\[[\w.|,-]+\])(?: [A-Z]+)*)?)?(?:\s{2,}(?P<help>.*))?$"
)
_DEFAULT = re.compile(
    r"[(\[][^()\[\]]*\bdefaults?(?: is|:|=)?\s*(?P<value>[^()\[\];,]+)[^()\[\]]*[)\]]", re.IGNORECASE
)
_TYPED: dict[str, Kind] = {
    "INT": "integer", "INTEGER": "integer", "N": "integer", "FLOAT": "number", "REAL": "number",
    "DOUBLE": "number",
}  # fmt: skip


def flags_in_help(text: str) -> list[Flag]:
    """The options that a program's help describes."""
    found: dict[str, Flag] = {}
    for line, more in _entries(text):
        match = _LINE.match(line)
        if match is None or not (match["short"] or match["long"]):
            continue
        flag = _described(match, " ".join([match["help"] or "", *more]).strip())
        if flag is not None:
            found.setdefault(flag.name, flag)
    return list(found.values())


def _entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines that begin an option, each with the lines that continue its help."""
    line, more = "", list[str]()
    for following in text.splitlines():
        if following.lstrip().startswith("-"):
            yield line, more
            line, more = following, []
        elif following.startswith((" " * 6, "\t")) and line:
            more.append(following.strip())
        else:
            yield line, more
            line, more = "", []
    yield line, more


def _described(match: re.Match[str], text: str) -> Flag | None:
    flag = match["long"] or match["short"]
    name = re.sub(r"\W", "_", flag.lstrip("-"))
    if not name.isidentifier() or name in ("help", "version", "h", "V"):
        return None
    metavar = (match["value"] or match["short_value"] or "").strip("<>")
    stated = _DEFAULT.search(text)
    default = _number_or_text(stated["value"].strip(" '\"`.")) if stated else None
    choices: tuple[Value, ...] = ()
    if metavar[:1] in ("{", "[") and re.search("[|,]", metavar):
        words = [_number_or_text(word) for word in re.split("[|,]", metavar.strip("{}[]"))]
        choices = tuple(words) if len({type(word) for word in words}) == 1 else tuple(map(str, words))
    kind: Kind = "text"
    if choices:
        kind = "choice"
    elif not metavar:
        kind = "switch"
    elif metavar.upper() in _TYPED:
        kind = _TYPED[metavar.upper()]
        default = float(default) if kind == "number" and isinstance(default, int) else default
    elif isinstance(default, int | float):
        kind = "integer" if isinstance(default, int) else "number"
    return Flag(name, flag, kind, default, choices, text)


def _number_or_text(text: str) -> Value:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
