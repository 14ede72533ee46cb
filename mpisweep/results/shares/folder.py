"""The shared files of several allocations on one sweep (``mpisweep run --split``).

::

    NAME.h5.shares/
        sweep.json                the sweep file, how it was split, the trials of each chunk
        base.h5                   NAME.h5 before the split; missing for a new sweep
        00007-000001.lease        chunk 7, epoch 1: see mpisweep.results.shares.leases
        00012.round               proposals of a learning search: see mpisweep.results.shares.rounds
        MEMBER.h5, MEMBER.h5.journal/    one member's results, like those of any other run
        MEMBER.left               created when the member has ended cleanly
        rule                      the end by a rule of [stop] that holds for the results of all members
        merge-000003-a1b2c3/      where NAME.h5 is written before it is renamed into place

None of this needs a server or a lock.  It relies on three guarantees of the shared file systems of clusters
(Lustre, FEFS, NFS): a hard link to a finished file is created or fails because the name exists; a rename is
atomic; an opened file shows everything that was written before it was last closed elsewhere.

The folder is filled under another name and renamed into place.  It is renamed away in the same manner when
``NAME.h5`` holds everything.  A lease is synced, with the folder, before any trial in it runs: no result can
be on disk whose lease is not.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mpisweep.results import ResultsError
from mpisweep.results.shares.leases import Lease
from mpisweep.results.shares.rounds import Round, lease_of, read_round
from mpisweep.results.syncing import create_once, sync, write_synced

__all__ = [
    "SharedSweep",
    "base_file",
    "clear_away",
    "create_shares",
    "left_file",
    "members",
    "part_file",
    "read_leases",
    "read_rule",
    "read_shared",
    "take_lease",
    "write_rule",
]


@dataclass(frozen=True, slots=True)
class SharedSweep:
    """The facts that all members agree on.

    Attributes:
        spec: text of the sweep file.
        source: its name in messages.
        split: number of shares.
        count: number of trials.
        digest: of all their configurations, in order.
        chunks: the trials of each chunk that had not ended when the sweep was split.
        widths: number of ranks that the trials of each chunk need; empty if all need one.
        proposals: number of configurations that a learning search is to propose; 0 for other searches.
        imported: the trials known from elsewhere, column by column; empty without any.
    """

    spec: str
    source: str
    split: int
    count: int
    digest: str
    chunks: list[list[int]]
    widths: list[int] = field(default_factory=list)
    proposals: int = 0
    imported: dict[str, list[Any]] = field(default_factory=dict)

    def to_come(self, rounds: Iterable[Round]) -> int:
        """Number of configurations that a learning search is still to propose."""
        made = list(rounds)
        if made and made[-1].is_last:
            return 0
        return max(0, self.proposals - sum(len(one.configurations) for one in made))


def part_file(folder: Path, member: str) -> Path:
    """The results file of one member."""
    return folder / f"{member}.h5"


def base_file(folder: Path) -> Path:
    """The results file before the split."""
    return folder / "base.h5"


def left_file(folder: Path, member: str) -> Path:
    """The file that marks a member as ended cleanly."""
    return folder / f"{member}.left"


def rule_file(folder: Path) -> Path:
    """The file that has all members stop by a rule of [stop]; it contains their end."""
    return folder / "rule"


def members(folder: Path) -> list[str]:
    """All members so far, sorted by name."""
    names = os.listdir(folder)
    parts = [name.removesuffix(".journal") for name in names if name.endswith((".h5", ".h5.journal"))]
    return sorted({name.removesuffix(".h5") for name in parts} - {"base"})


# ------------------------------------------------------------------------------------- beginning and end


def read_shared(folder: Path) -> SharedSweep | None:
    """Read what the members agree on; None if the folder does not exist.

    Raises:
        ResultsError: when the file is damaged.
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
            f"{path}: is damaged ({error!r}); the members' results are in the files beside it"
        ) from error


def create_shares(folder: Path, shared: SharedSweep, before: Path, token: Path | None = None) -> bool:
    """Create the folder atomically; False if it exists already.

    Args:
        folder: to create.
        shared: its contents.
        before: the results file; it need not exist.
        token: of the claim, in which the folder is prepared; None if no other process can use the sweep.
    """
    made = (token or folder.parent) / f"{folder.name}.new-{secrets.token_hex(4)}"
    made.mkdir()
    try:
        if before.exists():
            os.link(before, base_file(made))
        write_synced(made / "sweep.json", json.dumps(asdict(shared)))
        sync(made)
        try:
            # The rename would replace an empty folder; ours is never empty.
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
    """Remove the folder when the results of all its members are in the results file.

    Args:
        folder: of the shares.
        known: members whose results the results file has.
        damaged: folder that keeps unreadable parts of their files.
        same: the same folder by a name that cannot lead to a newer one; None if there cannot be a newer one.

    Returns:
        False if a member beyond the `known` ones has joined; then the folder stays.
    """
    gone = folder.with_name(f"{folder.name}.gone-{secrets.token_hex(4)}")
    # After this rename nobody can join.
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


def write_rule(folder: Path, rule: str) -> None:
    """Have all members stop by a rule of [stop]."""
    aside = folder / f"rule.{secrets.token_hex(8)}"
    write_synced(aside, rule)
    os.replace(aside, rule_file(folder))


def read_rule(folder: Path) -> str:
    """The end by a rule of [stop] that holds for the results of all members; empty if none does."""
    try:
        return rule_file(folder).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


# ------------------------------------------------------------------------------------- leases


def read_leases(folder: Path, known: dict[str, Lease] | None = None) -> list[Lease]:
    """Read all leases, also the first ones of rounds.

    Args:
        folder: of the shares.
        known: file name -> its lease; leases never change, so that known ones are not read again.

    Raises:
        ResultsError: when a lease is damaged.
        FileNotFoundError: when the folder is gone.
    """
    known = {} if known is None else known
    for name in os.listdir(folder):
        if name.endswith(".lease") and name not in known:
            known[name] = _read_lease(folder / name)
        elif name.endswith(".round") and name not in known:
            known[name] = lease_of(read_round(folder / name))
    return [lease for lease in known.values() if lease.numbers]


def _read_lease(path: Path) -> Lease:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        columns = {name: tuple(map(int, found[name])) for name in ("numbers", "attempts", "losses")}
        return Lease(**found | columns)
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"{path}: is damaged ({error!r})") from error


def take_lease(folder: Path, lease: Lease) -> bool:
    """Write a lease durably; False if another member holds it."""
    return create_once(folder / f"{lease.chunk:05d}-{lease.epoch:06d}.lease", json.dumps(asdict(lease)))
