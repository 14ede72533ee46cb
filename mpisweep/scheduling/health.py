"""When trials fail because of something else than themselves: a device that is ill, or a bug that all share.

*One device.*  A slot on which a second trial in a row fails, while at least :data:`OTHERS_DONE` trials have
completed elsewhere since the first one failed and none has failed there, is to blame: it is quarantined, and the
trial is tried again elsewhere.  If it fails there too, the slot is acquitted.  So slow that it is quarantined
is a slot whose last :data:`SLOW_TRIALS` trials took, beside what was expected of them, more than
:data:`SLOW_FACTOR` times as long as those of the other slots (medians), while no other slot is half as slow.

*The same bug in every trial.*  So many first trials that fail alike, numbers in their errors aside, stop the
sweep.  Running out of memory or of time does not count: the longest trials come first.

Pure: events in, judgements out.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from mpisweep.blocks import EndedBlock
from mpisweep.records import FailureCause, Slot

__all__ = ["OTHERS_DONE", "SLOW_FACTOR", "SLOW_TRIALS", "CommonError", "Devices"]

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
        #: Quarantined slot -> the trials that are tried elsewhere because of it.
        self.quarantined: dict[Slot, set[int]] = {}

    @property
    def clean(self) -> bool:
        """Whether there is nothing against any slot, and nothing to remember."""
        return not self._records and not self.quarantined

    def is_clean(self, slot: Slot) -> bool:
        """Whether nothing is known of this slot, and no slot is quarantined."""
        return slot not in self._records and not self.quarantined

    def forget(self, slot: Slot) -> None:
        """The slot is gone, or begins anew."""
        self._records.pop(slot, None)
        self.quarantined.pop(slot, None)

    def acquitted(self, number: int, failed: bool) -> list[Slot]:
        """A trial has ended somewhere: the quarantined slots that are not to blame for its failure before."""
        slots: list[Slot] = []
        for slot, trials in self.quarantined.items():
            if number in trials:
                trials.discard(number)
                if failed:
                    slots.append(slot)
        return slots

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
        return completed - record.completed_at >= OTHERS_DONE and failed - record.failed_at - record.failures <= 0

    def note_duration(self, slot: Slot, wall_time_s: float, expected_s: float) -> str:
        """A long trial has ended; why its slot is to be quarantined for being slow, or ""."""
        mine = self._of(slot).slowness
        mine.append(math.log(wall_time_s / expected_s))
        if slot in self.quarantined or len(mine) < SLOW_TRIALS:
            return ""
        others = [
            median(record.slowness)
            for other, record in self._records.items()
            if other != slot and other not in self.quarantined and len(record.slowness) >= SLOW_TRIALS
        ]
        if len(others) < 2:
            return ""
        # The model has learned from all of them: only the difference between slots says something.
        usual = median(others)
        if median(mine) - usual < math.log(SLOW_FACTOR) or max(others) - usual > math.log(SLOW_FACTOR / 2):
            return ""
        return f"trials take {math.exp(median(mine) - usual):.1f} times as long here as elsewhere"

    def _of(self, slot: Slot) -> _Record:
        return self._records.setdefault(slot, _Record())


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
