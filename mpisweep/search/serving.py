"""The process of a learning search: requests and answers are one line of JSON each.

:mod:`mpisweep.master.search_client` is the other end::

    {"ask": "learn", "ends": [[number, objectives], ...]}              results, in the order of their records
    {"ask": "propose", "ends": [...], "first": n, "count": k}          k proposals, from number n on

Numbers are those of configurations; an end is that of all their repeats.

An answer has ``ends``, the number of ends known, and for proposals ``configurations`` and ``seconds``; or
``error``, after which the search is over.  What happened before comes with the arguments of the process: it
can be killed at any time, and another one continues.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from typing import Any

from mpisweep.search.learning import LearningSearch
from mpisweep.spec import parse_spec

__all__ = ["serve_search"]


def serve_search(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: the sweep (``spec``, ``source``, ``folder``) and the past (``configurations``, ``known``,
            ``ends``, ``imported``).
    """
    # A proposal is asked for ahead of time; a trial's data loader on the same core is urgent.
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        # What `ps` and `top` show.
        Path("/proc/self/comm").write_text("mpisweep-search", encoding="ascii")
    _use_one_core()
    with socket(fileno=files[0]) as connection, connection.makefile("rw", encoding="utf-8") as line:
        try:
            for answer in _answers(line, arguments):
                print(json.dumps(answer), file=line, flush=True)
        except Exception as error:
            # A sampler is third-party code and may raise anything.
            text = f"{type(error).__name__}: {error}"
            print(json.dumps({"error": text}), file=line, flush=True)


def _use_one_core() -> None:
    """Keep the libraries of a sampler from taking the cores of the trials."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    # The fork server has loaded torch if the workload needs it, and torch reads these variables only then.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _answers(line: Any, arguments: Mapping[str, Any]) -> Any:
    # Imports Optuna, half a second.
    from mpisweep.search.proposing import End, Past, Proposer

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
    proposer = Proposer(spec.space, sampler, spec.seed, directions, past)
    for text in line:
        asked = json.loads(text)
        proposer.tell(End(*one) for one in asked["ends"])
        answer: dict[str, Any] = {"ends": proposer.ends}
        if asked["ask"] == "propose":
            started = time.perf_counter()
            answer["configurations"] = proposer.ask(asked["first"], asked["count"])
            answer["seconds"] = time.perf_counter() - started
        yield answer
