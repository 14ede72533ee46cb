"""Which members of a split sweep live.

The claim of a member's part (:mod:`mpisweep.results.claim`) tells that: its time changes as long as the
master is well.  Who watches counts the silence by its own looks: time in which it could not look is nobody's
silence, and clocks are not compared.  That a file is missing says nothing, for NFS may remember that for a
minute; so a member that ends in order says so by a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mpisweep.results import journal_folder
from mpisweep.results.holder import SUCCESSION_S, Holder, claim_file, is_gone_here
from mpisweep.results.shares.folder import left_file, part_file

__all__ = ["Life", "MemberWatch", "look_every_s"]

#: How often the others are looked at, in seconds, unless the silence is short.
_LOOK_EVERY_S = 5.0


class Life(Enum):
    """What is known of a member."""

    #: It gives signs of life.
    ALIVE = "alive"
    #: It has been silent for a moment, or was seen for the first time: nobody knows yet.
    UNCERTAIN = "uncertain"
    DEAD = "dead"
    #: It has ended in order.
    LEFT = "left"


@dataclass(slots=True)
class _Watched:
    holder: Holder | None
    changed_ns: int
    silent_s: float = 0.0
    ever_changed: bool = False
    life: Life = Life.UNCERTAIN


def look_every_s(silence_s: float) -> float:
    """How often members look at each other, and show themselves, in seconds."""
    return min(_LOOK_EVERY_S, silence_s / 6)


class MemberWatch:
    """Watches the members of one sweep.

    Args:
        folder: of the shares.
        silence_s: a member that gives no sign of life for so long is dead.
        every_s: how often the watcher means to look; a longer pause counts as this much of silence, twice.
    """

    def __init__(self, folder: Path, *, silence_s: float, every_s: float) -> None:
        self._folder = folder
        self._silence_s = silence_s
        self._every_s = every_s
        self._watched: dict[str, _Watched] = {}
        self._last_look: float | None = None

    def look(self, names: Sequence[str], now: float) -> None:
        """Look at these members once; `now` is the monotonic clock."""
        since_s = 0.0 if self._last_look is None else now - self._last_look
        self._last_look = now
        for name in names:
            self._look_at(name, min(since_s, 2 * self._every_s))

    def _look_at(self, name: str, since_s: float) -> None:
        if left_file(self._folder, name).exists():
            self._watched[name] = _Watched(None, 0, life=Life.LEFT)
            return
        changed_ns, text = 0, b""
        with contextlib.suppress(FileNotFoundError):
            # Opened, because over NFS only that asks the server.
            with claim_file(journal_folder(part_file(self._folder, name))).open("rb") as claim:
                changed_ns, text = os.fstat(claim.fileno()).st_mtime_ns, claim.read()
        watched = self._watched.get(name)
        if watched is None or watched.changed_ns != changed_ns:
            seen = _Watched(_holder(text), changed_ns)
            if watched is not None:
                seen.ever_changed, seen.life = True, Life.ALIVE
            self._watched[name] = watched = seen
        else:
            watched.silent_s += since_s
        patience_s = self._silence_s
        if watched.holder is not None and is_gone_here(watched.holder):
            patience_s = min(patience_s, SUCCESSION_S)
        if watched.silent_s > patience_s:
            watched.life = Life.DEAD
        elif watched.silent_s > self._silence_s / 2:
            watched.life = Life.UNCERTAIN

    def life(self, name: str) -> Life:
        """What is known of a member that was looked at."""
        return self._watched[name].life

    @property
    def gone(self) -> set[str]:
        """The members that will not go on."""
        return {name for name, watched in self._watched.items() if watched.life in (Life.DEAD, Life.LEFT)}

    @property
    def seen_alive(self) -> set[str]:
        """The members that have given a sign of life since this watch began."""
        return {name for name, watched in self._watched.items() if watched.ever_changed}

    def text(self, name: str) -> str:
        """Who a member is, for messages."""
        watched = self._watched.get(name)
        holder = watched.holder if watched else None
        return f"member {name}" if holder is None else holder.text()

    def settle(self, names: Sequence[str]) -> list[str]:
        """Look until nobody is uncertain, which may take the whole silence; returns those that are alive."""
        while True:
            self.look(names, time.monotonic())
            if not any(self.life(name) is Life.UNCERTAIN for name in names):
                return [name for name in names if self.life(name) is Life.ALIVE]
            time.sleep(min(self._every_s, 0.5))


def _holder(text: bytes) -> Holder | None:
    with contextlib.suppress(ValueError, TypeError):
        return Holder(**json.loads(text))
    return None
