"""The documentation as a site, and the tutorial as a new user would follow it."""

from __future__ import annotations

import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from voice import ROOT
from waiting import PATIENCE_S

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
#: A block of the tutorial: language, file that it becomes, text.
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


class Links(html.parser.HTMLParser):
    """The local links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to."""
        known = dict(attrs)
        if anchor := known.get("id") or known.get("name"):
            self.anchors.add(anchor)
        if tag == "a" and (link := known.get("href")):
            self.links.append(link)
        if tag in ("img", "script") and (source := known.get("src")):
            self.loaded.append(source)
        if tag == "link" and known.get("rel") == "stylesheet" and (source := known.get("href")):
            self.loaded.append(source)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_link_of_the_site_works_from_a_file_system(site: Path):
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        # The page for a server's errors has links from the root of a server.
        if path.name == "404.html":
            continue
        for link in page.links:
            name, _, anchor = unquote(link).partition("#")
            if "://" in name or name.startswith("mailto:"):
                continue
            target = (path.parent / name).resolve() if name else path
            has_anchor = not anchor or target not in pages or anchor in pages[target].anchors
            if not (target.is_file() and has_anchor):
                broken.append((path.name, link))
    assert not broken


def test_the_site_loads_nothing_from_elsewhere(site: Path):
    for path in site.rglob("*.html"):
        for source in Links(path.read_text(encoding="utf-8")).loaded:
            assert "://" not in source, (path.name, source)


def test_the_site_describes_every_name_of_the_package(site: Path):
    import mpisweep

    text = (site / "api.html").read_text(encoding="utf-8")
    assert {name for name in mpisweep.__all__ if f'id="mpisweep.{name}"' not in text} == set()


def commands() -> list[tuple[str, str]]:
    """The commands of the tutorial, each with the first line that it prints."""
    found = []
    for language, _, text in BLOCK.findall(TUTORIAL):
        if language == "console":
            for command, printed in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE):
                found.append((command, printed.partition("\n")[0]))
    return found


def skeleton(line: str) -> str:
    """A line without its numbers."""
    return re.sub(r"[\d.:]+", "#", line).strip()


@pytest.mark.long
@pytest.mark.mpi
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path, environment: dict[str, str]):
    for _, name, text in BLOCK.findall(TUTORIAL):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(commands()) > 7
    for command, first in commands():
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if first:
            # Progress lines depend on the machine; the last line does not.
            printed = (done.stdout + done.stderr).strip().splitlines()
            expected = TUTORIAL.split(f"$ {command}\n", 1)[1].partition("```")[0].strip().splitlines()
            ends = {skeleton(line) for line in (expected[0], expected[-1])}
            assert ends & {skeleton(line) for line in printed}, (command, printed)
    [reading] = [
        text for language, _, text in BLOCK.findall(TUTORIAL) if language == "python" and "load(" in text
    ]
    subprocess.run(
        [sys.executable, "-c", reading], cwd=tmp_path, env=environment, check=True, capture_output=True
    )


def test_the_page_of_the_sweep_file_shows_what_init_writes(tmp_path: Path, environment: dict[str, str]):
    """The excerpt of the drafted sweep file is in it, apart from alignment."""
    script, excerpt = (
        next(text for language, name, text in BLOCK.findall(TUTORIAL) if (language, name) == key)
        for key in (("python", "train.py"), ("toml", ""))
    )
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    subprocess.run(
        ["mpisweep", "init", "train.py"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    drafted = {" ".join(line.split()) for line in (tmp_path / "sweep.toml").read_text().splitlines()}
    assert {" ".join(line.split()) for line in excerpt.splitlines() if line} <= {
        re.sub(r" +#.*", "", line) for line in drafted
    } | {"[baseline]"}
