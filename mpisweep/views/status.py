"""The status of a sweep: trials by state, the best one, and what went wrong."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpisweep.progress import counted, sharing_text
from mpisweep.records import AttemptEnd, EndReason, FailureCause, TrialState
from mpisweep.results import journal_folder, shares_folder
from mpisweep.results.best import best_means
from mpisweep.results.holder import is_surely_gone
from mpisweep.results.load import Sweep, imported_counts, stop_progress, total_trials, trials_to_come
from mpisweep.results.shares.folder import members, part_file
from mpisweep.results.trial_table import needs_too_much
from mpisweep.spec.units import configuration_text, duration_text, number_text, value_text
from mpisweep.views.prediction import Prediction, prediction_lines, prediction_of
from mpisweep.views.requests import RequestStatus, request_lines, requests_of
from mpisweep.views.usage import Usage, usage_lines, usage_of
from mpisweep.views.wording import without_finite

__all__ = [
    "CONTINUES",
    "GONE",
    "BestTrial",
    "Status",
    "journals",
    "print_status",
    "running_attempts",
    "status_lines",
    "sweep_status",
]

#: State of a sweep whose last run died without closing.
GONE = "gone"
#: States of a sweep whose run is active, or is about to be started again.
CONTINUES = ("running", *(end.value for end in EndReason if end.is_passing))


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The best trial by one objective; with repeats a trial of the best configuration."""

    objective: str
    value: float
    trial: int
    parameters: dict[str, Any]
    #: Number of runs of which `value` is the mean; 0 without repeats.
    runs: int = 0

    @property
    def line(self) -> str:
        """In words."""
        where = configuration_text(self.parameters)
        if self.runs:
            runs = ", ".join(filter(None, (counted(self.runs, "run"), where)))
            return f"  best mean {self.objective} {number_text(self.value)} ({runs})"
        trial = f"trial {self.trial}: {where}" if where else f"trial {self.trial}"
        return f"  best {self.objective} {number_text(self.value)} ({trial})"


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a sweep."""

    name: str
    path: str
    #: How the last run ended; ``running`` while it runs, :data:`GONE` if it died.
    state: str
    trials: int
    waiting: int
    running: int
    complete: int
    pruned: int
    failed: int
    infeasible: int
    skipped: int
    #: The largest number at any time.
    workers: int
    allocations: int
    trial_time_s: float
    usage: Usage
    objective: str
    best: float | None
    best_trial: int | None
    best_parameters: dict[str, Any]
    #: Number of runs of which `best` is the mean; 0 if it is that of a single trial.
    best_runs: int
    #: The best by each objective after the first one.
    others: tuple[BestTrial, ...]
    #: Number of trials, or with repeats of configurations, on the front of several objectives; 0 with one.
    front: int
    failures: dict[str, int]
    #: Completed and pruned trials without a finite objective.
    diverged: int
    damaged_bytes: int
    #: The searched parameter and its largest value that fits in memory (smallest, where larger values take
    #: less); empty if unknown.
    largest_that_fits: dict[str, Any]
    #: Which end of the parameter that is: ``largest`` or ``smallest``.
    extreme: str
    #: Configurations and repeats, or how the race stands; empty without repeats.
    repeats: str
    #: Devices of the last run, and of those beside it, that got no more trials, and why.
    quarantined: tuple[str, ...]
    #: Devices of the same runs that are far below their peers, and what is wrong.
    low_devices: tuple[str, ...]
    #: How many trials share each GPU of a kind, where that is measured.
    sharing: tuple[str, ...]
    #: File or storage -> number of trials imported from there.
    imported: dict[str, int]
    #: How far each rule of [stop] is from holding.
    stop: tuple[str, ...]
    #: What users asked of the sweep: first what was applied, then what waits.
    requests: tuple[RequestStatus, ...]
    #: What the last predicted run was expected to take, and took; None if there is none.
    prediction: Prediction | None

    def as_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`."""
        found = asdict(self)
        usage: dict[str, Any] = found.pop("usage")
        found["best_parameters"] = _without_nan(found["best_parameters"])
        for other in found["others"]:
            other["parameters"] = _without_nan(other["parameters"])
        return found | usage


def _without_nan(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value == value else None for name, value in parameters.items()}


