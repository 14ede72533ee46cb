"""The scheduler: events go in, a list of decisions comes out.

Rules
-----
1. No MPI, no file, no clock, no randomness.  ``handle(event, now)`` is the only entrance; the MPI loop, the
   tests and a simulator drive the same class.
2. The data is in :mod:`mpisweep.scheduling.core`.  Every rule is a function over it, in
   :mod:`mpisweep.scheduling.rules`, one subject per file.  This file decides which rule handles which event,
   which steps follow every event, and when the run is over.
3. An event about a trial names its attempt.  The scheduler drops an event whose attempt the slot does not
   hold: a result of attempt 1 must never pass for one of attempt 2.
4. The caller carries out the decisions in order.  The scheduler assumes that it did.

States of a trial::

    waiting --assigned--> running --ended--> complete, pruned or failed
       ^                     |
       +----- reclaimed, worker lost and retries left, or its device is to blame
    waiting --inferred--> infeasible
    waiting --skipped--> skipped
    failed, skipped --retried--> waiting
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from mpisweep.records import EndReason, Slot, TrialState
from mpisweep.scheduling.core import Core, Policy, Start
from mpisweep.scheduling.decisions import Decision, End
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    DeviceSuspected,
    Event,
    NothingToLease,
    Proposed,
    PruneAdvised,
    RequestsMade,
    RoundsProposed,
    SlotBroken,
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsGranted,
    TrialsReclaimed,
    TrialsRevoked,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.packing import Packing
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.rules.blame import on_device_suspected, release
from mpisweep.scheduling.rules.ends import on_trials_ended, on_trials_reclaimed
from mpisweep.scheduling.rules.handout import fill, review_backlogs
from mpisweep.scheduling.rules.learning import (
    ask_ahead,
    ask_race,
    ask_search,
    learn_durations,
    on_proposed,
    on_rounds_proposed,
    tell_race,
    would_add,
)
from mpisweep.scheduling.rules.leases import (
    ask_after_stall,
    on_nothing_to_lease,
    on_trials_granted,
    on_trials_revoked,
    replenish,
)
from mpisweep.scheduling.rules.losses import end_without_slots, on_slot_broken, on_worker_lost
from mpisweep.scheduling.rules.pruning import on_prune_advised
from mpisweep.scheduling.rules.reclaiming import note_changes
from mpisweep.scheduling.rules.requests import apply_requests, on_requests_made
from mpisweep.scheduling.rules.stops import check_rules, on_stop_requested
from mpisweep.scheduling.rules.withholding import has_slots, ration, release_withheld, rule_out
from mpisweep.scheduling.rules.workers import on_worker_joined
from mpisweep.scheduling.trials import COMPLETE, PRUNED
from mpisweep.search.base import AddingSearch
from mpisweep.search.ceiling import Ceiling
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.stopping import Stopping

if TYPE_CHECKING:
    # It imports scipy, which other sweeps do not need.
    from mpisweep.search.racing import Race

__all__ = ["Scheduler"]


class Scheduler:
    """Decides which slot runs which trial.

    Args:
        states: each trial's TrialState when this run starts; running ones count as waiting.
        attempts: number of earlier attempts per trial.
        model: predicts durations.
        retries: number of retries after a trial's worker was lost.
        grace_s: grace period of running trials when the sweep stops, in seconds.
        held: trials that slots hold according to the journal, for slots whose Hello has not arrived.
        losses: number of earlier lost workers per trial.
        deadline: no trial starts that is not expected to end by then; seconds of the clock of `handle`.
        same_failures: number of first trials with the same error that stops the sweep; 0 for never.
        quarantine: whether to exclude a device that fails or is slow while the others are not.
        shared: whether other allocations run trials of the sweep too, so each trial must be granted.
        widths: number of ranks that each trial needs; None if all need one.
        teams: running trials of several ranks -> their slots, according to the journal.
        frontier: finds trials that may need too much memory; None if the sweep does not model memory.
        ceiling: the same of what a learning search proposes.
        search: adds trials as results come in; None if all trials are known beforehand.
        proposals: of a learning search, which adds trials too; None if there is none.
        race: adds repeats as results come in; None if each configuration has a fixed number.
        fresh: trials that run again in a fresh process.
        fresh_process: whether every trial needs a fresh process.
        retried: trial that a user has retried -> its last attempt before.
        first: trials that users asked to run first, in this order.
        patience_s: how long the present workers may be too few for every waiting trial, in seconds.
        rules: when the search ends although trials are left; None for never.
        only: the trials of a pilot, to which this run is limited; None to run all.
        packing: which slots of shared GPUs get trials; None unless measurements decide that.
    """

    def __init__(
        self,
        states: Sequence[int],
        attempts: Sequence[int],
        model: DurationModel,
        *,
        retries: int,
        grace_s: float,
        held: Mapping[Slot, Mapping[int, int]] | None = None,
        losses: Mapping[int, int] | None = None,
        deadline: float | None = None,
        same_failures: int = 0,
        quarantine: bool = False,
        shared: bool = False,
        widths: Sequence[int] | None = None,
        teams: Mapping[int, Sequence[Slot]] | None = None,
        frontier: MemoryFrontier | None = None,
        ceiling: Ceiling | None = None,
        search: AddingSearch | None = None,
        proposals: Proposals | None = None,
        race: Race | None = None,
        fresh: Iterable[int] = (),
        fresh_process: bool = False,
        retried: Mapping[int, int] | None = None,
        first: Sequence[int] = (),
        patience_s: float = 60.0,
        rules: Stopping | None = None,
        only: Container[int] | None = None,
        packing: Packing | None = None,
    ) -> None:
        #: The data, which the rules change.
        self.core = Core(
            Start(states, attempts, held or {}, losses or {}, teams or {}, fresh, retried or {}, first, only),
            Policy(
                retries=retries,
                grace_s=grace_s,
                deadline=inf if deadline is None else deadline,
                same_failures=same_failures,
                quarantine=quarantine,
                fresh_process=fresh_process,
                patience_s=patience_s,
            ),
            model,
            widths=widths,
            frontier=frontier,
            ceiling=ceiling,
            search=search,
            proposals=proposals,
            race=race,
            shared=shared,
            rules=rules,
            packing=packing,
        )

    # ------------------------------------------------------------------------------------- reading

    def count(self, state: TrialState) -> int:
        """Number of trials in this state."""
        return self.core.trials.counts[state]

    @property
    def running(self) -> int:
        """Number of slots that hold trials."""
        return self.core.running

    @property
    def slots(self) -> int:
        """Number of slots."""
        return len(self.core.slots)

    @property
    def held(self) -> Mapping[Slot, Mapping[int, int]]:
        """Slot -> the trials that it holds and their attempts, in the order in which it runs them."""
        return self.core.slots.held

    @property
    def stopping(self) -> EndReason | None:
        """Why no more trials start; None while they do."""
        return self.core.stopping

    @property
    def to_come(self) -> int:
        """Number of trials that a learning search is still to propose."""
        return 0 if self.core.proposals is None else self.core.proposals.left * self.core.proposals.repeats

    @property
    def elsewhere(self) -> int:
        """Number of waiting trials that are not granted to this allocation."""
        return 0 if self.core.supply is None else len(self.core.supply)

    def team(self, number: int) -> tuple[Slot, ...]:
        """The slots of a running trial of several ranks; empty for any other."""
        team = self.core.teams.get(number)
        return team.slots if team else ()

    def check(self) -> None:
        """Assert every invariant; tests call it after every event.

        Raises:
            AssertionError: naming the broken invariant.
        """
        self.core.check()

    # ------------------------------------------------------------------------------------- events

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Handle one event.

        Args:
            event: the event.
            now: seconds of a monotonic clock; never smaller than in the call before.

        Returns:
            The decisions, to be carried out in this order.
        """
        core = self.core
        if core.ended:
            return []
        if core.packing is not None:
            core.packing.now = now
        decisions = _decide(core, event, now)
        if core.packing is not None:
            core.packing.note(core.slots.held, core.slots.changed, core.memory.fresh)
        if core.asked.requests:
            decisions += apply_requests(core)
        tell_race(core, decisions)
        if core.rules is not None:
            decisions += check_rules(core, core.rules, now)
        if core.stopping is not None:
            core.grace_over_at = min(core.grace_over_at, now + core.policy.grace_s)
        if core.supply is not None:
            ask_after_stall(core, core.supply, decisions, now)
        if core.model.is_due and now >= core.next_fit_at:
            learn_durations(core, now)
        if core.stopping is None:
            _hand_out(core, decisions, now)
        _conclude(core, decisions, now)
        return decisions


