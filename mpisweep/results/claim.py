"""One writer per sweep: never two runs, and never two masters of one run.

Two files in the journal folder ensure that.

The *claim*, ``claim.json``, belongs to one run.  A run creates it exclusively, by a hard link, and takes it
over when its holder is dead (:mod:`mpisweep.results.holder`).

The *token*, the folder ``<run>-<epoch>.aside``, belongs to one master of that run.  Every change to the sweep
is a rename that begins or ends in the token: the master creates the results file and new journal segments
in it and renames them out, renames segments into it to delete them, and writes the heartbeat of the claim
through a second name of the claim in it.  Removing the token therefore *fences* its master, wherever it is
paused and whenever it continues: each of its renames fails, because one of the two names no longer exists.

* A master that succeeds another one of its run renames the token to its own name, with a higher epoch.  If
  the run has no token, the run is over; if the token has a higher epoch, the run has a later master.
* A run that takes a claim removes the tokens of all others.
* A run that ends moves its claim into its token, removes the token, and removes the folder if it is empty.

On NFS a client that has the token's file handle can use it until the folder is removed; therefore a fence
waits for the removal.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from pathlib import Path

from mpisweep.dataclass import asdict
from mpisweep.results.holder import CLAIM, Holder, claim_file, judged_dead, this_process
from mpisweep.results.journal.segments import master_name, require_place
from mpisweep.results.runs import last_run, new_run_name

__all__ = ["ASIDE", "Claim", "FollowedError", "RunOverError", "after_token", "remove_through", "token_of"]

#: Suffix of token names.
ASIDE = ".aside"
#: Prefix of a fenced token's name while it is being removed.
_FENCED = "fenced-"
#: Pause before a lost race is retried, in seconds.
_RACE_S = 0.01
#: How long removal of a fenced token is retried, in seconds: NFS keeps files that are open on the same node.
_REMOVE_S = 5.0


class RunOverError(Exception):
    """The run was closed, or another run took the sweep: no master of it may change anything."""


class FollowedError(Exception):
    """A later master of the same run took over."""


def token_of(folder: Path, run: str, epoch: int) -> Path:
    """The path of one master's token."""
    return folder / f"{master_name(run, epoch)}{ASIDE}"


def after_token(token: Path) -> str:
    """A name that sorts after all segments of this master and before those of later masters."""
    return f"{token.name.removesuffix(ASIDE)}~"


