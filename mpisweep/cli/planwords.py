"""A plan in words: a table, what to ask for, and what it rests on; and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mpisweep.batch.sizes import Machine
from mpisweep.batch.texts import clock
from mpisweep.progress import counted
from mpisweep.spec.units import configuration_text, duration_text

if TYPE_CHECKING:
    from mpisweep.master.planning import Knowledge
    from mpisweep.scheduling.plan import Plan, Row

__all__ = ["Planned", "asked_for", "plan_fields", "plan_lines", "why_none"]


class Planned(NamedTuple):
    """A plan and what it rests on."""

    plan: Plan
    knowledge: Knowledge
    machine: Machine


def plan_lines(planned: Planned) -> list[str]:
    """Put a plan into words: a table, what to ask for, and what it rests on."""
    plan, knowledge, machine = planned
    lines = [f"  plan        {counted(plan.trials, 'trial')} left, on {machine.what}; {_source(planned)}"]
    lines += [f"              {line}" for line in _table(plan, machine)]
    lines.append(f"  ask for     {asked_for(planned)}")
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


def asked_for(planned: Planned) -> str:
    """What to ask for, and what is cheaper; or why nothing ends all trials."""
    plan, _, machine = planned
    row = plan.suggested
    if row is None:
        return why_none(planned)
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


def why_none(planned: Planned) -> str:
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
