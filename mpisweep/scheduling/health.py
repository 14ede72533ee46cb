"""Failures that a trial does not cause: a faulty device, a lost worker, a common error.

*One device.*  A slot is to blame if a second trial in a row fails on it, while at least :data:`OTHERS_DONE`
trials have completed and none has failed elsewhere since the first of these failures.  The slot is
quarantined, and the trial is retried elsewhere; if it fails there too, the slot is released.  A slot is also
quarantined for slowness: if the ratio of measured to expected duration of its last :data:`SLOW_TRIALS` trials
is more than :data:`SLOW_FACTOR` times that of the other slots (medians), no other slot is half as slow, and
this remains so for :data:`SLOW_S`: another process on a core delays many short trials in a row.

*A lost worker.*  A slot runs its trials in order, and the master sees only which ends have arrived.  A worker
sends the ends of trials that were assigned one by one before the next trial begins: the first trial without
an end was running.  It sends the ends of trials that were assigned together in blocks: any of them may have
been running.  Hence a loss counts as a retry only against a trial that was assigned alone.  For trials that
were assigned together nothing is counted, and all of them become *suspects*, as does a trial that a lost
worker was known to run.  A suspect is assigned alone, to an idle slot, and nothing is queued behind it, so
its next loss counts against it.  Trials that an earlier run or another member tried, and that have no end,
are suspects too.  If an end was sent but lost because the next trial killed the worker at once, it costs the
earlier trial one retry, and no more: from then on that trial is assigned alone.

*The same error in every trial.*  If the first trials all fail with the same error (numbers in it aside), the
sweep stops.  Out of memory and timeouts do not count: the longest trials come first.

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

__all__ = ["OTHERS_DONE", "SLOW_FACTOR", "SLOW_S", "SLOW_TRIALS", "CommonError", "Devices", "Losses"]

#: Trials that must complete elsewhere before a device is blamed for two failures in a row.
OTHERS_DONE = 4
#: How many trials must be slow, and how slow, before a device counts as slow.
SLOW_TRIALS = 5
SLOW_FACTOR = 3.0
#: How long the trials of a device must have been slow, in seconds of their durations.
SLOW_S = 5.0


@dataclass(slots=True)
class _Record:
    """Evidence about a slot's device from its trials."""

    #: Failures in a row, and the sweep's counts of completed and failed trials when the row began.
    failures: int = 0
    completed_at: int = 0
    failed_at: int = 0
    #: Logarithms of measured over expected durations of the last trials.
    slowness: deque[float] = field(default_factory=lambda: deque(maxlen=SLOW_TRIALS))
    #: Sum of the durations since they are too long.
    slow_s: float = 0.0