def sweep_status(sweep: Sweep) -> Status:
    """Count the trials of a sweep by state, and find the best."""
    bests = _bests(sweep)
    best = bests[0]
    causes = [str(cause) for cause in sweep.trials["cause"] if cause]
    wall_time = sweep.trials["wall_time"]
    counts = {state.label: sweep.count(state) for state in TrialState}
    folders = journals(sweep.path)
    is_gone = sweep.state == "running" and folders != [] and all(map(is_surely_gone, folders))
    # A trial that was handed out and has not begun waits; those of a dead run all run again.
    running = 0 if is_gone else len(running_attempts(sweep))
    waiting = counts["waiting"] + counts["running"] - running + trials_to_come(sweep)
    counts |= {"waiting": waiting, "running": running}
    started, ended = sweep.spans.T
    present = np.flatnonzero(~(ended < started[-1])) if len(started) else started
    return Status(
        name=sweep.name,
        path=str(sweep.path),
        state=GONE if is_gone else sweep.state,
        trials=total_trials(sweep),
        **counts,
        workers=sweep.most_workers,
        allocations=len(sweep.allocations),
        trial_time_s=float(wall_time[wall_time == wall_time].sum()),
        usage=usage_of(sweep),
        objective=sweep.objective,
        best=None if best is None else best.value,
        best_trial=None if best is None else best.trial,
        best_parameters={} if best is None else best.parameters,
        best_runs=0 if best is None else best.runs,
        others=tuple(other for other in bests[1:] if other is not None),
        front=len(sweep.tradeoff().on_front) if len(bests) > 1 else 0,
        failures={cause: causes.count(cause) for cause in sorted(set(causes))},
        diverged=int(sweep.trials["diverged"].sum()),
        damaged_bytes=sum(damage.length for damage in sweep.damages),
        largest_that_fits=_largest_that_fits(sweep),
        extreme="smallest" if "decreasing" in sweep.spec.space.memory.values() else "largest",
        repeats=_repeats(sweep),
        quarantined=_devices(sweep, "quarantine", present),
        low_devices=_devices(sweep, "device_check", present),
        sharing=_sharing(sweep),
        imported=imported_counts(sweep),
        stop=tuple(stop_progress(sweep)),
        requests=tuple(requests_of(sweep)),
        prediction=prediction_of(sweep),
    )


def _bests(sweep: Sweep) -> list[BestTrial | None]:
    """The best by each objective: trials, or configurations as soon as one has two complete runs."""
    names = [objective.name for objective in sweep.objectives]
    means, is_repeated = best_means(sweep) if sweep.spec.repeats.first > 1 else ([], False)
    if not is_repeated:
        return [_best(sweep, name) for name in names]
    found: list[BestTrial | None] = []
    for name, mean in zip(names, means, strict=True):
        number = int(sweep.trials["number"][mean.row])
        found.append(BestTrial(name, mean.value, number, _searched(sweep, number), mean.runs))
    return found


def _best(sweep: Sweep, objective: str) -> BestTrial | None:
    """The best trial by an objective; None if no complete one has finite objectives."""
    best = sweep.best(1, objective)
    if not len(best) or best[0]["diverged"]:
        return None
    row = best[0]
    number = int(row["number"])
    return BestTrial(objective, float(row[sweep.metric_column(objective)]), number, _searched(sweep, number))


def _devices(sweep: Sweep, column: str, allocations: Any) -> tuple[str, ...]:
    """The workers of these allocations for which a column says something, and what it says."""
    return tuple(
        f"{worker['device']} on {worker['host']} (rank {worker['rank']}): {worker[column]}"
        for worker in sweep.workers
        if worker[column] and worker["allocation"] in allocations
    )


def _sharing(sweep: Sweep) -> tuple[str, ...]:
    last = {str(row["device_kind"]): (int(row["trials"]), float(row["gain"])) for row in sweep.sharing}
    return tuple(sharing_text(kind, trials, gain) for kind, (trials, gain) in last.items())


def running_attempts(sweep: Sweep) -> list[Any]:
    """The first unfinished row of ``sweep.attempts`` per slot; those behind it wait in the slot."""
    first: dict[tuple[int, int], Any] = {}
    attempts, states = sweep.attempts, sweep.trials["state"]
    for attempt in attempts[attempts["end"] == AttemptEnd.RUNNING.label]:
        if states[attempt["trial"]] == TrialState.RUNNING.label:
            first.setdefault((int(attempt["worker"]), int(attempt["slot"])), attempt)
    return list(first.values())


