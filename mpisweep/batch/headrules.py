"""Rules on the head of a job script: its first line and its directives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from mpisweep.batch.request import CORES_PER_GPU, LEAST_CORES_PER_GPU
from mpisweep.batch.scriptsheet import Finding, Severity, Sheet
from mpisweep.batch.texts import clock

__all__ = ["HEAD_RULES"]


def _interpreter(sheet: Sheet) -> Iterator[Finding]:
    if sheet.system.needs_interpreter and not sheet.script.has_interpreter:
        yield Finding(
            1,
            Severity.ERROR,
            f"the first line names no interpreter, and {sheet.system.submit} refuses such a script",
            "#!/bin/bash",
        )


def _spelling(sheet: Sheet) -> Iterator[Finding]:
    system = sheet.system
    for number in sheet.script.misspelt:
        yield Finding(
            number, Severity.WARNING, "looks like a directive, but is a comment",
            f"a directive begins with {system.marker} and a space, at the start of its line",
        )  # fmt: skip
    for marker, number in sheet.script.others.items():
        yield Finding(
            number,
            Severity.WARNING,
            f"{marker} means nothing to {system.title}",
            f"only {system.marker} lines count here",
        )
    for number, value in sheet.script.broken.items():
        text = sheet.script.lines[number - 1].strip()
        yield Finding(
            number,
            Severity.ERROR,
            f"{text.split()[-1]} has no value: the shell takes the next line, {value}, for a command",
            f"{text} {value}, on one line",
        )
    for directive in sheet.script.directives:
        if directive.lacks_value:
            joint = "=" if " " in directive.option or directive.option.startswith("--") else " "
            yield Finding(
                directive.line,
                Severity.ERROR,
                f"{directive.option} has no value",
                f"{system.marker} {directive.option}{joint}VALUE",
            )
        if directive.known or directive.lacks_value:
            continue
        known: Iterable[str] = system.flags | system.valued
        option, _, resource = directive.option.partition(" ")
        if resource:
            known = system.resources
        near = difflib.get_close_matches(resource or option, sorted(known), n=1)
        yield Finding(
            directive.line, Severity.ERROR, f"{system.submit} has no option {directive.option}",
            f"did you mean {near[0]}?" if near else f"see `man {system.submit}`",
        )  # fmt: skip


def _order(sheet: Sheet) -> Iterator[Finding]:
    for number in sheet.script.late:
        yield Finding(
            number, Severity.ERROR, f"is after the first command, where {sheet.system.title} ignores it",
            "directives go to the top, before any command",
        )  # fmt: skip


def _limits(sheet: Sheet) -> Iterator[Finding]:
    asked, site = sheet.asked, sheet.site
    option = sheet.system.time_example
    elapse = sheet.script.find(*sheet.system.time_options)
    if elapse is None:
        yield Finding(
            1,
            Severity.WARNING,
            "no time limit is set, and the default may be short",
            f"{sheet.system.marker} {option}2:00:00",
        )
    elif asked.elapse_s is None and not elapse.lacks_value:
        yield Finding(
            elapse.line, Severity.ERROR, f"{elapse.value!r} is not a valid time limit", f"{option}2:00:00"
        )
    if site is None:
        return
    if site.project_needed and not asked.project and not site.project_with_command:
        yield Finding(
            1, Severity.ERROR, f"no project group is set, and {site.name} needs one",
            f"{sheet.system.marker} {site.project_option('GROUP')}",
        )  # fmt: skip
    group = site.resource_group(asked.group)
    if asked.nodes and group.most_nodes is not None and asked.nodes > group.most_nodes:
        yield Finding(
            asked.line("nodes"),
            Severity.ERROR,
            f"{asked.nodes} nodes are more than resource group {group.name} allows",
            f"up to {group.most_nodes}",
        )
    longest_s = group.longest_s(asked.nodes or 1)
    if asked.elapse_s and longest_s is not None and asked.elapse_s > longest_s:
        yield Finding(
            asked.line("elapse"),
            Severity.ERROR,
            f"{clock(asked.elapse_s)} is longer than resource group {group.name} allows for "
            f"{asked.nodes or 1} nodes",
            f"up to {clock(longest_s)}",
        )


def _ranks(sheet: Sheet) -> Iterator[Finding]:
    asked, gpus = sheet.asked, sheet.gpus
    if not gpus or not asked.ranks:
        return
    total = gpus * (asked.nodes or 1)
    if asked.ranks < total:
        yield Finding(
            asked.line("ranks"),
            Severity.ERROR,
            f"{_are(asked.ranks, 'rank')} fewer than the {total} GPUs: some are idle",
            f"{total} ranks, one per GPU",
        )
    elif asked.ranks > total:
        yield Finding(
            asked.line("ranks"), Severity.WARNING if asked.ranks % total == 0 else Severity.ERROR,
            f"{_are(asked.ranks, 'rank')} more than the {total} GPU{'s' * (total != 1)}: ranks share GPUs",
            f"{total} ranks, unless the sweep says devices_per_trial = {total / asked.ranks:.3g}",
        )  # fmt: skip


def _cores(sheet: Sheet) -> Iterator[Finding]:
    cores, gpus = sheet.asked.cores, sheet.gpus
    if gpus and cores is not None and cores < LEAST_CORES_PER_GPU * gpus:
        each = sheet.system.cores_example(CORES_PER_GPU, gpus)
        yield Finding(
            sheet.asked.line("cores"),
            Severity.WARNING,
            f"{_are(cores, 'core')} fewer than {LEAST_CORES_PER_GPU} per GPU, which "
            "leaves none for loading data",
            f"{each}, or as many as a node has",
        )


def _are(count: int, what: str) -> str:
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"


HEAD_RULES = (_interpreter, _spelling, _order, _limits, _ranks, _cores)
