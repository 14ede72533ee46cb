"""The data of the scheduler and their invariants.

The rules (:mod:`mpisweep.scheduling.rules`) are functions over the core and keep no state of their own.  Only
:class:`~mpisweep.scheduling.trials.TrialStates` writes a trial's state; it rejects illegal moves.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from mpisweep.records import EndReason, Request, Slot
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.health import CommonError, Devices, Losses
from mpisweep.scheduling.leasing import Supply
from mpisweep.scheduling.memory import Memory
from mpisweep.scheduling.packing import Packing
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.queues import Waiting
from mpisweep.scheduling.room import Room
from mpisweep.scheduling.slots import Slots
from mpisweep.scheduling.teams import TeamTrial
from mpisweep.scheduling.timetable import Timetable
from mpisweep.scheduling.trials import INFEASIBLE, RUNNING, SKIPPED, WAITING, TrialStates
from mpisweep.search.base import AddingSearch
from mpisweep.search.ceiling import Ceiling
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.stopping import Stopping

if TYPE_CHECKING:
    # It imports scipy, which other sweeps do not need.
    from mpisweep.search.racing import Race

__all__ = ["Core", "OpenRequest", "Policy", "Start"]


@dataclass(frozen=True, slots=True)
class Policy:
    """The constant limits of a sweep; see the arguments of ``Scheduler``."""

    retries: int
    grace_s: float
    #: Infinite if there is none.
    deadline: float
    same_failures: int
    quarantine: bool
    fresh_process: bool
    patience_s: float


@dataclass(slots=True)
class OpenRequest:
    """A user's request that is not applied yet."""

    request: Request
    #: Of an addition: number of ranks that each configuration needs, and how often each is run.
    widths: tuple[int, ...] = ()
    repeats: int = 1
    #: Slots whose unstarted trials were reclaimed for it.
    reclaimed: set[Slot] = field(default_factory=set)


