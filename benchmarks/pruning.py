"""What pruning costs: from a report to should_stop(), reports per second, and the master's time per report.

    python benchmarks/pruning.py [--trials 100,1000] [--seconds 2]

The first number is that of a real run with two workers, and depends on what else the machine does; the others
are processor time of this process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mpisweep.blocks import Curve, ReportBlock, decode, encode
from mpisweep.master.judge import Bench
from mpisweep.master.prune_client import PruneClient
from mpisweep.spec import parse_spec

#: Reports per trial.
STEPS = 100

SWEEP = """
name = "s"
workload = "mine:run"
prune = { pruner = "threshold", upper = 0.5 }
[parameters]
x = { from = 1, to = 60 }
"""
WORKLOAD = """
import time
def run(trial):
    time.sleep(0.05)
    began = time.perf_counter()
    trial.report(0, loss=1.0)
    while not trial.should_stop():
        time.sleep(0.0002)
    trial.report(1, loss=1.0, latency=time.perf_counter() - began)
"""


def latencies_ms() -> list[float]:
    """Milliseconds from a hopeless report until should_stop() is true, per trial."""
    import mpisweep

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(WORKLOAD)
        (Path(folder) / "s.toml").write_text(SWEEP)
        command = [sys.executable, "-m", "mpisweep", "run", "s.toml", "-n", "2", "--quiet"]
        subprocess.run(command, cwd=folder, check=True)
        found = mpisweep.load(Path(folder) / "s.h5").trials["latency"]
    return sorted(1e3 * float(value) for value in found)


def judged_per_second(prune: str, trials: int, seconds: float) -> float:
    """Reports that a pruner judges per second of one core, when this many trials have ended."""
    text = SWEEP.replace('{ pruner = "threshold", upper = 0.5 }', prune)
    bench = Bench(parse_spec(text, source="s", folder=Path()))
    steps = list(range(STEPS))
    for number in range(trials):
        values = [1.0 + (number % 17) / (1 + step) for step in steps]
        bench.judge([[number, 1, 0, 1, steps, values], [number, 2, values[-1]]])
    began, count = time.process_time(), 0
    number = trials
    while time.process_time() - began < seconds:
        for step in steps:
            bench.judge([[number, 1, step, 1, [step], [0.5 + 1 / (1 + step)]]])
            count += 1
        bench.judge([[number, 2, 0.5]])
        number += 1
    return count / (time.process_time() - began)


class Readers:
    """Starts a process that reads everything and answers nothing, in place of that of the pruner."""

    def spawn(self, entry: str, files: Sequence[int], arguments: object) -> subprocess.Popen[bytes]:
        """Start it with the socket as its input."""
        return subprocess.Popen(["cat"], stdin=files[0], stdout=subprocess.DEVNULL)


def master_us_per_block() -> tuple[float, float]:
    """Microseconds of the master per block of one report: decoding it; and all, with queueing and sending."""
    spec = parse_spec(SWEEP, source="s", folder=Path())
    blocks = [
        encode(
            ReportBlock(1, 3, 1, {"loss": Curve(array("q", [i]), array("d", [0.5]), array("d", [0.1]))}, i)
        )
        for i in range(20_000)
    ]
    began = time.process_time()
    for body in blocks:
        decode(body)
    decoding = (time.process_time() - began) / len(blocks)
    journal = cast(Any, SimpleNamespace(written=0))
    client = PruneClient(cast(Any, Readers()), spec, Path("s.h5"), journal, is_new=True)
    process = client._process
    began = time.process_time()
    for token, body in enumerate(blocks):
        client.report(body, token)
        # As if the answer had come.
        process.done()
    spent = time.process_time() - began
    # At the end of its input the other process ends.
    client.close()
    return 1e6 * decoding, 1e6 * spent / len(blocks)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", default="100,1000", help="numbers of ended trials")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of each rate")
    options = parser.parse_args()
    counts = [int(text) for text in options.trials.split(",")]
    found = latencies_ms()
    print(
        f"report to should_stop(): median {statistics.median(found):.1f} ms, "
        f"95% within {found[int(0.95 * len(found))]:.1f} ms ({len(found)} trials)"
    )
    for prune in ('"median"', '"asha"', '"hyperband"', '"patient"'):
        rates = [f"{judged_per_second(prune, count, options.seconds):,.0f} at {count:,}" for count in counts]
        print(f"{prune}: reports judged per second, by ended trials: {', '.join(rates)}", flush=True)
    decoding, whole = master_us_per_block()
    print(f"master, per block of reports: {whole:.0f} us, of which {decoding:.0f} us decode it")


if __name__ == "__main__":
    main()
