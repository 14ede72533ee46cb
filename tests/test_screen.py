"""The full screen of `mpisweep watch`: its text for many sweeps and sizes, and its keys."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from test_results import curve, opening, write_journal
from test_watch import running_sweep, split_sweep
from waiting import wait_for

import mpisweep
from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    EndedBlock,
    JoinedRecord,
    PredictedRecord,
    QuarantineRecord,
    ReportBlock,
    TrialsBlock,
)
from mpisweep.records import FailureCause, Request, RequestKind, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder, stop_file
from mpisweep.results.claim import Claim
from mpisweep.results.requests import new_name, write_request
from mpisweep.results.shares.folder import members, part_file
from mpisweep.spec.expression import ExpressionError
from mpisweep.views.screen.drawing import Drawn, draw
from mpisweep.views.screen.facts import Axis, Facts, facts_of, judged
from mpisweep.views.screen.look import HELP, Look, Pane, Quit, Send, press
from mpisweep.views.screen.plot import plot_lines
from mpisweep.views.screen.reader import Reader
from mpisweep.views.screen.spans import Moment
from mpisweep.views.screen.table import filtered, sorted_rows

COMPLETE, PRUNED, FAILED = int(TrialState.COMPLETE), int(TrialState.PRUNED), int(TrialState.FAILED)
MEMORY, EXCEPTION = int(FailureCause.OUT_OF_MEMORY), int(FailureCause.EXCEPTION)
START = 1000.0

#: Claims of the running sweeps; a claim without a reference would be released.
claims: list[Claim] = []


def batch_sizes(path: Path, count: int = 700, ended: int = 143) -> Path:
    """A running sweep over batch sizes, the largest first, on four GPUs of two nodes; the largest 20 fail."""
    spec = f'name = "sizes"\nworkload = "m:f"\n[parameters]\nbatch_size = {{ from = 1, to = {count} }}\n'
    records: list[object] = [TrialsBlock(list(range(count)), {"batch_size": list(range(1, count + 1))})]
    records += [JoinedRecord(r + 1, f"node{r // 2 + 1}", f"gpu {r % 2}", 8, 1, START) for r in range(4)]
    for index in range(ended + 4):
        number, rank, at = count - 1 - index, index % 4 + 1, START + 8.0 * index
        records.append(AssignedBlock([[rank, 0]], at, [number], [1], {"batch_size": number + 1}))
        if index >= ended:
            records.append(ReportBlock(rank, number, 1, {"loss": curve(3.0, 2.9)}))
        elif number >= count - 20:
            message = f"Traceback:\nRuntimeError: out of memory; tried to allocate {number} bytes"
            records.append(EndedBlock(rank, 0, [number], [1], [FAILED], [at], [5.0], {}, [MEMORY], [message]))
        else:
            loss = 2.3 + abs(math.log((number + 1) / 600))
            records.append(EndedBlock(rank, 0, [number], [1], [COMPLETE], [at], [30.0], {"loss": [loss]}))
    write_journal(path, records, replace(opening(spec=spec), deadline=START + 7200.0))
    claims.append(Claim.take(journal_folder(path), ""))
    return path


def ended_sweep(path: Path, spec: str, parameters: dict[str, list], blocks: list[object]) -> Path:
    """A sweep on one worker that was stopped after these ends."""
    count = len(next(iter(parameters.values())))
    records: list[object] = [
        TrialsBlock(list(range(count)), parameters),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, START),
        AssignedBlock([[0, 0]], START, list(range(count)), [1] * count, parameters),
        *blocks,
        ClosedRecord(START + 20, "stopped by a signal"),
    ]
    write_journal(path, records, opening(spec=f'workload = "m:f"\n{spec}'))
    return path


def ends(states: list[int], **metrics: list[float]) -> EndedBlock:
    numbers = list(range(len(states)))
    return EndedBlock(
        0, 0, numbers, [1] * len(states), states, [START] * len(states), [1.0] * len(states), metrics
    )


def drawn(
    facts: Facts, look: Look | None = None, *, now: float, size: tuple[int, int] = (80, 24), **moment
) -> Drawn:
    look = look or Look()
    mask = filtered(facts.table, look.filter) if look.filter else None
    order = sorted_rows(
        facts.table, look.column or facts.table.usual, is_reversed=look.is_reversed, mask=mask
    )
    found = draw(facts, order, look, Moment(now, moment.pop("silent_s", 1.0), **moment), *size)
    assert len(found.lines) <= size[1]
    for line in found.lines:
        assert sum(cell_len(span.text) for span in line) <= size[0]
    return found


def text_of(found: Drawn) -> str:
    return "\n".join("".join(span.text for span in line).rstrip() for line in found.lines)


def rows_of(found: Drawn) -> list[int]:
    return found.shown.order.tolist()


# ------------------------------------------------------------------------------------- what is shown


def test_a_running_sweep_on_80_x_24_characters(tmp_path):
    now = START + 8.0 * 146 + 40
    facts = facts_of(mpisweep.load(batch_sizes(tmp_path / "s.h5")), now)
    text = text_of(drawn(facts, now=now)).splitlines()
    assert text[0] == "sizes  running"
    assert text[1] == "trials   [##--------] 143 of 700, 4 running, 20 failed, 7.1/min, 78 min left"
    assert text[2].startswith("walltime [#---------] 20 min of 2 h 00 min, predicted end ")
    assert text[2].endswith(" (21 min before)")
    assert text[3:5] == ["best loss 2.3 (trial 599: batch_size=600)", "failed 20 out_of_memory"]
    assert text[5] == "[1 trials] 2 workers  3 plot  4 failures  5 runs   by loss"
    assert text[6].split() == ["trial", "state", "batch_size", "loss*", "time", "cause", "host", "device"]
    assert text[7].split() == [">", "599", "complete", "600", "2.3", "30", "s", "node1", "gpu", "0"]
    assert text[23].startswith("? help")
    workers = text_of(drawn(facts, Look(pane=Pane.WORKERS), now=now)).splitlines()
    assert workers[10].split() == [
        "4",
        "gpu",
        "1",
        "on",
        "node2",
        "556",
        "64",
        "s",
        "64",
        "s",
        "2.9",
        "at",
        "1",
        "batch_size=557",
    ]
    failures = text_of(drawn(facts, Look(pane=Pane.FAILURES), now=now)).splitlines()
    # One group, although the messages have different numbers.
    assert failures[7].split()[:3] == [">", "20", "out_of_memory"]
    assert failures[8] == ""
    plot = text_of(drawn(facts, Look(pane=Pane.PLOT), now=now))
    assert plot.count("*") == 2, "the legend's and the best"
    runs = text_of(drawn(facts, Look(pane=Pane.RUNS), now=now)).splitlines()
    assert runs[7].split()[0] == "node1"
    assert runs[7].endswith("active")


def test_a_large_terminal_shows_trials_workers_and_plot_at_once(tmp_path):
    now = START + 8.0 * 146 + 40
    facts = facts_of(mpisweep.load(batch_sizes(tmp_path / "s.h5")), now)
    text = text_of(drawn(facts, now=now, size=(120, 40)))
    for part in ("by loss", ">   599", "4 gpu 1 on node2", "loss   . one trial"):
        assert part in text
    assert "ends after" not in text
    late = text_of(drawn(replace(facts, deadline=now + 60.0), now=now, size=(120, 40)))
    assert "(77 min after)" in late


@pytest.mark.parametrize("size", [(59, 24), (80, 15), (3, 2), (1, 1)])
def test_a_terminal_that_is_too_small_says_so(tmp_path, size):
    facts = facts_of(mpisweep.load(running_sweep(tmp_path / "s.h5")), 1010.0)
    text = text_of(drawn(facts, now=1010.0, size=size))
    assert "The terminal has"[: size[0]].split()[0] in text


@pytest.mark.parametrize("size", [(60, 16), (61, 17), (200, 31), (80, 32), (300, 100)])
@pytest.mark.parametrize("pane", Pane)
def test_any_size_is_filled_and_never_exceeded(tmp_path, size, pane):
    spec = 'objective = ["loss", "cost"]\n[parameters]\nx = { from = 1, to = 9 }\nname = ["日本語の長い名前の設定", "b"]\n'
    parameters = {"x": [1 + n // 2 for n in range(18)], "name": ["日本語の長い名前の設定", "b"] * 9}
    block = ends([COMPLETE] * 18, loss=[float(n) for n in range(18)], cost=[float(-n) for n in range(18)])
    facts = facts_of(mpisweep.load(ended_sweep(tmp_path / "s.h5", spec, parameters, [block])), 1030.0)
    found = drawn(
        facts, Look(pane=pane), now=1030.0, size=size, judgement="words " * 200, problem="bad " * 99
    )
    assert len(found.lines) == size[1]


def test_a_sweep_of_which_everything_failed(tmp_path):
    messages = [f"No module named 'part{n % 2}x{n}'" for n in range(8)]
    block = EndedBlock(
        0, 0, list(range(8)), [1] * 8, [FAILED] * 8, [START] * 8, [1.0] * 8, {}, [EXCEPTION] * 8, messages
    )
    path = ended_sweep(
        tmp_path / "s.h5", "[parameters]\nx = { from = 1, to = 8 }\n", {"x": list(range(1, 9))}, [block]
    )
    facts = facts_of(mpisweep.load(path), 1030.0)
    assert [(group.cause, group.trials) for group in facts.failures] == [("exception", tuple(range(8)))]
    text = text_of(drawn(facts, now=1030.0))
    assert "8 of 8, 0 running, 8 failed" in text
    assert "failed 8 exception" in text
    assert "no trial has ended yet" in text_of(drawn(facts, Look(pane=Pane.PLOT), now=1030.0))


def test_with_repeats_the_best_is_that_of_the_means(tmp_path):
    spec = "repeats = 3\n[parameters]\nx = { from = 1, to = 4 }\n"
    numbers = list(range(12))
    parameters = {"x": [1 + n // 3 for n in numbers]}
    path = tmp_path / "s.h5"
    # The luckiest trial is one of x = 4, whose mean is bad.
    losses = [1.0, 1.1, 0.9, 2.0, 2.1, 1.9, 3.0, 3.1, 2.9, 0.5, 5.0, 6.0]
    records: list[object] = [
        TrialsBlock(
            numbers, parameters, configurations=[n // 3 for n in numbers], repeats=[n % 3 for n in numbers]
        ),
        JoinedRecord(0, "node1", "cpu 0", 1, 1, START),
        AssignedBlock([[0, 0]], START, numbers, [1] * 12, parameters, repeats=[n % 3 for n in numbers]),
        ends([COMPLETE] * 12, loss=losses),
        ClosedRecord(START + 20, "complete"),
    ]
    write_journal(path, records, opening(spec=f'workload = "m:f"\n{spec}'))
    sweep = mpisweep.load(path)
    facts = facts_of(sweep, 1030.0)
    assert "best mean loss 1 (3 runs, x=1)" in text_of(drawn(facts, now=1030.0))
    assert facts.marked == (0, 1, 2)
    text = text_of(drawn(facts, now=1030.0, judgement=judged(sweep)))
    assert "best mean loss 1 " in text
    assert "trial 9:" not in text
    assert "4 configurations x 3 repeats" in text


def test_the_front_of_two_objectives(tmp_path):
    spec = 'objective = ["loss", "cost"]\n[parameters]\nx = { from = 1, to = 6 }\n'
    block = ends([COMPLETE] * 6, loss=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], cost=[9.0, 5.0, 5.5, 3.0, 1.0, 7.0])
    sweep = mpisweep.load(ended_sweep(tmp_path / "s.h5", spec, {"x": list(range(1, 7))}, [block]))
    facts = facts_of(sweep, 1030.0)
    assert sorted(facts.marked) == [0, 1, 3, 4]
    assert judged(sweep) == ""
    text = text_of(drawn(facts, now=1030.0))
    for line in (
        "4 trials on the front of 2 objectives",
        "best loss 1 (trial 0: x=1)",
        "best cost 1 (trial 4: x=5)",
    ):
        assert line in text
    front = text_of(drawn(facts, Look(pane=Pane.PLOT, parameter=2), now=1030.0))
    assert front.count("*") == 5
    assert " cost " in front


def test_pruned_trials_follow_the_complete_ones_and_have_a_sign_of_their_own(tmp_path):
    block = replace(ends([COMPLETE, PRUNED, COMPLETE], loss=[2.0, 0.5, 1.0]), pruned_at=[-1, 3, -1])
    path = ended_sweep(
        tmp_path / "s.h5",
        'prune = "median"\n[parameters]\nx = { from = 1, to = 3 }\n',
        {"x": [1, 2, 3]},
        [block],
    )
    facts = facts_of(mpisweep.load(path), 1030.0)
    assert rows_of(drawn(facts, now=1030.0)) == [2, 0, 1]
    plot = text_of(drawn(facts, Look(pane=Pane.PLOT), now=1030.0))
    assert "x pruned" in plot
    assert "1 pruned" in plot


def test_all_members_of_a_split_sweep_are_on_the_screen(tmp_path):
    path = split_sweep(tmp_path / "s.h5")
    claims.extend(
        Claim.take(journal_folder(part_file(shares_folder(path), member)), "")
        for member in members(shares_folder(path))
    )
    facts = facts_of(mpisweep.load(path), 1010.0)
    assert [run.is_active for run in facts.runs] == [True, True]
    assert [slot.trial.number for slot in facts.slots if slot.trial] == [1, 3]
    text = text_of(drawn(facts, Look(pane=Pane.WORKERS), now=1010.0))
    assert "split: 2 members active (node1, node1)" in text
    assert text.count("quarantined: slow") == 2


def test_a_worker_without_a_trial_is_idle_and_one_that_left_is_gone(tmp_path):
    path = running_sweep(
        tmp_path / "s.h5", JoinedRecord(2, "node3", "cpu 1", 1, 1, 1003.0), QuarantineRecord(2, 1004.0, "hot")
    )
    facts = facts_of(mpisweep.load(path), 1010.0)
    lines = text_of(drawn(facts, Look(pane=Pane.WORKERS), now=1012.0)).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("rank, device"))
    assert lines[at + 1].split() == [
        "0",
        "cpu",
        "0",
        "on",
        "node1",
        "2",
        "7",
        "s",
        "6.9",
        "s",
        "2",
        "at",
        "1",
        "x=3",
    ]
    assert lines[at + 2].split() == [
        "1",
        "cpu",
        "0",
        "on",
        "node2",
        "1",
        "10",
        "s",
        "10",
        "s",
        "none",
        "yet",
        "x=2",
    ]
    assert lines[at + 3].split() == ["2", "cpu", "1", "on", "node3", "quarantined:", "hot"]


def test_requests_that_wait_silence_and_problems_are_said(tmp_path):
    path = running_sweep(tmp_path / "s.h5")
    write_request(path, Request(new_name(), RequestKind.SKIP, ((0, 1),), (), 1.0, "me@here"))
    stop_file(path).touch()
    facts = facts_of(mpisweep.load(path), 1010.0)
    text = text_of(drawn(facts, now=1010.0, silent_s=75.0, problem="s.h5: cannot be read"))
    for said in (
        "request: skip trial 0 by me@here, not applied yet",
        "request: stop, not applied yet",
        "no file has changed for 75 s",
        "s.h5: cannot be read",
    ):
        assert said in text


# ------------------------------------------------------------------------------------- the table


@pytest.fixture
def facts(tmp_path) -> Facts:
    """Trial 3 has ended, 1 and 2 run, 0 waits in a slot; x is 1 to 4."""
    return facts_of(mpisweep.load(running_sweep(tmp_path / "s.h5")), 1010.0)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("running", [1, 2]),
        ("waiting or complete", [0, 3]),
        ("x > 1 and x < 4", [1, 2]),
        ("not running and loss < 2", [3]),
        ('state == "waiting"', [0]),
        ("trial >= 2", [2, 3]),
        ("1 < 2", [0, 1, 2, 3]),
    ],
)
def test_a_filter_is_a_condition_on_columns_and_states(facts, text, kept):
    assert np.flatnonzero(filtered(facts.table, text)).tolist() == kept


@pytest.mark.parametrize("text", ["y > 1", "x >", "x", 'x == "a"', "runing"])
def test_a_filter_that_is_none_says_why(facts, text):
    with pytest.raises(ExpressionError, match=text.split()[0]):
        filtered(facts.table, text)


def test_a_filter_leaves_out_trials_without_a_value_that_it_needs(tmp_path):
    spec = '[parameters]\nopt = ["sgd", "adam"]\nmomentum = { from = 0.5, to = 0.9, points = 2, when = "opt == \'sgd\'" }\n'
    parameters = {"opt": ["sgd", "sgd", "adam"], "momentum": [0.5, 0.9, None]}
    path = ended_sweep(tmp_path / "s.h5", spec, parameters, [ends([COMPLETE] * 3, loss=[1.0, 2.0, 3.0])])
    table = facts_of(mpisweep.load(path), 1030.0).table
    assert filtered(table, "momentum < 0.95").tolist() == [True, True, False]
    assert filtered(table, 'opt == "adam" or momentum > 0.6').tolist() == [False, True, True]


def test_trials_are_sorted_by_any_column_and_those_without_a_value_are_last(facts):
    def order(column: str, *, is_reversed: bool = False) -> list[int]:
        return sorted_rows(facts.table, column, is_reversed=is_reversed, mask=None).tolist()

    assert order("loss") == order("loss", is_reversed=True) == [3, 1, 2, 0]
    assert order("x", is_reversed=True) == [3, 2, 1, 0]
    assert order("state") == [3, 1, 2, 0]
    assert order("host", is_reversed=True)[0] == 1
    assert order("cause") == [1, 2, 0, 3], "none has one"


def test_the_best_is_above_whether_it_is_small_or_large(tmp_path):
    spec = 'direction = "maximize"\n[parameters]\nx = { from = 1, to = 3 }\n'
    path = ended_sweep(
        tmp_path / "s.h5", spec, {"x": [1, 2, 3]}, [ends([COMPLETE] * 3, loss=[2.0, 9.0, 5.0])]
    )
    facts = facts_of(mpisweep.load(path), 1030.0)
    assert rows_of(drawn(facts, now=1030.0)) == [1, 2, 0]
    assert rows_of(drawn(facts, Look(is_reversed=True), now=1030.0)) == [0, 2, 1]


# ------------------------------------------------------------------------------------- the plot


def axis(name: str, values: list[float], *, is_ratio: bool = False) -> Axis:
    return Axis(name, np.array(values), is_ratio)


def plotted(x: Axis, y: Axis, marked: tuple[int, ...] = ()) -> list[str]:
    return plot_lines(x, y, np.zeros(len(x.values), dtype=bool), marked, 41, 8)


def test_a_logarithmic_axis_has_equal_ratios_at_equal_distances():
    values = [1e-4, 1e-3, 1e-2, 1e-1]
    lines = plotted(axis("lr", values, is_ratio=True), axis("loss", [1.0, 1.0, 1.0, 1.0]), (0, 1, 2, 3))
    [points] = [line for line in lines if line.count("*") == 4]
    places = [index for index, sign in enumerate(points) if sign == "*"]
    assert np.ptp(np.diff(places)) <= 1
    assert lines[-1].split() == ["0.0001", "lr", "(logarithmic)", "0.1"]


def test_diverged_trials_do_not_hide_the_others():
    losses = [1.0 + 0.1 * n for n in range(20)] + [1e6]
    lines = plotted(axis("x", [float(n) for n in range(21)]), axis("loss", losses))
    assert lines[1].startswith(">2.9 |")
    assert lines[1].endswith("^")
    assert len({line.find(".") for line in lines[1:6]}) > 1, "the others are spread over the lines"


def test_a_plot_of_one_trial_and_one_of_none():
    assert sum(line.count(".") for line in plotted(axis("x", [3.0]), axis("loss", [2.0]))[1:-2]) == 1
    assert plotted(axis("x", [math.nan]), axis("loss", [2.0])) == ["no trial has both x and loss yet"]


# ------------------------------------------------------------------------------------- keys


def after(facts: Facts, *keys: str, look: Look | None = None) -> tuple[Look, list[object]]:
    """What is chosen after these keys, and what they asked for."""
    look, commands = look or Look(), []
    for key in keys:
        look, command = press(look, key, drawn(facts, look, now=1010.0).shown)
        commands += [command] if command is not None else []
    return look, commands


def test_arrows_choose_a_trial_that_stays_chosen_when_the_order_changes(facts):
    look, _ = after(facts, "down", "down")
    assert look.trial == 2
    assert after(facts, "down", "v", "right", look=look)[0].trial is not None
    turned = drawn(facts, replace(look, column="trial", is_reversed=True), now=1010.0)
    assert next(line for line in text_of(turned).splitlines() if line.startswith(">")).split()[1] == "2"
    assert after(facts, "end", "down", "pgdn")[0].trial == 0
    assert after(facts, "end", "home", "up")[0].trial == 3


def test_a_request_is_sent_only_after_it_was_confirmed(facts):
    look, commands = after(facts, "end", "K")
    assert "skip trial 0? y/n" in text_of(drawn(facts, look, now=1010.0))
    assert commands == []
    assert after(facts, "n", look=look)[1] == []
    assert after(facts, "q", look=look)[1] == [], "any other key is a no"
    assert after(facts, "y", look=look)[1] == [Send(RequestKind.SKIP, (0,))]
    assert after(facts, "S", "y")[1] == [Send(RequestKind.STOP, ())]
    assert after(facts, "S", "enter")[1] == []


def test_marked_trials_are_asked_for_together(facts):
    look, _ = after(facts, " ", " ")
    assert look.marked == {3, 1}
    assert after(facts, "F", "y", look=look)[1] == [Send(RequestKind.FIRST, (1, 3))]
    assert after(facts, "F", "y", look=look)[0].marked == frozenset()
    assert after(facts, "esc", look=look)[0].marked == frozenset()


def test_all_failures_of_one_kind_are_retried_together(tmp_path):
    found = facts_of(mpisweep.load(batch_sizes(tmp_path / "s.h5", 100, 30)), START)
    assert after(found, "4", "R", "y")[1] == [Send(RequestKind.RETRY, tuple(range(80, 100)))]
    assert after(found, "3", "R", "y")[1] == []
    assert "choose trials" in after(found, "3", "R")[0].notice


def test_a_filter_is_typed_applied_and_removed(facts):
    look, commands = after(facts, "/", *"x>3q", "backspace", "enter")
    assert (look.filter, commands) == ("x>3", [])
    assert rows_of(drawn(facts, look, now=1010.0)) == [3]
    assert after(facts, "esc", look=look)[0].filter == ""
    assert after(facts, "/", "1", "esc", look=look)[0].filter == "x>3"


def test_keys_change_columns_axes_and_panes(facts):
    assert after(facts, "right")[0].column == "time"
    assert after(facts, "left")[0].column == "x"
    assert after(facts, "tab", "tab")[0].pane is Pane.PLOT
    assert after(facts, "backtab")[0].pane is Pane.RUNS
    assert after(facts, "x")[0].parameter == 0, "there is one parameter"
    assert after(facts, "q")[1] == [Quit()]


def test_the_help_names_every_key(facts):
    look, _ = after(facts, "?")
    text = text_of(drawn(facts, look, now=1010.0))
    for keys, _ in HELP:
        assert keys in text
    assert after(facts, "R", look=look)[0].asked is None


# ------------------------------------------------------------------------------------- reading


def wait_until(reader: Reader, what) -> None:
    wait_for(lambda: what(reader.latest))


def test_the_reader_reads_changes_filters_and_keeps_what_it_has_when_a_read_fails(tmp_path):
    path = ended_sweep(
        tmp_path / "s.h5",
        "[parameters]\nx = { from = 1, to = 3 }\n",
        {"x": [1, 2, 3]},
        [ends([COMPLETE] * 3, loss=[1.0, 2.0, 3.0])],
    )
    reader = Reader(path, 0.01)
    try:
        reader.want("x > 1")
        wait_until(reader, lambda latest: latest.filter == "x > 1")
        assert reader.latest.mask is not None
        assert reader.latest.mask.tolist() == [False, True, True]
        first = reader.latest.facts
        [segment] = journal_folder(path).iterdir()
        segment.rename(tmp_path / "aside")
        wait_until(reader, lambda latest: latest.problem)
        assert reader.latest.facts is first
        (tmp_path / "aside").rename(segment)
        wait_until(reader, lambda latest: not latest.problem)
        stop_file(path).touch()
        wait_until(reader, lambda latest: latest.facts.requests)
    finally:
        reader.end()


def test_a_bug_in_the_reading_thread_ends_the_screen(tmp_path, monkeypatch):
    path = ended_sweep(
        tmp_path / "s.h5",
        "[parameters]\nx = { from = 1, to = 1 }\n",
        {"x": [1]},
        [ends([COMPLETE], loss=[1.0])],
    )
    reader = Reader(path, 0.01)
    monkeypatch.setattr("mpisweep.views.screen.reader.facts_of", lambda sweep, now: 1 / 0)
    stop_file(path).touch()
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: reader.latest is None)
    reader.end()


def test_before_any_trial_has_ended_the_end_is_the_predicted_one(tmp_path):
    path = tmp_path / "s.h5"
    spec = 'workload = "m:f"\n[parameters]\nx = { from = 1, to = 4 }\n'
    records = [TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4]}), PredictedRecord(600.0, 700.0, 0)]
    write_journal(path, records, replace(opening(spec=spec), deadline=START + 900.0))
    claims.append(Claim.take(journal_folder(path), ""))
    now = START + 60.0
    text = text_of(drawn(facts_of(mpisweep.load(path), now), now=now))
    assert "60 s of 15 min, predicted end " in text
    assert "(5 min before)" in text


def test_a_file_without_a_sweep_is_refused_before_the_screen_opens(tmp_path):
    with pytest.raises(ResultsError):
        Reader(tmp_path / "none.h5", 1.0)
