"""Users' requests without MPI: the scheduler's rules, the files, and what the journal says of them."""

from __future__ import annotations

import json
import pickle
from collections import deque
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_opening import assigned, joined, known_after
from test_results import opening, write_journal
from test_scheduler import COMPLETE, FAILED, Pool, ended, scheduler_of

from mpisweep.batch.chain import Standing
from mpisweep.blocks import EndedBlock, RequestRecord, TrialsBlock, decode, encode
from mpisweep.cli import main
from mpisweep.cli.outcome import standing
from mpisweep.master.request_watch import RequestWatch
from mpisweep.master.requesting import RequestDesk
from mpisweep.records import AttemptEnd, Request, RequestKind, Slot, TrialState
from mpisweep.results import requests_folder, shares_folder
from mpisweep.results.compaction import compact_and_close
from mpisweep.results.journal.checking import is_valid
from mpisweep.results.load import load
from mpisweep.results.requests import new_name, read_requests, request_file, write_request
from mpisweep.results.runs import move_aside
from mpisweep.scheduling.decisions import Abandon, ApplyRequest, Assign, Commit, End, GiveUp, Reclaim
from mpisweep.scheduling.events import (
    RequestsMade,
    TimePassed,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.search import make_sampler
from mpisweep.search.more_points import more_points
from mpisweep.search.numbering import number_trials
from mpisweep.spec import SpecError, parse_spec

WAITING, RUNNING, SKIPPED = int(TrialState.WAITING), int(TrialState.RUNNING), int(TrialState.SKIPPED)


def asked(kind: str, *trials: int | tuple[int, int], name: str = "r1", points: int = 0) -> RequestsMade:
    pairs = tuple(one if isinstance(one, tuple) else (one, 0) for one in trials)
    configurations = tuple({"x": 100 + number} for number in range(points))
    request = Request(name, RequestKind(kind), pairs, configurations, 1.0, "me@here")
    return RequestsMade((request,), {name: (1,) * points})


def of_kind(decisions: list, kind: type) -> list:
    return [decision for decision in decisions if isinstance(decision, kind)]


# ------------------------------------------------------------------------------------- the scheduler


def test_a_failed_trial_that_is_retried_is_queued_at_once_and_its_attempts_are_counted_on():
    scheduler = scheduler_of(2, states=[FAILED, COMPLETE], attempts=[1, 1])
    decisions = scheduler.handle(asked("retry", (0, 1)), 0.0)
    assert decisions == [ApplyRequest("r1", [0], [1])]
    scheduler.check()
    # A warm process would run the code that has failed.
    assert scheduler.handle(WorkerJoined(1, 1), 0.0) == [Assign((Slot(1, 0),), [0], [2], fresh=True)]


def test_the_same_retry_twice_is_one_retry():
    pool = Pool(scheduler_of(9), 1)
    pool.end(0, fails="bug")
    [applied] = of_kind(pool.feed(asked("retry", (0, 1))), ApplyRequest)
    assert applied.numbers == [0]
    while 0 not in [number for number, _ in pool.held[Slot(0, 0)]]:
        pool.end(0)
    while pool.held[Slot(0, 0)]:
        pool.end(0, fails="bug again")
        if pool.scheduler.core.trials.states[0] == FAILED:
            break
    [again] = of_kind(pool.feed(asked("retry", (0, 1), name="r2")), ApplyRequest)
    assert (again.numbers, again.refused) == ([], ""), "nobody has seen the second failure"


def test_a_retry_gives_back_the_retries_after_lost_workers():
    scheduler = scheduler_of(1, retries=0)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    scheduler = scheduler_of(1, retries=1, states=[FAILED], attempts=[2], losses={0: 2})
    scheduler.handle(asked("retry", (0, 2)), 0.0)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    [give_up] = of_kind(scheduler.handle(WorkerLost(1), 0.0), GiveUp)
    assert give_up.end is AttemptEnd.LOST
    assert scheduler.core.trials.states[0] == WAITING


def test_a_late_result_of_an_attempt_that_was_retried_does_not_count():
    """A worker tells a new master the result that the old one had committed."""
    scheduler = scheduler_of(1, states=[WAITING], attempts=[1], retried={0: 1})
    decisions = scheduler.handle(WorkerJoined(1, 1, (((0, 1),),)), 0.0)
    assert decisions == [Abandon(Slot(1, 0), 0, 1, 0.0), Assign((Slot(1, 0),), [0], [2])]
    assert scheduler.handle(ended(Slot(1, 0), [(0, 1)], state=FAILED), 0.0) == []
    scheduler.check()


def test_a_skipped_trial_does_not_run_and_a_retry_undoes_it():
    scheduler = scheduler_of(2, states=[WAITING, COMPLETE])
    assert scheduler.handle(asked("skip", 0), 0.0)[0] == ApplyRequest("r1", [0], [0])
    scheduler = scheduler_of(2)
    assert scheduler.handle(asked("skip", 0), 0.0) == [ApplyRequest("r1", [0], [0])]
    assert scheduler.handle(asked("retry", (0, 0), name="r2"), 0.0) == [ApplyRequest("r2", [0], [0])]
    assert scheduler.handle(asked("skip", 0, 1, name="r3"), 0.0)[0] == ApplyRequest("r3", [0, 1], [0, 0])
    scheduler.check()


def test_a_trial_that_waits_behind_a_running_one_is_reclaimed_and_skipped():
    scheduler = scheduler_of(2)
    slot = Slot(1, 0)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert list(scheduler.held[slot]) == [0, 1]
    assert scheduler.handle(asked("skip", 1), 0.0) == [Reclaim(slot)]
    assert scheduler.handle(TimePassed(), 0.1) == []
    decisions = scheduler.handle(TrialsReclaimed(slot, (1,), (1,), AttemptEnd.RECLAIMED), 0.2)
    assert decisions == [GiveUp(1, [1], [1], AttemptEnd.RECLAIMED), ApplyRequest("r1", [1], [1])]
    scheduler.check()
    [_, end] = scheduler.handle(ended(slot, [(0, 1)]), 0.3)
    assert isinstance(end, End)


def test_trials_that_come_back_one_after_another_are_not_handed_out_in_between():
    scheduler = scheduler_of(5)
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank, 1), 0.0)
    assert [list(held) for held in scheduler.held.values()] == [[0, 1], [2, 3]]
    assert scheduler.handle(asked("skip", 1, 3, 4), 0.0) == [Reclaim(Slot(1, 0)), Reclaim(Slot(2, 0))]
    decisions = scheduler.handle(TrialsReclaimed(Slot(1, 0), (1,), (1,), AttemptEnd.RECLAIMED), 0.1)
    assert [type(decision) for decision in decisions] == [GiveUp]
    scheduler.check()
    decisions = scheduler.handle(TrialsReclaimed(Slot(2, 0), (3,), (1,), AttemptEnd.RECLAIMED), 0.2)
    assert decisions[1:] == [ApplyRequest("r1", [1, 3, 4], [1, 1, 0])]
    scheduler.check()


