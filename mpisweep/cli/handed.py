"""What a launcher hands to its ranks: the sweep and their options.

A rank that it starts reads no sweep file and parses no command line: with thousands of ranks that would be
thousands of reads of one file.  Its command line is still what a user would type for the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpisweep.batch.variables import HANDED_VARIABLE
from mpisweep.cli.answers import answered, escape_output
from mpisweep.dataclass import asdict, dataclass, replace
from mpisweep.spec import Spec, SpecError, parse_spec

__all__ = ["Asked", "hand_over", "run_handed"]

#: A longer text does not go into an environment that thousands of ranks get; they read the sweep themselves.
_AT_MOST = 16_000


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of ``mpisweep run`` that concern a rank.

    They mean what they mean in :class:`mpisweep.rank.options.RankOptions`.
    """

    path: Path
    master: str
    walltime_s: float | None
    quiet: bool
    split: int | None
    stage_env: bool
    stage_to: str
    stage_keep: bool
    pilot: int
    planned: tuple[float, float] | None
    fresh: bool = False


def hand_over(spec: Spec, asked: Asked) -> dict[str, Any]:
    """What the ranks take in place of the command line; empty if they must parse it."""
    handed = {
        "text": spec.text, "source": spec.source, "folder": os.fspath(spec.folder),
        "stage_data": spec.stage_data, "asked": asdict(asked) | {"path": os.fspath(asked.path)},
    }  # fmt: skip
    try:
        is_same = len(json.dumps(handed)) <= _AT_MOST and _spec_of(handed) == spec
    except SpecError:
        return {}
    return handed if is_same else {}


def run_handed() -> int:
    """Run this process as a rank of the sweep that it was handed; returns the exit code."""
    escape_output()
    return answered(_run, "run")


def _run() -> int:
    from mpisweep.cli.rank import run_as_rank

    handed = json.loads(os.environ[HANDED_VARIABLE])
    asked = handed["asked"]
    asked["path"] = Path(asked["path"])
    asked["planned"] = tuple(asked["planned"]) if asked["planned"] else None
    return run_as_rank(_spec_of(handed), Asked(**asked))


def _spec_of(handed: Mapping[str, Any]) -> Spec:
    spec = parse_spec(handed["text"], source=handed["source"], folder=Path(handed["folder"]))
    return replace(spec, stage_data=handed["stage_data"])
