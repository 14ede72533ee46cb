"""Hooks: what they are told, when, and that they cost the sweep nothing."""

from __future__ import annotations

import collections
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_reliability import ranks_by_number
from test_results import opening, write_journal
from test_run import start
from test_split import member as member  # the fixture
from test_usage import assigned, ended
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.batch import hooks as hooks_module
from mpisweep.batch.hookcall import HookCalls, HookLog, Outcome, json_line
from mpisweep.batch.hooks import EndedTrials, HookRun, Reached
from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.launch import Ended
from mpisweep.batch.launchers import LaunchError
from mpisweep.batch.stops import Stops
from mpisweep.blocks import JoinedRecord, RequestRecord, TrialsBlock
from mpisweep.cli import hooking
from mpisweep.records import EndReason
from mpisweep.results.compaction import compact
from mpisweep.results.load import load
from mpisweep.results.merged import read_merged
from mpisweep.spec import Hooks, SpecError, parse_spec
from mpisweep.views.told import Told, ended_in, sweep_facts, trial_facts

SWEEP = 'workload = { command = "true {x}" }\n[parameters]\nx = [1]\n'


def parsed(table: str) -> Hooks:
    return parse_spec(SWEEP + table, source="s.toml", folder=Path()).hooks


# ------------------------------------------------------------------------------------- the sweep file


def test_a_hook_is_split_like_a_shell_or_taken_as_a_list():
    found = parsed(
        '[hooks]\nafter_trial = "tell \'a b\' {x}"\nafter_sweep = ["tell", "a b"]\ntimeout = "1m"\n'
    )
    assert found.commands == {"after_trial": ("tell", "a b", "{x}"), "after_sweep": ("tell", "a b")}
    assert (found.timeout_s, found.trials_per_call, found.backlog_s) == (60.0, 1, 60.0)
    assert parsed("") == Hooks()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("after_trials = 'x'", "hooks.after_trials: is not a known key; did you mean 'after_trial'?"),
        ("after_trial = ''", 'hooks.after_trial: is empty; expected a command line, e.g. "python notify.py"'),
        ("after_trial = '\"'", "hooks.after_trial: cannot be split into arguments: No closing quotation"),
        ("after_trial = 3", "hooks.after_trial: is 3; expected a command line"),
        ("timeout = '1m'", "hooks: has no command; expected one of before_sweep, after_trial, after_sweep"),
        ("after_trial = 'x'\ntimeout = 0", "hooks.timeout: is 0; expected a duration"),
        (
            "after_trial = 'x'\ntrials_per_call = 0",
            "hooks.trials_per_call: is 0; expected an integer of at le",
        ),
    ],
)
def test_a_wrong_hook_is_refused_in_one_sentence(table, message):
    with pytest.raises(SpecError) as caught:
        parsed(f"[hooks]\n{table}\n")
    assert str(caught.value).startswith(f"s.toml: {message}")
    assert "\n" not in str(caught.value)


def test_check_shows_hooks_and_refuses_a_program_that_is_not_there(folder, mpisweep):
    (folder / "s.toml").write_text(SWEEP + '[hooks]\nafter_trial = "cat -u"\n')
    shown = mpisweep("check", "s.toml")
    assert "  hook        after_trial: cat -u (at most 30 s)\n" in shown.stdout
    assert json.loads(mpisweep("check", "s.toml", "--json").stdout)["hooks"] == [
        "after_trial: cat -u (at most 30 s)"
    ]
    (folder / "s.toml").write_text(SWEEP + '[hooks]\nafter_sweep = "no-such-program"\n')
    for command in ("check", "run"):
        refused = mpisweep(command, "s.toml")
        assert refused.returncode == 2
        assert (
            refused.stderr
            == "mpisweep: s.toml: hooks.after_sweep: program 'no-such-program' is not on PATH\n"
        )
    assert not (folder / "sweep.h5.journal").exists()


# ------------------------------------------------------------------------------------- what is told


def sweep_of_two_runs(path: Path, *records: object) -> None:
    """Four trials; trial 0 ended in launch "a", and the records are those of launch "b"."""
    joined = [JoinedRecord(rank, f"node{rank}", "cpu 0-7", 8, 1, 1000.0) for rank in (0, 1)]
    write_journal(
        path,
        [TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}), *joined, ended(0, 0, 0.0, 1.0)],
        replace(opening(), launch="a"),
    )
    write_journal(path, [*joined, *records], replace(opening("20260102T000000-bbbbbb"), launch="b"))


