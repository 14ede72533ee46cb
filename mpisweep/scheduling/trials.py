"""The states and attempts of all trials: written here and nowhere else.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import TrialState

__all__ = [
    "COMPLETE", "FAILED", "INFEASIBLE", "MOVES", "PRUNED", "RUNNING", "SKIPPED", "WAITING",
    "IllegalMoveError", "TrialStates",
]  # fmt: skip

#: Each TrialState as a plain int: looking up an enum member costs several times as much.
WAITING = int(TrialState.WAITING)
RUNNING = int(TrialState.RUNNING)
COMPLETE = int(TrialState.COMPLETE)
PRUNED = int(TrialState.PRUNED)
FAILED = int(TrialState.FAILED)
INFEASIBLE = int(TrialState.INFEASIBLE)
SKIPPED = int(TrialState.SKIPPED)

#: Every legal transition of a trial -> its name.
MOVES: dict[tuple[TrialState, TrialState], str] = {
    (TrialState.WAITING, TrialState.RUNNING): "assigned",
    (TrialState.WAITING, TrialState.INFEASIBLE): "inferred",
    (TrialState.WAITING, TrialState.SKIPPED): "skipped",
    (TrialState.RUNNING, TrialState.WAITING): "reclaimed",
    (TrialState.RUNNING, TrialState.COMPLETE): "ended",
    (TrialState.RUNNING, TrialState.PRUNED): "ended",
    (TrialState.RUNNING, TrialState.FAILED): "ended",
    (TrialState.FAILED, TrialState.WAITING): "retried",
    (TrialState.SKIPPED, TrialState.WAITING): "retried",
}
_LEGAL = frozenset((int(old), int(new)) for old, new in MOVES)


class IllegalMoveError(AssertionError):
    """A trial was about to make an illegal transition: a bug."""


class TrialStates:
    """State, last attempt and counts of all trials; entry *n* belongs to trial *n*.

    Args:
        states: TrialState values.
        attempts: number of attempts per trial.
    """

    def __init__(self, states: Sequence[int], attempts: Sequence[int]) -> None:
        self.states = bytearray(states)
        #: The last attempt that was assigned.
        self.attempts = list(attempts)
        #: TrialState -> number of trials in it.
        self.counts = [0] * len(TrialState)
        for state in self.states:
            self.counts[state] += 1

    def __len__(self) -> int:
        return len(self.states)

    def grow(self, count: int) -> list[int]:
        """Add `count` waiting trials; returns their numbers."""
        numbers = list(range(len(self.states), len(self.states) + count))
        self.states.extend([WAITING] * count)
        self.attempts.extend([0] * count)
        self.counts[WAITING] += count
        return numbers

    def begin(self, number: int) -> int:
        """Start the next attempt of a trial; returns its number."""
        self.attempts[number] += 1
        self.move(number, RUNNING)
        return self.attempts[number]

    def move(self, number: int, state: int) -> None:
        """Write a trial's state.

        Raises:
            IllegalMoveError: if the transition is illegal.
        """
        old = self.states[number]
        if (old, state) not in _LEGAL:
            states = f"from {TrialState(old).label} to {TrialState(state).label}"
            raise IllegalMoveError(f"trial {number} cannot go {states}")
        self.states[number] = state
        self.counts[old] -= 1
        self.counts[state] += 1

    def check(self) -> None:
        """Assert that the counts match the states."""
        for state in TrialState:
            assert self.counts[state] == self.states.count(state), f"the count of {state.label} is wrong"
