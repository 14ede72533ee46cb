"""The table of trials: its columns, their order, and filters."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import TrialState, Value
from mpisweep.results.load import Sweep
from mpisweep.spec.domains import ends
from mpisweep.spec.expression import Expression, kind_of

__all__ = ["TrialColumns", "columns_of", "filtered", "parsed_filter", "sorted_rows"]

#: Order of trials that have no value of the column by which the table is sorted.
_RANKS = ("running", "waiting", "failed", "pruned", "complete", "infeasible", "skipped")
_STATES = tuple(state.label for state in TrialState)


@dataclass(frozen=True, slots=True)
class TrialColumns:
    """Columns of all trials.

    Attributes:
        columns: heading -> array of shape (trials,), of numbers or text; ``trial`` and ``state`` first.
        usual: heading of the first objective.
        is_small_best: whether a small value of it is good.
        absentable: parameters that a trial may lack.
        kinds: column -> kind of its values in a filter.
    """

    columns: dict[str, NDArray[Any]]
    usual: str
    is_small_best: bool
    absentable: frozenset[str]
    kinds: dict[str, str]

    def __len__(self) -> int:
        return len(self.columns["trial"])


def columns_of(sweep: Sweep, running: Collection[int]) -> TrialColumns:
    """Gather the columns of a sweep.

    Args:
        sweep: as loaded.
        running: numbers of the trials that run; others that were handed out wait in a slot.
    """
    trials, space = sweep.trials, sweep.spec.space
    state = trials["state"].copy()
    is_handed_out = state == TrialState.RUNNING.label
    is_handed_out[list(running)] = False
    state[is_handed_out] = TrialState.WAITING.label
    columns: dict[str, NDArray[Any]] = {"trial": trials["number"], "state": state}
    kinds = {"trial": "number", "state": "string", "cause": "string", "time": "number", "host": "string"}
    if sweep.spec.repeats.most > 1:
        columns |= {"configuration": trials["configuration"], "repeat": trials["repeat"]}
        kinds |= {"configuration": "number", "repeat": "number"}
    for parameter in space.parameters:
        columns[parameter.name] = trials[sweep.column(parameter.name)]
        kinds[parameter.name] = kind_of(ends(parameter)[0])
    objectives = [one.name for one in sweep.objectives]
    for name in (*objectives, *(name for name in sweep.metrics if name not in objectives)):
        heading = name if name not in columns else f"{name} (metric)"
        has = name in sweep.metrics
        columns[heading] = trials[sweep.metric_column(name)] if has else np.full(len(trials), math.nan)
        kinds[heading] = "number"
    usual = objectives[0] if objectives[0] not in space.names else f"{objectives[0]} (metric)"
    for heading, name in (("time", "wall_time"), ("cause", "cause"), ("host", "host"), ("device", "device")):
        columns.setdefault(heading, trials[name])
        kinds.setdefault(heading, "string")
    return TrialColumns(columns, usual, sweep.objectives[0].sign > 0, space.absentable, kinds)


def sorted_rows(
    table: TrialColumns, column: str, *, is_reversed: bool, mask: NDArray[np.bool_] | None
) -> NDArray[np.intp]:
    """Sort the rows; those without a value of the column are last, with running ones first.

    By the objective, pruned trials follow the complete ones: theirs is that of fewer steps.

    Args:
        table: the columns.
        column: by which to sort; of the first objective the best is first.
        is_reversed: whether the order is turned round.
        mask: the rows to keep; None keeps all.
    """
    values = table.columns.get(column, table.columns["trial"])
    if values.dtype.kind in "iuf":
        keys = values.astype(float)
        keys[~np.isfinite(keys)] = np.nan
    else:
        names, places = np.unique(values, return_inverse=True)
        keys = np.where(np.isin(places, np.flatnonzero(names.astype(str) == "")), np.nan, places)
    if is_reversed != (column == table.usual and not table.is_small_best):
        keys = -keys
    state = table.columns["state"]
    rank = np.select([state == name for name in _RANKS], list(range(len(_RANKS))), len(_RANKS))
    is_pruned = (state == TrialState.PRUNED.label) & (column == table.usual) & np.isfinite(keys)
    comes_last = np.where(np.isnan(keys), 2, is_pruned)
    order = np.lexsort((table.columns["trial"], np.where(np.isnan(keys), rank, 0), keys, comes_last))
    return order if mask is None else order[mask[order]]


# ------------------------------------------------------------------------------------- filters


def parsed_filter(table: TrialColumns, text: str) -> Expression:
    """Parse a filter: a condition as in ``where``, of columns and states.

    A state is a condition of its own, so that ``failed`` and ``complete and batch_size > 64`` are filters.

    Raises:
        ExpressionError: if it is not valid.
    """
    kinds = dict.fromkeys(_STATES, "boolean") | {
        name: kind for name, kind in table.kinds.items() if name.isidentifier()
    }
    found = Expression(text, kinds, {})
    found.check()
    return found


def filtered(table: TrialColumns, text: str) -> NDArray[np.bool_]:
    """Which rows a filter keeps; a row that lacks a value that it needs is left out.

    Raises:
        ExpressionError: if it is not valid, or has no value for a row.
    """
    found = parsed_filter(table, text)
    names = sorted(found.names)
    lists: list[list[Value]] = [
        table.columns[name].tolist() if name in table.columns else (table.columns["state"] == name).tolist()
        for name in names
    ]
    absent = [name in table.absentable for name in names]
    kept = np.zeros(len(table), dtype=bool)
    if not names:
        kept[:] = found.holds({}, if_absent=False)
        return kept
    for row, values in enumerate(zip(*lists, strict=True)):
        configuration = dict(zip(names, values, strict=True))
        if any(absent):
            configuration = {
                name: value
                for (name, value), may in zip(configuration.items(), absent, strict=True)
                if not may or (value == value and value != "")
            }
        kept[row] = found.holds(configuration, if_absent=False)
    return kept