def test_trials_are_told_once_in_the_order_of_their_ends_and_only_those_of_the_launch(tmp_path):
    path = tmp_path / "s.h5"
    sweep_of_two_runs(path, assigned(0, 0.0, 3, 1), ended(0, 3, 1.0, 1.0), ended(0, 1, 2.0, 1.0))
    told = Told()
    state = read_merged(path)
    assert told.take(state, "b", 1) == ([3], 1)
    assert told.take(state, "b", 5) == ([1], 0)
    assert told.take(state, "b", 5) == ([], 0)
    assert ended_in(load(path), "b") == 2
    assert ended_in(load(path), "a") == 1


def test_a_retried_trial_is_told_again_when_it_has_ended_again(tmp_path):
    failed = replace(ended(0, 2, 1.0, 1.0), states=[4], causes=[1], messages=["no memory"])
    before, after = tmp_path / "before.h5", tmp_path / "after.h5"
    sweep_of_two_runs(before, assigned(0, 0.0, 2), failed)
    retry = RequestRecord("q1", "retry", "user", 1.0, 2.0, [2], [1])
    again = [assigned(0, 3.0, 2, attempt=2), ended(0, 2, 3.0, 1.0, attempt=2)]
    sweep_of_two_runs(after, assigned(0, 0.0, 2), failed, retry, *again)
    told = Told()
    assert told.take(read_merged(before), "b", 5) == ([2], 0)
    assert told.take(read_merged(after), "b", 5) == ([2], 0)


def test_what_is_told_is_json_without_nan(tmp_path):
    path = tmp_path / "s.h5"
    sweep_of_two_runs(path, replace(ended(1, 2, 5.0, 0.5), metrics={"loss": [float("nan")]}))
    facts = trial_facts(read_merged(path), 2, load(path).spec, path)
    assert json.loads(json_line(facts)) == facts
    assert facts | {"device_energy_j": None} == {
        "hook": "after_trial", "sweep": "sweep", "path": str(path), "number": 2, "configuration": 2,
        "repeat": 0, "attempt": 1, "state": "complete", "cause": "", "message": "",
        "parameters": {"x": 3, "mode": "fast"}, "objective": "loss", "metrics": {"loss": None},
        "started_at": 5.0, "ended_at": 1805.0, "wall_time_s": 1800.0, "device_energy_j": None,
        "host": "node1", "device": "cpu 0-7",
    }  # fmt: skip
    sweep = sweep_facts(load(path), load(path).spec, path)
    assert (sweep["trials"], sweep["complete"], sweep["waiting"]) == (4, 2, 2)
    assert sweep["best"] == {"number": 0, "value": 1.0, "runs": 1, "parameters": {"x": 1, "mode": "fast"}}
    assert sweep_facts(None, load(path).spec, path)["trials"] is None


def test_the_values_of_an_objective_of_optuna_are_told_as_they_were(tmp_path):
    """A column of the file has one type; these choices have two."""
    path = tmp_path / "s.h5"
    first, second = ({"params": {"kind": kind}, "distributions": {}, "user_attrs": {}} for kind in (1, "one"))
    sweep_of_two_runs(
        path,
        replace(ended(0, 2, 1.0, 1.0), suggested=[first]),
        replace(ended(1, 3, 2.0, 1.0), suggested=[second]),
    )
    compact(path)
    spec = load(path).spec
    facts = hooking._Facts(spec, path, Allocation("local", ""), is_fresh=False)
    found = facts.ended("b", 5)
    assert [one["parameters"]["kind"] for one in found.trials] == [1, "one"]
    path.write_bytes(b"unreadable")
    assert facts.ended("b", 5) is None
    missing = hooking._Facts(spec, tmp_path / "no.h5", Allocation("local", ""), is_fresh=False)
    assert missing.ended("b", 5) == EndedTrials([], 0)


# ------------------------------------------------------------------------------------- calling


