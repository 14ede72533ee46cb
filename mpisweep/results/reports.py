"""The curves of a sweep: where the samples of each trial are, in memory or not.

Samples are most of the data of a large sweep, and few readers need them.  So there are three ways to read a
sweep (:class:`Reading`), and two places for the samples of a trial:

* *stored*: in the results file, where two tables per metric hold the range of each trial's samples;
* *pending*: in blocks of reports that the file does not have, each in memory, in a frame of the journal, or
  in the curves of a member of a split sweep.

:class:`Curves` holds the places.  Samples are read on request, one block at a time, and not cached.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Protocol

from mpisweep.blocks import Curve
from mpisweep.dataclass import dataclass, field

__all__ = ["Curves", "KeptReports", "OtherReports", "Reading", "Reports", "StoredCurve", "lengths_of"]


class Reading(Enum):
    """How much of a sweep is read beside its tables."""

    #: No curves.  Only the file's checksum without the curves is verified.
    TABLES = "tables"
    #: The places of samples, for copying block by block; the whole file is verified.
    PLACES = "places"
    #: All samples, into memory, so that later changes to the files do not matter.
    SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class StoredCurve:
    """One metric's reports in the file.

    Attributes:
        step: of all trials end to end; an array of shape (reports,), or an object that is indexed like one.
        value: the same.
        time: the same.
        offset: where the reports of each trial begin, shape (trials,).
        length: number of reports of each trial, shape (trials,).
    """

    step: Any
    value: Any
    time: Any
    offset: Any
    length: Any


class Reports(Protocol):
    """A block of reports of one trial, in any place."""

    @property
    def sequence(self) -> int:
        """The position of the block within its attempt, from 0."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Metric -> number of reports."""

    def read(self) -> Mapping[str, Curve]:
        """Read the samples.

        Raises:
            OSError: when they are gone.
        """


@dataclass(frozen=True, slots=True)
class KeptReports:
    """A block in memory."""

    sequence: int
    lengths: Mapping[str, int]
    curves: Mapping[str, Curve]

    def read(self) -> Mapping[str, Curve]:
        """The samples."""
        return self.curves


@dataclass(frozen=True, slots=True)
class OtherReports:
    """All reports of one trial in the curves of another state."""

    sequence: int
    lengths: Mapping[str, int]
    curves: Curves
    number: int

    def read(self) -> Mapping[str, Curve]:
        """The samples."""
        return self.curves.of_trial(self.number, self.lengths)


class Source(Protocol):
    """A file with samples; opened by the first read."""

    def close(self) -> None:
        """Close the file; the next read opens it again."""


@dataclass(slots=True)
class Curves:
    """The place of each trial's reports, by metric."""

    #: Metric -> reports in the file.
    stored: dict[str, StoredCurve] = field(default_factory=dict)
    #: Trial -> blocks of reports that the file does not have, in the order of their sequence.
    pending: dict[int, list[Reports]] = field(default_factory=dict)
    #: Trials whose stored reports belong to an attempt that a later one replaced.
    outdated: set[int] = field(default_factory=set)
    #: Files that samples are read from; they may be open.
    sources: list[Source] = field(default_factory=list)
    #: Metric -> number of blocks with reports of it.
    _reporting: dict[str, int] = field(default_factory=dict)

    def add(self, number: int, reports: Reports) -> None:
        """Add a block of reports of a trial."""
        insort(self.pending.setdefault(number, []), reports, key=_sequence)
        for metric in reports.lengths:
            self._reporting[metric] = self._reporting.get(metric, 0) + 1

    def drop(self, number: int) -> None:
        """Drop the reports of an attempt that a later one replaces."""
        for reports in self.pending.pop(number, ()):
            for metric in reports.lengths:
                self._reporting[metric] -= 1
        self.outdated.add(number)

    @property
    def names(self) -> list[str]:
        """Metrics that have reports."""
        reporting = [name for name, blocks in self._reporting.items() if blocks and name not in self.stored]
        return [*self.stored, *reporting]

    def stored_range(self, number: int, metric: str) -> tuple[int, int]:
        """The range of this trial in the stored reports of a metric."""
        stored = self.stored.get(metric)
        if stored is None or number >= len(stored.offset) or number in self.outdated:
            return 0, 0
        first = int(stored.offset[number])
        return first, first + int(stored.length[number])

    def lengths(self, number: int) -> dict[str, int]:
        """Metric -> number of reports of a trial; metrics without reports are left out."""
        found: dict[str, int] = {}
        for metric in self.stored:
            first, end = self.stored_range(number, metric)
            if end > first:
                found[metric] = end - first
        for reports in self.pending.get(number, ()):
            for metric, length in reports.lengths.items():
                if length:
                    found[metric] = found.get(metric, 0) + length
        return found

    def of(self, number: int, metric: str) -> Curve:
        """All reports of one metric of one trial, in order; empty arrays if there are none."""
        return self.of_trial(number, (metric,))[metric]

    def of_trial(self, number: int, metrics: Collection[str]) -> dict[str, Curve]:
        """The reports of several metrics of one trial; each block is read once."""
        made = {metric: Curve(array("q"), array("d"), array("d")) for metric in metrics}
        for metric, curve in made.items():
            first, end = self.stored_range(number, metric)
            if end > first:
                stored = self.stored[metric]
                for samples, column in (
                    (stored.step, curve.step),
                    (stored.value, curve.value),
                    (stored.time, curve.time),
                ):
                    column.frombytes(samples[first:end].astype(column.typecode, copy=False).tobytes())
        for reports in self.pending.get(number, ()):
            if not made.keys() & reports.lengths.keys():
                continue
            for metric, piece in reports.read().items():
                if metric in made:
                    made[metric].step.extend(piece.step)
                    made[metric].value.extend(piece.value)
                    made[metric].time.extend(piece.time)
        return made

    def close(self) -> None:
        """Close the files that samples were read from."""
        for source in self.sources:
            source.close()


def lengths_of(curves: Mapping[str, Curve]) -> dict[str, int]:
    """Metric -> number of samples."""
    return {metric: len(curve.step) for metric, curve in curves.items()}


def _sequence(reports: Reports) -> int:
    return reports.sequence