def _decide(core: Core, event: Event, now: float) -> list[Decision]:
    """Apply the rule for this event."""
    match event:
        case TrialsEnded(block):
            return on_trials_ended(core, block)
        case WorkerJoined():
            return on_worker_joined(core, event, now)
        case DeviceSuspected(rank, why):
            return on_device_suspected(core, rank, why)
        case TrialsReclaimed(slot, numbers, attempts, end):
            return on_trials_reclaimed(core, slot, numbers, attempts, end)
        case SlotBroken(slot, trial, why, is_gone):
            return on_slot_broken(core, slot, trial, why, is_gone)
        case WorkerLost(rank):
            return on_worker_lost(core, rank)
        case StopRequested(reason):
            return on_stop_requested(core, reason)
        case TrialsGranted(numbers, attempts, losses):
            return on_trials_granted(core, numbers, attempts, losses)
        case TrialsRevoked(numbers):
            return on_trials_revoked(core, numbers)
        case NothingToLease(sure):
            return on_nothing_to_lease(core, sure, now)
        case Proposed():
            return on_proposed(core, event)
        case RoundsProposed():
            return on_rounds_proposed(core, event)
        case PruneAdvised(number, attempt, rank):
            return on_prune_advised(core, number, attempt, rank)
        case RequestsMade():
            return on_requests_made(core, event)
        case TimePassed():
            return []


