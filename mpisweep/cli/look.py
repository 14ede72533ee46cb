"""The read-only commands: top, status, watch, trial, output and export."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mpisweep.cli.arguments import (
    Commands,
    add_file,
    add_json,
    add_trial,
    at_least_1,
    duration,
    print_json,
    sweep_with_trial,
)
from mpisweep.results import ResultsError
from mpisweep.views.reading import add_at, load_at

__all__ = ["add_commands"]

_FORMATS = ("csv", "json", "parquet", "optuna", "tensorboard", "mlflow", "wandb")
_K = "number of trials in the table (default: 5; of a front 20, evenly along it)"


def add_commands(commands: Commands) -> None:
    """Register the commands."""
    top = commands.add_parser(
        "top",
        help="print the best trials, or the Pareto front, and the baseline",
        description="Print the best trials and the baseline; of several objectives, the Pareto front.",
    )
    add_file(top)
    top.add_argument("-k", type=at_least_1, metavar="K", help=_K)
    top.add_argument("--by", metavar="METRIC", help="rank by this metric instead of the objectives")
    top.add_argument(
        "--direction",
        choices=("minimize", "maximize"),
        help="direction of that metric (default: its own if it is an objective, else the sweep's)",
    )
    add_at(top)
    add_json(top)
    top.set_defaults(command=_top)

    status = commands.add_parser(
        "status",
        help="print the progress of a sweep",
        description="Print how far a sweep is, the failures by cause, the best trial, device-hours, and the "
        "jobs that wait or run. Reads files only, on any node that sees them.",
    )
    add_file(status)
    add_json(status)
    status.set_defaults(command=_status)

    watch = commands.add_parser(
        "watch",
        help="show a sweep while it runs, on a full screen",
        description="Show a running or finished sweep on the full screen of a terminal. It has progress "
        "against the walltime, workers, failures, a plot and all trials. Keys: Tab or 1 to 5 for the panes, "
        "arrows to move and to sort, / to filter, R to retry, K to skip, F to run first, S to stop, ? for "
        "all keys, q to quit. Without a terminal, or with --lines, one line per change until the run ends. "
        "Reads files only. The exit code is the run's; 0 while it runs.",
    )
    add_file(watch)
    watch.add_argument(
        "--every",
        type=duration,
        default=2.0,
        metavar="SECONDS",
        help="refresh interval (default: 2; longer if reading the files takes long)",
    )
    watch.add_argument("--lines", action="store_true", help="one line per change, even on a terminal")
    watch.set_defaults(command=_watch)

    _add_trial_commands(commands)
    _add_export(commands)


def _add_trial_commands(commands: Commands) -> None:
    """Register trial and output, which show one trial."""
    trial = commands.add_parser(
        "trial",
        help="print everything known of one trial",
        description="Print everything known of one trial: configuration, state, cause and message of a "
        "failure, attempts with hosts, devices and times, metrics, curves, output, and the command that runs "
        "it again.",
    )
    add_trial(trial)
    add_json(trial)
    trial.set_defaults(command=_trial)

    output = commands.add_parser(
        "output",
        help="print the output of a trial's command line",
        description="Print what the program of a trial wrote to standard output and standard error, one part "
        "per attempt.",
    )
    add_trial(output)
    output.set_defaults(command=_output)


def _add_export(commands: Commands) -> None:
    """Register export, which writes what it shows to a file."""
    export = commands.add_parser(
        "export",
        help="export trials or curves as CSV or JSON, or for another tool",
        description="Export all trials with parameters and metrics as CSV or Parquet, one row per trial, as "
        "JSON, or as a copy for another tool: an Optuna storage, TensorBoard, MLflow, or Weights & Biases "
        "(offline). Each needs the tool's package.",
    )
    add_file(export)
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help=".csv, .json, .parquet or .db (SQLite of Optuna) file, or a folder (default: standard output)",
    )
    export.add_argument(
        "--format",
        choices=_FORMATS,
        metavar="FORMAT",
        help=f"one of {', '.join(_FORMATS)} (default: from the suffix of OUT, else csv)",
    )
    export.add_argument(
        "--curves", action="store_true", help="export curves instead of trials; as CSV, one row per report"
    )
    export.set_defaults(command=_export)


def _top(options: argparse.Namespace) -> int:
    from mpisweep.views.batch_sizes import batch_size_fields, batch_size_lines
    from mpisweep.views.tables import print_top, top_fields, top_table

    sweep = load_at(options)
    table = top_table(sweep, options.k, options.by, options.direction)
    if options.json:
        print_json(top_fields(table, sweep) | batch_size_fields(sweep))
        return 0
    print_top(table)
    for line in batch_size_lines(sweep) if options.by is None else ():
        print(line)
    return 0


def _status(options: argparse.Namespace) -> int:
    from mpisweep.batch.jobs import describe_jobs, jobs_as_json, was_submitted
    from mpisweep.results.load import load
    from mpisweep.views.status import print_status, sweep_status

    try:
        status = sweep_status(load(options.file))
    except ResultsError as error:
        # Until its first job starts, a sweep has jobs but no results file.
        if not was_submitted(options.file) or options.file.exists():
            raise
        if options.json:
            jobs = jobs_as_json(options.file)
            print_json({"path": str(options.file), "state": "submitted", "jobs": jobs})
        else:
            print(f"{error}\n" + "\n".join(describe_jobs(options.file)))
        return 0
    if options.json:
        print_json(status.as_json() | {"jobs": jobs_as_json(options.file)})
    else:
        print_status(status)
        for line in describe_jobs(options.file) if status.waiting or status.running else ():
            print(line)
    return 0


def _watch(options: argparse.Namespace) -> int:
    from mpisweep.views.watch import watch_lines

    try:
        if not options.lines and sys.stdin.isatty() and sys.stdout.isatty():
            from mpisweep.cli.screen import has_screen, watch_screen

            if has_screen():
                return watch_screen(options.file, options.every)
        return watch_lines(options.file, every_s=options.every, out=sys.stdout)
    except KeyboardInterrupt:
        # Ctrl-C ends the view, not the sweep.
        return 0


def _trial(options: argparse.Namespace) -> int:
    from mpisweep.results import logs_folder
    from mpisweep.spec.commandline import CommandWorkload, command_text
    from mpisweep.views.trial import trial_facts, trial_lines
    from mpisweep.workloads.outputs import files_with_output

    sweep, number = sweep_with_trial(options), options.number
    workload = sweep.spec.workload
    command = ""
    if isinstance(workload, CommandWorkload):
        repeat = int(sweep.trials[number]["repeat"])
        command = command_text(workload, sweep.configuration(number), number=number, repeat=repeat)
    facts = trial_facts(
        sweep,
        number,
        output=[str(path) for path in files_with_output(logs_folder(options.file), number)],
        command=command,
        rerun=shlex.join(["mpisweep", "replay", str(options.file), str(number)]),
    )
    if options.json:
        print_json(facts.as_json())
    else:
        print("\n".join(trial_lines(facts, sweep)))
    return 0


def _export(options: argparse.Namespace) -> int:
    from mpisweep.results.load import load
    from mpisweep.views.export import FORMATS
    from mpisweep.views.exported import COPIES, copy_for, write_copy

    suffix = options.output.suffix if options.output else ".csv"
    name = options.format or copy_for(suffix) or suffix.removeprefix(".")
    if name not in (*FORMATS, *COPIES):
        raise ResultsError(
            f"{options.output}: the suffix is neither .csv, .json, .parquet nor .db; set --format"
        )
    if name in COPIES and options.output is None:
        raise ResultsError(f"--format {name}: does not go to standard output; set -o")
    if options.output is not None and options.output.exists() and options.output.samefile(options.file):
        raise ResultsError(f"{options.output}: is the results file; set -o to another file")
    sweep = load(options.file)
    if options.output is None:
        FORMATS[name](sweep, sys.stdout, curves=options.curves)
        return 0
    try:
        if name in COPIES:
            write_copy(sweep, name, options.output, curves=options.curves)
            return 0
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
            f"{options.file}: trial {options.number} has no output; it is kept for command lines, once they "
            "have ended"
        )
    for output in found:
        if len(found) > 1:
            print(f"==== attempt {output.attempt}: {output.how} ====")
        sys.stdout.write(output.text)
    return 0