class Facts:
    """Results in which a number of trials have ended; the first reads may fail."""

    def __init__(self, ended: int, unreadable: int = 0) -> None:
        self.left = collections.deque(range(ended))
        self.unreadable = unreadable
        self.held: list[int] = []

    def before(self):
        return {"hook": "before_sweep"}

    def ended(self, launch: str, at_most: int) -> EndedTrials | None:
        self.held.append(at_most)
        if self.unreadable:
            self.unreadable -= 1
            return None
        now = [self.left.popleft() for _ in range(min(at_most, len(self.left)))]
        return EndedTrials([{"number": number} for number in now], len(self.left))

    def after(self, launch: str, reached: Reached):
        return {"hook": "after_sweep", "reason": reached.reason, "exit_code": reached.exit_code}


def run_of(folder: Path, facts: Facts, hooks: Hooks, ends_at: float | None = None) -> HookRun:
    return HookRun(hooks, folder, folder / "logs" / "hooks.log", facts, ends_at)


def within(seconds: float) -> Callable[[], float]:
    until = time.monotonic() + seconds
    return lambda: until


def told_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


TELL = ("sh", "-c", "cat >> told")


def around(run: HookRun, reason: EndReason = EndReason.COMPLETE) -> Ended:
    stops = Stops(passes_hurry_on=False)
    return run.around("launch", stops, lambda: Ended(reason.exit_code, reason))


def test_trials_that_end_faster_than_they_are_told_wait_in_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks_module, "_HELD", 4)
    facts = Facts(ended=11)
    around(run_of(tmp_path, facts, Hooks(TELL, TELL, TELL)))
    lines = told_lines(tmp_path)
    assert [line.get("number") for line in lines] == [None, *range(11), None]
    assert [lines[0]["hook"], lines[-1]["hook"]] == ["before_sweep", "after_sweep"]
    assert lines[-1]["reason"] == "complete"
    assert max(facts.held) == 4


def test_trials_that_end_while_the_run_ends_are_told(tmp_path):
    facts = Facts(ended=0)

    def run() -> Ended:
        wait_for(lambda: facts.held)  # after a look
        facts.left.extend([0, 1])
        return Ended(0, EndReason.COMPLETE)

    made = run_of(tmp_path, facts, Hooks(after_trial=TELL))
    made.around("launch", Stops(passes_hurry_on=False), run)
    assert [line["number"] for line in told_lines(tmp_path)] == [0, 1]


def test_results_that_cannot_be_read_are_read_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hooks_module, "_LOOK_S", 0.01)
    around(run_of(tmp_path, Facts(ended=2, unreadable=3), Hooks(after_trial=TELL)))
    assert [line["number"] for line in told_lines(tmp_path)] == [0, 1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    around(run_of(tmp_path, Facts(ended=2, unreadable=10**6), Hooks(after_trial=TELL, backlog_s=0.2)))
    assert caplog.messages == [
        "after_trial was not told the trials that ended last: the results cannot be read"
    ]


def test_nothing_is_read_again_after_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks_module, "_LOOK_S", 0.0)
    facts = Facts(ended=6)
    around(run_of(tmp_path, facts, Hooks(after_trial=("true",))))
    assert len(facts.held) <= 2


def test_a_call_tells_as_many_trials_as_the_sweep_file_allows_one_line_each(tmp_path):
    count = ("sh", "-c", "wc -l >> counts")
    around(run_of(tmp_path, Facts(ended=11), Hooks(after_trial=count, trials_per_call=4)))
    assert (tmp_path / "counts").read_text().split() == ["4", "4", "3"]


def test_after_the_backlog_the_launcher_says_how_many_trials_were_not_told(tmp_path, caplog):
    slow = ("sleep", "20")
    around(run_of(tmp_path, Facts(ended=5), Hooks((), slow, TELL, timeout_s=1000.0, backlog_s=0.2)))
    assert "hook after_trial (trial 0) was killed after " in caplog.text
    assert "after_trial was not told 4 ended trials: hooks.backlog (0.2 s) is over" in caplog.text
    # The hook after the sweep is called nevertheless.
    assert [line["hook"] for line in told_lines(tmp_path)] == ["after_sweep"]


