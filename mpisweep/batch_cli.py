"""The commands around a batch system: jobscript, submit, chain and stop.

Arguments come in, a :class:`mpisweep.batch.jobscript.Script` goes out; the batch system, the results file and the
clock are asked here, and nothing of it decides.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpisweep.batch.allocation import this_allocation
from mpisweep.batch.chain import LINKS_AT_MOST, Began, Standing, Submitted, note, read_record, why_over
from mpisweep.batch.dialect import DIALECTS
from mpisweep.batch.jobs import cancel_waiting, counted
from mpisweep.batch.jobscript import Payload, write_script
from mpisweep.batch.request import Job, Wishes, plan_job
from mpisweep.batch.site import Site, SiteError, load_site
from mpisweep.batch.submit import SubmitError, cancel, find_command, submit
from mpisweep.results import ResultsError, journal_folder, shares_folder, stop_file
from mpisweep.spec import Spec, SpecError, parse_duration

__all__ = ["BATCH_ERRORS", "COMMANDS_WITH_SWEEPS", "SweepArguments", "add_batch_commands"]

BATCH_ERRORS = (SiteError, SubmitError)
#: Those that take a sweep, and so perhaps a command line after ``--``.
COMMANDS_WITH_SWEEPS = ("jobscript", "submit")

#: What ``mpisweep chain`` returns when the job has nothing to do.
_OVER = 3
#: How often is looked whether a sweep has stopped, in seconds.
_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class SweepArguments:
    """How the command line takes a sweep: the same for every command.

    Attributes:
        add: adds the arguments to a parser.
        spec: reads them.
        results: the results file.
    """

    add: Callable[[argparse.ArgumentParser], None]
    spec: Callable[[argparse.Namespace], Spec]
    results: Callable[[argparse.Namespace, Spec], Path]


# ------------------------------------------------------------------------------------- arguments


def add_batch_commands(commands: Any, sweep: SweepArguments) -> None:
    """Add the commands to the program's."""
    script = commands.add_parser(
        "jobscript",
        help="write a job script for a sweep, or check one",
        description="Print a complete job script for a sweep on a site; or, with --check, say what is wrong with a script.",
        epilog="example: mpisweep jobscript sweep.toml --site flow-cx --nodes 4 --elapse 2:00:00 > job.sh",
    )
    sweep.add(script)
    _add_job(script)
    script.add_argument("--check", metavar="SCRIPT", type=Path, help="check this job script instead of writing one")
    script.set_defaults(command=lambda options, given: _jobscript(options, sweep))

    batch = commands.add_parser(
        "submit",
        help="write a job script and submit it",
        description="Write a job script beside the results file, submit it and print the job's id.",
        epilog="example: mpisweep submit sweep.toml --site flow-cx --nodes 4 --elapse 2:00:00 --chain 5",
    )
    sweep.add(batch)
    _add_job(batch)
    batch.add_argument("--chain", metavar="N", type=_chain_length, default=1,
                       help="N jobs, one after another, or `complete` for as many as it takes; they end by themselves "
                       "when every trial has ended or when no progress is made")
    batch.set_defaults(command=lambda options, given: _submit(options, sweep))

    chain = commands.add_parser(
        "chain",
        help="in a job of a chain: whether it is to run",
        description=f"Asked by the scripts of `submit --chain`.  Exit code {_OVER}: this job has nothing to do, and the "
        "others of its chain have been cancelled; 0: go on.",
    )
    chain.add_argument("file", type=Path, metavar="FILE", help="a results file")
    chain.set_defaults(command=lambda options, given: _chain(options))

    stop = commands.add_parser(
        "stop",
        help="end a running sweep in order",
        description="Ask a running sweep to stop, wherever it runs, through a file beside its results, and wait for it. "
        "Its waiting jobs are cancelled.",
    )
    stop.add_argument("file", type=Path, metavar="FILE", help="a results file")
    stop.add_argument("--no-wait", action="store_true", help="only ask")
    stop.set_defaults(command=lambda options, given: _stop(options))


