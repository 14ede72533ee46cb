"""The process of a learning search that the members of a split sweep share.

Each member has one.  It proposes for that member alone, from what all members have recorded: it reads their
parts whenever it is asked.  Requests and answers are one line of JSON each;
:mod:`mpisweep.master.search_client` is the other end::

    {"ask": "propose", "count": k, "rounds": n}      up to k proposals; the member knows n rounds

An answer has ``rounds``, all from the n-th on, of which the last one is this member's, ``seconds``, and
``is_exhausted`` if nothing more is proposed; or ``error``, after which the search is over.

What was proposed, and from which ends, is the sequence of rounds in the shared folder
(:mod:`mpisweep.results.shares.rounds`).  The search is rebuilt from the results before the split and these
rounds, so the process can be killed at any time, and all members agree on what was proposed.

The shared folder is its working directory, as that of the process that keeps leases: after the shares have
been cleared away, it cannot write into others that were created under the same name later.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.processes.kernel import this_host
from mpisweep.records import TrialState, Value
from mpisweep.results import ResultsError, shares_folder
from mpisweep.results.shares.folder import read_shared
from mpisweep.results.shares.leases import Lease
from mpisweep.results.shares.merging import read_readable
from mpisweep.results.shares.rounds import Round, publish_round, read_rounds
from mpisweep.results.state import SweepState
from mpisweep.search.learning import LearningSearch, Outcome
from mpisweep.search.nice import answer_lines, behave
from mpisweep.search.repeated import MeanOfRepeats
from mpisweep.spec import parse_spec

if TYPE_CHECKING:
    from mpisweep.search.proposing import Proposer

__all__ = ["SharedSearch", "serve_shared_search"]

#: The shared folder, even after a rename.
_HERE = Path()

#: Number, objectives and step of the last report if it was pruned.
_End = tuple[int, Outcome, int]


def serve_shared_search(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: those of :func:`mpisweep.search.serving.serve_search` as of the split, with the ``ends`` of
            trials; ``configuration_of`` each of them; ``path`` of the results file, ``member``, ``job_id``,
            and the ``names`` of all parameters.
    """
    behave("mpisweep-search")
    answer_lines(files[0], lambda lines: _answers(lines, arguments))


