"""The command line: arguments to a Spec, errors to one sentence and an exit code, both in one place.

Exit codes: 0 every trial has ended; 3 stopped early and resumable; 4 ended, but no trial completed; 2 the
user's input is wrong; 1 a bug.

``mpisweep run`` works three ways.  Started by mpirun or srun, it is a rank.  Otherwise it is the launcher,
which starts itself again as ranks; a single rank it starts without MPI.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpisweep import __version__, batch_cli
from mpisweep.batch.allocation import Allocation, this_allocation, warn_of_unknown_end, with_end
from mpisweep.batch.describe import describe_end, describe_start
from mpisweep.batch.launch import ENDS_VARIABLE, LAUNCH_VARIABLE, PROGRESS_VARIABLE, launch, mpi_environment
from mpisweep.batch.launchers import LaunchError
from mpisweep.batch.placement import Placement, place
from mpisweep.batch.slurm import copies_without_mpi
from mpisweep.batch.start import plan_start
from mpisweep.batch.walltime import earliest_end, plan_stop
from mpisweep.catalogue import BUILTIN
from mpisweep.commandline import SPECIAL_NAMES, render
from mpisweep.devices import LayoutError, Node, default_workers, this_node
from mpisweep.gpus import Gpu
from mpisweep.preflight import see_that_it_starts
from mpisweep.records import Value
from mpisweep.results import ResultsError
from mpisweep.space import SearchSpace
from mpisweep.spec import (
    RANKS,
    SEARCH_NAMES,
    BuiltinWorkload,
    CommandWorkload,
    Spec,
    SpecError,
    load_spec,
    parse_duration,
    spec_from_flags,
)
from mpisweep.transport import TransportError, expected_rank

__all__ = ["main"]

#: How long the ranks of a run that has ended may take to be gone, in seconds.
_LAST_ACT_S = 10.0

def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    ours, command_line = _split_command_line(given)
    options = _parser().parse_args(ours)
    options.command_line = command_line
    try:
        code: int = options.command(options, given)
    except (SpecError, ResultsError, LaunchError, LayoutError, TransportError, *batch_cli.BATCH_ERRORS) as error:
        if expected_rank() in (0, None):
            print(f"mpisweep: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"mpisweep: {error.args[0]}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Somebody piped us into `head`; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _split_command_line(given: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and the workload's command line after ``--``."""
    if given[:1] and given[0] in ("run", "check", *batch_cli.COMMANDS_WITH_SWEEPS) and "--" in given:
        end = given.index("--")
        return given[:end], given[end + 1 :]
    return given, []


# ------------------------------------------------------------------------------------- commands


def _run(options: argparse.Namespace, given: list[str]) -> int:
    spec = _spec(options)
    if options.split is not None and options.fresh:
        raise SpecError(
            "command line: --fresh with --split: each of the runs would begin anew; "
            "use another file (-o), or move the old one aside before"
        )
    if expected_rank() is not None or LAUNCH_VARIABLE in os.environ:
        if options.dry_run:
            raise LaunchError("--dry-run shows how ranks would be started: leave out the mpirun that has started this one")
        return _be_a_rank(spec, options)
    if (copies := copies_without_mpi(os.environ)) > 1:
        raise LaunchError(
            f"srun has started {copies} copies of this without MPI; leave out srun, for `mpisweep run` starts "
            "the ranks itself, or choose an MPI that both know, e.g. srun --mpi=pmix"
        )
    from rich.console import Console

    from mpisweep.rank import configure_logging

    configure_logging(None, "", quiet=options.quiet)
    see_that_it_starts(spec)
    path = _results_path(options, spec)
    console = Console(stderr=True)
    works = ["--master", "works"] if _master(options) != options.master else []
    allocation = with_end(this_allocation())
    ends_at, ends_by = earliest_end(allocation, options.walltime, time.time())
    node = _usual_node(allocation)
    arguments = (*works, *_without_dry_run(given[1:]))
    start = plan_start(allocation, _placement(options, spec, allocation, node), arguments)
    if options.dry_run:
        left_s = None if ends_at is None else ends_at - time.time()
        plan = plan_stop(0.0, left_s, spec.limits.grace_s, _closings(path))
        command = start.command(mpi_environment() | {LAUNCH_VARIABLE: "", ENDS_VARIABLE: ""})
        print("\n".join(describe_start(start, command, len(node.gpus))))
        print("\n".join(describe_end(allocation, ends_at, ends_by, plan, time.time())))
        return 0
    if ends_at is None:
        warn_of_unknown_end(allocation)
    code = launch(
        start,
        ends_at=ends_at,
        console=console if console.is_terminal and not options.quiet else None,
        restarts=spec.limits.restarts,
        recorded_end=lambda launch_name, returned: (_recorded_end if options.split is None else _end_of_share)(
            path, launch_name, returned
        ),
        ended_trials=lambda: _ended_trials(path),
    )
    if code == 0:
        _see_that_there_is_an_objective(path)
    return code


