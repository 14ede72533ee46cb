"""What MkDocs (mkdocs.yml) does not do by itself: pages that lie elsewhere, and links to them.

The pages are written for readers of the source tree.  README.md becomes the first page of the site; links to
source files, which the site does not hold, become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

#: Script that the offline plugin loads from elsewhere -> our copy of it.
COPIES = {"https://unpkg.com/iframe-worker/shim": "assets/iframe-worker.js"}

#: File of the source tree -> page of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "packaging/README.md": "packages.md",
}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    root = Path(config.docs_dir).parent
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(root / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links point to pages of the site."""
    sources = {target: source for source, target in PAGES.items()}
    at = Path(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def replace(found: re.Match[str]) -> str:
        mark, text, link = found.groups()
        if link.startswith(("#", "http://", "https://", "mailto:")):
            return found[0]
        name, hash_mark, anchor = link.partition("#")
        target = _normal(at / name)
        inside = PAGES.get(target) or target.removeprefix("docs/")
        if target not in PAGES and (
            not target.startswith("docs/") or files.get_file_from_path(inside) is None
        ):
            return text
        return f"{mark}[{text}]({_relative(inside, page.file.src_uri)}{hash_mark}{anchor})"

    # Code keeps its brackets.
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_LINK.sub(replace, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(replace, markdown[end:])])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load nothing from elsewhere: a compute node, or a laptop in a train, shows the whole site."""
    return _with_copies(output, page.file.dest_uri)


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    """Load nothing from elsewhere in the page of a server's errors either."""
    return _with_copies(output, template_name)


def _with_copies(output: str, at: str) -> str:
    for source, copy in COPIES.items():
        output = output.replace(source, _relative(copy, at))
    return output


def _normal(path: Path) -> str:
    """A path without ``..``."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(target: str, page: str) -> str:
    """The link from a page of the site to another file of it."""
    return "../" * page.count("/") + target
