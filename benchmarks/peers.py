"""mpisweep beside other tools that run many trials, on the same work in one sitting.

    python benchmarks/peers.py [--quick] [--environment FOLDER] [--only PEER] [--json FILE] [-o FIGURE]

The tools are those of ``benchmarks/requirements.txt``, Python's multiprocessing, and a job array on a Slurm
that is started for it (skipped without one). ``peers/with_*.py`` is a small program for each, as its own
documentation has it. ``--environment`` makes an environment for the tools; without it they are those of
this Python. A tool that does not install, start or end is listed with the last line of its error, and every
run is limited in time.

Measured are: no-op trials per second; the share of the workers' time in which trials run, at 50 ms and 1 s;
700 trials of 20 ms from the shell to the end of the program, with results on the disk; programs per second;
what a worker killed with -9 costs; and the memory of all processes. Each measure runs all tools before the
next one begins, mpisweep first and last, so that a load that drifts meets all of them; see
``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from peers import environment, output, slurm
from peers.catalogue import OURS, PEERS, Peer
from peers.measures import MEASURES, Measure, mean, measure, row


def main() -> None:
    names = {one.name.lower(): one for one in PEERS}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials, at most 8 workers: a few minutes")
    parser.add_argument(
        "--environment", type=Path, help="folder of an environment, made if it does not exist"
    )
    parser.add_argument(
        "--only",
        action="append",
        type=str.lower,
        metavar="PEER",
        choices=list(names),
        help="only this tool; repeatable",
    )
    parser.add_argument(
        "--measure",
        action="append",
        choices=[one.name for one in MEASURES],
        help="only this measure; repeatable",
    )
    parser.add_argument("--trials", type=int, help="most trials of a run")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="most seconds of a run (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument("-o", "--output", type=Path, help="draw a figure (.png, .pdf, .svg)")
    options = parser.parse_args()
    python = environment.prepare(options.environment.absolute()) if options.environment else sys.executable
    peers = [one for one in PEERS if not options.only or one.name.lower() in options.only]
    measures = [
        one
        for one in MEASURES
        if (not options.measure or one.name in options.measure) and (one.is_quick or not options.quick)
    ]
    results: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "python": platform.python_version(),
        "quick": options.quick, "load_before": os.getloadavg()[0],
    }  # fmt: skip
    with slurm.started(wanted="slurm array" in [one.name.lower() for one in peers]) as around:
        found = {one.name: describe(one, python, around) for one in peers}
        results["peers"] = found
        for one in measures:
            for name, outcome in run_all(one, peers, found, python, around, options):
                found[name]["measures"][one.name] = outcome  # type: ignore[index]
            for peer in found.values():
                peer["columns"] = row(peer["measures"])  # type: ignore[arg-type]
            results["load_after"] = os.getloadavg()[0]
            if options.json:
                # After each measure: a run that is stopped keeps what it has.
                options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(
        f"\n{results['date']}, {results['cores']} cores, Python {results['python']}, "
        f"load {results['load_before']:.1f} before and {results['load_after']:.1f} after\n"
    )
    print(output.markdown(results) if options.markdown else output.tables(results))
    if options.output:
        output.draw(results, options.output)


def describe(peer: Peer, python: str, around: slurm.Around) -> dict[str, object]:
    """The version of a tool, or why it cannot run."""
    if peer.name == "Slurm array":
        return {"version": around.version, "error": around.error, "stores": peer.stores, "measures": {}}
    interpreter = sys.executable if peer is OURS else python
    error = environment.missing(peer, interpreter)
    version = "" if error else environment.version(peer, interpreter)
    return {"version": version, "error": error, "stores": peer.stores, "measures": {}}


def run_all(
    one: Measure,
    peers: list[Peer],
    found: dict[str, dict[str, object]],
    python: str,
    around: slurm.Around,
    options: argparse.Namespace,
) -> Iterator[tuple[str, dict[str, object]]]:
    """Run one measure of all tools; mpisweep first and last."""
    able = [peer for peer in peers if not found[peer.name]["error"]]
    again = [OURS] if OURS in able and len(able) > 1 and not one.victim else []
    several: dict[str, list[dict[str, object]]] = {}
    for peer in [*able, *again]:
        print(f"{one.name}: {peer.name} ...", end=" ", file=sys.stderr, flush=True)
        outcome = measure(
            peer, one, python, options.limit, is_quick=options.quick, most=options.trials,
            around=around.variables if peer.name == "Slurm array" else {},
        )  # fmt: skip
        print(outcome.get("error") or f"{outcome['seconds']:.1f} s", file=sys.stderr)
        several.setdefault(peer.name, []).append(outcome)
    for name, outcomes in several.items():
        yield name, {**mean(outcomes), "runs": outcomes} if len(outcomes) > 1 else outcomes[0]


if __name__ == "__main__":
    # So that the tool that runs and the private Slurm end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(BrokenPipeError):
        main()
