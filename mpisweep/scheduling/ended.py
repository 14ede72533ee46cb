"""Blocks of ended trials that the scheduler makes itself: a filtered block, or a lost trial."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

from mpisweep.blocks import EndedBlock
from mpisweep.records import FailureCause, Slot
from mpisweep.scheduling.trials import FAILED

__all__ = ["lost_block", "lost_text", "without"]

#: Columns that are empty if there is nothing to say of any trial.
_OPTIONAL = (
    "causes", "messages", "energy_j", "pruned_at", "suggested", "gpu_memory", "gpu_busy", "gpu_trials",
)  # fmt: skip


def without(block: EndedBlock, dropped: frozenset[int]) -> EndedBlock:
    """Copy a block without the trials at these positions."""
    kept = [i for i in range(len(block.numbers)) if i not in dropped]
    optional: dict[str, Any] = {
        name: [column[i] for i in kept] for name in _OPTIONAL if (column := getattr(block, name))
    }
    return replace(
        block,
        numbers=[block.numbers[i] for i in kept],
        attempts=[block.attempts[i] for i in kept],
        states=[block.states[i] for i in kept],
        started_at=[block.started_at[i] for i in kept],
        wall_time_s=[block.wall_time_s[i] for i in kept],
        metrics={name: [column[i] for i in kept] for name, column in block.metrics.items()},
        **optional,
        # The flag describes the last trial alone.
        warm=block.warm and len(block.numbers) - 1 not in dropped,
    )


def lost_text(slot: Slot) -> str:
    """Message of a trial that was lost with the worker of this slot."""
    return f"the worker of rank {slot.rank} was lost"


def lost_block(slot: Slot, number: int, attempt: int, why: str) -> EndedBlock:
    """End of a trial that was lost and has no retry left; its times are unknown (NaN)."""
    return EndedBlock(
        worker=slot.rank,
        slot=slot.place,
        numbers=[number],
        attempts=[attempt],
        states=[FAILED],
        started_at=[nan],
        wall_time_s=[nan],
        metrics={},
        causes=[int(FailureCause.LOST)],
        messages=[why],
    )
