"""The commands sites and options: what is known of sites, and of workloads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TypeAlias

from mpisweep.batch.site import ResourceGroup, Site, SiteError
from mpisweep.batch.sitefile import known_sites, load_site, site_folders
from mpisweep.batch.texts import clock
from mpisweep.cli.arguments import Commands, add_json, print_json
from mpisweep.plugins import WORKLOADS, PluginError, plugin_names
from mpisweep.records import Value
from mpisweep.spec import SpecError, nearest
from mpisweep.spec.catalogue import WorkloadDescription, describe
from mpisweep.spec.units import value_text

__all__ = ["add_commands"]

Fields: TypeAlias = dict[str, object]


def add_commands(commands: Commands) -> None:
    """Register the commands."""
    sites = commands.add_parser(
        "sites",
        help="list the sites for which job scripts can be written",
        description="List all sites, or show one: batch system, GPUs and cores per node, resource groups and "
        "their limits. What a site file does not state is unknown, and no job is refused for it.",
    )
    sites.add_argument("site", metavar="SITE", nargs="?", help="a site, or the path of a site file")
    add_json(sites)
    sites.set_defaults(command=_sites)

    options = commands.add_parser(
        "options",
        help="list the options and metrics of a workload",
        description="List the options of a workload with their defaults, and its metrics; without a name, "
        "list all workloads, also those of installed plugins.",
    )
    options.add_argument("workload", metavar="WORKLOAD", nargs="?", help="a workload, e.g. resnet50")
    add_json(options)
    options.set_defaults(command=_options)


# ------------------------------------------------------------------------------------- sites


def _sites(options: argparse.Namespace) -> int:
    from mpisweep.views.console import print_table

    if options.site is not None:
        site = load_site(options.site)
        if options.json:
            print_json(_site_fields(site, str(known_sites().get(site.name, options.site))))
        else:
            _print_site(site)
        return 0
    found = list(_all_sites())
    if options.json:
        print_json({"sites": found})
        return 0
    shipped = site_folders()[-1]
    rows = [_site_row(fields, f"{shipped}/") for fields in found]
    print_table(("site", "system", "GPUs", "cores", "queue", ""), rows, right=(2, 3))
    print(
        "GPUs and cores are per node; ?: not stated in the site file; `mpisweep sites SITE` shows all of it"
    )
    return 0


def _site_row(fields: Fields, shipped: str) -> tuple[str, ...]:
    """One site in the table, with the path of a user's own file."""
    if "error" in fields:
        return str(fields["name"]), "?", "", "", "", str(fields["error"])
    own = "" if str(fields["file"]).startswith(shipped) else f" ({fields['file']})"
    known = [_known(fields[key]) for key in ("system_title", "gpus_per_node", "cores_per_node")]
    return str(fields["name"]), *known, str(fields["group"] or "-"), f"{fields['title']}{own}"


def _all_sites() -> Iterator[Fields]:
    """What is known of each site; its ``error`` if its file cannot be used."""
    for name, path in known_sites().items():
        try:
            yield _site_fields(load_site(str(path)), str(path))
        except SiteError as error:
            yield {"name": name, "file": str(path), "error": str(error)}


def _site_fields(site: Site, path: str) -> Fields:
    return {
        "name": site.name,
        "title": site.title,
        "file": path,
        "system": site.system.name,
        "system_title": site.system.title.removeprefix("a "),
        "gpus_per_node": site.gpus_per_node,
        "cores_per_node": site.cores_per_node,
        "unit": site.unit,
        "group": site.group or None,
        "project_needed": site.project_needed,
        "modules": list(site.modules),
        "groups": [
            {
                "name": group.name,
                "gpus": group.gpus,
                "limits": [{"nodes": limit.nodes, "elapse_s": limit.elapse_s} for limit in group.limits],
            }
            for group in site.groups.values()
        ],
    }


def _print_site(site: Site) -> None:
    from mpisweep.views.console import print_table

    project = "required" if site.project_needed else "not required by the site file"
    lines = {
        "batch system": site.system.title.removeprefix("a "),
        "jobs ask for": {"node": "whole nodes", "gpu": "GPUs of shared nodes", "vnode": "virtual nodes"}[
            site.unit
        ],
        "GPUs per node": _known(site.gpus_per_node),
        "cores per node": _known(site.cores_per_node),
        "default queue": site.group or "none",
        "project": project,
        "modules": ", ".join(site.modules) or "none",
    }
    print(f"{site.name}: {site.title}")
    for what, value in lines.items():
        print(f"  {what:<15} {value}")
    if site.groups:
        rows = [(group.name, *limits) for group in site.groups.values() for limits in _limits(group)]
        print_table(("queue", "nodes or GPUs, up to", "time limit"), rows, right=(1, 2))


def _limits(group: ResourceGroup) -> Iterator[tuple[str, str]]:
    gpus = "?" if group.gpus is None else f"{group.gpus} GPUs"
    if not group.limits:
        yield gpus, "?"
    for limit in group.limits:
        size = gpus if limit.nodes is None else str(limit.nodes)
        yield size, "?" if limit.elapse_s is None else clock(limit.elapse_s)


def _known(value: object) -> str:
    return "?" if value is None else str(value)


# ------------------------------------------------------------------------------------- options


def _options(options: argparse.Namespace) -> int:
    from mpisweep.views.console import print_table

    if options.workload is None:
        described = {name: _described(name) for name in plugin_names(WORKLOADS)}
        if options.json:
            print_json({"workloads": list(described)})
        else:
            rows = [(name, str(len(one.options)), str(len(one.metrics))) for name, one in described.items()]
            print_table(("workload", "options", "metrics"), rows, right=(1, 2))
        return 0
    workload = _described(options.workload)
    if options.json:
        print_json(_workload_fields(workload))
        return 0
    shown = [
        (option.name, _default(option.default), option.units,
         option.description + (f" ({', '.join(option.values)})" if option.values else ""))
        for option in workload.options
    ]  # fmt: skip
    print_table(("option", "default", "units", "meaning"), shown, folds=True)
    metrics = [(metric.name, metric.units, metric.description) for metric in workload.metrics]
    print_table(("metric", "units", "meaning"), metrics, folds=True)
    return 0


def _described(name: str) -> WorkloadDescription:
    """Find the description of a workload.

    Raises:
        SpecError: if there is none, or if a plugin cannot be used.
    """
    try:
        found = describe(name)
    except PluginError as error:
        raise SpecError(f"workload: {error}") from error
    if found is None:
        raise SpecError(f"there is no workload {name!r}; {nearest(name, plugin_names(WORKLOADS))}")
    return found


def _default(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else value_text(value) or "none"


def _workload_fields(workload: WorkloadDescription) -> Fields:
    return {
        "name": workload.name,
        "options": [
            {
                "name": option.name,
                "kind": option.kind,
                "default": option.default,
                "units": option.units,
                "smallest": option.low,
                "values": list(option.values),
                "meaning": option.description,
            }
            for option in workload.options
        ],
        "metrics": [
            {"name": metric.name, "units": metric.units, "meaning": metric.description}
            for metric in workload.metrics
        ],
    }
