"""Arguments for staging data, and what ``check`` says about it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mpisweep.spec import Spec

__all__ = ["add_staging", "stage_fields", "stage_lines", "stage_path", "stage_words"]


def add_staging(parser: argparse._ActionsContainer) -> None:
    """Add ``--stage-data``, ``--stage-to`` and ``--stage-keep``."""
    parser.add_argument(
        "--stage-data",
        metavar="SOURCE",
        help="folder or tar file that is read once and copied to every node before the first trial; trials "
        "find the copy in data_root, {data}, trial.data or $MPISWEEP_DATA",
    )
    parser.add_argument(
        "--stage-to",
        default="",
        metavar="FOLDER",
        help="node-local folder for the copy; $VARIABLES are those of each node (default: that of the batch "
        "system or $TMPDIR, else /dev/shm)",
    )
    parser.add_argument(
        "--stage-keep", action="store_true", help="keep the copy for the next run on these nodes"
    )


def stage_path(options: argparse.Namespace) -> str | None:
    """The absolute path of ``--stage-data``; None if it is not given."""
    return None if options.stage_data is None else os.fspath(Path(options.stage_data).absolute())


def stage_words(options: argparse.Namespace) -> list[str]:
    """The arguments for another ``mpisweep``."""
    words = [] if options.stage_data is None else ["--stage-data", options.stage_data]
    words += ["--stage-to", options.stage_to] if options.stage_to else []
    return words + ["--stage-keep"] * options.stage_keep


def stage_fields(spec: Spec, to: str, variables: Sequence[str] = ()) -> dict[str, object] | None:
    """What would be staged, and where on this machine, for JSON; None if nothing is.

    Raises:
        StageError: when the source cannot be read.
    """
    if not spec.stage_data:
        return None
    from mpisweep.staged.places import choose_place
    from mpisweep.staged.source import StageError, open_source

    source = open_source(Path(spec.stage_data))
    fields: dict[str, object] = {
        "source": os.fspath(source.path),
        "bytes": source.size_bytes,
        "files": source.files,
        "needs_bytes": source.needs_bytes,
        "is_compressed": source.is_compressed,
        "skipped": source.skipped,
        "to": None,
        "free_bytes": None,
        "problem": "",
    }
    try:
        place = choose_place(to, variables, os.environ, source.needs_bytes)
    except StageError as error:
        # The nodes of a job may have what this machine lacks.
        return fields | {"problem": str(error)}
    return fields | {"to": os.fspath(place.folder), "free_bytes": place.room_bytes}


def stage_lines(fields: dict[str, object] | None) -> list[str]:
    """What would be staged in words, in up to two lines."""
    from mpisweep.progress import counted
    from mpisweep.staged.places import size_text

    if fields is None:
        return []
    files, size = fields["files"], fields["bytes"]
    assert isinstance(size, int)
    text = f"{fields['source']}, {size_text(size)}"
    text += f" in {counted(files, 'file')}" if isinstance(files, int) else ""
    text += ", compressed: the copy is larger" if fields["is_compressed"] else ""
    text += f"; left out: {fields['skipped']} devices, sockets and pipes" if fields["skipped"] else ""
    if fields["to"] is None:
        return [text, f"on this machine: {fields['problem']}"]
    room = fields["free_bytes"]
    assert isinstance(room, int)
    return [text, f"on this machine to {fields['to']}, which has room for {size_text(room)}"]
