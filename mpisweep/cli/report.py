"""The command report: a sweep as one HTML page."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep.cli.arguments import Commands, add_file, at_least_1, duration
from mpisweep.results import ResultsError
from mpisweep.views.reading import add_at, read_at

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Register the command."""
    report = commands.add_parser(
        "report",
        help="write a sweep as one HTML page",
        description="Write one HTML page: what was found and how sure that is, the best trials, figures, "
        "where the device-hours went, the failures by cause and message, the runs, and the command that "
        "repeats the sweep. The page is self-contained. Works on a finished, running or crashed sweep.",
    )
    add_file(report)
    report.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="HTML file (default: FILE with the suffix .html)"
    )
    report.add_argument(
        "-k", type=at_least_1, metavar="K",
        help="number of trials in the table (default: 5; of a front 20, evenly along it)",
    )  # fmt: skip
    report.add_argument(
        "--every", type=duration, metavar="SECONDS",
        help="write the page every so many seconds until the sweep has ended; it reloads itself",
    )  # fmt: skip
    add_at(report)
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    # Only this command waits for matplotlib.
    from mpisweep.results import logs_folder
    from mpisweep.results.load import load
    from mpisweep.views.report import Written, follow, page, write_whole
    from mpisweep.workloads.outputs import first_lines

    output: Path = options.output or options.file.with_suffix(".html")
    if output.exists() and output.samefile(options.file):
        raise ResultsError(f"{output}: is the results file; set -o to another file")

    def write(sweep: Sweep, goes_on: bool) -> None:
        # The page of a sweep that has ended is the same whenever it is written.
        written = Written(time.time(), options.every if goes_on else None) if sweep.ended is None else None
        made = page(
            read_at(sweep, options.at), options.k, written=written,
            log_lines=lambda numbers: first_lines(logs_folder(options.file), numbers),
        )  # fmt: skip
        try:
            write_whole(output, made)
        except OSError as error:
            raise ResultsError(f"{output}: cannot be written: {error.strerror}") from error

    if options.every is None:
        write(load(options.file), False)
    else:
        # Ctrl-C ends the writing, not the sweep.
        with contextlib.suppress(KeyboardInterrupt):
            follow(options.file, write, every_s=options.every)
    print(output)
    return 0
