"""The curves of a sweep: where the samples of each trial are, whether they are in memory or not.

Samples are most of what a large sweep has, and few who read a sweep need them.  So there are three ways to
read one (:class:`Reading`), and two places for the samples of a trial:

* *stored*: in the results file, where two tables for each metric say which of its samples are whose;
* *fresh*: blocks of reports that the file does not have, each in memory, in a frame of the journal, or in the
  curves of a member of a split sweep.

:class:`Curves` knows the places.  Samples are read when somebody asks for them, one block at a time, and not
kept.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from mpisweep.blocks import Curve

__all__ = ["Curves", "KeptReports", "OtherReports", "Reading", "Reports", "StoredCurve", "lengths_of"]


class Reading(Enum):
    """What is read of a sweep beside its tables."""

    #: No curves.  Of a file's checksums the one that leaves them out is checked.
    TABLES = "tables"
    #: Where the samples are, to be copied block by block; all of a file is checked.
    PLACES = "places"
    #: All samples, into memory: files that change or go away afterwards do not matter.
    SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class StoredCurve:
    """One metric's reports in the file.

    Attributes:
        step: of all trials end to end; an array of shape (reports,), or what is read like one.
        value: the same.
        time: the same.
        offset: where the reports of each trial begin, shape (trials,).
        length: how many each trial has, shape (trials,).
    """

    step: Any
    value: Any
    time: Any
    offset: Any
    length: Any


class Reports(Protocol):
    """A block of reports of one trial, wherever it is."""

    @property
    def sequence(self) -> int:
        """The how-manieth block of its attempt it is."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Metric -> how many reports of it."""

    def read(self) -> Mapping[str, Curve]:
        """The samples.

        Raises:
            OSError: when they are not there any more.
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
    """All that one trial has in the curves of another state."""

    sequence: int
    lengths: Mapping[str, int]
    curves: Curves
    number: int

    def read(self) -> Mapping[str, Curve]:
        """The samples."""
        return self.curves.of_trial(self.number, self.lengths)


class Source(Protocol):
    """Where samples are read from; open from the first read on."""

    def close(self) -> None:
        """Close it until something is read again."""


@dataclass(slots=True)
class Curves:
    """Which trial has reports of which metric, and where."""

    #: Metric -> reports as the file has them.
    stored: dict[str, StoredCurve] = field(default_factory=dict)
    #: Trial -> blocks of reports that the file does not have, in the order of their sequence.
    fresh: dict[int, list[Reports]] = field(default_factory=dict)
    #: Trials whose stored reports belong to an attempt that another has replaced.
    outdated: set[int] = field(default_factory=set)
    #: What samples are read from, and may be open since.
    sources: list[Source] = field(default_factory=list)
    #: Metric -> how many blocks have reports of it.
    _reporting: dict[str, int] = field(default_factory=dict)

    def add(self, number: int, reports: Reports) -> None:
        """Take in a block of reports of a trial."""
        insort(self.fresh.setdefault(number, []), reports, key=_sequence)
        for metric in reports.lengths:
            self._reporting[metric] = self._reporting.get(metric, 0) + 1

    def drop(self, number: int) -> None:
        """Let go of what an attempt has reported that another one replaces."""
        for reports in self.fresh.pop(number, ()):
            for metric in reports.lengths:
                self._reporting[metric] -= 1
        self.outdated.add(number)

    @property
    def names(self) -> list[str]:
        """Metrics that have reports."""
        reporting = [name for name, blocks in self._reporting.items() if blocks and name not in self.stored]
        return [*self.stored, *reporting]

    def stored_range(self, number: int, metric: str) -> tuple[int, int]:
        """From where to where the stored reports of a metric are those of this trial."""
        stored = self.stored.get(metric)
        if stored is None or number >= len(stored.offset) or number in self.outdated:
            return 0, 0
        first = int(stored.offset[number])
        return first, first + int(stored.length[number])

    def lengths(self, number: int) -> dict[str, int]:
        """Metric -> how many reports of it a trial has; those that it has none of are left out."""
        found: dict[str, int] = {}
        for metric in self.stored:
            first, end = self.stored_range(number, metric)
            if end > first:
                found[metric] = end - first
        for reports in self.fresh.get(number, ()):
            for metric, length in reports.lengths.items():
                if length:
                    found[metric] = found.get(metric, 0) + length
        return found

    def of(self, number: int, metric: str) -> Curve:
        """All reports of one metric of one trial, in order; empty arrays where there are none."""
        return self.of_trial(number, (metric,))[metric]

    def of_trial(self, number: int, metrics: Collection[str]) -> dict[str, Curve]:
        """The same of several metrics, each block being read once."""
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
        for reports in self.fresh.get(number, ()):
            if not made.keys() & reports.lengths.keys():
                continue
            for metric, piece in reports.read().items():
                if metric in made:
                    made[metric].step.extend(piece.step)
                    made[metric].value.extend(piece.value)
                    made[metric].time.extend(piece.time)
        return made

    def close(self) -> None:
        """Close what samples were read from."""
        for source in self.sources:
            source.close()


def lengths_of(curves: Mapping[str, Curve]) -> dict[str, int]:
    """Metric -> how many samples."""
    return {metric: len(curve.step) for metric, curve in curves.items()}


def _sequence(reports: Reports) -> int:
    return reports.sequence
