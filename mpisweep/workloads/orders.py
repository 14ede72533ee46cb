"""The messages from a worker to its trial process: blocks of trials, rendezvous addresses."""

from __future__ import annotations

import itertools
import json
import select
from collections import deque
from collections.abc import Iterator

from mpisweep.blocks import AssignedBlock, decode
from mpisweep.messages import Team
from mpisweep.processes.channel import RENDEZVOUS, TEAM, Frame, Line
from mpisweep.records import Value

__all__ = ["Orders", "configurations"]


class Orders:
    """The received messages, in order.

    Args:
        line: a blocking one.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        #: Frames that were received and not handled yet.
        self._frames: deque[Frame] = deque()

    def arrive_within(self, seconds: float) -> bool:
        """Whether a message, or the end of the line, arrives within this time."""
        return bool(self._frames) or bool(select.select([self._line], [], [], seconds)[0])

    def next_block(self) -> tuple[AssignedBlock, Team | None]:
        """Wait for trials; return them with this process's team, if the trial has several ranks.

        Raises:
            LineClosedError: when the worker has closed the line.
        """
        team = None
        while True:
            if not self._frames:
                self._frames.extend(self._line.receive())
            frame = self._frames.popleft()
            if frame.kind == TEAM:
                team = _team(frame.body)
            elif frame.kind != RENDEZVOUS:
                # The rendezvous address of a trial that has ended here is skipped.
                block = decode(frame.body)
                assert isinstance(block, AssignedBlock)
                return block, team

    def wait_for_address(self, number: int, attempt: int) -> str:
        """Wait for the rendezvous address of this trial's ranks."""
        while True:
            for frame in self._frames:
                if (frame.kind, frame.first, frame.second) == (RENDEZVOUS, number, attempt):
                    self._frames.remove(frame)
                    return frame.body.decode()
            self._frames.extend(self._line.receive())


def _team(body: bytes) -> Team:
    fields = json.loads(body)
    fields["environment"] = tuple(tuple(variable) for variable in fields["environment"])
    return Team(**fields)


def configurations(block: AssignedBlock, defaults: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """One dictionary per trial, in the order of the block; absent parameters are left out."""
    constants = defaults | {
        name: column
        for name, column in block.parameters.items()
        if not isinstance(column, list) and column is not None
    }
    lists = {name: column for name, column in block.parameters.items() if isinstance(column, list)}
    if not lists:
        return (dict(constants) for _ in block.numbers)
    names = tuple(lists)
    rows = itertools.islice(zip(*lists.values(), strict=True), len(block.numbers))
    pairs = (zip(names, values, strict=True) for values in rows)
    return (constants | {name: value for name, value in row if value is not None} for row in pairs)
