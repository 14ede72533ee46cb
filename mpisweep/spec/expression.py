"""The conditions of ``where`` and ``when``, in the language of :mod:`.grammar`.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mpisweep.records import Value
from mpisweep.spec.grammar import CHARS_AT_MOST, FUNCTIONS, ExpressionError, Parser, kind_of, value_of

__all__ = ["CHARS_AT_MOST", "FUNCTIONS", "Expression", "ExpressionError", "kind_of"]


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
        parser = Parser(self.text, self.kinds, self.constants)
        if parser.kind != "boolean":
            expected = "expected a condition such as batch_size <= 4096"
            raise parser.error(parser.tree, f"it is a {parser.kind}; {expected}")
        return parser

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
            return bool(value_of(self._parsed, configuration))
        except KeyError:
            return if_absent
