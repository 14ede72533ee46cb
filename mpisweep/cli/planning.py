"""The planner of check and submit: what a sweep takes, and what to ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mpisweep.batch.request import Wishes
from mpisweep.batch.site import SiteError
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.sizes import Machine, at_site, doubling
from mpisweep.batch.texts import clock
from mpisweep.batch.walltime import closing_s
from mpisweep.cli.arguments import at_least_1
from mpisweep.devices.nodes import default_workers, this_node
from mpisweep.progress import counted
from mpisweep.spec import COMMAND_LINE, Spec, SpecError
from mpisweep.spec.units import configuration_text, duration_text

if TYPE_CHECKING:
    from mpisweep.master.planning import Knowledge
    from mpisweep.scheduling.plan import Plan, Row
    from mpisweep.search import Sampler

__all__ = ["Planned", "add_from", "make_planned", "node_counts", "plan_fields", "plan_lines", "suggested"]

#: From the start of a job to the start of its ranks, in seconds, and what each further rank adds: they all
#: import from one file system.
_LAUNCH_S = 5.0
_PER_RANK_S = 0.1
#: From there to the first trial, before any run has measured it: torch is imported.
_FIRST_TRIAL_S = 15.0
#: A size that is faster than the one before it by less than this share is not shown.
_GAIN = 0.03


class Planned(NamedTuple):
    """A plan and what it rests on."""

    plan: Plan
    knowledge: Knowledge
    machine: Machine


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
    if site:
        return at_site(load_site(site), wishes, spec.devices_per_trial)
    if workers is not None:
        return Machine("node", workers, f"nodes with {counted(workers, 'worker')} each")
    if knowledge.workers_per_node is not None:
        there = knowledge.workers_per_node
        return Machine("node", there, f"nodes with {counted(there, 'worker')} each, as in the last run")
    here = default_workers(this_node(), spec.devices_per_trial)
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


# ------------------------------------------------------------------------------------- words


def plan_lines(planned: Planned) -> list[str]:
    """Put a plan into words: a table, what to ask for, and what it rests on."""
    plan, knowledge, machine = planned
    lines = [f"  plan        {counted(plan.trials, 'trial')} left, on {machine.what}; {_source(planned)}"]
    lines += [f"              {line}" for line in _table(plan, machine)]
    lines.append(f"  ask for     {_asked(planned)}")
    if plan.alone is not None:
        lines.append(f"  at the end  {_alone(planned)}")
    if plan.walltime_s is not None and plan.suggested is None:
        lines.append(f"  or          {_longer(planned)}")
    lines += [f"  note        {note}" for note in (*knowledge.notes, *_doubts(planned))]
    return lines


def _source(planned: Planned) -> str:
    plan, knowledge, _ = planned
    if plan.is_bound:
        return "upper bounds, from the timeout"
    where = f" on {', '.join(knowledge.devices)}" if knowledge.devices else ""
    elsewhere = f", {knowledge.measured_elsewhere:,} of another sweep" if knowledge.measured_elsewhere else ""
    return (
        f"durations from {counted(knowledge.measured, 'trial')}{where}{elsewhere}; {plan.draws} virtual runs "
        "per line"
    )


def _table(plan: Plan, machine: Machine) -> list[str]:
    unit = f"{machine.unit}s"
    is_given = plan.walltime_s is not None
    header = [unit, "workers", "time", "95% within", f"{machine.unit}-hours", "ask for"]
    header += [f"all end in {clock(plan.walltime_s or 0.0)}", "trials that fit"] if is_given else ["all end"]
    rows = [header]
    for row in plan.rows:
        cells = [f"{row.nodes:,}", f"{row.workers:,}", clock(row.time_s), clock(row.bound_s)]
        asked = clock(row.elapse_s) if row.is_allowed or is_given else f"{clock(row.elapse_s)} (too long)"
        cells += [f"{row.node_hours:.3g}", asked, _percent(plan, row)]
        rows.append([*cells, *([f"{row.fitting:,}"] if row.fitting is not None else [])])
    widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _percent(plan: Plan, row: Row) -> str:
    if plan.is_bound:
        return "yes" if row.probability == 1 else "perhaps"
    # 100% would promise what no number of draws can.
    return f"{100 * row.probability:.0f}%" if row.probability < 0.995 else ">99%"


def _asked(planned: Planned) -> str:
    plan, _, machine = planned
    row = plan.suggested
    if row is None:
        return _why_none(planned)
    sure = "" if plan.is_bound else f" with {_percent(plan, row)}"
    text = f"{_job(machine, row)} ends {_all(plan)}{sure}"
    if plan.is_bound:
        text += ", even if every one takes its timeout"
    cheaper = plan.cheapest
    if cheaper is not None:
        saved = 1 - cheaper.node_hours / row.node_hours
        if saved >= 0.005:
            text += f"; {_job(machine, cheaper)} costs {100 * saved:.0f}% fewer {machine.unit}-hours"
    return text


def _all(plan: Plan) -> str:
    return f"all {plan.trials:,} trials" if plan.trials > 1 else "the trial"


def _job(machine: Machine, row: Row) -> str:
    return f"{counted(row.nodes, machine.unit)} x {clock(row.elapse_s)}"


def _why_none(planned: Planned) -> str:
    """Why no size ends all trials, and how far the best one comes."""
    plan, _, machine = planned
    if plan.walltime_s is None:
        return (
            f"no job that {machine.what.partition(' with ')[0].removeprefix('nodes of ')} allows ends "
            f"{_all(plan)} with 95%; run several in a row with `mpisweep submit --chain complete`"
        )
    best = max(plan.rows, key=lambda row: (row.fitting or 0, -row.nodes))
    within = f"{counted(best.nodes, machine.unit)} x {clock(plan.walltime_s)}"
    ends = f"{best.fitting or 0:,} of {plan.trials:,} trials"
    if best.fitting == plan.trials:
        return f"{within} is expected to end all, but only with {_percent(plan, best)}"
    return f"{within} ends about {ends}; the same command resumes the rest in the next job"


def _longer(planned: Planned) -> str:
    """The cheapest job without the user's walltime."""
    plan, _, machine = planned
    row = min(plan.rows, key=lambda one: one.node_hours)
    return f"{_job(machine, row)} ends {_all(plan)} with 95%"


