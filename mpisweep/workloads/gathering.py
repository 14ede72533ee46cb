"""Gathering the results of short trials into one block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpisweep.blocks import EndedBlock
from mpisweep.bounds import MESSAGE_CHARS, shortened
from mpisweep.records import FailureCause, TrialState

__all__ = ["Gathered"]

#: A block with more metric values and message characters is full.
_GATHERED = 100_000
_COMPLETE = int(TrialState.COMPLETE)
_PRUNED = int(TrialState.PRUNED)
_FAILED = int(TrialState.FAILED)


class Gathered:
    """An EndedBlock under construction, in columns."""

    def __init__(self, worker: int, slot: int) -> None:
        self._worker = worker
        self._slot = slot
        #: When the first of them started.
        self.since = float("inf")
        #: Whether earlier trials in this process may have caused the failure in the block.
        self.warm = False
        self._chars = 0
        self.numbers: list[int] = []
        self._attempts: list[int] = []
        self._states: list[int] = []
        self._started_at: list[float] = []
        self._wall_time_s: list[float] = []
        self._metrics: dict[str, list[float | None]] = {}
        self._causes: list[int] = []
        self._messages: list[str] = []
        #: Empty while none was pruned.
        self._pruned_at: list[int] = []
        #: Empty while none is known.
        self._energy_j: list[float | None] = []
        #: Empty while no objective of Optuna has ended.
        self._suggested: list[dict[str, Any] | None] = []
        #: Empty while none is known.
        self._gpu_memory: list[float | None] = []
        self._gpu_busy: list[float | None] = []

    def add_complete(
        self,
        number: int,
        attempt: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
        message: str,
    ) -> None:
        """Add a complete trial; `message` is usually empty."""
        if message:
            self._fill_causes()
        self._add(number, attempt, _COMPLETE, started_at, wall_time_s, metrics)
        if self._causes or message:
            self._note(FailureCause.NONE, message)

    def add_pruned(
        self,
        number: int,
        attempt: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
        message: str,
        step: int,
    ) -> None:
        """Add a pruned trial, with its last reports, the step of the last one, and maybe a message."""
        if message:
            self._fill_causes()
        self._pruned_at += [-1] * (len(self.numbers) - len(self._pruned_at))
        self._add(number, attempt, _PRUNED, started_at, wall_time_s, metrics)
        self._pruned_at.append(step)
        if self._causes or message:
            self._note(FailureCause.NONE, message)

    def add_failed(
        self,
        number: int,
        attempt: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
        cause: FailureCause,
        message: str,
    ) -> None:
        """Add a failed trial, with the metrics that it had reported."""
        self._fill_causes()
        self._add(number, attempt, _FAILED, started_at, wall_time_s, metrics)
        self._note(cause, message)

    def note_last(
        self,
        energy_j: float | None,
        suggested: dict[str, Any] | None = None,
        memory: float | None = None,
        busy: float | None = None,
    ) -> None:
        """Note what was measured in the trial that was added last, and what its objective asked for."""
        columns: tuple[tuple[list[Any], Any], ...] = (
            (self._energy_j, energy_j), (self._suggested, suggested), (self._gpu_memory, memory),
            (self._gpu_busy, busy),
        )  # fmt: skip
        for column, value in columns:
            if value is not None or column:
                column += [None] * (len(self.numbers) - 1 - len(column))
                column.append(value)
        if self._suggested:
            self._chars += len(str(suggested))

    def _note(self, cause: FailureCause, message: str) -> None:
        message = shortened(message, MESSAGE_CHARS)
        self._chars += len(message)
        self._causes.append(int(cause))
        self._messages.append(message)

    @property
    def is_full(self) -> bool:
        """Whether the block is full; each trial may have its own metric names, and long messages."""
        return len(self.numbers) * len(self._metrics) + self._chars > _GATHERED

    def _fill_causes(self) -> None:
        """Fill the columns of causes and messages up for the earlier trials."""
        self._causes += [int(FailureCause.NONE)] * (len(self.numbers) - len(self._causes))
        self._messages += [""] * (len(self.numbers) - len(self._messages))

    def block(self) -> EndedBlock:
        """The finished block."""
        if self._pruned_at:
            self._pruned_at += [-1] * (len(self.numbers) - len(self._pruned_at))
        return EndedBlock(
            self._worker, self._slot, self.numbers, self._attempts, self._states, self._started_at,
            self._wall_time_s, self._metrics, self._causes, self._messages, self.warm, self._energy_j,
            self._pruned_at, self._suggested, self._gpu_memory, self._gpu_busy,
        )  # fmt: skip

    def _add(
        self,
        number: int,
        attempt: int,
        state: int,
        started_at: float,
        wall_time_s: float,
        metrics: Mapping[str, float],
    ) -> None:
        if not self.numbers:
            self.since = started_at
        columns = self._metrics
        if columns.keys() != metrics.keys():
            # In the order of the metrics, which is that of the columns of the results.
            for name in [name for name in metrics if name not in columns]:
                columns[name] = [None] * len(self.numbers)
            for name in columns.keys() - metrics.keys():
                columns[name].append(None)
        for name, value in metrics.items():
            columns[name].append(value)
        self.numbers.append(number)
        self._attempts.append(attempt)
        self._states.append(state)
        self._started_at.append(started_at)
        self._wall_time_s.append(wall_time_s)
