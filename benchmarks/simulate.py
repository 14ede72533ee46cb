"""Makespan of a sweep under the real scheduler, in virtual time, with any durations.

    python benchmarks/simulate.py --durations FILE --workers 64,256 [--parameters FILE] [--json]

FILE holds one duration in seconds per line; or it is a CSV file, whose column ``wall_time`` counts and whose
other columns are parameters; or a results file (``.h5``) of mpisweep, whose completed trials count.
``--parameters`` names a CSV file with a column per parameter, one line per trial, from which the scheduler
may learn durations.  Without ``--durations``, three made-up sweeps of 700 trials are simulated: durations
like the poster's (20 s + 0.25 s per image, noise of 12%), log-normal durations that the parameters explain
but for 10%, and log-normal ones that nothing explains; each ``--repeats`` times, and the means are printed.

The columns ``ours``, ``known`` and ``submitted`` are makespans over the lower bound max(sum / workers,
longest): of this scheduler; of the longest first when all durations are known beforehand; and of a plain
queue in the order of submission.  An idle worker gets its next trial after ``--latency`` seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parent.parent))

from mpisweep.records import Value
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.scheduling.simulation import Simulation

#: Trials of a made-up sweep.
TRIALS = 700

Columns = dict[str, list[Value | None]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A sweep to simulate: duration of each trial in seconds, and its parameters."""

    name: str
    durations: list[float]
    parameters: Columns


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulated sweep; the ratios are makespans over the lower bound."""

    workload: str
    workers: int
    trials: int
    makespan_s: float
    lower_bound_s: float
    ratio: float
    ratio_known: float
    ratio_submitted: float
    #: Share of the workers' time in which trials ran, until the last one ended.
    utilisation: float
    #: From master to workers and back, per trial.
    messages_per_trial: float
    #: Of the scheduler, on this machine.
    microseconds_per_event: float


def pull_queue(durations: Sequence[float], workers: int, latency_s: float) -> float:
    """Makespan of a plain queue: each idle worker takes the next trial of this order."""
    free_at = [0.0] * workers
    heapify(free_at)
    for duration in durations:
        heapreplace(free_at, free_at[0] + latency_s + duration)
    return max(free_at)


def simulate(workload: Workload, workers: int, latency_s: float) -> Outcome:
    """Simulate one sweep with this number of workers."""
    durations = workload.durations
    columns = workload.parameters
    model = DurationModel(columns, work_from_names(columns), len(durations))
    simulation = Simulation(model, durations, workers, latency_s, timed=time.perf_counter_ns)
    makespan_s = simulation.run()
    bound_s = max(sum(durations) / workers, max(durations))
    return Outcome(
        workload.name,
        workers,
        len(durations),
        makespan_s,
        bound_s,
        makespan_s / bound_s,
        pull_queue(sorted(durations, reverse=True), workers, latency_s) / bound_s,
        pull_queue(durations, workers, latency_s) / bound_s,
        sum(durations) / (workers * makespan_s),
        simulation.messages / len(durations),
        simulation.nanoseconds / simulation.events / 1000,
    )


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Mean of simulations that differ in the durations alone."""
    numbers = {
        field.name: fmean(getattr(outcome, field.name) for outcome in outcomes)
        for field in fields(Outcome)
        if field.name not in ("workload", "workers", "trials")
    }
    return replace(outcomes[0], **numbers)


# ------------------------------------------------------------------------------------- workloads


def like_the_poster(random: Random) -> Workload:
    """Batch sizes 1 to 700, 20 s + 0.25 s per image, with a noise of 12%."""
    sizes: list[Value | None] = list(range(1, TRIALS + 1))
    durations = [(20 + 0.25 * size) * math.exp(random.gauss(0, 0.12)) for size in range(1, TRIALS + 1)]
    return Workload("like the poster", durations, {"batch_size": sizes})


def explained(random: Random) -> Workload:
    """Log-normal durations of 100 s (median), which width and depth of a network explain but for 10%."""
    widths = [random.choice([32, 64, 128, 256, 512]) for _ in range(TRIALS)]
    depths = [random.randint(2, 40) for _ in range(TRIALS)]
    durations = [
        100 * (width / 128) ** 0.6 * (depth / 12) ** 0.7 * math.exp(random.gauss(0, 0.1))
        for width, depth in zip(widths, depths, strict=True)
    ]
    return Workload("log-normal, explained", durations, {"channels": [*widths], "layers": [*depths]})


