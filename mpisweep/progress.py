"""Progress of the sweep, for a live bar on a terminal and occasional lines in a job log.

Rank 0 has the progress and the launcher has the terminal; mpirun's standard output connects them.  Under our
launcher, rank 0 writes marked JSON lines, which the launcher removes from the stream and draws.  Under an
mpirun that the user called, rank 0 writes plain lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from mpisweep.dataclass import asdict, dataclass, field
from mpisweep.records import Value
from mpisweep.spec.units import configuration_text, duration_text, number_text

__all__ = [
    "ALIVE",
    "MARK",
    "JsonProgress",
    "LineProgress",
    "NoProgress",
    "Progress",
    "ProgressSink",
    "counted",
    "facts_of",
    "marked_line",
    "parse",
    "progress_line",
    "sharing_text",
]

#: Marks a line for the launcher; programs do not print this control character.
MARK = "\x1e"
#: Line that each rank prints to standard error first, to tell the launcher that it started.
ALIVE = MARK + "alive"
#: Seconds between two marked lines: a bar that moves four times a second looks alive.
_JSON_EVERY_S = 0.25
#: Seconds between plain lines: the first interval, its growth, and its limit.
_LINE_FIRST_S = 10.0
_LINE_GROWTH = 1.5
_LINE_AT_MOST_S = 300.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of the sweep's progress."""

    total: int
    ended: int
    pruned: int
    failed: int
    infeasible: int
    running: int
    elapsed_s: float
    #: Trials per second that ended in this run.
    rate: float
    left_s: float | None
    objective: str
    best: float | None
    best_number: int | None
    best_parameters: dict[str, Value]
    #: The best values of the objectives after the first one.
    others: dict[str, float] = field(default_factory=dict)
    #: Number of trials, or with repeats of configurations, on the front of several objectives.
    front: int = 0
    skipped: int = 0
    #: Number of runs of which `best` is the mean; 0 without repeats: then it is that of a single trial.
    best_runs: int = 0


class ProgressSink(Protocol):
    """A consumer of progress."""

    def wants(self, now: float) -> bool:
        """Whether an update is due; building a Progress is not free."""

    def show(self, progress: Progress) -> None:
        """Show an update."""


class NoProgress:
    """The sink for ``--quiet``."""

    def wants(self, now: float) -> bool:
        """Return False."""
        return False

    def show(self, progress: Progress) -> None:
        """Show nothing."""


class JsonProgress:
    """The sink that writes marked JSON lines for the launcher."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next = 0.0

    def wants(self, now: float) -> bool:
        """Whether a quarter of a second has passed."""
        if now < self._next:
            return False
        self._next = now + _JSON_EVERY_S
        return True

    def show(self, progress: Progress) -> None:
        """Write one marked line."""
        print(marked_line(progress), file=self._out, flush=True)


class LineProgress:
    """The sink for job logs: a line after 10 s, then at growing intervals of up to 5 min."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._every_s = _LINE_FIRST_S
        self._next: float | None = None

    def wants(self, now: float) -> bool:
        """Whether the current interval has passed."""
        if self._next is None:
            self._next = now + self._every_s
        if now < self._next:
            return False
        self._every_s = min(_LINE_GROWTH * self._every_s, _LINE_AT_MOST_S)
        self._next = now + self._every_s
        return True

    def show(self, progress: Progress) -> None:
        """Write one line."""
        self._write(progress_line(progress))


def marked_line(progress: Progress) -> str:
    """Format as a marked line; :func:`parse` reads it."""
    return MARK + json.dumps(asdict(progress))


def parse(line: str) -> Progress | None:
    """Parse a marked line; None for any other line."""
    if not line.startswith(MARK):
        return None
    try:
        return Progress(**json.loads(line.removeprefix(MARK)))
    except (ValueError, TypeError):
        # The line is truncated if the rank was killed while writing.
        return None


def progress_line(progress: Progress) -> str:
    """Format as one line: ``143/700 trials, 4 running, 2 failed, 11.9/min, 47 min left, ...``."""
    return ", ".join([f"{progress.ended}/{progress.total} trials", *(text for text, _ in facts_of(progress))])


def facts_of(progress: Progress) -> Iterator[tuple[str, str]]:
    """Yield what is known beside the number of trials: each fact, and its colour or nothing."""
    yield f"{progress.running} running", ""
    if progress.pruned:
        yield f"{progress.pruned} pruned", ""
    if progress.failed:
        yield f"{progress.failed} failed", "red"
    if progress.infeasible:
        yield f"{progress.infeasible} infeasible", ""
    if progress.skipped:
        yield f"{progress.skipped} skipped", ""
    if progress.rate > 0:
        yield f"{progress.rate:,.1f}/s" if progress.rate >= 1 else f"{60 * progress.rate:.1f}/min", ""
    if progress.left_s is not None and progress.ended < progress.total:
        yield f"{duration_text(progress.left_s)} left", ""
    if best := _best(progress):
        yield best, "green"


def _best(progress: Progress) -> str:
    if progress.best is None:
        return ""
    best, what = ("best mean", "configuration") if progress.best_runs else ("best", "trial")
    if progress.others:
        bests = {progress.objective: progress.best} | progress.others
        texts = [f"{best} {name} {number_text(value)}" for name, value in bests.items()]
        return ", ".join([f"{counted(progress.front, what)} on the front", *texts])
    parameters = configuration_text(progress.best_parameters)
    where = parameters or ("" if progress.best_runs else f"trial {progress.best_number}")
    runs = counted(progress.best_runs, "run") if progress.best_runs else ""
    return (
        f"{best} {progress.objective} {number_text(progress.best)} ({', '.join(filter(None, (runs, where)))})"
    )


def counted(count: int, what: str) -> str:
    """Format a count with its noun: ``1 worker``, ``2,000 workers``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def sharing_text(kind: str, trials: int, gain: float, step: float | None = None) -> str:
    """How many trials share each GPU of a kind, and why.

    Args:
        kind: of the GPUs.
        trials: number of trials per GPU.
        gain: trials per hour of a GPU, relative to one trial at a time.
        step: what one more trial per GPU gained over this; None if none was tried.
    """
    text = f"{kind}: {counted(trials, 'trial')} per GPU"
    if trials > 1:
        text += f", {gain:.2g} times the trials per hour of one"
    if step is not None:
        text += f"; {trials + 1} gained {100 * (step - 1):+.0f}%"
    return text
