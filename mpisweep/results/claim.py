"""Two runs never write one sweep, and of one run no two masters do.

Two files decide that, both in the journal folder.

The *claim*, ``claim.json``, belongs to one run.  It is created exclusively, by a hard link, and taken over
when its holder is dead (:mod:`mpisweep.results.holder`).

The *token*, the folder ``<run>-<epoch>.aside``, belongs to one master of that run.  Nothing of the sweep is
changed but by a rename that begins or ends in the token: the results file and new segments of the journal are
made in it and renamed out, segments that are to go are renamed into it, the claim's heartbeat goes to a
second name of the claim in it.  So whoever takes the token away has *fenced* its master, wherever that may be
paused and whenever it wakes up: each of its renames fails, for one of the two names does not exist any more.

* A master that takes over from another one of its run renames the token to its own, with its own, higher
  epoch.  If there is no token of the run any more, the run is over; one of a higher epoch has another master.
* A run that takes a claim removes the tokens of all others.
* A run that ends moves its claim into its token, removes the token, and the folder if nothing else is in it.

On NFS a client that knows the token by its file handle can use it until the folder is removed; therefore a
fence waits until it is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from mpisweep.results.holder import CLAIM, Holder, claim_file, judged_dead, myself
from mpisweep.results.journal.segments import master_name
from mpisweep.results.runs import last_run, new_run_name

__all__ = ["ASIDE", "Claim", "FollowedError", "RunOverError", "after_token", "remove_through", "token_of"]

#: How the names of tokens end.
ASIDE = ".aside"
#: How the name of a token begins that was taken away and is being removed.
_FENCED = "fenced-"
#: How long before a race with others is run again, in seconds.
_RACE_S = 0.01
#: How long a token that was taken away is tried to be removed, in seconds: NFS keeps what is open on the same
#: node.
_REMOVE_S = 5.0


class RunOverError(Exception):
    """The run was closed, or another one has taken its sweep: no master of it may change anything."""


class FollowedError(Exception):
    """A later master of the same run has taken over."""


def token_of(folder: Path, run: str, epoch: int) -> Path:
    """The token of one master."""
    return folder / f"{master_name(run, epoch)}{ASIDE}"


def after_token(token: Path) -> str:
    """What sorts after all segments of this master and before those of later ones."""
    return f"{token.name.removesuffix(ASIDE)}~"


class Claim:
    """The claim of one master, in whichever of its processes.

    Args:
        token: see the module.

    Attributes:
        run: name of the run.
        token: the folder from which, and into which, everything is renamed.
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
        """Claim the sweep whose journal lies in `folder`, which is made if need be, and fence every other
        run.

        Args:
            folder: of the journal.
            job_id: of the batch system.
            run: name of the run; another one is taken where it is empty, or does not sort after those before.
            epoch: of the run's first master.
            purpose: what is done with the sweep, where that is over in a moment.
            parents: whether folders above `folder` may be made.

        Raises:
            ClaimedError: when a run that is alive holds it.
            OSError: when the folder cannot be written.
        """
        while True:
            _make_folder(folder, parents)
            judged = judged_dead(folder)
            me = myself(job_id, run if run > last_run(folder) else new_run_name(folder), purpose)
            claim = cls(token_of(folder, me.run, epoch))
            try:
                if claim._try_to_take(me, judged):
                    return claim
            except FileNotFoundError:
                # Somebody has left and removed the folder, or has taken the claim and fenced this one.
                if not folder.parent.exists():
                    raise
            except BaseException:
                claim._leave()
                raise
            claim._leave()
            time.sleep(_RACE_S)

    def _try_to_take(self, me: Holder, judged: os.stat_result | None) -> bool:
        """Create the claim where there is none but the one that was judged dead; False when others were
        faster.
        """
        self.token.mkdir(exist_ok=True)
        self._write(me)
        if judged is not None and not self._bury(judged):
            return False
        try:
            os.link(self.token / CLAIM, claim_file(self._folder))
        except FileExistsError:
            return False
        self._fence_others()
        if not self._is_mine():
            # A master that is fenced now was just taking over from one that was dead.
            self._put_claim()
        # A run that was over in a moment may have come in between, with a later name.
        if me.run > last_run(self._folder):
            return True
        self.release()
        return False

    @classmethod
    def inherit(cls, folder: Path, job_id: str, *, run: str, epoch: int) -> Claim:
        """Take the claim over from a master of the same run, which may be alive and is fenced.

        Args:
            folder: of the journal.
            job_id: of the batch system.
            run: name of the run.
            epoch: of the master that takes over.

        Raises:
            RunOverError: when the run is over.
            FollowedError: when a master of a higher epoch has taken over.
            OSError: when the folder cannot be used.
        """
        me = myself(job_id, run, "")
        claim = cls(token_of(folder, run, epoch))
        while not claim.token.exists():
            names = sorted(_tokens_in(folder, run))
            if not names:
                _require_place(folder)
                raise RunOverError(run)
            if names[-1] > claim.token.name:
                raise FollowedError(run)
            # Another one may be faster.
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder / names[-1], claim.token)
        try:
            for left in claim.token.iterdir():
                # What the one before was making.
                left.unlink()
            claim._write(me)
            claim._put_claim()
        except FileNotFoundError as error:
            raise RunOverError(run) from error
        return claim

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            RunOverError: when the run is over.
            FollowedError: when a later master of the run has taken over.
            OSError: when the folder cannot be used.
        """
        try:
            os.utime(self.token / CLAIM)
        except FileNotFoundError as error:
            if _tokens_in(self._folder, self.run):
                raise FollowedError(self.run) from error
            _require_place(self._folder)
            raise RunOverError(self.run) from error

    def release(self) -> None:
        """Let others have the sweep, unless they have taken it over, and remove the folder if nothing else is
        in it.
        """
        released = self.token / "released"
        with contextlib.suppress(FileNotFoundError):
            os.rename(claim_file(self._folder), released)
            if not released.samefile(self.token / CLAIM):
                # Somebody else's: put it back.
                with contextlib.suppress(FileExistsError):
                    os.link(released, claim_file(self._folder))
        self._leave()

    def _leave(self) -> None:
        """Give the token up."""
        with contextlib.suppress(OSError):
            _take_away(self.token)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _write(self, me: Holder) -> None:
        file = self.token / CLAIM
        file.unlink(missing_ok=True)
        file.write_text(json.dumps(asdict(me)), encoding="utf-8")

    def _put_claim(self) -> None:
        """Have the claim be this one, whatever it is; fails where this one was fenced."""
        os.link(self.token / CLAIM, self.token / "out")
        os.replace(self.token / "out", claim_file(self._folder))

    def _bury(self, judged: os.stat_result) -> bool:
        """Move the claim away that was judged dead; False when there is another one by now."""
        grave = self.token / "grave"
        try:
            os.rename(claim_file(self._folder), grave)
        except FileNotFoundError:
            # Its holder has let go, or somebody else was faster; the link will tell.
            return True
        moved = grave.stat()
        is_same = (moved.st_ino, moved.st_mtime_ns) == (judged.st_ino, judged.st_mtime_ns)
        if not is_same:
            # Should a third one be faster still, it fences the one whose claim this is.
            with contextlib.suppress(FileExistsError):
                os.link(grave, claim_file(self._folder))
        grave.unlink()
        return is_same

    def _is_mine(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return claim_file(self._folder).samefile(self.token / CLAIM)
        return False

    def _fence_others(self) -> None:
        """Take away the tokens of all who held the sweep before, or tried to."""
        # Until none is left: a token may have been renamed by who follows its master since it was listed.
        while True:
            names = _names_in(self._folder)
            others = [name for name in names if name.endswith(ASIDE) and name != self.token.name]
            for name in others:
                _take_away(self._folder / name)
            for name in names:
                if name.startswith(_FENCED):
                    _remove(self._folder / name)
            if not others:
                return


def remove_through(token: Path, path: Path) -> None:
    """Remove a file in the name of the master that has this token.

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
            # Unless it has been removed since, it is no folder.
            if folder.exists() and not folder.is_dir():
                raise
        else:
            return


def _require_place(folder: Path) -> None:
    """Fail where nothing of the sweep is there any more: its file system is away, and its run not over.

    Raises:
        FileNotFoundError: then.
    """
    file = folder.with_name(folder.name.removesuffix(".journal"))
    shared = file.parent.with_name(file.parent.name.removesuffix(".shares"))
    if not (folder.exists() or file.exists() or (shared != file.parent and shared.exists())):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(folder))


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _tokens_in(folder: Path, run: str) -> list[str]:
    """The tokens of a run, by name."""
    return [name for name in _names_in(folder) if name.startswith(f"{run}-") and name.endswith(ASIDE)]


def _take_away(token: Path) -> None:
    """Make a token no token any more, at once, and remove it."""
    fenced = token.with_name(f"{_FENCED}{secrets.token_hex(4)}")
    try:
        os.rename(token, fenced)
    except FileNotFoundError:
        return
    _remove(fenced)


def _remove(folder: Path) -> None:
    """Remove a token that was taken away; whoever had it may just be putting something in."""
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
