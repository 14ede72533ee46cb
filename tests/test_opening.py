"""State of trials of several ranks that a master derives from the results file and the journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from test_results import SPEC, opening, write_journal

from mpisweep.blocks import AssignedBlock, JoinedRecord, TrialsBlock
from mpisweep.master.known import KnownSweep, known_trials
from mpisweep.records import Slot
from mpisweep.spec import parse_spec


def known_after(path: Path, *records: object) -> KnownSweep:
    first = TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=1)
    write_journal(path, [first, *records], replace(opening(), launch="mpirun"))
    known = known_trials(parse_spec(SPEC, source="sweep.toml", folder=path.parent), path)
    assert known is not None
    return known


def joined(rank: int) -> JoinedRecord:
    return JoinedRecord(rank, "node1", f"gpu {rank}", 1, 1, 1001.0)


def assigned(number: int, *ranks: int) -> AssignedBlock:
    return AssignedBlock(
        [[rank, 0] for rank in ranks], 1002.0, [number], [1], {"x": number + 1, "mode": "fast"}
    )


def test_a_crash_of_everything_is_one_loss_for_a_trial_whatever_the_number_of_its_ranks(tmp_path):
    known = known_after(tmp_path / "s.h5", *map(joined, range(5)), assigned(0, 0, 1, 2, 3), assigned(1, 4))
    assert known.teams == {0: [Slot(rank, 0) for rank in range(4)]}
    assert known.losses_of_crash("mpirun") == {0: 1, 1: 1}
    assert known.losses_of_crash("another") == {}


def test_a_worker_with_a_damaged_record_is_not_mistaken_for_another(tmp_path):
    known = known_after(tmp_path / "s.h5", joined(0), joined(2), assigned(0, 0, 1))
    assert Slot(2, 0) not in known.teams.get(0, [])
    assert known.held[Slot(2, 0)] == {}
