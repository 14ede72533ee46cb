"""The language of expressions: parsed, checked and evaluated without ``eval``.

Python's grammar, restricted to a list of allowed nodes: numbers, strings, ``true`` and ``false``, names,
arithmetic, comparisons (also chained), ``and``, ``or``, ``not``, ``in [...]`` and the functions in
:data:`FUNCTIONS`.  A name is a parameter, or a constant: a fixed value or a default of the workload.

*Types.*  An expression is a number, a string or a boolean, known before anything is evaluated, because the
values of each parameter are all of one kind.  Kinds do not mix: ``optimizer == "sgd" or "adamw"`` and
``batch_size == "64"`` are errors, where Python would silently give an answer.

*Bounds.*  Text, nesting and integers are bounded, so no expression takes long: ``9**9**9`` is an error.

*Absent parameters.*  A parameter with a condition may be absent from a configuration.  An expression that
needs its value has no value either; ``and`` and ``or`` evaluate their right side only if the left one does
not decide, so ``optimizer != "sgd" or momentum < 0.95`` has a value with any optimizer.

Pure.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpisweep.records import Value
from mpisweep.spec.expression import ExpressionError, kind_of
from mpisweep.spec.keys import nearest
from mpisweep.spec.units import configuration_text

__all__ = ["CHARS_AT_MOST", "FUNCTIONS", "Evaluate", "Parser", "value_of"]

#: Upper bound of an expression's length, and of its nesting.
CHARS_AT_MOST = 2000
_DEPTH_AT_MOST = 50
#: Upper bound of integers in an expression; parameters have 64.
_BITS_AT_MOST = 1024

Evaluate = Callable[[Mapping[str, Value]], Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _gcd(*numbers: Any) -> int:
    for number in numbers:
        if number != int(number):
            raise ValueError(f"gcd of {number!r}, which is not an integer")
    return math.gcd(*map(int, numbers))


def _log2(number: Any) -> float:
    if number <= 0:
        raise ValueError(f"log2 of {number!r}")
    return math.log2(number)


#: Function -> what it computes, and its number of arguments: at least, at most.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (min, 2, 16),
    "max": (max, 2, 16),
    "gcd": (_gcd, 2, 16),
    "log2": (_log2, 1, 1),
}
#: A string, without escapes.
_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
_CONSTANTS = {"true": True, "false": False}
#: What people write -> what this language has.
_HINTS = {"&&": "and", "||": "or", "<>": "!=", "=>": ">=", "=<": "<=", "===": "=="}


_LANGUAGE = (
    "an expression has numbers, strings, parameters, + - * / // % **, comparisons, and, or, not, in [...] "
    f"and the functions {', '.join(FUNCTIONS)}"
)
#: Parts of Python that no expression has.
_FOREIGN: dict[type[ast.expr], str] = {
    ast.Attribute: "'.'",
    ast.Subscript: "'[...]' behind a value",
    ast.IfExp: "'if'",
    ast.List: "a list that does not follow 'in'",
    ast.Tuple: "','",
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.BitXor: "'^'; a power is written **",
    ast.BitAnd: "'&'; write 'and'",
    ast.BitOr: "'|'; write 'or'",
}


_REASONS: dict[type[Exception], str] = {
    ZeroDivisionError: "division by zero",
    OverflowError: "a number is too large",
}


class Parser:
    """Parses one expression.

    Args:
        text: the expression.
        kinds: searched parameter -> the kind of its values.
        constants: every other name that may occur -> its value.

    Attributes:
        tree: what Python parses it to.
        kind: of its value.
        evaluate: computes its value.
        names: the searched parameters in it, in order.

    Raises:
        ExpressionError: if it is invalid.
    """

    def __init__(self, text: str, kinds: Mapping[str, str], constants: Mapping[str, Value]) -> None:
        self.text = text
        self._kinds = kinds
        self._values = constants
        self.names: dict[str, None] = {}
        #: The text on one line; a string cannot contain a line break.
        self._line = " ".join(text.splitlines())
        self._indent = len(self._line) - len(self._line.lstrip())
        self.tree = self._tree()
        self.kind, self.evaluate = self.convert(self.tree, 0)

    def _tree(self) -> ast.expr:
        if not self.text.strip():
            raise ExpressionError("it is empty; expected a condition such as batch_size <= 4096")
        if len(self.text) > CHARS_AT_MOST:
            length = f"has {len(self.text):,} characters; expected at most {CHARS_AT_MOST:,}"
            raise ExpressionError(f"{self.text[:40]!r}... {length}")
        if "#" in _STRING.sub("", self.text):
            raise ExpressionError(f"{self.text!r}: found '#'; an expression has no comments")
        try:
            with warnings.catch_warnings():
                # Python warns of comparisons such as `1 is 1`, which are refused below.
                warnings.simplefilter("ignore")
                return ast.parse(self._line.lstrip(), mode="eval").body
        except SyntaxError as error:
            # 0 is the end.
            at = self._indent + (error.offset or len(self._line) - self._indent + 1)
            raise self._error_at(at, self._syntax(error)) from None
        except (ValueError, RecursionError, MemoryError, OverflowError):
            raise ExpressionError(f"{self.text!r} cannot be parsed") from None

    def _syntax(self, error: SyntaxError) -> str:
        found = next((sign for sign in _HINTS if sign in self.text), None)
        if found:
            return f"found {found!r}; write {_HINTS[found]!r}"
        if re.search(r"(?<![=<>!])=(?!=)", _STRING.sub("", self.text)):
            return "found '='; a comparison is written =="
        return f"it is not an expression ({error.msg})"

    def error(self, node: ast.expr, problem: str) -> ExpressionError:
        """An error at a node, with its column."""
        # Python counts bytes.
        before = self._line.lstrip().encode()[: node.col_offset].decode(errors="ignore")
        return self._error_at(self._indent + len(before) + 1, problem)

    def _error_at(self, column: int, problem: str) -> ExpressionError:
        return ExpressionError(f"{self.text!r}, column {column}: {problem}")

    # ------------------------------------------------------------------------------------- nodes

    def convert(self, node: ast.expr, depth: int) -> tuple[str, Evaluate]:
        """Kind of a node, and the function that computes its value."""
        if depth > _DEPTH_AT_MOST:
            raise self.error(node, f"it is nested more than {_DEPTH_AT_MOST} levels deep")
        match node:
            case ast.Constant():
                return self._constant(node, node.value)
            case ast.Name():
                return self._name(node)
            case ast.UnaryOp():
                return self._unary(node, depth)
            case ast.BinOp():
                return self._binary(node, depth)
            case ast.BoolOp():
                return self._logical(node, depth)
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.Call():
                return self._call(node, depth)
        found = _FOREIGN.get(type(node), "Python that no expression has")
        raise self.error(node, f"found {found}; {_LANGUAGE}")

    def _constant(self, node: ast.expr, value: object) -> tuple[str, Evaluate]:
        if not isinstance(value, (int, float, str)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise self.error(node, f"found {value!r}; expected a finite number, a string, true or false")
        if isinstance(value, int) and value.bit_length() > _BITS_AT_MOST:
            raise self.error(node, f"found an integer of {value.bit_length():,} bits; expected at most 64")
        return kind_of(value), lambda _: value

    def _name(self, node: ast.Name) -> tuple[str, Evaluate]:
        name = node.id
        if name in self._kinds:
            self.names[name] = None
            # A missing key means that the parameter is absent.
            return self._kinds[name], operator.itemgetter(name)
        if name in self._values:
            return self._constant(node, self._values[name])
        if name in _CONSTANTS:
            return self._constant(node, _CONSTANTS[name])
        raise self.error(node, f"{name!r} is not a parameter; {nearest(name, [*self._kinds, *self._values])}")

    def _of_kind(self, node: ast.expr, depth: int, wanted: str) -> Evaluate:
        kind, value = self.convert(node, depth + 1)
        if kind != wanted:
            raise self.error(node, f"found a {kind} where a {wanted} is expected")
        return value

    def _unary(self, node: ast.UnaryOp, depth: int) -> tuple[str, Evaluate]:
        if isinstance(node.op, ast.Not):
            inner = self._of_kind(node.operand, depth, "boolean")
            return "boolean", lambda values: not inner(values)
        if isinstance(node.op, ast.Invert):
            raise self.error(node, "found '~'; write 'not'")
        inner = self._of_kind(node.operand, depth, "number")
        if isinstance(node.op, ast.UAdd):
            return "number", inner
        return "number", lambda values: -inner(values)

    def _binary(self, node: ast.BinOp, depth: int) -> tuple[str, Evaluate]:
        left = self._of_kind(node.left, depth, "number")
        right = self._of_kind(node.right, depth, "number")
        if isinstance(node.op, ast.Pow):
            return "number", lambda values: _power(left(values), right(values))
        if isinstance(node.op, ast.Mult):
            return "number", lambda values: _bounded(left(values) * right(values))
        if type(node.op) not in _ARITHMETIC:
            raise self.error(node, f"found {_OPERATORS.get(type(node.op), 'an unknown operator')}")
        compute = _ARITHMETIC[type(node.op)]
        return "number", lambda values: compute(left(values), right(values))

    def _logical(self, node: ast.BoolOp, depth: int) -> tuple[str, Evaluate]:
        parts = [self._of_kind(part, depth, "boolean") for part in node.values]
        if isinstance(node.op, ast.And):
            return "boolean", lambda values: all(part(values) for part in parts)
        return "boolean", lambda values: any(part(values) for part in parts)

    def _comparison(self, node: ast.Compare, depth: int) -> tuple[str, Evaluate]:
        kind, left = self.convert(node.left, depth + 1)
        steps: list[tuple[Callable[[Any, Any], bool], Evaluate]] = []
        for comparison, other in zip(node.ops, node.comparators, strict=True):
            if isinstance(comparison, (ast.In, ast.NotIn)):
                if len(node.ops) > 1:
                    raise self.error(node, "found 'in' in a chain of comparisons; join them with 'and'")
                return "boolean", self._membership(
                    left, kind, other, depth, isinstance(comparison, ast.NotIn)
                )
            if type(comparison) not in _COMPARISONS:
                raise self.error(node, "found 'is'; write == or !=")
            kind_other, right = self.convert(other, depth + 1)
            if kind_other != kind:
                raise self.error(other, f"found a {kind_other} that is compared with a {kind}")
            if kind == "boolean" and not isinstance(comparison, (ast.Eq, ast.NotEq)):
                raise self.error(other, "found booleans that are compared by size; write == or !=")
            steps.append((_COMPARISONS[type(comparison)], right))
        if len(steps) == 1:
            [(compare, right)] = steps
            return "boolean", lambda values: compare(left(values), right(values))
        return "boolean", lambda values: _chain(left, steps, values)

    def _membership(
        self, item: Evaluate, kind: str, listed: ast.expr, depth: int, is_negated: bool
    ) -> Evaluate:
        if not isinstance(listed, (ast.List, ast.Tuple, ast.Set)):
            raise self.error(listed, "found no list after 'in'; expected e.g. in [1, 2, 4]")
        members = [self._of_kind(member, depth, kind) for member in listed.elts]
        return lambda values: (item(values) in [member(values) for member in members]) != is_negated

    def _call(self, node: ast.Call, depth: int) -> tuple[str, Evaluate]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            raise self.error(node, f"found the function {name!r}; {nearest(name, FUNCTIONS)}")
        compute, least, most = FUNCTIONS[name]
        if node.keywords or not least <= len(node.args) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise self.error(node, f"{name} has {len(node.args)} arguments; expected {count}")
        arguments = [self._of_kind(argument, depth, "number") for argument in node.args]
        return "number", lambda values: compute(*[argument(values) for argument in arguments])


def value_of(parser: Parser, configuration: Mapping[str, Value]) -> Any:
    """The value of an expression.

    Raises:
        ExpressionError: if it has none, e.g. because of a division by zero.
        KeyError: if the value of an absent parameter is needed.
    """
    try:
        return parser.evaluate(configuration)
    except KeyError:
        raise
    except (ArithmeticError, ValueError, TypeError) as error:
        reason = _REASONS.get(type(error), str(error))
        known = {name: configuration[name] for name in configuration if name in parser.names}
        where = f" at {configuration_text(known)}" if known else ""
        raise ExpressionError(f"{parser.text!r} has no value{where}: {reason}") from error


def _chain(
    first: Evaluate, steps: Sequence[tuple[Callable[[Any, Any], bool], Evaluate]], values: Mapping[str, Value]
) -> bool:
    left = first(values)
    for compare, other in steps:
        right = other(values)
        if not compare(left, right):
            return False
        left = right
    return True


def _power(base: Any, exponent: Any) -> Any:
    """Raise to a power whose size is known beforehand."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if base.bit_length() * exponent > _BITS_AT_MOST and abs(base) > 1:
            raise OverflowError
        return base**exponent
    power = base**exponent
    if isinstance(power, complex):
        raise ValueError(f"{base!r} ** {exponent!r} is not a real number")
    return power


def _bounded(number: Any) -> Any:
    if isinstance(number, int) and number.bit_length() > _BITS_AT_MOST:
        raise OverflowError
    return number
