"""What several allocations share that work on one sweep (``mpisweep run --split``), as files.

::

    NAME.h5.shares/
        sweep.json                the sweep file, how it was split, the trials of each chunk
        base.h5                   NAME.h5 as it was before; missing for a new sweep
        00007-000001.lease        chunk 7, epoch 1: see mpisweep.results.shares.leases
        MEMBER.h5, MEMBER.h5.journal/    one member's results, like those of any other run
        MEMBER.left               made when the member has ended in order
        merge-000003-a1b2c3/      where NAME.h5 is being written before it takes its place

Nothing in here needs a server or a lock, only what holds on every file system that clusters share (Lustre,
FEFS, NFS): a hard link to a finished file either is made or says that the name exists; a rename is atomic; a
file that is opened shows what was written before it was last closed elsewhere.

The folder comes into being whole: it is filled under another name and renamed.  It goes in the same way, when
``NAME.h5`` holds everything.  A lease is synced, with the folder, before any trial in it runs: no result can be
on disk whose lease is not.

Whether a member lives is told by the claim of its part (:mod:`mpisweep.results.claim`), whose time changes as long
as the master is well.  Who watches counts the silence by its own looks: time in which it could not look is
nobody's silence, and clocks are not compared.  That a file is missing says nothing, for NFS may remember that
for a minute; so a member that ends in order says so by a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path

from mpisweep.results import ResultsError, journal_folder
from mpisweep.results.holder import Holder, claim_file, is_gone_here
from mpisweep.results.shares.leases import Lease
from mpisweep.results.syncing import sync

__all__ = [
    "Life",
    "MemberWatch",
    "SharedSweep",
    "base_file",
    "clear_away",
    "create_shares",
    "left_file",
    "look_every_s",
    "members",
    "part_file",
    "read_leases",
    "read_shared",
    "take_lease",
]

#: How often the others are looked at, in seconds, unless the silence is short.
_LOOK_EVERY_S = 5.0
#: A member whose process is gone may be a master whose successor is about to take over, in seconds.
_SUCCESSION_S = 3.0


@dataclass(frozen=True, slots=True)
class SharedSweep:
    """What all members agree on.

    Attributes:
        spec: text of the sweep file.
        source: how messages call it.
        split: in how many shares the sweep was to be done.
        count: how many trials there are.
        digest: of all their configurations, in order.
        chunks: the trials of each chunk that had not ended when the sweep was split.
        widths: how many ranks the trials of each chunk need; empty where all need one.
    """

    spec: str
    source: str
    split: int
    count: int
    digest: str
    chunks: list[list[int]]
    widths: list[int] = field(default_factory=list)


def look_every_s(silence_s: float) -> float:
    """How often members look at each other, and show themselves, in seconds."""
    return min(_LOOK_EVERY_S, silence_s / 6)


def part_file(folder: Path, member: str) -> Path:
    """The results file of one member."""
    return folder / f"{member}.h5"


def base_file(folder: Path) -> Path:
    """What the results file was before."""
    return folder / "base.h5"


def left_file(folder: Path, member: str) -> Path:
    """Says that a member has ended in order."""
    return folder / f"{member}.left"


def members(folder: Path) -> list[str]:
    """All members that there have been, in the order of their names."""
    names = os.listdir(folder)
    parts = [name.removesuffix(".journal") for name in names if name.endswith((".h5", ".h5.journal"))]
    return sorted({name.removesuffix(".h5") for name in parts} - {"base"})


# ------------------------------------------------------------------------------------- beginning and end


def read_shared(folder: Path) -> SharedSweep | None:
    """What the members agree on; None when there is no such folder.

    Raises:
        ResultsError: when it cannot be understood.
    """
    path = folder / "sweep.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return SharedSweep(
            **{name: found[name] for name in (one.name for one in fields(SharedSweep)) if name in found}
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{path}: is damaged ({error!r}); what the members have found is beside it"
        ) from error


def create_shares(folder: Path, shared: SharedSweep, before: Path, token: Path | None = None) -> bool:
    """Make the folder, whole or not at all; False when it is there already.

    Args:
        folder: to make.
        shared: what goes into it.
        before: the results file; it need not exist.
        token: in which it is made, of the claim in whose name; None where nobody else can be at work on the sweep.
    """
    made = (token or folder.parent) / f"{folder.name}.new-{secrets.token_hex(4)}"
    made.mkdir()
    try:
        if before.exists():
            os.link(before, base_file(made))
        _write_synced(made / "sweep.json", json.dumps(asdict(shared)))
        sync(made)
        try:
            # Onto an empty folder this would succeed; ours is never empty.
            os.rename(made, folder)
        except OSError:
            if folder.exists():
                return False
            raise
        sync(folder.parent)
        return True
    finally:
        shutil.rmtree(made, ignore_errors=True)


def clear_away(folder: Path, known: Iterable[str], damaged: Path, same: Path | None = None) -> bool:
    """Remove the folder, whose members' results are all in the results file.

    Args:
        folder: of the shares.
        known: members whose results these are.
        damaged: where what could not be read of their files is kept.
        same: that folder by another name, which leads to no other that was made since; None where none can have been.

    Returns:
        False when a member beyond the `known` ones has come meanwhile; then the folder stays.
    """
    gone = folder.with_name(f"{folder.name}.gone-{secrets.token_hex(4)}")
    # From here on nobody can join.
    os.rename(folder, gone)
    if set(members(gone)) - set(known) or not (same is None or same.samefile(gone)):
        os.rename(gone, folder)
        return False
    for kept in gone.glob("*.damaged"):
        damaged.mkdir(exist_ok=True)
        os.rename(kept, damaged / f"{kept.stem}-{secrets.token_hex(4)}")
    sync(folder.parent)
    for left in (
        gone,
        *folder.parent.glob(f"{folder.name}.gone-*"),
        *folder.parent.glob(f"{folder.name}.new-*"),
    ):
        shutil.rmtree(left, ignore_errors=True)
    return True


# ------------------------------------------------------------------------------------- leases


def read_leases(folder: Path, known: dict[str, Lease] | None = None) -> list[Lease]:
    """All leases.

    Args:
        folder: of the shares.
        known: name of a file -> its lease; a lease never changes, so what is in here is not read again.

    Raises:
        ResultsError: when one cannot be understood.
        FileNotFoundError: when the folder is gone.
    """
    known = {} if known is None else known
    for name in os.listdir(folder):
        if name.endswith(".lease") and name not in known:
            known[name] = _read_lease(folder / name)
    return list(known.values())


def _read_lease(path: Path) -> Lease:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        columns = {name: tuple(map(int, found[name])) for name in ("numbers", "attempts", "losses")}
        return Lease(**found | columns)
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"{path}: is damaged ({error!r})") from error


def take_lease(folder: Path, lease: Lease) -> bool:
    """Write a lease down for good; False when another member has that one."""
    aside = folder / f"lease.{secrets.token_hex(8)}"
    try:
        _write_synced(aside, json.dumps(asdict(lease)))
        try:
            os.link(aside, folder / f"{lease.chunk:05d}-{lease.epoch:06d}.lease")
        except FileExistsError:
            # Over NFS the answer may have been lost, and the second try have met our own link.
            if aside.stat().st_nlink < 2:
                return False
        sync(folder)
        return True
    finally:
        aside.unlink(missing_ok=True)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


# ------------------------------------------------------------------------------------- who lives


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


class MemberWatch:
    """Watches the members of one sweep.

    Args:
        folder: of the shares.
        silence_s: a member that gives no sign of life for so long is dead.
        every_s: how often the watcher means to look; a longer pause counts as this much of silence, twice.
        host: of the watcher.
    """

    def __init__(self, folder: Path, *, silence_s: float, every_s: float, host: str) -> None:
        self._folder = folder
        self._silence_s = silence_s
        self._every_s = every_s
        self._host = host
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
        if watched.holder is not None and watched.holder.host == self._host and is_gone_here(watched.holder):
            patience_s = min(patience_s, _SUCCESSION_S)
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
