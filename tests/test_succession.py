"""The choice of the master when ranks die, hang and wake up, simulated without MPI by hypothesis."""

from __future__ import annotations

from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpisweep.rank.succession import Succession

SILENCE_S = 3.0


class World:
    """Ranks with a clock, a FIFO channel per pair, and the rules of :mod:`mpisweep.rank.loop`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.now = 0.0
        self.views = [Succession(rank, size, silence_s=SILENCE_S, now=0.0) for rank in range(size)]
        self.channels: dict[tuple[int, int], deque[int | str]] = {
            (a, b): deque() for a in range(size) for b in range(size)
        }
        self.dead: set[int] = set()
        self.paused: set[int] = set()
        self.noticed: set[tuple[int, int]] = set()
        self.is_master = [False] * size
        self.last_turn = [0.0] * size
        #: Epochs in order of their beginning.
        self.epochs: list[int] = []
        self.maybe_lead(0)

    def send(self, sender: int, receiver: int, message: int | str) -> None:
        if receiver not in self.dead:
            self.channels[sender, receiver].append(message)

    def maybe_lead(self, rank: int) -> None:
        view = self.views[rank]
        if view.must_lead:
            view.lead()
            self.is_master[rank] = True
            self.epochs.append(view.epoch)
            for other in range(self.size):
                self.send(rank, other, view.epoch)

    def runs(self, rank: int) -> bool:
        return rank not in self.dead and rank not in self.paused

    def deliver(self, sender: int, receiver: int) -> None:
        if not self.runs(receiver) or not self.channels[sender, receiver]:
            return
        message, view = self.channels[sender, receiver].popleft(), self.views[receiver]
        view.hear(sender, self.now)
        if view.is_lost(sender) and self.is_master[receiver]:
            view.welcome(sender, self.now)
            self.send(receiver, sender, view.epoch)
        if isinstance(message, int) and view.accept_lead(sender, message, self.now) and sender != receiver:
            self.is_master[receiver] = False

    def notice(self, rank: int, dead: int) -> None:
        if self.runs(rank) and dead in self.dead and (rank, dead) not in self.noticed:
            self.noticed.add((rank, dead))
            self.lose(rank, dead)

    def lose(self, rank: int, lost: int) -> None:
        view = self.views[rank]
        if not view.is_lost(lost):
            view.lose(lost, self.now)
            if not self.is_master[rank]:
                self.maybe_lead(rank)

    def turn(self, rank: int) -> None:
        """Send a rank's heartbeats, except to ranks that it knows to be dead, and check for silent ranks."""
        if not self.runs(rank):
            return
        view = self.views[rank]
        if self.now - self.last_turn[rank] > 1.0:
            view.forgive_stall(self.now - self.last_turn[rank])
        self.last_turn[rank] = self.now
        for silent in view.silent(self.now):
            self.lose(rank, silent)
        for other in view.alive if self.is_master[rank] else [view.master]:
            self.send(rank, other, "beat")

    def second_passes(self) -> None:
        self.now += 1.0
        for rank in range(self.size):
            self.turn(rank)

    def settle(self) -> None:
        """End the faults: every rank runs, every message arrives, every death is detected."""
        self.paused.clear()
        for _ in range(80 * self.size):
            for rank in range(self.size):
                for other in range(self.size):
                    self.notice(rank, other)
                    while self.runs(rank) and self.channels[other, rank]:
                        self.deliver(other, rank)
            self.second_passes()


@st.composite
def events(draw):
    size = draw(st.integers(2, 6))
    rank = st.integers(0, size - 1)
    one = st.one_of(
        st.tuples(st.just("deliver"), rank, rank),
        st.tuples(st.just("deliver"), rank, rank),
        st.tuples(st.just("notice"), rank, rank),
        st.tuples(st.just("kill"), rank, st.just(0)),
        st.tuples(st.just("pause"), rank, st.just(0)),
        st.tuples(st.just("wake"), rank, st.just(0)),
        st.tuples(st.just("second"), st.just(0), st.just(0)),
    )
    return size, draw(st.lists(one, max_size=120))


@given(events())
@example((3, [("pause", 0, 0), ("deliver", 0, 2), *[("second", 0, 0)] * 3]))
@settings(max_examples=400, deadline=None)
def test_finally_all_live_ranks_follow_one_master(story):
    """After any deaths, hangs and delays one live rank leads and all others follow it."""
    size, happenings = story
    world = World(size)
    for what, one, other in happenings:
        if what == "deliver":
            world.deliver(one, other)
        elif what == "notice":
            world.notice(one, other)
        elif what == "kill" and len(world.dead) < size - 1:
            world.dead.add(one)
            world.paused.discard(one)
        elif what == "pause" and one not in world.dead:
            world.paused.add(one)
        elif what == "wake":
            world.paused.discard(one)
        elif what == "second":
            world.second_passes()
    world.settle()
    living = [rank for rank in range(size) if rank not in world.dead]
    leaders = [rank for rank in living if world.is_master[rank]]
    assert len(leaders) == 1, (leaders, world.epochs)
    assert {world.views[rank].master for rank in living} == {leaders[0]}
    assert all(world.views[rank].is_led for rank in living)
    assert {world.views[rank].epoch for rank in living} == {max(world.epochs)}, (
        "an earlier epoch has come back"
    )
    assert len(set(world.epochs)) == len(world.epochs), "two masters had the same epoch"


def test_an_earlier_epoch_is_never_followed_again():
    """Messages from a superseded master are ignored."""
    view = Succession(3, 4, silence_s=SILENCE_S, now=0.0)
    assert view.accept_lead(0, 0, 1.0)
    assert view.accept_lead(2, 2, 2.0)
    assert not view.accept_lead(0, 0, 3.0)
    assert view.master == 2


def test_a_former_master_that_leads_again_begins_a_new_epoch():
    """Messages of its second term cannot be mistaken for those of its first."""
    view = Succession(0, 2, silence_s=SILENCE_S, now=0.0)
    view.lead()
    assert view.epoch == 0
    assert view.accept_lead(1, 1, 1.0)
    view.lose(1, 2.0)
    assert view.must_lead
    view.lead()
    assert view.epoch == 2


def test_time_in_which_a_rank_did_not_run_does_not_count_as_silence():
    """After the whole job was suspended, no rank is declared lost."""
    view = Succession(0, 3, silence_s=SILENCE_S, now=0.0)
    view.lead()
    assert view.silent(2.0) == []
    view.forgive_stall(1000.0)
    assert view.silent(1002.0) == []
    assert view.silent(1004.0) == [1, 2]
