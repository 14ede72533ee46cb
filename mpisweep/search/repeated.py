"""The end of a configuration that is run several times: the mean of its repeats.

A search that learns knows configurations.  It is told one end of each, when all repeats have ended: the mean
of each objective over the complete repeats with finite objectives; if there are none, the last report of the
pruned repeat that got furthest; or none if no repeat has one.  Until then the configuration runs, so that the
order of ends, and with it every proposal, follows from the order in which the ends of trials were recorded.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.search.learning import Outcome, finite_values

__all__ = ["MeanOfRepeats"]


class MeanOfRepeats:
    """Collects the ends of trials.

    Args:
        configuration_of: number of each trial's configuration; read, may grow.
        repeats: number of trials of each configuration.
    """

    def __init__(self, configuration_of: Sequence[int], repeats: int) -> None:
        self._configuration_of = configuration_of
        self._repeats = repeats
        #: Configuration -> outcomes and steps of its trials that have ended, while others have not.
        self._ended: dict[int, dict[int, tuple[Outcome, int]]] = {}
        self._told: set[int] = set()

    def note(self, number: int, outcome: Outcome, pruned_at: int = -1) -> tuple[int, Outcome, int] | None:
        """Note the end of a trial.

        Args:
            number: of the trial.
            outcome: its objectives.
            pruned_at: the step of its last report if it was pruned, else -1.

        Returns:
            The configuration, its objectives, and the step if it was pruned; None before the last repeat.
        """
        configuration = self._configuration_of[number]
        if configuration in self._told:
            return None
        ended = self._ended.setdefault(configuration, {})
        ended[number] = outcome, pruned_at
        if len(ended) < self._repeats:
            return None
        self._told.add(configuration)
        del self._ended[configuration]
        # In the order of the repeats: a sum depends on its order.
        ends = [end for _, end in sorted(ended.items())]
        finite = [found for one, step in ends if step < 0 and (found := finite_values(one)) is not None]
        if finite:
            return configuration, [sum(column) / len(finite) for column in zip(*finite, strict=True)], -1
        return configuration, *max(ends, key=lambda end: end[1])
