"""The planner of check and submit: what a sweep takes, and what to ask for."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mpisweep.batch.request import Wishes
from mpisweep.batch.site import SiteError
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.sizes import Machine, at_site, doubling
from mpisweep.batch.walltime import closing_s
from mpisweep.cli.arguments import at_least_1, print_json
from mpisweep.cli.pilots import check_pilot, pilot_size
from mpisweep.cli.planwords import Planned, asked_for, plan_fields, plan_lines, why_none
from mpisweep.cli.sweepargs import is_sweep_file, quick_words, results_path
from mpisweep.devices.nodes import default_workers, this_node
from mpisweep.processes.kernel import python_command
from mpisweep.progress import counted
from mpisweep.spec import COMMAND_LINE, Spec, SpecError

if TYPE_CHECKING:
    from mpisweep.master.planning import Knowledge
    from mpisweep.scheduling.plan import Plan
    from mpisweep.search import Sampler

__all__ = ["add_from", "add_plan", "asked_of_plan", "check_plan_flags", "print_plan"]

#: From the start of a job to the start of its ranks, in seconds, and what each further rank adds: they all
#: import from one file system.
_LAUNCH_S = 5.0
_PER_RANK_S = 0.1
#: From there to the first trial, before any run has measured it: torch is imported.
_FIRST_TRIAL_S = 15.0
#: A size that is faster than the one before it by less than this share is not shown.
_GAIN = 0.03


def add_from(parser: argparse._ActionsContainer) -> None:
    """Add ``--from``."""
    parser.add_argument(
        "--from",
        dest="earlier",
        type=Path,
        metavar="FILE",
        help="with --plan: results file of an earlier sweep, whose durations count too",
    )


def node_counts(text: str) -> list[int]:
    """Parse ``1,2,4``."""
    return [at_least_1(part.strip()) for part in text.split(",")]


def make_planned(
    spec: Spec,
    sampler: Sampler,
    path: Path,
    *,
    earlier: Path | None,
    wishes: Wishes,
    site: str = "",
    workers: int | None = None,
    counts: Sequence[int] = (),
    walltime_s: float | None = None,
) -> Planned | None:
    """Plan the trials that are left; None if all have ended.

    Args:
        spec: the sweep.
        sampler: its configurations.
        path: its results file.
        earlier: results file of an earlier sweep; None for none.
        wishes: the user's, for nodes of the site.
        site: name of the site; empty for nodes like those of the last run, or like this one.
        workers: number of workers per node; None for the usual.
        counts: numbers of nodes; empty to choose.
        walltime_s: walltime that the user has; None to suggest one.

    Raises:
        SpecError: if no duration is known, or a trial needs more workers than there are.
        SiteError: if the site is unknown, or the wishes are beyond its limits.
        ResultsError: if a results file cannot be read.
    """
    from mpisweep.master.planning import knowledge_of
    from mpisweep.scheduling.plan import Setting, Size, make_plan

    knowledge = knowledge_of(spec, sampler, path, earlier)
    ahead = knowledge.ahead
    if not ahead.count:
        return None
    machine = _machine(spec, knowledge, wishes, site, workers)
    sizes = [
        Size(count, there, _startup_s(knowledge, there), machine.longest_s(count))
        for count in doubling(machine, ahead.count, ahead.widest, counts)
        if (there := machine.workers(count)) >= ahead.widest
    ]
    if not sizes:
        raise SpecError(
            f"--nodes: a trial of the sweep has up to {ahead.widest} ranks, and there are fewer workers; "
            "plan for more nodes"
        )
    closing = partial(closing_s, measured=knowledge.closings)
    plan = make_plan(ahead, sizes, Setting(walltime_s, spec.limits.grace_s, closing, spec.seed))
    if plan is None:
        raise SpecError(_why_unknown(spec, knowledge))
    return Planned(plan if counts else _without_gainless(plan), knowledge, machine)


def _machine(spec: Spec, knowledge: Knowledge, wishes: Wishes, site: str, workers: int | None) -> Machine:
    # Measurements will say how many trials can share a GPU.
    each = 1.0 if spec.packs else spec.devices_per_trial
    if site:
        return at_site(load_site(site), wishes, each)
    if workers is not None:
        return Machine("node", workers, f"nodes with {counted(workers, 'worker')} each")
    if knowledge.workers_per_node is not None:
        there = knowledge.workers_per_node
        return Machine("node", there, f"nodes with {counted(there, 'worker')} each, as in the last run")
    here = default_workers(this_node(), each)
    return Machine("node", here, f"nodes with {counted(here, 'worker')} each, like this one")


def _startup_s(knowledge: Knowledge, ranks: int) -> float:
    """From the start of a job of so many ranks to its first trial, in seconds."""
    measured = knowledge.startups
    most = max((seen for seen, _ in measured), default=0)
    first_s = max((seconds for _, seconds in measured), default=_FIRST_TRIAL_S)
    return _LAUNCH_S + first_s + _PER_RANK_S * max(0, ranks - most)


def _why_unknown(spec: Spec, knowledge: Knowledge) -> str:
    limit = "--timeout" if spec.source == COMMAND_LINE else "limits.timeout"
    found = f"only {counted(knowledge.measured, 'trial')} " if knowledge.measured else "no trial "
    return (
        f"{spec.source}: --plan: no duration is known, because {found}of the sweep has been measured; add "
        "--pilot 5 to `mpisweep check` to run five, or --from with an earlier results file, or set "
        f"{limit} for an upper bound"
    )


def _without_gainless(plan: Plan) -> Plan:
    """Drop sizes at the end that are hardly faster than the one before."""
    rows = list(plan.rows)
    while len(rows) > 1 and rows[-1].time_s > (1 - _GAIN) * rows[-2].time_s:
        rows.pop()
    return replace(plan, rows=tuple(rows))


class Asked(NamedTuple):
    """What a plan asks for.

    Attributes:
        nodes: number of nodes.
        gpus: number of GPUs, where jobs ask for these; None elsewhere.
        elapse_s: time limit.
        times: median and 95% bound of the time from the start of the ranks, in seconds; None if the plan has
            upper bounds only.
        text: the suggestion in words.
    """

    nodes: int
    gpus: int | None
    elapse_s: float
    times: tuple[float, float] | None
    text: str


def asked_of_plan(options: argparse.Namespace, spec: Spec, wishes: Wishes) -> Asked:
    """Plan a job as the user wants it, and take the suggestion.

    Args:
        options: of the command; its nodes and its time limit are kept if they were given.
        spec: the sweep.
        wishes: the user's, for nodes of the site.

    Raises:
        SiteError: if no job ends all trials, with one sentence that says what to do.
        SpecError: if no duration is known.
    """
    from mpisweep.search import make_sampler

    planned = make_planned(
        spec,
        make_sampler(spec),
        results_path(options, spec),
        earlier=options.earlier,
        wishes=wishes,
        site=options.site,
        counts=[options.nodes] if options.nodes else (),
        walltime_s=options.elapse,
    )
    if planned is None:
        raise SiteError(f"{spec.source}: --plan: all trials have ended; there is nothing to submit")
    row = planned.plan.suggested
    if row is None:
        raise SiteError(f"--plan: {why_none(planned)}")
    times = row.time_s - _LAUNCH_S, row.bound_s - _LAUNCH_S
    in_gpus = planned.machine.unit == "GPU"
    return Asked(
        1 if in_gpus else row.nodes,
        row.nodes if in_gpus else None,
        row.elapse_s if options.elapse is None else options.elapse,
        None if planned.plan.is_bound else times,
        asked_for(planned),
    )


# ------------------------------------------------------------------------------------- check --plan


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check --plan``."""
    plan = parser.add_argument_group("planning a job")
    plan.add_argument(
        "--plan",
        action="store_true",
        help="print time, node-hours and the chance to end in time for several numbers of nodes, and what to "
        "ask for; -n is the number of workers per node",
    )
    plan.add_argument(
        "--pilot",
        type=pilot_size,
        metavar="N",
        help="with --plan: first run N trials that are chosen to tell how long all others take, like "
        "`mpisweep run --pilot N`; their results stay in the results file",
    )
    add_from(plan)
    plan.add_argument(
        "--nodes", type=node_counts, metavar="N,...", default=[], help="numbers of nodes (default: doubling)"
    )
    plan.add_argument(
        "--site",
        metavar="SITE",
        default="",
        help="plan for nodes of this site, within the limits of its jobs",
    )
    plan.add_argument("--group", metavar="NAME", default="", help="resource group, partition or queue")