def unexplained(random: Random) -> Workload:
    """Log-normal durations of 100 s (median) that vary by a factor of 2 without a reason."""
    durations = [100 * math.exp(random.gauss(0, 0.7)) for _ in range(TRIALS)]
    return Workload("log-normal, unexplained", durations, {"x": [random.random() for _ in range(TRIALS)]})


def read_workload(path: Path, parameters: Path | None) -> Workload:
    """Read durations and parameters from files; see the module's text.

    Raises:
        SystemExit: if a file cannot be read, with a sentence that says why.
    """
    try:
        if path.suffix == ".h5":
            workload = _read_results(path)
        elif path.suffix == ".csv":
            columns = _read_csv(path)
            if "wall_time" not in columns:
                sys.exit(f"{path}: has no column wall_time; it has {', '.join(columns)}")
            durations = [float(str(value)) for value in columns.pop("wall_time")]
            workload = Workload(path.name, durations, columns)
        else:
            lines = path.read_text(encoding="utf-8").split()
            workload = Workload(path.name, [float(line) for line in lines], {})
        if parameters is not None:
            workload = Workload(workload.name, workload.durations, _read_csv(parameters))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    if not workload.durations or not all(0 < one < math.inf for one in workload.durations):
        sys.exit(f"{path}: durations must be numbers of seconds above 0, at least one")
    for name, column in workload.parameters.items():
        if len(column) != len(workload.durations):
            sys.exit(f"{path}: has {len(workload.durations)} durations, and {len(column)} values of {name}")
    return workload


def _read_results(path: Path) -> Workload:
    import mpisweep

    sweep = mpisweep.load(path)
    rows = [n for n, state in enumerate(sweep.trials["state"]) if state == "complete"]
    found: Columns = {
        name: [sweep.configuration(n).get(name) for n in rows] for name in sweep.spec.space.names
    }
    return Workload(path.name, [float(sweep.trials["wall_time"][n]) for n in rows], found)


def _read_csv(path: Path) -> Columns:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [_value(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# ------------------------------------------------------------------------------------- output

HEADER = (
    f"{'sweep':<26}{'workers':>8}{'makespan':>12}{'bound':>12}{'ours':>8}{'known':>8}{'submitted':>11}"
    f"{'busy':>7}{'messages':>10}{'us/event':>10}"
)


def line(outcome: Outcome) -> str:
    """One line of the table."""
    return (
        f"{outcome.workload:<26}{outcome.workers:>8,}{outcome.makespan_s:>11,.1f}s{outcome.lower_bound_s:>11,.1f}s"
        f"{outcome.ratio:>8.3f}{outcome.ratio_known:>8.3f}{outcome.ratio_submitted:>11.3f}"
        f"{outcome.utilisation:>7.3f}{outcome.messages_per_trial:>10.2f}{outcome.microseconds_per_event:>10.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--durations", type=Path, help="seconds, one per line; a CSV file; or a results file")
    parser.add_argument("--parameters", type=Path, help="CSV file with a column per parameter")
    parser.add_argument(
        "--workers", default="16,64,128,256", help="numbers of workers (default: %(default)s)"
    )
    parser.add_argument("--latency", type=float, default=0.001, help="seconds until an idle worker begins")
    parser.add_argument("--repeats", type=int, default=8, help="repeats of each made-up sweep")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.parameters is not None and options.durations is None:
        parser.error("--parameters needs --durations")
    if options.durations is not None:
        groups = [[read_workload(options.durations, options.parameters)]]
    else:
        makers = (like_the_poster, explained, unexplained)
        groups = [[make(Random(seed)) for seed in range(options.repeats)] for make in makers]
    if not options.json:
        print(HEADER)
    outcomes = []
    for workloads in groups:
        for workers in map(int, options.workers.split(",")):
            outcomes.append(mean([simulate(one, workers, options.latency) for one in workloads]))
            if not options.json:
                print(line(outcomes[-1]), flush=True)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))


if __name__ == "__main__":
    main()