@pytest.mark.parametrize("kind", ["skip", "first"])
def test_a_trial_that_has_begun_before_the_reclaim_arrives_stays(kind: str):
    scheduler = scheduler_of(2)
    slot = Slot(1, 0)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(asked(kind, 1), 0.0)
    # It may still be returned.
    assert not of_kind(scheduler.handle(ended(slot, [(0, 1)]), 0.1), ApplyRequest)
    [applied] = of_kind(
        scheduler.handle(TrialsReclaimed(slot, (), (), AttemptEnd.RECLAIMED), 0.2), ApplyRequest
    )
    assert applied == ApplyRequest("r1", [], [], "trial 1 is running")
    scheduler.check()


def test_a_new_master_asks_the_worker_whether_a_trial_has_begun():
    scheduler = scheduler_of(2, states=[RUNNING] * 2, attempts=[1, 1], held={Slot(1, 0): {0: 1, 1: 1}})
    assert scheduler.handle(asked("skip", 1), 0.0) == []
    assert scheduler.handle(WorkerJoined(1, 1, (((0, 1), (1, 1)),)), 0.1) == [Reclaim(Slot(1, 0))]
    decisions = scheduler.handle(TrialsReclaimed(Slot(1, 0), (1,), (1,), AttemptEnd.RECLAIMED), 0.2)
    assert ApplyRequest("r1", [1], [1]) in decisions


def test_trials_that_go_first_run_in_their_order_before_longer_ones_and_what_waits_in_the_slots():
    work = [float(number + 1) for number in range(8)]
    pool = Pool(scheduler_of(8, work=work), 1)
    assert [number for number, _ in pool.held[Slot(0, 0)]] == [7, 6]
    pool.feed(asked("first", 2, 0))
    assert [number for number, _ in pool.held[Slot(0, 0)]] == [7, 2]
    pool.feed(asked("first", 1, name="r2"))
    order = [7]
    while len(order) < 8:
        pool.end(0)
        order.append(pool.held[Slot(0, 0)][0][0])
    assert order[:4] == [7, 1, 2, 0]
    assert sorted(order) == list(range(8))


