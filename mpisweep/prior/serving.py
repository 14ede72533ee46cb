"""The process that reads the sources of ``import``.

Ranks do not import Optuna, nor wait for a database.

The process answers one line of JSON to any request: the fields of
:class:`~mpisweep.prior.reading.Imported`, or ``error``.
The master's side is :mod:`mpisweep.master.importing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from socket import socket
from typing import Any

from mpisweep.prior.reading import read_imports
from mpisweep.results import ResultsError
from mpisweep.spec import parse_spec

__all__ = ["serve_import"]


def serve_import(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: the sweep: ``spec``, ``source`` and ``folder``.
    """
    spec = parse_spec(
        arguments["spec"], source=arguments["source"], folder=Path(arguments["folder"]), is_recorded=True
    )
    with socket(fileno=files[0]) as connection, connection.makefile("rw", encoding="utf-8") as line:
        for _ in line:
            try:
                answer = asdict(read_imports(spec))
            except ResultsError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), file=line, flush=True)
