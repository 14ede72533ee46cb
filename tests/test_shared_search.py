"""The learning search that members of a split sweep share: rounds, races for one, and exhaustion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpisweep.master.shared_search import SharedSearch
from mpisweep.results import ResultsError
from mpisweep.results.shares import rounds as rounds_module
from mpisweep.results.shares.folder import SharedSweep, create_shares, read_leases
from mpisweep.results.shares.leases import Leases, Left
from mpisweep.results.shares.rounds import publish_round, read_round, read_rounds
from mpisweep.search.learning import LearningSearch
from mpisweep.search.proposing import Past, Proposer
from mpisweep.spec import parse_spec

SPEC = """
name = "s"
workload = "m:f"
search = "{search}"
trials = 12
repeats = {repeats}
seed = 3
[parameters]
x = {{ from = 1.0, to = 100.0 }}
k = {{ from = 1, to = {last} }}
"""


def shared_folder(tmp_path: Path, search: str = "tpe", repeats: int = 1, last: int = 9) -> Path:
    text = SPEC.format(search=search, repeats=repeats, last=last)
    shared = SharedSweep(text, "s.toml", 2, 0, "", [], proposals=12)
    assert create_shares(tmp_path / "r.h5.shares", shared, tmp_path / "r.h5")
    return tmp_path / "r.h5.shares"


def member_of(folder: Path, name: str) -> SharedSearch:
    text = json.loads((folder / "sweep.json").read_text())["spec"]
    return SharedSearch(
        folder,
        {
            "spec": text, "source": "s.toml", "folder": str(folder), "configurations": [],
            "configuration_of": [], "known": {}, "ends": [], "imported": [], "member": name, "job_id": "",
            "names": ["x", "k"] if "\nx =" in text else ["k"],
        },
    )  # fmt: skip


@pytest.mark.parametrize("search", ["tpe", "cmaes", "nsga2"])
def test_of_two_members_that_propose_at_once_one_proposes_again_from_the_round_of_the_other(
    tmp_path, monkeypatch, search
):
    folder = shared_folder(tmp_path, search)
    one, other = member_of(folder, "one"), member_of(folder, "other")
    one.propose(2, 0)
    # Between the proposal of `other` and its publication, `one` is faster.
    is_late = [False]

    def late(where: Path, made: rounds_module.Round) -> bool:
        if not is_late[0]:
            is_late[0] = True
            one.propose(3, 1)
        return publish_round(where, made)

    monkeypatch.setattr("mpisweep.master.shared_search.publish_round", late)
    told = other.propose(2, 0)["rounds"]
    assert [(made["member"], list(range(made["first"], made["first"] + len(made["configurations"]))))
            for made in told] == [("one", [0, 1]), ("one", [2, 3, 4]), ("other", [5, 6])]  # fmt: skip
    monkeypatch.undo()
    # Both go on alike: the search is what follows from the rounds.
    spec = parse_spec(SPEC.format(search=search, repeats=1, last=9), source="s.toml", folder=tmp_path)
    made = [dict(one) for one_ in read_rounds(folder) for one in one_.configurations]
    known = {n: r.known for r in read_rounds(folder) for n in range(r.first, r.first + len(r.configurations))}
    again = Proposer(
        spec.space, LearningSearch.from_spec(spec).sampler, spec.seed, [spec.objectives[0].direction],
        Past(made, known, []),
    )  # fmt: skip
    expected = again.ask(len(made), 2)
    assert one.propose(2, 2)["rounds"][-1]["configurations"] == expected


def test_no_more_are_proposed_than_the_sweep_asks_for_whoever_asks(tmp_path):
    folder = shared_folder(tmp_path, repeats=2)
    one, other = member_of(folder, "one"), member_of(folder, "other")
    assert not one.propose(5, 0)["is_exhausted"]
    told = other.propose(50, 0)
    assert told["is_exhausted"]
    assert [len(made["configurations"]) for made in told["rounds"]] == [5, 7]
    assert one.propose(5, 1) | {"seconds": 0} == {
        "rounds": told["rounds"][1:], "seconds": 0, "is_exhausted": True,
    }  # fmt: skip
    rounds = read_rounds(folder)
    assert [made.numbers for made in rounds] == [range(10), range(10, 24)]
    assert [(rounds[1].configuration_of(n), rounds[1].repeat_of(n)) for n in (10, 16, 17, 23)] == [
        (5, 0), (11, 0), (5, 1), (11, 1),
    ]  # fmt: skip


def test_a_space_that_is_exhausted_is_so_for_all_members(tmp_path):
    text = SPEC.format(search="tpe", repeats=1, last=5).replace("x = { from = 1.0, to = 100.0 }\n", "")
    shared = SharedSweep(text, "s.toml", 2, 0, "", [], proposals=12)
    folder = tmp_path / "r.h5.shares"
    assert create_shares(folder, shared, tmp_path / "r.h5")
    one, other = member_of(folder, "one"), member_of(folder, "other")
    assert len(one.propose(3, 0)["rounds"][0]["configurations"]) == 3
    told = other.propose(9, 1)
    assert (len(told["rounds"][0]["configurations"]), told["is_exhausted"]) == (2, True)
    assert one.propose(9, 2) | {"seconds": 0} == {"rounds": [], "seconds": 0, "is_exhausted": True}
    assert shared.to_come(read_rounds(folder)) == 0


def test_a_round_is_the_first_lease_of_its_trials_and_is_taken_over_like_any(tmp_path):
    folder = shared_folder(tmp_path)
    member_of(folder, "dead").propose(3, 0)
    leases = Leases([], "me")
    leases.learn(read_leases(folder))
    assert leases.holders == {"dead"}

    def next_one(*gone: str) -> object:
        return leases.next(
            shortest=False,
            gone=gone,
            seen_alive=gone,
            left_by=lambda _: {1: Left(True, 1), 2: Left(False, 1)},
        )

    assert next_one() is None
    found = next_one("dead")
    assert found is not None
    assert (found.chunk, found.epoch, found.member) == (0, 2, "me")
    assert (found.numbers, found.attempts) == ((0, 2), (0, 1))
    leases.learn([found])
    assert leases.mine == [found]
    assert next_one("dead") is None
    assert leases.width_beyond(0, {"me"}) == 1, "its width is known"


def test_a_damaged_round_is_reported_by_name(tmp_path):
    folder = shared_folder(tmp_path)
    member_of(folder, "one").propose(1, 0)
    (folder / "00000.round").write_text("{}")
    for read in (read_leases, read_rounds):
        with pytest.raises(ResultsError, match=r"00000.round: is damaged"):
            read(folder)
    with pytest.raises(ResultsError, match="damaged"):
        read_round(folder / "00000.round")
