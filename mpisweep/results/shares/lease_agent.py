"""The process that acquires leases, watches the other members, and merges the parts.

It waits for disks and reads other members' files, so that the master does not have to; the master's side is
:mod:`mpisweep.master.lease_client`.  Requests and messages are one line of JSON each; some messages are
unsolicited::

    asked    {"ask": "lease", "shortest": false, "ranks": null}  this member could run more, of so many ranks
             {"ask": "leave"}                       its part is written; it ends
    told     {"granted": [numbers, attempts, losses]}
             {"nothing": who, "sure": true, "wide": 4}  no lease available; sure if the holders are alive; the
                                                    free trials need up to 4 ranks
             {"revoked": numbers}                   others have taken these over
             {"stop": true}                         NAME.h5.stop exists
             {"rule": why}                          a rule of [stop] holds for the results of all members
             {"over": exit code}                    the shares are gone: others have ended the sweep
             {"left": exit code, "who": who}        the member has left; 3 while trials are left to run

All state is in the files; the process can be killed and restarted at any time.

The shared folder is its working directory, and it uses relative names: after the shares have been cleared
away, it cannot affect others that were created under the same name later.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpisweep.processes.kernel import this_host
from mpisweep.records import EndReason, TrialState
from mpisweep.results import ResultsError, damaged_folder, shares_folder, stop_file
from mpisweep.results.reports import Reading
from mpisweep.results.shares.ending import exit_code_of
from mpisweep.results.shares.folder import (
    SharedSweep,
    clear_away,
    left_file,
    members,
    part_file,
    read_leases,
    read_rule,
    read_shared,
    take_lease,
)
from mpisweep.results.shares.leases import Lease, Leases, Left
from mpisweep.results.shares.membership import Life, MemberWatch, look_every_s

__all__ = ["serve_leases"]

#: Age at which a member rewrites the results file, in seconds; and the largest share of time for that.
_WHOLE_EVERY_S = 60.0
_WHOLE_SHARE = 0.02
#: How long a member that leaves a complete sweep waits for the others to notice, in seconds.
_LEAVE_WAIT_S = 10.0
#: Pause before a retry after an error, in seconds; and the number of tries to leave.
_RETRY_S = 0.5
_LEAVE_TRIES = 10


def serve_leases(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: ``path`` of the HDF5 file, ``member``, ``job_id`` and ``silence_s``.
    """
    path = Path(arguments["path"]).absolute()
    # A trial's data loader on the same core comes first.
    with contextlib.suppress(OSError):
        os.nice(5)
    with socket.socket(fileno=files[0]) as connection:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.chdir(shares_folder(path))
            shared = read_shared(_HERE) if _is_in_place(path) else None
        except (OSError, ResultsError) as error:
            # The master starts another process, which retries.
            time.sleep(_RETRY_S)
            _send(connection, nothing="", sure=False, error=str(error))
            return
        if shared is None:
            _send(connection, over=_exit_code_of_file(path))
            connection.recv(1)
            return
        agent = _LeaseAgent(
            connection, path, shared, arguments["member"], arguments["job_id"], arguments["silence_s"]
        )
        agent.run()


#: The shared folder, even after a rename.
_HERE = Path()


def _is_in_place(path: Path) -> bool:
    """Whether the working directory is still the shared folder of this sweep."""
    with contextlib.suppress(OSError):
        return shares_folder(path).samefile(_HERE)
    return False


