"""Functions that can be a workload, the parameters they read and the metrics they report."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from mpisweep.drafting.flags import Flag
from mpisweep.records import Value

__all__ = ["Function", "functions_in"]


class Function(NamedTuple):
    """A function, its parameters in the order of the text, and the names of its metrics."""

    name: str
    parameters: tuple[Flag, ...]
    metrics: tuple[str, ...]


def functions_in(tree: ast.Module) -> list[Function]:
    """The functions of a module that use their only argument as a trial, or call it so."""
    found = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        needed = len(node.args.args) - len(node.args.defaults)
        if node.args.posonlyargs or needed != 1:
            continue
        trial = node.args.args[0].arg
        function = Function(node.name, tuple(_parameters(node, trial)), tuple(_metrics(node, trial)))
        if trial == "trial" or function.parameters:
            found.append(function)
    return found


def _parameters(function: ast.FunctionDef, trial: str) -> Iterator[Flag]:
    """Yield the entries of ``trial.params`` that are read, also through another name for it."""
    aliases = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _is_params(node.value, trial, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    seen: set[str] = set()
    reads = [node for node in ast.walk(function) if isinstance(node, ast.Subscript | ast.Call)]
    for node in sorted(reads, key=lambda read: (read.lineno, read.col_offset)):
        default: Value | None = None
        match node:
            case ast.Subscript(value=read, slice=ast.Constant(str(name))):
                pass
            case ast.Call(func=ast.Attribute(value=read, attr="get"), args=[ast.Constant(str(name)), *rest]):
                if (
                    rest
                    and isinstance(rest[0], ast.Constant)
                    and isinstance(rest[0].value, int | float | str)
                ):
                    default = rest[0].value
            case _:
                continue
        if name.isidentifier() and name not in seen and _is_params(read, trial, aliases):
            seen.add(name)
            kind = {bool: "switch", int: "integer", float: "number", str: "text"}.get(type(default), "number")
            yield Flag(name, "", kind, default)  # type: ignore[arg-type]


def _is_params(node: ast.expr, trial: str, aliases: set[str]) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(name), attr="params"):
            return name == trial
        case ast.Name(name):
            return name in aliases
    return False


def _metrics(function: ast.FunctionDef, trial: str) -> Iterator[str]:
    names: dict[str, None] = {}
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(name), attr="report"), keywords=words) if (
                name == trial
            ):
                names |= dict.fromkeys(word.arg for word in words if word.arg and word.arg != "step")
            case ast.Return(value=ast.Dict(keys=keys)):
                names |= dict.fromkeys(
                    key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )
    yield from (name for name in names if name.isidentifier())
