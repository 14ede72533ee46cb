"""Arguments for a sweep: a file, the flags of the quick form, or a command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpisweep.batch.walltime import why_too_short
from mpisweep.cli.after import after_of
from mpisweep.cli.arguments import at_least_1
from mpisweep.cli.stageargs import add_staging, stage_path
from mpisweep.dataclass import replace
from mpisweep.plugins import SEARCHES, WORKLOADS, is_named, plugin_names
from mpisweep.results import file_to_create
from mpisweep.spec import (
    ADDING,
    COMMAND_LINE,
    OPTUNA,
    PRUNER_NAMES,
    SEARCH_NAMES,
    Spec,
    SpecError,
    closest,
    load_spec,
    spec_from_flags,
)
from mpisweep.spec.catalogue import names_workload

__all__ = [
    "add_split",
    "add_stage_env",
    "add_sweep",
    "check_split",
    "check_time",
    "is_sweep_file",
    "quick_words",
    "read_spec",
    "results_path",
    "split_command_line",
]  # fmt: skip

#: The commands that take a sweep, and so possibly a command line after ``--``.
_COMMANDS = ("run", "check", "jobscript", "submit")
#: Flags of the quick form: repeatable ones; keys of a sweep file, some repeatable; of [limits]; of [stop].
_REPEATED = {
    "-p": "parameter",
    "--where": "where",
    "--baseline": "baseline",
    "--metric": "metric",
    "--import": "imports",
}
_SEVERAL = ("objective", "direction")
_KEYS = ("name", *_SEVERAL, "search", "prune", "order", "points", "trials", "repeats", "seed", "max_points")
_LIMITS = ("timeout", "retries")
_STOP = ("target", "patience", "device_hours")


class _Searches:
    """Names of searches; installed packages are listed only for a name that is not built in.

    A flag cannot describe a sampler with options, for which a sweep file has a table.
    """

    def __contains__(self, name: object) -> bool:
        return name != OPTUNA and is_named(SEARCHES, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in plugin_names(SEARCHES) if name != OPTUNA)


def split_command_line(given: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments into ours and the workload's command line after ``--``."""
    if given[:1] and given[0] in _COMMANDS and "--" in given:
        end = given.index("--")
        return given[:end], given[end + 1 :]
    return given, []


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a sweep and its results file."""
    parser.add_argument(
        "sweep",
        metavar="SWEEP",
        nargs="?",
        help="sweep file (TOML), built-in workload (resnet50), or module:function; or append -- and a "
        "command line with {parameter} placeholders",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="results file (default: NAME.h5)")
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        help="where modules, programs and relative paths of the sweep are found (default: the sweep file's "
        "folder; without one the working directory)",
    )
    add_staging(parser.add_argument_group("data on the nodes"))
    quick = parser.add_argument_group("without a sweep file")
    _add_space(quick)
    _add_quick_form(quick)
    _add_stop(quick)


def _add_space(quick: argparse._ActionsContainer) -> None:
    """Add the flags for the search space."""
    quick.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=RANGE",
        help="range (1:700; with a step 1:700:10; on a log scale 1e-4:1e-1:log:points=8), choices (a,b,c), "
        "or one fixed value; real ranges need no points with --search random --trials N; append "
        ":memory=increasing if larger values need more memory; repeatable",
    )
    quick.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="constraint that every configuration satisfies, e.g. 'batch_size * ranks_per_trial <= 4096'; "
        "repeatable",
    )
    quick.add_argument(
        "--points", metavar="FILE", help="CSV file of configurations, in place of -p NAME=RANGE"
    )
    quick.add_argument(
        "--order",
        choices=("longest", "spread"),
        help="trials that run first: the longest (default), or those that cover the space evenly",
    )


def _add_quick_form(quick: argparse._ActionsContainer) -> None:
    """Add the other flags of the quick form."""
    quick.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="configuration to compare with; repeatable",
    )
    quick.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="regular expression before a metric in the output of a command, e.g. 'loss=loss[=: ]+'; "
        "repeatable",
    )
    quick.add_argument(
        "--import",
        action="append",
        dest="imports",
        default=[],
        metavar="SOURCE",
        help="results file, CSV file or Optuna storage with trials that a search that learns is told first; "
        "repeatable",
    )
    quick.add_argument("--name", help="name of the sweep")
    _add_objectives(quick)
    quick.add_argument(
        "--search",
        choices=_Searches(),
        metavar="SEARCH",
        help=f"one of {', '.join(name for name in SEARCH_NAMES if name != OPTUNA)} (default: grid)",
    )
    quick.add_argument(
        "--prune",
        choices=PRUNER_NAMES,
        metavar="PRUNER",
        help=f"end trials early whose curve is hopeless: {', '.join(PRUNER_NAMES)} (default: none)",
    )
    quick.add_argument(
        "--trials", type=at_least_1, metavar="N", help="number of trials, for searches that sample"
    )
    quick.add_argument(
        "--repeats",
        metavar="N",
        help="runs of every configuration, each with another seed (default: 1); 2:10 for 2, and up to 10 of "
        "those that may be the best",
    )
    quick.add_argument("--seed", type=int, help="seed of the search and the trials (default: 0)")
    quick.add_argument(
        "--max-points",
        type=at_least_1,
        metavar="N",
        help="largest grid allowed (default: 1,000,000)",
    )
    quick.add_argument("--timeout", metavar="DURATION", help="time limit per trial, e.g. 10m")
    quick.add_argument(
        "--retries", type=int, metavar="N", help="retries of a trial after losing its worker (default: 2)"
    )


def _add_objectives(quick: argparse._ActionsContainer) -> None:
    quick.add_argument(
        "--objective",
        action="append",
        metavar="METRIC",
        help="metric to rank trials by (default: loss); repeatable, for several objectives",
    )
    quick.add_argument(
        "--direction",
        action="append",
        choices=("minimize", "maximize"),
        help="direction of the objective (default: minimize); with several, once for all or once for each",
    )


def _add_stop(quick: argparse._ActionsContainer) -> None:
    """Add the flags for the rules of [stop]."""
    quick.add_argument(
        "--target", type=float, metavar="VALUE", help="stop when a trial's objective is this or better"
    )
    quick.add_argument(
        "--patience", type=at_least_1, metavar="N", help="stop after N trials without an improvement"
    )
    quick.add_argument(
        "--device-hours", type=float, metavar="HOURS", help="stop after this many GPU-hours, or core-hours"
    )


def add_split(parser: argparse._ActionsContainer, text: str) -> None:
    """Add ``--split``."""
    parser.add_argument("--split", type=at_least_1, metavar="K", help=text)


def add_stage_env(parser: argparse._ActionsContainer) -> None:
    """Add ``--stage-env``."""
    parser.add_argument(
        "--stage-env",
        action="store_true",
        help="pack the libraries of trial processes into one file in the user's cache, and import from that",
    )


def check_time(spec: Spec, flag: str, seconds: float | None, measured: Sequence[float] = ()) -> None:
    """Reject a time limit in which no trial can run.

    Args:
        spec: the sweep.
        flag: the flag that set the time limit.
        seconds: the time limit; None for none.
        measured: seconds that closing took in earlier runs, see :mod:`mpisweep.batch.walltime`.

    Raises:
        SpecError: if the time limit is too short.
    """
    setting = "" if spec.source == COMMAND_LINE else "limits.grace"
    if seconds is not None and (why := why_too_short(seconds, spec.limits.grace_s, measured, setting)):
        raise SpecError(f"{flag}: {why}")


def check_split(spec: Spec, split: int | None) -> None:
    """Reject a search that runs cannot share.

    Raises:
        SpecError: if the sweep cannot be split.
    """
    if split is not None and spec.search in ADDING:
        raise SpecError(
            f"{spec.source}: search: {spec.search_text!r} chooses trials by earlier results and cannot be "
            "shared between runs; remove --split"
        )
    if split is not None and spec.is_defined_by_run:
        raise SpecError(
            f"{spec.source}: parameters: is empty, and runs can only share a sweep whose parameters are "
            "known before; remove --split, or list them under [parameters]"
        )
    if split is not None:
        _check_race(spec)


def _check_race(spec: Spec) -> None:
    if spec.repeats.is_race:
        raise SpecError(
            f"{spec.source}: repeats: is {spec.repeats}, and a race chooses trials by all results, so that "
            "runs cannot share it; remove --split, or set a fixed number"
        )


def read_spec(options: argparse.Namespace) -> Spec:
    """Read the sweep file, or the flags of the quick form.

    Raises:
        SpecError: if they are invalid, or if flags were given with a file.
    """
    name: str = options.sweep or ""
    command_line: list[str] = options.command_line
    if bool(name) == bool(command_line):
        raise SpecError(
            "command line: expected either a sweep (a file, a built-in workload or module:function) "
            "or, after --, a command line"
        )
    keys = {key: getattr(options, key) for key in _KEYS}
    # A sweep file writes one of these as a text.
    keys |= {key: found[0] for key in _SEVERAL if (found := keys[key]) and len(found) == 1}
    limits = {key: getattr(options, key) for key in _LIMITS}
    folder = None if options.folder is None else _folder(options.folder)
    stop = {key: getattr(options, key) for key in _STOP}
    staged = stage_path(options)
    if command_line or names_workload(name):
        return spec_from_flags(
            command_line or name,
            options.parameter,
            folder=folder or Path.cwd(),
            baseline=options.baseline,
            options=keys | {"stage_data": staged},
            limits=limits,
            stop=stop,
            metrics=options.metric,
            where=options.where,
            imports=options.imports,
        )
    _check_sweep_file(Path(name))
    path = Path(name)
    spec = load_spec(path, folder, after_of(options, name, folder or path.resolve().parent))
    given = [key for key, value in (keys | limits | stop).items() if value is not None]
    given += [flag for flag, key in _REPEATED.items() if getattr(options, key)]
    if given:
        raise SpecError(
            f"command line: {', '.join(given)}: only applies without a sweep file; set it in {name}"
        )
    return spec if staged is None else replace(spec, stage_data=staged)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise SpecError(
            f"--folder: {text} does not exist; expected the folder of the sweep's modules and files"
        )
    return Path(text).resolve()


def _check_sweep_file(path: Path) -> None:
    """Suggest a workload or a sweep file with a similar name in place of one that does not exist.

    Raises:
        SpecError: if there is one, and no such file.
    """
    if path.exists() or not path.parent.is_dir():
        return
    files = (str(found) for found in sorted(path.parent.glob("*.toml")))
    if close := closest(path, [*plugin_names(WORKLOADS), *files]):
        raise SpecError(f"{path}: no sweep file or workload has this name; did you mean {close!r}?")


def is_sweep_file(options: argparse.Namespace) -> bool:
    """Whether the sweep comes from a file."""
    return bool(options.sweep) and Path(options.sweep).is_file()


def quick_words(options: argparse.Namespace) -> list[str]:
    """Arguments of the quick form and the folder, for another ``mpisweep``; no command line."""
    words = [options.sweep] if options.sweep and not is_sweep_file(options) else []
    for flag, key in _REPEATED.items():
        for value in getattr(options, key):
            words += [flag, value]
    for key in (*_KEYS, *_LIMITS, *_STOP):
        given = getattr(options, key)
        for value in given if isinstance(given, list) else [given] if given is not None else ():
            words += [f"--{key.replace('_', '-')}", str(value)]
    return words + (["--folder", options.folder] if options.folder is not None else [])


def results_path(options: argparse.Namespace, spec: Spec) -> Path:
    """Determine the path of the results file.

    Raises:
        ResultsError: if no file can be created there.
    """
    return file_to_create(Path(options.output or f"{spec.name}.h5"), spec.name, "-o")
