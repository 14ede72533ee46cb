"""All there is to know of one trial, as data and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mpisweep.records import Direction, TrialState
from mpisweep.results.load import CurveArrays, Sweep
from mpisweep.spec.units import duration_text, number_text, value_text
from mpisweep.views.requests import failures_before_retries
from mpisweep.views.wording import clock, finite, finite_or_none, units

__all__ = ["Attempt", "CurveEnds", "TrialFacts", "trial_facts", "trial_lines"]

#: Size of the plot of a curve, in characters.
_WIDTH, _HEIGHT = 60, 8
#: Fewer reports are no curve to plot.
_PLOTTED = 5


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a trial; times are seconds since 1970, None if unknown."""

    attempt: int
    end: str
    rank: int | None
    slot: int
    host: str
    device: str
    assigned_at: float | None
    ended_at: float | None
    #: How the trial had failed when a user retried it; empty otherwise.
    failure: str = ""


@dataclass(frozen=True, slots=True)
class CurveEnds:
    """A curve in short."""

    metric: str
    units: str
    reports: int
    first_step: int
    first: float | None
    last_step: int
    last: float | None
    smallest: float | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """What is known of a trial.

    Attributes:
        parameters: searched ones, then fixed ones.
        state: ``complete``, ``failed`` and so on.
        place: among the complete trials by the objective, from 1; None without a finite one.
        ranked: number of complete trials with a finite objective.
        output: the files that hold the output of its command line.
        command: the command line of the trial; empty for a function and a built-in workload.
        rerun: the command that runs it once more.
    """

    sweep: str
    path: str
    number: int
    configuration: int
    repeat: int
    is_baseline: bool
    parameters: dict[str, Any]
    searched: tuple[str, ...]
    state: str
    cause: str
    message: str
    started_at: float | None
    wall_time_s: float | None
    device_energy_j: float | None
    #: Largest share of its GPU's memory that it held, part of the time in which the GPU computed, and mean
    #: number of trials that shared it.
    device_memory: float | None
    device_busy: float | None
    device_trials: float | None
    objective: str
    place: int | None
    ranked: int
    metrics: dict[str, float | None]
    metric_units: dict[str, str]
    attempts: tuple[Attempt, ...]
    curves: tuple[CurveEnds, ...]
    output: tuple[str, ...]
    command: str
    rerun: str

    def as_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; a number that is NaN or infinite is None."""
        parameters = {name: finite_or_none(value) for name, value in self.parameters.items()}
        return asdict(self) | {"parameters": parameters}


def trial_facts(
    sweep: Sweep, number: int, *, output: Sequence[str] = (), command: str = "", rerun: str = ""
) -> TrialFacts:
    """Gather what is known of one trial.

    Args:
        sweep: from :func:`mpisweep.load`.
        number: of the trial, which exists.
        output: files with its output.
        command: its command line.
        rerun: the command that runs it once more.
    """
    row = sweep.trials[number]
    ended = TrialState[str(row["state"]).upper()].is_end
    metrics = {
        name: finite(row[sweep.metric_column(name)])
        for name in sweep.metrics
        if ended and not _is_absent(row, sweep, name)
    }
    order = _order(sweep)
    curves = [_curve_ends(sweep, name, sweep.curve(number, name)) for name in sweep.curve_names]
    baseline = sweep.baseline
    return TrialFacts(
        sweep=sweep.name,
        path=str(sweep.path),
        number=number,
        configuration=int(row["configuration"]),
        repeat=int(row["repeat"]),
        is_baseline=baseline is not None and int(baseline["number"]) == number,
        parameters=sweep.configuration(number),
        searched=tuple(sweep.searched(number)),
        state=str(row["state"]),
        cause=str(row["cause"]),
        message=str(row["message"]),
        started_at=finite(row["started_at"]),
        wall_time_s=finite(row["wall_time"]),
        device_energy_j=finite(row["device_energy"]),
        device_memory=finite(row["device_memory"]),
        device_busy=finite(row["device_busy"]),
        device_trials=finite(row["device_trials"]),
        objective=sweep.objective,
        place=order.index(number) + 1 if number in order else None,
        ranked=len(order),
        metrics=metrics,
        metric_units={name: units(sweep, name) for name in metrics},
        attempts=tuple(_attempts(sweep, number)),
        curves=tuple(curve for curve in curves if curve is not None),
        output=tuple(output),
        command=command,
        rerun=rerun,
    )


def _is_absent(row: Any, sweep: Sweep, name: str) -> bool:
    """Whether a metric has no value at all, as in a trial that failed before it reported one."""
    value = float(row[sweep.metric_column(name)])
    return math.isnan(value) and str(row["state"]) != TrialState.COMPLETE.label


def _order(sweep: Sweep) -> list[int]:
    """Numbers of the complete trials with a finite objective, the best first."""
    if sweep.objective not in sweep.metrics:
        return []
    best = sweep.best(len(sweep.trials))
    finite = ~best["diverged"]
    return [int(number) for number in best["number"][finite]]


def _attempts(sweep: Sweep, number: int) -> Iterator[Attempt]:
    attempts, workers = sweep.attempts, sweep.workers
    failures = failures_before_retries(sweep, number)
    for one in attempts[attempts["trial"] == number]:
        worker = workers[one["worker"]] if 0 <= one["worker"] < len(workers) else None
        yield Attempt(
            attempt=int(one["attempt"]),
            end=str(one["end"]),
            rank=None if worker is None else int(worker["rank"]),
            slot=int(one["slot"]),
            host="" if worker is None else str(worker["host"]),
            device="" if worker is None else str(worker["device"]),
            assigned_at=finite(one["assigned_at"]),
            ended_at=finite(one["ended_at"]),
            failure=failures.get(int(one["attempt"]), ""),
        )


def _curve_ends(sweep: Sweep, name: str, curve: CurveArrays) -> CurveEnds | None:
    if not len(curve.value):
        return None
    known = curve.value[np.isfinite(curve.value)]
    return CurveEnds(
        metric=name,
        units=units(sweep, name),
        reports=len(curve.value),
        first_step=int(curve.step[0]),
        first=finite(curve.value[0]),
        last_step=int(curve.step[-1]),
        last=finite(curve.value[-1]),
        smallest=float(known.min()) if len(known) else None,
        largest=float(known.max()) if len(known) else None,
    )


# ------------------------------------------------------------------------------------- as text


def trial_lines(facts: TrialFacts, sweep: Sweep) -> Iterator[str]:
    """Put what is known of a trial into words, with a plot of its objective."""
    cause = f" ({facts.cause})" if facts.cause else ""
    baseline = ", the baseline" if facts.is_baseline else ""
    if sweep.spec.repeats.most > 1:
        baseline += f", repeat {facts.repeat} of configuration {facts.configuration}"
    yield f"trial {facts.number} of {facts.sweep}{baseline}: {facts.state}{cause}"
    better = "smallest" if sweep.direction == Direction.MINIMIZE else "largest"
    if facts.place is not None:
        yield f"  place {facts.place:,} of {facts.ranked:,} complete trials by {better} {facts.objective}"
    for line in facts.message.splitlines():
        yield f"  | {line}"
    yield from _time_lines(facts)
    yield from _section(
        "parameters",
        {
            name: value_text(value) + ("" if name in facts.searched else "  (fixed)")
            for name, value in facts.parameters.items()
        },
    )
    texts = {
        name: f"{'not finite' if value is None else number_text(value)} {facts.metric_units[name]}".rstrip()
        for name, value in facts.metrics.items()
    }
    yield from _section("metrics", texts)
    if facts.attempts:
        yield "attempts"
        yield from (f"  {_attempt_text(attempt)}" for attempt in facts.attempts)
    yield from _curve_lines(facts, sweep)
    if facts.output:
        yield "output"
        yield f"  `mpisweep output {facts.path} {facts.number}` prints it from {', '.join(facts.output)}"
    commands = {"its command": facts.command, "run it again": facts.rerun}
    yield from _section("commands", {what: command for what, command in commands.items() if command})


def _time_lines(facts: TrialFacts) -> Iterator[str]:
    if facts.started_at is not None:
        took = "" if facts.wall_time_s is None else f", took {duration_text(facts.wall_time_s)}"
        yield f"  started {clock(facts.started_at)}{took}"
    if facts.device_energy_j is not None:
        yield f"  energy of its GPUs {number_text(facts.device_energy_j)} J"
    if facts.device_memory is not None:
        yield f"  used up to {100 * facts.device_memory:.3g}% of its GPU's memory"
    if facts.device_busy is not None:
        yield f"  its GPU was busy for {100 * facts.device_busy:.0f}% of the time"
    if facts.device_trials is not None:
        yield f"  its GPU ran {facts.device_trials:.1f} trials at a time on average"


def _section(title: str, entries: dict[str, str]) -> Iterator[str]:
    if entries:
        yield title
        width = max(map(len, entries))
        yield from (f"  {name:<{width}}  {text}" for name, text in entries.items())


def _attempt_text(attempt: Attempt) -> str:
    where = " ".join(part for part in (attempt.host, attempt.device) if part) or "an unknown worker"
    rank = "" if attempt.rank is None else f", rank {attempt.rank}, slot {attempt.slot}"
    begun = "" if attempt.assigned_at is None else f", assigned {clock(attempt.assigned_at)}"
    ended = "" if attempt.ended_at is None else f", ended {clock(attempt.ended_at)}"
    failure = f", retried after {attempt.failure}" if attempt.failure else ""
    return f"{attempt.attempt}: {attempt.end} on {where}{rank}{begun}{ended}{failure}"


def _curve_lines(facts: TrialFacts, sweep: Sweep) -> Iterator[str]:
    if facts.curves:
        yield "curves"
    for curve in facts.curves:
        first, last = (_number(value) for value in (curve.first, curve.last))
        yield (
            f"  {curve.metric}: {curve.reports:,} reports, {first} at step {curve.first_step:,}, "
            f"{last} at step {curve.last_step:,}"
        )
    # The objective, or what there is.
    names = [curve.metric for curve in facts.curves if curve.reports >= _PLOTTED]
    if names:
        name = facts.objective if facts.objective in names else names[0]
        yield from plot(sweep.curve(facts.number, name), name)


def plot(curve: CurveArrays, name: str) -> Iterator[str]:
    """Draw a curve in plain characters: the mean of each column's reports."""
    is_finite = np.isfinite(curve.value)
    steps, values = curve.step[is_finite].astype(float), curve.value[is_finite]
    if len(values) < 2 or steps[0] == steps[-1]:
        return
    columns = ((steps - steps[0]) / (steps[-1] - steps[0]) * (_WIDTH - 1)).round().astype(int)
    sums, counts = np.zeros(_WIDTH), np.zeros(_WIDTH)
    np.add.at(sums, columns, values)
    np.add.at(counts, columns, 1.0)
    means = np.full(_WIDTH, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    span = high - low or 1.0
    rows = [
        -1 if math.isnan(mean) else round((high - mean) / span * (_HEIGHT - 1)) for mean in means.tolist()
    ]
    labels = {0: number_text(high), _HEIGHT - 1: number_text(low)}
    width = max(map(len, labels.values()))
    yield f"  {name} by step"
    for row in range(_HEIGHT):
        points = "".join("*" if at == row else " " for at in rows).rstrip()
        yield f"  {labels.get(row, ''):>{width}} |{points}"
    ends = f"{int(steps[0]):,}", f"{int(steps[-1]):,}"
    yield f"  {'':>{width}} +{'-' * _WIDTH}"
    yield f"  {'':>{width}}  {ends[0]}{ends[1]:>{_WIDTH - len(ends[0])}}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else number_text(value)
