"""Two sweeps side by side, as text and as JSON: ``mpisweep compare A.h5 B.h5``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpisweep.progress import counted
from mpisweep.results.load import Sweep
from mpisweep.results.pairing import Change, PairedSweeps
from mpisweep.spec.units import configuration_text, number_text, value_text
from mpisweep.views.console import print_table
from mpisweep.views.wording import at_budget, finite_or_none

__all__ = ["paired_fields", "paired_lines", "print_paired", "rows_by_difference"]


def rows_by_difference(pairs: PairedSweeps) -> list[int]:
    """The configurations, those that differ most first; those without a difference last."""
    size = np.where(np.isfinite(pairs.difference), np.abs(pairs.difference), -1.0)
    return [int(row) for row in np.argsort(-size, kind="stable")]


def paired_lines(pairs: PairedSweeps, a: Sweep, b: Sweep) -> list[str]:
    """What differs between the sweeps, and how sure that is."""
    both = counted(len(pairs.configurations), "configuration")
    alone = "".join(
        f"; {count:,} only in {name}" for name, count in zip("AB", pairs.alone, strict=True) if count
    )
    lines = [f"A: {a.path}{at_budget(a)}", f"B: {b.path}{at_budget(b)}", f"{both} in both{alone}"]
    verdict = {None: "", True: ": B is better", False: ": A is better"}[pairs.is_better]
    if pairs.is_better is None and pairs.change.low <= 0 <= pairs.change.high:
        verdict = ": no difference can be told"
    lines.append(f"B - A, mean {pairs.metric}: {_with_interval(pairs.change)}{verdict}")
    lines.append(f"B / A, wall time: {_with_interval(pairs.time)}")
    if pairs.energy.count:
        lines.append(f"B / A, energy of the devices: {_with_interval(pairs.energy)}")
    return [*lines, *_differing("parameters", pairs.settings), *_differing("environment", pairs.environment)]


def print_paired(pairs: PairedSweeps, a: Sweep, b: Sweep, k: int) -> None:
    """Print the sentences, and the `k` configurations that differ most."""
    for line in paired_lines(pairs, a, b):
        print(line)
    names = pairs.parameters
    rows = [
        (
            *(value_text(pairs.configurations[row].get(name, "")) for name in names),
            number_text(pairs.first[row]), number_text(pairs.second[row]),
            number_text(pairs.difference[row]),
            f"{pairs.half_width[row]:.2g}" if pairs.half_width[row] >= 0 else "",
            number_text(pairs.first_s[row]), number_text(pairs.second_s[row]),
        )
        for row in rows_by_difference(pairs)[:k]
    ]  # fmt: skip
    metric = pairs.metric
    headings = [*names, f"{metric} A", f"{metric} B", "B - A", "± 95%", "time A [s]", "time B [s]"]
    print_table(headings, rows, right=range(len(headings)))
    if len(pairs.configurations) > k:
        print(f"the {k} of {len(pairs.configurations):,} configurations that differ most")


def paired_fields(pairs: PairedSweeps, a: Sweep, b: Sweep) -> dict[str, Any]:
    """All of it for :func:`json.dumps`; a number that is NaN or infinite is None."""
    rows = [
        {
            "parameters": dict(pairs.configurations[row]),
            "first": finite_or_none(float(pairs.first[row])),
            "second": finite_or_none(float(pairs.second[row])),
            "difference": finite_or_none(float(pairs.difference[row])),
            "half_width": finite_or_none(float(pairs.half_width[row])),
            "first_s": finite_or_none(float(pairs.first_s[row])),
            "second_s": finite_or_none(float(pairs.second_s[row])),
        }
        for row in range(len(pairs.configurations))
    ]
    return {
        "first": str(a.path),
        "second": str(b.path),
        "metric": pairs.metric,
        "is_better": pairs.is_better,
        "difference": _numbers(pairs.change),
        "time_factor": _numbers(pairs.time),
        "energy_factor": _numbers(pairs.energy),
        "only_first": pairs.alone[0],
        "only_second": pairs.alone[1],
        "parameters": {name: list(values) for name, values in pairs.settings.items()},
        "environment": {name: list(texts) for name, texts in pairs.environment.items()},
        "configurations": rows,
    }


def _numbers(change: Change) -> dict[str, Any]:
    numbers = {"mean": change.mean, "low": change.low, "high": change.high}
    return {"configurations": change.count} | {name: finite_or_none(one) for name, one in numbers.items()}


def _with_interval(change: Change) -> str:
    if not change.count:
        return "unknown"
    interval = (
        f" (95%: {number_text(change.low)} to {number_text(change.high)})" if change.low == change.low else ""
    )
    return f"{number_text(change.mean)}{interval}, over {counted(change.count, 'configuration')}"


def _differing(what: str, pairs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{what} of A: {_one_side(pairs, 0)}; of B: {_one_side(pairs, 1)}"] if pairs else []


def _one_side(pairs: Mapping[str, tuple[Any, Any]], side: int) -> str:
    return (
        configuration_text(
            {name: values[side] for name, values in pairs.items() if values[side] not in (None, "")}
        )
        or "none"
    )
