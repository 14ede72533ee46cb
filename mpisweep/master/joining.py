"""``mpisweep run --split``: how a run becomes one of several members that work on one sweep.

The first member fixes what all must agree on: the numbers of the trials, and their chunks.  Members that come
later, and those that come after all others have ended or were killed, join.  Nothing distinguishes the first
one afterwards.

Chunks
------
The chunks go from the longest expected trials to the shortest, like the trials of one allocation do: what is
long and starts late is what everybody waits for.  A chunk holds at most the share 1/(2 K) of the expected
work that is left, and at most that share of the trials that are left, so that neither a few very long trials
nor a wrong expectation gives one member more than its part; so the chunks become smaller and smaller, down to
1/(64 K) of the trials, and the members end together.  There are some 10 K of them.

The trials of a chunk need equally many ranks, and those that need most come first: a member with fewer
workers leaves them to others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpisweep.master.known import KnownSweep, describe_differences, duration_model, known_trials, trial_widths
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.records import EndReason, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim, RunOverError
from mpisweep.results.holder import ClaimedError
from mpisweep.results.journal.segments import segments
from mpisweep.results.shares.folder import (
    SharedSweep,
    base_file,
    create_shares,
    members,
    part_file,
    read_shared,
)
from mpisweep.results.shares.membership import MemberWatch
from mpisweep.search import make_sampler
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.spec import Spec, parse_spec

__all__ = ["AlreadyCompleteError", "Share", "cut", "join"]

#: Of what is left, a chunk holds this share, divided by K; and of all trials at least this, divided by K.
_CHUNK_SHARE = 1 / 2
_SMALLEST_SHARE = 1 / 64
_WATCH_EVERY_S = 0.5
#: Pause while another member makes the shares, in seconds.
_AGAIN_S = 0.1

log = logging.getLogger(__name__)


class AlreadyCompleteError(Exception):
    """Every trial has ended: there is nothing to share; :attr:`exit_code` is that of the sweep."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("every trial has ended")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Share:
    """One member's place in a split sweep.

    Attributes:
        path: of the sweep's results file.
        part: of the results file that this member writes.
        base: what was known before the sweep was split.
    """

    path: Path
    part: Path
    base: KnownSweep | None
    #: All trials as they were then.
    _trials: Trials

    def trials(self, known: Known | None) -> Trials:
        """All trials, as far as this member knows of them.

        Args:
            known: what its part has already, where a master takes over; else None.
        """
        if known is None:
            # The part introduces all of them anew, whatever the sweep had before.
            return replace(self._trials, first_new=0)
        here = [attempt > 0 for attempt in known.attempts]
        pairs = zip(self._trials.states, known.states, here, strict=True)
        states = [now if was_here else before for before, now, was_here in pairs]
        attempts = [
            max(before, now) for before, now in zip(self._trials.attempts, known.attempts, strict=True)
        ]
        return replace(self._trials, states=states, attempts=attempts, first_new=self._trials.count)


def join(
    spec: Spec, path: Path, split: int, snapshotter: Snapshotter, *, job_id: str, member: str, has_begun: bool
) -> Share:
    """Become a member, the first one or another one.

    Args:
        spec: the sweep file.
        path: of the sweep's results file.
        split: in how many shares the sweep is to be done.
        snapshotter: reads and writes the results file.
        job_id: of the batch system.
        member: name of the member, which is that of its run.
        has_begun: whether it is one already, whose master has ended.

    Raises:
        AlreadyCompleteError: when nothing is left to do.
        RunOverError: when the others have ended the sweep without this member.
        ResultsError: when the sweep cannot be gone on with, or others do it differently.
        OSError: when the folder cannot be written.
    """
    folder = shares_folder(path)
    while True:
        shared = read_shared(folder)
        if shared is None:
            if has_begun:
                raise RunOverError(member)
            _begin(spec, path, split, snapshotter, job_id)
            continue
        base = known_trials(spec, base_file(folder), snapshotter.read)
        trials = number_trials(spec, make_sampler(spec), base)
        found = _differences(spec, trials, split, shared)
        if not found:
            return Share(path, part_file(folder, member), base, trials)
        _refuse_or_gather(spec, path, snapshotter, shared, found)


