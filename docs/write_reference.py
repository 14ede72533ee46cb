"""Write what the documentation and editors know of sweep files and commands from their sources (`make
reference`).

The pages for man, `docs/man/`, are made whole.  In another page, what is made stands between two comments,
``<!-- made by docs/write_reference.py: NAME -->`` and ``<!-- end -->``; the text around them is written by
hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mpisweep.cli.program import make_parser
from mpisweep.cli.reference import commands_markdown, man_pages
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.reference import keys_markdown, workload_markdown
from mpisweep.spec.schema import schema_text

HERE = Path(__file__).parent
SCHEMA = HERE.parent / "mpisweep" / "spec" / "sweep-file.schema.json"
MANUAL = HERE / "man"
BLOCK = re.compile(r"(<!-- made by docs/write_reference.py: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

#: Name of a block -> what makes it.
BLOCKS: dict[str, Callable[[], str]] = {
    "top level": lambda: keys_markdown(""),
    "workload": lambda: keys_markdown("workload"),
    "range": lambda: keys_markdown("range"),
    "list": lambda: keys_markdown("list"),
    "limits": lambda: keys_markdown("limits"),
    "commands": lambda: commands_markdown(make_parser()),
    "stop": lambda: keys_markdown("stop"),
    "hooks": lambda: keys_markdown("hooks"),
    "repeats": lambda: keys_markdown("repeats"),
    **{name: lambda name=name: workload_markdown(name) for name in BUILTIN},  # type: ignore[misc]
}


def blocks_of(page: str) -> list[str]:
    """The names of a page's blocks."""
    return [found[2] for found in BLOCK.finditer(page)]


def filled(page: str) -> str:
    """A page with its blocks rewritten."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[4]}", page)


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    MANUAL.mkdir(exist_ok=True)
    pages = man_pages(make_parser())
    for path in MANUAL.glob("*.1"):
        if path.name not in pages:
            path.unlink()
    for name, page in pages.items():
        (MANUAL / name).write_text(page, encoding="utf-8")
    for path in sorted(HERE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if blocks_of(text):
            path.write_text(filled(text), encoding="utf-8")
