"""Planning an allocation: time, cost and the chance to end in time, for several sizes of it.

For every size the sweep is laid out with hundreds of drawn durations (:mod:`mpisweep.scheduling.drawing`,
:mod:`mpisweep.scheduling.layout`).  A few of the draws are also run under the real scheduler in virtual time
(:mod:`mpisweep.scheduling.simulation`), and the layouts are stretched by what that takes longer.

A walltime is long enough for a draw if the scheduler starts every trial in it, which it does only if the
trial's upper bound ends in time, and if every trial ends before running trials are asked to return.

Pure: the caller passes the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisweep.scheduling.drawing import Ahead, Drawn, draw_durations
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.forecast import forecast
from mpisweep.scheduling.layout import Laid, lay_out
from mpisweep.scheduling.simulation import Simulation

__all__ = ["CONFIDENCE", "Alone", "Plan", "Row", "Setting", "Size", "make_plan", "plain_prediction"]

#: The probability with which a suggested job ends all trials.
CONFIDENCE = 0.95
#: Draws, and the numbers of drawn durations that bound them: a plan must print in seconds.
_DRAWS, _DRAWS_LEAST = 400, 40
_DRAWN_AT_MOST = 4_000_000
_CELLS_AT_MOST = 200_000_000
#: A prediction without a plan is made by a running master, so it must take milliseconds: numbers of trials
#: above which there is none or trials are not laid out one by one, and of drawn durations.
_PLAIN_AT_MOST, _PLAIN_SINGLE, _PLAIN_DRAWN = 100_000, 2_000, 200_000
#: Draws that the real scheduler runs too, and the number of trials above which it runs none.
_REAL, _REAL_TRIALS_AT_MOST = 2, 3000
#: From the end of a trial until the worker begins the next one, in seconds.
_LATENCY_S = 0.001
#: A faster job may use so many times the node-hours of the cheapest one.
_DEARER = 1.10
#: A trial that runs alone for this share of the time is worth a sentence.
_SHARE_ALONE = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """A size of the allocation.

    Attributes:
        nodes: number of nodes, or of GPUs where jobs ask for these.
        workers: number of workers on them.
        startup_s: from the start of the job to the first trial.
        longest_s: longest time limit of such a job; None for unknown.
    """

    nodes: int
    workers: int
    startup_s: float = 0.0
    longest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for every size.

    Attributes:
        walltime_s: walltime that the user has; None to suggest one.
        grace_s: grace period of running trials.
        closing_s: walltime -> time at its end that is kept for closing.
        seed: of the draws.
    """

    walltime_s: float | None = None
    grace_s: float = 0.0
    closing_s: Callable[[float], float] = lambda _: 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What one size would take.

    Attributes:
        nodes: see :class:`Size`.
        workers: number of workers.
        startup_s: from the start of the job to the first trial.
        time_s: median time until the last trial has ended.
        bound_s: the time that 95% of the draws stay below.
        node_hours: nodes times the median time.
        elapse_s: walltime to ask for.
        probability: that all trials end within the user's walltime, or else within `elapse_s`; 1.0 if the
            durations are upper bounds.
        fitting: number of trials that are expected to end within the walltime; None without one.
        is_allowed: whether a job of this size may have `elapse_s`, as far as is known.
    """

    nodes: int
    workers: int
    startup_s: float
    time_s: float
    bound_s: float
    node_hours: float
    elapse_s: float
    probability: float
    fitting: int | None
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class Alone:
    """One trial that holds the whole allocation at the end.

    Attributes:
        trial: its number; None if a search is still to propose it.
        nodes: size of the allocation.
        seconds: how long no other trial runs.
        share: of the sweep's time.
    """

    trial: int | None
    nodes: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan for the trials that are left.

    Attributes:
        trials: number of them.
        draws: number of virtual runs per size; 1 if durations are upper bounds.
        real_draws: number of these that the real scheduler ran too.
        is_bound: whether the durations are timeouts because nothing was measured.
        walltime_s: the user's; None for none.
        rows: one per size, the smallest first.
        suggested: what to ask for; None if no size ends all trials in time.
        cheapest: the size with the fewest node-hours, if that is another one.
        alone: the trial that holds the suggested allocation at the end; None if none does.
    """

    trials: int
    draws: int
    real_draws: int
    is_bound: bool
    walltime_s: float | None
    rows: tuple[Row, ...]
    suggested: Row | None
    cheapest: Row | None
    alone: Alone | None


def make_plan(ahead: Ahead, sizes: Sequence[Size], setting: Setting) -> Plan | None:
    """Plan the trials that are left.

    Args:
        ahead: the trials, of which there is at least one.
        sizes: of the allocation, the smallest first; those with too few workers are left out.
        setting: what holds for every size.

    Returns:
        None if no duration is known, or if no size has enough workers for the widest trial.
    """
    sizes = [size for size in sizes if size.workers >= ahead.widest]
    draws = _draws(ahead.count, max((size.workers for size in sizes), default=1))
    drawn = draw_durations(ahead, draws, np.random.default_rng(setting.seed))
    if drawn is None or not sizes:
        return None
    real = _REAL if ahead.count <= _REAL_TRIALS_AT_MOST and ahead.model.is_known else 0
    found: list[tuple[Row, Laid]] = []
    for size in sizes:
        laid = _laid(drawn, size.workers, real)
        found.append((_row(ahead, size, setting, laid), laid))
    rows = tuple(row for row, _ in found)
    suggested, cheapest = _suggest(rows, setting.walltime_s)
    alone = next((_alone(ahead, *one) for one in found if one[0] is suggested), None)
    is_bound = not ahead.model.is_known
    return Plan(
        ahead.count,
        len(drawn.durations_s),
        real,
        is_bound,
        setting.walltime_s,
        rows,
        suggested,
        None if cheapest is suggested else cheapest,
        alone,
    )


