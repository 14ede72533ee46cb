"""Limits on the size of a trial's result; longer text is cut at its origin, and says so.

A result travels as one record, whose length the journal bounds (:mod:`mpisweep.results.journal.writer`), and
every reader of the results file reads every message and metric name in it.  A faulty program can produce
messages and names of any length.

Pure.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

__all__ = ["LOG_CHARS", "MESSAGE_CHARS", "METRICS", "NAME_CHARS", "MetricNames", "shortened"]

#: Length limit of a trial's message in the results file.
MESSAGE_CHARS = 16_384
#: Length limit of a failed trial's output in the log.
LOG_CHARS = 1 << 18
#: Length limit of a metric's name.
NAME_CHARS = 200
#: Number of metrics per trial.
METRICS = 1000


def shortened(text: str, at_most: int) -> str:
    """Cut the middle out of a long text and say how many characters are missing."""
    if len(text) <= at_most:
        return text
    half = at_most // 2
    return f"{text[:half]}\n[mpisweep: {len(text) - 2 * half:,} characters are left out here]\n{text[-half:]}"


class MetricNames:
    """The names under which one trial's metrics are stored.

    Args:
        objectives: always kept, even if the trial has too many metrics.
    """

    def __init__(self, objectives: Container[str] = ()) -> None:
        self._objectives = objectives
        self._kept: dict[str, str] = {}
        #: The first cut or omission, as a message; empty if there is none.
        self.notice = ""

    def kept(self, name: str) -> str | None:
        """The stored name of a metric; None if the trial has too many metrics."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if len(self._kept) >= METRICS and name not in self._objectives:
            self.notice = (
                self.notice or f"more than {METRICS:,} metrics: {name!r:.80} and later ones are not stored"
            )
            return None
        kept = name
        if len(name) > NAME_CHARS:
            # The digest keeps two long names with the same beginning apart.
            import hashlib

            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
            kept = f"{name[: NAME_CHARS - len(digest) - 3]}...{digest}"
            self.notice = (
                self.notice or f"metric name of {len(name):,} characters: stored as {kept[:40]!r}..."
            )
        self._kept[name] = kept
        return kept

    def all_kept(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics that are stored, under their stored names."""
        named = ((self.kept(name), value) for name, value in metrics.items())
        return {kept: value for kept, value in named if kept is not None}
