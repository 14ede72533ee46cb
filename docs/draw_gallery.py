"""Draw the pictures of docs/figures.md from the results files in this repository (`make gallery`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

import mpisweep
from mpisweep.views import figures

HERE = Path(__file__).parent
#: ResNet50 at batch sizes with repeats, by `make paper`.
PAPER = HERE / "results" / "paper.h5"
#: A network on the digits at batch sizes and learning rates, by benchmarks/landscapes/digits.py.
DIGITS = HERE.parent / "benchmarks" / "landscapes" / "digits.h5"

#: Kind -> the results file and the options of its picture.
PICTURES: dict[str, tuple[Path, dict[str, Any]]] = {
    "metric": (PAPER, {}),
    "total": (PAPER, {"queue_wait": 600.0}),
    "curves": (PAPER, {"metric": "loss", "smooth": 5}),
    "budgets": (PAPER, {"parameter": ["batch_size"], "metric": "loss"}),
    "trend": (DIGITS, {"parameter": ["learning_rate"]}),
    "map": (DIGITS, {"parameter": ["learning_rate", "batch_size"]}),
    "parallel": (DIGITS, {"parameter": ["learning_rate", "batch_size"]}),
    "importance": (DIGITS, {}),
    "history": (DIGITS, {}),
    "timeline": (PAPER, {}),
    "utilisation": (PAPER, {}),
}


def draw(kind: str, folder: Path) -> Path:
    """Draw the picture of a kind into a folder."""
    file, options = PICTURES[kind]
    path = folder / f"gallery-{kind}.png"
    figures.save(figures.draw(kind, mpisweep.load(file), width="page", **options), path)
    # A page of documentation needs no more than 256 colours.
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)
    return path


if __name__ == "__main__":
    for name in PICTURES:
        print(draw(name, HERE / "figures"))
