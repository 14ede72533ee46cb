"""The commands jobscript and submit: write a job script for a sweep, and submit it.

They turn arguments into a :class:`mpisweep.batch.jobscript.Script`, and query the batch system, the results
file and the clock; :mod:`mpisweep.batch` makes the decisions.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import re
import secrets
import sys
from pathlib import Path

from mpisweep.batch.chain import LINKS_AT_MOST, Submitted
from mpisweep.batch.checkscript import check_script
from mpisweep.batch.jobs import submit_link
from mpisweep.batch.jobscript import Payload, write_script
from mpisweep.batch.request import Job, Wishes, plan_job
from mpisweep.batch.scriptsheet import Facts
from mpisweep.batch.site import Site, SiteError
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.submit import SubmitError, find_command
from mpisweep.cli.arguments import Commands, add_json, at_least_0, at_least_1, duration, print_json
from mpisweep.cli.planning import add_from, asked_of_plan
from mpisweep.cli.stageargs import stage_words
from mpisweep.cli.sweepargs import (
    add_split,
    add_stage_env,
    add_sweep,
    check_split,
    check_time,
    is_sweep_file,
    quick_words,
    read_spec,
    results_path,
)
from mpisweep.results import ResultsError
from mpisweep.spec import Spec, SpecError, load_spec
from mpisweep.spec.catalogue import is_workload

__all__ = ["add_commands"]

#: Endings of file names that are scripts and not results.
_SCRIPTS = (".sh", ".bash", ".pbs", ".slurm", ".job", ".sbatch")


def add_commands(commands: Commands) -> None:
    """Register the commands."""
    script = commands.add_parser(
        "jobscript",
        help="write a job script for a sweep, or check one",
        description="Print a complete job script for a sweep on a site; with --check, print the errors of an "
        "existing script.",
    )
    add_sweep(script)
    add_split(_add_job(script), "write the script for K jobs that share the sweep")
    script.add_argument("--check", metavar="SCRIPT", type=Path, help="check this job script")
    add_json(script)
    script.set_defaults(command=_jobscript)

    batch = commands.add_parser(
        "submit",
        help="write a job script and submit it",
        description="Write a job script beside the results file, submit it, and print the job id.",
    )
    add_sweep(batch)
    add_split(_add_job(batch), "submit K jobs that share the sweep; with --chain, K chains")
    batch.add_argument(
        "--chain",
        metavar="N",
        type=_chain_length,
        default=1,
        help="submit N jobs, one after another, or `complete` for as many as needed; the chain ends when all "
        "trials have ended or when a job makes no progress",
    )
    batch.set_defaults(command=_submit)


def _add_job(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    job = parser.add_argument_group("the job")
    job.add_argument(
        "--site",
        metavar="SITE",
        default="",
        help="name of a site (`mpisweep sites` lists them), or path of a site file",
    )
    job.add_argument("--nodes", type=at_least_1, metavar="N", help="number of nodes (default: 1)")
    job.add_argument("--elapse", type=duration, metavar="H:MM:SS", help="time limit of the job")
    _add_plan(job)
    job.add_argument("--gpus", type=at_least_0, metavar="N", help="GPUs per node; per job on shared nodes")
    job.add_argument(
        "--ranks",
        type=at_least_1,
        metavar="N",
        help="ranks per node (default: one per GPU, else per core)",
    )
    job.add_argument(
        "--cores",
        type=at_least_1,
        metavar="N",
        help="cores per rank, for training and data loading (default: from the site file)",
    )
    job.add_argument("--group", metavar="NAME", default="", help="resource group, partition or queue")
    job.add_argument("--project", metavar="NAME", default="", help="project group or account")
    job.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="NAME",
        help="module to load instead of the site's; repeatable",
    )
    _add_directives(job)
    inside = job.add_mutually_exclusive_group()
    inside.add_argument(
        "--venv", metavar="FOLDER", default="", help="virtual environment with mpisweep (default: this one)"
    )
    inside.add_argument("--conda", metavar="NAME", default="", help="conda environment with mpisweep")
    inside.add_argument(
        "--container",
        metavar="IMAGE",
        default="",
        help="container image with mpisweep; mpirun runs outside of it",
    )
    job.add_argument(
        "--master",
        choices=("auto", "works", "idle"),
        default="auto",
        help="let rank 0 run trials too; see `mpisweep run`",
    )
    add_stage_env(job)
    return job


def _add_directives(job: argparse._ArgumentGroup) -> None:
    job.add_argument(
        "--directive",
        action="append",
        default=[],
        metavar="OPTION",
        help="batch system option to add to the script, e.g. --directive=--constraint=a100; repeatable",
    )
    job.add_argument(
        "--mail",
        metavar="ADDRESS",
        default="",
        help="let the batch system mail this address when the job ends or fails; with --chain, each job",
    )


def _add_plan(job: argparse._ArgumentGroup) -> None:
    job.add_argument(
        "--plan",
        action="store_true",
        help="set the number of nodes and the time limit as `mpisweep check --plan` suggests for the site",
    )
    add_from(job)


def _chain_length(text: str) -> int:
    if text == "complete":
        return 0
    if not text.isdigit() or not 1 <= int(text) <= LINKS_AT_MOST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither `complete` nor an integer from 1 to {LINKS_AT_MOST}"
        )
    return int(text)


def _jobscript(options: argparse.Namespace) -> int:
    if options.json and options.check is None:
        raise SiteError("--json: applies to --check only; a job script is printed as it is")
    if options.check is not None:
        return _check_script(options)
    spec = read_spec(options)
    results = results_path(options, spec)
    if results.suffix in _SCRIPTS:
        raise SiteError(
            f"-o {options.output}: -o names the results file; the script is printed, "
            f"and `> {options.output}` saves it"
        )
    options = _with_plan(options, spec)
    site, job = _plan(options, spec)
    payload = _payload(options, spec, results)
    if site.system.marker and (invisible := _why_invisible(site, spec, results, payload.venv)):
        print(f"mpisweep: warning: {invisible}", file=sys.stderr)
    sys.stdout.write(write_script(job, payload).text())
    return 0


def _submit(options: argparse.Namespace) -> int:
    spec = read_spec(options)
    results = results_path(options, spec)
    options = _with_plan(options, spec)
    site, job = _plan(options, spec)
    if not site.system.marker:
        raise SubmitError(
            f"--site {site.name}: has no batch system; write a script with `mpisweep jobscript` and run that"
        )
    payload = _payload(options, spec, results)
    if invisible := _why_invisible(site, spec, results, payload.venv):
        raise SubmitError(invisible)
    find_command(site.system, site.system.submit)
    links = options.chain
    script = results.with_name(results.name + ".job.sh")
    try:
        script.write_text(
            write_script(job, dataclasses.replace(payload, chained=links != 1)).text(), encoding="utf-8"
        )
        script.chmod(0o755)
    except OSError as error:
        raise SubmitError(f"{script}: cannot be written: {error.strerror}") from error
    for _ in range(options.split or 1):
        first = Submitted("", site.system.name, str(script.resolve()), str(Path.cwd()), 0.0,
                          chain=secrets.token_hex(4) if links != 1 else "", links=links,
                          options=site.submit_options(job.project))  # fmt: skip
        after = ""
        # An open-ended chain keeps one job waiting behind the running one: submit two.
        for link in range(1, (links or 2) + 1):
            after = submit_link(results, dataclasses.replace(first, link=link), after)
            print(
                f"{site.system.title} job {after}: {script}"
                if link == 1
                else f"{site.system.title} job {after}, after that one"
            )
    return 0


def _wishes(options: argparse.Namespace) -> Wishes:
    return Wishes(
        nodes=options.nodes or 1,
        elapse_s=options.elapse,
        gpus=options.gpus,
        ranks=options.ranks,
        cores=options.cores,
        group=options.group,
        project=options.project,
        modules=tuple(options.module),
        directives=tuple(options.directive),
        mail=options.mail,
    )


def _with_plan(options: argparse.Namespace, spec: Spec) -> argparse.Namespace:
    """The options with what a plan suggests, if the user wants that."""
    if options.earlier and not options.plan:
        raise SiteError("--from: only applies with --plan; add it")
    if not options.plan or not options.site:
        return options
    if options.split is not None:
        raise SiteError("--plan: plans one job for all trials; remove --split, or set --nodes and --elapse")
    asked = asked_of_plan(options, spec, _wishes(options))
    print(f"mpisweep: plan: {asked.text}", file=sys.stderr)
    times = "" if asked.times is None else f"{asked.times[0]:.1f},{asked.times[1]:.1f}"
    own = {"nodes": asked.nodes, "elapse": asked.elapse_s, "planned": times}
    return argparse.Namespace(**vars(options) | own | ({} if asked.gpus is None else {"gpus": asked.gpus}))


def _plan(options: argparse.Namespace, spec: Spec) -> tuple[Site, Job]:
    if not options.site:
        raise SiteError(
            "--site: is missing; set it to the site of the job, e.g. --site slurm; `mpisweep sites` lists all"
        )
    check_split(spec, options.split)
    check_time(spec, "--elapse", options.elapse)
    site = load_site(options.site)
    job = plan_job(site, _wishes(options), spec.devices_per_trial, spec.most_ranks)
    if options.container and job.ranks > 1 and not site.launch:
        raise SiteError(
            f"--container: the site file of {site.name} does not set how to start ranks; add e.g. "
            'launch = "srun --ntasks={ranks}" or launch = "mpirun -n {ranks}"'
        )
    if doubt := job.doubt():
        print(f"mpisweep: warning: {doubt}", file=sys.stderr)
    return site, job


def _payload(options: argparse.Namespace, spec: Spec, results: Path) -> Payload:
    venv = options.venv
    conda = options.conda or ("" if venv else os.environ.get("CONDA_PREFIX", ""))
    if not venv and not conda and sys.prefix != sys.base_prefix:
        venv = sys.prefix
    passed = [] if options.master == "auto" else ["--master", options.master]
    passed += ["--stage-env"] if options.stage_env else []
    passed += stage_words(options)
    planned = getattr(options, "planned", "")
    passed += ["--planned", planned] if planned else []
    return Payload(
        name=spec.name,
        sweep=options.sweep if is_sweep_file(options) else "",
        results=str(results),
        arguments=(*quick_words(options), *passed),
        command_line=tuple(options.command_line),
        folder=str(Path.cwd()),
        venv=venv,
        conda=conda,
        image=options.container,
        grace_s=spec.limits.grace_s,
        split=options.split,
    )


def _why_invisible(site: Site, spec: Spec, results: Path, venv: str) -> str:
    """Why compute nodes cannot see the sweep, its results or the environment; else empty."""
    places = [("the sweep", spec.folder), ("the results file", results.absolute().parent)]
    places += [("the data to stage", Path(spec.stage_data))] if spec.stage_data else []
    for what, path in [*places, *([("the environment", Path(venv))] if venv else [])]:
        if site.is_local(path):
            return (
                f"{what} is in {path}, on a node-local disk that other nodes of {site.name} cannot see; move "
                "it to a shared file system, or correct local_folders in a copy of the site file"
            )
    return ""


def _check_script(options: argparse.Namespace) -> int:
    try:
        raw = options.check.read_bytes()
    except OSError as error:
        raise SiteError(f"{options.check}: cannot be read: {error.strerror}") from error
    text = raw.decode("utf-8", "replace")
    findings = check_script(text, site=load_site(options.site) if options.site else None, look_up=_facts)
    if options.json:
        found = [{"line": one.line, "severity": str(one.severity), "found": one.what, "expected": one.right}
                 for one in findings]  # fmt: skip
        print_json({"script": str(options.check), "findings": found})
    for finding in () if options.json else findings:
        print(f"{options.check}:{finding.line}: {finding.severity}: {finding.what}; {finding.right}")
    errors = sum(finding.severity == "error" for finding in findings)
    if not findings and not options.json:
        print(f"{options.check}: OK")
    return 2 if errors else 0


def _facts(folder: str, sweep: str, results: str) -> Facts:
    """Read facts from the files that a script names, if their paths are known here."""
    from mpisweep.results.after import read_after
    from mpisweep.results.load import load_tables

    longest_s = timeout_s = None
    problem = ""
    if (path := _expanded_path(folder, results)) is not None:
        with contextlib.suppress(ResultsError, OSError, ValueError):
            times = load_tables(path).trials["wall_time"]
            longest_s = float(times[times == times].max())
    is_file = ":" not in sweep and not is_workload(sweep)
    if is_file and (path := _expanded_path(folder, sweep)) is not None:
        try:
            read = functools.partial(read_after, source=sweep, folder=path.parent, output=results)
            timeout_s = load_spec(path, read_after=read).limits.timeout_s
        except SpecError as error:
            problem = str(error)
    return Facts(longest_s, timeout_s, problem)


def _expanded_path(folder: str, name: str) -> Path | None:
    """The path of a file that a script names; None if only the job can expand it."""
    path = Path(*(os.path.expandvars(os.path.expanduser(part)) for part in (folder, name)))  # noqa: PTH111
    return None if not name or re.search(r"[$`*?]", str(path)) else path
