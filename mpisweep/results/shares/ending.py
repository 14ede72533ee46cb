"""How a split sweep has ended, by the results of all members.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mpisweep.records import EndReason, TrialState
from mpisweep.results.state import SweepState
from mpisweep.results.stopping import reached_rule
from mpisweep.spec import LEARNING, Spec, SpecError, parse_spec

__all__ = ["exit_code_of", "state_of", "to_propose"]


def state_of(merged: SweepState, sources: Iterable[SweepState], to_come: int) -> str:
    """The state of a merged sweep; `to_come` configurations are still to be proposed."""
    states = merged.trials["state"]
    if not to_come and all(state >= TrialState.COMPLETE for state in states):
        return _end_of_all(merged).value
    said = [part.state for part in sources if part.allocations["run"]]
    if "running" in said or not said:
        return "running"
    return reached_rule(merged) or said[-1]


def exit_code_of(state: SweepState) -> int:
    """The exit code if every trial has ended or a rule of [stop] holds, else 3."""
    if _are_to_come(state) or not all(value >= TrialState.COMPLETE for value in state.trials["state"]):
        return (reached_rule(state) or EndReason.SHARE).exit_code
    return _end_of_all(state).exit_code


def to_propose(spec: Spec, state: SweepState) -> int:
    """Number of trials that a learning search is still to propose; 0 once the sweep is complete."""
    is_over = any(reason == state.state and reason.is_final for reason in EndReason)
    if spec.search not in LEARNING or spec.trials is None or is_over:
        return 0
    made = int(sum(known >= 0 for known in state.trials["proposed_after"]))
    return max(0, spec.trials * spec.repeats.first - made)


def _are_to_come(state: SweepState) -> bool:
    try:
        spec = parse_spec(state.spec, source=state.source, folder=Path(), is_recorded=True)
    except SpecError:
        return False
    return to_propose(spec, state) > 0


def _end_of_all(state: SweepState) -> EndReason:
    try:
        spec = parse_spec(state.spec, source=state.source, folder=Path(), is_recorded=True)
        names, measured = [one.name for one in spec.objectives], spec.measures or bool(state.metrics)
    except SpecError:
        # The names of the objectives were lost to damage.
        names, measured = [""], False
    useful = [
        is_finite
        for is_finite, reached in zip(state.finite(names), state.trials["state"], strict=True)
        if reached in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    return EndReason.of_all(completed=bool(useful) or not state.count, measured=measured, finite=any(useful))
