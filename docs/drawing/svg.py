"""Boxes, arrows and text as SVG: on a white ground, with text that can be selected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["MONO_PX", "Canvas", "wrapped"]

INK, PALE_INK, LINE = "#1f2328", "#57606a", "#57606a"
_SANS = "'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
_MONO = "Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
#: The width of a letter of the widest of these fonts, in units of its size.
MONO_PX = 0.603


def wrapped(words: Iterable[str], width: float, size: float = 12) -> list[str]:
    """Words in lines that are no wider than this in the font of names."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}  {word}" if lines else word
        if lines and len(longer) * size * MONO_PX <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


class Canvas:
    """A picture while it is drawn.

    Args:
        width: in pixels.
        title: what it shows, for those who cannot see it.
    """

    def __init__(self, width: int, title: str) -> None:
        self.width = width
        self._title = title
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, dashed: bool = False
    ) -> None:
        """A box with round corners."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="6" '
            f'fill="{fill}" stroke="{LINE}"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        mono: bool = False,
        bold: bool = False,
        pale: bool = False,
        anchor: str = "start",
    ) -> None:
        """A line of text with its base line at `y`."""
        style = f'font-size="{_n(size)}" fill="{PALE_INK if pale else INK}"'
        if mono:
            # Two spaces keep names apart.
            style += ' class="m" xml:space="preserve"'
        if bold:
            style += ' font-weight="bold"'
        if anchor != "start":
            style += f' text-anchor="{anchor}"'
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}" {style}>{escape(text, quote=False)}</text>')

    def lines(
        self, x: float, y: float, lines: Sequence[str], step: float, *, mono: bool = False, pale: bool = False
    ) -> None:
        """Lines of text, the base line of the first one at `y`."""
        for index, line in enumerate(lines):
            self.text(x, y + index * step, line, mono=mono, pale=pale)

    def arrow(self, points: Sequence[tuple[float, float]], *, both: bool = False) -> None:
        """A line through these points with a head at its end, or at both."""
        self._path(points, 'marker-end="url(#head)"' + (' marker-start="url(#head)"' if both else ""))

    def line(self, points: Sequence[tuple[float, float]]) -> None:
        """A line through these points."""
        self._path(points, 'stroke-linecap="round"')

    def _path(self, points: Sequence[tuple[float, float]], ends: str) -> None:
        path = " L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._parts.append(f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.4" {ends}/>')

    def chip(self, x: float, y: float, text: str) -> None:
        """A small label on a line, around this point."""
        width = 8 + 7 * len(text)
        self._parts.append(
            f'<rect x="{_n(x - width / 2)}" y="{_n(y - 8)}" width="{_n(width)}" height="16" rx="8" '
            f'fill="#ffffff" stroke="#d0d7de"/>'
        )
        self.text(x, y + 4, text, size=11, anchor="middle")

    def svg(self, height: float) -> str:
        """The picture as text."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{_n(height)}" '
            f'viewBox="0 0 {self.width} {_n(height)}" role="img" font-family="{_SANS}">',
            f"<title>{escape(self._title, quote=False)}</title>",
            f"<style>.m {{ font-family: {_MONO} }}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>',
            f'<rect width="{self.width}" height="{_n(height)}" fill="#ffffff"/>',
        )
        return "\n".join([*head, *self._parts, "</svg>", ""])


def _n(number: float) -> str:
    """A number as short as it can be written with one decimal."""
    return f"{number:.1f}".removesuffix(".0")
