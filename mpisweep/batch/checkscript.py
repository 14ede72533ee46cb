"""Checking a job script: each rule finds one kind of mistake and says what would be right.

A rule takes a :class:`~mpisweep.batch.scriptsheet.Sheet`, everything known of the script, and yields
findings.  An *error* costs the job or its results; a *warning* may be intended.  Rules judge only by what the
site and the batch system state.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.commandrules import COMMAND_RULES, check_sweeps
from mpisweep.batch.directives import JobScript, asked_for, read_script
from mpisweep.batch.head import Asked
from mpisweep.batch.headrules import HEAD_RULES
from mpisweep.batch.registry import known_systems
from mpisweep.batch.scriptsheet import Facts, Finding, LookUp, Severity, Sheet
from mpisweep.batch.site import Site, SiteError
from mpisweep.batch.sitefile import known_sites, load_site
from mpisweep.batch.texts import whole

__all__ = ["check_script"]


def check_script(
    text: str, *, site: Site | None = None, look_up: LookUp = lambda folder, sweep, results: Facts()
) -> list[Finding]:
    """Check a script and return the findings in the order of their lines.

    Args:
        text: of the script.
        site: where it will run; None to tell by what it asks for.
        look_up: see :data:`~mpisweep.batch.scriptsheet.LookUp`.
    """
    script = read_script(text)
    if script.carriage_returns:
        return [
            Finding(
                script.carriage_returns,
                Severity.ERROR,
                "the lines have Windows endings, and the shell takes the carriage return for part of a word",
                "convert them, e.g. with `sed -i 's/\\r$//'`",
            )
        ]
    system = script.system or (site.system if site else None)
    if system is None:
        markers = ", ".join(known.marker for known in known_systems())
        return [Finding(
            1, Severity.ERROR, "no directive was found",
            f"a job script begins with lines of {markers}; to check one that is run and not submitted, add "
            "--site workstation",
        )]  # fmt: skip
    asked = asked_for(script)
    site = site or _guess(system, script, asked)
    sheet = Sheet(script, _with_nodes(script, asked, site), system, site, look_up)
    rules = (*HEAD_RULES, *COMMAND_RULES) if system.marker else (check_sweeps,)
    return sorted((finding for rule in rules for finding in rule(sheet)), key=lambda finding: finding.line)


def _guess(system: BatchSystem, script: JobScript, asked: Asked) -> Site | None:
    """Tell the site by the resource group or the node resource; None if ambiguous."""
    sites = []
    for path in known_sites().values():
        # A site file that cannot be read does not stop the check.
        with contextlib.suppress(SiteError):
            sites.append(load_site(str(path)))
    sites = [site for site in sites if site.system is system]
    if not asked.group:
        fitting = [site for site in sites if site.node_resource and script.find(site.node_resource)]
        return fitting[0] if len(fitting) == 1 else None
    fitting = [site for site in sites if asked.group in site.groups]
    return fitting[0] if len(fitting) == 1 and not fitting[0].groups[asked.group].common_name else None


def _with_nodes(script: JobScript, asked: Asked, site: Site | None) -> Asked:
    """Add the number of nodes if only the site file says how jobs ask for nodes."""
    found = script.find(site.node_resource) if site and site.node_resource else None
    if found is None:
        return asked
    return replace(asked, nodes=whole(found.value), lines={**asked.lines, "nodes": found.line})
