"""A rank's office: becoming master, being it, and stepping down.

Every rank has one; most of the time it is vacant.  A master begins with Lead, to which every worker answers
Hello with all that it holds: so the first master and one that takes over from a dead one begin in the same
way (:mod:`mpisweep.master.leading`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from mpisweep.dataclass import replace
from mpisweep.master.leading import (
    AlreadyCompleteError,
    DiskFailedError,
    Leading,
    Mastership,
    RunEndedError,
)
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.messages import Begun, Kill, Lead, ToMaster
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import process_start
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.setup import MasterSetup
from mpisweep.rank.succession import Succession
from mpisweep.rank.transport import Transport
from mpisweep.records import EndReason
from mpisweep.results import ResultsError
from mpisweep.spec import Spec

if TYPE_CHECKING:
    from mpisweep.master.loop import Master
    from mpisweep.master.opening import Opened
    from mpisweep.results.claim import FollowedError, RunOverError

__all__ = ["Office"]

log = logging.getLogger(__name__)


class Office:
    """A rank as the master, or on its way to that; its worker runs beside it.

    Args:
        spec: the sweep file.
        options: of the command line.
        place: where the results file lies, and where this run lives.
        server: forks the processes that work for a master.
        transport: between ranks.
        succession: who is master.
        environment: the environment that the results file records.
        ends_at: when the allocation ends, in seconds since 1970; None if unknown.

    Attributes:
        leader: the last Lead of the last master.
        exit_code: of the run, once this rank as its master knows it.
    """

    def __init__(
        self,
        spec: Spec,
        options: RankOptions,
        place: Place,
        server: ForkServer,
        transport: Transport,
        succession: Succession,
        environment: dict[str, str],
        ends_at: float | None,
    ) -> None:
        self._spec = spec
        self._options = options
        self._server = server
        self._transport = transport
        self._succession = succession
        self._ends_at = ends_at
        self._setup = MasterSetup(spec, options, place, server, transport, environment)
        #: Set while this rank is becoming master; then the master is.
        self._leading: Leading | None = None
        self._snapshotter: Snapshotter | None = None
        self._master: Master | None = None
        self.leader: Lead | None = None
        self.exit_code: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this rank is the master, or on its way to that."""
        return self._master is not None or self._leading is not None

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to do."""
        if self._leading is not None:
            return [self._leading.fileno()]
        return self._master.files() if self._master is not None else []

    def step(self, now: float, ready: Set[int]) -> bool:
        """Do what is due; True if anything happened.

        Args:
            now: the monotonic clock.
            ready: descriptors that are readable.
        """
        happened = False
        if self._leading is not None:
            self._leading.keep_time(now)
            if self._leading.outcome is not None:
                happened = True
                self._take_office(self._leading, now)
        if self._master is not None:
            happened = self._master.step(now, ready) or happened
            if self._master.fenced is not None:
                self._give_way(self._master.fenced, now)
            else:
                self.exit_code = self._master.exit_code
        return happened

    # ------------------------------------------------------------------------------------- messages

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """Take a worker's messages to the master."""
        if self._master is not None:
            self._master.on_messages(rank, messages, now)
        elif self._leading is not None:
            self._leading.keep(rank, messages)

    def on_follow(self, rank: int, epoch: int) -> None:
        """Note that a rank follows the master of this epoch."""
        if self._leading is not None and epoch == self._succession.epoch:
            self._leading.follow(rank)

    def on_begun(self, rank: int, run: str) -> None:
        """Note that a rank has begun a run, if that rank is the master."""
        if rank == self._succession.master and self.leader is not None:
            self.leader = replace(self.leader, run=run, has_begun=True)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """Note that a rank is lost; if that was the master, this rank may have to take over."""
        if self._master is not None:
            self._master.on_lost(rank, why, now)
        elif self._leading is not None:
            self._leading.lose(rank, why)
        elif self._succession.must_lead:
            log.warning("rank %d, the master, is lost (%s)", rank, why)
            leading = self.lead()
            # Its workers that are gone send no Hello.
            for gone in sorted(set(range(self._transport.size)) - set(self._succession.alive)):
                leading.lose(gone, "it died before this master took over")

    def follow(self, lead: Lead, rank: int) -> None:
        """Follow a master, which may be this rank itself."""
        if self.is_held and rank != self._transport.rank:
            log.warning("rank %d became master while this rank was stalled", rank)
            self._step_down()
        self.leader, self._ends_at = lead, lead.ends_at

    # ------------------------------------------------------------------------------------- becoming master

    def lead(self) -> Leading:
        """Tell all ranks that this one is the master, and begin to open the sweep."""
        former, succession = self.leader, self._succession
        succession.lead()
        run = former.run if former else _new_name()
        process = os.getpid()
        self.leader = Lead(
            run, self._transport.host, process, process_start(process), succession.epoch, self._ends_at,
            former is not None and former.has_begun,
        )  # fmt: skip
        # Also to ranks declared dead for their silence: they may be back, and follow another master.
        for rank in range(self._transport.size):
            self._transport.send(rank, [self.leader])
            if former is not None:
                # It may hang rather than be dead; only a rank on its node can end it.
                self._transport.send(rank, [Kill(former.host, former.process, former.process_start)])
        if former is not None:
            log.warning("rank %d is the master now", self._transport.rank)
        is_first, ends_at = former is None and succession.epoch == 0, self._ends_at
        mastership = Mastership(run, succession.epoch, is_first, self.leader.has_begun)
        self._snapshotter = snapshotter = Snapshotter(self._server)
        self._leading = leading = Leading(
            () if is_first else succession.alive,
            lambda: self._setup.open(snapshotter, mastership, ends_at),
            0.0 if is_first and not self._options.has_begun else self._spec.limits.disk_s,
        )
        return leading

    def _take_office(self, leading: Leading, now: float) -> None:
        """Become master of the open sweep, or end for the reason that it is not open."""
        from mpisweep.results.claim import FollowedError

        outcome, self._leading = leading.outcome, None
        leading.close()
        assert outcome is not None
        if not isinstance(outcome, BaseException):
            self._become_master(outcome, now)
            assert self._master is not None
            self._master.begin(now)
            for rank, missed in leading.kept:
                if isinstance(missed, str):
                    self._master.on_lost(rank, missed, now)
                else:
                    self._master.on_messages(rank, missed, now)
            return
        match outcome:
            case AlreadyCompleteError():
                log.info("%s: %s", self._options.path.name, outcome)
                self._end_with(outcome.exit_code)
            case FollowedError():
                # Its Lead is on its way.
                self._succession.give_way(now)
            case RunEndedError(reason=reason):
                how = "another run took over the sweep" if reason is EndReason.SUPERSEDED else reason.value
                log.warning(
                    "%s: the run ended without rank %d: %s", self._spec.name, self._transport.rank, how
                )
                self._end_with(reason.exit_code)
            case DiskFailedError():
                log.error(
                    "the sweep's files could not be used for %g s (%s); everything acknowledged is "
                    "on disk: free disk space and run the same command to resume",
                    self._spec.limits.disk_s,
                    outcome,
                )
                self._end_with(EndReason.DISK.exit_code)
            case ResultsError() | OSError():
                # Every rank leaves with the same code; the others wait for Finish.
                log.error("%s", _refusal(outcome))
                self._end_with(2)
            case _:
                raise outcome
        if self._snapshotter is not None:
            self._snapshotter.close()
            self._snapshotter = None

    def _become_master(self, opened: Opened, now: float) -> None:
        assert self._snapshotter is not None
        assert self.leader is not None
        self.leader = replace(self.leader, run=opened.claim.run, has_begun=True)
        for rank in range(self._transport.size):
            self._transport.send(rank, [Begun(opened.claim.run)])
        self._master = self._setup.make_master(opened, self._snapshotter, now)

    def _give_way(self, fenced: FollowedError | RunOverError, now: float) -> None:
        """Step down: the sweep was taken over while this rank, its master, was stalled."""
        from mpisweep.results.claim import FollowedError

        self._step_down()
        if isinstance(fenced, FollowedError):
            self._succession.give_way(now)
            return
        assert self.leader is not None
        run = self.leader.run
        self._snapshotter = snapshotter = Snapshotter(self._server)

        def find_out() -> Opened:
            from mpisweep.master.opening import ended_error

            raise ended_error(self._options.path, snapshotter, run)

        self._leading = Leading((), find_out, 0.0)

    def _step_down(self) -> None:
        """Release everything: another rank is the master, or about to say so."""
        if self._leading is not None:
            self._leading.drop()
            self._leading = None
        if self._master is not None:
            self._master.step_down()
            self._master = None
        self._snapshotter = None

    def _end_with(self, exit_code: int) -> None:
        self.exit_code = exit_code


def _new_name() -> str:
    # Local, because most ranks are never master; one that takes over has the name already.
    from mpisweep.results.runs import run_name

    return run_name()


def _refusal(error: ResultsError | OSError) -> str:
    """Say why a sweep cannot be opened."""
    if isinstance(error, ResultsError):
        return str(error)
    return f"{error.filename}: cannot be written: {error.strerror}; -o names another place for the results"
