"""What users asked of a sweep: requests that were applied, and those that wait."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpisweep.progress import counted
from mpisweep.records import Request, RequestKind
from mpisweep.results import stop_file
from mpisweep.results.load import Sweep
from mpisweep.results.requests import read_requests
from mpisweep.views.wording import clock, finite

__all__ = ["RequestStatus", "failures_before_retries", "request_lines", "requests_of"]

#: Most applied requests that are listed in words.
_LISTED = 5
#: Most trials that a line names.
_NAMED = 6


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """One request.

    Attributes:
        what: retry, skip, first, add or stop.
        by: who asked, and where; empty if unknown.
        asked_at: in seconds since 1970; None if unknown.
        applied_at: in seconds since 1970; None while the request waits.
        trials: numbers of the trials that it changed; those that it names while it waits.
        count: number of trials; while an addition waits, of points.
        refused: what was refused, and why; empty for nothing.
        failures: of a retry: how each of these trials had failed.
    """

    what: str
    by: str
    asked_at: float | None
    applied_at: float | None
    trials: tuple[int, ...]
    count: int
    refused: str = ""
    failures: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """In words."""
        when = "not applied yet" if self.applied_at is None else f"applied {clock(self.applied_at)}"
        asked = f" by {self.by}" if self.by else ""
        refused = f"; refused: {self.refused}" if self.refused else ""
        return f"  request: {self._what()}{asked}, {when}{refused}"

    def _what(self) -> str:
        if self.what == RequestKind.STOP:
            return self.what
        if self.applied_at is not None and not self.trials and not self.refused:
            return f"{self.what}, for which nothing was left to do,"
        if not self.trials:
            return f"{self.what} {counted(self.count, 'point' if self.what == RequestKind.ADD else 'trial')}"
        named = ", ".join(map(str, self.trials[:_NAMED]))
        more = f" and {len(self.trials) - _NAMED:,} more" if len(self.trials) > _NAMED else ""
        return f"{self.what} trial{'s' if len(self.trials) > 1 else ''} {named}{more}"


def requests_of(sweep: Sweep) -> Iterator[RequestStatus]:
    """All requests, first the applied ones, each group in the order in which it was made."""
    applied = sweep.requests
    for row in applied:
        trials = tuple(_listed(row["trials"]))
        yield RequestStatus(
            str(row["what"]), str(row["by"]), finite(row["asked_at"]), finite(row["applied_at"]), trials,
            len(trials), str(row["refused"]), tuple(map(str, _listed(row["failures"]))),
        )  # fmt: skip
    try:
        waiting, _ = read_requests(sweep.path, set(map(str, applied["request"])))
    except OSError:
        # The folder belongs to somebody else.
        waiting = []
    yield from map(_waiting, waiting)
    if stop_file(sweep.path).exists():
        yield RequestStatus(RequestKind.STOP.value, "", None, None, (), 0)


def failures_before_retries(sweep: Sweep, number: int) -> dict[int, str]:
    """How the attempts of a trial had failed that a user has retried."""
    found: dict[int, str] = {}
    for row in sweep.requests:
        trials, attempts, failures = (_listed(row[name]) for name in ("trials", "attempts", "failures"))
        found |= {a: f for n, a, f in zip(trials, attempts, failures, strict=False) if n == number and f}
    return found


def _waiting(request: Request) -> RequestStatus:
    trials = tuple(number for number, _ in request.trials)
    count = len(request.configurations) if request.kind is RequestKind.ADD else len(trials)
    return RequestStatus(request.kind.value, request.by, request.asked_at, None, trials, count)


def request_lines(requests: Sequence[RequestStatus]) -> Iterator[str]:
    """Put the requests that wait and the last applied ones into words."""
    applied = [one for one in requests if one.applied_at is not None]
    if len(applied) > _LISTED:
        yield f"  {counted(len(applied) - _LISTED, 'earlier request')}"
    yield from (one.line for one in applied[-_LISTED:])
    yield from (one.line for one in requests if one.applied_at is None)


def _listed(text: Any) -> list[Any]:
    """A column of JSON; empty if it was lost to damage."""
    try:
        found = json.loads(str(text))
    except ValueError:
        return []
    return found if isinstance(found, list) else []
