"""Which slot of a shared GPU gets a trial, if measurements decide that.

That is what ``devices_per_trial = "auto"`` asks for.

Rules
-----
* A trial starts on a GPU beside others only if as many share it by
  :class:`~mpisweep.scheduling.sharing.Sharing`, and if the bounds of all their memory
  (:mod:`mpisweep.scheduling.footprints`) stay below :data:`FULL` of the GPU's.
* A trial without a bound, or that needs a fresh process because one before it ran out of memory, has the GPU
  alone: it starts when no other trial runs there, and none starts beside it.
* When a trial has ended, its memory counts for :data:`LINGERS_S` more, unless the slot gets another trial:
  meanwhile its process ends (:mod:`mpisweep.workloads.serve`).
* No trial overtakes the next one of the queue, which so gets a GPU of its own as soon as one drains.
* A GPU that is idle gets a trial before any other is shared.

A trial that runs out of memory although another slot of its GPU held some says nothing about what fits: it
runs again alone.

Pure: no clock but :attr:`Packing.now`, no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from mpisweep.records import Slot
from mpisweep.scheduling.footprints import Footprints
from mpisweep.scheduling.sharing import Sharing

__all__ = ["FULL", "LINGERS_S", "Packing"]

#: The part of a GPU's memory that trials may need together.  Near the end kernels fail for lack of workspace
#: in other ways than by running out of memory.
FULL = 0.92
#: How long a slot counts with the memory of its last trial, in seconds: a process that holds memory waits for
#: half of it for another trial.
LINGERS_S = 2.0


@dataclass(slots=True)
class _Run:
    """A trial in a slot."""

    number: int
    started_at: float
    #: The GPU's :attr:`_Gpu.integral` then.
    integral: float
    #: Share of the GPU's memory that it needs at most; infinite if it has the GPU alone.
    bound: float
    #: Whether any other slot held memory of the GPU meanwhile.
    is_crowded: bool
    #: Whether its slot had just run another trial, so that its process is warm.
    is_warm: bool


@dataclass(slots=True)
class _Gpu:
    kind: str
    slots: set[Slot] = field(default_factory=set)
    runs: dict[Slot, _Run] = field(default_factory=dict)
    #: Slot -> when its last trial ended, and what that needed at most.
    lingering: dict[Slot, tuple[float, float]] = field(default_factory=dict)
    #: Number of running trials, integrated over time until `at`.
    integral: float = 0.0
    at: float = 0.0

    def advance(self, now: float) -> float:
        """The integral until now."""
        self.integral += len(self.runs) * max(0.0, now - self.at)
        self.at = now
        return self.integral

    def held_beside(self, slot: Slot, now: float) -> float:
        """What the other slots hold at most, as a share of its memory."""
        held = sum(run.bound for other, run in self.runs.items() if other != slot)
        return held + sum(
            bound
            for other, (ended_at, bound) in self.lingering.items()
            if other != slot and other not in self.runs and now - ended_at < LINGERS_S
        )


class Packing:
    """The shared GPUs of a sweep.

    Args:
        footprints: what trials need of a GPU's memory.
        expected_s: expected duration of a trial that has its GPU alone; None if unknown.
        before: kind of device -> how many trials shared each in an earlier run, and the gain.

    Attributes:
        now: the clock of the scheduler.
    """

    def __init__(
        self,
        footprints: Footprints,
        expected_s: Callable[[int], float | None],
        before: Mapping[str, tuple[int, float]] | None = None,
    ) -> None:
        self.footprints = footprints
        self.now = 0.0
        self._expected_s = expected_s
        self._before = dict(before or {})
        self._gpus: dict[str, _Gpu] = {}
        self._gpu_of: dict[Slot, _Gpu] = {}
        #: Kind of device -> how many trials share each.
        self.sharing: dict[str, Sharing] = {}

    # ------------------------------------------------------------------------------------- slots

    def note_worker(self, slots: Iterable[Slot], gpu: str, kind: str) -> None:
        """Note slots that share a GPU, or that share none (empty)."""
        if not gpu:
            return
        shared = self._gpus.setdefault(gpu, _Gpu(kind))
        for slot in slots:
            shared.slots.add(slot)
            self._gpu_of[slot] = shared
        if kind not in self.sharing:
            trials, gain = self._before.get(kind, (1, 1.0))
            self.sharing[kind] = Sharing(1, self._expected_s, trials, gain)
        self.sharing[kind].most = max(self.sharing[kind].most, len(shared.slots))

    def begin(self, slot: Slot, number: int, alone: Collection[int]) -> None:
        """Note the trial that a slot runs from now on; one in `alone` has the GPU to itself."""
        gpu = self._gpu_of.get(slot)
        if gpu is None:
            return
        integral, beside = gpu.advance(self.now), gpu.held_beside(slot, self.now)
        bound = None if number in alone else self.footprints.bound(number, gpu.kind)
        for run in gpu.runs.values():
            run.is_crowded = True
        ended_at, _ = gpu.lingering.pop(slot, (-inf, 0.0))
        is_warm = self.now - ended_at < LINGERS_S / 2
        gpu.runs[slot] = _Run(
            number, self.now, integral, inf if bound is None else bound, beside > 0, is_warm
        )

    def _end(self, slot: Slot) -> None:
        """Note that a slot runs nothing."""
        gpu = self._gpu_of.get(slot)
        if gpu is not None and slot in gpu.runs:
            gpu.advance(self.now)
            bound = self.footprints.bound(gpu.runs.pop(slot).number, gpu.kind)
            gpu.lingering[slot] = self.now, inf if bound is None else bound

    def note(
        self, held: Mapping[Slot, Mapping[int, int]], changed: Iterable[Slot], alone: Collection[int]
    ) -> None:
        """Note the trials of slots that have changed; one that is gone runs nothing."""
        for slot in changed:
            gpu = self._gpu_of.get(slot)
            running = next(iter(held.get(slot, ())), None)
            if gpu is None or running == (gpu.runs[slot].number if slot in gpu.runs else None):
                continue
            self._end(slot)
            if running is not None:
                self.begin(slot, running, alone)

    # ------------------------------------------------------------------------------------- trials

    def is_packed(self, slot: Slot) -> bool:
        """Whether a slot shares its GPU as measured."""
        return slot in self._gpu_of

    def kind_of(self, slot: Slot) -> str:
        """The kind of a packed slot's GPU."""
        return self._gpu_of[slot].kind

    def sharing_gpu(self, slot: Slot) -> int:
        """Number of trials that run on a slot's GPU; 0 if it is not packed."""
        return len(self._gpu_of[slot].runs) if slot in self._gpu_of else 0

    def was_crowded(self, slot: Slot, number: int) -> bool:
        """Whether another slot held memory of the GPU while a slot ran this trial."""
        run = self._run_of(slot, number)
        return run is not None and run.is_crowded

    def mean_trials(self, slot: Slot, number: int) -> float | None:
        """Mean number of trials on the GPU since a slot began this trial; None if it did not."""
        run = self._run_of(slot, number)
        if run is None or self.now <= run.started_at:
            return None
        return (self._gpu_of[slot].advance(self.now) - run.integral) / (self.now - run.started_at)

    def was_warm(self, slot: Slot, number: int) -> bool:
        """Whether a slot had just run another trial before it began this one."""
        run = self._run_of(slot, number)
        return run is not None and run.is_warm

    def slowdown(self, slot: Slot, trials: float | None = None) -> float | None:
        """Duration of a trial there, relative to alone; None if unknown.

        Args:
            slot: where it runs.
            trials: mean number on its GPU; None for as many as share each such GPU now.
        """
        if slot not in self._gpu_of:
            return 1.0
        sharing = self.sharing[self.kind_of(slot)]
        return sharing.slowdown(sharing.trials if trials is None else trials)

    @property
    def stretch(self) -> float:
        """The most that trials may take now, relative to alone; a try may gain nothing."""
        found = [
            (sharing.slowdown(sharing.trials) or 1.0) * max(1.0, sharing.limit / sharing.trials)
            for sharing in self.sharing.values()
        ]
        return max(found, default=1.0)

    @property
    def lingers(self) -> bool:
        """Whether a slot still counts with the memory of a trial that has ended."""
        return any(
            self.now - ended_at < LINGERS_S
            for gpu in self._gpus.values()
            for ended_at, _ in gpu.lingering.values()
        )

    def _run_of(self, slot: Slot, number: int) -> _Run | None:
        gpu = self._gpu_of.get(slot)
        run = None if gpu is None else gpu.runs.get(slot)
        return run if run is not None and run.number == number else None

    # ------------------------------------------------------------------------------------- room

    def choose(self, idle: Iterable[Slot], number: int, alone: Collection[int]) -> Slot | None:
        """The idle slot that is to run a trial; None if it fits nowhere for now."""
        bounds: dict[str, float | None] = {}
        for kind in self.sharing:
            bounds[kind] = None if number in alone else self.footprints.bound(number, kind)
        fitting = [slot for slot in idle if self._admits(slot, bounds)]
        # A GPU of its own if there is one, then the emptiest, and there the slot that ran a trial last.
        return min(fitting, key=self._preference, default=None)

    def _preference(self, slot: Slot) -> tuple[int, float, float, Slot]:
        gpu = self._gpu_of.get(slot)
        if gpu is None:
            return 0, 0.0, 0.0, slot
        ended_at, _ = gpu.lingering.get(slot, (-inf, 0.0))
        return len(gpu.runs), gpu.held_beside(slot, self.now), -ended_at, slot

    def _admits(self, slot: Slot, bounds: Mapping[str, float | None]) -> bool:
        """Whether a slot may get a trial; `bounds` has what it needs at most, by kind of device."""
        gpu = self._gpu_of.get(slot)
        if gpu is None:
            return True
        # First what costs least: most slots are idle because their GPUs are taken.
        if len(gpu.runs) >= self.sharing[gpu.kind].limit:
            return False
        beside, bound = gpu.held_beside(slot, self.now), bounds[gpu.kind]
        if bound is None or bound >= FULL:
            return beside == 0
        return beside + bound <= FULL

    def free_places(self, idle: Iterable[Slot]) -> int:
        """Number of idle slots that may get a trial now, if it fits."""
        return sum(self._free_of_gpus(idle, lambda gpu: self.sharing[gpu.kind].limit).values())

    def empty_places(self, idle: Iterable[Slot]) -> Counter[str]:
        """Kind of device -> number of idle slots that may get a trial of which nothing is known."""
        return self._free_of_gpus(idle, lambda gpu: 1)

    def places(self, slots: Iterable[Slot]) -> int:
        """Number of trials that may run at a time in these slots."""
        found: Counter[int] = Counter(id(self._gpu_of.get(slot)) for slot in slots)
        limits = {id(gpu): self.sharing[gpu.kind].limit for gpu in self._gpus.values()}
        return sum(min(count, limits.get(gpu, count)) for gpu, count in found.items())

    def _free_of_gpus(self, idle: Iterable[Slot], limit: Callable[[_Gpu], int]) -> Counter[str]:
        free: Counter[str] = Counter()
        of_gpu: dict[int, tuple[_Gpu, int]] = {}
        for slot in idle:
            gpu = self._gpu_of.get(slot)
            if gpu is None:
                free[""] += 1
                continue
            _, count = of_gpu.get(id(gpu), (gpu, 0))
            of_gpu[id(gpu)] = gpu, count + 1
        for gpu, count in of_gpu.values():
            free[gpu.kind] += max(0, min(count, limit(gpu) - len(gpu.runs)))
        return free