def _hand_out(core: Core, decisions: list[Decision], now: float) -> None:
    """Hand out trials to slots, and request more if too few wait."""
    note_changes(core, decisions, now)
    if core.search is not None:
        ask_search(core, core.search, decisions)
    if core.proposals is not None:
        ask_ahead(core, core.proposals, decisions)
    if core.memory.is_rationed:
        ration(core, decisions, now)
    rule_out(core, decisions, now)
    if core.slots.doubtful:
        review_backlogs(core, decisions)
    ask_race(core, decisions)
    if core.supply is None or not core.supply.must_ask_first:
        fill(core, decisions, now)
    if core.supply is not None:
        replenish(core, core.supply, decisions, now)


def _conclude(core: Core, decisions: list[Decision], now: float) -> None:
    """End the run when no slot holds a trial, and no trial waits or may start."""
    if core.away or core.running > 0 or core.teams:
        core.too_few_since = None
        return
    if core.supply is not None and core.stopping is None and not core.supply.is_exhausted:
        return
    may_wait = core.stopping is None and (core.waiting or core.memory)
    if may_wait and core.packing is not None and core.packing.lingers:
        # They start once their GPU is empty.
        return
    if not core.waiting and not core.memory and core.supply is not None:
        reason = core.stopping or EndReason.SHARE
    elif core.stopping is not None and would_add(core):
        # All trials have ended, and more would follow.
        reason = core.stopping
    elif core.proposals is not None and not core.proposals.is_done and not core.waiting and not core.memory:
        if core.stopping is None:
            # The search is about to add some.
            return
        reason = core.stopping
    elif core.reserved and not core.waiting and not core.memory:
        reason = core.stopping or EndReason.PILOT
    elif not core.waiting and not core.memory:
        some = core.trials.counts[COMPLETE] + core.trials.counts[PRUNED] > 0 or core.total == 0
        reason = EndReason.COMPLETE if some else EndReason.NOTHING_COMPLETED
    elif core.stopping is not None:
        reason = core.stopping
    elif core.waiting.count() or not core.slots.held:
        # No slot is usable, and more workers may still join.
        if core.slots.held or not core.gone or not _check_patience(core, now):
            return
        reason = end_without_slots(core)
    elif core.waiting.wide() or (core.memory and not any(map(partial(has_slots, core), core.memory))):
        if core.devices.quarantined:
            # Only these trials are left, and a suspect device is better than none.
            decisions += [release(core, slot) for slot in list(core.devices.quarantined)]
            return
        # Nothing runs, and none of them could start.
        if not _check_patience(core, now):
            return
        reason = EndReason.TOO_FEW
    elif core.memory and release_withheld(core, decisions, now):
        return
    else:
        reason = EndReason.WALLTIME
    core.ended = True
    decisions.append(End(reason))


def _check_patience(core: Core, now: float) -> bool:
    """Note that the workers are too few; returns whether the patience is over."""
    if core.too_few_since is None:
        core.too_few_since = now
    return now - core.too_few_since >= core.policy.patience_s