def plain_prediction(ahead: Ahead, workers: int, seed: int) -> tuple[float, float] | None:
    """Median and 95% bound, in seconds, from the first trial's start to the last one's end.

    Returns:
        None if nothing was measured, nothing or too much is left, or the workers are too few.
    """
    if not 0 < ahead.count <= _PLAIN_AT_MOST or workers < ahead.widest or not ahead.model.is_known:
        return None
    draws = max(8, min(_DRAWS // 2, _PLAIN_DRAWN // ahead.count))
    drawn = draw_durations(ahead, draws, np.random.default_rng(seed))
    if drawn is None:
        return None
    times = lay_out(drawn, workers, _LATENCY_S, single_up_to=_PLAIN_SINGLE).makespan_s
    return float(np.median(times)), float(np.quantile(times, CONFIDENCE))


def _draws(trials: int, workers: int) -> int:
    at_most = min(_DRAWN_AT_MOST // max(trials, 1), _CELLS_AT_MOST // max(trials * workers, 1))
    return max(_DRAWS_LEAST, min(_DRAWS, at_most))


def _laid(drawn: Drawn, workers: int, real: int) -> Laid:
    """Lay out the draws, stretched to what the real scheduler takes for the first of them."""
    laid = lay_out(drawn, workers, _LATENCY_S)
    if not real:
        return laid
    model = DurationModel.stated(
        drawn.expected_s.tolist(), drawn.uncertainty, places=range(len(drawn.expected_s))
    )
    widths = drawn.widths.tolist() if (drawn.widths > 1).any() else None
    took = [
        Simulation(model, durations.tolist(), workers, _LATENCY_S, widths=widths).run()
        for durations in drawn.durations_s[:real]
    ]
    stretch = max(1.0, sum(took) / float(laid.makespan_s[:real].sum()))
    return laid._replace(
        makespan_s=laid.makespan_s * stretch,
        latest_s=laid.latest_s * stretch,
        alone_s=laid.alone_s * stretch,
    )


def _row(ahead: Ahead, size: Size, setting: Setting, laid: Laid) -> Row:
    times = size.startup_s + laid.makespan_s
    needs = size.startup_s + np.maximum(laid.makespan_s + setting.grace_s, laid.latest_s)
    elapse_s = _rounded_up(_walltime_for(float(np.quantile(needs, CONFIDENCE)), setting.closing_s))
    walltime_s = setting.walltime_s
    within_s = elapse_s if walltime_s is None else walltime_s
    time_s = float(np.median(times))
    limit_s = min((s for s in (size.longest_s, walltime_s) if s is not None), default=math.inf)
    return Row(
        nodes=size.nodes,
        workers=size.workers,
        startup_s=size.startup_s,
        time_s=time_s,
        bound_s=float(np.quantile(times, CONFIDENCE)),
        node_hours=size.nodes * time_s / 3600,
        elapse_s=elapse_s,
        probability=_share(needs <= within_s - setting.closing_s(within_s)),
        fitting=None if walltime_s is None else _fitting(ahead, size, setting, walltime_s),
        is_allowed=elapse_s <= limit_s,
    )


def _share(holds: NDArray[np.bool_]) -> float:
    return float(holds.mean())


def _fitting(ahead: Ahead, size: Size, setting: Setting, walltime_s: float) -> int:
    """Number of trials that are expected to end within the walltime."""
    left_s = walltime_s - setting.closing_s(walltime_s) - setting.grace_s - size.startup_s
    if left_s <= 0:
        return 0
    found = forecast(
        ahead.model,
        ahead.numbers,
        workers=size.workers,
        timeout_s=ahead.timeout_s,
        walltime_s=left_s,
        widths=ahead.widths,
        to_come=ahead.to_come,
    )
    return 0 if found is None else found.fitting


def _walltime_for(need_s: float, closing_s: Callable[[float], float]) -> float:
    """The shortest walltime that leaves so long for trials, in seconds."""
    low, high = need_s, need_s + 1.0
    while high - closing_s(high) < need_s:
        high *= 2
    while high - low > 0.5:
        middle = (low + high) / 2
        if middle - closing_s(middle) < need_s:
            low = middle
        else:
            high = middle
    return high


def _rounded_up(seconds: float) -> float:
    """A time that people ask for: whole minutes, and from half an hour on multiples of five."""
    step = 60 if seconds <= 1800 else 300
    return float(max(step, step * math.ceil(seconds / step)))


def _suggest(rows: Sequence[Row], walltime_s: float | None) -> tuple[Row | None, Row | None]:
    """The shortest job of those that cost little more than the cheapest one, and that one."""
    allowed = [row for row in rows if row.is_allowed]
    if walltime_s is not None:
        allowed = [row for row in allowed if row.probability >= CONFIDENCE]
    if not allowed:
        return None, None
    cheapest = min(allowed, key=lambda row: row.node_hours)
    affordable = [row for row in allowed if row.node_hours <= _DEARER * cheapest.node_hours]
    return min(affordable, key=lambda row: (row.elapse_s, row.nodes)), cheapest


def _alone(ahead: Ahead, row: Row, laid: Laid) -> Alone | None:
    """The trial that runs alone at the end, if one does so for long enough and in most draws."""
    if row.workers == 1:
        return None
    last = int(np.bincount(laid.last).argmax())
    own = laid.last == last
    seconds = float(np.median(laid.alone_s[own]))
    share = seconds / float(np.median(laid.makespan_s[own]))
    if _share(own) < 0.5 or share < _SHARE_ALONE:
        return None
    order = ahead.in_order()
    return Alone(order[last] if last < len(order) else None, row.nodes, seconds, share)
