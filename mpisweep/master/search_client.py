"""The client of the process that runs a learning search (:mod:`mpisweep.search.serving`).

The master sends it every end, asks it for proposals, and never waits for either.  One request is open at a
time; ends that arrive meanwhile go with the next one.  If the process dies or hangs, another one is started
with everything that is known, and the open request is repeated.

A member of a split sweep tells its search nothing: that reads the results of all members
(:mod:`mpisweep.master.shared_search`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mpisweep.blocks import EndedBlock
from mpisweep.master.joining import Share
from mpisweep.master.searching import LearningPast
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.records import EndReason, TrialState, Value
from mpisweep.results.shares.rounds import Round
from mpisweep.results.suggested import searched_part
from mpisweep.scheduling.events import Proposed, ProposedRound, RoundsProposed, StopRequested
from mpisweep.search.learning import Outcome
from mpisweep.search.numbering import Trials
from mpisweep.search.repeated import MeanOfRepeats
from mpisweep.spec import Spec

__all__ = ["SearchClient", "SharedSearchClient"]

_NAME = "the process of the search"
#: The process hangs if it does not answer for this long, in seconds; a Gaussian process may take a minute.
_HANGS_S = 900.0
#: Most ends per request: fewer bytes than a socket takes at once.
_MOST_ENDS = 1000
#: The same of ends that say which parameters their trials have asked for.
_MOST_SUGGESTED = 100
#: Number of processes that may die with the same request.
_MOST_DEATHS = 3

SearchEvent = Proposed | RoundsProposed | StopRequested

log = logging.getLogger(__name__)


class SearchClient:
    """Asks a learning search for proposals.

    Args:
        server: forks the process.
        spec: the sweep.
        trials: all trials; read, never changed.
        past: what the search knows.
    """

    def __init__(
        self,
        server: ForkServer,
        spec: Spec,
        trials: Trials,
        past: LearningPast,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._learned = past
        self._known = dict(past.known)
        #: (configuration, outcome, pruned_at) of those whose repeats have all ended.
        self._ends: list[tuple[int, Outcome, int]] = []
        #: Trial -> what its objective of Optuna has asked for.
        self._suggested = dict(past.suggested)
        self._most_ends = _MOST_SUGGESTED if spec.is_defined_by_run else _MOST_ENDS
        self._repeats = MeanOfRepeats(trials.configuration_of, spec.repeats.first)
        self._note(past.ends)
        #: Number of ends that were sent.
        self._sent = len(self._ends)
        #: Number of proposals asked for; 0 for none.
        self._count = 0
        self._deaths = 0
        self._has_failed = False
        self._process = self._started(server)

    def _started(self, server: ForkServer) -> SideProcess:
        return SideProcess(server, _NAME, "mpisweep.search.serving:serve_search", self._past())

    def fileno(self) -> int:
        """For select(); readable when :meth:`hear` has something to read."""
        return self._process.fileno()

    def close(self) -> None:
        """Close the connection to the process, which then exits."""
        self._process.close()

    # ------------------------------------------------------------------------------------- sending

    def propose(self, count: int) -> None:
        """Ask for proposals; answered by Proposed."""
        self._count = count
        self._send()

    def tell(self, block: EndedBlock) -> None:
        """Note trials that have ended."""
        for number, suggested in zip(block.numbers, block.suggested, strict=False):
            if suggested is not None:
                self._suggested[number] = searched_part(suggested)
        missing = [None] * len(block.numbers)
        columns = [block.metrics.get(objective.name) or missing for objective in self._spec.objectives]
        steps = block.pruned_at or [-1] * len(block.numbers)
        has_result = [
            state == TrialState.COMPLETE or step >= 0 for state, step in zip(block.states, steps, strict=True)
        ]
        self._note(
            (number, values if has else None, step)
            for number, step, has, *values in zip(block.numbers, steps, has_result, *columns, strict=True)
        )
        self._send_many()

    def tell_infeasible(self, numbers: Sequence[int]) -> None:
        """Note trials that do not run."""
        self._note((number, None, -1) for number in numbers)
        self._send_many()

    def _note(self, ends: Iterable[tuple[int, Outcome, int]]) -> None:
        """Note ends of trials; the search is told the ends of configurations."""
        found = (self._repeats.note(*end) for end in ends)
        self._ends += [end for end in found if end is not None]

    def _send_many(self) -> None:
        """Send ends before they are more than one request takes."""
        if len(self._ends) - self._sent >= self._most_ends:
            self._send()

    def _send(self) -> None:
        """Send the next request, unless one is open."""
        if self._process.asked is not None or self._has_failed:
            return
        request = self._next_request()
        if request is not None:
            self._process.ask(request)

    def _next_request(self) -> dict[str, Any] | None:
        ends = self._ends[self._sent : self._sent + self._most_ends]
        is_last = self._sent + len(ends) == len(self._ends)
        request: dict[str, Any] = {"ask": "learn", "ends": self._full(ends)}
        if self._count and is_last:
            request |= {"ask": "propose", "first": self._trials.configurations, "count": self._count}
        elif not ends:
            return None
        self._sent += len(ends)
        return request

    def _full(self, ends: Sequence[tuple[int, Outcome, int]]) -> Sequence[Sequence[Any]]:
        """Ends with what an objective of Optuna has asked for."""
        if not self._spec.is_defined_by_run:
            return ends
        return [(*end, self._suggested.get(end[0])) for end in ends]

    # ------------------------------------------------------------------------------------- receiving

    def hear(self) -> Iterator[SearchEvent]:
        """Read the answers of the process; call it when :meth:`fileno` is readable."""
        answers = self._process.receive()
        if answers is None:
            yield from self._replace("was killed")
            return
        for answer in answers:
            self._process.done()
            self._deaths = 0
            if "error" in answer:
                yield from self._fail(answer["error"])
                return
            event = self._event(answer)
            if event is not None:
                yield event
            self._send()

    def keep_time(self, now: float) -> Iterator[SearchEvent]:
        """Replace a process that hangs."""
        if self._process.hangs(now, _HANGS_S):
            yield from self._replace("does not answer")

    def _event(self, answer: Mapping[str, Any]) -> SearchEvent | None:
        if "configurations" not in answer:
            return None
        found = [self._completed(one) for one in answer["configurations"]]
        is_exhausted = len(found) < self._count
        self._count = 0
        first = self._trials.configurations
        self._known |= dict.fromkeys(range(first, first + len(found)), answer["ends"])
        widths = tuple(self._spec.ranks(one) for one in found)
        return Proposed(tuple(found), widths, answer["ends"], answer["seconds"], is_exhausted)

    def _completed(self, proposal: Mapping[str, Value]) -> dict[str, Value]:
        full, absentable = self._spec.full(proposal), self._trials.absentable
        if self._trials.is_open:
            return full
        names = [name for name in self._trials.parameters if name in proposal or name not in absentable]
        return {name: full[name] for name in names}

    # ------------------------------------------------------------------------------------- failures

    def _replace(self, why: str) -> Iterator[SearchEvent]:
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            yield from self._fail(f"its process died {self._deaths} times in a row")
            return
        log.warning("%s %s; another one continues", _NAME, why)
        self._process.arguments = self._past()
        self._sent = len(self._ends)
        self._process.replace()
        self._process.done()
        self._send()

    def _fail(self, why: str) -> Iterator[SearchEvent]:
        if not self._has_failed:
            log.error("the search failed: %s", why)
        self._has_failed = True
        self._process.done()
        yield StopRequested(EndReason.SEARCH)

    def _past(self) -> dict[str, Any]:
        """The arguments of a process that continues from here."""
        return {
            "spec": self._spec.text,
            "source": self._spec.source,
            "folder": str(self._spec.folder),
            "configurations": self._configurations(),
            "known": self._known,
            "ends": self._full(self._ends),
            "imported": self._learned.told_first,
        }

    def _configurations(self) -> list[dict[str, Value]]:
        """The searched parameters of each configuration, in the order of their numbers."""
        trials = self._trials
        names = [name for name in trials.parameters if name not in self._spec.fixed]
        if not trials.is_open:
            names = list(self._spec.space.names)
        first_of = trials.first_trials()
        # An absent parameter is no part of a configuration; without any, a trial is outside the space.
        return [
            {
                name: value
                for name in (() if one in self._learned.others else names)
                if (value := trials.parameters[name][first_of[one]]) is not None
            }
            for one in range(len(first_of))
        ]


class SharedSearchClient(SearchClient):
    """Asks the learning search of a split sweep for proposals.

    Args:
        server: forks the process.
        spec: the sweep.
        trials: all trials; read, never changed.
        past: what the search knew before the split.
        share: this member's part.
        member: its name.
        job_id: job id of the batch system.
    """

    def __init__(
        self,
        server: ForkServer,
        spec: Spec,
        trials: Trials,
        past: LearningPast,
        share: Share,
        *,
        member: str,
        job_id: str,
    ) -> None:
        self._share = share
        self._member = member
        self._job_id = job_id
        #: Number of rounds that the scheduler knows.
        self._rounds = share.rounds
        super().__init__(server, spec, trials, past)

    def _started(self, server: ForkServer) -> SideProcess:
        return SideProcess(server, _NAME, "mpisweep.master.shared_search:serve_shared_search", self._past())

    def tell(self, block: EndedBlock) -> None:
        """Do nothing: the process reads the ends of all members."""

    def tell_infeasible(self, numbers: Sequence[int]) -> None:
        """Do nothing: the process reads the ends of all members."""

    def _next_request(self) -> dict[str, Any] | None:
        return {"ask": "propose", "count": self._count, "rounds": self._rounds} if self._count else None

    def _event(self, answer: Mapping[str, Any]) -> SearchEvent | None:
        self._count = 0
        rounds = [Round(**one) for one in answer["rounds"]]
        self._rounds += len(rounds)
        return RoundsProposed(
            tuple(
                ProposedRound(
                    tuple(map(dict, one.configurations)),
                    tuple(map(self._spec.ranks, one.configurations)),
                    one.known,
                    one.member == self._member,
                )
                for one in rounds
            ),
            answer["seconds"],
            answer["is_exhausted"],
        )

    def _past(self) -> dict[str, Any]:
        count = self._share.count
        configuration_of = self._trials.configuration_of[:count]
        past = super()._past()
        return past | {
            "path": str(self._share.path),
            "member": self._member,
            "job_id": self._job_id,
            "names": list(self._trials.parameters),
            "configurations": past["configurations"][: max(configuration_of, default=-1) + 1],
            "configuration_of": configuration_of,
            "known": self._learned.known,
            "ends": self._learned.ends,
        }
