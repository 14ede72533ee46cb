"""Stopping in order: on request, or because the first trials all fail alike."""

from __future__ import annotations

from mpisweep.blocks import EndedBlock
from mpisweep.records import EndReason
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Stop
from mpisweep.scheduling.trials import COMPLETE, PRUNED

__all__ = ["look_for_common_error", "on_stop_requested"]


def on_stop_requested(core: Core, reason: EndReason) -> list[Decision]:
    """Start nothing more, and have the workers stop what runs."""
    if core.stopping is not None:
        return []
    core.stopping = reason
    return [Stop(core.policy.grace_s)]


def look_for_common_error(core: Core, block: EndedBlock) -> list[Decision]:
    """Stop the sweep if so many first trials have failed with the same error."""
    if not core.common_error.wanted or core.stopping is not None or not block.causes:
        return []
    if core.trials.counts[COMPLETE] or core.trials.counts[PRUNED] or not core.common_error.note(block):
        return []
    return on_stop_requested(core, EndReason.ALIKE)