class Claim:
    """One master's claim on the sweep, usable from each of its processes.

    Args:
        token: see the module.

    Attributes:
        run: name of the run.
        token: the folder through which every change is renamed.
    """

    def __init__(self, token: Path) -> None:
        self._folder = token.parent
        self.run = token.name.removesuffix(ASIDE).rpartition("-")[0]
        self.token = token

    @classmethod
    def take(
        cls,
        folder: Path,
        job_id: str,
        *,
        run: str = "",
        epoch: int = 0,
        purpose: str = "",
        parents: bool = True,
    ) -> Claim:
        """Claim the sweep whose journal is in `folder`, and fence every other run.

        Args:
            folder: of the journal; created if missing.
            job_id: of the batch system.
            run: name of the run; replaced if it is empty or does not sort after all earlier runs.
            epoch: of the run's first master.
            purpose: what a short operation does with the sweep; empty for a run.
            parents: whether to create folders above `folder`.

        Raises:
            ClaimedError: when a live run holds it.
            OSError: when the folder is not writable.
        """
        while True:
            _make_folder(folder, parents)
            judged = judged_dead(folder)
            me = this_process(job_id, run if run > last_run(folder) else new_run_name(folder), purpose)
            claim = cls(token_of(folder, me.run, epoch))
            try:
                if claim._try_to_take(me, judged):
                    return claim
            except FileNotFoundError:
                # Another run left and removed the folder, or took the claim and fenced this one.
                if not folder.parent.exists():
                    raise
            except BaseException:
                claim._drop_token()
                raise
            claim._drop_token()
            time.sleep(_RACE_S)

    def _try_to_take(self, me: Holder, judged: os.stat_result | None) -> bool:
        """Create the claim, replacing at most the one judged dead; False if others were faster."""
        self.token.mkdir(exist_ok=True)
        self._write(me)
        if judged is not None and not self._displace(judged):
            return False
        try:
            os.link(self.token / CLAIM, claim_file(self._folder))
        except FileExistsError:
            return False
        self._fence_others()
        if not self._owns_claim():
            # A superseded master of this sweep replaced it just before it was fenced.
            self._put_claim()
        # A short operation may have written in between, under a later name.
        if me.run > last_run(self._folder):
            return True
        self.release()
        return False

    @classmethod
    def inherit(cls, folder: Path, job_id: str, *, run: str, epoch: int) -> Claim:
        """Take the claim over from a master of the same run, which may be alive, and fence it.

        Args:
            folder: of the journal.
            job_id: of the batch system.
            run: name of the run.
            epoch: of the master that takes over.

        Raises:
            RunOverError: when the run is over.
            FollowedError: when a master of a higher epoch took over.
            OSError: when the folder is not usable.
        """
        me = this_process(job_id, run, "")
        claim = cls(token_of(folder, run, epoch))
        while not claim.token.exists():
            names = sorted(_tokens_in(folder, run))
            if not names:
                require_place(folder)
                raise RunOverError(run)
            if names[-1] > claim.token.name:
                raise FollowedError(run)
            # Another master may be faster.
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder / names[-1], claim.token)
        try:
            for left in claim.token.iterdir():
                # Unfinished files of the previous master.
                left.unlink()
            claim._write(me)
            claim._put_claim()
        except FileNotFoundError as error:
            raise RunOverError(run) from error
        return claim

    def beat(self) -> None:
        """Send a heartbeat.

        Raises:
            RunOverError: when the run is over.
            FollowedError: when a later master of the run took over.
            OSError: when the folder is not usable.
        """
        try:
            os.utime(self.token / CLAIM)
        except FileNotFoundError as error:
            if _tokens_in(self._folder, self.run):
                raise FollowedError(self.run) from error
            require_place(self._folder)
            raise RunOverError(self.run) from error

    def release(self) -> None:
        """Release the sweep, unless another run took it over, and remove the folder if it is empty."""
        released = self.token / "released"
        with contextlib.suppress(FileNotFoundError):
            os.rename(claim_file(self._folder), released)
            if not released.samefile(self.token / CLAIM):
                # It is another run's claim: put it back.
                with contextlib.suppress(FileExistsError):
                    os.link(released, claim_file(self._folder))
        self._drop_token()

    def _drop_token(self) -> None:
        """Remove the token, and the folder if it is empty."""
        with contextlib.suppress(OSError):
            _fence(self.token)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _write(self, me: Holder) -> None:
        file = self.token / CLAIM
        file.unlink(missing_ok=True)
        file.write_text(json.dumps(asdict(me)), encoding="utf-8")

    def _put_claim(self) -> None:
        """Replace the current claim, if any, by this one; fails if this one was fenced."""
        os.link(self.token / CLAIM, self.token / "out")
        os.replace(self.token / "out", claim_file(self._folder))

    def _displace(self, judged: os.stat_result) -> bool:
        """Remove the claim that was judged dead; False if another one has replaced it."""
        displaced = self.token / "displaced"
        try:
            os.rename(claim_file(self._folder), displaced)
        except FileNotFoundError:
            # Its holder released it, or another run was faster; the link will show which.
            return True
        moved = displaced.stat()
        is_same = (moved.st_ino, moved.st_mtime_ns) == (judged.st_ino, judged.st_mtime_ns)
        if not is_same:
            # If a third run is even faster, it fences the owner of this claim.
            with contextlib.suppress(FileExistsError):
                os.link(displaced, claim_file(self._folder))
        displaced.unlink()
        return is_same

    def _owns_claim(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return claim_file(self._folder).samefile(self.token / CLAIM)
        return False

    def _fence_others(self) -> None:
        """Fence every token but our own."""
        # Repeat until none is left: a succeeding master may have renamed a token after it was listed.
        while True:
            names = _names_in(self._folder)
            others = [name for name in names if name.endswith(ASIDE) and name != self.token.name]
            for name in others:
                _fence(self._folder / name)
            for name in names:
                if name.startswith(_FENCED):
                    _remove(self._folder / name)
            if not others:
                return


def remove_through(token: Path, path: Path) -> None:
    """Remove a file on behalf of the master that owns this token.

    Raises:
        FileNotFoundError: when the file is gone, or the master was fenced.
    """
    gone = token / f"gone-{secrets.token_hex(4)}"
    os.rename(path, gone)
    gone.unlink()


def _make_folder(folder: Path, parents: bool) -> None:
    while True:
        try:
            folder.mkdir(parents=parents, exist_ok=True)
        except FileExistsError:
            # It is not a folder, unless another process has just removed it.
            if folder.exists() and not folder.is_dir():
                raise
        else:
            return


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _tokens_in(folder: Path, run: str) -> list[str]:
    """The tokens of a run, by name."""
    return [name for name in _names_in(folder) if name.startswith(f"{run}-") and name.endswith(ASIDE)]


def _fence(token: Path) -> None:
    """Fence a master: invalidate its token at once, then remove it."""
    fenced = token.with_name(f"{_FENCED}{secrets.token_hex(4)}")
    try:
        os.rename(token, fenced)
    except FileNotFoundError:
        return
    _remove(fenced)


def _remove(folder: Path) -> None:
    """Remove a fenced token; retry, because its owner may be creating a file in it."""
    until = time.monotonic() + _REMOVE_S
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or time.monotonic() >= until:
                raise
            time.sleep(_RACE_S)
        else:
            return