def _begin(spec: Spec, path: Path, split: int, snapshotter: Snapshotter, job_id: str) -> None:
    """Make the shares, unless somebody else does that at the moment."""
    journal = journal_folder(path)
    try:
        claim = Claim.take(journal, job_id, purpose="split")
    except ClaimedError as error:
        if not error.holder.purpose:
            raise ResultsError(str(error)) from error
        time.sleep(_AGAIN_S)
        return
    try:
        if shares_folder(path).exists():
            return
        if segments(journal):
            snapshotter.close_journal(path, claim.token)
        known = known_trials(spec, path, snapshotter.read)
        trials = number_trials(spec, make_sampler(spec), known)
        waiting = [n for n, state in enumerate(trials.states) if not TrialState(state).is_end]
        if not waiting and known is not None:
            raise AlreadyCompleteError(_exit_code(spec, known))
        model = duration_model(spec, trials, known)
        longest_first = list(reversed(model.shortest_first(waiting)))
        widths = trial_widths(spec, trials) or [1] * trials.count
        chunks: list[list[int]] = []
        for width in sorted({widths[number] for number in waiting}, reverse=True):
            chunks += cut(
                [number for number in longest_first if widths[number] == width], model.weight, split
            )
        chunk_widths = [widths[chunk[0]] for chunk in chunks]
        shared = SharedSweep(
            spec.text, spec.source, split, trials.count, _digest(trials), chunks, chunk_widths
        )
        if create_shares(shares_folder(path), shared, path, claim.token):
            log.info("%d trials are shared in %d chunks", len(waiting), len(chunks))
    finally:
        claim.release()


def cut(longest_first: Sequence[int], weight: Callable[[int], float], split: int) -> list[list[int]]:
    """The chunks.

    Args:
        longest_first: the trials.
        weight: expected work of a trial, in any unit.
        split: in how many shares the sweep is to be done.
    """
    chunks: list[list[int]] = []
    left = len(longest_first)
    smallest = max(1, int(_SMALLEST_SHARE * left / split))
    work_left = sum(map(weight, longest_first))
    chunk: list[int] = []
    at_most, work = max(smallest, int(_CHUNK_SHARE * left / split)), 0.0
    for number in longest_first:
        chunk.append(number)
        work += weight(number)
        is_heavy = work >= _CHUNK_SHARE * work_left / split and len(chunk) >= smallest
        if is_heavy or len(chunk) >= at_most:
            chunks.append(chunk)
            left -= len(chunk)
            work_left -= work
            chunk, work = [], 0.0
            at_most = max(smallest, int(_CHUNK_SHARE * left / split))
    return [*chunks, chunk] if chunk else chunks


def _exit_code(spec: Spec, known: KnownSweep) -> int:
    completed = (
        any(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in known.states) or not known.states
    )
    measured = spec.measures or known.has_metrics
    return EndReason.of_all(completed=completed, measured=measured, finite=known.best is not None).exit_code


def _digest(trials: Trials) -> str:
    """Changes whenever a trial has another number or another configuration."""
    return hashlib.sha256(json.dumps(trials.parameters, sort_keys=True).encode()).hexdigest()


def _differences(spec: Spec, trials: Trials, split: int, shared: SharedSweep) -> list[str]:
    found = spec.differences(
        parse_spec(shared.spec, source=shared.source, folder=spec.folder, is_recorded=True)
    )
    if not found and trials.count != shared.count:
        found.append(f"trials: the members share {shared.count:,}, {spec.source} asks for {trials.count:,}")
    elif not found and _digest(trials) != shared.digest:
        found.append("trials: the sweep file is unchanged but now gives different trials")
    if split != shared.split:
        found.append(f"--split: the members share the sweep in {shared.split}, this run in {split}")
    return found


def _refuse_or_gather(
    spec: Spec, path: Path, snapshotter: Snapshotter, shared: SharedSweep, found: list[str]
) -> None:
    """Others do the sweep differently: where they are at work they are right, else it is shared anew."""
    folder = shares_folder(path)
    watch = MemberWatch(folder, silence_s=spec.limits.silence_s, every_s=_WATCH_EVERY_S)
    alive = watch.poll_until_certain(members(folder))
    if alive:
        listed = "".join(f"\n  {difference}" for difference in found)
        raise ResultsError(
            f"{path}: is being worked on by {'; '.join(map(watch.text, alive))}, and not like this:{listed}\n"
            f"join them with the same sweep file and --split {shared.split}, or use another file (-o)"
        )
    real = spec.differences(
        parse_spec(shared.spec, source=shared.source, folder=spec.folder, is_recorded=True)
    )
    if real:
        raise ResultsError(describe_differences(path, real))
    log.info("no run of %s is active: merging its parts and splitting it again", path.name)
    snapshotter.gather(path, spec.limits.silence_s)