def test_a_new_fit_of_the_durations_keeps_the_trials_that_go_first_first():
    scheduler = scheduler_of(6, first=[2, 0])
    scheduler.core.model.observe([3, 4, 5], [1.0, 2.0, 4.0])
    scheduler.core.model.fit()
    scheduler.core.waiting.reconsider()
    assert [scheduler.core.waiting.take() for _ in range(3)] == [2, 0, 5]
    scheduler.core.waiting.put_back([0])
    assert scheduler.core.waiting.next() == 0


def test_added_points_are_new_trials_that_wait():
    scheduler = scheduler_of(2, states=[COMPLETE, COMPLETE], attempts=[1, 1])
    [applied] = scheduler.handle(asked("add", points=2), 0.0)
    assert applied == ApplyRequest("r1", [2, 3], [0, 0], "", [{"x": 100}, {"x": 101}])
    scheduler.check()
    assert scheduler.handle(WorkerJoined(1, 1), 0.0)[0] == Assign((Slot(1, 0),), [2], [1])


def test_added_points_are_repeated_as_often_as_the_others():
    scheduler = scheduler_of(2)
    made = replace(asked("add", points=2), repeats=3)
    assert scheduler.handle(made, 0.0)[0].numbers == [2, 3, 4, 5, 6, 7]
    scheduler.check()


def test_all_requests_of_a_complete_sweep_are_applied_before_it_ends():
    scheduler = scheduler_of(2, states=[COMPLETE, COMPLETE], attempts=[1, 1])
    [skip], [add] = asked("skip", 0, 9).requests, asked("add", points=1, name="r2").requests
    decisions = scheduler.handle(RequestsMade((skip, add), {"r2": (1,)}), 0.0)
    assert [decision.request for decision in decisions] == ["r1", "r2"]
    assert decisions[0].refused == "trial 0 is complete, trial 9 is unknown"


def test_a_refusal_names_a_few_trials():
    scheduler = scheduler_of(20, states=[COMPLETE] * 19 + [WAITING], attempts=[1] * 20)
    [applied] = of_kind(scheduler.handle(asked("skip", *range(19)), 0.0), ApplyRequest)
    assert applied.refused == "trials 0, 1, 2, 3 and 15 more are complete"


def test_a_split_sweep_takes_no_requests():
    scheduler = scheduler_of(2, shared=True)
    [applied] = of_kind(scheduler.handle(asked("skip", 0), 0.0), ApplyRequest)
    assert "split" in applied.refused
    assert scheduler.count(TrialState.SKIPPED) == 0


