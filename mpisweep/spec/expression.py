"""The conditions of ``where`` and ``when``, in the language of :mod:`.grammar`.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from mpisweep.dataclass import dataclass, field
from mpisweep.records import Value

if TYPE_CHECKING:
    from mpisweep.spec.grammar import Parser

__all__ = ["Expression", "ExpressionError", "kind_of"]


class ExpressionError(ValueError):
    """Invalid expression, or one without a value; the message quotes it and says where and why."""


def kind_of(value: Value) -> str:
    """Kind of a value: ``number``, ``string`` or ``boolean``."""
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


@dataclass(frozen=True)
class Expression:
    """A condition on the parameters of a configuration; equal if the texts are.

    Attributes:
        text: as the user wrote it.
        kinds: searched parameter -> the kind of its values.
        constants: every other name that may occur -> its value.
    """

    text: str
    kinds: Mapping[str, str] = field(compare=False, repr=False)
    constants: Mapping[str, Value] = field(compare=False, repr=False)

    @cached_property
    def _parsed(self) -> Parser:
        # With it comes ast, which sweeps without conditions do not need.
        from mpisweep.spec.grammar import Parser

        parser = Parser(self.text, self.kinds, self.constants)
        if parser.kind != "boolean":
            expected = "expected a condition such as batch_size <= 4096"
            raise parser.error(parser.tree, f"it is a {parser.kind}; {expected}")
        return parser

    @cached_property
    def _value(self) -> Callable[[Mapping[str, Value]], Any]:
        from mpisweep.spec.grammar import value_of

        return partial(value_of, self._parsed)

    def check(self) -> None:
        """Parse the expression.

        Raises:
            ExpressionError: if it is invalid, or is no condition.
        """
        assert self._parsed

    @property
    def names(self) -> frozenset[str]:
        """The searched parameters in it.

        Raises:
            ExpressionError: if it is invalid.
        """
        return frozenset(self._parsed.names)

    def holds(self, configuration: Mapping[str, Value], *, if_absent: bool) -> bool:
        """Whether the condition is true of a configuration.

        Args:
            configuration: parameter -> value; parameters that do not exist in it are absent.
            if_absent: the answer if the value of an absent parameter is needed.

        Raises:
            ExpressionError: if it is invalid, or has no value, e.g. because of a division by zero.
        """
        try:
            return bool(self._value(configuration))
        except KeyError:
            return if_absent
