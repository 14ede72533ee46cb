"""Write the pictures and tables of docs/architecture.md from the source of the package (`make reference`).

The generated blocks of the page stand between two comments,
``<!-- made by docs/write_architecture.py: NAME -->`` and ``<!-- end -->``; the text around them is written
by hand.  Nothing of the package is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from drawing.modules import imports_table, modules_picture
from drawing.processes import processes_picture
from drawing.source import Source
from drawing.spoken import files_table
from drawing.tables import closing_table, ends_table, states_table, writers_table

__all__ = ["BLOCKS", "PACKAGE", "PAGE", "PICTURES", "blocks_of", "made"]

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "mpisweep"
PAGE = HERE / "architecture.md"
BLOCK = re.compile(r"(<!-- made by docs/write_architecture.py: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

#: File of a picture -> what draws it.
PICTURES: dict[Path, Callable[[Source], str]] = {
    HERE / "figures" / "processes.svg": processes_picture,
    HERE / "figures" / "modules.svg": modules_picture,
}
#: Name of a block of the page -> what makes it.
BLOCKS: dict[str, Callable[[Source], str]] = {
    "files": files_table,
    "trial states": states_table,
    "moves of trials": writers_table,
    "ends of attempts": ends_table,
    "closing": closing_table,
    "imports": imports_table,
}


def blocks_of(page: str) -> list[str]:
    """The names of a page's blocks."""
    return [found[2] for found in BLOCK.finditer(page)]


def made(package: Path, page: str) -> dict[Path, str]:
    """Every file that is made of a package's source, and its text; `page` is the page as it is."""
    source = Source(package)
    files = {path: draw(source) for path, draw in PICTURES.items()}
    files[PAGE] = BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]](source)}\n\n{found[4]}", page)
    return files


if __name__ == "__main__":
    for path, text in made(PACKAGE, PAGE.read_text(encoding="utf-8")).items():
        path.write_text(text, encoding="utf-8")
