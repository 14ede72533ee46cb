"""How much a trial may have kept: what is longer is cut where it is made, and it is said that it was.

A result travels as one record, whose length the journal bounds (:mod:`mpisweep.results.journal.writer`), and
everybody who reads the results file reads every message and every name in it.  A program that goes wrong can
make any of them as long as memory is.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

__all__ = ["LOG_CHARS", "MESSAGE_CHARS", "METRICS", "NAME_CHARS", "MetricNames", "shortened"]

#: Of a trial's message, in the results file.
MESSAGE_CHARS = 16_384
#: Of what a failed trial has in the log.
LOG_CHARS = 1 << 18
#: Of the name of a metric.
NAME_CHARS = 200
#: How many metrics a trial may have.
METRICS = 1000


def shortened(text: str, at_most: int) -> str:
    """The beginning and the end of a text, and how much is missing between them; the text itself where it is
    short enough.
    """
    if len(text) <= at_most:
        return text
    half = at_most // 2
    return f"{text[:half]}\n[mpisweep: {len(text) - 2 * half:,} characters are left out here]\n{text[-half:]}"


class MetricNames:
    """The names under which the metrics of one trial are kept.

    Args:
        objective: is kept however many there are.
    """

    def __init__(self, objective: str = "") -> None:
        self._objective = objective
        self._kept: dict[str, str] = {}
        #: What was cut or left out first; empty for nothing.
        self.notice = ""

    def kept(self, name: str) -> str | None:
        """The name under which a metric is kept; None where there are too many of them."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if len(self._kept) >= METRICS and name != self._objective:
            self.notice = (
                self.notice
                or f"it has more than {METRICS:,} metrics: {name!r:.80} and others after it are not kept"
            )
            return None
        kept = name
        if len(name) > NAME_CHARS:
            # Two long names must not become one.
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
            kept = f"{name[: NAME_CHARS - len(digest) - 3]}...{digest}"
            self.notice = (
                self.notice
                or f"the name of a metric has {len(name):,} characters: it is kept as {kept[:40]!r}..."
            )
        self._kept[name] = kept
        return kept

    def all_kept(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics that are kept, under the names under which they are."""
        named = ((self.kept(name), value) for name, value in metrics.items())
        return {kept: value for kept, value in named if kept is not None}
