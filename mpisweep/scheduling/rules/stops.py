"""Orderly stops: on request, by a rule of [stop], or when the first trials all fail alike."""

from __future__ import annotations

from mpisweep.blocks import EndedBlock
from mpisweep.records import EndReason
from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Stop
from mpisweep.scheduling.trials import COMPLETE, PRUNED
from mpisweep.search.stopping import Stopping

__all__ = ["check_common_error", "check_rules", "on_stop_requested"]


def on_stop_requested(core: Core, reason: EndReason) -> list[Decision]:
    """Start no more trials, and have the workers stop the running ones."""
    if core.stopping is not None:
        return []
    core.stopping = reason
    return [Stop(core.policy.grace_s)]


def check_common_error(core: Core, block: EndedBlock) -> list[Decision]:
    """Stop the sweep if the first trials have all failed with the same error."""
    if not core.common_error.is_enabled or core.stopping is not None or not block.causes:
        return []
    if core.trials.counts[COMPLETE] or core.trials.counts[PRUNED] or not core.common_error.note(block):
        return []
    return on_stop_requested(core, EndReason.ALIKE)


def check_rules(core: Core, rules: Stopping, now: float) -> list[Decision]:
    """Stop the sweep if a rule of [stop] holds; running trials are interrupted, as by a request."""
    if rules.is_due(now):
        packing = core.packing
        busy = [slot for slot, trials in core.slots.held.items() if trials]
        rules.note_time(now, [(slot.rank, packing.sharing_gpu(slot) if packing else 0) for slot in busy])
    reason = rules.reached()
    return [] if reason is None else on_stop_requested(core, reason)
