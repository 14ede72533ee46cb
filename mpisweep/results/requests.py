"""Files of users' requests: retry, skip, first and add, for a sweep that exists.

A command writes each request as a file of its own in the folder ``NAME.h5.requests/``; no port is involved,
so that it works from any node that sees the file system.  The file appears whole: it is written under
another name, synced and renamed.  The master of a running sweep, or the next run, applies the request in one
record of the journal and then removes the file.  The record holds the name of the request.  So it is applied
once, wherever a master is killed: before the record is on disk, the next master finds the file and no record;
afterwards it finds the record, and only removes the file.

A file::

    {"what": "skip", "trials": [[12, 0], [13, 0]], "asked_at": ..., "by": "user@host"}
    {"what": "add", "names": ["batch_size"], "rows": [[701], [702]], "asked_at": ..., "by": "user@host"}
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

from mpisweep.records import Request, RequestKind
from mpisweep.results import requests_folder
from mpisweep.results.syncing import sync, write_synced

__all__ = ["new_name", "read_requests", "remove_if_empty", "request_file", "write_request"]

_SUFFIX = ".json"
#: Attempts to write into a folder that a master removes because it is empty.
_TRIES = 20


def new_name() -> str:
    """A unique name that sorts after those of all earlier requests, if the clocks agree."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


def request_file(path: Path, name: str) -> Path:
    """The file of a request to the sweep with this results file."""
    return requests_folder(path) / f"{name}{_SUFFIX}"


def write_request(path: Path, request: Request) -> None:
    """Write a request durably; it appears whole.

    Args:
        path: of the results file.
        request: what is asked.

    Raises:
        OSError: when the file cannot be written.
    """
    folder = requests_folder(path)
    text = json.dumps(_fields_of(request))
    for attempt in range(_TRIES):
        # A master may remove the folder in between, because it was empty.
        try:
            folder.mkdir(exist_ok=True)
            write_synced(folder / f".{request.name}", text)
            os.rename(folder / f".{request.name}", request_file(path, request.name))
            sync(folder)
            break
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    sync(folder.parent)


def read_requests(path: Path, known: Container[str] = ()) -> tuple[list[Request], list[str]]:
    """Read the requests that wait, in the order in which they were made.

    Args:
        path: of the results file.
        known: names of requests not to read.

    Returns:
        The requests, and the names of the files that are none.

    Raises:
        OSError: when the folder cannot be read.
    """
    found: list[Request] = []
    unreadable: list[str] = []
    folder = requests_folder(path)
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    for file in names:
        name = file.removesuffix(_SUFFIX)
        if file.startswith(".") or not file.endswith(_SUFFIX) or name in known:
            continue
        with contextlib.suppress(FileNotFoundError):  # it was applied in between
            request = _request_in(name, (folder / file).read_bytes())
            if request is None:
                unreadable.append(file)
            else:
                found.append(request)
    return found, unreadable


def remove_if_empty(path: Path) -> None:
    """Remove the folder of requests if none waits."""
    with contextlib.suppress(OSError):
        requests_folder(path).rmdir()


def _fields_of(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {"what": request.kind, "asked_at": request.asked_at, "by": request.by}
    if request.kind is not RequestKind.ADD:
        return fields | {"trials": request.trials}
    names = list(dict.fromkeys(name for one in request.configurations for name in one))
    # A configuration may lack a parameter that has a condition.
    return fields | {"names": names, "rows": [[one.get(n) for n in names] for one in request.configurations]}


def _request_in(name: str, text: bytes) -> Request | None:
    """The request in a file; None if the file holds something else."""
    try:
        fields = json.loads(text)
        kind = RequestKind(fields["what"])
        trials = tuple((_count(number), _count(attempt)) for number, attempt in fields.get("trials", ()))
        names = fields.get("names", ())
        configurations = tuple(
            {str(n): _value(value) for n, value in zip(names, row, strict=True) if value is not None}
            for row in fields.get("rows", ())
        )
        return Request(name, kind, trials, configurations, float(fields["asked_at"]), str(fields["by"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(value)
    return value


def _value(value: Any) -> int | float | str | bool:
    if type(value) not in (int, float, str, bool):
        raise TypeError(value)
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(value)
    found: int | float | str | bool = value
    return found
