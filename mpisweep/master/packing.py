"""The shared GPUs of a sweep, with what earlier runs have measured on them."""

from __future__ import annotations

import math

from mpisweep.master.known import KnownSweep
from mpisweep.records import TrialState
from mpisweep.scheduling.durations import WORK_NAMES, DurationModel
from mpisweep.scheduling.footprints import Footprints
from mpisweep.scheduling.packing import Packing
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec
from mpisweep.spec.space import FloatRange

__all__ = ["make_packing"]

_MEASURED = (int(TrialState.COMPLETE), int(TrialState.PRUNED))


def make_packing(
    spec: Spec, trials: Trials, known: KnownSweep | None, model: DurationModel
) -> Packing | None:
    """What decides how many trials share a GPU; None if the sweep file does.

    Args:
        spec: the sweep file.
        trials: all trials.
        known: results of earlier runs; None if there are none.
        model: predicts durations.
    """
    if not spec.packs:
        return None
    numeric = [
        name
        for name, column in trials.parameters.items()
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)
    ]
    usual = {name: "increasing" for name in numeric if name in WORK_NAMES}
    ignored = {one.name for one in spec.space.parameters if isinstance(one, FloatRange)}
    footprints = Footprints(trials.parameters, usual | spec.space.memory, ignored)
    before: dict[str, tuple[int, float]] = {}
    if known is not None:
        for number, memory in enumerate(known.trials_table["device_memory"]):
            worker = known.trials_table["worker"][number]
            if known.states[number] in _MEASURED and math.isfinite(memory) and worker >= 0:
                footprints.learn(number, known.workers_table["device_kind"][worker], memory)
        table = known.sharing_table
        for kind, count, gain in zip(table["device_kind"], table["trials"], table["gain"], strict=True):
            before[kind] = count, gain
    return Packing(footprints, model.expected_s, before)