def _add_job(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("the job")
    job.add_argument("--site", metavar="SITE", default="", help="a site that mpisweep knows, or the path of a site file")
    job.add_argument("--nodes", type=_at_least_1, metavar="N", default=1, help="default: 1")
    job.add_argument("--elapse", type=_seconds, metavar="H:MM:SS", help="how long the job may take")
    job.add_argument("--gpus", type=_at_least_0, metavar="N", help="of a node; of the job, where GPUs are shared")
    job.add_argument("--ranks", type=_at_least_1, metavar="N", help="of a node (default: one a GPU, else one a core)")
    job.add_argument("--group", metavar="NAME", default="", help="resource group, partition or queue")
    job.add_argument("--project", metavar="NAME", default="", help="project group or account")
    job.add_argument("--module", action="append", default=[], metavar="NAME", help="to load, instead of the site's")
    inside = job.add_mutually_exclusive_group()
    inside.add_argument("--venv", metavar="FOLDER", default="", help="environment with mpisweep (default: this one)")
    inside.add_argument("--conda", metavar="NAME", default="", help="conda environment with mpisweep")
    inside.add_argument("--container", metavar="IMAGE", default="", help="image with mpisweep in it; MPI stays outside")
    job.add_argument("--master", choices=("auto", "works", "idle"), default="auto",
                     help="whether rank 0 hosts a worker, as in `run`")


def _at_least_1(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _at_least_0(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; expected e.g. 2:00:00, 90m or 3600")
    return seconds


def _chain_length(text: str) -> int:
    if text == "complete":
        return 0
    if not text.isdigit() or not 1 <= int(text) <= LINKS_AT_MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is neither `complete` nor a number of jobs from 1 to {LINKS_AT_MOST}")
    return int(text)


# ------------------------------------------------------------------------------------- jobscript, submit


def _jobscript(options: argparse.Namespace, sweep: SweepArguments) -> int:
    if options.check is not None:
        return _check_script(options)
    spec = sweep.spec(options)
    results = sweep.results(options, spec)
    site, job = _plan(options, spec)
    payload = _payload(options, spec, results)
    if site.system.marker and (unseen := _unseen(site, spec, results, payload.venv)):
        print(f"mpisweep: warning: {unseen}", file=sys.stderr)
    sys.stdout.write(write_script(job, payload).text())
    return 0


def _submit(options: argparse.Namespace, sweep: SweepArguments) -> int:
    spec = sweep.spec(options)
    results = sweep.results(options, spec)
    site, job = _plan(options, spec)
    if not site.system.marker:
        raise SubmitError(f"--site {site.name}: has no batch system; write the script with `mpisweep jobscript` and run it")
    payload = _payload(options, spec, results)
    if unseen := _unseen(site, spec, results, payload.venv):
        raise SubmitError(unseen)
    find_command(site.system, site.system.submit)
    links = options.chain
    script = results.with_name(results.name + ".job.sh")
    try:
        script.write_text(write_script(job, dataclasses.replace(payload, chained=links != 1)).text(), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise SubmitError(f"{script}: cannot be written: {error.strerror}") from error
    first = Submitted("", site.system.name, str(script.resolve()), str(Path.cwd()), 0.0,
                      chain=secrets.token_hex(4) if links != 1 else "", links=links)  # fmt: skip
    after = ""
    # A chain that goes on until the sweep is complete has one job waiting, which makes it two here.
    for link in range(1, (links or 2) + 1):
        after = _submit_link(results, dataclasses.replace(first, link=link), after)
        print(f"{site.system.title} job {after}: {script}" if link == 1 else f"{site.system.title} job {after}, when that has ended")
    return 0


def _submit_link(results: Path, link: Submitted, after: str) -> str:
    """Submit one job and note it; returns its id."""
    at = time.time()
    job_id = submit(
        DIALECTS[link.system], Path(link.script), folder=Path(link.folder), chained=link.links != 1, after=after
    )
    note(results, [dataclasses.replace(link, job_id=job_id, at=at)])
    return job_id


def _plan(options: argparse.Namespace, spec: Spec) -> tuple[Site, Job]:
    if not options.site:
        raise SiteError("--site: is missing; say where the job is to run, e.g. --site flow-cx, or pjm, slurm, pbs")
    site = load_site(options.site)
    wishes = Wishes(
        nodes=options.nodes, elapse_s=options.elapse, gpus=options.gpus, ranks=options.ranks, group=options.group,
        project=options.project, modules=tuple(options.module),
    )  # fmt: skip
    return site, plan_job(site, wishes, spec.devices_per_trial, spec.most_ranks)


def _payload(options: argparse.Namespace, spec: Spec, results: Path) -> Payload:
    venv = options.venv
    conda = options.conda or ("" if venv else os.environ.get("CONDA_PREFIX", ""))
    if not venv and not conda and sys.prefix != sys.base_prefix:
        venv = sys.prefix
    is_file = bool(options.sweep) and Path(options.sweep).is_file()
    return Payload(
        name=spec.name,
        sweep=options.sweep if is_file else "",
        results=str(results),
        arguments=_run_arguments(options, is_file),
        command_line=tuple(options.command_line),
        folder=str(Path.cwd()),
        venv=venv,
        conda=conda,
        image=options.container,
        grace_s=spec.limits.grace_s,
    )


def _run_arguments(options: argparse.Namespace, is_file: bool) -> tuple[str, ...]:
    """What ``mpisweep run`` is to be told besides the sweep file and the results file."""
    words = [options.sweep] if options.sweep and not is_file else []
    for flag, values in (("-p", options.parameter), ("--baseline", options.baseline), ("--metric", options.metric)):
        for value in values:
            words += [flag, value]
    for name in ("name", "objective", "direction", "search", "trials", "seed", "timeout", "retries"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    return (*words, *(() if options.master == "auto" else ("--master", options.master)))


def _unseen(site: Site, spec: Spec, results: Path, venv: str) -> str:
    """One sentence when compute nodes cannot see the sweep, its results or the environment; else empty."""
    places = [("the sweep", spec.folder), ("the results file", results.absolute().parent)]
    for what, path in [*places, *([("the environment", Path(venv))] if venv else [])]:
        if site.is_local(path):
            return (
                f"{what} lies in {path}, which every node of {site.name} has for itself; put it where the compute nodes "
                "see it, or say in a copy of the site's file which folders they do not share (local_folders)"
            )
    return ""


def _check_script(options: argparse.Namespace) -> int:
    from mpisweep.batch.checkscript import check_script

    try:
        raw = options.check.read_bytes()
    except OSError as error:
        raise SiteError(f"{options.check}: cannot be read: {error.strerror}") from error
    text = raw.decode("utf-8", "replace")
    findings = check_script(text, site=load_site(options.site) if options.site else None, look_up=_trial_seconds)
    for finding in findings:
        print(f"{options.check}:{finding.line}: {finding.severity}: {finding.what}; {finding.right}")
    errors = sum(finding.severity == "error" for finding in findings)
    if not findings:
        print(f"{options.check}: nothing is wrong with it")
    return 2 if errors else 0


def _trial_seconds(sweep: str, results: str) -> tuple[float | None, float | None]:
    """How long the longest trial took, and how long one may take, as far as the script's files say."""
    from mpisweep.results.load import load
    from mpisweep.spec import load_spec

    longest_s = timeout_s = None
    with contextlib.suppress(ResultsError, OSError, ValueError):
        times = load(results).trials["wall_time"]
        longest_s = float(times[times == times].max())
    with contextlib.suppress(SpecError):
        timeout_s = load_spec(Path(sweep)).limits.timeout_s if sweep else None
    return longest_s, timeout_s


# ------------------------------------------------------------------------------------- chain, stop


def _chain(options: argparse.Namespace) -> int:
    results: Path = options.file
    record, standing = read_record(results), _standing(results)
    job_id = this_allocation().job_id
    over = why_over(record, job_id, standing)
    job = record.find(job_id)
    if job is None:
        return 0
    others = [link for link in record.chain(job.chain) if link.link > job.link]
    if over:
        print(f"mpisweep: this job has nothing to do: {over}")
        if others:
            words = cancel(DIALECTS[job.system], [link.job_id for link in others])
            print(f"mpisweep: {counted(len(others), 'job')} after it {'will find the same: ' + words if words else 'cancelled'}")
        return _OVER
    try:
        note(results, [Began(job_id, standing.ended, time.time())])
    except OSError as error:
        print(f"mpisweep: {results}.jobs: this job cannot be noted: {error.strerror}")
    if job.links == 0 and not others and job.link < LINKS_AT_MOST:
        try:
            follower = _submit_link(results, dataclasses.replace(job, link=job.link + 1), job_id)
            print(f"mpisweep: job {follower} follows this one")
        except SubmitError as error:
            print(f"mpisweep: no job follows this one, submit again when it has ended: {error}")
    return 0


def _standing(results: Path) -> Standing:
    from mpisweep.records import EndReason, TrialState
    from mpisweep.results.load import load

    try:
        sweep = load(results)
    except (ResultsError, OSError):
        return Standing()
    ended = sum(sweep.count(state) for state in TrialState if state.is_end)
    last = str(sweep.allocations[-1]["end"]) if len(sweep.allocations) else ""
    return Standing(ended, len(sweep.trials), last if last in (EndReason.ALIKE, EndReason.NOTHING_COMPLETED) else "")


def _stop_members(results: Path, *, no_wait: bool) -> int:
    """Stop all runs that work on one sweep together."""
    from mpisweep.results.claim import STALE_S
    from mpisweep.results.shares import MemberWatch, members

    folder, request = shares_folder(results), stop_file(results)
    watch = MemberWatch(folder, silence_s=STALE_S, every_s=_LOOK_S, host=socket.gethostname())
    alive = watch.settle(members(folder))
    if not alive:
        print(f"{results}: nothing is running")
        return 0
    try:
        request.touch()
    except OSError as error:
        raise ResultsError(f"{request}: cannot be made: {error.strerror}") from error
    print(f"{results}: asked {'; '.join(map(watch.text, alive))} to stop", flush=True)
    if no_wait:
        return 0
    # When all trials have ended meanwhile, the folder goes away.
    with contextlib.suppress(FileNotFoundError):
        while watch.settle(members(folder)):
            time.sleep(_LOOK_S)
    request.unlink(missing_ok=True)
    standing = _standing(results)
    print(f"{results}: it has stopped; {standing.ended:,} of {standing.trials:,} trials have ended")
    return 0


def _stop(options: argparse.Namespace) -> int:
    from mpisweep.results.claim import holder_of

    results: Path = options.file
    record = read_record(results)
    there = any(path.exists() for path in (results, journal_folder(results), shares_folder(results)))
    if not there and not record.submitted:
        raise ResultsError(f"{results}: there is no such results file, and no job of it was submitted here")
    running = cancel_waiting(results, record)
    if shares_folder(results).exists():
        return _stop_members(results, no_wait=options.no_wait)
    holder = holder_of(journal_folder(results))
    if holder is None and not running:
        print(f"{results}: nothing is running")
        return 0
    request = stop_file(results)
    try:
        request.touch()
    except OSError as error:
        raise ResultsError(f"{request}: cannot be made: {error.strerror}") from error
    if holder is None:
        print(f"{results}: {' and '.join(running)} has begun but not the sweep in it; it will stop as soon as it does")
        return 0
    print(f"{results}: asked {holder.text()} to stop", flush=True)
    if options.no_wait:
        return 0
    while holder_of(journal_folder(results)) is not None:
        time.sleep(_LOOK_S)
    request.unlink(missing_ok=True)
    standing = _standing(results)
    print(f"{results}: it has stopped; {standing.ended:,} of {standing.trials:,} trials have ended")
    return 0
