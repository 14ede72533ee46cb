"""The report in a real browser: narrow and wide, light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from figure_sweeps import made_sweep
from test_figures import resnet_sweep
from test_objectives import repeated_sweep

import mpisweep
from mpisweep.views.report import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr",
)  # fmt: skip
#: Each page lies in frames of these widths and colours; a frame has the media queries of its own size.
WIDTHS, SCHEMES = (390, 1280), ("light", "dark")

#: Measures a page: its width, what sticks out of it and of no box that scrolls, the least contrast of texts.
MEASURE = """
function luminance(colour) {
  return colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
}
function behind(style, element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = style(e).backgroundColor;
    if (colour !== 'rgba(0, 0, 0, 0)') return colour;
  }
  return 'rgb(255, 255, 255)';
}
function measured(frame) {
  const page = frame.contentDocument, view = frame.contentWindow, style = e => view.getComputedStyle(e);
  const all = [...page.body.querySelectorAll('*')];
  const wide = all.filter(e => e.getBoundingClientRect().right > page.documentElement.clientWidth + 1
    && !e.closest('.box')).map(e => e.tagName);
  let contrast = 21, least = '';
  for (const e of all.filter(e => !e.closest('svg') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))) {
    const [a, b] = [luminance(style(e).color), luminance(behind(style, e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < contrast) { contrast = ratio; least = e.tagName; }
  }
  const headings = all.filter(e => /^H[1-6]$/.test(e.tagName)).map(e => +e.tagName[1]);
  return {
    client: page.documentElement.clientWidth, scroll: page.documentElement.scrollWidth, wide, contrast, least,
    headings, ink: style(page.body).color, paper: style(page.body).backgroundColor,
    nameless: all.filter(e => e.matches('img:not([alt]), img[alt=""], svg[role]:not([aria-label])')).length,
    boxes: [...page.querySelectorAll('.box')].filter(e => e.scrollWidth > e.clientWidth + 1).length,
    loaded: view.performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:')),
    figures: page.querySelectorAll('figure svg, figure img').length,
  };
}
onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(measured);
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = JSON.stringify(found);
};
"""


def hostile(folder: Path) -> str:
    """The page of a sweep whose messages and names would widen it, or load something."""
    made = page(
        mpisweep.load(resnet_sweep(folder / "flow.h5")),
        log_lines=lambda numbers: dict.fromkeys(numbers, "x" * 300 + '<img src="https://example.org/a.png">'),
    )
    assert "&lt;img src" in made
    return made


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[list[dict], str]:
    """What the browser measures of each page in each setting, and what it logs."""
    folder = tmp_path_factory.mktemp("browser")
    pages = [
        hostile(folder),
        page(mpisweep.load(made_sweep(folder / "many.h5", "five", 2500, workers=8, pruned=0.4))),
        page(mpisweep.load(repeated_sweep(folder / "front.h5"))),
        page(mpisweep.load(made_sweep(folder / "none.h5", "two", 6, failed=1.1))),
    ]
    frames = "".join(
        f'<iframe style="width: {width}px; height: 900px; border: 0; color-scheme: {scheme}" '
        f'srcdoc="{html.escape(made)}"></iframe>'
        for made in pages
        for width in WIDTHS
        for scheme in SCHEMES
    )
    around = folder / "around.html"
    around.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>{frames}'
        f"<script>{MEASURE}</script>",
        encoding="utf-8",
    )
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", str(around)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1])), done.stderr


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def test_the_page_never_scrolls_sideways_and_only_boxes_do(seen):
    for one in seen[0]:
        assert one["client"] in WIDTHS
        assert (one["scroll"], one["wide"]) == (one["client"], [])
    assert any(one["boxes"] for one in seen[0] if one["client"] == WIDTHS[0])


def test_it_loads_nothing_and_logs_no_error(seen):
    assert [one["loaded"] for one in seen[0]] == [[]] * len(seen[0])
    assert "CONSOLE" not in seen[1]


def test_texts_can_be_read_in_light_and_dark(seen):
    papers = {(one["paper"], one["ink"]) for one in seen[0]}
    assert len(papers) == len(SCHEMES)
    for one in seen[0]:
        assert one["contrast"] >= 4.5, one["least"]


def test_headings_are_nested_and_figures_have_texts(seen):
    for one in seen[0]:
        assert one["headings"][0] == 1
        assert one["headings"].count(1) == 1
        assert all(
            after - before <= 1 for before, after in zip(one["headings"], one["headings"][1:], strict=False)
        )
        assert one["nameless"] == 0
    assert all(one["figures"] >= 3 for one in seen[0][: -len(WIDTHS) * len(SCHEMES)])
