"""Claims taken, inherited, kept and released at once, in any order of file-system steps."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from mpisweep.results import claim as module
from mpisweep.results import holder as holder_module
from mpisweep.results.claim import Claim, FollowedError, RunOverError, token_of
from mpisweep.results.holder import ClaimedError, claim_file

#: Number of orders to try; a few dozen suffice to catch a mutant of a fence.
ORDERS = 300
FIRST = "20260101T000000-aaaaaa"
#: File-system calls of the module; each is one step.
STEPS = {
    os: ["rename", "link", "replace", "utime", "listdir"],
    shutil: ["rmtree"],
    Path: ["mkdir", "stat", "unlink"],
}


class Turns:
    """Runs threads in a random order, one file-system step at a time."""

    def __init__(self, seed: int, actors: dict[str, Callable[[], Any]]) -> None:
        self._draw = random.Random(seed)
        self._actors = actors
        self._here: dict[threading.Thread, str] = {}
        #: Actors that wait at a step; the loop picks one when all remaining actors wait.
        self._waiting: dict[str, threading.Event] = {}
        self._left = set(actors)
        self._changed = threading.Condition()
        self.outcomes: dict[str, Any] = {}
        self.errors: list[str] = []

    def step(self) -> None:
        """Wait for the turn of this thread; a thread that is not an actor continues at once."""
        name = self._here.get(threading.current_thread())
        if name is None:
            return
        turn = threading.Event()
        with self._changed:
            self._waiting[name] = turn
            self._changed.notify()
        assert turn.wait(PATIENCE_S)

    def run(self) -> dict[str, Any]:
        """Run all actors to their ends and return the result or the refusal of each."""
        threads = [threading.Thread(target=self._act, args=(name,)) for name in self._actors]
        self._here = dict(zip(threads, self._actors, strict=True))
        for thread in threads:
            thread.start()
        while self._left:
            with self._changed:
                assert self._changed.wait_for(lambda: self._waiting.keys() == self._left, PATIENCE_S)
                if self._left:
                    self._waiting.pop(self._draw.choice(sorted(self._left))).set()
        for thread in threads:
            thread.join()
        assert self.errors == []
        return self.outcomes

    def _act(self, name: str) -> None:
        self.step()
        try:
            self.outcomes[name] = self._actors[name]()
        except (ClaimedError, FollowedError, RunOverError) as refusal:
            self.outcomes[name] = refusal
        except Exception as error:
            self.errors.append(f"{name}: {''.join(traceback.format_exception(error))}")
        with self._changed:
            self._left.discard(name)
            self._changed.notify()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run actors in the order that a seed gives."""
    now: list[Turns] = []

    def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if now:
                now[0].step()
            return function(*args, **more)

        return call

    for owner, names in STEPS.items():
        for name in names:
            monkeypatch.setattr(owner, name, in_turn(getattr(owner, name)))
    monkeypatch.setattr(module, "_RACE_S", 0.0)

    def run(seed: int, actors: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        now[:] = [Turns(seed, actors)]
        outcomes = now[0].run()
        now.clear()
        return outcomes

    return run


def holds(claim: Any) -> bool:
    """Whether this outcome is a claim that may change the sweep."""
    if not isinstance(claim, Claim):
        return False
    try:
        claim.beat()
    except (FollowedError, RunOverError):
        return False
    return True


def test_in_any_order_at_most_one_run_holds_the_sweep_in_the_end(turns, tmp_path, monkeypatch):
    """Four actors race for the sweep of a run that counts as dead.

    The run continues, another of its ranks inherits the claim, and two other runs take it.
    """
    monkeypatch.setattr(holder_module, "_is_dead", lambda holder, *_: holder.run == FIRST)
    winners: Counter[str] = Counter()
    for seed in range(ORDERS):
        folder = tmp_path / str(seed)
        first = Claim.take(folder, "", run=FIRST)
        outcomes = turns(
            seed,
            {
                "beats": lambda first=first: holds(first),
                "follows": lambda folder=folder: Claim.inherit(folder, "", run=FIRST, epoch=1),
                "takes": lambda folder=folder: Claim.take(folder, "one"),
                "takes too": lambda folder=folder: Claim.take(folder, "two"),
            },
        )
        assert not holds(first), f"order {seed}"
        holders = [name for name, outcome in outcomes.items() if holds(outcome)]
        assert len(holders) <= 1, f"order {seed}: {outcomes}"
        for name in holders:
            winners[name] += 1
            assert sorted(os.listdir(folder)) == sorted([outcomes[name].token.name, "claim.json"]), (
                f"order {seed}"
            )
            assert claim_file(folder).samefile(outcomes[name].token / "claim.json"), f"order {seed}"
            outcomes[name].release()
            assert not folder.exists(), f"order {seed}"
    # The two runs may fence each other if the third actor comes in between; both report it, and the next run
    # can take the sweep.
    assert winners.keys() == {"takes", "takes too"}
    assert winners.total() > 0.95 * ORDERS


def test_in_any_order_a_run_that_ends_leaves_the_claim_of_the_next_alone(turns, tmp_path):
    winners: Counter[str] = Counter()
    for seed in range(ORDERS):
        folder = tmp_path / f"{seed}.h5.journal"
        folder.with_suffix("").touch()
        first = Claim.take(folder, "", run=FIRST)
        outcomes = turns(
            seed,
            {
                "ends": first.release,
                "follows": lambda folder=folder: Claim.inherit(folder, "", run=FIRST, epoch=1),
                "takes": lambda folder=folder: Claim.take(folder, "next"),
            },
        )
        holders = [name for name, outcome in outcomes.items() if holds(outcome)]
        # A rank that inherits the claim of a run that is ending may come before or after the next run.
        assert len(holders) <= 1, f"order {seed}: {outcomes}"
        winners.update(holders)
        for name in holders:
            token = outcomes[name].token
            assert claim_file(folder).samefile(token / "claim.json"), f"order {seed}: {outcomes}"
    assert winners.keys() == {"follows", "takes"}


def test_a_claim_that_another_run_has_taken_meanwhile_is_put_back(tmp_path):
    """A run ends after another run has taken its claim and before that run fences it."""
    ends = Claim.take(tmp_path, "")
    takes = Claim(token_of(tmp_path, "20990101T000000-bbbbbb", 0))
    takes.token.mkdir()
    (takes.token / "claim.json").write_text(json.dumps({"who": "another"}))
    takes._put_claim()
    ends.release()
    assert claim_file(tmp_path).samefile(takes.token / "claim.json")
