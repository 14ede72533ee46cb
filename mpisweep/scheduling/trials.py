"""The states of all trials, and how often each was tried: written here and nowhere else.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import TrialState

__all__ = [
    "COMPLETE", "FAILED", "INFEASIBLE", "MOVES", "PRUNED", "RUNNING", "WAITING",
    "IllegalMoveError", "TrialStates",
]  # fmt: skip

#: Each TrialState as the plain number that is stored: an enum costs several times as much to look up.
WAITING = int(TrialState.WAITING)
RUNNING = int(TrialState.RUNNING)
COMPLETE = int(TrialState.COMPLETE)
PRUNED = int(TrialState.PRUNED)
FAILED = int(TrialState.FAILED)
INFEASIBLE = int(TrialState.INFEASIBLE)

#: Every legal move of a trial, and what it is called.
MOVES: dict[tuple[TrialState, TrialState], str] = {
    (TrialState.WAITING, TrialState.RUNNING): "assigned",
    (TrialState.WAITING, TrialState.INFEASIBLE): "inferred",
    (TrialState.RUNNING, TrialState.WAITING): "reclaimed",
    (TrialState.RUNNING, TrialState.COMPLETE): "ended",
    (TrialState.RUNNING, TrialState.PRUNED): "ended",
    (TrialState.RUNNING, TrialState.FAILED): "ended",
}
_LEGAL = frozenset((int(old), int(new)) for old, new in MOVES)


class IllegalMoveError(AssertionError):
    """A trial was about to make a move that no rule allows: a bug."""


class TrialStates:
    """Entry *n* of every sequence belongs to trial *n*.

    Args:
        states: TrialState values.
        attempts: how often each was tried.
    """

    def __init__(self, states: Sequence[int], attempts: Sequence[int]) -> None:
        self.states = bytearray(states)
        #: The last attempt that was assigned.
        self.attempts = list(attempts)
        #: TrialState -> how many trials are in it.
        self.counts = [0] * len(TrialState)
        for state in self.states:
            self.counts[state] += 1

    def __len__(self) -> int:
        return len(self.states)

    def grow(self, count: int) -> list[int]:
        """There are so many more trials, which wait; returns their numbers."""
        numbers = list(range(len(self.states), len(self.states) + count))
        self.states.extend([WAITING] * count)
        self.attempts.extend([0] * count)
        self.counts[WAITING] += count
        return numbers

    def begin(self, number: int) -> int:
        """A trial is assigned; returns which attempt this is."""
        self.attempts[number] += 1
        self.move(number, RUNNING)
        return self.attempts[number]

    def move(self, number: int, state: int) -> None:
        """Write a trial's state.

        Raises:
            IllegalMoveError: when no rule allows that.
        """
        old = self.states[number]
        if (old, state) not in _LEGAL:
            states = f"from {TrialState(old).label} to {TrialState(state).label}"
            raise IllegalMoveError(f"trial {number} cannot go {states}")
        self.states[number] = state
        self.counts[old] -= 1
        self.counts[state] += 1

    def check(self) -> None:
        """Assert that the counts are true."""
        for state in TrialState:
            assert self.counts[state] == self.states.count(state), f"the count of {state.label} is wrong"