class Requested(RuleBasedStateMachine):
    """Workers work and die, masters follow each other, users ask; each request is applied once."""

    def __init__(self) -> None:
        super().__init__()
        self.states = [WAITING] * 8
        self.scheduler = scheduler_of(8)
        self.now = 0.0
        self.alive: dict[int, deque[tuple[int, int]]] = {}
        self.asked: set[int] = set()
        self.late: list[TrialsEnded] = []
        #: Ended or skipped trial -> its last attempt.
        self.over: dict[int, int] = {}
        self.retried: dict[int, int] = {}
        self.first: list[int] = []
        #: Requests whose files are there, and those that have a record.
        self.files: dict[str, Request] = {}
        self.applied: set[str] = set()
        self.is_ended = False
        self.ranks = 0

    def feed(self, event) -> None:
        self.now += 0.03
        for decision in self.scheduler.handle(pickle.loads(pickle.dumps(event)), self.now):
            match decision:
                case Assign((slot,), numbers, attempts):
                    assert not self.over.keys() & set(numbers), "a trial that is over runs"
                    assert all(a > self.retried.get(n, 0) for n, a in zip(numbers, attempts, strict=True))
                    self.alive[slot.rank].extend(zip(numbers, attempts, strict=True))
                case Commit(block):
                    for number, attempt in zip(block.numbers, block.attempts, strict=True):
                        assert number not in self.over, "a trial was committed twice"
                        self.over[number] = attempt
                case Reclaim(slot):
                    self.asked.add(slot.rank)
                case ApplyRequest():
                    self.record(decision)
                case End():
                    self.is_ended = True

    def record(self, decision: ApplyRequest) -> None:
        request = self.files.pop(decision.request)
        assert request.name not in self.applied, "a request was applied twice"
        self.applied.add(request.name)
        for number, attempt in zip(decision.numbers, decision.attempts, strict=True):
            match request.kind:
                case RequestKind.RETRY:
                    assert self.over.pop(number) == attempt
                    self.retried[number] = attempt
                case RequestKind.SKIP:
                    assert number not in self.over
                    self.over[number] = attempt
                case RequestKind.FIRST:
                    assert number not in self.over
        if request.kind is RequestKind.FIRST:
            self.first = [*decision.numbers, *(n for n in self.first if n not in decision.numbers)]

    @rule()
    def a_worker_joins(self) -> None:
        self.ranks += 1
        self.alive[self.ranks] = deque()
        self.feed(WorkerJoined(self.ranks, 1))

    @precondition(lambda self: any(self.alive.values()))
    @rule(data=st.data(), failed=st.booleans())
    def a_trial_ends(self, data, failed) -> None:
        rank = data.draw(st.sampled_from([rank for rank, held in self.alive.items() if held]))
        event = ended(Slot(rank, 0), [self.alive[rank].popleft()], state=FAILED if failed else COMPLETE)
        self.late.append(event)
        self.feed(event)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def an_old_result_arrives_again(self, data) -> None:
        before = dict(self.over)
        self.feed(data.draw(st.sampled_from(self.late)))
        assert {n: a for n, a in self.over.items() if n in before} == {
            n: a for n, a in before.items() if n in self.over
        }

    @precondition(lambda self: self.asked & set(self.alive))
    @rule(data=st.data(), begins=st.booleans())
    def a_worker_returns_reclaimed_trials(self, data, begins) -> None:
        rank = data.draw(st.sampled_from(sorted(self.asked & set(self.alive))))
        self.asked.discard(rank)
        held = self.alive[rank]
        back = [] if begins else [held.pop() for _ in range(len(held) - 1)][::-1]
        self.feed(TrialsReclaimed(
            Slot(rank, 0), tuple(n for n, _ in back), tuple(a for _, a in back), AttemptEnd.RECLAIMED
        ))  # fmt: skip

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_worker_dies(self, data) -> None:
        rank = data.draw(st.sampled_from(sorted(self.alive)))
        for pair in self.alive.pop(rank):
            self.late.append(ended(Slot(rank, 0), [pair]))
        self.feed(WorkerLost(rank))

    @rule(
        kind=st.sampled_from(["retry", "skip", "first", "add"]),
        numbers=st.lists(st.integers(0, 12), max_size=3),
    )
    def a_user_asks(self, kind, numbers) -> None:
        attempts = self.scheduler.core.trials.attempts
        trials = [(n, attempts[n] if n < len(attempts) else 0) for n in numbers]
        made = asked(kind, *trials, name=f"r{len(self.applied) + len(self.files):04d}", points=len(numbers))
        if kind != "add":
            made = RequestsMade((replace(made.requests[0], configurations=()),))
        self.files[made.requests[0].name] = made.requests[0]
        self.feed(made)

    @precondition(lambda self: not self.is_ended)
    @rule(data=st.data())
    def a_new_master_takes_over(self, data) -> None:
        old = self.scheduler
        self.asked.clear()
        count = old.core.total
        self.scheduler = scheduler_of(
            count,
            states=bytes(old.core.trials.states),
            attempts=list(old.core.trials.attempts),
            held={slot: dict(trials) for slot, trials in old.held.items()},
            losses=dict(old.core.losses.counts),
            retried=self.retried,
            first=self.first,
        )
        # It reads the files that are there before it gets a message.
        requests = tuple(self.files[name] for name in sorted(self.files))
        if requests:
            self.feed(RequestsMade(requests, {one.name: (1,) * len(one.configurations) for one in requests}))
        for rank in sorted(self.alive):
            held = self.alive[rank]
            # A result that was committed and not acknowledged is still held.
            unacknowledged = [
                (block.numbers[0], block.attempts[0])
                for block in (event.block for event in self.late)
                if block.worker == rank and data.draw(st.booleans())
            ]
            self.feed(WorkerJoined(rank, 1, ((*unacknowledged, *held),)))
            for number, attempt in unacknowledged:
                assert (number, attempt) not in self.scheduler.held.get(Slot(rank, 0), {}).items()

    @invariant()
    def invariants_hold(self) -> None:
        if not self.is_ended:
            self.scheduler.check()
            states = [TrialState(s) for s in self.scheduler.core.trials.states]
            assert {n for n, s in enumerate(states) if s.is_end} == set(self.over)

    def teardown(self) -> None:
        """With one healthy worker every request is applied, and every trial has an end."""
        if self.is_ended:
            return
        self.a_worker_joins()
        for _ in range(500):
            if self.is_ended:
                break
            for rank in [*self.asked & set(self.alive)]:
                self.asked.discard(rank)
                self.feed(TrialsReclaimed(Slot(rank, 0), (), (), AttemptEnd.RECLAIMED))
            for rank, held in list(self.alive.items()):
                if held:
                    self.feed(ended(Slot(rank, 0), [held.popleft()]))
            self.feed(TimePassed())
        assert self.is_ended
        if len(self.over) == self.scheduler.core.total:
            assert not self.files


