"""Which members of a split sweep are alive.

The claim on a member's part (:mod:`mpisweep.results.claim`) shows that: its mtime changes as long as the
master is well.  A watcher measures silence by its own polls: time in which it could not poll does not count
as silence, and clocks are not compared.  A missing file proves nothing, because NFS may cache that for a
minute; so a member that ends cleanly creates a file.
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

#: Interval between polls, in seconds, unless the silence limit is short.
_LOOK_EVERY_S = 5.0


class Life(Enum):
    """State of a member as seen by a watcher."""

    #: It sends heartbeats.
    ALIVE = "alive"
    #: It is silent, or was seen for the first time.
    UNCERTAIN = "uncertain"
    DEAD = "dead"
    #: It has ended cleanly.
    LEFT = "left"


@dataclass(slots=True)
class _Watched:
    holder: Holder | None
    changed_ns: int
    silent_s: float = 0.0
    ever_changed: bool = False
    life: Life = Life.UNCERTAIN


def look_every_s(silence_s: float) -> float:
    """Interval between polls and between heartbeats, in seconds."""
    return min(_LOOK_EVERY_S, silence_s / 6)


class MemberWatch:
    """Watches the members of one sweep.

    Args:
        folder: of the shares.
        silence_s: a member without a heartbeat for this long is declared dead.
        every_s: intended interval between polls; a longer pause counts as twice this silence.
    """

    def __init__(self, folder: Path, *, silence_s: float, every_s: float) -> None:
        self._folder = folder
        self._silence_s = silence_s
        self._every_s = every_s
        self._watched: dict[str, _Watched] = {}
        self._last_look: float | None = None

    def look(self, names: Sequence[str], now: float) -> None:
        """Poll these members once; `now` is the monotonic clock."""
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
            # Over NFS only an open asks the server.
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
        """State of a member that was polled."""
        return self._watched[name].life

    @property
    def gone(self) -> set[str]:
        """The members that have left or were declared dead."""
        return {name for name, watched in self._watched.items() if watched.life in (Life.DEAD, Life.LEFT)}

    @property
    def seen_alive(self) -> set[str]:
        """The members that have sent a heartbeat since this watch began."""
        return {name for name, watched in self._watched.items() if watched.ever_changed}

    def text(self, name: str) -> str:
        """Description of a member for messages."""
        watched = self._watched.get(name)
        holder = watched.holder if watched else None
        return f"member {name}" if holder is None else holder.text()

    def poll_until_certain(self, names: Sequence[str]) -> list[str]:
        """Poll until no member is uncertain, at most for the whole silence; return the live ones."""
        while True:
            self.look(names, time.monotonic())
            if not any(self.life(name) is Life.UNCERTAIN for name in names):
                return [name for name in names if self.life(name) is Life.ALIVE]
            time.sleep(min(self._every_s, 0.5))


def _holder(text: bytes) -> Holder | None:
    with contextlib.suppress(ValueError, TypeError):
        return Holder(**json.loads(text))
    return None