def test_trials_that_wait_for_long_are_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hooks_module, "_LAG_S", -1.0)
    around(run_of(tmp_path, Facts(ended=3), Hooks(after_trial=("true",))))
    lagging = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert lagging == [
        "3 ended trials wait for after_trial, which takes longer than trials do; a larger "
        "hooks.trials_per_call tells several at a time"
    ]


def test_failures_are_logged_with_their_output_a_few_one_by_one(tmp_path, caplog):
    fail = ("sh", "-c", "echo first; echo 'no route to host' >&2; exit 3")
    around(run_of(tmp_path, Facts(ended=5), Hooks(after_trial=fail)))
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    log = tmp_path / "logs" / "hooks.log"
    assert said[0] == f"hook after_trial (trial 0) exited with 3: no route to host; see {log}"
    assert said[2].endswith("; further failures are only there")
    assert said[3:] == [f"after_trial failed 5 times; see {log}"]
    assert log.read_text().count("exited with 3, ") == 5
    assert log.read_text().count("first\nno route to host\n") == 5


def test_a_launch_that_fails_is_told_after_the_sweep(tmp_path):
    def fail() -> Ended:
        raise LaunchError("mpirun could not start any rank")

    with pytest.raises(LaunchError):
        run_of(tmp_path, Facts(0), Hooks(after_sweep=TELL)).around(
            "launch", Stops(passes_hurry_on=False), fail
        )
    assert told_lines(tmp_path) == [
        {"hook": "after_sweep", "reason": "mpirun could not start any rank", "exit_code": 2}
    ]


def test_nothing_is_called_when_the_allocation_is_over(tmp_path, caplog):
    around(run_of(tmp_path, Facts(0), Hooks(after_sweep=TELL), ends_at=time.time() - 1))
    assert "after_sweep was not called: the allocation is over" in caplog.text
    assert not (tmp_path / "told").exists()


def test_ranks_stop_earlier_if_a_hook_is_called_after_them():
    assert HookRun.reserve_s(Hooks(after_trial=TELL), 3600) == 0.0
    assert HookRun.reserve_s(Hooks(after_sweep=TELL), 3600) == 30.0
    assert HookRun.reserve_s(Hooks(after_sweep=TELL), 60) == 3.0


def test_a_call_that_is_killed_takes_its_children_along(tmp_path):
    hang = ("sh", "-c", "sleep 1000 & echo $! > child; wait")
    outcome = HookCalls(tmp_path).call(hang, b"{}\n", within(0.5))
    assert outcome.problem.startswith("was killed after ")
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    wait_for(lambda: not child.exists() or child.read_text().split()[2] == "Z")


def test_a_second_request_to_stop_ends_the_present_call(tmp_path):
    calls = HookCalls(tmp_path)
    ending = threading.Thread(target=lambda: (wait_for((tmp_path / "begun").exists), calls.end()))
    ending.start()
    outcome = calls.call(("sh", "-c", "touch begun; sleep 1000"), b"", within(1000.0))
    ending.join()
    assert outcome.problem == "was killed: the launcher ends"
    assert calls.call(("touch", "later"), b"", within(10.0)).problem == "was not called: the launcher ends"
    assert not (tmp_path / "later").exists()


def test_a_program_that_cannot_start_and_one_that_reads_nothing_are_outcomes(tmp_path):
    calls = HookCalls(tmp_path)
    assert calls.call(("./missing",), b"", within(10.0)) == Outcome(
        "could not start: No such file or directory", ""
    )
    assert calls.call(("true",), b"x" * (1 << 20), within(10.0)) == Outcome("", "")
    long = calls.call((sys.executable, "-c", "print('x' * 100000)"), b"", within(60.0)).output
    assert long.startswith("[34,465 bytes are left out here]\n")


def test_the_log_is_bounded_and_a_disk_that_is_full_costs_nothing(tmp_path):
    log = HookLog(tmp_path / "logs" / "hooks.log")
    for _ in range(400):
        log.add("after_trial (trial 1)", Outcome("", "x" * (1 << 16)), 0.1)
    assert log.path.stat().st_size < (17 << 20)
    (tmp_path / "file").write_text("")
    HookLog(tmp_path / "file" / "hooks.log").add("after_sweep", Outcome("failed", ""), 0.1)


# ------------------------------------------------------------------------------------- a whole sweep

