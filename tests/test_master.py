"""The master's loop without MPI and without a disk: which messages are sent, and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mpisweep.blocks import EndedBlock, encode
from mpisweep.master.best import BestSoFar
from mpisweep.master.known import duration_model, trial_widths
from mpisweep.master.lease_client import EndedByOthers
from mpisweep.master.loop import Master
from mpisweep.master.snapshotter import Answer
from mpisweep.master.vigil import Vigil
from mpisweep.messages import (
    AbandonTrial,
    Acknowledge,
    Ended,
    Give,
    Hello,
    Message,
    ReclaimedTrials,
    ReclaimTrials,
    Rendezvous,
    RendezvousReady,
)
from mpisweep.progress import Progress
from mpisweep.records import AttemptEnd, TrialState
from mpisweep.results.claim import FollowedError, RunOverError
from mpisweep.results.journal.writer import Journal
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import make_sampler
from mpisweep.search.numbering import number_trials
from mpisweep.spec import parse_spec


class SlowDisk:
    """A journal and a snapshotter on a disk that the test advances."""

    segment = ""
    failure = waits_since = busy_since = None
    busy = is_deleted = False

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.written = self.synced = -1
        self.snapshots = 0
        self.answer: Answer | None = None

    def append(self, body: bytes) -> int:
        self.bodies.append(body)
        return len(self.bodies) - 1

    def write(self) -> None:
        self.written = len(self.bodies) - 1

    def sync(self) -> None:
        self.write()
        self.synced = self.written

    def fileno(self) -> int:
        return 0

    def poll(self) -> Answer | None:
        """Return the answer that the test has set, once."""
        answer, self.answer = self.answer, None
        return answer

    def keep_time(self, now: float) -> None:
        """Never times out."""

    def compact(self, segment: str) -> None:
        self.snapshots += 1

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""

    def compact_and_close(self, closing_since: float) -> None:
        """Start the last snapshot, which never ends."""


class ConfirmedVigil:
    """A vigil that confirmed the claim at the time that the test sets."""

    lease_s = 1.0
    stop_seen = False
    lost: RunOverError | FollowedError | None = None
    confirmed_at = 0.0

    def end(self) -> None:
        """Do nothing."""


class NoProgress:
    """A progress sink that shows nothing."""

    def wants(self, now: float) -> bool:
        return False

    def show(self, progress: Progress) -> None:
        """Never called."""


class Ranks:
    """A master, and the messages sent to each rank, in order."""

    def __init__(self, sweep: str, lease_client: object = None, *, ranks: int = 2) -> None:
        spec = parse_spec(sweep, source="sweep.toml", folder=Path())
        trials = number_trials(spec, make_sampler(spec), None)
        self.disk = SlowDisk()
        self.vigil = ConfirmedVigil()
        self.now = 0.0
        self.sent: dict[int, list[Message]] = {}
        self.master = Master(
            spec=spec, trials=trials, best=BestSoFar(spec.objectives), measures=False, tells_end=False,
            scheduler=Scheduler(
                trials.states, trials.attempts, duration_model(spec, trials, None), retries=1, grace_s=1.0,
                widths=trial_widths(spec, trials), shared=lease_client is not None,
            ),
            journal=cast(Journal, self.disk), snapshotter=cast(Any, self.disk), vigil=cast(Vigil, self.vigil),
            send=self.send, sink=NoProgress(), stop_at=None, folders=(), ranks=ranks, now=0.0, clock=lambda: self.now,
            lease_client=cast(Any, lease_client),
        )  # fmt: skip

    def send(self, rank: int, messages: Sequence[Message]) -> None:
        self.sent.setdefault(rank, []).extend(messages)

    def join(self, rank: int) -> None:
        self.master.on_messages(rank, [Hello("node", "cpu", 1, 1, environment=((),))], 0.0)

    def end(self, rank: int, delivery: int, number: int, attempt: int = 1) -> None:
        """Deliver a worker's result of a trial to the master."""
        block = EndedBlock(
            rank, 0, [number], [attempt], [int(TrialState.COMPLETE)], [1.0], [1.0], {"loss": [1.0]}
        )
        self.master.on_messages(rank, [Ended(delivery, encode(block))], 0.0)

    def take(self, rank: int) -> list[type[Message]]:
        """Step the master; return the types of the messages sent to a rank since the last call."""
        self.master.step(self.now, set())
        return [type(message) for message in self.sent.pop(rank, [])]


ONE_TRIAL = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 1 }\n'


def test_an_assignment_is_sent_once_its_record_is_written_and_a_result_acknowledged_once_it_is_synced():
    """A record that is not written when the master dies was never sent; a power cut may lose one that is not synced."""
    ranks = Ranks(ONE_TRIAL)
    ranks.join(1)
    assert ranks.take(1) == []
    ranks.disk.write()
    assert ranks.take(1) == [Give]
    ranks.end(1, delivery=5, number=0)
    ranks.disk.write()
    assert ranks.take(1) == []
    ranks.disk.sync()
    ranks.master.step(0.0, set())
    assert ranks.sent == {1: [Acknowledge((5,))]}


def test_a_result_of_several_ranks_is_acknowledged_to_each_once_the_trial_s_end_is_synced():
    ranks = Ranks("ranks_per_trial = 2\n" + ONE_TRIAL)
    for rank in (0, 1):
        ranks.join(rank)
    ranks.disk.sync()
    assert (ranks.take(0), ranks.take(1)) == ([Give], [Give])
    ranks.end(1, delivery=7, number=0)
    ranks.disk.sync()
    assert (ranks.take(0), ranks.take(1)) == ([], []), "the trial has not ended before all of its ranks have"
    ranks.end(0, delivery=3, number=0)
    ranks.disk.write()
    assert (ranks.take(0), ranks.take(1)) == ([], [])
    ranks.disk.sync()
    ranks.master.step(0.0, set())
    assert ranks.sent == {0: [Acknowledge((3,))], 1: [Acknowledge((7,))]}


