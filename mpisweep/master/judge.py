"""The process of a pruner: requests and answers are one line of JSON each.

:mod:`mpisweep.master.prune_client` is the other end::

    {"ask": "load"}                                  read the file and the journal, once and first
    {"ask": "judge", "events": [event, ...]}

An event is a block of reports, [number, attempt, block, rank, steps, values], or the end of a trial, [number,
state, objective].  An answer has ``hopeless``, a list of [number, attempt, rank] of running trials that
should end; or ``error``, after which no trial is pruned any more.

A block of reports counts once, by its position in its attempt: what was read from the journal may arrive
again.  If more reports arrive than can be judged one by one, the last one of each block is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.search.nice import answer_lines, behave
from mpisweep.spec import Spec, parse_spec

if TYPE_CHECKING:
    from mpisweep.results.state import SweepState
    from mpisweep.search.judging import Judge, KnownTrial

__all__ = ["EACH", "Bench", "serve_pruner"]

#: Length of an event that is an end.
_END = 3
#: A request with more reports has only the last one of each block judged.
EACH = 500


def serve_pruner(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: the sweep (``spec``, ``source``, ``folder``), and the ``path`` of its results file.
    """
    behave("mpisweep-prune")
    answer_lines(files[0], lambda lines: _answers(lines, arguments))


def _answers(lines: Iterator[str], arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    spec = parse_spec(
        arguments["spec"], source=arguments["source"], folder=Path(arguments["folder"]), is_recorded=True
    )
    bench = Bench(spec)
    for text in lines:
        asked = json.loads(text)
        if asked["ask"] == "load":
            yield {"hopeless": bench.load(Path(arguments["path"]))}
        else:
            yield {"hopeless": bench.judge(asked["events"])}


class Bench:
    """The judge of a sweep, and which blocks of reports it has.

    Args:
        spec: a sweep with a pruner.
    """

    def __init__(self, spec: Spec) -> None:
        # Imports Optuna, half a second.
        from mpisweep.search.judging import Judge
        from mpisweep.search.pruning import resolved

        assert spec.prune is not None
        self._objective = spec.objective
        self._judge: Judge = Judge(resolved(spec.prune), spec.direction, spec.seed)
        #: Trial -> blocks of its last attempt that the judge has.
        self._blocks: dict[int, _Blocks] = {}

    def load(self, path: Path) -> list[list[int]]:
        """Add what the file and the journal hold; returns the hopeless trials."""
        from mpisweep.results.merged import read_merged
        from mpisweep.results.reports import Reading

        state = read_merged(path, reading=Reading.PLACES)
        try:
            hopeless = self._judge.add(_known_trials(state, self._objective))
        finally:
            state.curves.close()
        tables = state.trials
        for number, (attempt, count) in enumerate(
            zip(tables["attempt"], tables["report_blocks"], strict=True)
        ):
            if attempt:
                later = state.report_gaps.get(number, set())
                self._blocks[number] = _Blocks(attempt, count, set(later))
                self._blocks[number].is_hopeless = number in hopeless
        rank_of = state.workers["rank"]
        return [
            [number, tables["attempt"][number], rank_of[tables["worker"][number]]]
            for number in hopeless
            if tables["worker"][number] >= 0
        ]

    def judge(self, events: Sequence[Sequence[Any]]) -> list[list[int]]:
        """Add reports and ends in the order of their arrival; returns the hopeless trials.

        Args:
            events: see the module.
        """
        found: dict[int, list[int]] = {}
        is_each = sum(len(event[4]) for event in events if len(event) > _END) <= EACH
        for event in events:
            if len(event) == _END:
                number, state, objective = event
                self._judge.end(number, state, math.nan if objective is None else objective)
                self._blocks.pop(number, None)
                found.pop(number, None)
                continue
            number, attempt, block, rank, steps, values = event
            if self._is_new(number, attempt, block) and self._add(number, attempt, steps, values, is_each):
                found[number] = [number, attempt, rank]
        return list(found.values())

    def _add(
        self, number: int, attempt: int, steps: Sequence[int], values: Sequence[float], is_each: bool
    ) -> bool:
        """Add a block of reports; returns whether the trial is hopeless."""
        blocks, judge = self._blocks[number], self._judge
        for place, (step, value) in enumerate(zip(steps, values, strict=True), 1):
            # A trial that is hopeless once is told so until it ends.
            if judge.report(number, attempt, step, value) and (is_each or place == len(steps)):
                blocks.is_hopeless = blocks.is_hopeless or judge.is_hopeless(number)
        return blocks.is_hopeless

    def _is_new(self, number: int, attempt: int, block: int) -> bool:
        known = self._blocks.get(number)
        if known is None or attempt > known.attempt:
            known = self._blocks[number] = _Blocks(attempt, 0, set())
        return attempt == known.attempt and known.add(block)


class _Blocks:
    """Which blocks of an attempt have arrived: all below `first`, and those in `later`."""

    __slots__ = ("attempt", "first", "is_hopeless", "later")

    def __init__(self, attempt: int, first: int, later: set[int]) -> None:
        self.attempt = attempt
        self.first = first
        self.later = later
        self.is_hopeless = False

    def add(self, block: int) -> bool:
        """Note a block; False if it has arrived before."""
        if block < self.first or block in self.later:
            return False
        self.later.add(block)
        while self.first in self.later:
            self.later.remove(self.first)
            self.first += 1
        return True


def _known_trials(state: SweepState, objective: str) -> Iterator[KnownTrial]:
    """The trials that have reported or ended, in the order of their numbers."""
    from mpisweep.search.judging import KnownTrial

    tables, values = state.trials, state.metrics.get(objective, [])
    attempts = state.attempts
    tried = zip(attempts["trial"], attempts["attempt"], strict=True)
    begun = dict(zip(tried, attempts["assigned_at"], strict=True))
    for number, attempt in enumerate(tables["attempt"]):
        if not attempt and tables["state"][number] == 0:
            continue
        curve = state.curve(number, objective)
        started_at = tables["started_at"][number]
        if started_at != started_at:
            started_at = begun.get((number, attempt), 0.0)
        ended_at = tables["started_at"][number] + tables["wall_time"][number]
        is_over = tables["state"][number] >= 2
        yield KnownTrial(
            number,
            tables["state"][number],
            attempt,
            values[number] if values else math.nan,
            curve.step,
            curve.value,
            [started_at + after for after in curve.time],
            (ended_at if ended_at == ended_at else started_at) if is_over else math.inf,
        )
