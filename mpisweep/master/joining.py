"""``mpisweep run --split``: joining the members that work on one sweep.

The first member fixes the trial numbers and the chunks.  Later members join, even after all others have ended
or were killed.  From then on nothing distinguishes the first one.

Chunks
------
The chunks go from the longest expected trials to the shortest, because a long trial that starts late keeps
all members waiting.  A chunk holds up to 1/(2 K) of the remaining expected work and up to 1/(2 K) of the
remaining trials, so neither a few very long trials nor a wrong expectation gives one member more than its
share.  The chunks shrink down to 1/(64 K) of the trials, so the members end together.  There are about 10 K
chunks.

A learning search has no trials yet but the baseline; what the members propose later are chunks too
(:mod:`mpisweep.results.shares.rounds`).

The trials of a chunk need the same number of ranks, and the chunks with the most ranks come first: a member
with fewer workers leaves them to others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mpisweep.blocks import ImportedBlock
from mpisweep.master.best import BestSoFar
from mpisweep.master.importing import known_imports
from mpisweep.master.known import KnownSweep, describe_differences, duration_model, known_trials, trial_widths
from mpisweep.master.leading import AlreadyCompleteError
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
from mpisweep.results.shares.rounds import read_rounds
from mpisweep.search import LearningSearch, Sampler, make_sampler
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.spec import LEARNING, Spec, parse_spec

__all__ = ["Share", "cut", "join"]

#: A chunk's share of the remaining trials and work, times K; and its minimum share of all trials, times K.
_CHUNK_SHARE = 1 / 2
_SMALLEST_SHARE = 1 / 64
_WATCH_EVERY_S = 0.5
#: Pause while another member creates the shares, in seconds.
_AGAIN_S = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """One member's part of a split sweep.

    Attributes:
        path: the sweep's results file.
        part: the results file that this member writes.
        base: the results from before the split.
        count: number of trials at the time of the split.
        rounds: number of rounds of a learning search that had been proposed when this member joined.
        proposed: number of configurations in these rounds.
        imported: trials known from elsewhere; None if there are none.
    """

    path: Path
    part: Path
    base: KnownSweep | None
    #: All trials at the time of the split, and those of the rounds.
    _trials: Trials
    count: int
    rounds: int = 0
    proposed: int = 0
    imported: ImportedBlock | None = None

    def trials(self, known: Known | None) -> Trials:
        """All trials, with the states that this member has recorded.

        Args:
            known: the contents of its part, if a master takes over; else None.
        """
        if known is None:
            # The part is a file of its own, so it records all trials again.
            return replace(self._trials, first_new=0)
        states, attempts = [*self._trials.states], [*self._trials.attempts]
        # Rounds that were proposed since the earlier master's last record are new to the part.
        for number, (state, attempt) in enumerate(zip(known.states, known.attempts, strict=True)):
            if attempt > 0:
                states[number] = state
            attempts[number] = max(attempts[number], attempt)
        return replace(self._trials, states=states, attempts=attempts, first_new=len(known.states))


def join(
    spec: Spec,
    path: Path,
    split: int,
    snapshotter: Snapshotter,
    *,
    job_id: str,
    member: str,
    has_begun: bool,
    read_imports: Callable[[], ImportedBlock],
) -> Share:
    """Become a member; the first one splits the sweep.

    Args:
        spec: the sweep file.
        path: the sweep's results file.
        split: the number of shares.
        snapshotter: reads and writes the results file.
        job_id: job id of the batch system.
        member: name of the member, which is the name of its run.
        has_begun: whether this run is a member already, and a new master takes over.
        read_imports: reads the trials that the sweep file imports.

    Raises:
        AlreadyCompleteError: if every trial has ended, or a rule of [stop] has ended the search.
        RunOverError: if the others have ended the sweep without this member.
        ResultsError: if the sweep cannot be resumed, or active members use other settings.
        OSError: if the folder cannot be written.
    """
    folder = shares_folder(path)
    while True:
        shared = read_shared(folder)
        if shared is None:
            if has_begun:
                raise RunOverError(member)
            _begin(spec, path, split, snapshotter, job_id, read_imports)
            continue
        base = known_trials(spec, base_file(folder), snapshotter.read)
        trials = number_trials(spec, make_sampler(spec), base)
        differences = _differences(spec, trials, split, shared)
        if not differences:
            rounds = read_rounds(folder)
            for one in rounds:
                trials.grow(one.configurations, one.repeats)
            return Share(
                path,
                part_file(folder, member),
                base,
                trials,
                shared.count,
                len(rounds),
                sum(len(one.configurations) for one in rounds),
                ImportedBlock(**shared.imported) if shared.imported else None,
            )
        _refuse_or_gather(spec, path, snapshotter, shared, differences)


def _begin(
    spec: Spec,
    path: Path,
    split: int,
    snapshotter: Snapshotter,
    job_id: str,
    read_imports: Callable[[], ImportedBlock],
) -> None:
    """Create the shares, unless another member is creating them."""
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
        sampler = make_sampler(spec)
        trials = number_trials(spec, sampler, known)
        proposals = _proposals(sampler, trials, known)
        waiting = [
            number
            for number, state in enumerate(trials.states)
            if not TrialState(state).is_end and number not in trials.excluded
        ]
        if not waiting and not proposals and known is not None:
            raise AlreadyCompleteError(_exit_code(spec, known))
        if known is not None and known.rules is not None and (ended_by := known.rules.ended_by):
            raise AlreadyCompleteError(ended_by.exit_code, ended_by.value)
        model = duration_model(spec, trials, known)
        imported = known_imports(known) or (read_imports() if spec.imports else None)
        first_first = list(reversed(model.next_last(waiting)))
        widths = trial_widths(spec, trials) or [1] * trials.count
        chunks: list[list[int]] = []
        for width in sorted({widths[number] for number in waiting}, reverse=True):
            chunks += cut([number for number in first_first if widths[number] == width], model.weight, split)
        chunk_widths = [widths[chunk[0]] for chunk in chunks]
        shared = SharedSweep(
            spec.text, spec.source, split, trials.count, _digest(trials), chunks, chunk_widths, proposals,
            {} if imported is None else asdict(imported),
        )  # fmt: skip
        if create_shares(shares_folder(path), shared, path, claim.token):
            log.info("%d trials are split into %d chunks", len(waiting), len(chunks))
            if proposals:
                log.info("the members propose %d more configurations", proposals)
    finally:
        claim.release()


def _proposals(sampler: Sampler, trials: Trials, known: KnownSweep | None) -> int:
    """Number of configurations that a learning search is still to propose; 0 for other searches."""
    if not isinstance(sampler, LearningSearch):
        return 0
    made = {trials.configuration_of[number] for number in (known.proposed_after if known else ())}
    return max(0, sampler.trials - len(made))


def cut(longest_first: Sequence[int], weight: Callable[[int], float], split: int) -> list[list[int]]:
    """Cut trials into chunks.

    Args:
        longest_first: the trials, the longest expected one first.
        weight: expected work of a trial, in any unit.
        split: the number of shares.
    """
    chunks: list[list[int]] = []
    left = len(longest_first)
    smallest = max(1, int(_SMALLEST_SHARE * left / split))
    work_left = sum(map(weight, longest_first))
    chunk: list[int] = []
    limit, work = max(smallest, int(_CHUNK_SHARE * left / split)), 0.0
    for number in longest_first:
        chunk.append(number)
        work += weight(number)
        is_heavy = work >= _CHUNK_SHARE * work_left / split and len(chunk) >= smallest
        if is_heavy or len(chunk) >= limit:
            chunks.append(chunk)
            left -= len(chunk)
            work_left -= work
            chunk, work = [], 0.0
            limit = max(smallest, int(_CHUNK_SHARE * left / split))
    return [*chunks, chunk] if chunk else chunks


def _exit_code(spec: Spec, known: KnownSweep) -> int:
    completed = (
        any(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in known.states) or not known.states
    )
    measured = spec.measures or known.has_metrics
    best = BestSoFar(spec.objectives)
    known.tell(best)
    finite = best.number is not None
    return EndReason.of_all(completed=completed, measured=measured, finite=finite).exit_code


def _digest(trials: Trials) -> str:
    """Hash of all trials' numbers, configurations and repeats."""
    known = json.dumps([trials.parameters, trials.repeat_of], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _differences(spec: Spec, trials: Trials, split: int, shared: SharedSweep) -> list[str]:
    recorded = parse_spec(shared.spec, source=shared.source, folder=spec.folder, is_recorded=True)
    differences = spec.differences(recorded)
    if not differences and trials.count != shared.count:
        differences.append(f"trials: the members have {shared.count:,}, {spec.source} gives {trials.count:,}")
    elif not differences and _digest(trials) != shared.digest:
        differences.append("trials: the sweep file is unchanged but now gives different trials")
    if spec.search in LEARNING and recorded.trials != spec.trials:
        differences.append(f"trials: the members propose {recorded.trials}, {spec.source} has {spec.trials}")
    if recorded.stop != spec.stop:
        differences.append(f"[stop]: the members have other rules than {spec.source}")
    if split != shared.split:
        differences.append(f"--split: the members use {shared.split}, this run uses {split}")
    return differences


def _refuse_or_gather(
    spec: Spec, path: Path, snapshotter: Snapshotter, shared: SharedSweep, differences: list[str]
) -> None:
    """Refuse settings that active members do not share; merge the parts if none is active."""
    folder = shares_folder(path)
    watch = MemberWatch(folder, silence_s=spec.limits.silence_s, every_s=_WATCH_EVERY_S)
    alive = watch.poll_until_certain(members(folder))
    if alive:
        listed = "".join(f"\n  {difference}" for difference in differences)
        raise ResultsError(
            f"{path}: {'; '.join(map(watch.text, alive))} is running it with other settings:{listed}\n"
            f"join them with the same sweep file and --split {shared.split}, or use another file (-o)"
        )
    real = spec.differences(
        parse_spec(shared.spec, source=shared.source, folder=spec.folder, is_recorded=True)
    )
    if real:
        raise ResultsError(describe_differences(path, real))
    log.info("no run of %s is active; merging its parts and splitting it again", path.name)
    snapshotter.gather(path, spec.limits.silence_s)