def _alone(planned: Planned) -> str:
    plan, knowledge, machine = planned
    alone = plan.alone
    assert alone is not None
    row = next(row for row in plan.rows if row.nodes == alone.nodes)
    if alone.trial is None:
        name = "one trial"
    else:
        where = configuration_text(knowledge.trials.configuration(alone.trial))
        name = f"trial {alone.trial}" + (f" ({where})" if where else "")
    return (
        f"{name} alone holds the {counted(row.nodes, machine.unit)} for about "
        f"{duration_text(alone.seconds)}, {100 * alone.share:.0f}% of the time"
    )


def _doubts(planned: Planned) -> list[str]:
    """What the plan assumes."""
    plan, knowledge, _ = planned
    found = []
    observed = knowledge.ahead.observed
    if observed.early and not plan.is_bound:
        found.append(f"{len(observed.early):,} of {counted(observed.ended, 'trial')} failed or were pruned")
    if observed.lost and not plan.is_bound:
        found.append(f"{observed.lost:,} of {counted(observed.attempts, 'attempt')} had to run again")
    how = "measured" if knowledge.startups else "assumed"
    first = plan.rows[0].startup_s, plan.rows[-1].startup_s
    span = duration_text(first[0]) + ("" if first[1] - first[0] < 1 else f" to {duration_text(first[1])}")
    found.append(f"{span} of start-up ({how}) are part of the time")
    return found


def suggested(planned: Planned | None, spec: Spec) -> Row:
    """The row to submit.

    Raises:
        SiteError: if there is none, with one sentence that says what to do.
    """
    if planned is None:
        raise SiteError(f"{spec.source}: --plan: all trials have ended; there is nothing to submit")
    row = planned.plan.suggested
    if row is None:
        raise SiteError(f"--plan: {_why_none(planned)}")
    return row


def plan_fields(planned: Planned | None) -> dict[str, Any] | None:
    """A plan for JSON; None if nothing is left."""
    if planned is None:
        return None
    plan, knowledge, machine = planned
    return asdict(plan) | {
        "unit": machine.unit,
        "machine": machine.what,
        "measured": knowledge.measured,
        "measured_elsewhere": knowledge.measured_elsewhere,
        "devices": list(knowledge.devices),
        "notes": [*knowledge.notes, *_doubts(planned)],
    }
