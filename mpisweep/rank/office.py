"""The master's office of a rank: becoming master, being it, and giving it up.

Every rank has one; most of the time it is empty.  A master's first word is Lead, whereupon every worker says
Hello with all that it holds; so a master that takes over from a dead one and the first one begin in the same
way (:mod:`mpisweep.master.leading`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep import __version__
from mpisweep.master.joining import AlreadyCompleteError, Share, join
from mpisweep.master.leading import DiskFailedError, Leading
from mpisweep.master.lease_client import LeaseClient
from mpisweep.master.opening import Mastership, Opened, RunEndedError, RunFacts, ended_error, open_sweep
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.master.vigil import Vigil
from mpisweep.messages import Begun, Kill, Lead, ToMaster
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import process_start
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.succession import Succession
from mpisweep.rank.transport import Transport
from mpisweep.records import EndReason
from mpisweep.results import ResultsError, stop_file, trials_folder
from mpisweep.results.claim import FollowedError, RunOverError
from mpisweep.results.runs import run_name
from mpisweep.spec import Spec

if TYPE_CHECKING:
    from mpisweep.master.loop import Master

__all__ = ["Office"]

log = logging.getLogger(__name__)


class Office:
    """What a rank does beside its worker while it is the master, or on its way to that.

    Args:
        spec: the sweep file.
        options: of the command line.
        place: where the results file lies, and where this run lives.
        server: forks the processes that work for a master.
        transport: between ranks.
        succession: who is master.
        environment: what the results file will say was around.
        ends_at: when the allocation ends, in seconds since 1970; None where nobody knows.

    Attributes:
        leader: the last master's last word.
        exit_code: of the run, once this rank knows it as its master.
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
        self._place = place
        self._server = server
        self._transport = transport
        self._succession = succession
        self._environment = environment
        self._ends_at = ends_at
        self._started = time.monotonic()
        #: While this rank is becoming the master; then the master.
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
        """See to what is due; True when anything happened.

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

    # ------------------------------------------------------------------------------------- what others say

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """What a worker has to say to the master."""
        if self._master is not None:
            self._master.on_messages(rank, messages, now)
        elif self._leading is not None:
            self._leading.keep(rank, messages)

    def on_follow(self, rank: int, epoch: int) -> None:
        """A rank follows the master of this epoch."""
        if self._leading is not None and epoch == self._succession.epoch:
            self._leading.follow(rank)

    def on_begun(self, rank: int, run: str) -> None:
        """A rank says that it has begun a run, which counts where that is the master."""
        if rank == self._succession.master and self.leader is not None:
            self.leader = replace(self.leader, run=run, has_begun=True)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """A rank is lost; where that was the master, this one may have to follow."""
        if self._master is not None:
            self._master.on_lost(rank, why, now)
        elif self._leading is not None:
            self._leading.lose(rank, why)
        elif self._succession.must_lead:
            log.warning("rank %d, the master, is lost (%s)", rank, why)
            leading = self.lead()
            # Those of its workers that are gone will not say hello.
            for gone in sorted(set(range(self._transport.size)) - set(self._succession.alive)):
                leading.lose(gone, "it died before this master took over")

    def follow(self, lead: Lead, rank: int) -> None:
        """Obey a master, which may be this rank itself."""
        if self.is_held and rank != self._transport.rank:
            log.warning("rank %d has become master while this rank was held up", rank)
            self._step_down()
        self.leader, self._ends_at = lead, lead.ends_at

    # ------------------------------------------------------------------------------------- becoming master

    def lead(self) -> Leading:
        """Tell everybody that this rank is the master, and begin to be it."""
        former, succession = self.leader, self._succession
        succession.lead()
        run = former.run if former else run_name()
        process = os.getpid()
        self.leader = Lead(
            run, self._transport.host, process, process_start(process), succession.epoch, self._ends_at,
            former is not None and former.has_begun,
        )  # fmt: skip
        # Also to those that were given up for their silence: they may be back, and follow another.
        for rank in range(self._transport.size):
            self._transport.send(rank, [self.leader])
            if former is not None:
                # It may hang and not be dead; only its own node can end it.
                self._transport.send(rank, [Kill(former.host, former.process, former.process_start)])
        if former is not None:
            log.warning("rank %d is the master now", self._transport.rank)
        is_first = former is None and succession.epoch == 0
        mastership = Mastership(run, succession.epoch, is_first, self.leader.has_begun)
        self._snapshotter = snapshotter = Snapshotter(self._server)
        self._leading = leading = Leading(
            () if is_first else succession.alive,
            lambda: self._open(snapshotter, mastership),
            0.0 if is_first and not self._options.has_begun else self._spec.limits.disk_s,
        )
        return leading

    def _open(self, snapshotter: Snapshotter, mastership: Mastership) -> Opened:
        """Open the sweep; runs in a thread of its own."""
        path = self._options.path
        try:
            share = self._join(snapshotter, mastership)
            return self._open_part(snapshotter, mastership, path if share is None else share.part, share)
        except RunOverError as error:
            raise ended_error(path, snapshotter, mastership.run) from error

    def _join(self, snapshotter: Snapshotter, mastership: Mastership) -> Share | None:
        """The place of this run in a split sweep; None where it has the sweep alone."""
        if self._options.split is None:
            return None
        return join(
            self._spec,
            self._options.path,
            self._options.split,
            snapshotter,
            job_id=self._place.allocation.job_id,
            member=mastership.run,
            has_begun=mastership.has_begun,
        )

    def _open_part(
        self, snapshotter: Snapshotter, mastership: Mastership, path: Path, share: Share | None
    ) -> Opened:
        return open_sweep(
            self._spec,
            path,
            fresh=self._options.fresh,
            snapshotter=snapshotter,
            mastership=mastership,
            facts=RunFacts(
                self._place.allocation,
                self._transport.size,
                self._environment,
                __version__,
                self._options.launch,
                self._allocation_until(),
            ),
            share=share,
        )

    def _allocation_until(self) -> float | None:
        """When this run's time ends by the monotonic clock, the walltime or the allocation, whichever comes
        first.
        """
        ends: list[float] = []
        if self._options.walltime_s is not None:
            ends.append(self._started + self._options.walltime_s)
        if self._ends_at is not None:
            ends.append(time.monotonic() + self._ends_at - time.time())
        return min(ends, default=None)

    def _take_office(self, leading: Leading, now: float) -> None:
        """The sweep is open, or why it is not is known."""
        outcome, self._leading = leading.outcome, None
        leading.close()
        match outcome:
            case Opened():
                self._become_master(outcome, now)
                assert self._master is not None
                for rank, missed in leading.kept:
                    if isinstance(missed, str):
                        self._master.on_lost(rank, missed, now)
                    else:
                        self._master.on_messages(rank, missed, now)
                return
            case AlreadyCompleteError():
                log.info("%s: every trial has ended", self._options.path.name)
                self._end_with(outcome.exit_code)
            case FollowedError():
                # Its first word is on its way.
                self._succession.give_way(now)
            case RunEndedError(reason=reason):
                how = (
                    "another run has taken the sweep over" if reason is EndReason.SUPERSEDED else reason.value
                )
                log.warning(
                    "%s: the run has ended without rank %d: %s", self._spec.name, self._transport.rank, how
                )
                self._end_with(reason.exit_code)
            case DiskFailedError():
                log.error(
                    "the files of the sweep could not be used for %g s (%s); everything that was "
                    "acknowledged is on disk: make room and run again",
                    self._spec.limits.disk_s,
                    outcome,
                )
                self._end_with(EndReason.DISK.exit_code)
            case ResultsError() | OSError():
                # Every rank leaves with the same code; the others wait for a word.
                log.error("%s", _in_words(outcome))
                self._end_with(2)
            case BaseException():
                raise outcome
        if self._snapshotter is not None:
            self._snapshotter.close()
            self._snapshotter = None

    def _become_master(self, opened: Opened, now: float) -> None:
        from mpisweep.master.loop import Master

        assert self._snapshotter is not None
        assert self.leader is not None
        if opened.stop is not None and opened.stop.stop_at <= now:
            log.warning(
                "no time is left for trials: %.0f s to the end of its time, and %.0f s are for running "
                "trials to return and for closing",
                opened.stop.ends_at - now,
                opened.stop.ends_at - opened.stop.stop_at,
            )
        elif opened.stop is not None:
            log.info(
                "the sweep stops in %.0f s, %.0f s before the end of its time",
                opened.stop.stop_at - now, opened.stop.ends_at - opened.stop.stop_at,
            )  # fmt: skip
        self.leader = replace(self.leader, run=opened.claim.run, has_begun=True)
        for rank in range(self._transport.size):
            self._transport.send(rank, [Begun(opened.claim.run)])
        self._snapshotter.write(opened.path, opened.claim.token)
        lease_client = None
        if opened.share is not None:
            lease_client = LeaseClient(
                self._server,
                opened.share.path,
                member=opened.claim.run,
                job_id=self._place.allocation.job_id,
                silence_s=self._spec.limits.silence_s,
            )
        self._master = Master(
            spec=self._spec,
            trials=opened.trials,
            best=opened.best,
            measures=opened.measures,
            tells_end=not self._options.launch,
            scheduler=opened.scheduler,
            journal=opened.journal,
            snapshotter=self._snapshotter,
            vigil=Vigil(opened.claim, stop_file(opened.path), self._spec.limits.silence_s),
            send=self._transport.send,
            sink=self._options.sink,
            stop_at=None if opened.stop is None else opened.stop.stop_at,
            folders=(trials_folder(self._place.path),),
            now=now,
            lease_client=lease_client,
        )

    def _give_way(self, fenced: FollowedError | RunOverError, now: float) -> None:
        """The sweep was taken over while this rank, its master, was held up."""
        self._step_down()
        if isinstance(fenced, FollowedError):
            self._succession.give_way(now)
            return
        assert self.leader is not None
        run = self.leader.run
        self._snapshotter = snapshotter = Snapshotter(self._server)

        def find_out() -> Opened:
            raise ended_error(self._options.path, snapshotter, run)

        self._leading = Leading((), find_out, 0.0)

    def _step_down(self) -> None:
        """Another rank is the master, or about to say so."""
        if self._leading is not None:
            self._leading.drop()
            self._leading = None
        if self._master is not None:
            self._master.step_down()
            self._master = None
        self._snapshotter = None

    def _end_with(self, exit_code: int) -> None:
        self.exit_code = exit_code


def _in_words(error: ResultsError | OSError) -> str:
    """Why a sweep is refused."""
    if isinstance(error, ResultsError):
        return str(error)
    return f"{error.filename}: cannot be written: {error.strerror}; -o names another place for the results"
