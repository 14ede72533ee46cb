"""Metrics of a program, guessed from its print statements, or from the texts in its file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

__all__ = ["Guess", "metrics_in_binary", "metrics_in_source"]

_PRINTERS = ("print", "echo", "info", "warning", "write", "log", "secho", "print0")
_STEP = re.compile(r"(?:epochs?|steps?|iter(?:ation)?s?|it|batch|round|time ?step)", re.IGNORECASE)
_METRIC = re.compile(
    r"loss|acc(?:uracy)?|error|\berr\b|mse|mae|rmse|score|\bf1|auc|reward|residual|energy|perplexity|\bppl|"
    r"time|throughput|flops|bleu|iou|psnr|ssim|norm|objective|cost|likelihood",
    re.IGNORECASE,
)
#: End of a text before a value: the words that name it.
_LABEL = re.compile(r"(?P<label>[A-Za-z_][\w .%/-]*?)\s*[:=]?\s*$")
_PERCENT = re.compile(
    r"%[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh?|ll?|[Lqjzt])?(?P<kind>[diouxXeEfFgGaAcspr])"
)
_BRACE = re.compile(r"\{[^{}]*?(?::(?P<spec>[^{}]*))?\}")
#: Longest part of a program's file that is searched, in bytes.
_MOST_BYTES = 50_000_000


class Guess(NamedTuple):
    """A metric, and the regular expression that finds it in the output."""

    name: str
    pattern: str


class _Value(NamedTuple):
    """A printed value; whether it is surely a real number or an integer."""

    is_real: bool = False
    is_integer: bool = False


class _Found(NamedTuple):
    label: str
    step: str


def metrics_in_source(tree: ast.Module) -> list[Guess]:
    """The numbers that the print calls of a script label."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) in _PRINTERS]
    found = []
    for call in sorted(calls, key=lambda node: node.lineno):
        pieces: list[str | _Value] = []
        for argument in call.args:
            pieces += [*_pieces(argument), " "]
        found += list(_labelled(pieces))
    return _guesses(found)


def metrics_in_binary(data: bytes) -> list[Guess]:
    """The numbers that the format strings of a C program, or the texts of a Fortran one, label."""
    found = []
    for match in re.finditer(rb"[\x20-\x7e\n\t]{4,400}", data[:_MOST_BYTES]):
        text = match[0].decode("ascii")
        pieces = list(_split_percent(text))
        if any(isinstance(piece, _Value) for piece in pieces):
            found += list(_labelled(pieces))
        elif re.search(r"[:=]\s*$", text) and "%" not in text:
            # A list-directed write of Fortran: the number follows its text.
            found += list(_labelled([text, _Value()]))
    return _guesses(found)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _pieces(node: ast.expr) -> Iterator[str | _Value]:
    """Split what is printed into texts and values."""
    match node:
        case ast.Constant(str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            for part in parts:
                if isinstance(part, ast.FormattedValue):
                    yield _of_spec("".join(map(str, _pieces(part.format_spec))) if part.format_spec else "")
                else:
                    yield from _pieces(part)
        case ast.BinOp(left=ast.Constant(str(text)), op=ast.Mod()):
            yield from _split_percent(text)
        case ast.Call(func=ast.Attribute(value=ast.Constant(str(text)), attr="format")):
            end = 0
            for match in _BRACE.finditer(text):
                yield text[end : match.start()]
                yield _of_spec(match["spec"] or "")
                end = match.end()
            yield text[end:]
        case _:
            yield _Value()


def _of_spec(spec: str) -> _Value:
    return _Value(is_real=spec[-1:] in tuple("eEfFgG%"), is_integer=spec[-1:] == "d")


def _split_percent(text: str) -> Iterator[str | _Value]:
    end = 0
    for match in _PERCENT.finditer(text):
        yield text[end : match.start()]
        yield _Value(is_real=match["kind"] in "eEfFgGaA", is_integer=match["kind"] in "diu")
        end = match.end()
    yield text[end:]


def _labelled(pieces: Sequence[str | _Value]) -> Iterator[_Found]:
    """Yield the metrics of one line of output, each with the label of its step if the line has one."""
    step = text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        tail = re.split(r"[,;|()\[\]\n\t!?]|\s-+\s|\. ", text)[-1]
        label = _LABEL.search(tail)
        text = ""
        if label is None:
            continue
        name = label["label"].strip()
        words = name.split()
        if _STEP.fullmatch(name) or (_STEP.fullmatch(words[-1]) and not _METRIC.search(words[-1])):
            step = words[-1]
        elif len(words) <= 4 and not piece.is_integer and (piece.is_real or _METRIC.search(name)):
            yield _Found(name, step)


def _guesses(found: Iterable[_Found]) -> list[Guess]:
    labels: dict[str, _Found] = {}
    for one in found:
        name = re.sub(r"\W+", "_", one.label).strip("_").lower()
        if re.fullmatch(r"[a-z]\w*", name) and name != "step":
            labels.setdefault(name, one)
    return [Guess(name, _pattern(one, labels.values())) for name, one in labels.items()]


def _pattern(found: _Found, others: Iterable[_Found]) -> str:
    label = found.label
    # The loss of "val loss: 3" is another metric.
    before = {
        other.label[: -len(label)] for other in others if other.label.lower().endswith(f" {label.lower()}")
    }
    guards = "".join(f"(?<!{re.escape(text)})".replace("\\ ", " ") for text in sorted(before))
    words = re.sub(r"(?:\\ )+", r"\\s+", re.escape(label))
    labelled = f"{guards}\\b{words}"
    if not found.step:
        return labelled
    return f"\\b{re.escape(found.step)}\\W*(?P<step>\\d+).*?{labelled}[:=\\s]*(?P<value>\\S+)"
