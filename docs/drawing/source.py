"""What the source of the package says, read and never imported: a changed copy can be read as well."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

__all__ = ["Source", "calls_in", "word_of"]

Node = TypeVar("Node", bound=ast.expr)


class Source:
    """The modules of a package as syntax trees.

    Args:
        package: its folder.
    """

    def __init__(self, package: Path) -> None:
        self.package = package

    @cached_property
    def texts(self) -> dict[str, str]:
        """Name of each module below the package (``master.loop``) -> its text; a package by its own name."""
        found: dict[str, str] = {}
        for path in sorted(self.package.rglob("*.py")):
            parts = path.relative_to(self.package).with_suffix("").parts
            found[".".join(parts).removesuffix("__init__").rstrip(".")] = path.read_text(encoding="utf-8")
        return found

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Name of each module -> its syntax tree."""
        return {name: _parsed(text) for name, text in self.texts.items()}

    def below(self, room: str) -> list[str]:
        """The modules of a room, which is a package or a module, in order."""
        return [name for name in self.texts if name == room or name.startswith(f"{room}.")]

    def definition(self, module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
        """A class or function at the top of a module."""
        for node in self.trees[module].body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return node
        raise LookupError(f"{module} has no {name}")

    def defined(self, module: str, name: str) -> str:
        """The name, if it stands for something at the top of a module.

        Raises:
            LookupError: where it does not.
        """
        for node in self.trees[module].body:
            match node:
                case ast.ClassDef(found) | ast.FunctionDef(found) | ast.Assign(targets=[ast.Name(found)]):
                    if found == name:
                        return name
        raise LookupError(f"{module} has no {name}")

    def value(self, module: str, name: str) -> ast.expr:
        """What a name at the top of a module is assigned."""
        for node in self.trees[module].body:
            match node:
                case ast.Assign(targets=[ast.Name(found)], value=value) if found == name:
                    return value
                case ast.AnnAssign(target=ast.Name(found), value=ast.expr() as value) if found == name:
                    return value
        raise LookupError(f"{module} has no {name}")

    def union(self, module: str, name: str) -> list[str]:
        """The members of a union of types, in order."""
        members = [word_of(node) for node in _alternatives(self.value(module, name))]
        assert all(members), f"{module}.{name} is more than a union of names"
        return members

    def numbered(self, module: str) -> list[str]:
        """The names at the top of a module that stand for a number of their own each: kinds of frames."""
        return [
            node.targets[0].id
            for node in self.trees[module].body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and not node.targets[0].id.startswith("_")
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, int)
        ]

    def members(self, module: str, enum: str) -> dict[str, str]:
        """Name of each member of an enum -> the comment above it (``#:``)."""
        lines = self.texts[module].splitlines()
        found: dict[str, str] = {}
        for node in self.definition(module, enum).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                above = node.lineno - 1
                while lines[above - 1].strip().startswith("#:"):
                    above -= 1
                comment = [line.strip().removeprefix("#:").strip() for line in lines[above : node.lineno - 1]]
                found[node.targets[0].id] = " ".join(comment)
        return found

    def table(self, module: str) -> dict[str, list[str]]:
        """The table in a module's docstring, ruled with ``=``: the first cell of each row -> the others."""
        lines = (ast.get_docstring(self.trees[module]) or "").splitlines()
        rules = [index for index, line in enumerate(lines) if line and not line.strip("= ")]
        if len(rules) != 3:
            raise LookupError(f"{module} has no table in its docstring")
        starts = [found.start() for found in re.finditer("=+", lines[rules[0]])]
        rows: dict[str, list[str]] = {}
        for line in lines[rules[1] + 1 : rules[2]]:
            cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
            rows[cells[0].strip("`")] = cells[1:]
        return rows

    def keys_of_dicts(self, module: str, key: str) -> list[str]:
        """What the dictionaries that a module writes out have under a key, in order."""
        found = [
            value.value
            for node in _in_order(self.trees[module], ast.Dict)
            for name, value in zip(node.keys, node.values, strict=True)
            if isinstance(name, ast.Constant) and name.value == key and isinstance(value, ast.Constant)
        ]
        return list(dict.fromkeys(found))

    def imports(self) -> dict[str, set[str]]:
        """Each module -> the modules of the package that it imports."""
        return {name: set(self._imported(name)) - {name} for name in self.trees}

    def _imported(self, module: str) -> Iterator[str]:
        top = self.package.name
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name == top or name.startswith(f"{top}."):
                    yield self._module_of(name.removeprefix(top).lstrip("."))

    def _module_of(self, name: str) -> str:
        while name and name not in self.texts:
            name = name.rpartition(".")[0]
        return name


@cache
def _parsed(text: str) -> ast.Module:
    """The tree of a module; whoever compares two copies of a package parses what they share once."""
    return ast.parse(text)


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _alternatives(node.left)
        yield from _alternatives(node.right)
    else:
        yield node


def word_of(node: ast.AST) -> str:
    """``a.b.c`` for a name or an attribute of one; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := word_of(node.value)):
        return f"{before}.{node.attr}"
    return ""


def calls_in(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """The calls in there of a function or method of this name, in the order of the text."""
    for call in _in_order(tree, ast.Call):
        if _last_word(call.func) == name:
            yield call


def _last_word(node: ast.expr) -> str:
    """``c`` of ``a.b.c``, whatever comes before it."""
    return node.attr if isinstance(node, ast.Attribute) else word_of(node)


def _in_order(tree: ast.AST, kind: type[Node]) -> list[Node]:
    """The nodes of a kind in the order of the text."""
    found = [node for node in ast.walk(tree) if isinstance(node, kind)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))