TestRequested = Requested.TestCase
TestRequested.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------------------------- files


def request(kind: str, *trials: tuple[int, int], name: str = "", **more) -> Request:
    return Request(name or new_name(), RequestKind(kind), trials, asked_at=5.0, by="me@here", **more)


def test_requests_are_read_as_they_were_written_and_in_their_order(tmp_path: Path):
    made = [
        request("retry", (3, 1), (4, 2)),
        request("add", configurations=({"x": 1, "mode": "a"}, {"x": 2, "rate": 0.5, "on": True})),
        request("first", (2, 0)),
    ]
    for one in reversed(made):
        write_request(tmp_path / "s.h5", one)
    assert read_requests(tmp_path / "s.h5") == (made, [])
    assert read_requests(tmp_path / "s.h5", {made[0].name}) == (made[1:], [])
    assert read_requests(tmp_path / "other.h5") == ([], [])


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"what": "dance"}', '{"what": "skip", "trials": [[-1, 0]], "asked_at": 1, "by": ""}',
    '{"what": "add", "names": ["x"], "rows": [[[1]]], "asked_at": 1, "by": ""}',
    '{"what": "add", "names": ["x"], "rows": [[1, 2]], "asked_at": 1, "by": ""}',
])  # fmt: skip
def test_a_file_that_is_no_request_is_left_alone(tmp_path: Path, text: str, caplog):
    path = tmp_path / "s.h5"
    write_request(path, request("skip", (1, 0), name="b"))
    request_file(path, "a").write_text(text)
    (requests_folder(path) / ".half").write_text("{")
    found, unreadable = read_requests(path)
    assert ([one.name for one in found], unreadable) == (["b"], ["a.json"])
    watch = RequestWatch(path, tmp_path, ())
    watch.look()
    watch.look()
    assert [one.name for one in watch.take()] == ["b"]
    assert caplog.text.count("a.json: is not a request") == 1
    assert request_file(path, "a").exists()


def test_the_file_of_an_applied_request_is_removed_through_the_token_and_then_the_folder(tmp_path: Path):
    path, token = tmp_path / "s.h5", tmp_path / "token"
    token.mkdir()
    for name in ("a", "b"):
        write_request(path, request("skip", (1, 0), name=name))
    watch = RequestWatch(path, token, ["a"])
    watch.look()
    assert [one.name for one in watch.take()] == ["b"]
    assert not request_file(path, "a").exists()
    assert request_file(path, "b").exists(), "nothing has recorded it"
    watch.note_applied("b")
    watch.look()
    assert not requests_folder(path).exists()


def test_a_superseded_master_removes_no_file(tmp_path: Path):
    path = tmp_path / "s.h5"
    write_request(path, request("skip", (1, 0), name="a"))
    watch = RequestWatch(path, tmp_path / "fenced", ["a"])
    watch.look()
    assert request_file(path, "a").exists()


# ------------------------------------------------------------------------------------- journal and file


def record(kind: str, numbers: list[int], attempts: list[int] | None = None, **more) -> RequestRecord:
    name = more.pop("name", "r1")
    return RequestRecord(name, kind, "me@here", 5.0, 6.0, numbers, attempts or [0] * len(numbers), **more)


def failure(number: int, attempt: int = 1) -> EndedBlock:
    return EndedBlock(
        1, 0, [number], [attempt], [FAILED], [1003.0], [2.0], {"loss": [7.0]}, [1], ["ValueError: x\nat"]
    )


FIRST = TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=1)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_retried_trial_waits_with_nothing_of_its_failure_but_its_attempts(tmp_path: Path, is_compacted):
    path = tmp_path / "s.h5"
    records = [FIRST, joined(1), assigned(2, 1), failure(2), record("retry", [2], [1])]
    # What a failed write repeats: neither the voided result nor the request counts again.
    write_journal(path, [*records, failure(2), records[-1]])
    if is_compacted:
        compact_and_close(path)
    sweep = load(path)
    trial = sweep.trials[2]
    assert (trial["state"], trial["cause"], trial["message"], trial["attempt"]) == ("waiting", "", "", 1)
    assert trial["wall_time"] != trial["wall_time"]
    assert trial["loss"] != trial["loss"]
    assert list(sweep.attempts["end"]) == ["ended"]
    [row] = sweep.requests
    assert (row["request"], row["what"], row["trials"], row["attempts"]) == ("r1", "retry", "[2]", "[1]")
    assert json.loads(row["failures"]) == ["exception: ValueError: x"]
    known = known_after(tmp_path / "k.h5", joined(1), assigned(2, 1), failure(2), record("retry", [2], [1]))
    assert known.retried == {2: 1}
    assert known.not_fresh() == {2}
    assert list(known.attempts_table["trial"]) == [], "voided attempts are no evidence"


