"""Data that is read once from a shared file system and copied to every node.

``source`` reads a folder or a tar file, ``stream`` packs it into chunks and unpacks them, ``places`` chooses
where a node keeps its copy, ``copies`` writes, finds, shares and removes copies, ``relay`` moves chunks from
one node to the next.  Nothing here knows MPI: :mod:`mpisweep.rank.staging` connects them.
"""

from __future__ import annotations

__all__ = ["DATA_VARIABLE", "SOURCE_VARIABLE"]

#: Name the copy, and what it is a copy of, to trial processes and programs.
DATA_VARIABLE = "MPISWEEP_DATA"
SOURCE_VARIABLE = "MPISWEEP_DATA_SOURCE"
