"""Merging the parts of several members into one sweep, as a state and as a file.

:func:`merge` is a pure function of the sweep before the split, the parts and the leases; any process can run
it at any time.  Until the shares are cleared away the parts hold everything, and ``NAME.h5`` is a copy for
tools that do not read parts.

Writing that copy needs no lock.  Every writer creates a folder of its own, whose name sorts after the
existing ones, and removes those; only then does it read.  The rename of a writer that was overtaken fails; so
an older copy never replaces a newer one, and none replaces the last copy, after which the shares are removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mpisweep.records import AttemptEnd, TrialState
from mpisweep.results import ResultsError, damaged_folder, journal_folder, shares_folder
from mpisweep.results.file.writing import write_file
from mpisweep.results.journal.reader import Damage
from mpisweep.results.journal.segments import segments
from mpisweep.results.merged import read_merged, read_until_stable
from mpisweep.results.reports import KeptReports, OtherReports, Reading
from mpisweep.results.shares.ending import state_of
from mpisweep.results.shares.folder import (
    SharedSweep,
    base_file,
    clear_away,
    members,
    part_file,
    read_leases,
    read_rule,
    read_shared,
    write_rule,
)
from mpisweep.results.shares.leases import Lease, owners, superseded
from mpisweep.results.shares.membership import MemberWatch
from mpisweep.results.shares.proposed import add_proposed, order_as_told
from mpisweep.results.shares.rounds import Round, read_rounds
from mpisweep.results.state import SweepState, retried_attempts
from mpisweep.results.stopping import reached_rule

__all__ = [
    "OvertakenError", "gather", "merge", "note_rule", "read_readable", "read_sweep",
    "write_whole",
]  # fmt: skip

_WATCH_EVERY_S = 0.5


class OvertakenError(Exception):
    """Another member began to write the whole file after this one."""


def read_sweep(
    path: Path, damages: list[Damage] | None = None, *, reading: Reading = Reading.SAMPLES
) -> SweepState:
    """Read a sweep from its file and its journal, or from its parts while it is split.

    Args:
        path: of the HDF5 file.
        damages: receives the parts of the journals that could not be read.
        reading: which curves to read.

    Raises:
        ResultsError: when there is no sweep, or a file is not a results file.
    """
    # If the parts are cleared away during the read, the file holds everything.
    state = _read_parts(shares_folder(path), reading, damages)
    return read_merged(path, damages, reading=reading) if state is None else state


def read_readable(
    folder: Path, known: dict[str, Lease] | None = None, followed: Sequence[Round] = ()
) -> SweepState | None:
    """Read the tables of the parts that can be read now; None if the sweep is not split.

    Args:
        folder: of the parts.
        known: leases by the name of their file, which are not read again; receives the new ones.
        followed: the first rounds, which are not read again.

    Raises:
        ResultsError: when what the members agree on, or a lease, is damaged.
        OSError: when the folder is gone.
    """
    shared = read_shared(folder)
    if shared is None:
        return None
    leases, rounds = read_leases(folder, known), read_rounds(folder, [*followed])
    parts: dict[str, SweepState] = {}
    for member in members(folder):
        # It is read next time: a part that is damaged, or replaced meanwhile.
        with contextlib.suppress(ResultsError, OSError):
            parts[member] = read_merged(part_file(folder, member), reading=Reading.TABLES)
    return merge(shared, _read_base(folder, Reading.TABLES), parts, leases, Reading.TABLES, rounds)


def _read_parts(
    folder: Path, reading: Reading, damages: list[Damage] | None = None, aside: Path | None = None
) -> SweepState | None:
    """Read and merge the members' parts; None if the sweep is not split.

    Args:
        folder: of the parts.
        reading: which curves to read.
        damages: receives the parts of the journals that could not be read.
        aside: folder in which the parts are linked, so that they stay unchanged during the read.
    """

    def look(found: list[Damage]) -> tuple[SweepState | None, bool]:
        return _look_at_parts(folder, reading, found, aside)

    return read_until_stable(look, (OSError, ResultsError), damages)


def _look_at_parts(
    folder: Path, reading: Reading, damages: list[Damage], aside: Path | None
) -> tuple[SweepState | None, bool]:
    shared = read_shared(folder)
    if shared is None:
        return None, True
    leases, rounds = read_leases(folder), read_rounds(folder)
    held = None if aside is None else Path(tempfile.mkdtemp(prefix="held-", dir=aside))
    parts: dict[str, SweepState] = {}
    for member in members(folder):
        part = part_file(folder, member)
        try:
            parts[member] = _read_part(part, reading, damages, held)
        except ResultsError:
            # A member that has just joined, or that was killed before its first record.
            if part.exists():
                raise
    state = merge(shared, _read_base(folder, reading), parts, leases, reading, rounds)
    # If a chunk was taken over in between, some results do not match the leases.
    return state, len(read_leases(folder)) == len(leases)


def _read_base(folder: Path, reading: Reading) -> SweepState:
    """Read the sweep before the split; an empty one if there was none."""
    base = base_file(folder)
    return read_merged(base, reading=reading) if base.exists() else SweepState()


def _read_part(part: Path, reading: Reading, damages: list[Damage], held: Path | None) -> SweepState:
    if held is None:
        return read_merged(part, damages, reading=reading)
    try:
        return read_merged(_hold(part, held), damages, reading=reading)
    except ResultsError:
        # Read the part itself, so that the message names a file that can be repaired.
        read_merged(part, reading=Reading.PLACES)
        raise


def _hold(part: Path, held: Path) -> Path:
    """Link a part and its journal under other names, so that they stay unchanged.

    Its member keeps running: it replaces the file and removes covered segments long before large curves are
    copied.
    """
    holding, journal = held / part.name, journal_folder(part)
    # In this order: records that the linked file lacks are in segments that existed before.
    names = segments(journal)
    with contextlib.suppress(FileNotFoundError):
        os.link(part, holding)
    journal_folder(holding).mkdir()
    for name in names:
        os.link(journal / name, journal_folder(holding) / name)
    return holding


# ------------------------------------------------------------------------------------- merging


def merge(
    shared: SharedSweep,
    base: SweepState,
    parts: Mapping[str, SweepState],
    leases: Iterable[Lease],
    reading: Reading = Reading.SAMPLES,
    rounds: Sequence[Round] = (),
) -> SweepState:
    """Merge the members' results by the rules of :mod:`mpisweep.results.shares.leases`.

    Args:
        shared: what the members agree on.
        base: the sweep before the split; may be empty.
        parts: the state of each member.
        leases: all leases.
        reading: which curves were read.
        rounds: what the members have proposed, if their search learns.
    """
    leases = list(leases)
    sources = [base, *parts.values()]
    newest = next((part for part in reversed(sources) if part.allocations["run"]), base)
    merged = SweepState(
        spec=shared.spec, source=shared.source, version=newest.version, environment=dict(newest.environment),
        baseline=next((part.baseline for part in reversed(sources) if part.baseline is not None), None),
    )  # fmt: skip
    merged.imported = next((part.imported for part in sources if part.imported["source"]), merged.imported)
    merged.requests, merged.retried = base.requests, retried_attempts(base.requests)  # members take none
    merged.grow(max(shared.count, *(part.count for part in sources), *(one.numbers.stop for one in rounds)))
    add_proposed(merged, rounds)
    rows = _append_tables(merged, base, parts, superseded(leases))
    for part in sources:
        _copy_parameters(merged, part)
        for name in part.metrics:
            merged.metric_column(name)
    owner = owners(leases)
    for part in sources:
        merged.curves.sources += part.curves.sources
    for number in range(merged.count):
        member, part = "", base
        if number in owner:
            lease, known = owner[number]
            leased = parts.get(lease.member)
            if leased is not None and number < leased.count and leased.trials["attempt"][number] > known:
                member, part = lease.member, leased
        if number < part.count:
            _copy_trial(merged, part, number, rows[member])
            if not member:
                _copy_exclusion(merged, parts.values(), number)
            _copy_curves(merged, part, number, reading)
    # A trial that was taken over and not retried yet continues the attempt numbers of its earlier member.
    for number, attempt in zip(merged.attempts["trial"], merged.attempts["attempt"], strict=True):
        if merged.trials["state"][number] == TrialState.WAITING:
            merged.trials["attempt"][number] = max(merged.trials["attempt"][number], attempt)
    if shared.proposals:
        order_as_told(merged, base, rounds)
    merged.state = state_of(merged, sources, shared.to_come(rounds))
    return merged


def _append_tables(
    merged: SweepState,
    base: SweepState,
    parts: Mapping[str, SweepState],
    taken_over: Mapping[tuple[str, int], int],
) -> dict[str, int]:
    """Append the tables of all members; return the first worker row of each member."""
    begins: dict[str, int] = {}
    for member, part in [("", base), *parts.items()]:
        allocations, workers = len(merged.allocations["run"]), len(merged.workers["rank"])
        begins[member] = workers
        for into, table in ((merged.allocations, part.allocations), (merged.sharing, part.sharing)):
            for name, column in into.items():
                column.extend(table[name])
        for name, column in merged.workers.items():
            values = part.workers[name]
            column.extend([value + allocations for value in values] if name == "allocation" else values)
        for table, into in ((part.attempts, merged.attempts), (part.ranks, merged.ranks)):
            for row, (number, attempt) in enumerate(zip(table["trial"], table["attempt"], strict=True)):
                known = taken_over.get((member, number))
                if known is not None and attempt > known:
                    continue
                for name, column in into.items():
                    value = table[name][row]
                    if name == "worker" and value >= 0:
                        value += workers
                    elif (
                        name == "end"
                        and known is not None
                        and value in (AttemptEnd.RUNNING, AttemptEnd.ENDED)
                    ):
                        # It did not set the trial's state: another member had taken the trial over.
                        value = int(AttemptEnd.LOST)
                    column.append(value)
    return begins


def _copy_parameters(merged: SweepState, part: SweepState) -> None:
    for name, values in part.parameters.items():
        column = merged.parameter_column(name)
        for number, value in enumerate(values):
            if value is not None:
                column[number] = value
    # A trial that no member has run yet is known from any of them.
    for name in ("configuration", "repeat"):
        column_of = merged.trials[name]
        for number, value in enumerate(part.trials[name]):
            column_of[number] = max(value, column_of[number])


def _copy_trial(merged: SweepState, part: SweepState, number: int, first_worker: int) -> None:
    for name, column in merged.trials.items():
        if name in ("number", "configuration", "repeat"):
            continue
        value = part.trials[name][number]
        column[number] = value + first_worker if name == "worker" and value >= 0 else value
    for name, values in part.metrics.items():
        merged.metrics[name][number] = values[number]
    if number in part.report_gaps:
        merged.report_gaps[number] = set(part.report_gaps[number])


def _copy_exclusion(merged: SweepState, parts: Iterable[SweepState], number: int) -> None:
    """Mark a trial infeasible that no member ran because the sweep file excludes it now."""
    for part in parts:
        if number < part.count and part.trials["state"][number] == TrialState.INFEASIBLE:
            merged.trials["state"][number] = int(TrialState.INFEASIBLE)
            merged.trials["message"][number] = part.trials["message"][number]


def _copy_curves(merged: SweepState, part: SweepState, number: int, reading: Reading) -> None:
    if reading is Reading.TABLES:
        return
    if not (lengths := part.curves.lengths(number)):
        return
    reports = OtherReports(0, lengths, part.curves, number)
    is_kept = reading is Reading.SAMPLES
    merged.curves.add(number, KeptReports(0, lengths, reports.read()) if is_kept else reports)


# ------------------------------------------------------------------------------------- writing


def write_whole(path: Path, folder: Path) -> tuple[SweepState, list[str]]:
    """Replace the results file by one with the results of all members so far.

    Args:
        path: of the HDF5 file.
        folder: that the members share.

    Returns:
        Its state, and the members whose parts are in it.

    Raises:
        OvertakenError: when another member writes it, or the shares are gone.
        ResultsError: when a part cannot be read.
        OSError: when the write fails.
    """
    aside = _overtake_others(folder)
    try:
        known = members(folder)
        state = _read_parts(folder, Reading.PLACES, aside=aside) or read_merged(path, reading=Reading.PLACES)
        if state.allocations["run"]:
            write_file(path, state, aside)
        return state, known
    except OSError as error:
        if not aside.exists():
            raise OvertakenError from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _overtake_others(folder: Path) -> Path:
    try:
        others = [name for name in os.listdir(folder) if name.startswith("merge-")]
        number = max((int(name.split("-")[1]) for name in others), default=0) + 1
        mine = folder / f"merge-{number:06d}-{secrets.token_hex(4)}"
        mine.mkdir()
        for name in os.listdir(folder):
            while name.startswith("merge-") and name < mine.name and (folder / name).exists():
                shutil.rmtree(folder / name, ignore_errors=True)
    except FileNotFoundError as error:
        raise OvertakenError from error
    return mine


def note_rule(folder: Path, state: SweepState) -> None:
    """Have the members stop if a rule of [stop] holds for the results of all of them."""
    rule = None if read_rule(folder) else reached_rule(state)
    if rule is not None:
        write_rule(folder, rule.value)


def gather(path: Path, silence_s: float) -> bool:
    """Merge everything into the one file and end the split; False if there is no split.

    Args:
        path: of the HDF5 file.
        silence_s: a member that is silent for this long is declared dead.

    Raises:
        ResultsError: when members are running.
        OSError: when the write fails.
    """
    folder = shares_folder(path)
    if not folder.exists():
        return False
    while (shared := read_shared(folder)) is not None:
        watch = MemberWatch(folder, silence_s=silence_s, every_s=_WATCH_EVERY_S)
        alive = watch.poll_until_certain(members(folder))
        if alive:
            raise ResultsError(
                f"{path}: the sweep is running in {shared.split} shares: "
                f"{'; '.join(map(watch.text, alive))}; "
                f"join with --split {shared.split}, or wait until they end"
            )
        with contextlib.suppress(OvertakenError):
            _, known = write_whole(path, folder)
            clear_away(folder, known, damaged_folder(path))
    return True
