"""The process of a learning search: requests and answers are one line of JSON each.

:mod:`mpisweep.master.search_client` is the other end::

    {"ask": "learn", "ends": [[number, objectives, step], ...]}        results, in the order of their records
    {"ask": "propose", "ends": [...], "first": n, "count": k}          k proposals, from number n on

Numbers are those of configurations; an end is that of all their repeats.

The step is that of a pruned trial's last report, and -1 for other trials.  An end of an objective of Optuna
has a fourth entry: what it has asked for, or None.

An answer has ``ends``, the number of ends known, and for proposals ``configurations`` and ``seconds``; or
``error``, after which the search is over.  What happened before comes with the arguments of the process: it
can be killed at any time, and another one continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpisweep.search.learning import LearningSearch
from mpisweep.search.nice import answer_lines, behave
from mpisweep.spec import parse_spec

__all__ = ["serve_search"]


def serve_search(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: the sweep (``spec``, ``source``, ``folder``) and the past (``configurations``, ``known``,
            ``ends``, ``imported``).
    """
    behave("mpisweep-search")
    answer_lines(files[0], lambda lines: _answers(lines, arguments))


def _answers(lines: Iterator[str], arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    # Imports Optuna, half a second.
    from mpisweep.search.proposing import End, Past, Proposer
    from mpisweep.search.suggesting import SuggestingProposer

    spec = parse_spec(
        arguments["spec"], source=arguments["source"], folder=Path(arguments["folder"]), is_recorded=True
    )
    past = Past(
        arguments["configurations"],
        # JSON has texts as keys.
        {int(number): known for number, known in arguments["known"].items()},
        [End(*one) for one in arguments["ends"]],
        [(configuration, objective) for configuration, objective in arguments["imported"]],
    )
    sampler = LearningSearch.from_spec(spec).sampler
    directions = [objective.direction for objective in spec.objectives]
    proposer: Proposer | SuggestingProposer
    if spec.is_defined_by_run:
        proposer = SuggestingProposer(sampler, spec.seed, directions, past)
    else:
        proposer = Proposer(spec.space, sampler, spec.seed, directions, past)
    for text in lines:
        asked = json.loads(text)
        proposer.tell(End(*one) for one in asked["ends"])
        answer: dict[str, Any] = {"ends": proposer.ends}
        if asked["ask"] == "propose":
            started = time.perf_counter()
            answer["configurations"] = proposer.ask(asked["first"], asked["count"])
            answer["seconds"] = time.perf_counter() - started
        yield answer
