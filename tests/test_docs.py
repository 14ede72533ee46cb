"""Links, anchors and quoted messages of the pages."""

from __future__ import annotations

import re

import pytest
import voice
from voice import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, formed as on GitHub."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(path, text: str) -> list[str]:
    """Links of a page to files and headings that do not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path):
    assert not broken_links(path, path.read_text(encoding="utf-8"))


def test_a_link_to_a_missing_page_or_heading_is_found():
    text = "[a](nowhere.md) [b](pjm.md#no-such-heading) [c](pjm.md#the-job) [d](https://example.org/x)"
    assert broken_links(ROOT / "docs" / "slurm.md", text) == ["nowhere.md", "pjm.md#no-such-heading"]


def test_every_page_can_be_reached_from_the_readme():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        for name in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8")):
            linked = (page.parent / name).resolve()
            if linked not in seen:
                ahead.append(linked)
    assert set((ROOT / "docs").glob("*.md")) <= seen


def test_the_messages_that_troubleshooting_lists_exist():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `([^`]+)` \|", text.partition("## Messages")[2].partition("## ")[0], flags=re.MULTILINE
    )
    assert listed
    said = [one.words for file, source in voice.sources() for one in voice.messages(file, source)]
    for message in listed:
        pattern = re.escape(message).replace(r"\.\.\.", r"\{\}")
        assert any(re.search(pattern, words) for words in said), message
