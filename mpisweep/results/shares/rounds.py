"""The log of a learning search that several allocations share.

::

    00012.round     round 12: who proposed, which ends that member had read, and what it proposed

Each member proposes for its own slots, from what all members have recorded.  A round is created exclusively,
like a lease, by a hard link to a finished file; a member that finds its round taken reads that one and
proposes again.  So the rounds are one sequence, which is the same for all members: the search that a member
asks is what follows from the rounds so far and from the ends that it adds.

A round is also the first lease of its trials (:mod:`mpisweep.results.shares.leases`): what a member has
proposed is durably its own before any of it runs, and is taken over like any lease when it dies.

The numbers of trials are consecutive over the rounds, so no two members propose under one number, and the
rounds together propose no more than the sweep asks for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpisweep.records import Value
from mpisweep.results import ResultsError
from mpisweep.results.shares.leases import Lease
from mpisweep.results.syncing import create_once

__all__ = ["Round", "lease_of", "publish_round", "read_round", "read_rounds"]

_SUFFIX = ".round"


@dataclass(frozen=True, slots=True)
class Round:
    """What one member proposed at one time.

    Attributes:
        index: its place among the rounds.
        chunk: the number of the chunk that its trials are.
        member: who proposed it, and holds the first lease of its trials.
        first: the first trial; the numbers go through all configurations, repeat by repeat.
        first_configuration: the number of the first configuration.
        configurations: complete; none in a last round of a space that is exhausted.
        repeats: number of trials of each configuration.
        width: the most ranks that any of its trials needs.
        ends: (trial, objectives, step if pruned) of the trials that had ended since the round before.
        known: number of ends of configurations that the search knew.
        is_last: whether the search proposes nothing more.
        host: node of the member's master, for messages.
        job_id: of the batch system; empty without one.
        at: when it was made, in seconds since 1970.
    """

    index: int
    chunk: int
    member: str
    first: int
    first_configuration: int
    configurations: Sequence[Mapping[str, Value]]
    repeats: int
    width: int
    ends: Sequence[Sequence[Any]]
    known: int
    is_last: bool
    host: str = ""
    job_id: str = ""
    at: float = 0.0

    @property
    def numbers(self) -> range:
        """Its trials."""
        return range(self.first, self.first + len(self.configurations) * self.repeats)

    def configuration_of(self, number: int) -> int:
        """The number of a trial's configuration."""
        return self.first_configuration + (number - self.first) % len(self.configurations)

    def repeat_of(self, number: int) -> int:
        """Which repeat of its configuration a trial is."""
        return (number - self.first) // len(self.configurations)


def read_rounds(folder: Path, known: list[Round] | None = None) -> list[Round]:
    """Read the rounds, which never change.

    Args:
        folder: that the members share.
        known: the rounds that were read before; newer ones are appended to it.

    Raises:
        ResultsError: when a round is damaged.
        FileNotFoundError: when the folder is gone.
    """
    known = [] if known is None else known
    there = {name for name in os.listdir(folder) if name.endswith(_SUFFIX)}
    while (name := f"{len(known):05d}{_SUFFIX}") in there:
        known.append(read_round(folder / name))
    return known


def read_round(path: Path) -> Round:
    """Read one round.

    Raises:
        ResultsError: when it is damaged.
    """
    try:
        return Round(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path}: is damaged ({error!r})") from error


def publish_round(folder: Path, made: Round) -> bool:
    """Write a round durably; False if another member has made it."""
    return create_once(folder / f"{made.index:05d}{_SUFFIX}", json.dumps(asdict(made)))


def lease_of(made: Round) -> Lease:
    """The first lease of a round's trials, which its member holds."""
    numbers = tuple(made.numbers)
    nothing = (0,) * len(numbers)
    return Lease(
        made.chunk, 1, made.member, numbers, nothing, nothing, made.host, made.job_id, made.at, made.width
    )