def test_an_abandonment_is_not_sent_before_its_assignment():
    """Otherwise the rank ignores the abandonment and, once assigned, waits for the others forever."""
    ranks = Ranks('workload = "m:f"\nranks_per_trial = 2\n[parameters]\nx = { from = 1, to = 1 }\n')
    ranks.join(0)
    ranks.join(1)
    ranks.master.on_lost(1, "it died", 0.0)
    ranks.disk.write()
    ranks.master.step(0.0, set())
    assert [type(message) for message in ranks.sent[0] if isinstance(message, (Give, AbandonTrial))] == [
        Give,
        AbandonTrial,
    ]


def test_a_reclaim_is_not_sent_before_its_assignment():
    """Otherwise the rank returns nothing, and the trial waits behind a long one although a slot is idle."""
    ranks = Ranks(ONE_TRIAL.replace("to = 1", "to = 2"))
    ranks.join(1)
    ranks.join(2)
    # Rank 1 was assigned both trials long ago; only the disk delays them.
    ranks.now = 1.0
    assert ranks.take(1) == []
    ranks.disk.write()
    assert ranks.take(1) == [Give, Give, ReclaimTrials]


def test_the_rendezvous_of_an_earlier_attempt_is_not_sent_to_a_later_one():
    ranks = Ranks('workload = "m:f"\nranks_per_trial = 2\n[parameters]\nx = { from = 1, to = 1 }\n')
    ranks.join(0)
    ranks.join(1)
    for rank in (0, 1):
        ranks.master.on_messages(rank, [ReclaimedTrials(0, (0,), (1,), AttemptEnd.RECLAIMED)], 0.0)
    ranks.master.on_messages(0, [RendezvousReady(0, 1, "node:1"), RendezvousReady(0, 2, "node:2")], 0.0)
    assert [message for message in ranks.sent[1] if isinstance(message, Rendezvous)] == [
        Rendezvous(0, 0, 2, "node:2")
    ]


def test_a_master_that_stalled_acknowledges_nothing_before_its_claim_is_confirmed():
    """Meanwhile a successor may have read the disk; results that arrived after that do not count."""
    ranks = Ranks(ONE_TRIAL)
    ranks.join(0)
    ranks.disk.sync()
    ranks.take(0)
    ranks.end(0, 1, 0)
    ranks.now = 60.0
    ranks.disk.sync()
    assert Acknowledge not in ranks.take(0)
    ranks.now = 60.5
    assert Acknowledge not in ranks.take(0)
    ranks.vigil.confirmed_at = 60.5
    assert Acknowledge in ranks.take(0)


def test_a_disk_that_does_not_confirm_the_claim_delays_only_acknowledgements():
    ranks = Ranks(ONE_TRIAL)
    for tenth in range(20):
        ranks.now = tenth / 10
        ranks.take(0)
    ranks.join(0)
    ranks.disk.sync()
    assert Give in ranks.take(0)
    ranks.end(0, 1, 0)
    ranks.disk.sync()
    assert Acknowledge not in ranks.take(0)


@pytest.mark.parametrize("lost", [RunOverError("r"), FollowedError("r")])
def test_a_fenced_master_reports_it_and_acknowledges_nothing(lost):
    ranks = Ranks(ONE_TRIAL)
    ranks.join(0)
    ranks.disk.sync()
    ranks.take(0)
    ranks.end(0, 1, 0)
    ranks.vigil.lost = lost
    ranks.now = 2.0
    ranks.disk.sync()
    assert Acknowledge not in ranks.take(0)
    assert ranks.master.fenced is lost
    assert ranks.master.exit_code is None


@pytest.mark.parametrize("error", ["", "No space left on device"])
def test_the_next_snapshot_starts_after_fifty_times_the_last_one_s_duration_also_if_it_failed(error):
    """Snapshots take up to 2% of the time."""
    ranks = Ranks(ONE_TRIAL.replace("to = 1", "to = 3"))
    ranks.join(0)
    ranks.disk.sync()
    ranks.take(0)
    assert ranks.disk.snapshots == 1
    ranks.disk.answer = Answer(3.0, error)
    ranks.now = 3.0
    ranks.end(0, 1, 0)
    ranks.disk.sync()
    for second in range(3, 153):
        ranks.now = float(second)
        ranks.take(0)
    assert ranks.disk.snapshots == 1
    ranks.now = 153.0
    ranks.take(0)
    assert ranks.disk.snapshots == 2


class EndedByOthersClient:
    """A lease client that reports that other members have ended the sweep, and that must not be used once closed."""

    is_closed = False

    def fileno(self) -> int:
        return 7

    def hear(self) -> list[EndedByOthers]:
        return [EndedByOthers(0)]

    def close(self) -> None:
        self.is_closed = True

    def lease(self, shortest: bool, ranks: int | None) -> None:
        assert not self.is_closed

    def keep_time(self, now: float) -> None:
        """Never times out."""


def test_a_member_requests_no_lease_after_others_have_ended_the_sweep():
    """The scheduler, which was stalled for a while, would request trials at once."""
    lease_client = EndedByOthersClient()
    ranks = Ranks(ONE_TRIAL, lease_client)
    ranks.join(1)
    ranks.now = 100.0
    ranks.master.step(ranks.now, {lease_client.fileno()})
    assert lease_client.is_closed
    assert ranks.master.exit_code == 0