def _answers(lines: Iterator[str], arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    search: SharedSearch | None = None
    for text in lines:
        asked = json.loads(text)
        try:
            if search is None:
                os.chdir(shares_folder(Path(arguments["path"])))
                search = SharedSearch(_HERE, arguments)
            yield search.propose(asked["count"], asked["rounds"])
        except FileNotFoundError:
            # The others have ended the sweep; the process that keeps leases tells how.
            yield {"rounds": [], "seconds": 0.0, "is_exhausted": True}


class SharedSearch:
    """One member's view of the search.

    Args:
        folder: that the members share.
        arguments: see :func:`serve_shared_search`.

    Raises:
        ResultsError: when a file of the folder is damaged.
        FileNotFoundError: when the folder is gone.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self._folder = folder
        self._arguments = arguments
        self._spec = parse_spec(
            arguments["spec"], source=arguments["source"], folder=Path(arguments["folder"]), is_recorded=True
        )
        shared = read_shared(folder)
        if shared is None:
            raise FileNotFoundError(folder)
        self._shared = shared
        #: Leases by the name of their file.
        self._leases: dict[str, Lease] = {}
        self._rebuild()

    def propose(self, count: int, reported: int) -> dict[str, Any]:
        """Propose for this member; returns the answer.

        Args:
            count: the most configurations that it needs.
            reported: number of rounds that it knows.
        """
        started = time.perf_counter()
        while True:
            self._follow()
            wanted = min(count, self._shared.to_come(self._rounds))
            if not wanted:
                break
            made = self._make(wanted)
            if publish_round(self._folder, made):
                self._rounds.append(made)
                break
            # What was proposed here is not what counts.
            self._rebuild()
        return {
            "rounds": [_as_json(one) for one in self._rounds[reported:]],
            "seconds": time.perf_counter() - started,
            "is_exhausted": not self._shared.to_come(self._rounds),
        }

    # ------------------------------------------------------------------------------------- the rounds

    def _rebuild(self) -> None:
        """Build the search from the results before the split and the rounds so far."""
        # Imports Optuna, half a second.
        from mpisweep.search.proposing import End, Past, Proposer

        known = {int(number): ends for number, ends in self._arguments["known"].items()}
        configurations = list(self._arguments["configurations"])
        #: Configuration of each trial, also in rounds that were followed.
        self._configuration_of: list[int] = list(self._arguments["configuration_of"])
        self._means = MeanOfRepeats(self._configuration_of, self._spec.repeats.first)
        #: Trials whose ends the search was told.
        self._told: set[int] = set()
        ends = self._ends_of_configurations(self._arguments["ends"])
        self._rounds: list[Round] = read_rounds(self._folder)
        for one in self._rounds:
            ends += self._ends_of_configurations(one.ends)
            self._note_trials(one)
            first = len(configurations)
            known |= dict.fromkeys(range(first, first + len(one.configurations)), one.known)
            configurations += map(self._searched, one.configurations)
        past = Past(
            configurations,
            known,
            [End(*end) for end in ends],
            [(configuration, objective) for configuration, objective in self._arguments["imported"]],
        )
        directions = [objective.direction for objective in self._spec.objectives]
        sampler = LearningSearch.from_spec(self._spec).sampler
        self._proposer: Proposer = Proposer(self._spec.space, sampler, self._spec.seed, directions, past)

    def _follow(self) -> None:
        """Take what other members have proposed since."""
        seen = len(self._rounds)
        for one in read_rounds(self._folder, self._rounds)[seen:]:
            self._tell(one.ends)
            self._note_trials(one)
            self._proposer.follow(one.first_configuration, [*map(self._searched, one.configurations)])

    def _make(self, count: int) -> Round:
        """Propose from the ends that are recorded now."""
        ends = self._new_ends()
        self._tell(ends)
        first, first_configuration = len(self._configuration_of), max(self._configuration_of, default=-1) + 1
        proposals = [*map(self._completed, self._proposer.ask(first_configuration, count))]
        made = Round(
            index=len(self._rounds),
            chunk=len(self._shared.chunks) + len(self._rounds),
            member=self._arguments["member"],
            first=first,
            first_configuration=first_configuration,
            configurations=proposals,
            repeats=self._spec.repeats.first,
            width=max(map(self._spec.ranks, proposals), default=1),
            ends=ends,
            known=self._proposer.ends,
            is_last=len(proposals) < count,
            host=this_host(),
            job_id=self._arguments["job_id"],
            at=time.time(),
        )
        self._note_trials(made)
        return made

    def _note_trials(self, one: Round) -> None:
        self._configuration_of.extend(map(one.configuration_of, one.numbers))

    # ------------------------------------------------------------------------------------- ends

    def _tell(self, ends: Sequence[Sequence[Any]]) -> None:
        from mpisweep.search.proposing import End

        self._proposer.tell(End(*end) for end in self._ends_of_configurations(ends))

    def _ends_of_configurations(self, ends: Sequence[Sequence[Any]]) -> list[_End]:
        """The ends of configurations whose last repeat is among these trials."""
        self._told.update(int(number) for number, *_ in ends)
        found = (self._means.note(*end) for end in ends)
        return [end for end in found if end is not None]

    def _new_ends(self) -> list[_End]:
        """The ends that the members have recorded and the search was not told, in the order of time."""
        try:
            state = read_readable(self._folder, self._leases, self._rounds)
        except ResultsError:
            # It is told to the user by the process that keeps leases.
            return []
        if state is None:
            raise FileNotFoundError(self._folder)
        trials = state.trials
        ended = [
            number
            for number, reached in enumerate(trials["state"][: len(self._configuration_of)])
            if TrialState(reached).is_end and number not in self._told
        ]
        ended.sort(key=trials["end_order"].__getitem__)
        return [(number, self._outcome(state, number), trials["pruned_at"][number]) for number in ended]

    def _outcome(self, state: SweepState, number: int) -> Outcome:
        is_complete = state.trials["state"][number] == TrialState.COMPLETE
        if not is_complete and state.trials["pruned_at"][number] < 0:
            return None
        columns = [state.metrics.get(objective.name) for objective in self._spec.objectives]
        values = [None if column is None else column[number] for column in columns]
        return [value if value is not None and value == value else None for value in values]

    # ------------------------------------------------------------------------------------- configurations

    def _searched(self, configuration: Mapping[str, Value]) -> dict[str, Value]:
        return {name: configuration[name] for name in self._spec.space.names if name in configuration}

    def _completed(self, proposal: Mapping[str, Value]) -> dict[str, Value]:
        full, absentable = self._spec.full(proposal), self._spec.space.absentable
        names = self._arguments["names"]
        return {name: full[name] for name in names if name in proposal or name not in absentable}


def _as_json(one: Round) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Round.__dataclass_fields__}
