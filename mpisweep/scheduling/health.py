"""When trials fail because of something else than themselves: an ill device, a lost worker, a bug that all
share.

*One device.*  A slot on which a second trial in a row fails, while at least :data:`OTHERS_DONE` trials have
completed elsewhere since the first one failed and none has failed there, is to blame: it is quarantined, and
the trial is tried again elsewhere.  If it fails there too, the slot is cleared.  So slow that it is
quarantined is a slot whose last :data:`SLOW_TRIALS` trials took, beside what was expected of them, more than
:data:`SLOW_FACTOR` times as long as those of the other slots (medians), while no other slot is half as slow.

*A lost worker.*  What a slot holds it runs in order, and all that is known of where it was is which ends have
arrived.  The ends of trials that were assigned one by one are sent one by one, each before the next trial
begins: so the first one without an end was running.  The ends of trials that were assigned together travel in
blocks: any of them can have been running.  Hence a loss counts, as one of the trial's retries, against a
trial that was assigned by itself.  Where it was one of several nothing is counted: all of them are
*suspects*, as is what a lost worker was known to run.  A suspect is assigned by itself, to a slot that holds
nothing, and nothing is handed out behind it, so that its next loss is its own.  So are trials that were tried
before this run, or by others, and have no end: nobody knows what they did there.  An end that was sent, and
lost because the next trial took the worker along at once, costs the one before it a retry: a single one, for
from then on it is alone.

*The same bug in every trial.*  So many first trials that fail alike, numbers in their errors aside, stop the
sweep.  Running out of memory or of time does not count: the longest trials come first.

Pure: events in, judgements out.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from mpisweep.blocks import EndedBlock
from mpisweep.records import FailureCause, Slot
from mpisweep.scheduling.ranking import Ranking

__all__ = ["OTHERS_DONE", "SLOW_FACTOR", "SLOW_TRIALS", "CommonError", "Devices", "Losses"]

#: Completed elsewhere before a device can be blamed for two failures in a row.
OTHERS_DONE = 4
#: How many trials must be slow, and how slow, before a device is called slow.
SLOW_TRIALS = 5
SLOW_FACTOR = 3.0


@dataclass(slots=True)
class _Record:
    """What a slot's trials say about its device."""

    #: Failures in a row, and how many trials had completed and failed in all when the row began.
    failures: int = 0
    completed_at: int = 0
    failed_at: int = 0
    #: Logarithms of measured over expected durations, the last ones.
    slowness: deque[float] = field(default_factory=lambda: deque(maxlen=SLOW_TRIALS))