class Devices:
    """Evidence about all slots' devices, and the quarantined slots."""

    def __init__(self) -> None:
        self._records: dict[Slot, _Record] = {}
        #: Quarantined slot -> the trials that are retried elsewhere because of it; and the inverse.
        self.quarantined: dict[Slot, set[int]] = {}
        self._suspected_by_trial: dict[int, list[Slot]] = {}
        #: Slots with enough measurements that are not quarantined, by slowness.
        self._by_slowness: Ranking[Slot] = Ranking()

    def is_clean(self, slot: Slot) -> bool:
        """Whether this slot has no record, and no slot is quarantined."""
        return slot not in self._records and not self.quarantined

    def quarantine(self, slot: Slot) -> None:
        """Exclude a slot from new trials."""
        self.quarantined[slot] = set()
        self._by_slowness.discard(slot)

    def suspect(self, slot: Slot, numbers: Iterable[int]) -> None:
        """Note trials that failed on a quarantined slot and are retried elsewhere."""
        for number in numbers:
            self.quarantined[slot].add(number)
            self._suspected_by_trial.setdefault(number, []).append(slot)

    def forget(self, slot: Slot) -> None:
        """Delete the record of a slot that is gone, or that is released from quarantine."""
        self._records.pop(slot, None)
        self._by_slowness.discard(slot)
        for number in self.quarantined.pop(slot, ()):
            self._suspected_by_trial[number].remove(slot)

    def clear_suspicion(self, number: int, failed: bool) -> list[Slot]:
        """Note a trial's end elsewhere; returns the quarantined slots that it clears of blame."""
        slots = self._suspected_by_trial.pop(number, [])
        for slot in slots:
            self.quarantined[slot].discard(number)
        return slots if failed else []

    def note_success(self, slot: Slot) -> None:
        """Note a trial that did not fail on this slot."""
        self._of(slot).failures = 0

    def note_failure(self, slot: Slot, completed: int, failed: int) -> None:
        """Note a failure that the trial caused, with the sweep's counts before it."""
        record = self._of(slot)
        if not record.failures:
            record.completed_at, record.failed_at = completed, failed
        record.failures += 1

    def is_to_blame(self, slot: Slot, completed: int, failed: int) -> bool:
        """Whether the device caused another failure, by the sweep's completed and failed trials."""
        record = self._records.get(slot)
        if record is None or not record.failures:
            return False
        if slot in self.quarantined:
            return True
        return (
            completed - record.completed_at >= OTHERS_DONE
            and failed - record.failed_at - record.failures <= 0
        )

    def note_duration(self, slot: Slot, wall_time_s: float, expected_s: float) -> str:
        """Note the duration of a long trial; returns why its slot counts as slow, or ""."""
        record = self._of(slot)
        record.slowness.append(math.log(wall_time_s / expected_s))
        if slot in self.quarantined or len(record.slowness) < SLOW_TRIALS:
            return ""
        mine, ranking = median(record.slowness), self._by_slowness
        ranking.set(slot, mine)
        if len(ranking) < 3:
            return ""
        # The model has learned from all slots, so only the difference to the other slots' median counts.
        at, count = ranking.place(slot), len(ranking) - 1
        low, high = (ranking[place + (place >= at)][0] for place in ((count - 1) // 2, count // 2))
        usual = (low + high) / 2
        slowest = ranking[count - 1 + (count - 1 >= at)][0]
        if mine - usual < math.log(SLOW_FACTOR) or slowest - usual > math.log(SLOW_FACTOR / 2):
            record.slow_s = 0.0
            return ""
        record.slow_s += wall_time_s
        if record.slow_s < SLOW_S:
            return ""
        return f"trials take {math.exp(mine - usual):.1f} times as long here as elsewhere"

    def _of(self, slot: Slot) -> _Record:
        return self._records.setdefault(slot, _Record())


class Losses:
    """Lost workers as evidence about the trials that they held.

    Args:
        counts: trial -> number of losses that counted against it before.
        tried: trials that were tried before and have no end.
    """

    def __init__(self, counts: Mapping[int, int], tried: Iterable[int]) -> None:
        #: Trial -> number of losses that counted against it; sparse.
        self.counts = dict(counts)
        #: Trials that must be assigned alone.
        self.suspects = set(tried)
        #: Trials in a slot that were assigned together with others.
        self._together: set[int] = set()

    def note_assigned(self, numbers: Sequence[int]) -> None:
        """Note trials that were assigned in one block."""
        if len(numbers) > 1:
            self._together.update(numbers)
        else:
            self._together.difference_update(numbers)

    def note_ended(self, numbers: Iterable[int]) -> None:
        """Note trials that have ends."""
        self._together.difference_update(numbers)
        if self.suspects:
            self.suspects.difference_update(numbers)

    def count(self, number: int, times: int = 1) -> int:
        """Count lost workers against this trial; returns the new count."""
        self.suspects.add(number)
        self.counts[number] = self.counts.get(number, 0) + times
        return self.counts[number]

    def forgive(self, number: int) -> None:
        """Count nothing against a trial that a user retries."""
        self.counts.pop(number, None)
        self.suspects.discard(number)

    def blame(self, held: Sequence[int]) -> int | None:
        """Choose the trial that a slot's loss counts against; None if it could be any of several.

        Args:
            held: the trials of the lost slot, in the order in which it runs them.
        """
        if not held or held[0] not in self._together:
            return held[0] if held else None
        self.suspects.update(number for number in held if number in self._together)
        return None


class CommonError:
    """Count of consecutive failures with the same error.

    Args:
        limit: the count that stops the sweep; 0 for never.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._error = ""
        self._times = 0

    @property
    def is_enabled(self) -> bool:
        """Whether a count stops the sweep at all."""
        return self._limit > 0

    def note(self, block: EndedBlock) -> bool:
        """Count the errors of a block, before any trial has completed; True if the limit is reached."""
        for error in _errors(block):
            if error != self._error:
                self._error, self._times = error, 0
            self._times += 1
        return self._times >= self._limit


def _errors(block: EndedBlock) -> Iterable[str]:
    for cause, message in zip(block.causes, block.messages, strict=True):
        if cause in (FailureCause.EXCEPTION, FailureCause.CRASH) and "SIGKILL" not in message:
            yield re.sub(r"\d+(\.\d+)?", "#", message.partition("\n")[0])
