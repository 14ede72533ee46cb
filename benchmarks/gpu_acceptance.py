"""Acceptance on one GPU, within 12 minutes: speed, the paper's sweep, memory, equal curves, failures, replay.

    python benchmarks/gpu_acceptance.py -o OUT                     everything
    python benchmarks/gpu_acceptance.py -o OUT --only failures replay
    python benchmarks/gpu_acceptance.py -o OUT --rehearse          on a CPU, at tiny sizes

Each part (`acceptance_parts.py`) is a process with a time budget of its own; what hangs is ended with all its
descendants, and the next part begins.  OUT gets results.json, results.txt and a folder per part with its log.
A second call with other parts adds to the same OUT.  Exit code 1 if any part failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpisweep.processes.kernel import adopt_orphans, end_descendants

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """One part: its budget on a GPU, and what it is about."""

    name: str
    budget_s: float
    what: str


#: What is short comes first, so that an early end costs least.  The budgets sum up to 12 minutes.
PARTS = (
    Part("replay", 50, "a replayed trial is the same bit for bit (deterministic = true)"),
    Part("failures", 110, "after an assertion, an out-of-memory or a SIGKILL the next trial is right"),
    Part("curves", 90, "eager, CUDA graph and torch.compile give the same curve"),
    Part("memory", 180, "largest_batch, and a sweep with the memory frontier"),
    Part("paper", 170, "make paper, with as many sizes as fit"),
    Part("energy", 20, "energy of the trials of the paper's sweep"),
    Part("training", 100, "built-in loop over the bare ones"),
)
#: Two busy cores need longer than a GPU, also for tiny sizes.
REHEARSAL_BUDGET_S = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results"
    )
    parser.add_argument(
        "--only", nargs="+", choices=[part.name for part in PARTS], help="(default: all parts)"
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, for a CPU")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    found = earlier(options.output)
    for part in PARTS:
        if not options.only or part.name in options.only:
            print(f"{part.name}: {part.what}", flush=True)
            found[part.name] = run_part(part, options.output.resolve(), is_rehearsal=options.rehearse)
            write_results(found, options.output)
            print(text_of(found[part.name]), flush=True)
    print(summary(found))
    return 1 if any(one["status"] == "FAIL" for one in found.values()) else 0


def earlier(output: Path) -> dict[str, Any]:
    """Parts that an earlier call has run."""
    file = output / "results.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def run_part(part: Part, output: Path, *, is_rehearsal: bool) -> dict[str, Any]:
    """Run one part in a process of its own; whatever it leaves behind is ended."""
    folder = output / part.name
    folder.mkdir(exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    budget_s = REHEARSAL_BUDGET_S if is_rehearsal else part.budget_s
    command = [sys.executable, str(HERE / "acceptance_parts.py"), part.name, str(output), str(budget_s)]
    began = time.monotonic()
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            command + (["--rehearse"] if is_rehearsal else []),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            code: int | None = process.wait(budget_s)
        except subprocess.TimeoutExpired:
            code = None
        end_descendants(within_s=10.0)
    seconds = time.monotonic() - began
    found: dict[str, Any] = {"status": "FAIL", "checks": [], "numbers": {}, "not_run": []}
    if result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
    if code is None:
        found |= {"status": "FAIL", "problem": f"took longer than its {budget_s:.0f} s and was ended"}
    elif code != 0:
        found |= {"status": "FAIL", "problem": f"ended with {code}; see {part.name}/log.txt"}
    return found | {"what": part.what, "seconds": round(seconds, 1), "rehearsal": is_rehearsal}


def write_results(found: dict[str, Any], output: Path) -> None:
    (output / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = "\n\n".join(f"{name}: {one['what']}\n{text_of(one)}" for name, one in found.items())
    (output / "results.txt").write_text(f"{page}\n\n{summary(found)}\n", encoding="utf-8")


def text_of(one: dict[str, Any]) -> str:
    """One part's checks and numbers."""
    rehearsed = ", rehearsal" if one["rehearsal"] else ""
    lines = [f"  {one['status']} in {one['seconds']:.0f} s{rehearsed}"]
    if "problem" in one:
        lines.append(f"    {one['problem']}")
    lines += [f"    {'ok  ' if ok else 'FAIL'} {what}: {detail}" for what, ok, detail in one["checks"]]
    lines += [f"    {name}: {value}" for name, value in one["numbers"].items()]
    lines += [f"    not run: {what}" for what in one["not_run"]]
    return "\n".join(lines)


def summary(found: dict[str, Any]) -> str:
    line = ", ".join(f"{name} {one['status']}" for name, one in found.items())
    missing = [part.name for part in PARTS if part.name not in found]
    return line + (f"; NOT RUN: {', '.join(missing)}" if missing else "")


if __name__ == "__main__":
    sys.exit(main())
