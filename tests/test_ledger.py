"""The ledger of a trial process: each trial is accounted for exactly once or still held, in any history."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mpisweep.blocks import AssignedBlock, encode
from mpisweep.messages import Team
from mpisweep.processes.ledger import Ledger, Task


def block(numbers: list[int], *, fresh: bool = False) -> bytes:
    return encode(AssignedBlock([[0, 0]], 0.0, numbers, [1] * len(numbers), {"x": 1}, fresh))


def tasks(*numbers: int) -> list[Task]:
    return [Task(number, 1) for number in numbers]


class History:
    """A simulated trial process, and the worker that keeps its ledger."""

    def __init__(self) -> None:
        self.numbers = 0
        #: Trial -> its outcome.
        self.answers: dict[Task, str] = {}
        self.start()

    def start(self) -> None:
        self.ledger = Ledger()
        #: The process's view: trials that it received, and whether each needs a pristine process.
        self.line: list[tuple[Task, bool]] = []
        self.begun = 0
        self.reclaim_below = 0
        self.running: Task | None = None
        self.gathered: list[Task] = []
        #: Frames that the worker has not read.
        self.sent: deque[tuple[str, int, list[Task]]] = deque()
        self.is_requested = False

    def answer(self, how: str, found: list[Task]) -> None:
        for task in found:
            assert task not in self.answers, f"{task} is {how}, and was {self.answers[task]}"
            self.answers[task] = how

    # ------------------------------------------------------------------------------------- the process

    def give(self, size: int, *, fresh: bool) -> None:
        new = tasks(*range(self.numbers, self.numbers + size))
        self.numbers += size
        self.hand_over(new, fresh)

    def hand_over(self, new: list[Task], fresh: bool) -> None:
        self.ledger.give(block([task.number for task in new], fresh=fresh), len(new))
        self.line += [(task, fresh) for task in new]

    def begin(self) -> None:
        if self.running is not None or self.begun == len(self.line):
            return
        index, (task, _) = self.begun, self.line[self.begun]
        self.begun += 1
        if index < self.reclaim_below:
            self.send()
            self.sent.append(("skipped", index, [task]))
        else:
            assert self.answers.get(task) is None, f"{task} runs, and was {self.answers[task]}"
            self.running = task

    def end(self) -> None:
        if self.running is not None:
            self.gathered.append(self.running)
            self.running = None

    def be_interrupted(self) -> None:
        if self.running is not None:
            self.send()
            self.sent.append(("interrupted", self.begun - 1, [self.running]))
            self.running = None

    def send(self) -> None:
        if self.gathered:
            self.sent.append(("ended", 0, self.gathered))
            self.gathered = []

    # ------------------------------------------------------------------------------------- the worker

    def receive(self) -> None:
        if not self.sent:
            return
        how, index, of = self.sent.popleft()
        match how:
            case "ended":
                self.ledger.on_ended(len(of))
                self.answer("ended", of)
            case "skipped":
                skipped = self.ledger.on_skipped(index, 1)
                assert skipped in ([], of)
                self.answer("skipped", skipped)
            case "interrupted":
                assert self.ledger.on_interrupted(index) == of
                self.answer("interrupted", of)

    def begin_reclaim(self) -> None:
        self.reclaim_below = self.ledger.begin_reclaim()
        self.is_requested = True

    def reclaim(self) -> None:
        back = self.ledger.reclaimed(self.begun)
        assert self.is_requested or not back
        self.is_requested = False
        self.answer("reclaimed", back)

    def abandon_one_that_has_not_begun(self, reach: int) -> None:
        self.reclaim_below = max(self.reclaim_below, min(self.begun + reach, len(self.line)))

    def die(self, *, carries: bool) -> None:
        """End the process: the worker reads all frames that were sent; the rest is lost."""
        while self.sent:
            self.receive()
        carried = self.ledger.carried(self.begun) if carries else []
        kept = sum(part.size for part in carried)
        first = self.begun
        held = self.ledger.held
        remains = self.ledger.close(self.begun, carried)
        assert self.ledger.is_settled
        # The last trial that began counts as running until its end is received.
        unreceived = [*self.gathered, *([] if self.running is None else [self.running])]
        assert (remains.lost, remains.running) == (unreceived[:-1], unreceived[-1:])
        self.answer("lost", remains.lost)
        self.answer("blamed", remains.running)
        self.answer("waiting", remains.waiting)
        moved = self.line[first : first + kept]
        assert [*remains.lost, *remains.running, *(task for task, _ in moved), *remains.waiting] == held
        assert not moved or moved[0][1], "it goes to the next process because it needs a pristine one"
        self.start()
        for part in carried:
            self.hand_over([task for task, _ in moved[: part.size]], moved[0][1])
            moved = moved[part.size :]

    def check_totals(self) -> None:
        held = self.ledger.held
        assert self.ledger.is_settled or self.line
        assert not held or not self.ledger.is_settled
        assert sorted([*self.answers, *held]) == tasks(*range(self.numbers))
        for task in held:
            index = self.ledger.index_of(task)
            assert index is not None
            assert self.line[index][0] == task


#: Possible events, frequent ones repeated; each takes a number.
EVENTS: list[Callable[[History, int], None]] = [
    *[lambda history, size: history.give(size, fresh=False)] * 3,
    *[lambda history, size: history.give(size, fresh=True)] * 2,
    *[lambda history, _: history.begin()] * 8,
    *[lambda history, _: history.end()] * 8,
    *[lambda history, _: history.send()] * 3,
    *[lambda history, _: history.receive()] * 3,
    *[lambda history, _: history.begin_reclaim()] * 2,
    *[lambda history, _: history.reclaim()] * 2,
    lambda history, _: history.be_interrupted(),
    lambda history, reach: history.abandon_one_that_has_not_begun(reach),
    lambda history, _: history.die(carries=False),
    *[lambda history, _: history.die(carries=True)] * 2,
]


# No shrinking: it would take minutes.  A failing history is printed as found.
@settings(max_examples=300, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), st.integers(1, 4)), min_size=30, max_size=90))
def test_each_trial_is_accounted_for_once_or_still_held_in_any_history(events: list[tuple[int, int]]):
    history = History()
    for event, size in events:
        EVENTS[event](history, size)
        history.check_totals()


def test_a_trial_that_has_begun_is_not_reclaimed():
    ledger = Ledger()
    ledger.give(block([1, 2, 3]), 3)
    assert ledger.begin_reclaim() == 3
    assert ledger.reclaimed(begun=2) == tasks(3)
    assert ledger.held == tasks(1, 2)
    assert ledger.reclaimed(begun=2) == [], "that was answered"


def test_trials_from_the_first_that_needs_a_pristine_process_are_carried_to_the_next_process():
    ledger = Ledger()
    ledger.give(block([1]), 1)
    ledger.give(block([2], fresh=True), 1)
    ledger.give(block([3, 4]), 2)
    ledger.on_ended(1)
    carried = ledger.carried(begun=1)
    assert [part.size for part in carried] == [1, 2]
    assert ledger.close(1, carried) == ([], [], [])


@pytest.mark.parametrize("begun", [0, 2])
def test_nothing_is_carried_if_the_next_trial_needs_no_pristine_process(begun: int):
    ledger = Ledger()
    ledger.give(block([1]), 1)
    ledger.give(block([2, 3], fresh=True), 2)
    assert ledger.carried(begun) == []


def test_reclaimed_trials_are_not_carried_to_the_next_process():
    ledger = Ledger()
    ledger.give(block([1], fresh=True), 1)
    ledger.begin_reclaim()
    assert ledger.reclaimed(begun=0) == tasks(1)
    ledger.give(block([2], fresh=True), 1)
    assert ledger.carried(begun=0) == []


def test_the_rank_of_a_trial_is_that_of_its_block():
    ledger = Ledger()
    team = Team(1, 2, 0, 1)
    ledger.give(block([1]), 1)
    ledger.give(block([2]), 1, team)
    assert [ledger.team_of(index) for index in range(-1, 3)] == [None, None, team, None]