WORKLOAD = """
import time
from pathlib import Path

def gated(trial):
    trial.report(0, loss=1.0)
    while trial.params["x"] > 6 and not Path("go").exists():
        time.sleep(0.005)
    if trial.params["x"] == 3:
        raise ValueError("x is three")
    return {"loss": float(trial.params["x"])}
"""
#: Notes what it is told; then it fails, or hangs for trial 4.
HOOK = r"""#!/bin/sh
read -r line
printf '%s\n' "$line" >> told
case $line in *'"number": 4,'*) sleep 1000;; esac
exit 3
"""


def test_hooks_see_each_trial_once_though_they_fail_and_hang_and_rank_0_is_killed(folder, environment):
    (folder / "gating.py").write_text(WORKLOAD)
    (folder / "hook.sh").write_text(HOOK)
    (folder / "hook.sh").chmod(0o755)
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "gating:gated"\n[parameters]\nx = { from = 1, to = 30 }\n[hooks]\n'
        + "".join(f'{name} = "./hook.sh"\n' for name in ("before_sweep", "after_trial", "after_sweep"))
        + 'timeout = "2s"\n'
    )
    run = start(folder, environment, "run", "s.toml", "-n", "3")
    told = folder / "told"
    wait_for(lambda: told.exists() and '"after_trial"' in told.read_text())
    os.kill(ranks_by_number(run)[0].pid, signal.SIGKILL)
    (folder / "go").touch()
    assert run.wait(PATIENCE_S) == 0, (folder / "stderr.txt").read_text()

    first, *trials, last = told_lines(folder)
    assert [first["hook"], first["resumed"], first["trials"]] == ["before_sweep", False, None]
    assert sorted(trial["number"] for trial in trials) == list(range(30))
    assert {trial["hook"] for trial in trials} == {"after_trial"}
    by_number = {trial["number"]: trial for trial in trials}
    assert by_number[9]["parameters"] == {"x": 10}
    assert by_number[9]["metrics"] == {"loss": 10.0}
    assert (by_number[2]["state"], by_number[2]["cause"]) == ("failed", "exception")
    assert "x is three" in by_number[2]["message"]
    assert [last["hook"], last["reason"], last["exit_code"]] == ["after_sweep", "complete", 0]
    assert (last["complete"], last["failed"], last["ended_in_run"]) == (29, 1, 30)
    assert last["best"]["parameters"] == {"x": 1}

    said = (folder / "stderr.txt").read_text()
    assert "hook before_sweep exited with 3; see s.h5.logs/hooks.log" in said
    log = (folder / "s.h5.logs" / "hooks.log").read_text()
    assert "after_trial (trial 4) was killed after " in log
    sweep = package.load(folder / "s.h5")
    assert sweep.ended == "complete"
    # The master was lost, and with it at most the trials that it ran.
    assert len(sweep.allocations) == 1

    # Resumed: nothing is left to run, so that no trial is told.
    told.unlink()
    assert start(folder, environment, "run", "s.toml", "-n", "1").wait(PATIENCE_S) == 0
    before, after = told_lines(folder)
    assert (before["resumed"], before["complete"]) == (True, 29)
    assert (after["hook"], after["ended_in_run"], after["reason"]) == ("after_sweep", 0, "complete")


def test_each_member_of_a_split_sweep_tells_its_own_trials(folder, member):
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "workloads:slowly"\n[parameters]\nx = { from = 1, to = 40 }\n'
        "[hooks]\nafter_trial = \"sh -c 'cat > told.$$'\"\n"
    )
    running = [member("s.toml", "-n", "1", "--split", "2") for _ in range(2)]
    assert {process.wait(PATIENCE_S) for process in running} <= {0, 3}
    told = [json.loads(path.read_text())["number"] for path in folder.glob("told.*")]
    assert sorted(told) == list(range(40))


def test_under_an_mpirun_of_the_user_hooks_are_not_called_and_rank_0_says_so(folder, mpisweep):
    (folder / "s.toml").write_text(SWEEP + '[hooks]\nafter_sweep = "touch told"\n')
    done = mpisweep("run", "s.toml", ranks=1)
    assert done.returncode == 0, done.stderr
    assert "hooks are not called: only `mpisweep run` that starts the ranks itself calls them" in done.stderr
    assert not (folder / "told").exists()
