"""`make paper`: the poster's Table 1, Figure 1 and Figure 2 from a real sweep, beside its own numbers.

    python paper/run.py                      the sweep and the page, into docs/results/
    python paper/run.py --within 240         with less time: fewer batch sizes
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
from sweep import PLANS, SweepFailedError, device_kind, run_sweep, tiny

import mpisweep

HERE = Path(__file__).resolve().parent
RESULTS, DECIDED = "paper.h5", "paper.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE.parent / "docs" / "results", metavar="FOLDER"
    )
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="time for the sweep (default: by device)"
    )
    parser.add_argument("--device", choices=sorted(PLANS), help="(default: GPU if there is one)")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of about a minute")
    parser.add_argument(
        "--page-only", action="store_true", help="make the page from the results that are there"
    )
    options = parser.parse_args()
    folder = options.output
    file, decided = folder / RESULTS, folder / DECIDED
    try:
        if not options.page_only:
            plan = PLANS[options.device or device_kind()]
            if options.tiny:
                plan = tiny(plan)
            if options.within:
                plan = replace(plan, within_s=options.within)
            print(
                f"{plan.device}: batch sizes {plan.lowest} to {plan.highest}, about {plan.within_s:.0f} s",
                flush=True,
            )
            decided.parent.mkdir(parents=True, exist_ok=True)
            decided.write_text(json.dumps(run_sweep(plan, file), indent=1) + "\n", encoding="utf-8")
        page = write_page(mpisweep.load(file), json.loads(decided.read_text(encoding="utf-8")), folder)
    except (SweepFailedError, mpisweep.ResultsError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
