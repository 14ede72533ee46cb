"""Carrying out the scheduler's decisions: records for the journal, messages for the ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from mpisweep.blocks import (
    AssignedBlock,
    InfeasibleBlock,
    QuarantineRecord,
    SharingRecord,
    UnfinishedBlock,
    encode,
)
from mpisweep.master.lease_client import LeaseClient
from mpisweep.master.outbox import Outbox
from mpisweep.master.prune_client import PruneClient
from mpisweep.master.request_watch import RequestWatch
from mpisweep.master.requesting import RequestDesk
from mpisweep.master.roster import Roster
from mpisweep.master.search_client import SearchClient
from mpisweep.master.standing import Standing
from mpisweep.messages import AbandonTrial, Give, Message, PruneTrial, ReclaimTrials, StopTrials, Team
from mpisweep.progress import sharing_text
from mpisweep.records import Slot
from mpisweep.results.journal.writer import Journal
from mpisweep.scheduling.decisions import (
    Abandon,
    AddRepeats,
    AddTrials,
    ApplyRequest,
    Assign,
    Commit,
    Decision,
    GiveUp,
    MarkInfeasible,
    Propose,
    Prune,
    Quarantine,
    Reclaim,
    RequestLease,
    Share,
    Stop,
)
from mpisweep.scheduling.events import Event, TrialsEnded
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["Effects"]

log = logging.getLogger(__name__)


class Effects:
    """Carries out the scheduler's decisions, except for the end.

    Args:
        trials: all trials.
        journal: stores records.
        outbox: delays messages until their records are on disk.
        send: sends messages to a rank at once.
        roster: the ranks.
        standing: notes results.
        lease_client: leases trials of a shared sweep; None if it is not shared.
        search_client: asks a learning search for proposals; None for other searches.
        prune_client: has running trials judged; None if none is pruned.
        spec: the sweep file.
        request_watch: reads users' requests; None if this run takes none.

    Attributes:
        desk: records users' requests.
    """

    def __init__(
        self,
        trials: Trials,
        journal: Journal,
        outbox: Outbox,
        send: Callable[[int, Sequence[Message]], None],
        roster: Roster,
        standing: Standing,
        lease_client: LeaseClient | None,
        search_client: SearchClient | None,
        prune_client: PruneClient | None,
        spec: Spec,
        request_watch: RequestWatch | None,
    ) -> None:
        self._trials = trials
        self._journal = journal
        self._outbox = outbox
        self._send = send
        self._roster = roster
        self._standing = standing
        self._lease_client = lease_client
        self._search_client = search_client
        self._prune_client = prune_client
        self.desk = RequestDesk(spec, trials, request_watch, self.append, search_client)
        #: Token of the last record.
        self.last_token = 0

    def append(self, body: bytes) -> int:
        """Append a record to the journal; returns its token."""
        self.last_token = self._journal.append(body)
        return self.last_token

    def store_reports(self, body: bytes) -> None:
        """Store an encoded ReportBlock, and have its trial judged."""
        token = self.append(body)
        if self._prune_client is not None:
            self._prune_client.report(body, token)

    def carry_out(self, decision: Decision, event: Event, body: bytes | None) -> None:
        """Carry out one decision.

        Args:
            decision: any decision except the end.
            event: the event that caused it.
            body: the encoded block of the event; None if it had none.
        """
        match decision:
            case Assign(slots, numbers, attempts, fresh):
                self._assign(slots, numbers, attempts, fresh)
            case Commit(block):
                is_unchanged = isinstance(event, TrialsEnded) and block is event.block
                self.append(body if body is not None and is_unchanged else encode(block))
                self._outbox.decide(block.numbers, self.last_token)
                self._standing.note(block)
                if self._search_client is not None:
                    self._search_client.tell(block)
                if self._prune_client is not None:
                    self._prune_client.tell(block, self.last_token)
            case AddTrials(numbers, configurations, known, repeats):
                self._trials.grow(configurations, repeats)
                self.append(encode(self._trials.block(numbers, known=known)))
            case AddRepeats(numbers, configurations, repeats):
                self._trials.repeat(configurations, repeats)
                self.append(encode(self._trials.block(numbers)))
            case ApplyRequest():
                self.desk.apply(decision)
            case Propose(count):
                assert self._search_client is not None
                self._search_client.propose(count)
            case Prune(slot, number, attempt):
                self._send(slot.rank, [PruneTrial(slot.place, number, attempt)])
            case MarkInfeasible(numbers, why):
                self.append(encode(InfeasibleBlock(numbers, why)))
                if self._search_client is not None:
                    self._search_client.tell_infeasible(numbers)
                log.info("%d trials are infeasible: %s", len(numbers), why)
            case GiveUp(rank, numbers, attempts, end):
                self.append(encode(UnfinishedBlock(rank, numbers, attempts, int(end), time.time())))
                self._outbox.decide(numbers, self.last_token)
            case Abandon(slot, number, attempt, linger_s):
                self._outbox.send_in_turn(slot.rank, AbandonTrial(slot.place, number, attempt, linger_s))
            case Reclaim(slot):
                self._outbox.send_in_turn(slot.rank, ReclaimTrials(slot.place))
            case Stop(grace_s, only):
                for rank in self._roster.ranks if only is None else [only]:
                    self._send(rank, [StopTrials(grace_s)])
            case Quarantine(slot, why):
                self.append(encode(QuarantineRecord(slot.rank, time.time(), why)))
                self._roster.quarantine(slot, why)
            case Share(kind, trials, gain, step):
                self.append(encode(SharingRecord(time.time(), kind, trials, gain)))
                log.info("%s", sharing_text(kind, trials, gain, step))
            case RequestLease(shortest, ranks):
                assert self._lease_client is not None
                self._lease_client.lease(shortest, ranks)

    def _assign(self, slots: Sequence[Slot], numbers: list[int], attempts: list[int], fresh: bool) -> None:
        columns = self._trials.columns(numbers)
        pairs = [[slot.rank, slot.place] for slot in slots]
        repeats = self._trials.repeats_of(numbers)
        body = encode(AssignedBlock(pairs, time.time(), numbers, attempts, columns, fresh, repeats))
        token = self.append(body)
        teams: Sequence[Team | None] = self._roster.teams(slots) if len(slots) > 1 else (None,)
        for slot, team in zip(slots, teams, strict=True):
            self._outbox.send_written(token, slot.rank, Give(slot.place, len(numbers), body, team))
