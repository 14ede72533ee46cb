"""Trials of another sweep as they are read, before some are chosen."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mpisweep.records import TrialState, Value
from mpisweep.results.load import load
from mpisweep.spec import Spec

__all__ = ["ForeignError", "ForeignSweep", "ForeignTrial", "read_csv", "read_results"]


class ForeignError(ValueError):
    """A source that cannot be imported; the message is the end of a sentence about it."""


@dataclass(frozen=True, slots=True)
class ForeignTrial:
    """One trial; `objective` is None unless it completed with one, `wall_time_s` if unknown."""

    parameters: Mapping[str, Value]
    objective: float | None
    wall_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class ForeignSweep:
    """The trials of a source.

    Attributes:
        names: the parameters that it has.
        differences: what differs from this sweep although it is not searched, as parts of a sentence.
    """

    trials: list[ForeignTrial]
    names: frozenset[str]
    differences: list[str]


def read_results(path: Path, spec: Spec) -> ForeignSweep:
    """Read a results file of mpisweep, also one whose sweep runs."""
    sweep = load(path)
    if spec.objective not in sweep.metrics:
        raise ForeignError(f"has no metric {spec.objective!r}; it has {', '.join(sweep.metrics) or 'none'}")
    objective = sweep.metric_column(spec.objective)
    trials: list[ForeignTrial] = []
    for row in sweep.trials:
        found = sweep.spec.full(sweep.configuration(int(row["number"])))
        is_complete = row["state"] == TrialState.COMPLETE.label
        trials.append(
            ForeignTrial(
                found, float(row[objective]) if is_complete else None, _or_none(float(row["wall_time"]))
            )
        )
    names = frozenset(name for trial in trials for name in trial.parameters)
    return ForeignSweep(trials, names, _differences(spec, sweep.spec))


def _differences(spec: Spec, old: Spec) -> list[str]:
    found = [] if old.workload == spec.workload else ["another workload"]
    before, now = old.full({}), spec.full({})
    for name in dict.fromkeys([*before, *now]):
        if name in spec.space.names or name in old.space.names or before.get(name) == now.get(name):
            continue
        there, here = (f"{values[name]!r}" if name in values else "no value" for values in (before, now))
        found.append(f"{name} = {there}, here {here}")
    return found


def read_csv(path: Path, spec: Spec) -> ForeignSweep:
    """Read a CSV file with a column per parameter and one for the objective.

    The columns ``wall_time``, in seconds, and ``state`` are used as ``mpisweep export`` writes them.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            lines = csv.DictReader(file, delimiter=max(",;\t", key=head.count), skipinitialspace=True)
            rows = [{name: cell for name, cell in row.items() if name and cell} for row in lines]
            names = frozenset(lines.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise ForeignError(f"is not CSV in UTF-8: {error}") from error
    if spec.objective not in names:
        raise ForeignError(f"has no column {spec.objective!r}; its columns are {', '.join(sorted(names))}")
    trials = [
        ForeignTrial(
            row,
            _number(row.get(spec.objective, "")) if row.get("state", "complete") == "complete" else None,
            _number(row.get("wall_time", "")),
        )
        for row in rows
    ]
    return ForeignSweep(trials, names, [])


def _number(cell: str) -> float | None:
    try:
        return _or_none(float(cell))
    except ValueError:
        return None


def _or_none(number: float) -> float | None:
    return number if number == number else None