def check_plan_flags(options: argparse.Namespace) -> None:
    """Refuse flags of the planner without a plan."""
    flags = {
        "--from": options.earlier,
        "--pilot": options.pilot,
        "--nodes": options.nodes,
        "--site": options.site,
        "--group": options.group,
    }
    given = [flag for flag, value in flags.items() if value]
    if given and not options.plan:
        raise SpecError(f"command line: {', '.join(given)}: only applies with --plan; add it")


def _run_pilot(options: argparse.Namespace) -> int:
    """Run the pilot by the launcher, in a process of its own; returns its exit code."""
    sweep = [options.sweep] if is_sweep_file(options) else []
    output = ["-o", options.output] if options.output else []
    workers = ["-n", str(options.workers)] if options.workers else []
    command = [
        *(*python_command(), "-m", "mpisweep", "run"),
        *("--pilot", str(options.pilot), "--master", options.master),
        *(*sweep, *quick_words(options), *output, *workers),
        *(["--", *options.command_line] if options.command_line else []),
    ]
    # Standard output has the plan only.
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode


def print_plan(options: argparse.Namespace, spec: Spec, sampler: Sampler) -> int:
    """Print a plan, after a pilot if the user wants one; returns the exit code."""
    path = results_path(options, spec)
    check_pilot(spec, options.pilot)
    if options.pilot is not None and (code := _run_pilot(options)):
        return code
    planned = make_planned(
        spec,
        sampler,
        path,
        earlier=options.earlier,
        wishes=Wishes(group=options.group),
        site=options.site,
        workers=options.workers,
        counts=options.nodes,
        walltime_s=options.walltime,
    )
    if options.json:
        print_json({
            "source": spec.source, "name": spec.name, "results": str(path), "plan": plan_fields(planned),
        })  # fmt: skip
        return 0
    print(f'{spec.source}: OK (sweep "{spec.name}")')
    lines = ["  plan        all trials have ended"] if planned is None else plan_lines(planned)
    print("\n".join(lines))
    return 0
