"""What a run is expected to take, recorded so that it can be compared with what it took.

A job that was submitted from a plan brings the plan's prediction.  Any other run is predicted as soon as its
workers are there and durations are known: at its beginning if the results file has measurements, else after
the first trials.
"""

from __future__ import annotations

import math

from mpisweep.blocks import PredictedRecord
from mpisweep.master.known import trial_widths
from mpisweep.records import TrialState
from mpisweep.scheduling.drawing import Ahead
from mpisweep.scheduling.plan import plain_prediction
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["Expectation"]

#: Workers that have not joined this long after the first trial was assigned do not count, in seconds.
_JOIN_S = 2.0
#: Time between the first measured durations and the prediction, in seconds.  The prediction takes some 30 ms
#: of the master's loop; by then slots of short trials hold enough of them (see `rules/handout`).
_SETTLED_S = 0.3


class Expectation:
    """The prediction of one run.

    Args:
        spec: the sweep file.
        trials: all trials.
        scheduler: knows their durations and the workers.
        ranks: number of MPI ranks.
        planned: median and 95% bound of a plan, in seconds; None without one.
        now: the monotonic clock at the start of the run.
    """

    def __init__(
        self,
        spec: Spec,
        trials: Trials,
        scheduler: Scheduler,
        ranks: int,
        planned: tuple[float, float] | None,
        now: float,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._scheduler = scheduler
        self._ranks = ranks
        self._planned = planned
        self._started = now
        #: When the first trial was assigned.
        self._began = math.inf
        #: From when on the run may be predicted.
        self._settled = now if scheduler.core.model.is_known else math.inf
        self._states_before = bytes(trials.states)
        self._is_stated = False

    def stated(self, now: float) -> PredictedRecord | None:
        """The prediction, once it is known; None before and afterwards.

        Args:
            now: the monotonic clock.
        """
        if self._is_stated:
            return None
        if self._planned is not None:
            self._is_stated = True
            return PredictedRecord(*self._planned, 0)
        scheduler = self._scheduler
        if scheduler.running:
            self._began = min(self._began, now)
        are_here = scheduler.slots >= self._ranks or now >= self._began + _JOIN_S
        if not are_here or not scheduler.core.model.is_known or self._began == math.inf:
            return None
        self._settled = min(self._settled, now + _SETTLED_S)
        if now < self._settled:
            return None
        self._is_stated = True
        if scheduler.core.reserved:
            # A pilot is over when a few trials are.
            return None
        states = scheduler.core.trials.states
        before = self._states_before
        numbers = [n for n in range(len(states)) if n >= len(before) or not TrialState(before[n]).is_end]
        ahead = Ahead(
            scheduler.core.model,
            numbers,
            scheduler.to_come,
            trial_widths(self._spec, self._trials),
            self._spec.limits.timeout_s,
        )
        found = plain_prediction(ahead, scheduler.core.places, self._spec.seed)
        if found is None:
            return None
        before_s = self._began - self._started
        ended = sum(TrialState(states[number]).is_end for number in numbers)
        return PredictedRecord(before_s + found[0], before_s + found[1], ended)