def _see_that_there_is_an_objective(path: Path) -> None:
    """Warn of a sweep that is complete and of no use: a pattern that never matched, or a name that is not returned."""
    from mpisweep.rank import log
    from mpisweep.results.load import load

    sweep = load(path)
    if len(sweep.trials) and sweep.objective not in sweep.metrics:
        log.warning(
            "no trial has reported the objective, %r; metrics there are: %s",
            sweep.objective, ", ".join(sweep.metrics) or "none",
        )  # fmt: skip


def _without_dry_run(given: list[str]) -> list[str]:
    """The arguments that the ranks would get, but for the option, which may be abbreviated."""
    ours, command_line = _split_command_line(["run", *given])
    kept = [argument for argument in ours[1:] if not (argument.startswith("--dr") and "--dry-run".startswith(argument))]
    return [*kept, *(["--", *command_line] if command_line else [])]


def _recorded_end(path: Path, launch_name: str, returned: int) -> int | None:
    """The exit code of the last run, when it is of this launch and has ended for good; else None."""
    from mpisweep.records import EndReason
    from mpisweep.results import journal_folder
    from mpisweep.results.load import load

    # A disk that takes nothing does not take the end of the run either.
    unsaid = EndReason.DISK.exit_code if returned == EndReason.DISK.exit_code else None
    try:
        last = load(path).allocations[-1]
    except (ResultsError, OSError, IndexError):
        return unsaid
    if last["launch"] != launch_name or not last["end"]:
        return unsaid
    # mpirun may be gone before the last rank is, whose last act is to remove the journal.
    until = time.monotonic() + _LAST_ACT_S
    while journal_folder(path).exists():
        if time.monotonic() > until:
            return None
        time.sleep(0.05)
    reason = EndReason(str(last["end"]))
    return None if reason in (EndReason.NO_WORKERS, EndReason.TOO_FEW) else reason.exit_code


def _end_of_share(path: Path, launch_name: str, returned: int) -> int | None:
    """The same, where other runs work on the sweep as well."""
    from mpisweep.records import EndReason
    from mpisweep.results.load import load

    try:
        sweep = load(path)
    except (ResultsError, OSError):
        return EndReason.DISK.exit_code if returned == EndReason.DISK.exit_code else None
    if sweep.state in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED):
        return EndReason(sweep.state).exit_code
    ends = [str(row["end"]) for row in sweep.allocations if row["launch"] == launch_name]
    if not ends or not ends[-1]:
        return EndReason.DISK.exit_code if returned == EndReason.DISK.exit_code else None
    reason = EndReason(ends[-1])
    return None if reason is EndReason.NO_WORKERS else reason.exit_code


def _ended_trials(path: Path) -> int:
    from mpisweep.records import TrialState
    from mpisweep.results.load import load

    try:
        sweep = load(path)
    except (ResultsError, OSError):
        return 0
    return sum(sweep.count(state) for state in TrialState if state.is_end)


def _closings(path: Path) -> list[float]:
    """How long closing has taken in earlier runs; see :mod:`mpisweep.batch.walltime`."""
    from mpisweep.results.load import load

    try:
        return [float(seconds) for seconds in load(path).allocations["closing_time"]]
    except (ResultsError, OSError):
        return []


