"""`make paper`: the poster's Table 1, Figure 1 and Figure 2 from a real sweep, beside its own numbers.

    python paper/run.py                      the sweep and the page, into docs/results/
    python paper/run.py --within 240         with less time: fewer batch sizes
    python paper/run.py --resume             keep the results that are there, and add sizes and repeats
    python paper/run.py --page-only          the page again, from the results that are there

Without a GPU the sweep is smaller, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from page import write_page
from sweep import PLANS, Plan, SweepFailedError, device_kind, plan_of, run_sweep, tiny

import mpisweep

RESULTS, DECIDED = "paper.h5", "paper.json"
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="for the sweep (default: by device)")
    parser.add_argument("--device", choices=sorted(PLANS), help="(default: GPU if there is one)")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of a minute or two")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="keep the results that are there, and add to them")
    how.add_argument("--page-only", action="store_true", help="make the page from the results that are there")
    options = parser.parse_args()
    file, decided = options.output / RESULTS, options.output / DECIDED
    try:
        earlier = None
        if options.resume or options.page_only:
            earlier = json.loads(decided.read_text(encoding="utf-8"))
        if not options.page_only:
            plan = plan_of(earlier) if earlier else PLANS[options.device or device_kind()]
            sweep_into(file, decided, asked(plan, options), earlier)
        page = write_page(
            mpisweep.load(file), json.loads(decided.read_text(encoding="utf-8")), options.output
        )
    except (SweepFailedError, mpisweep.ResultsError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(page)
    return 0


def asked(plan: Plan, options: argparse.Namespace) -> Plan:
    """The plan with what the command line changes."""
    plan = tiny(plan) if options.tiny else plan
    return replace(plan, within_s=options.within) if options.within else plan


def sweep_into(file: Path, decided: Path, plan: Plan, earlier: dict[str, object] | None) -> None:
    print(f"{plan.device}: batch sizes {plan.lowest} to {plan.highest} in {plan.within_s:.0f} s", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    found = run_sweep(plan, file, earlier)
    decided.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
