"""The rules of ``[stop]`` by the results of a sweep."""

from __future__ import annotations

from pathlib import Path

from mpisweep.records import EndReason, TrialState
from mpisweep.results.device_time import device_seconds
from mpisweep.results.state import SweepState
from mpisweep.search.stopping import Stopping
from mpisweep.spec import Spec, SpecError, parse_spec

__all__ = ["reached_rule", "stopping_of"]

_COMPLETE = int(TrialState.COMPLETE)


def stopping_of(
    spec: Spec, state: SweepState, *, recorded: Spec | None = None, now: float | None = None
) -> Stopping:
    """The rules of a sweep file, applied to the results so far.

    Args:
        spec: the sweep file.
        state: the results.
        recorded: the sweep file of the last run, whose end counts as long as its rule is unchanged; None for
            the results alone.
        now: count the device-hours of running trials until then, in seconds since 1970; None for ended ones.
    """
    core_s, gpu_s = device_seconds(state, now) if spec.stop.device_hours is not None else (0.0, 0.0)
    ended_by = None if recorded is None else _unchanged_rule(spec, recorded, state.state)
    found = Stopping(spec.stop, spec.objective, spec.direction, core_s=core_s, gpu_s=gpu_s, ended_by=ended_by)
    trials, values = state.trials, state.metrics.get(spec.objective)
    complete = [number for number, one in enumerate(trials["state"]) if one == _COMPLETE]
    # Members of a split sweep count their ends each, so that only the time orders them.
    complete.sort(key=lambda number: trials["started_at"][number] + trials["wall_time"][number])
    found.note(
        [_COMPLETE] * len(complete), None if values is None else [values[number] for number in complete]
    )
    return found


def reached_rule(state: SweepState) -> EndReason | None:
    """The rule of the recorded sweep file that holds for these results; None if none does."""
    try:
        spec = parse_spec(state.spec, source=state.source, folder=Path(), is_recorded=True)
    except SpecError:
        return None
    return stopping_of(spec, state).reached() if spec.stop.is_set else None


def _unchanged_rule(spec: Spec, recorded: Spec, end: str) -> EndReason | None:
    """The rule that ended the last run, if the sweep file still has it."""
    keys = {
        EndReason.TARGET: "target", EndReason.PATIENCE: "patience", EndReason.DEVICE_HOURS: "device_hours",
    }  # fmt: skip
    for reason, key in keys.items():
        if end == reason and getattr(spec.stop, key) == getattr(recorded.stop, key):
            return reason
    return None
