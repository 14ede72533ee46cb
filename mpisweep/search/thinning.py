"""Show a sampler the best trials and a random sample of the others.

A tree-structured Parzen estimator compares the density of the best trials, at most 25 of them, with that of
all others, and its cost per proposal grows with their number.  A sample of the others gives the same density
up to noise, so that a proposal late in a sweep costs what one of the :data:`SHOWN`-th trial does: measured
with three parameters, 11 ms instead of 45 ms after 5,000 trials.

With several objectives the best trials are those of the front, then of the front of the others, and so on; of
the last of these fronts a random sample.  Pruned trials count like complete ones, below them.

Which trials are shown depends on their objectives and their numbers in the sweep: a rebuilt search shows the
same ones, although its study lacks the repetitions of the first one and counts its trials differently.
Imports Optuna.
"""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections.abc import Container, Sequence
from itertools import islice

import numpy as np
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from mpisweep.pareto import fronts
from mpisweep.search.past import End

__all__ = ["BEST", "SHOWN", "ThinnedStorage"]

#: Number of best trials shown, and of ended trials in all.
BEST = 100
SHOWN = 500
_SHOWN_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
#: Ranks a complete trial above a pruned one with any number of steps.
_COMPLETE = 1 << 63


class ThinnedStorage(InMemoryStorage):
    """A storage in memory that shows a sample of the ended trials to those who ask by state.

    Args:
        signs: per objective, 1 if smaller values are better, else -1.
    """

    def __init__(self, signs: Sequence[float]) -> None:
        super().__init__()
        self._signs = signs
        #: (rank, costs, trial) and (random, trial) of completed and pruned trials, ascending.
        self._by_rank: list[tuple[int, tuple[float, ...], int]] = []
        self._by_chance: list[tuple[bytes, int]] = []

    def note(self, trial: int, end: End) -> None:
        """Note how a trial of the study has ended, if a sampler may be shown it.

        Pruned ones rank below the complete ones, those with more steps first, as a Parzen estimator has it.
        """
        if end.state is TrialState.FAIL:
            return
        values = [end.last] if end.values is None else end.values
        costs = tuple(
            sign * value if value == value else math.inf
            for sign, value in zip(self._signs, values, strict=True)
        )
        insort(self._by_rank, (-end.pruned_at if end.pruned_at >= 0 else -_COMPLETE, costs, trial))
        insort(self._by_chance, (hashlib.blake2b(b"%d" % end.number, digest_size=8).digest(), trial))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See Optuna; with complete trials among `states`, a sample of them and the pruned."""
        found: list[FrozenTrial] = super().get_all_trials(study_id, deepcopy, states)
        is_sampler = states is not None and TrialState.COMPLETE in states
        if not is_sampler or len(self._by_rank) <= SHOWN:
            return found
        shown = self._best()
        for _, trial in self._by_chance:
            if len(shown) == SHOWN:
                break
            shown.add(trial)
        return [one for one in found if one.state not in _SHOWN_STATES or one.number in shown]

    def _best(self) -> set[int]:
        """The :data:`BEST` best trials of the study."""
        if len(self._signs) == 1:
            return {trial for *_, trial in self._by_rank[:BEST]}
        best: set[int] = set()
        for front in fronts(np.array([costs for _, costs, _ in self._by_rank])):
            found = {self._by_rank[place][2] for place in front}
            room = BEST - len(best)
            if len(found) >= room:
                chosen = (trial for _, trial in self._by_chance if trial in found)
                return best.union(islice(chosen, room))
            best |= found
        return best
