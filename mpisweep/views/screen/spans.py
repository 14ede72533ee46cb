"""Lines of text with styles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

__all__ = ["Line", "Moment", "Span", "aligned_lines", "clock", "cut"]

#: Widest cell of aligned lines.
_CELL = 72


class Span(NamedTuple):
    """Text in one style: empty, ``bold``, ``reverse``, ``good``, ``bad`` or ``warn``."""

    text: str
    style: str = ""


Line = list[Span]


@dataclass(frozen=True, slots=True)
class Moment:
    """What surrounds the facts when they are drawn.

    Attributes:
        now: seconds since 1970.
        silent_s: seconds since a file was last seen to change.
        problem: why the filter or the last read failed; empty if both are fine.
        judgement: how sure the best is; may be empty.
    """

    now: float
    silent_s: float
    problem: str = ""
    judgement: str = ""


def cut(lines: Sequence[Line], width: int) -> list[Line]:
    """Lines of at most this many cells, without control characters."""
    found: list[Line] = []
    for line in lines:
        left, spans = width, []
        for span in line:
            text = _printable(span.text)
            if cell_len(text) > left:
                text = set_cell_size(text, left)
            left -= cell_len(text)
            spans.append(Span(text, span.style))
        found.append(spans)
    return found


def aligned_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Cells below each other, the headings first.

    Args:
        headings: one per column.
        rows: the cells.
        right: whether each column is aligned to the right.
    """
    cells = [list(headings), *map(list, rows)]
    widths = [min(_CELL, max(cell_len(row[column]) for row in cells)) for column in range(len(headings))]
    lines: list[str] = []
    for row in cells:
        parts = [
            _aligned(cell, width, is_right=is_right)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def clock(seconds: float, now: float) -> str:
    """The time of day, with its date unless that is today's."""
    there, here = time.localtime(seconds), time.localtime(now)
    return time.strftime("%H:%M" if there[:3] == here[:3] else "%Y-%m-%d %H:%M", there)


def _aligned(text: str, width: int, *, is_right: bool) -> str:
    text = _printable(text)
    if is_right and cell_len(text) < width:
        return " " * (width - cell_len(text)) + text
    return set_cell_size(text, width)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)
