"""A trial that was run again, compared with what its sweep has of it, as text."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpisweep.results.comparison import Comparison, Rerun
from mpisweep.results.load import Sweep
from mpisweep.views.console import print_whole
from mpisweep.views.wording import finite_or_none, units

__all__ = ["print_rerun", "rerun_fields"]


def print_rerun(done: Rerun, sweep: Sweep, number: int) -> None:
    """Print the values of then and now, and their difference."""
    if done.output:
        print(done.output, end="")
    then = sweep.trials[number]
    print(f"state: {then['state']} then, {done.state.label} now")
    if done.message:
        print(f"  {done.message}")
    drawn = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(("metric", "then", "now", "difference")):
        drawn.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for metric in (*done.metrics, done.wall_time_s):
        unit = "s" if metric is done.wall_time_s else units(sweep, metric.name)
        name = f"{metric.name} [{unit}]" if unit else metric.name
        drawn.add_row(escape(name), f"{metric.then:.8g}", f"{metric.now:.8g}", _apart(metric))
    print_whole(Console(), drawn)
    # A metric with units is a duration or a size, which differs every time.
    for curve in (curve for curve in done.curves if not units(sweep, curve.name)):
        first = done.first_difference.get(curve.name)
        if first is None:
            same = "the same at every step"
        elif curve.is_same:
            same = f"the same until one of the two ends, before step {first}"
        else:
            same = (
                f"differs from step {first} on; at most {_apart(curve)} ({curve.then:.8g} then, "
                f"{curve.now:.8g} now)"
            )
        print(f"  curve of {curve.name}: {same}")


def rerun_fields(done: Rerun, sweep: Sweep, number: int) -> dict[str, Any]:
    """The comparison for :func:`json.dumps`; a number that is NaN or infinite is None."""
    return {
        "trial": number,
        "state_then": str(sweep.trials[number]["state"]),
        "state_now": done.state.label,
        "message": done.message,
        "metrics": [_numbers(metric) for metric in (*done.metrics, done.wall_time_s)],
        "curves": [
            _numbers(curve) | {"first_difference": done.first_difference.get(curve.name)}
            for curve in done.curves
        ],
        "output": done.output,
    }


def _numbers(compared: Comparison) -> dict[str, Any]:
    numbers = {"then": compared.then, "now": compared.now, "relative": compared.relative}
    return {"name": compared.name, "is_same": compared.is_same} | {
        key: finite_or_none(value) for key, value in numbers.items()
    }


def _apart(compared: Comparison) -> str:
    return "none" if compared.is_same else f"{100 * compared.relative:.2g} %"