def _send(connection: socket.socket, **what: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(json.dumps(what).encode() + b"\n")


def _exit_code_of_file(path: Path) -> int:
    from mpisweep.results.shares.merging import read_sweep

    try:
        return exit_code_of(read_sweep(path, reading=Reading.TABLES))
    except (OSError, ResultsError):
        # All files were removed: the next run starts from the beginning.
        return EndReason.SHARE.exit_code


class _LeaseAgent:
    """The process's state and its answers."""

    def __init__(
        self,
        connection: socket.socket,
        path: Path,
        shared: SharedSweep,
        member: str,
        job_id: str,
        silence_s: float,
    ) -> None:
        self._connection = connection
        self._path = path
        self._folder = _HERE
        self._member = member
        self._host = this_host()
        self._job_id = job_id
        self._silence_s = silence_s
        self._every_s = look_every_s(silence_s)
        self._leases = Leases(shared.chunks, member, shared.widths)
        self._files: dict[str, Lease] = {}
        self._watch = MemberWatch(self._folder, silence_s=silence_s, every_s=self._every_s)
        #: Member that is gone -> its trials.
        self._left_by: dict[str, Mapping[int, Left]] = {}
        #: Member whose part cannot be read -> why; its trials wait for a repair.
        self._unreadable: dict[str, str] = {}
        self._granted: set[tuple[int, int]] = set()
        self._revoked: set[int] = set()
        self._old_stop = self._stop_identity()
        self._next_look = 0.0
        self._is_over = False
        self._rule_sent = False
        #: The mtime of the last whole file, and when it was seen; and the process that writes a new one.
        self._whole: tuple[int, float] = (0, time.monotonic())
        self._whole_every_s = _WHOLE_EVERY_S
        self._writer: tuple[int, float] | None = None

    def run(self) -> None:
        """Answer requests until the master closes the connection."""
        unread = b""
        while True:
            wait_s = max(0.0, self._next_look - time.monotonic())
            if select.select([self._connection], [], [], wait_s)[0]:
                received = self._connection.recv(4096)
                if not received:
                    return
                *lines, unread = (unread + received).split(b"\n")
                for line in lines:
                    self._guarded(functools.partial(self._answer, json.loads(line)))
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + self._every_s
                self._guarded(self._look)

    def _guarded(self, act: Callable[[], None]) -> None:
        if self._is_over:
            return
        try:
            act()
        except (OSError, ResultsError) as error:
            if not _is_in_place(self._path):
                self._is_over = True
                _send(self._connection, over=_exit_code_of_file(self._path))
            else:
                time.sleep(_RETRY_S)
                _send(self._connection, nothing="", sure=False, error=str(error))

    def _answer(self, asked: Mapping[str, Any]) -> None:
        if asked["ask"] == "lease":
            self._lease(bool(asked["shortest"]), asked["ranks"])
            return
        for again in range(_LEAVE_TRIES):
            try:
                self._leave()
                return
            except (OSError, ResultsError) as error:
                if not _is_in_place(self._path):
                    raise
                if again == _LEAVE_TRIES - 1:
                    # The part is on disk; the next run merges the parts.
                    self._is_over = True
                    _send(self._connection, left=3, who="", error=str(error))
                time.sleep(_RETRY_S)

    # ------------------------------------------------------------------------------------- leases

    def _look(self) -> None:
        if not _is_in_place(self._path):
            raise FileNotFoundError(self._path)
        self._learn()
        if self._stop_identity() not in (None, self._old_stop):
            _send(self._connection, stop=True)
        if not self._rule_sent and (rule := read_rule(self._folder)):
            self._rule_sent = True
            _send(self._connection, rule=rule)
        self._refresh_whole_file()

    def _learn(self) -> None:
        # In this order: a holder of a lease was a member before.
        self._leases.learn(read_leases(self._folder, self._files))
        names = members(self._folder)
        self._watch.look([name for name in names if name != self._member], time.monotonic())
        for name in list(self._left_by):
            # It was declared dead and is back; it may have written more since.
            if name not in self._watch.gone:
                del self._left_by[name]
        revoked = [number for number in self._leases.lost if number not in self._revoked]
        if revoked:
            self._revoked.update(revoked)
            _send(self._connection, revoked=revoked)

    def _lease(self, shortest: bool, ranks: int | None) -> None:
        self._learn()
        # Leases granted to a previous master or by a previous process.
        forgotten = [lease for lease in self._leases.mine if (lease.chunk, lease.epoch) not in self._granted]
        if forgotten:
            for lease in forgotten:
                self._grant(lease)
            return
        self._unreadable.clear()
        while True:
            try:
                found = self._leases.next(
                    shortest=shortest,
                    ranks=ranks,
                    gone=self._watch.gone - self._unreadable.keys(),
                    seen_alive=self._watch.seen_alive,
                    left_by=self._trials_of,
                )
            except ResultsError:
                continue
            if found is None:
                self._report_no_lease(ranks)
                return
            lease = replace(found, host=self._host, job_id=self._job_id, at=time.time())
            if take_lease(self._folder, lease):
                self._leases.learn([lease])
                self._grant(lease)
                return
            self._leases.learn(read_leases(self._folder, self._files))

    def _grant(self, lease: Lease) -> None:
        self._granted.add((lease.chunk, lease.epoch))
        _send(self._connection, granted=[lease.numbers, lease.attempts, lease.losses])

    def _report_no_lease(self, ranks: int | None) -> None:
        holders = self._leases.holders - self._watch.gone
        # A silent holder may be dead; then its trials become available.
        sure = all(self._watch.life(name) is Life.ALIVE for name in holders)
        _send(
            self._connection, nothing=self._describe(holders), sure=sure,
            wide=self._leases.width_beyond(ranks, self._watch.gone),
            error="; ".join(self._unreadable.values()),
        )  # fmt: skip

    def _describe(self, names: set[str]) -> str:
        return "; ".join(self._watch.text(name) for name in sorted(names))

    def _trials_of(self, member: str) -> Mapping[int, Left]:
        if member not in self._left_by:
            try:
                self._left_by[member] = _read_left(part_file(self._folder, member))
            except ResultsError as error:
                self._unreadable[member] = str(error)
                raise
        return self._left_by[member]

    # ------------------------------------------------------------------------------------- the whole file

    def _refresh_whole_file(self) -> None:
        """Rewrite the results file if it is old, in a child process."""
        now = time.monotonic()
        if self._writer is not None:
            process, since = self._writer
            if os.waitpid(process, os.WNOHANG)[0]:
                self._whole_every_s = max(_WHOLE_EVERY_S, (now - since) / _WHOLE_SHARE)
                self._writer = None
            return
        with contextlib.suppress(FileNotFoundError):
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns != self._whole[0]:
                self._whole = changed_ns, now
        is_being_written = any(name.startswith("merge-") for name in os.listdir(self._folder))
        if now - self._whole[1] < self._whole_every_s or (
            is_being_written and now - self._whole[1] < 2 * self._whole_every_s
        ):
            return
        process = os.fork()
        if process == 0:
            with contextlib.suppress(BaseException):
                from mpisweep.results.shares.merging import note_rule, write_whole

                os.nice(10)
                state, _ = write_whole(self._path, _HERE)
                note_rule(_HERE, state)
            os._exit(0)
        self._writer = process, now

    def _leave(self) -> None:
        """Leave after the member's part is written; the last member leaves only the whole file."""
        from mpisweep.results.shares.merging import OvertakenError, note_rule, write_whole

        left_file(self._folder, self._member).touch()
        until = time.monotonic() + min(self._silence_s, _LEAVE_WAIT_S)
        while True:
            try:
                self._learn()
                state, known = write_whole(self._path, _HERE)
                note_rule(_HERE, state)
                code = exit_code_of(state)
                others = {name for name in known if name != self._member} - self._watch.gone
                if (
                    code != 3
                    and not others
                    and clear_away(shares_folder(self._path), known, damaged_folder(self._path), _HERE)
                ):
                    break
            except OvertakenError:
                # Another member leaves too and writes the same file.
                code, others = 3, set()
                if _is_in_place(self._path):
                    time.sleep(0.1)
                    continue
                code = _exit_code_of_file(self._path)
                break
            if code == 3 or time.monotonic() > until:
                break
            time.sleep(min(0.2, self._every_s))
        self._is_over = True
        self._remove_obeyed_request()
        _send(self._connection, left=code, who=self._describe(others))

    def _remove_obeyed_request(self) -> None:
        """Remove the stop request, which would stop the next run, once no member is left to obey it.

        If several leave at once, the last one sees that all have left.
        """
        if self._stop_identity() in (None, self._old_stop) or not _is_in_place(self._path):
            return
        here: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            here = {name for name in members(self._folder) if not left_file(self._folder, name).exists()}
        if not here - self._watch.gone:
            stop_file(self._path).unlink(missing_ok=True)

    def _stop_identity(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            found = stop_file(self._path).stat()
            return found.st_ino, found.st_mtime_ns
        return None


def _read_left(part: Path) -> Mapping[int, Left]:
    from mpisweep.results.merged import read_merged

    try:
        state = read_merged(part, reading=Reading.TABLES)
    except ResultsError:
        if part.exists():
            raise
        # It was killed before its first record.
        return {}
    running = {state.attempts["trial"][row] for row in state.begun()}
    return {
        number: Left(state.trials["state"][number] >= TrialState.COMPLETE, attempt, number in running)
        for number, attempt in enumerate(state.trials["attempt"])
        if attempt
    }