def _be_a_rank(spec: Spec, options: argparse.Namespace) -> int:
    import socket

    from mpisweep.progress import JsonProgress, LineProgress, NoProgress, ProgressSink
    from mpisweep.rank import RankOptions, configure_logging, log, run_rank

    configure_logging(expected_rank() or 0, socket.gethostname(), quiet=options.quiet)
    sink: ProgressSink
    if options.quiet:
        sink = NoProgress()
    elif os.environ.get(PROGRESS_VARIABLE) == "json":
        sink = JsonProgress(sys.stdout)
    else:
        sink = LineProgress(log.info)
    # Those who start trial processes must not take these for their own.
    launch_name = os.environ.pop(LAUNCH_VARIABLE, "")
    stated_end = os.environ.pop(ENDS_VARIABLE, "")
    path = _results_path(options, spec)
    refusal = ""
    if not launch_name and expected_rank() == 0:
        # Nobody has looked before these ranks were started; it takes a process, so it is done before MPI is there.
        try:
            see_that_it_starts(spec)
        except SpecError as error:
            refusal = str(error)
    return run_rank(spec, RankOptions(
        path, options.fresh, options.master, options.walltime, sink, launch_name, refusal, options.split,
        options.stage_env, ends_at=float(stated_end) if stated_end else None,
    ))  # fmt: skip


def _check(options: argparse.Namespace, given: list[str]) -> int:
    spec = _spec(options)
    if options.devices:
        from mpisweep.layout import describe_layout

        for line in describe_layout(spec, policy=_master(options), workers=options.workers):
            print(line)
        return 0
    from mpisweep.forecast import forecast, forecast_lines
    from mpisweep.numbering import number_trials
    from mpisweep.opening import duration_model, known_trials, trial_widths
    from mpisweep.records import TrialState
    from mpisweep.search import LargestBatch, make_sampler
    from mpisweep.tables import counted

    sampler = make_sampler(spec)
    see_that_it_starts(spec)
    print(f"{spec.source}: {spec.name} is fine")
    print(f"  workload    {_workload_text(spec)}")
    if isinstance(spec.workload, CommandWorkload) and len(sampler):
        print(f"  trial 0     {_first_command(spec, spec.workload, sampler[0])}")
    print(f"  objective   {spec.objective}, {spec.direction.value}")
    searched = f"about {sampler.about} configurations" if isinstance(sampler, LargestBatch) else counted(len(sampler), "configuration")
    print(f"  search      {spec.search}, {searched}")
    width = max(map(len, ("objective  ", *spec.space.names, *spec.fixed)))
    for parameter in spec.space.parameters:
        print(f"  {parameter.name:<{width}} {parameter.describe()}")
    for name, value in spec.fixed.items():
        print(f"  {name:<{width}} {value!r}, fixed")
    baseline = spec.baseline_configuration()
    if baseline is not None:
        print(f"  baseline    {_in_words(spec.space, baseline)}")
    path = _results_path(options, spec)
    known = known_trials(spec, path)
    trials = number_trials(spec, sampler, known)
    left = [number for number, state in enumerate(trials.states) if not TrialState(state).is_end]
    if known is None:
        print(f"  results     {path} (new)")
    else:
        print(f"  results     {path}: {trials.count - len(left):,} of {counted(trials.count, 'trial')} have ended")
    found = forecast(
        duration_model(spec, trials, known),
        left,
        workers=options.workers or default_workers(this_node(), spec.devices_per_trial),
        timeout_s=spec.limits.timeout_s,
        walltime_s=options.walltime,
        widths=trial_widths(spec, trials),
    )
    if found is None and (workers := options.workers or default_workers(this_node(), spec.devices_per_trial)) < spec.most_ranks:
        print(f"  time        trials have up to {spec.most_ranks} ranks, and here are {workers} workers; say -n for as many as there will be")
    elif found is None:
        print("  time        not known before three trials were measured; 'timeout' under [limits] would bound it")
    elif left:
        print("  time        " + "\n              ".join(forecast_lines(found, options.walltime)))
    return 0


