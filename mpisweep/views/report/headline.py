"""The first sentence of the report: what was found and how sure it is, or why nothing was."""

from __future__ import annotations

from mpisweep.progress import counted
from mpisweep.records import TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec.units import configuration_text, number_text
from mpisweep.views.findings import findings_of
from mpisweep.views.status import Status
from mpisweep.views.wording import at_budget, not_reached, without_finite

__all__ = ["headline"]


def headline(sweep: Sweep, status: Status) -> str:
    """Say what was found in one sentence.

    Args:
        sweep: that the status is of.
        status: of the sweep.
    """
    ended = status.trials - status.waiting - status.running
    left = status.trials - ended
    so_far = f"So far, with {ended:,} of {counted(status.trials, 'trial')} ended: " if left and ended else ""
    said = _found(sweep, status) or _nothing(sweep, status)
    return f"{so_far}{said}." if so_far else f"{said[0].upper()}{said[1:]}."


def _found(sweep: Sweep, status: Status) -> str:
    """What was found; empty if no complete trial has finite objectives."""
    if len(sweep.objectives) > 1:
        return _front(sweep)
    if sweep.objective not in sweep.metrics:
        return ""
    found = findings_of(sweep)
    order = found.order()
    if not len(order):
        return ""
    said = found.sentence(sweep)
    if found.is_repeated and said:
        return said
    best = sweep.trials[int(found.runs.first[order[0]])]
    where = configuration_text(sweep.searched(int(best["number"])))
    value = number_text(float(found.means.mean[order[0]]))
    count = int(found.means.count.sum())
    return (
        f"best {sweep.objective}{at_budget(sweep)} {value} in trial {best['number']}"
        f"{f', {where}' if where else ''}, of {counted(count, 'trial')} with a value"
        f"{f'; {said}' if said else ''}"
    )


def _front(sweep: Sweep) -> str:
    """The size of the front and its ends."""
    names = [one.name for one in sweep.objectives]
    if any(name not in sweep.metrics for name in names):
        return ""
    found = sweep.tradeoff()
    front = found.on_front
    if not len(front):
        return ""
    what = "configuration" if found.is_repeated else "trial"
    ends = [
        f"{name} {_span(float(values.min()), float(values.max()))}"
        for name, values in zip(names, found.values[front].T, strict=True)
    ]
    sure = (
        f"by means over up to {counted(int(found.count.max()), 'run')}"
        if found.is_repeated
        else "from one run each, so that some may be there by luck"
    )
    are = "is" if len(front) == 1 else "are"
    return (
        f"{len(front):,} of {counted(len(found.number), f'complete {what}')} {are} on the Pareto front of "
        f"{' and '.join(names)}{at_budget(sweep)}, {sure}: {', '.join(ends)}"
    )


def _span(low: float, high: float) -> str:
    return number_text(low) if low == high else f"from {number_text(low)} to {number_text(high)}"


def _nothing(sweep: Sweep, status: Status) -> str:
    """Why nothing was found."""
    if status.complete:
        if unreached := not_reached(sweep):
            return f"nothing to compare: {unreached}"
        names = [one.name for one in sweep.objectives]
        missing = [name for name in names if name not in sweep.metrics]
        if missing:
            return f"nothing to compare: no completed trial has reported {' or '.join(missing)}"
        return f"nothing to compare: {without_finite(status.complete, ' and '.join(names))}"
    if status.failed:
        causes = sorted(status.failures.items(), key=lambda one: -one[1])
        listed = ", ".join(f"{count:,} {cause}" for cause, count in causes)
        others = status.pruned + status.infeasible + status.skipped
        rest = f"; {counted(others, 'other')} ended without a result" if others else ""
        return f"no trial has completed: {counted(status.failed, 'trial')} failed ({listed}){rest}"
    words = [
        f"{getattr(status, state.label):,} {state.label}"
        for state in (TrialState.PRUNED, TrialState.INFEASIBLE, TrialState.SKIPPED)
        if getattr(status, state.label)
    ]
    if words:
        return f"no trial has completed: {', '.join(words)}"
    running = f", {counted(status.running, 'trial')} running" if status.running else ""
    return f"no trial has ended yet: 0 of {status.trials:,}{running}"
