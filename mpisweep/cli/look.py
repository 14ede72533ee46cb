"""The commands that look at a sweep and change nothing: top, status, watch, report, export and output."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mpisweep.cli.arguments import Commands, add_file, add_trial, at_least_1, duration, sweep_with_trial
from mpisweep.results import ResultsError

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add them to the program's commands."""
    top = commands.add_parser("top", help="print the best trials, and the baseline")
    add_file(top)
    top.add_argument("-k", type=at_least_1, default=5, metavar="K", help="number of trials (default: 5)")
    top.add_argument("--by", metavar="METRIC", help="rank by this metric instead of the objective")
    top.add_argument(
        "--direction",
        choices=("minimize", "maximize"),
        help="direction of that metric (default: that of the sweep)",
    )
    top.set_defaults(command=_top)

    status = commands.add_parser("status", help="print the progress of a sweep, running or not")
    add_file(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    watch = commands.add_parser(
        "watch",
        help="show a sweep while it runs",
        description="Show a sweep while it runs, from its files alone, until its run ends; Ctrl-C leaves it "
        "running. Live view on a terminal, otherwise one line per change. Exit code: that of "
        "the run.",
    )
    add_file(watch)
    watch.add_argument(
        "--every", type=duration, default=2.0, metavar="SECONDS", help="refresh interval (default: 2)"
    )
    watch.set_defaults(command=_watch)

    report = commands.add_parser(
        "report",
        help="write a sweep's table, figures and failures as one page of HTML",
        description="Write one HTML file with the table of the best trials, all figures, what has failed, "
        "the sweep file and the environment. The page is self-contained.",
    )
    add_file(report)
    report.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="(default: FILE with .html at its end)"
    )
    report.add_argument(
        "-k", type=at_least_1, default=5, metavar="K", help="trials in the table (default: 5)"
    )
    report.set_defaults(command=_report)

    export = commands.add_parser(
        "export",
        help="write the trials, or their curves, as CSV or JSON",
        description="Write all trials with parameters and metrics as CSV (a row a trial) or JSON.",
    )
    add_file(export)
    export.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a .csv or .json file (default: standard output)"
    )
    export.add_argument("--format", choices=("csv", "json"), help="default: by the suffix of OUT, else csv")
    export.add_argument(
        "--curves", action="store_true", help="export curves instead of trials; in CSV one row per report"
    )
    export.set_defaults(command=_export)

    output = commands.add_parser("output", help="print what the command line of a trial has printed")
    add_trial(output)
    output.set_defaults(command=_output)


def _top(options: argparse.Namespace) -> int:
    from mpisweep.results.load import load
    from mpisweep.views.tables import print_top, top_table

    print_top(top_table(load(options.file), options.k, options.by, options.direction))
    return 0


def _status(options: argparse.Namespace) -> int:
    from mpisweep.batch.jobs import describe_jobs, jobs_as_json, was_submitted
    from mpisweep.results.load import load
    from mpisweep.views.status import print_status, sweep_status

    try:
        status = sweep_status(load(options.file))
    except ResultsError as error:
        # Of a sweep whose first job still waits there is nothing but the job.
        if not was_submitted(options.file) or options.file.exists():
            raise
        if options.json:
            print(
                json.dumps(
                    {"path": str(options.file), "state": "submitted", "jobs": jobs_as_json(options.file)},
                    indent=2,
                )
            )
        else:
            print(f"{error}\n" + "\n".join(describe_jobs(options.file)))
        return 0
    if options.json:
        jobs = {"jobs": jobs_as_json(options.file)}
        print(json.dumps(status.as_json() | jobs, indent=2, allow_nan=False))
    else:
        print_status(status)
        for line in describe_jobs(options.file) if status.waiting or status.running else ():
            print(line)
    return 0


def _watch(options: argparse.Namespace) -> int:
    from rich.console import Console

    from mpisweep.views.watch import watch

    try:
        return watch(options.file, every_s=options.every, console=Console())
    except KeyboardInterrupt:
        # Looking away is how one stops watching; the sweep does not notice.
        return 0


def _report(options: argparse.Namespace) -> int:
    from mpisweep.results.load import load
    from mpisweep.views.html_page import page

    output: Path = options.output or options.file.with_suffix(".html")
    if output.exists() and output.samefile(options.file):
        raise ResultsError(f"{output}: is the results file itself")
    made = page(load(options.file), options.k)
    try:
        output.write_text(made, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{output}: cannot be written: {error.strerror}") from error
    print(output)
    return 0


def _export(options: argparse.Namespace) -> int:
    from mpisweep.results.load import load
    from mpisweep.views.export import FORMATS

    name = options.format or (options.output.suffix.removeprefix(".") if options.output else "csv")
    if name not in FORMATS:
        raise ResultsError(
            f"{options.output}: ends neither in .csv nor in .json; say --format csv or --format json"
        )
    sweep = load(options.file)
    if options.output is None:
        FORMATS[name](sweep, sys.stdout, curves=options.curves)
        return 0
    if options.output.exists() and options.output.samefile(options.file):
        raise ResultsError(f"{options.output}: is the results file itself")
    try:
        with options.output.open("w", encoding="utf-8", newline="") as out:
            FORMATS[name](sweep, out, curves=options.curves)
    except OSError as error:
        raise ResultsError(f"{options.output}: cannot be written: {error.strerror}") from error
    return 0


def _output(options: argparse.Namespace) -> int:
    from mpisweep.results import logs_folder
    from mpisweep.workloads.outputs import read_outputs

    sweep_with_trial(options)
    found = read_outputs(logs_folder(options.file), options.number)
    if not found:
        raise ResultsError(
            f"{options.file}: no output of trial {options.number} is kept; "
            "that of command lines is, once they have ended"
        )
    for output in found:
        if len(found) > 1:
            print(f"==== attempt {output.attempt}: {output.how} ====")
        sys.stdout.write(output.text)
    return 0
