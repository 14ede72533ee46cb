"""Arithmetic over ``{best.NAME}``, the numbers of another sweep's best configuration.

The parser of constraints (:mod:`~mpisweep.spec.grammar`) reads it; few sweeps need that.  Pure.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from mpisweep.records import Value
from mpisweep.spec.expression import kind_of
from mpisweep.spec.grammar import Evaluate, Parser, value_of
from mpisweep.spec.key import nearest

__all__ = ["best_value"]


def best_value(text: str, file: str, best: Mapping[str, Value]) -> Any:
    """The value of a text.

    Args:
        text: such as ``{best.learning_rate} / 3``.
        file: names the results file of the other sweep, for messages.
        best: its best configuration.

    Raises:
        ExpressionError: if it has no value.
    """
    return value_of(_BestParser(text, file, best), {})


class _BestParser(Parser):
    """Parses arithmetic over ``{best.NAME}``, which Python reads as a set of one attribute."""

    def __init__(self, text: str, file: str, best: Mapping[str, Value]) -> None:
        self._file = file
        self._best = best
        super().__init__(text, {}, {})

    def convert(self, node: ast.expr, depth: int) -> tuple[str, Evaluate]:
        """Kind of a node, and the function that computes its value."""
        match node:
            case ast.Set(elts=[ast.Attribute(value=ast.Name(id="best"), attr=name)]):
                return self._value(node, name)
            case ast.Name(id=name) if name not in ("true", "false"):
                raise self.error(node, f"found {name!r}; write {{best.{name}}}")
        return super().convert(node, depth)

    def _value(self, node: ast.expr, name: str) -> tuple[str, Evaluate]:
        if name not in self._best:
            raise self.error(node, f"{self._file} has no parameter {name!r}; {nearest(name, self._best)}")
        value = self._best[name]
        return kind_of(value), lambda _: value
