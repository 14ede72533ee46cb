"""Staging: all ranks bring the data to their nodes, before any of them runs a trial.

::

    rank 0              looks through the source, and tells everybody its size and key
    one rank per node   chooses a place, claims the copy there, and tells rank 0 what it has of it
    rank 0              decides who takes part, and from which entry on
    these               pass the stream from one to the next, each writing it (mpisweep.staged.relay)
    rank 0              tells everybody how it ended, and where the copies are

The sweep is not open yet, and there is no master: nobody watches heartbeats.  A rank that hangs is killed by
its own fork server (:mod:`mpisweep.rank.together`).  A rank that is lost ends all, as does a stream that has
not advanced for long; the launcher restarts them, and they continue the copies that they find.  A source that
cannot be read, or a full disk, ends the run with one sentence.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpisweep.batch.registry import batch_system
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import machine_id
from mpisweep.progress import counted
from mpisweep.rank.exchange import ExchangeError
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.succession import FIRST_WORD_FACTOR
from mpisweep.rank.together import End, EndedError, Together, Watch
from mpisweep.rank.transport import Transport, TransportError
from mpisweep.spec import Spec
from mpisweep.staged import DATA_VARIABLE, SOURCE_VARIABLE
from mpisweep.staged.copies import Copy, make_room
from mpisweep.staged.manifest import Identity
from mpisweep.staged.places import choose_place, size_text
from mpisweep.staged.relay import Relay
from mpisweep.staged.source import Source, StageError, open_source
from mpisweep.staged.stream import FrameKind
from mpisweep.staged.writer import CopyWriter

__all__ = ["Staging", "StagingOrder"]

_REFUSED = 2
#: Interval of lines about the progress, in seconds.
_TELL_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagingOrder:
    """What to stage, and where to.

    Attributes:
        source: the folder or tar file.
        to: folder for the copies that the user names; empty to choose one on each node.
        variables: with node-local folders of the batch system.
        keeps: whether the copy outlives the run.
        boot: identifies this boot of the node.
        patience_s: how long the stream may stand still, in seconds.
    """

    source: Path
    to: str
    variables: tuple[str, ...]
    keeps: bool
    boot: str
    patience_s: float

    @classmethod
    def of(cls, spec: Spec, options: RankOptions, place: Place) -> StagingOrder:
        """What the sweep and the command line say."""
        system = batch_system(place.allocation.system)
        return cls(
            source=Path(spec.stage_data),
            to=options.stage_to,
            variables=() if system is None else system.local_folders,
            keeps=options.stage_keep,
            boot=machine_id(),
            patience_s=FIRST_WORD_FACTOR * spec.limits.silence_s,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The source as rank 0 sees it."""

    source: str
    key: str
    needs_bytes: int


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a node has of the copy; from a rank that does not act for its node, nothing."""

    acts: bool = False
    entries: int = 0
    is_complete: bool = False
    folder: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class _Order:
    """The ranks that take part, in their order, and the number of entries that all of them have."""

    line: tuple[int, ...]
    start: int


class Staging:
    """One rank's part in bringing the data to all nodes.

    Args:
        order: what to stage.
        transport: between ranks, before any message.
        server: the fork server of this rank, which kills it if it hangs.

    Attributes:
        copy: of the data on this node, from the moment in which this rank uses it.
    """

    def __init__(self, order: StagingOrder, transport: Transport, server: ForkServer) -> None:
        self._order = order
        self._server = server
        self._host = transport.host
        self._rank = transport.rank
        self._leader = transport.node_ranks[0]
        self._size = transport.size
        self._exchange = transport.exchange()
        self._ranks = Together(self._exchange, transport.size, server)
        self.copy: Copy | None = None
        #: Nodes, and those that lack something; known on rank 0.
        self._nodes = self._lacking = 0

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Variables that name the copy to trial processes."""
        assert self.copy is not None
        return (DATA_VARIABLE, os.fspath(self.copy.data)), (SOURCE_VARIABLE, os.fspath(self._order.source))

    @property
    def stop_wanted(self) -> bool:
        """Whether a stop was requested meanwhile."""
        return self._ranks.stop_wanted

    def run(self, waker: int) -> int | None:
        """Stage the data; all ranks must call it.

        Args:
            waker: a signal makes it readable.

        Returns:
            None if every node has the data; else the exit code with which all ranks end.

        Raises:
            TransportError: when a rank is lost, or the data does not advance.
        """
        self._ranks.waker = waker
        signal.signal(signal.SIGTERM, lambda *_: self._die())
        try:
            self._run()
        except EndedError as ended:
            if self._rank == 0:
                log.log(logging.ERROR if ended.exit_code == _REFUSED else logging.WARNING, "%s", ended)
            return ended.exit_code
        except (ExchangeError, StageError) as error:
            raise TransportError(str(error)) from error
        return None

    def close(self) -> None:
        """Die of SIGTERM as usual from now on, before the fork server is closed."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._server.remove_if_terminated("")

    def leave(self) -> None:
        """Stop using the copy; the last rank of a node removes it, unless it is to be kept."""
        if self.copy is not None:
            copy, self.copy = self.copy, None
            copy.leave(keeps=self._order.keeps)

    def _die(self) -> None:
        """Die of SIGTERM; the fork server then removes the copy, as :meth:`leave` does."""
        self._server.terminate()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _run(self) -> None:
        source, plan = self._look()
        offers = [self._offer(plan)]
        if self._rank:
            self._exchange.tell(0, offers[0])
            order = self._ranks.from_first()
        else:
            offers += [self._ranks.heard(rank) for rank in range(1, self._size)]
            order = self._decide(offers)
            self._ranks.tell_all(order)
        self._take_part(order, source)
        if self._rank:
            folders = self._ranks.from_first()
        else:
            folders = {rank: offer.folder for rank, offer in enumerate(offers) if offer.acts}
            self._ranks.tell_all(folders)
        self._use(folders[self._leader], plan)

    # ------------------------------------------------------------------------------------- the steps

    def _look(self) -> tuple[Source | None, _Plan]:
        """Rank 0 looks through the source; all others wait for it."""
        if self._rank:
            return None, self._ranks.from_first()
        try:
            source = self._ranks.beside(lambda: open_source(self._order.source))
        except StageError as error:
            self._ranks.end_all(End(_REFUSED, str(error)))
        self._ranks.end_if_stopped()
        plan = _Plan(os.path.realpath(source.path), source.key, source.needs_bytes)
        self._ranks.tell_all(plan)
        return source, plan

    def _offer(self, plan: _Plan) -> _Offer:
        """Claim this node's copy, if this rank acts for the node."""
        if self._rank != self._leader:
            return _Offer()
        identity = self._identity(plan)
        try:
            copy = self.copy = self._ranks.beside(lambda: self._claim(identity, plan.needs_bytes))
        except StageError as error:
            return _Offer(acts=True, refusal=f"{self._host}: {error}")
        self._note(os.fspath(copy.folder))
        return _Offer(True, copy.entries, copy.is_complete, os.fspath(copy.folder))

    def _claim(self, identity: Identity, needs_bytes: int) -> Copy:
        def clear(folder: Path) -> int:
            held, removed = make_room(folder, identity)
            for stale in removed:
                log.info("%s: removed a copy of data that no run uses any more", stale)
            return held

        place = choose_place(self._order.to, self._order.variables, os.environ, needs_bytes, clear)
        return Copy.claim(place.folder, identity)

    def _note(self, folder: str) -> None:
        """Have the copy removed if this rank is ended by SIGTERM."""
        if not self._order.keeps:
            self._server.remove_if_terminated(folder)

    def _decide(self, offers: list[_Offer]) -> _Order:
        """The nodes that lack something take part, from the first entry that any of them lacks."""
        self._ranks.end_if_stopped()
        refusals = [offer.refusal for offer in offers if offer.refusal]
        if refusals:
            self._ranks.end_all(End(_REFUSED, "; ".join(refusals)))
        acting = [rank for rank, offer in enumerate(offers) if offer.acts]
        lacking = tuple(rank for rank in acting if not offers[rank].is_complete)
        self._nodes, self._lacking = len(acting), len(lacking)
        if not lacking:
            log.info("%s: complete copies are on %s", self._order.source, counted(len(acting), "node"))
            return _Order((), 0)
        # The reader is the first in the line, whatever it has.
        line = (0, *(rank for rank in lacking if rank))
        return _Order(line, min(offers[rank].entries for rank in lacking))

    def _take_part(self, order: _Order, source: Source | None) -> None:
        """Pass the stream on and write it, if this rank is in the line."""
        if self._rank not in order.line:
            return
        place = order.line.index(self._rank)
        assert self.copy is not None
        relay = Relay(
            self._exchange,
            order.line[place - 1] if source is None else (source, order.start),
            order.line[place + 1] if place + 1 < len(order.line) else None,
            None if self.copy.is_complete else CopyWriter(self.copy, order.start),
        )
        if source is None:
            self._follow(relay)
        else:
            self._end_if(relay, self._lead(relay, source, order.line[1:]))

    def _follow(self, relay: Relay) -> None:
        """Work in the line, and tell rank 0 at once when the copy of this node has failed."""
        is_told = False
        while not relay.is_over:
            self._ranks.turn(relay.step())
            if relay.failure and not is_told:
                self._exchange.tell(0, f"{self._host}: {relay.failure}")
                is_told = True
        if not is_told:
            self._exchange.tell(0, self._shared(relay))

    def _lead(self, relay: Relay, source: Source, line: Sequence[int]) -> dict[int, str]:
        """Work at the head of the line, until every node has said how its part has ended."""
        started, tell_at = time.monotonic(), time.monotonic() + _TELL_S
        nodes = counted(self._nodes, "node")
        log.info(
            "reading %s (%s%s) once for %s",
            source.path, size_text(source.size_bytes),
            "" if source.files is None else f" in {counted(source.files, 'file')}", nodes,
        )  # fmt: skip
        watch = Watch(self._order.patience_s)
        ended: dict[int, str] = {}
        while not relay.is_over or len(ended) < len(line):
            moved = relay.step()
            for rank in line:
                if rank not in ended and (said := self._exchange.heard(rank)) is not None:
                    ended[rank] = said
                    if said:
                        relay.end(FrameKind.FAILURE)
            if relay.failure:
                relay.end(FrameKind.FAILURE)
            if self._ranks.has_stopped():
                relay.end(FrameKind.STOP)
            # While the reader unpacks the part of a compressed tar file that all nodes have, no chunk moves.
            watch.look((relay.moved, source.read_bytes, len(ended)), f"{source.path} has not advanced")
            self._ranks.turn(moved)
            if time.monotonic() > tell_at:
                tell_at = time.monotonic() + _TELL_S
                log.info("read %s of %s", size_text(source.read_bytes), size_text(source.size_bytes))
        ended[0] = f"{self._host}: {relay.failure}" if relay.failure else self._shared(relay)
        if relay.ended[0] is FrameKind.END and not any(ended.values()):
            log.info(
                "read %s once, wrote to %s in %.1f s%s",
                size_text(source.read_bytes),
                nodes if self._lacking == self._nodes else f"{self._lacking} of {nodes}",
                time.monotonic() - started,
                f"; left out {counted(source.skipped, 'device')}, sockets and pipes"
                if source.skipped
                else "",
            )
        return ended

    def _shared(self, relay: Relay) -> str:
        """Let all processes of this node use the copy, if it is complete; why not, if that fails."""
        assert self.copy is not None
        try:
            if self.copy.is_complete and relay.writes:
                self.copy.share()
        except StageError as error:
            return f"{self._host}: {error}"
        return ""

    def _end_if(self, relay: Relay, failures: Mapping[int, str]) -> None:
        """On rank 0: end the run if the data did not reach all nodes."""
        kind, text = relay.ended
        if why := "; ".join(filter(None, (*failures.values(), text))):
            self._ranks.end_all(End(_REFUSED, why))
        if kind is FrameKind.STOP:
            self._ranks.end_if_stopped()

    def _use(self, folder: str, plan: _Plan) -> None:
        """Use the copy that the rank in charge of this node has made."""
        if self.copy is None:
            self._note(folder)
            self.copy = Copy.join(Path(folder), self._identity(plan))
        if self._order.keeps:
            self.copy.keep()

    def _identity(self, plan: _Plan) -> Identity:
        return Identity(plan.source, plan.key, self._host, self._order.boot)