class Devices:
    """What is known of the slots' devices, and which of them are quarantined."""

    def __init__(self) -> None:
        self._records: dict[Slot, _Record] = {}
        #: Quarantined slot -> the trials that are tried elsewhere because of it; and the same the other way
        #: round.
        self.quarantined: dict[Slot, set[int]] = {}
        self._because_of: dict[int, list[Slot]] = {}
        #: Slots that are not quarantined and of which enough is known, by how slow they are.
        self._by_slowness: Ranking[Slot] = Ranking()

    def is_clean(self, slot: Slot) -> bool:
        """Whether nothing is known of this slot, and no slot is quarantined."""
        return slot not in self._records and not self.quarantined

    def quarantine(self, slot: Slot) -> None:
        """A slot gets no more trials."""
        self.quarantined[slot] = set()
        self._by_slowness.discard(slot)

    def suspect(self, slot: Slot, numbers: Iterable[int]) -> None:
        """These have failed on a quarantined slot, and are tried elsewhere."""
        for number in numbers:
            self.quarantined[slot].add(number)
            self._because_of.setdefault(number, []).append(slot)

    def forget(self, slot: Slot) -> None:
        """The slot is gone, or begins anew."""
        self._records.pop(slot, None)
        self._by_slowness.discard(slot)
        for number in self.quarantined.pop(slot, ()):
            self._because_of[number].remove(slot)

    def clear_suspicion(self, number: int, failed: bool) -> list[Slot]:
        """A trial has ended somewhere: the quarantined slots that are not to blame for its failure before."""
        slots = self._because_of.pop(number, [])
        for slot in slots:
            self.quarantined[slot].discard(number)
        return slots if failed else []

    def note_success(self, slot: Slot) -> None:
        """A trial has not failed on this slot."""
        self._of(slot).failures = 0

    def note_failure(self, slot: Slot, completed: int, failed: int) -> None:
        """A trial has failed there, and it alone is to blame; so many had completed and failed before it."""
        record = self._of(slot)
        if not record.failures:
            record.completed_at, record.failed_at = completed, failed
        record.failures += 1

    def is_to_blame(self, slot: Slot, completed: int, failed: int) -> bool:
        """Whether the device is to blame for another failure; so many have completed and failed in all."""
        record = self._of(slot)
        if not record.failures:
            return False
        if slot in self.quarantined:
            return True
        return (
            completed - record.completed_at >= OTHERS_DONE
            and failed - record.failed_at - record.failures <= 0
        )

    def note_duration(self, slot: Slot, wall_time_s: float, expected_s: float) -> str:
        """A long trial has ended; why its slot is to be quarantined for being slow, or ""."""
        record = self._of(slot)
        record.slowness.append(math.log(wall_time_s / expected_s))
        if slot in self.quarantined or len(record.slowness) < SLOW_TRIALS:
            return ""
        mine, ranking = median(record.slowness), self._by_slowness
        ranking.set(slot, mine)
        if len(ranking) < 3:
            return ""
        # The others are those before and those behind; the model has learned from all: only the difference
        # says something.
        at, count = ranking.place(slot), len(ranking) - 1
        low, high = (ranking[place + (place >= at)][0] for place in ((count - 1) // 2, count // 2))
        usual = (low + high) / 2
        slowest = ranking[count - 1 + (count - 1 >= at)][0]
        if mine - usual < math.log(SLOW_FACTOR) or slowest - usual > math.log(SLOW_FACTOR / 2):
            return ""
        return f"trials take {math.exp(mine - usual):.1f} times as long here as elsewhere"

    def _of(self, slot: Slot) -> _Record:
        return self._records.setdefault(slot, _Record())


class Losses:
    """What lost workers say of the trials that they held.

    Args:
        counts: trial -> how often its loss has counted before.
        tried: trials that were tried before and have no end.
    """

    def __init__(self, counts: Mapping[int, int], tried: Iterable[int]) -> None:
        #: Sparse.
        self.counts = dict(counts)
        #: Trials that are assigned by themselves.
        self.suspects = set(tried)
        #: Trials that run, or are to run, among others that were assigned with them.
        self._together: set[int] = set()

    def note_assigned(self, numbers: Sequence[int]) -> None:
        """These were assigned together."""
        if len(numbers) > 1:
            self._together.update(numbers)
        else:
            self._together.difference_update(numbers)

    def note_ended(self, numbers: Iterable[int]) -> None:
        """These have ends."""
        self._together.difference_update(numbers)
        if self.suspects:
            self.suspects.difference_update(numbers)

    def count(self, number: int, times: int = 1) -> int:
        """Count a lost worker against this trial alone; returns how many there are now."""
        self.suspects.add(number)
        self.counts[number] = self.counts.get(number, 0) + times
        return self.counts[number]

    def blame(self, held: Sequence[int]) -> int | None:
        """A slot was lost that held these, in this order: which one the loss counts against; None where
        nobody knows.
        """
        if not held or held[0] not in self._together:
            return held[0] if held else None
        self.suspects.update(number for number in held if number in self._together)
        return None


class CommonError:
    """How often the same error came, one time after another.

    Args:
        at_most: so many times stop the sweep; 0 for never.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._error = ""
        self._times = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to know."""
        return self._at_most > 0

    def note(self, block: EndedBlock) -> bool:
        """Trials have ended, and none has ever completed; True when the sweep is to stop."""
        for error in _errors(block):
            if error != self._error:
                self._error, self._times = error, 0
            self._times += 1
        return self._times >= self._at_most


def _errors(block: EndedBlock) -> Iterable[str]:
    for cause, message in zip(block.causes, block.messages, strict=True):
        if cause in (FailureCause.EXCEPTION, FailureCause.CRASH) and "SIGKILL" not in message:
            yield re.sub(r"\d+(\.\d+)?", "#", message.partition("\n")[0])