def test_a_result_of_the_next_attempt_counts(tmp_path: Path):
    path = tmp_path / "s.h5"
    again = EndedBlock(1, 0, [2], [2], [COMPLETE], [1005.0], [1.0], {"loss": [0.5]})
    write_journal(path, [FIRST, joined(1), assigned(2, 1), failure(2), record("retry", [2], [1]), again])
    compact_and_close(path)
    trial = load(path).trials[2]
    assert (trial["state"], trial["attempt"], trial["loss"]) == ("complete", 2, 0.5)


def test_a_file_with_skipped_trials_has_a_version_that_earlier_releases_refuse(tmp_path: Path):
    path = tmp_path / "s.h5"
    write_journal(path, [FIRST, record("skip", [0, 3])])
    assert [str(state) for state in load(path).trials["state"]] == [
        "skipped",
        "waiting",
        "waiting",
        "skipped",
    ]
    compact_and_close(path)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 2
    assert load(path).trials["message"][0] == "skipped on request of me@here"
    write_journal(path, [record("retry", [0, 3], [0, 0], name="r2")], opening("20260102T000000-bbbbbb"))
    compact_and_close(path)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1
    assert [str(state) for state in load(path).trials["state"]] == ["waiting"] * 4


def test_added_trials_are_in_the_record_of_the_request(tmp_path: Path):
    path = tmp_path / "s.h5"
    added = record(
        "add", [4, 5], parameters={"x": [7, 8], "mode": "fast"}, configurations=[4, 5], repeats=[0, 0]
    )
    write_journal(path, [FIRST, added, added])
    sweep = load(path)
    assert [sweep.configuration(number) for number in (4, 5)] == [
        {"x": 7, "mode": "fast"}, {"x": 8, "mode": "fast"},
    ]  # fmt: skip
    assert len(sweep.requests) == 1
    assert list(sweep.trials["configuration"]) == [0, 1, 2, 3, 4, 5]


def test_trials_that_go_first_are_known_to_the_next_master(tmp_path: Path):
    known = known_after(
        tmp_path / "s.h5",
        record("first", [3, 1]),
        record("first", [2, 3], name="r2"),
        record("skip", [0], name="r3"),
    )
    assert list(known.first) == [2, 3, 1]
    assert list(known.requests) == ["r1", "r2", "r3"]


@pytest.mark.parametrize("broken", [
    {"what": "dance"}, {"numbers": [-1]}, {"attempts": [1, 2]}, {"request": 3}, {"refused": None},
    {"what": "add", "numbers": [4, 6], "attempts": [0, 0]}, {"parameters": {"x": [1, 2]}},
    {"repeats": [0]}, {"asked_at": "now"},
])  # fmt: skip
def test_a_record_with_invalid_fields_is_damage(broken):
    valid = record("skip", [4])
    assert is_valid(valid)
    assert decode(encode(valid)) == valid
    assert not is_valid(replace(valid, **broken))


# ------------------------------------------------------------------------------------- more points


def spec_of(parameters: str, head: str = "") -> object:
    text = f'workload = "m:f"\n{head}\n[parameters]\n{parameters}\n[fixed]\nmode = "fast"\n'
    return parse_spec(text, source="sweep.toml", folder=Path())


GRID = 'x = { from = 1, to = 3 }\nlr = { from = 0.1, to = 1.0, scale = "log", points = 2 }\nkind = ["a", "b"]'


def test_more_points_of_one_parameter_take_all_values_of_the_others():
    points, excluded = more_points(spec_of(GRID), ["x=5:6"])
    assert len(points) == 8
    assert points[0] == {"x": 5, "lr": 0.1, "kind": "a"}
    assert excluded == 0
    assert more_points(spec_of(GRID), ["x=9", "lr=2", "kind=c"])[0] == [{"x": 9, "lr": 2.0, "kind": "c"}]


def test_more_points_obey_constraints_and_conditions():
    spec = spec_of(GRID, 'where = ["x * lr <= 2"]')
    points, excluded = more_points(spec, ["x=3:4"])
    assert {(one["x"], one["lr"]) for one in points} == {(3, 0.1), (4, 0.1)}
    assert excluded == 4
    with pytest.raises(SpecError, match="no point satisfies 'x \\* lr <= 2'"):
        more_points(spec, ["x=300:400"])


