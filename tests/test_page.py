from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from test_figures import resnet_sweep

import mpisweep
from mpisweep.views.report import page


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    return page(mpisweep.load(resnet_sweep(tmp_path_factory.mktemp("page") / "flow.h5")), 3)


def test_the_page_has_the_table_the_figures_and_the_failures(made):
    assert made.count("<figure>") == 4
    assert '<th scope="row">1st</th><td>208</td>' in made
    assert '<tr class="baseline"><th scope="row">baseline</th><td>256</td>' in made
    # The trend at each size has an interval.
    assert '<th scope="col">trend</th><th scope="col">± 95%</th>' in made
    assert "<p>5 failed trials, grouped by cause and message" in made
    assert '<th scope="row">5</th><td class="text">out_of_memory</td>' in made
    assert "batch_size = { from = 16, to = 640, step = 16 }" in made


def test_the_page_is_self_contained_and_has_no_scripts(made):
    assert "<script" not in made
    links = re.findall(r'(?:href|src)="([^"]*)"', made)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_every_figure_in_it_is_well_formed(made):
    found = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    assert len(found) == made.count("<svg") > 0
    assert all(ET.fromstring(figure).tag.endswith("svg") for figure in found)


def test_the_same_sweep_gives_the_same_page(tmp_path: Path):
    sweep = mpisweep.load(resnet_sweep(tmp_path / "flow.h5"))
    assert page(sweep) == page(sweep)


def test_a_sweep_without_ended_trials_has_a_page(tmp_path: Path):
    made = page(mpisweep.load(resnet_sweep(tmp_path / "flow.h5", last=0)))
    assert "<svg" not in made
    assert made.endswith("</html>\n")


def test_the_command_writes_the_page_beside_the_results_and_prints_its_path(tmp_path: Path):
    resnet_sweep(tmp_path / "flow.h5")
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "report", "flow.h5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "flow.html"), done.stderr
    assert (tmp_path / "flow.html").read_text(encoding="utf-8").endswith("</html>\n")
    refused = subprocess.run(
        [sys.executable, "-m", "mpisweep", "report", "flow.h5", "-o", "no/such/folder.html"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr == "mpisweep: no/such/folder.html: cannot be written: No such file or directory\n"
