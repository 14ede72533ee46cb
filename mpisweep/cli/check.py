"""The command check: validate a sweep, and print what it would run and how long that takes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mpisweep.cli.arguments import Commands, add_json, add_workers, duration, master_policy, print_json
from mpisweep.cli.outcome import closings
from mpisweep.cli.planning import add_plan, check_plan_flags, print_plan
from mpisweep.cli.stageargs import stage_fields, stage_lines
from mpisweep.cli.sweepargs import add_sweep, check_time, read_spec, results_path
from mpisweep.cli.workers import sure_workers
from mpisweep.records import Direction, TrialState
from mpisweep.results import ResultsError
from mpisweep.spec import COMMAND_LINE, BuiltinWorkload, CommandWorkload, Spec
from mpisweep.spec.commandline import command_text
from mpisweep.spec.preflight import check_startable
from mpisweep.spec.space import Choice, Parameter, SearchSpace, ends
from mpisweep.spec.units import configuration_text, value_text

if TYPE_CHECKING:
    from mpisweep.scheduling.forecast import Forecast
    from mpisweep.search import Sampler

__all__ = ["add_commands"]

#: A list of more values is not printed.
_VALUES_SHOWN = 16


def add_commands(commands: Commands) -> None:
    """Register check."""
    parser = commands.add_parser(
        "check",
        help="validate a sweep file and print what it would run",
        description="Validate a sweep file, and print what it would run and how long that takes: estimated "
        "from the trials in the results file, else bounded by 'timeout' in [limits]. Runs nothing.",
    )
    add_sweep(parser)
    add_workers(parser)
    parser.add_argument(
        "--devices",
        action="store_true",
        help="print the devices of each rank; under mpirun, of the ranks that it started",
    )
    parser.add_argument(
        "--walltime", type=duration, metavar="H:MM:SS", help="report how many trials fit into this time"
    )
    add_plan(parser)
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of sweep files, for editors, with installed plugins, and exit",
    )
    add_json(parser)
    parser.set_defaults(command=_check)


def _check(options: argparse.Namespace) -> int:
    if options.schema:
        from mpisweep.spec.schema import schema_text

        print(schema_text(with_plugins=True), end="")
        return 0
    check_plan_flags(options)
    spec = read_spec(options)
    measured = closings(results_path(options, spec)) if options.walltime else ()
    check_time(spec, "--walltime", options.walltime, measured)
    if options.devices:
        return _print_devices(options, spec)
    from mpisweep.search import make_sampler

    sampler = make_sampler(spec)
    check_startable(spec, has_sampler=True)
    if options.plan:
        return print_plan(options, spec, sampler)
    remaining = _remaining(options, spec, sampler)
    staged = stage_fields(spec, options.stage_to)
    if options.json:
        print_json(_fields(spec, sampler, remaining) | {"stage": staged})
    else:
        _print_sweep(spec, sampler, remaining.path)
        for index, line in enumerate(stage_lines(staged)):
            print(f"  {'' if index else 'stage':<11} {line}")
        _print_remaining(options, spec, remaining)
    return 0


def _print_devices(options: argparse.Namespace, spec: Spec) -> int:
    from mpisweep.rank.layout import layout_lines, rank_devices

    ranks = rank_devices(spec, policy=master_policy(options), workers=options.workers)
    if not ranks:
        # Rank 0 prints those of all ranks.
        return 0
    if options.json:
        rows = [
            {
                "rank": rank,
                "host": host,
                "device": None if share is None else share.label,
                "cores": 0 if share is None else len(share.cores),
                "environment": {} if share is None else dict(share.environment),
            }
            for rank, (host, share) in enumerate(ranks)
        ]
        print_json({"ranks": rows})
    else:
        print("\n".join(layout_lines(ranks)))
    return 0


def _print_sweep(spec: Spec, sampler: Sampler, results: Path) -> None:
    from mpisweep.progress import counted
    from mpisweep.search import LargestBatch, LearningSearch
    from mpisweep.search.batch_size import BatchSizeSearch

    print(f'{spec.source}: OK (sweep "{spec.name}")')
    print(f"  workload    {_workload_text(spec)}")
    if isinstance(spec.workload, CommandWorkload) and len(sampler):
        print(f"  trial 0     {command_text(spec.workload, spec.full(sampler[0]), number=0)}")
    if spec.fresh_process:
        print("  process     a new process for every trial")
    for objective in spec.objectives:
        print(f"  objective   {objective.name}, {objective.direction.value}")
    for caution in _cautions(spec, sampler):
        print(f"  warning     {caution}")
    for warning in getattr(sampler, "warnings", ()):
        print(f"  warning     {warning}")
    if isinstance(sampler, LargestBatch):
        searched = f"about {sampler.about} configurations"
    elif isinstance(sampler, BatchSizeSearch):
        searched = f"at most {counted(sampler.most, 'configuration')} of {sampler.exhaustive:,}"
    elif isinstance(sampler, LearningSearch):
        searched = f"{counted(sampler.trials, 'configuration')}, proposed from the results so far"
    else:
        searched = counted(len(sampler), "configuration")
    if spec.repeats.most > 1:
        searched += f" x {spec.repeats} repeats"
    spread = ", spread evenly over time" if spec.order == "spread" else ""
    print(f"  search      {spec.search_text}, {searched}{spread}")
    if spec.prune is not None:
        print(f"  prune       {spec.prune_text}, judged by {spec.objective}")
    width = max(map(len, ("objective  ", *spec.space.names, *spec.fixed)))
    if spec.is_defined_by_run:
        print("  parameters  those that the objective suggests while it runs, as in Optuna")
    for parameter in spec.space.parameters:
        print(f"  {parameter.name:<{width}} {_parameter_text(spec.space, parameter)}")
    for constraint in spec.space.constraints:
        print(f"  where       {constraint.text}")
    for name, value in spec.fixed.items():
        print(f"  {name:<{width}} {value_text(value)}, fixed")
    for text in _imports(spec, results):
        print(f"  import      {text}")
    if spec.after is not None:
        print(f"  after       {spec.after}")
    if rules := _stop_texts(spec):
        print(f"  stop        {', or '.join(rules)}")
    for text in spec.hooks.texts:
        print(f"  hook        {text}")
    baseline = spec.baseline_configuration()
    if baseline is not None:
        print(f"  baseline    {_baseline_text(spec.space, baseline)}")


def _imports(spec: Spec, results: Path) -> list[str]:
    """The trials that a new sweep would import; of a sweep with results, those that it has imported."""
    if not spec.imports:
        return []
    from mpisweep.prior.reading import read_imports
    from mpisweep.results.load import imported_counts, load_tables

    with contextlib.suppress(ResultsError):
        return [
            f"{count:,} trials imported from {place}"
            for place, count in imported_counts(load_tables(results)).items()
        ]
    found = read_imports(spec)
    return [*found.notes, *found.warnings]


def _stop_texts(spec: Spec) -> list[str]:
    """The rules of [stop] in words."""
    rules, found = spec.stop, []
    if rules.target is not None:
        found.append(
            f"{spec.objective} {'<=' if spec.direction is Direction.MINIMIZE else '>='} {rules.target:g}"
        )
    if rules.patience is not None:
        found.append(f"{rules.patience:,} trials without improvement")
    if rules.device_hours is not None:
        found.append(f"{rules.device_hours:g} GPU-hours (core-hours without GPUs)")
    return found


def _parameter_text(space: SearchSpace, parameter: Parameter) -> str:
    """The domain of a parameter, and the rules for it."""
    values = ends(parameter)
    if isinstance(parameter, Choice) and len(values) > _VALUES_SHOWN:
        text = f"{len(values):,} values"
        text += "" if isinstance(values[0], str) else f" from {min(values)} to {max(values)}"
    else:
        text = parameter.describe()
    if parameter.memory:
        text += f", memory {parameter.memory}"
    for group in space.zipped:
        if parameter.name in group[1:]:
            text += f", together with {group[0]}"
    for condition in space.conditions:
        if condition.name == parameter.name:
            otherwise = "absent" if condition.otherwise is None else value_text(condition.otherwise)
            text += f", when {condition.when.text}, else {otherwise}"
    return text


def _cautions(spec: Spec, sampler: Sampler) -> list[str]:
    """Why the objectives may say little."""
    described = spec.built_in
    if described is None:
        return []
    # A search that learns has no configuration yet; any says whether the objective means something.
    usual = sampler[0] if len(sampler) else spec.space.from_unit([0.5] * len(spec.space.axes))
    full = described.defaults | spec.full(usual)
    found = (described.caution(full, objective.name) for objective in spec.objectives)
    return list(dict.fromkeys(filter(None, found)))


class _Remaining(NamedTuple):
    """What is left to run.

    Attributes:
        path: of the results file.
        is_new: whether there is none yet.
        trials: number of trials, with those that a search is still to propose.
        ended: of which have ended.
        workers: number of trials that run at a time.
        gpus: number of GPUs that these share as measured; 0 for none.
        forecast: None if no duration is known.
    """

    path: Path
    is_new: bool
    trials: int
    ended: int
    workers: int
    gpus: int
    forecast: Forecast | None


def _remaining(options: argparse.Namespace, spec: Spec, sampler: Sampler) -> _Remaining:
    from mpisweep.master.importing import known_imports
    from mpisweep.master.known import duration_model, known_trials, trial_widths
    from mpisweep.master.planning import to_propose
    from mpisweep.scheduling.forecast import forecast
    from mpisweep.search.numbering import number_trials

    path = results_path(options, spec)
    known = known_trials(spec, path)
    trials = number_trials(spec, sampler, known)
    left = [number for number, state in enumerate(trials.states) if not TrialState(state).is_end]
    to_come = to_propose(spec, sampler, known)
    workers, gpus = sure_workers(options, spec)
    found = forecast(
        duration_model(spec, trials, known, known_imports(known)),
        left,
        workers=workers,
        timeout_s=spec.limits.timeout_s,
        walltime_s=options.walltime,
        widths=trial_widths(spec, trials),
        to_come=to_come,
    )
    count = trials.count
    return _Remaining(path, known is None, count + to_come, count - len(left), workers, gpus, found)


def _print_remaining(options: argparse.Namespace, spec: Spec, remaining: _Remaining) -> None:
    from mpisweep.progress import counted
    from mpisweep.scheduling.forecast import forecast_lines

    path, is_new, trials, ended, workers, gpus, found = remaining
    if spec.packs and gpus:
        print("  GPUs        shared as measured (devices_per_trial); the time is that of one trial per GPU")
    elif spec.packs:
        print('  GPUs        none here, where devices_per_trial = "auto" is the same as 1')
    if is_new:
        print(f"  results     {path} (new)")
    else:
        print(f"  results     {path}: {ended:,} of {counted(trials, 'trial')} have ended")
    if found is None and workers < spec.most_ranks:
        print(
            f"  time        unknown: trials have up to {spec.most_ranks} ranks, but there are "
            f"{counted(workers, 'worker')}; set -n to the number of workers in the job"
        )
    elif found is None:
        limit = "--timeout" if spec.source == COMMAND_LINE else "limits.timeout"
        print(f"  time        unknown until three trials have run; set {limit} for an upper bound")
    elif ended < trials:
        print("  time        " + "\n              ".join(forecast_lines(found, options.walltime)))


def _fields(spec: Spec, sampler: Sampler, remaining: _Remaining) -> dict[str, object]:
    """The answer of check for JSON."""
    return {
        "source": spec.source,
        "name": spec.name,
        "workload": _workload_text(spec),
        "objective": spec.objective,
        "direction": spec.direction.value,
        "objectives": [{"name": one.name, "direction": one.direction.value} for one in spec.objectives],
        "search": spec.search_text,
        "configurations": len(sampler) or None,
        "parameters": {
            parameter.name: _parameter_text(spec.space, parameter) for parameter in spec.space.parameters
        },
        "where": [constraint.text for constraint in spec.space.constraints],
        "fixed": dict(spec.fixed),
        "baseline": spec.baseline_configuration(),
        "import": _imports(spec, remaining.path),
        "stop": _stop_texts(spec),
        "hooks": spec.hooks.texts,
        "after": None if spec.after is None else spec.after.table,
        "warnings": [*_cautions(spec, sampler), *getattr(sampler, "warnings", ())],
        "results": str(remaining.path),
        "trials": remaining.trials,
        "ended": remaining.ended,
        "workers": remaining.workers,
        "forecast": None if remaining.forecast is None else asdict(remaining.forecast),
    }


def _workload_text(spec: Spec) -> str:
    if isinstance(spec.workload, BuiltinWorkload):
        return spec.workload.name
    if isinstance(spec.workload, CommandWorkload):
        folder = "a folder per trial" if spec.workload.own_directory else spec.folder
        return f"{spec.workload.text}, in {folder}"
    return f"{spec.workload.module}:{spec.workload.function}, imported from {spec.folder}"


def _baseline_text(space: SearchSpace, configuration: Mapping[str, object]) -> str:
    searched = {name: configuration[name] for name in space.names if name in configuration}
    return configuration_text(searched) or "the fixed values"
