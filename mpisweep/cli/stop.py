"""The commands stop, and chain, with which a job asks whether it still has something to run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpisweep.batch.allocation import this_allocation
from mpisweep.batch.chain import LINKS_AT_MOST, Began, note, read_record, why_over
from mpisweep.batch.jobs import cancel_jobs, cancel_waiting, submit_link
from mpisweep.batch.submit import SubmitError
from mpisweep.cli.arguments import Commands, add_file
from mpisweep.cli.outcome import standing
from mpisweep.progress import counted
from mpisweep.results import ResultsError, journal_folder, shares_folder, stop_file

__all__ = ["add_chain", "add_commands", "ask_to_stop"]

#: Exit code of ``mpisweep chain`` if the job has nothing to do.
_OVER = 3
#: Seconds between two checks whether the sweep has stopped.
_LOOK_S = 0.2


def add_chain(commands: Commands) -> None:
    """Register chain, which only job scripts call."""
    chain = commands.add_parser(
        "chain",
        description=f"Called by the scripts of `submit --chain`. Exit code {_OVER}: this job has nothing to "
        "do, and the later jobs of its chain were cancelled; 0: run.",
    )
    add_file(chain)
    chain.set_defaults(command=_chain)


def add_commands(commands: Commands) -> None:
    """Register stop."""
    stop = commands.add_parser(
        "stop",
        help="stop a running sweep cleanly",
        description="Stop a sweep cleanly, on whichever node it runs, cancel its waiting jobs, and wait "
        "until it has stopped.",
    )
    add_file(stop)
    stop.add_argument("--no-wait", action="store_true", help="do not wait until it has stopped")
    stop.set_defaults(command=_stop)


def _chain(options: argparse.Namespace) -> int:
    results: Path = options.file
    record, now = read_record(results), standing(results)
    job_id = this_allocation().job_id
    over = why_over(record, job_id, now)
    job = record.find(job_id)
    if job is None:
        return 0
    others = [link for link in record.chain(job.chain) if link.link > job.link]
    if over:
        print(f"mpisweep: this job has nothing to do: {over}")
        if others:
            words = cancel_jobs(job.system, [link.job_id for link in others])
            later = f"{counted(len(others), 'job')} after it"
            left = f"could not cancel {later}, which will end by themselves: {words}"
            print(f"mpisweep: {left if words else f'cancelled {later}'}")
        return _OVER
    try:
        note(results, [Began(job_id, now.ended, time.time())])
    except OSError as error:
        print(f"mpisweep: {results}.jobs: the start of this job cannot be recorded: {error.strerror}")
    if job.links == 0 and not others and job.link < LINKS_AT_MOST:
        try:
            follower = submit_link(results, dataclasses.replace(job, link=job.link + 1), job_id)
            print(f"mpisweep: submitted job {follower} to run after this one")
        except SubmitError as error:
            print(f"mpisweep: no job will follow; run `mpisweep submit` again after this one: {error}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    results: Path = options.file
    wait = ask_to_stop(results, say=lambda text: print(text, flush=True))
    if wait is not None and not options.no_wait:
        wait()
        _print_stopped(results)
    return 0


def ask_to_stop(results: Path, say: Callable[[str], None]) -> Callable[[], None] | None:
    """Ask the active runs of a sweep to stop, and cancel its waiting jobs.

    Args:
        results: the results file.
        say: receives sentences on what was done.

    Returns:
        A function that waits until they have stopped; None if there is nothing to wait for.

    Raises:
        ResultsError: if there is no such sweep, or the request cannot be written.
    """
    from mpisweep.results.holder import holder_of

    record = read_record(results)
    there = any(path.exists() for path in (results, journal_folder(results), shares_folder(results)))
    if not there and not record.submitted:
        raise ResultsError(f"{results}: no such results file, and no job was submitted for it here")
    running = cancel_waiting(results, record, say)
    if shares_folder(results).exists():
        return _ask_members(results, running, say)
    holder = holder_of(journal_folder(results))
    if holder is None and not running:
        say(f"{results}: nothing is running")
        return None
    _request_stop(results)
    if holder is None:
        say(
            f"{results}: {' and '.join(running)} started, but its sweep has not yet; the sweep will stop "
            "when it starts"
        )
        return None
    say(f"{results}: asked {holder.text()} to stop")

    def wait() -> None:
        while holder_of(journal_folder(results)) is not None:
            time.sleep(_LOOK_S)

    return wait


def _ask_members(
    results: Path, running: Sequence[str], say: Callable[[str], None]
) -> Callable[[], None] | None:
    """Ask all runs that share a sweep, in these jobs or elsewhere, to stop."""
    from mpisweep.results.holder import STALE_S
    from mpisweep.results.shares.folder import members
    from mpisweep.results.shares.membership import MemberWatch

    folder = shares_folder(results)
    watch = MemberWatch(folder, silence_s=STALE_S, every_s=_LOOK_S)
    alive = watch.poll_until_certain(members(folder))
    if not alive:
        # A run ignores requests older than itself.
        has_begun = f"{' and '.join(running)} started, but its sweep has not yet; run stop again when it has"
        say(f"{results}: {has_begun if running else 'nothing is running'}")
        return None
    _request_stop(results)
    say(f"{results}: asked {'; '.join(map(watch.text, alive))} to stop")

    def wait() -> None:
        # The folder is removed when all trials have ended.
        with contextlib.suppress(FileNotFoundError):
            while watch.poll_until_certain(members(folder)):
                time.sleep(_LOOK_S)

    return wait


def _request_stop(results: Path) -> None:
    """Create the file that requests a stop."""
    request = stop_file(results)
    try:
        request.touch()
    except OSError as error:
        raise ResultsError(f"{request}: cannot be made: {error.strerror}") from error


def _print_stopped(results: Path) -> None:
    """Remove the request, lest it stop the next run, and print how far the sweep is."""
    stop_file(results).unlink(missing_ok=True)
    now = standing(results)
    print(f"{results}: stopped; {now.ended:,} of {now.trials:,} trials have ended")
