"""Figures for an HTML page: inline SVG, or PNG where that is smaller."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.image import AxesImage
from PIL import Image

from mpisweep.views.figures.style import STYLE, SweepFigure

__all__ = ["inline"]

#: Characters of an SVG element up to which no PNG is made for comparison.
_SMALL = 60_000
#: Pixels per inch of a PNG: two per CSS pixel, for displays of high resolution.
_DPI = 192
#: Colours of a PNG; figures have few, and shades of them.
_COLOURS = 256
#: Levels of red, green and blue above this one are white.
_WHITE = 250


def inline(figure: SweepFigure, text: str) -> str:
    """Render a finished figure as one HTML element.

    Args:
        figure: from one of the functions that draw; it is laid out, and cannot be drawn on any more.
        text: what it shows, for those who cannot see it.
    """
    # Every drawing ends with its layout; another one would take as long as the rest.
    figure.set_layout_engine("none")
    with mpl.rc_context(STYLE):
        if _is_pixels(figure):
            return _png(figure, text)
        svg = _svg(figure, text)
        return svg if len(svg) <= _SMALL else min(svg, _png(figure, text), key=len)


def _is_pixels(figure: SweepFigure) -> bool:
    """Whether a layer is pixels in SVG too, which stores them with more colours than a PNG here."""
    return bool(figure.findobj(lambda artist: artist.get_rasterized() or isinstance(artist, AxesImage)))


def _svg(figure: SweepFigure, text: str) -> str:
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    # `savefig` would lay it out and draw it once more.
    canvas.print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    made = buffer.getvalue()
    # The XML declaration is for stand-alone files, and the rule for lines stands in the page's own style.
    made = made[made.index("<svg") :]
    made = re.sub(r"<!--.*?-->\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", made, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", made))
    made = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", made)
    made = re.sub(r"\s*\n\s*", "\n", made)
    return made.replace("<svg", f'<svg role="img" aria-label="{html.escape(text)}"', 1).strip()


def _png(figure: SweepFigure, text: str) -> str:
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    pixels: Any = Image.frombytes("RGBA", (width, height), bytes(canvas.buffer_rgba())).convert("RGB")
    drawn = pixels.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # The background would be a shade darker than the paper.
    drawn.putpalette([255 if level > _WHITE else level for level in drawn.getpalette()])
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    # The size in CSS pixels, so that the page does not move when it has loaded.
    size = f'width="{round(width * 96 / _DPI)}" height="{round(height * 96 / _DPI)}"'
    return f'<img {size} alt="{html.escape(text)}" src="data:image/png;base64,{data}">'
