"""What a learning search costs, and whether workers wait for it.

    python benchmarks/search_cost.py [--trials 100,1000] [--workers 64] [--samplers tpe,cmaes] [--json FILE]

The first table is milliseconds per proposal, by the number of trials that the search knows.  The second is
the share of the workers' time that trials fill: the real scheduler and the real sampler in virtual time, with
trials of about a second; a proposal takes the CPU time that it took here, while trials go on.  The same with
proposals that take no time shows what the sampler costs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from searching.simulator import VirtualSweep, learning_sweep
from searching.tables import Outcome

from mpisweep.records import Direction
from mpisweep.search.learning import NAMED
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Past, Proposer
from mpisweep.spec import spec_from_flags
from mpisweep.spec.space import Configuration

SPACE = ("batch_size=1:700", "learning_rate=1e-4:1e-1:log", "optimizer=sgd,adamw")


def loss(configuration: Configuration, random: Random) -> float:
    """A landscape with a valley: small batches want small learning rates."""
    best = math.log(1e-4 * float(configuration["batch_size"]) ** 0.7)
    off = math.log(float(configuration["learning_rate"])) - best
    return off**2 + (configuration["optimizer"] == "sgd") + random.gauss(0, 0.05)


def proposer(sampler: str, past: Past, seed: int = 0) -> Proposer:
    options = {"search": "random", "trials": 1}
    space = spec_from_flags("m:f", SPACE, options=options, folder=Path()).space
    return Proposer(space, NAMED[sampler], seed, [Direction.MINIMIZE], past)


def cost_ms(sampler: str, known: int, asks: int) -> float:
    """Milliseconds of CPU per proposal of a search that knows `known` trials; 64 more are running."""
    random = Random(0)
    space = spec_from_flags("m:f", SPACE, options={"search": "random", "trials": 1}, folder=Path()).space
    points = [space.from_unit([random.random() for _ in SPACE]) for _ in range(known + 64)]
    ends = [Told(number, [loss(points[number], random)]) for number in range(known)]
    search = proposer(sampler, Past(points, {}, ends))
    search.ask(len(points), 1)
    started = time.process_time()
    search.ask(len(points) + 1, asks)
    return 1000 * (time.process_time() - started) / asks


def virtual_sweep(sampler: str, workers: int, trials: int, *, is_free: bool) -> VirtualSweep:
    """A sweep over the valley, with trials of 0.8 to 1.2 s."""
    random = Random(1)
    names = [name.partition("=")[0] for name in SPACE]
    return learning_sweep(
        proposer(sampler, Past([], {}, [])), names, trials,
        lambda one, _: Outcome(loss(one, random), random.uniform(0.8, 1.2)), workers, is_free=is_free,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", default="100,1000,5000", help="numbers of known trials")
    parser.add_argument("--workers", type=int, default=64, help="number of workers")
    parser.add_argument("--sweep", type=int, default=2000, help="number of trials of the virtual sweep")
    parser.add_argument("--samplers", default="tpe,gp,cmaes,nsga2", help="which searches")
    parser.add_argument("--json", type=Path, help="write JSON to this file")
    options = parser.parse_args()
    counts = [int(text) for text in options.trials.split(",")]
    samplers = options.samplers.split(",")
    found: dict[str, dict[str, float]] = {}
    print("ms per proposal" + "".join(f"{f'{count:,}':>10}" for count in counts))
    for sampler in samplers:
        # A Gaussian process of thousands of points takes minutes per proposal.
        row = {
            str(count): cost_ms(sampler, count, 3 if sampler == "gp" else 20)
            for count in counts
            if sampler != "gp" or count <= 1000
        }
        found[sampler] = row
        cells = "".join(f"{row.get(str(count), math.nan):>10.1f}" for count in counts)
        print(f"{sampler:<15}{cells}", flush=True)
    print(f"\nutilisation, {options.workers} workers, {options.sweep:,} trials of 0.8 to 1.2 s")
    for sampler in samplers:
        if sampler == "gp":
            continue
        used, bound = (
            virtual_sweep(sampler, options.workers, options.sweep, is_free=is_free).run()
            for is_free in (False, True)
        )
        found[sampler] |= {"utilisation": used, "utilisation_of_a_free_search": bound}
        print(f"{sampler:<15}{used:>10.4f}   of a search that takes no time: {bound:.4f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