@pytest.mark.parametrize(("head", "given", "problem"), [
    ("", ["y=3"], "-p y: is not searched; known are x, lr, kind"),
    ("", ["mode=slow"], "-p mode: is fixed at 'fast' in the sweep file"),
    ("", ["x"], "expected NAME=VALUES"),
    ("", ["x=0.5"], "expected values like those of the sweep file: integers from 1 to 3"),
    ("", ["lr=0.1:1"], "needs its number of points: 0.1:1:points=8"),
    ("", ["lr=fast"], "expected values like those of the sweep file"),
    ("", ["x=4", "x=5"], "a parameter is given twice"),
    ("", ["x=1:200000"], "adds up to 100,000 points"),
    ("", ["x=1:90000"], "these are 360,000 points; a request adds up to 100,000"),
    ('search = "random"\ntrials = 4', ["x=4"], "only a grid takes more points; raise 'trials'"),
    ('zip = [["lr", "kind"]]', ["lr=0.5"], "lr and kind vary together; give equally many values of each"),
])  # fmt: skip
def test_points_that_make_no_sense_are_refused_in_one_sentence(head, given, problem):
    with pytest.raises(SpecError) as caught:
        more_points(spec_of(GRID, head), given)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_points_takes_points_with_every_parameter():
    spec = parse_spec(
        'workload = "m:f"\npoints = [{ x = 1, y = 2 }, { x = 3, y = 5 }]\n', source="s.toml", folder=Path()
    )
    assert more_points(spec, ["x=7", "y=8:9"])[0] == [{"x": 7, "y": 8}, {"x": 7, "y": 9}]
    with pytest.raises(SpecError, match="-p y: is missing"):
        more_points(spec, ["x=7"])


# ------------------------------------------------------------------------------------- commands


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """Trial 0 waits, 1 is complete, 2 has failed, 3 is skipped."""
    path = tmp_path / "s.h5"
    complete = EndedBlock(1, 0, [1], [1], [COMPLETE], [1005.0], [1.0], {"loss": [0.5]})
    write_journal(
        path, [FIRST, joined(1), assigned(1, 1), complete, assigned(2, 1), failure(2), record("skip", [3])]
    )
    compact_and_close(path)
    return path


@pytest.mark.parametrize(("command", "problem"), [
    (["retry", "1"], "trial 1 is complete; retry applies to failed and skipped trials"),
    (["retry", "2", "7"], "there is no trial 7; the last is 3"),
    (["retry"], "give either the numbers of trials or --failed"),
    (["retry", "2", "--failed"], "give either the numbers of trials or --failed"),
    (["skip", "0:2"], "trial 1 is complete, trial 2 is failed; skip applies to waiting trials"),
    (["first", "3"], "trial 3 is skipped; first applies to waiting trials"),
    (["add", "-p", "x=a"], "expected values like those of the sweep file: integers from 1 to 4"),
])  # fmt: skip
def test_a_command_that_makes_no_sense_is_refused_and_writes_nothing(swept: Path, capsys, command, problem):
    assert main([command[0], str(swept), *command[1:]]) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1
    assert not requests_folder(swept).exists()


@pytest.mark.parametrize(("command", "said"), [
    (["retry", "0"], "trial 0 is waiting already"),
    (["skip", "3"], "trial 3 is skipped already"),
    (["add", "-p", "x=2:3"], "nothing to add: the sweep has every point of x=2:3"),
])  # fmt: skip
def test_a_command_with_nothing_left_to_do_writes_nothing(swept: Path, capsys, command, said):
    assert main([command[0], str(swept), *command[1:]]) == 0
    assert said in capsys.readouterr().out
    assert not requests_folder(swept).exists()


def test_commands_write_what_they_say(swept: Path, capsys):
    for command in (
        ["retry", "--failed"],
        ["retry", "3"],
        ["skip", "0"],
        ["first", "0"],
        ["add", "-p", "x=4:6"],
    ):
        assert main([command[0], str(swept), *command[1:]]) == 0
    found, _ = read_requests(swept)
    assert [(one.kind.value, one.trials, one.configurations) for one in found] == [
        ("retry", ((2, 1),), ()), ("retry", ((3, 0),), ()), ("skip", ((0, 0),), ()), ("first", ((0, 0),), ()),
        ("add", (), ({"x": 5}, {"x": 6})),
    ]  # fmt: skip
    assert "asked to add 2 points (x=4:6); no run is active" in capsys.readouterr().out
    main(["status", str(swept)])
    assert capsys.readouterr().out.count("not applied yet") == 5