def journals(path: Path) -> list[Path]:
    """Journal folders of all runs that may be active: several if the sweep is split."""
    folder = shares_folder(path)
    try:
        return [journal_folder(part_file(folder, member)) for member in members(folder)]
    except FileNotFoundError:
        return [journal_folder(path)]


def _searched(sweep: Sweep, number: int) -> dict[str, Any]:
    """The searched parameters of a trial; NaN for those that were lost to damage."""
    lost = [name for name in sweep.spec.space.names if name not in sweep.spec.space.absentable]
    return dict.fromkeys(lost, math.nan) | sweep.searched(number)


def _repeats(sweep: Sweep) -> str:
    """Configurations and repeats in words; empty without repeats."""
    repeats, numbers = sweep.spec.repeats, sweep.trials["configuration"]
    made = np.bincount(numbers[numbers >= 0])
    if repeats.most == 1 or not len(made):
        return ""
    if not repeats.is_race:
        return f"{counted(len(made), 'configuration')} x {repeats} repeats"
    # Who has left has fewer repeats than those in the race; at first all have the same.
    racing = int((made == made.max()).sum()) if made.max() > repeats.first else len(made)
    return (
        f"{racing:,} of {counted(len(made), 'configuration')} in the race, "
        f"with {counted(int(made.max()), 'repeat')} of up to {repeats.most}"
    )


def _largest_that_fits(sweep: Sweep) -> dict[str, Any]:
    """The extreme value that fits, if the one parameter searched takes memory and hit a limit."""
    memory, trials = sweep.spec.space.memory, sweep.trials
    if len(sweep.spec.space.names) != 1 or not memory:
        return {}
    [(name, word)] = memory.items()
    values = trials[sweep.column(name)]
    fit = values[trials["state"] == TrialState.COMPLETE.label]
    is_out = (trials["cause"] == FailureCause.OUT_OF_MEMORY.label) | needs_too_much(trials)
    if len(fit) == 0 or not is_out.any():
        return {}
    return {name: (fit.max() if word == "increasing" else fit.min()).item()}


def status_lines(status: Status) -> list[str]:
    """Put a status into words."""
    ended = status.trials - status.waiting - status.running
    state = (
        "the last run died without closing; run the same command to resume"
        if status.state == GONE
        else status.state
    )
    lines = [f"{status.name}: {state}", f"  {ended} of {status.trials} trials have ended"]
    if status.repeats:
        lines.append(f"  {status.repeats}")
    counts = [
        f"{getattr(status, name)} {name}"
        for name in ("complete", "pruned", "failed", "infeasible", "skipped", "running", "waiting")
        if getattr(status, name)
    ]
    lines.append("  " + ", ".join(counts))
    lines += [
        f"  {counted(count, 'trial')} imported from {place}" for place, count in status.imported.items()
    ]
    if status.failures:
        lines.append("  failures: " + ", ".join(f"{n} {cause}" for cause, n in status.failures.items()))
    if status.diverged:
        names = [status.objective, *(other.objective for other in status.others)]
        how = "completed or pruned" if status.pruned else "completed"
        lines.append(f"  {without_finite(status.diverged, ' or '.join(names), how=how)}")
    if status.front:
        what = "configuration" if status.repeats else "trial"
        lines.append(f"  {counted(status.front, what)} on the front")
    if status.best is not None and status.best_trial is not None:
        best = BestTrial(
            status.objective, status.best, status.best_trial, status.best_parameters, status.best_runs
        )
        lines += [one.line for one in (best, *status.others)]
    lines += [
        f"  {status.extreme} {name} that fits in memory: {value_text(value)}"
        for name, value in status.largest_that_fits.items()
    ]
    lines.append(
        f"  {duration_text(status.trial_time_s)} of trials, "
        f"{counted(status.workers, 'worker')}, {counted(status.allocations, 'allocation')}"
    )
    lines += [f"  {text}" for text in status.sharing]
    lines += usage_lines(status.usage, status.complete)
    lines += prediction_lines(status.prediction)
    if status.stop:
        lines.append(f"  stops at {', or '.join(status.stop)}")
    lines += request_lines(status.requests)
    # A device that is kept out for its check is told once.
    lines += [f"  device check: {why}" for why in status.low_devices if why not in status.quarantined]
    lines += [f"  quarantined: {why}" for why in status.quarantined]
    if status.damaged_bytes:
        lines.append(f"  {status.damaged_bytes} bytes of the journal are damaged; everything else is used")
    return lines


def print_status(status: Status) -> None:
    """Print a status in words."""
    print("\n".join(status_lines(status)))
