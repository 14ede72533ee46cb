"""The end of a configuration that is run several times: the mean of its repeats.

A search that learns knows configurations.  It is told one end of each, when all repeats have ended: the mean
of the finite objectives, or none if no repeat has one.  Until then the configuration runs, so that the order
of ends, and with it every proposal, follows from the order in which the ends of trials were recorded.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        #: Configuration -> objectives of its trials that have ended, while others have not.
        self._ended: dict[int, dict[int, float | None]] = {}
        self._told: set[int] = set()

    def note(self, number: int, objective: float | None) -> tuple[int, float | None] | None:
        """Note the end of a trial.

        Args:
            number: of the trial.
            objective: None if it has none.

        Returns:
            The configuration and its objective if this was the last of its repeats.
        """
        configuration = self._configuration_of[number]
        if configuration in self._told:
            return None
        ended = self._ended.setdefault(configuration, {})
        ended[number] = objective
        if len(ended) < self._repeats:
            return None
        self._told.add(configuration)
        del self._ended[configuration]
        # In the order of the repeats: a sum depends on its order.
        finite = [one for _, one in sorted(ended.items()) if one is not None and math.isfinite(one)]
        return configuration, sum(finite) / len(finite) if finite else None