def _top(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.results.load import load
    from mpisweep.tables import print_top, top_table

    print_top(top_table(load(options.file), options.k, options.by, options.direction))
    return 0


def _status(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.batch.jobs import describe_jobs, jobs_as_json, was_submitted
    from mpisweep.results.load import load
    from mpisweep.tables import print_status, sweep_status

    try:
        status = sweep_status(load(options.file))
    except ResultsError as error:
        # Of a sweep whose first job still waits there is nothing but the job.
        if not was_submitted(options.file) or options.file.exists():
            raise
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


def _watch(options: argparse.Namespace, given: list[str]) -> int:
    from rich.console import Console

    from mpisweep.watch import watch

    try:
        return watch(options.file, every_s=options.every, console=Console())
    except KeyboardInterrupt:
        # Looking away is how one stops watching; the sweep does not notice.
        return 0


def _export(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.export import FORMATS
    from mpisweep.results.load import load

    name = options.format or (options.output.suffix.removeprefix(".") if options.output else "csv")
    if name not in FORMATS:
        raise ResultsError(f"{options.output}: ends neither in .csv nor in .json; say --format csv or --format json")
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


def _output(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.outputs import read_outputs
    from mpisweep.results import logs_folder
    from mpisweep.results.load import load

    sweep = load(options.file)
    if not 0 <= options.number < len(sweep.trials):
        raise ResultsError(f"{options.file}: there is no trial {options.number}; the last is {len(sweep.trials) - 1}")
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


def _replay(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.rerun import rerun
    from mpisweep.results.load import load
    from mpisweep.tables import print_rerun

    sweep = load(options.file)
    if not 0 <= options.number < len(sweep.trials):
        raise ResultsError(f"{options.file}: there is no trial {options.number}; the last is {len(sweep.trials) - 1}")
    folder = Path(options.folder or sweep.environment.get("user_folder", "."))
    if not folder.is_dir():
        raise ResultsError(f"{folder}, where the sweep ran, is not there; say with --folder where the code is now")
    configuration = ", ".join(f"{name}={value}" for name, value in sweep.configuration(options.number).items())
    done = rerun(
        sweep, options.number, folder,
        lambda share: print(f"trial {options.number} of {sweep.name} on {share.label}: {configuration}", flush=True),
    )  # fmt: skip
    print_rerun(done, sweep, options.number)
    return 0 if done.state.label == sweep.trials[options.number]["state"] else 4


def _repair(options: argparse.Namespace, given: list[str]) -> int:
    from mpisweep.results.repair import repair

    done = repair(options.file)
    for name in done.lost:
        print(f"  {options.file}: {'the whole file' if name == '/' else name} could not be read")
    for damage in done.damages:
        print(f"  journal {damage.segment}: {damage.length} bytes at offset {damage.offset} could not be read")
    for kept in done.kept:
        print(f"  kept as it was: {kept}")
    what = "repaired" if done.lost or done.damages else "nothing was damaged"
    print(f"{options.file}: {what}; {done.ended:,} of {done.trials:,} known trials have ended, the others run again")
    return 0


# ------------------------------------------------------------------------------------- arguments


def _spec(options: argparse.Namespace) -> Spec:
    """The sweep file, or the quick form's flags."""
    name: str = options.sweep or ""
    command_line: list[str] = options.command_line
    if bool(name) == bool(command_line):
        raise SpecError(
            "command line: expected either a sweep (a file, a built-in workload or module:function) "
            "or, after --, a command line"
        )
    quick = bool(command_line) or name in BUILTIN or (":" in name and not Path(name).exists())
    flags = {
        "name": options.name,
        "objective": options.objective,
        "direction": options.direction,
        "search": options.search,
        "trials": options.trials,
        "seed": options.seed,
    }
    limits = {"timeout": options.timeout, "retries": options.retries}
    if quick:
        return spec_from_flags(
            command_line or name,
            options.parameter,
            folder=Path.cwd(),
            baseline=options.baseline,
            options=flags,
            limits=limits,
            metrics=options.metric,
        )
    spec = load_spec(Path(name))
    given = [key for key, value in (flags | limits).items() if value is not None]
    given += ["-p"] * bool(options.parameter) + ["--baseline"] * bool(options.baseline)
    given += ["--metric"] * bool(options.metric)
    if given:
        raise SpecError(
            f"command line: {', '.join(given)}: is for the quick form without a file; write it into {name}"
        )
    return spec


def _results_path(options: argparse.Namespace, spec: Spec) -> Path:
    path = Path(options.output or f"{spec.name}.h5")
    if path.is_dir():
        raise ResultsError(f"{path}: is a folder; -o expects the name of a file, e.g. {path / spec.name}.h5")
    if not path.parent.is_dir():
        raise ResultsError(f"{path}: the folder {path.parent} does not exist; make it first")
    return path


def _master(options: argparse.Namespace) -> str:
    """Where so many workers were asked for, rank 0 is one of them, also where there are fewer cores."""
    is_started_by_us = options.workers and expected_rank() is None
    return "works" if is_started_by_us and options.master == "auto" else str(options.master)


def _usual_node(allocation: Allocation) -> Node:
    """What a node of the allocation has: the GPUs that the batch system says, else those of this one."""
    node = this_node()
    if allocation.gpus_per_node is None:
        return node
    return Node(node.cores, tuple(Gpu(str(number), "GPU", str(number)) for number in range(allocation.gpus_per_node)))


def _placement(options: argparse.Namespace, spec: Spec, allocation: Allocation, node: Node) -> Placement:
    """Which nodes get how many ranks."""
    is_idle = options.master == "idle"
    placement = place(
        allocation,
        usual=default_workers(node, spec.devices_per_trial),
        has_gpus=bool(node.gpus),
        workers=options.workers,
        idle_master=is_idle,
    )
    workers = placement.ranks - is_idle
    if workers < spec.most_ranks:
        raise LayoutError(
            f"{spec.source}: {RANKS}: trials have up to {spec.most_ranks} ranks, but there are {workers} workers; "
            f"say -n {spec.most_ranks} to have as many, or start the sweep where there are more devices"
        )
    return placement


def _workload_text(spec: Spec) -> str:
    if isinstance(spec.workload, BuiltinWorkload):
        return spec.workload.name
    if isinstance(spec.workload, CommandWorkload):
        return f"{spec.workload.text}, run in {'a folder of each trial' if spec.workload.own_directory else spec.folder}"
    return f"{spec.workload.module}:{spec.workload.function}, looked for in {spec.folder}"


def _first_command(spec: Spec, workload: CommandWorkload, configuration: Mapping[str, Value]) -> str:
    """The command line of trial 0; what is only known when it runs stays a placeholder."""
    later: dict[str, Value] = {name: f"{{{name}}}" for name in SPECIAL_NAMES}
    values = later | {"number": 0} | spec.full(configuration)
    return shlex.join(
        # A format may be for numbers, which a placeholder is not.
        argument if "{" in argument and any(f"{{{name}:" in argument for name in later) else render(argument, values)
        for argument in workload.arguments
    )


def _in_words(space: SearchSpace, configuration: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={configuration[name]}" for name in space.names) or "the fixed values"


def _duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; expected e.g. 2:00:00, 90m or 3600")
    return seconds


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mpisweep",
        description="A whole hyperparameter sweep in one batch job, or in one command on a workstation.",
        epilog="Exit codes: 0 every trial has ended; 3 stopped early, run again to go on; "
        "4 no trial completed; 2 wrong input; 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"mpisweep {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a sweep, or go on with it",
        description="Run a sweep; on an existing results file, go on where it stopped. "
        "Under mpirun or srun this is one rank; otherwise it starts the ranks itself.",
        epilog="examples: mpisweep run resnet50 -p batch_size=1:700 -p num_iter=300 --baseline batch_size=256; "
        "mpisweep run -p batch_size=1:700 --metric 'loss=loss: ' -- python train.py --batch_size={batch_size}",
    )
    _add_sweep(run)
    _add_layout(run)
    run.add_argument("--walltime", type=_duration, metavar="H:MM:SS",
                     help="stop in order before this much time has passed")
    run.add_argument("--fresh", action="store_true", help="begin anew; an old results file is moved aside")
    run.add_argument("--dry-run", action="store_true",
                     help="print how the ranks would be started and when the sweep would stop, and start nothing")
    run.add_argument("--split", type=_positive, metavar="K",
                     help="several runs work on the sweep together, K or any other number: "
                     "give each the same command")
    run.add_argument("--stage-env", action="store_true",
                     help="pack what trial processes import into one file in the user's cache, and import from that")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress, only warnings")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        help="validate a sweep file and say what it would run",
        description="Validate a sweep file, and say what it would run and how long that takes: by the trials that the "
        "results file has already, else at most by 'timeout' under [limits]. Nothing is run.",
    )
    _add_sweep(check)
    _add_layout(check)
    check.add_argument("--devices", action="store_true",
                       help="print which rank would use what; under mpirun, what these ranks would")
    check.add_argument("--walltime", type=_duration, metavar="H:MM:SS", help="say what fits into this much time")
    check.set_defaults(command=_check)

    top = commands.add_parser("top", help="print the best trials, and the baseline")
    top.add_argument("file", type=Path, metavar="FILE", help="a results file")
    top.add_argument("-k", type=_positive, default=5, metavar="K", help="how many (default: 5)")
    top.add_argument("--by", metavar="METRIC", help="rank by this metric instead of the objective")
    top.add_argument("--direction", choices=("minimize", "maximize"), help="of that metric (default: the sweep's)")
    top.set_defaults(command=_top)

    status = commands.add_parser("status", help="print how far a sweep is, running or not")
    status.add_argument("file", type=Path, metavar="FILE", help="a results file")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(command=_status)

    watch = commands.add_parser(
        "watch",
        help="show a sweep while it runs",
        description="Show a sweep while it runs, from its files alone, until its run ends; Ctrl-C leaves it running. "
        "On a terminal a picture, elsewhere a line whenever something has changed. Exit code: that of the run.",
    )
    watch.add_argument("file", type=Path, metavar="FILE", help="a results file")
    watch.add_argument("--every", type=_duration, default=2.0, metavar="SECONDS", help="between two looks (default: 2)")
    watch.set_defaults(command=_watch)

    export = commands.add_parser(
        "export",
        help="write the trials, or their curves, as CSV or JSON",
        description="Write all trials with parameters and metrics as CSV (a row a trial) or JSON.",
    )
    export.add_argument("file", type=Path, metavar="FILE", help="a results file")
    export.add_argument("-o", "--output", type=Path, metavar="OUT", help="a .csv or .json file (default: the screen)")
    export.add_argument("--format", choices=("csv", "json"), help="(default: as OUT ends, else csv)")
    export.add_argument("--curves", action="store_true", help="the curves: in CSV a row a report, instead of the trials")
    export.set_defaults(command=_export)

    output = commands.add_parser("output", help="print what the command line of a trial has printed")
    output.add_argument("file", type=Path, metavar="FILE", help="a results file")
    output.add_argument("number", type=int, metavar="NUMBER", help="of the trial")
    output.set_defaults(command=_output)

    replay = commands.add_parser(
        "replay",
        help="run one trial again, alone, and compare",
        description="Run one trial again with exactly its configuration and seed, and show how close it comes. "
        "The results file is not touched. Exit code 0 when it ends in the same state, else 4.",
    )
    replay.add_argument("file", type=Path, metavar="FILE", help="a results file")
    replay.add_argument("number", type=int, metavar="NUMBER", help="of the trial")
    replay.add_argument("--folder", metavar="FOLDER", help="where the user's code is (default: where the sweep ran)")
    replay.set_defaults(command=_replay)

    repair = commands.add_parser(
        "repair",
        help="save what can be saved of a damaged sweep",
        description="Make a whole results file of whatever can be read of a damaged one and its journal. "
        "The damaged parts are kept in FILE.damaged/.",
    )
    repair.add_argument("file", type=Path, metavar="FILE", help="a results file")
    repair.set_defaults(command=_repair)
    batch_cli.add_batch_commands(commands, batch_cli.SweepArguments(_add_sweep, _spec, _results_path))
    return parser


def _add_layout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--workers", type=_positive, metavar="N",
                        help="workers to start on all nodes together (default: one a GPU; else as many as the "
                        "job asked for; else one a core, at most 16 a node)")
    parser.add_argument("--master", choices=("auto", "works", "idle"), default="auto",
                        help="whether rank 0 hosts a worker (default: when a device would idle otherwise)")


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP", nargs="?",
                        help="a sweep file (TOML), a built-in workload (resnet50), or module:function; "
                        "or end with -- and a command line with {parameter} in it")
    parser.add_argument("-o", "--output", metavar="FILE", help="results file (default: NAME.h5)")
    quick = parser.add_argument_group("without a sweep file")
    quick.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=RANGE",
                       help="1:700, 1:700:10, 1e-4:1e-1:log, a,b,c, or one value that stays fixed")
    quick.add_argument("--baseline", action="append", default=[], metavar="NAME=VALUE",
                       help="default configuration to compare with")
    quick.add_argument("--metric", action="append", default=[], metavar="NAME=PATTERN",
                       help="how a metric is found in what a command line prints, e.g. 'loss=loss[=: ]+'")
    quick.add_argument("--name", help="of the sweep")
    quick.add_argument("--objective", metavar="METRIC", help="default: loss")
    quick.add_argument("--direction", choices=("minimize", "maximize"))
    quick.add_argument("--search", choices=SEARCH_NAMES)
    quick.add_argument("--trials", type=_positive, metavar="N", help="for searches that sample")
    quick.add_argument("--seed", type=int)
    quick.add_argument("--timeout", metavar="DURATION", help="of one trial, e.g. 10m")
    quick.add_argument("--retries", type=int, metavar="N", help="after a lost worker")