@pytest.mark.parametrize(("head", "command", "why"), [
    ('search = "tpe"\ntrials = 4\n', ["retry", "2"], "has learned from the trials that ended"),
    ('search = "tpe"\ntrials = 4\n', ["add", "-p", "x=9"], "has learned from the trials that ended"),
    ("repeats = { from = 2, to = 4 }\n", ["retry", "2"], "its repeats are a race between configurations"),
])  # fmt: skip
def test_a_sweep_whose_search_leaves_no_room_for_a_request_says_so(tmp_path, capsys, head, command, why):
    path = tmp_path / "s.h5"
    spec = f'workload = "m:f"\n{head}[parameters]\nx = {{ from = 1, to = 4 }}\n[fixed]\nmode = "fast"\n'
    write_journal(path, [FIRST, joined(1), assigned(2, 1), failure(2)], opening(spec=spec))
    assert main([command[0], str(path), *command[1:]]) == 2
    assert why in capsys.readouterr().err
    assert not requests_folder(path).exists()


def test_a_split_sweep_is_named_as_the_reason(swept: Path, capsys):
    shares_folder(swept).mkdir()
    assert main(["skip", str(swept), "0"]) == 2
    assert "is split between several runs" in capsys.readouterr().err


def test_a_job_of_a_chain_has_something_to_do_while_a_retry_or_an_addition_waits(swept: Path):
    write_request(swept, request("skip", (0, 0)))
    assert standing(swept) == Standing(3, 4)
    write_request(swept, request("retry", (2, 1), (3, 0)))
    assert standing(swept) == Standing(3, 6)


def test_a_sweep_that_starts_afresh_leaves_the_requests_to_the_old_one(swept: Path):
    write_request(swept, request("skip", (0, 0)))
    token = swept.parent / "token"
    token.mkdir()
    kept = move_aside(swept, token)
    assert kept is not None
    assert read_requests(swept) == ([], [])
    assert len(read_requests(kept)[0]) == 1


# ------------------------------------------------------------------------------------- the master's desk


class Desk:
    """A desk with a real folder of requests, whose journal is a list."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.h5"
        token = folder / "token"
        token.mkdir()
        spec = spec_of("x = { from = 1, to = 4 }")
        self.trials = number_trials(spec, make_sampler(spec), None)
        self.watch = RequestWatch(self.path, token, ())
        self.bodies: list[bytes] = []
        self.desk = RequestDesk(spec, self.trials, self.watch, self.append, None)

    def append(self, body: bytes) -> int:
        self.bodies.append(body)
        return len(self.bodies)

    def take(self) -> RequestsMade | None:
        self.watch.look()
        return self.desk.take()


def test_the_file_of_a_request_stays_until_its_record_is_on_the_disk(tmp_path: Path):
    desk = Desk(tmp_path)
    assert desk.take() is None
    write_request(desk.path, request("skip", (2, 0), name="r1"))
    made = desk.take()
    assert [one.name for one in made.requests] == ["r1"]
    desk.desk.apply(ApplyRequest("r1", [2], [0]))
    assert decode(desk.bodies[0]) == replace(
        record("skip", [2]), applied_at=decode(desk.bodies[0]).applied_at
    )
    for synced in (-1, 0):
        assert not desk.desk.release(synced)
        assert desk.take() is None, "it is taken once"
        assert request_file(desk.path, "r1").exists()
    assert desk.desk.release(1)
    desk.watch.look()
    assert not requests_folder(desk.path).exists()


def test_points_that_two_users_add_at_the_same_time_are_added_once(tmp_path: Path):
    desk = Desk(tmp_path)
    write_request(desk.path, request("add", name="a", configurations=({"x": 4}, {"x": 5})))
    write_request(desk.path, request("add", name="b", configurations=({"x": 5}, {"x": 6})))
    write_request(desk.path, request("add", name="c", configurations=({"y": 1},)))
    made = desk.take()
    assert [[one["x"] for one in asked.configurations] for asked in made.requests] == [[5], [6], []]
    desk.desk.apply(ApplyRequest("a", [4], [0], "", [{"x": 5, "mode": "fast"}]))
    first = decode(desk.bodies[0])
    assert (first.numbers, first.parameters, first.configurations) == ([4], {"x": 5, "mode": "fast"}, [])
    desk.desk.apply(ApplyRequest("c", [], []))
    assert decode(desk.bodies[1]).refused == "the sweep has no parameter 'y'"
