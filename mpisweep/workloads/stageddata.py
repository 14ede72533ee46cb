"""The data on this node, as trials find it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mpisweep.dataclass import dataclass
from mpisweep.staged import DATA_VARIABLE, SOURCE_VARIABLE

__all__ = ["StagedData"]


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
    def of(cls, environment: Mapping[str, str]) -> StagedData | None:
        """The copy that a worker names to its trial processes; None for none."""
        root = environment.get(DATA_VARIABLE)
        return None if root is None else cls(Path(root), environment[SOURCE_VARIABLE])

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