@dataclass(slots=True)
class Asked:
    """What users have asked of the sweep."""

    #: Retried trial -> its last attempt before: neither that one nor an earlier one counts any more.
    retried: dict[int, int]
    #: Requests that are not applied yet, in order.
    requests: list[OpenRequest] = field(default_factory=list)
    #: Waiting trials of the first of them, which no slot gets before it is applied.
    held_back: dict[int, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Trials and slots as a new master finds them; see the arguments of ``Scheduler``."""

    states: Sequence[int]
    attempts: Sequence[int]
    held: Mapping[Slot, Mapping[int, int]]
    losses: Mapping[int, int]
    teams: Mapping[int, Sequence[Slot]]
    fresh: Iterable[int]
    retried: Mapping[int, int]
    first: Sequence[int]
    only: Container[int] | None = None

    def divided(self, states: Sequence[int]) -> tuple[list[int], set[int]]:
        """The waiting trials that this run may start, and those that a pilot leaves to later runs."""
        waiting = [number for number, state in enumerate(states) if state == WAITING]
        reserved = set() if self.only is None else {n for n in waiting if n not in self.only}
        return [number for number in waiting if number not in reserved], reserved


class Core:
    """Running trials, waiting trials, and the models learned so far.

    Args:
        start: trials and slots when this master begins.
        policy: the limits of the sweep.
        model: predicts durations.
        widths: number of ranks that each trial needs; None if all need one.
        frontier: finds trials that may need too much memory; None if the sweep does not model memory.
        ceiling: the same of what a learning search proposes.
        search: adds trials as results come in; None if all trials are known beforehand.
        proposals: of a learning search, which adds trials too; None if there is none.
        race: adds repeats as results come in; None if each configuration has a fixed number.
        shared: whether a trial must be granted before it may run.
        rules: when the search ends although trials are left; None for never.
        packing: which slots of shared GPUs get trials; None unless measurements decide that.
    """

    def __init__(
        self,
        start: Start,
        policy: Policy,
        model: DurationModel,
        *,
        widths: Sequence[int] | None,
        frontier: MemoryFrontier | None,
        ceiling: Ceiling | None = None,
        search: AddingSearch | None,
        proposals: Proposals | None,
        race: Race | None,
        shared: bool,
        rules: Stopping | None,
        packing: Packing | None = None,
    ) -> None:
        self.policy, self.rules, self.model = policy, rules, model
        self.search, self.proposals, self.race, self.packing = search, proposals, race, packing
        #: Slots whose Hello has not arrived -> the trials that they hold according to the journal.
        self.away = {slot: dict(trials) for slot, trials in start.held.items()}
        self.away_of: dict[int, list[Slot]] = {}
        for slot in self.away:
            self.away_of.setdefault(slot.rank, []).append(slot)
        away = {number for trials in self.away.values() for number in trials}
        states = [WAITING if s == RUNNING and n not in away else s for n, s in enumerate(start.states)]
        self.trials = TrialStates(states, start.attempts)
        self.memory = Memory(frontier, start.fresh, ceiling)
        self.memory.note_running(away)
        waiting, self.reserved = start.divided(self.trials.states)
        #: Trials that are not granted to this allocation; None if the sweep is not shared.
        self.supply = Supply(waiting) if shared else None
        self.losses = Losses(start.losses, [number for number in waiting if start.attempts[number]])
        for trials in self.away.values():  # the journal does not say which were assigned together
            self.losses.note_assigned(list(trials))
        queued = [] if shared else self.memory.hold(waiting)
        self.waiting = Waiting(model, widths, queued, self.losses.suspects)
        self.asked = Asked(dict(start.retried))
        self.run_first([number for number in start.first if number not in self.reserved])
        self.common_error, self.devices = CommonError(policy.same_failures), Devices()
        self.slots = Slots(self.devices.quarantined, self.memory.kinds, shared=shared)
        #: Running trials of several ranks.
        self.teams = {
            number: TeamTrial(number, self.trials.attempts[number], tuple(slots), set(slots))
            for number, slots in start.teams.items()
            if number in away
        }
        #: When slots will be free, and whether any decision depends on it.
        self.timetable = Timetable(self.slots, model, policy.deadline)
        self.is_timed = policy.deadline < inf or self.waiting.any_widths
        #: The second is the trial of several ranks for which slots are kept.
        self.room, self.kept_for = Room(), -1
        #: Unusable slots -> why; whether any worker was lost; ranks of devices far below their peers -> why.
        self.gone: dict[Slot, str] = {}
        self.any_worker_lost = False
        self.suspected: dict[int, str] = {}
        #: Since when the workers are too few for every waiting trial; None while they are enough.
        self.too_few_since: float | None = None
        self.stopping: EndReason | None = None
        #: When the grace period of the running trials ends, and from when on durations are fitted again.
        self.grace_over_at, self.next_fit_at, self.ended = inf, -inf, False

    # ------------------------------------------------------------------------------------- reading

    @property
    def total(self) -> int:
        """Number of trials in the sweep."""
        return len(self.trials.states)

    @property
    def running(self) -> int:
        """Number of slots that hold trials."""
        return self.slots.busy

    @property
    def places(self) -> int:
        """Number of trials that may run at a time in the slots that have joined."""
        return len(self.slots) if self.packing is None else self.packing.places(self.slots.held)

    @property
    def free_places(self) -> int:
        """Number of idle slots that may get a trial now."""
        idle = self.slots.idle
        return len(idle) if self.packing is None else self.packing.free_places(idle)

    # ------------------------------------------------------------------------------------- requests

    def run_first(self, numbers: Sequence[int]) -> None:
        """Have these trials run before all others, withheld ones included."""
        withheld = [number for number in numbers if self.memory.take(number)]
        self.waiting.prefer(numbers)
        self.waiting.add(withheld)

    # ------------------------------------------------------------------------------------- invariants

    def check(self) -> None:
        """Assert every invariant; tests call it after every event.

        Raises:
            AssertionError: naming the broken invariant.
        """
        assert not self.away.keys() & self.slots.held.keys(), "a slot is away and here"
        all_held = self.slots.held | self.away
        held = [number for trials in all_held.values() for number in trials if number not in self.teams]
        for number, team in self.teams.items():
            holders = {slot for slot, trials in all_held.items() if number in trials}
            assert holders == team.waits_for, f"trial {number} is not held by the slots that it waits for"
            assert holders <= set(team.slots), f"trial {number} is held by a slot outside its team"
            assert holders, f"trial {number} is over and still called running"
            assert team.attempt == self.trials.attempts[number], f"trial {number} runs with an old attempt"
        running = {n for n, state in enumerate(self.trials.states) if state == RUNNING}
        waiting = {n for n, state in enumerate(self.trials.states) if state == WAITING}
        assert len(held) == len(set(held)), "a trial is held by two slots"
        assert set(held) | self.teams.keys() == running, "the running trials are not those that slots hold"
        pending = [*self.waiting, *self.memory, *self.asked.held_back, *self.reserved]
        assert self.asked.requests or not self.asked.held_back, "a trial is held back for nothing"
        if self.supply is not None:
            pending += [number for number in range(self.total) if number in self.supply]
        assert len(pending) == len(set(pending)), "a trial waits twice"
        assert set(pending) == waiting, "the waiting trials are not those that are pending"
        for trials in self.slots.held.values():
            for number, attempt in trials.items():
                assert attempt == self.trials.attempts[number], f"trial {number} is held with an old attempt"
        assert not self.gone.keys() & self.slots.held.keys(), "an unusable slot is in use"
        for number, attempt in self.asked.retried.items():
            is_again = self.trials.states[number] == WAITING or self.trials.attempts[number] > attempt
            assert is_again or self.trials.states[number] in (SKIPPED, INFEASIBLE), (
                f"trial {number} has the end of an attempt that was retried"
            )
        self.slots.check()
        self.trials.check()
