"""What a run was expected to take beside what it took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mpisweep.progress import counted
from mpisweep.records import EndReason
from mpisweep.results.load import Sweep
from mpisweep.spec.units import duration_text

__all__ = ["Prediction", "prediction_lines", "prediction_of"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The last run that was predicted.

    Attributes:
        time_s: expected time from its start to the end of its last trial.
        bound_s: the time that it stays below with 95%.
        after: number of its trials that had ended by then; 0 if it was predicted before.
        actual_s: what it took until its last trial ended; None if no trial has.
        end: why it ended; empty while it runs.
    """

    time_s: float
    bound_s: float
    after: int
    actual_s: float | None
    end: str

    @property
    def is_complete(self) -> bool:
        """Whether it ran all the trials that were predicted."""
        return any(self.end == reason and reason.is_final for reason in EndReason)


def prediction_of(sweep: Sweep) -> Prediction | None:
    """The prediction of the last run that has one; None if there is none."""
    rows = np.flatnonzero(np.isfinite(sweep.allocations["predicted_time"]))
    if not len(rows):
        return None
    row = int(rows[-1])
    run = sweep.allocations[row]
    worker = sweep.trials["worker"]
    own = np.zeros(len(worker), bool)
    has = worker >= 0
    own[has] = sweep.workers["allocation"][worker[has]] == row
    ends = sweep.trials["ended_at"][own]
    ends = ends[np.isfinite(ends)]
    took_s = float(ends.max() - run["started_at"]) if len(ends) else math.nan
    return Prediction(
        float(run["predicted_time"]),
        float(run["predicted_bound"]),
        int(run["predicted_after"]),
        took_s if math.isfinite(took_s) else None,
        str(run["end"]),
    )


def prediction_lines(prediction: Prediction | None) -> list[str]:
    """Put it into words."""
    if prediction is None:
        return []
    when = f" after {counted(prediction.after, 'trial')}" if prediction.after else ""
    said = (
        f"  predicted{when}: {duration_text(prediction.time_s)}, with 95% below "
        f"{duration_text(prediction.bound_s)}"
    )
    if prediction.actual_s is None or not prediction.end:
        return [said]
    if not prediction.is_complete:
        return [f"{said}; stopped after {duration_text(prediction.actual_s)}"]
    change = prediction.actual_s / prediction.time_s - 1
    how = "longer" if change > 0 else "shorter"
    return [f"{said}; took {duration_text(prediction.actual_s)} ({abs(change):.0%} {how})"]
