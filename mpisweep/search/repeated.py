"""The end of a configuration that is run several times: the mean of its repeats.

A search that learns knows configurations.  It is told one end of each, when all repeats have ended: the mean
of each objective over the repeats with finite objectives, or none if no repeat has them.  Until then the
configuration runs, so that the order of ends, and with it every proposal, follows from the order in which the
ends of trials were recorded.

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
        #: Configuration -> outcomes of its trials that have ended, while others have not.
        self._ended: dict[int, dict[int, Outcome]] = {}
        self._told: set[int] = set()

    def note(self, number: int, outcome: Outcome) -> tuple[int, Outcome] | None:
        """Note the end of a trial.

        Args:
            number: of the trial.
            outcome: its objectives.

        Returns:
            The configuration and the mean of its objectives if this was the last of its repeats.
        """
        configuration = self._configuration_of[number]
        if configuration in self._told:
            return None
        ended = self._ended.setdefault(configuration, {})
        ended[number] = outcome
        if len(ended) < self._repeats:
            return None
        self._told.add(configuration)
        del self._ended[configuration]
        # In the order of the repeats: a sum depends on its order.
        finite = [found for _, one in sorted(ended.items()) if (found := finite_values(one)) is not None]
        means = [sum(column) / len(finite) for column in zip(*finite, strict=True)]
        return configuration, means or None
