"""The data on this node, as trials find it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DATA_VARIABLE", "StagedData"]

#: Names the copy of the data to trials and their programs.
DATA_VARIABLE = "MPISWEEP_DATA"


@dataclass(frozen=True, slots=True)
class StagedData:
    """A copy of data on this node.

    Attributes:
        root: of the copy.
        source: what it is a copy of, a folder or a tar file.
    """

    root: Path
    source: str

    @classmethod
    def of(cls, root: str, source: str) -> StagedData | None:
        """The copy at `root`, which this process and its programs find in the environment; None for none."""
        if not root:
            return None
        os.environ[DATA_VARIABLE] = root
        return cls(Path(root), source)

    def local(self, path: str) -> str:
        """The path in the copy of one in the source; any other as it is.

        A path in a tar file continues that of the file: ``images.tar/train``.
        """
        if not path:
            return path
        for form in (os.path.abspath, os.path.realpath):
            within = os.path.relpath(form(path), form(self.source))
            if within.split(os.sep, 1)[0] != os.pardir:
                return os.path.normpath(self.root / within)
        return path
