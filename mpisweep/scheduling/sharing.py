"""How many trials share each GPU of a kind, by what that has gained.

Sharing begins at one.  While the GPUs are busy for less than :data:`BUSY` of the time, one more trial per GPU
is tried; it stays if the trials per hour of a GPU grow by :data:`GAIN` or more, otherwise the number goes
back.  Where GPUs that several trials share are busy all the time, one less is tried by the same rule.  After
a try that changed nothing the next one waits, each time for twice as many trials.

With d(n) the duration of trials of which n share a GPU, relative to what each was expected to take alone, the
gain from k to k + 1 is ((k + 1) / k) d(k) / d(k + 1).  The trials before and after a try are compared with
those of the try: they run from the longest to the shortest, so what a fit extrapolates wrongly cancels.  What
trials are expected to take is fitted to durations divided by d(n), so that a fit does not take the slower
trials of a full GPU for longer ones.

Pure: evidence in, numbers out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

__all__ = ["BUSY", "GAIN", "SAMPLES", "Change", "Sharing", "slowdown_between"]

#: GPUs that are busy for this part of the time leave nothing for one more trial.
BUSY = 0.85
#: One more trial per GPU is worth its memory if trials per hour grow by this factor.
GAIN = 1.05
#: Number of trials that are compared for each number of them per GPU.
SAMPLES = 5
#: How far the mean number of trials on its GPU may be from a whole one for a trial to be compared.
_NEAR = 0.15
#: Trials from a try that changed nothing to the next one: after the first of them, and at most.
_WAIT_FIRST = 10
_WAIT_AT_MOST = 160


@dataclass(frozen=True, slots=True)
class Change:
    """The outcome of a try: how many trials share each GPU from now on."""

    trials: int
    #: Trials per hour of a GPU, relative to one trial at a time.
    gain: float
    #: What the larger of the compared numbers gained over the smaller.
    step: float


@dataclass(frozen=True, slots=True)
class _Sample:
    number: int
    wall_time_s: float
    #: None if unknown.
    busy: float | None


class Sharing:
    """How many trials share each GPU of one kind.

    Args:
        most: the most that may.
        expected_s: expected duration of a trial that has its GPU alone; None if unknown.
        trials: how many share each at first.
        gain: trials per hour of a GPU then, relative to one.
    """

    def __init__(
        self, most: int, expected_s: Callable[[int], float | None], trials: int = 1, gain: float = 1.0
    ) -> None:
        self.most = most
        self._expected_s = expected_s
        self.trials = trials
        #: The number that is tried; None if none is.
        self.tried: int | None = None
        #: The trials before a try, while those after it are measured; empty otherwise.
        self._before: list[_Sample] = []
        #: Number of trials per GPU -> d(n).
        self._slowdowns = {1: 1.0, trials: trials / gain}
        self._samples: dict[int, deque[_Sample]] = {}
        #: Number of trials since the last try, and how many there must be before one more per GPU (1) is
        #: tried, or one less (-1).
        self._since = 0
        self._waits = {1: 0, -1: _WAIT_FIRST}

    @property
    def limit(self) -> int:
        """Number of trials that may share each GPU now."""
        return self.trials if self.tried is None or self._before else self.tried

    @property
    def gain(self) -> float:
        """Trials per hour of a GPU, relative to one trial at a time."""
        return self.trials / self._slowdowns[self.trials]

    def slowdown(self, trials: float) -> float | None:
        """Duration of a trial of which this many share the GPU, relative to alone; None if unknown."""
        return slowdown_between(self._slowdowns, trials)

    def note(self, number: int, wall_time_s: float, trials: float, busy: float | None) -> Change | None:
        """Note a trial that has completed.

        Args:
            number: of the trial.
            wall_time_s: its duration.
            trials: mean number of trials on its GPU meanwhile.
            busy: part of the time in which the GPU computed; None if unknown.

        Returns:
            The outcome of a try that is over; None if there is none.
        """
        count = round(trials)
        if abs(trials - count) <= _NEAR and wall_time_s > 0:
            samples = self._samples.setdefault(count, deque(maxlen=SAMPLES))
            samples.append(_Sample(number, wall_time_s, busy))
        if self.tried is not None:
            return self._judge(self.tried)
        self._since += 1
        if len(self._samples.get(self.trials, ())) == SAMPLES:
            self._try_another()
        return None

    def _try_another(self) -> None:
        known = [one.busy for one in self._samples[self.trials] if one.busy is not None]
        busy = fmean(known) if known else None
        may_more = self.trials < self.most and (busy is None or busy < BUSY)
        if may_more and self._since >= self._waits[1]:
            self.tried = self.trials + 1
        elif self.trials > 1 and (busy is None or busy >= BUSY) and self._since >= self._waits[-1]:
            self.tried = self.trials - 1
        else:
            return
        # Older ones are of other trials.
        self._samples.pop(self.tried, None)

    def _judge(self, tried: int) -> Change | None:
        """The outcome of a try, once enough trials were measured in it and after it."""
        if not self._before:
            if len(self._samples.get(tried, ())) == SAMPLES:
                self._before = list(self._samples.pop(self.trials))
            return None
        if len(self._samples.get(self.trials, ())) < SAMPLES:
            return None
        present = self._duration([*self._before, *self._samples[self.trials]])
        other = self._duration(self._samples[tried])
        if present is None or other is None:
            return None
        low, high = sorted((self.trials, tried))
        slower = other / present if tried == high else present / other
        if low in self._slowdowns:
            self._slowdowns[high] = self._slowdowns[low] * slower
        else:
            self._slowdowns[low] = self._slowdowns[high] / slower
        step = high / low / slower
        chosen = high if step >= GAIN else low
        self._since = 0
        if chosen != self.trials:
            self._waits = {1: 0 if chosen == high else _WAIT_FIRST, -1: _WAIT_FIRST}
        else:
            way = tried - self.trials
            self._waits[way] = min(max(2 * self._waits[way], _WAIT_FIRST), _WAIT_AT_MOST)
        self.trials, self.tried, self._before = chosen, None, []
        return Change(chosen, self.gain, step)

    def _duration(self, samples: Iterable[_Sample]) -> float | None:
        """Duration of trials, relative to what they were expected to take alone; None if unknown."""
        logs: list[float] = []
        for sample in samples:
            expected_s = self._expected_s(sample.number)
            if not expected_s:
                return None
            logs.append(math.log(sample.wall_time_s / expected_s))
        return math.exp(fmean(logs))


def slowdown_between(known: Mapping[int, float], trials: float) -> float | None:
    """Duration of a trial relative to alone, between two that are known; else None.

    Args:
        known: number of trials per GPU -> the duration.
        trials: mean number on the GPU.
    """
    low = math.floor(trials)
    below, above = known.get(low), known.get(math.ceil(trials))
    return None if below is None or above is None else below + (trials - low) * (above - below)
