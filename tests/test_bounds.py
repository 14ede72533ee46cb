"""What a trial that goes wrong can make of the results: nothing that is larger than it may be, and nothing in silence."""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_master import Ranks

import mpisweep as package
from mpisweep import master as masters
from mpisweep.blocks import Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.bounds import MESSAGE_CHARS, METRICS, NAME_CHARS, MetricNames, shortened
from mpisweep.messages import Acknowledge, Beat, Ended, Reported
from mpisweep.records import TrialState
from mpisweep.transport import in_pieces

Run = Callable[..., subprocess.CompletedProcess[str]]


@given(st.text(max_size=300), st.integers(10, 100))
def test_what_is_cut_keeps_its_beginning_and_its_end_and_says_how_much_is_missing(text: str, at_most: int):
    cut = shortened(text, at_most)
    if len(text) <= at_most:
        assert cut == text
        return
    head, middle, tail = cut[: at_most // 2], cut[at_most // 2 : -(at_most // 2)], cut[-(at_most // 2) :]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert middle == f"\n[mpisweep: {len(text) - len(head) - len(tail):,} characters are left out here]\n"


def test_long_names_stay_different_and_the_objective_is_kept_however_many_metrics_there_are():
    names = MetricNames("loss")
    first, second = names.kept("a" * 5000), names.kept("a" * 5001)
    assert first != second
    assert first is not None
    assert len(first) == NAME_CHARS
    assert names.kept("a" * 5000) == first
    assert "5,000 characters" in names.notice
    for number in range(2 * METRICS):
        names.kept(f"m{number}")
    assert names.kept("loss") == "loss"
    assert names.kept("another") is None
    assert names.kept("m0") == "m0"


def test_many_messages_are_sent_in_pieces_and_in_order():
    reports = [Reported(bytes(size)) for size in (5, 5, 5, 30, 1, 0)]
    pieces = list(in_pieces([Beat(), *reports, Beat()], at_most=10))
    assert [message for piece in pieces for message in piece] == [Beat(), *reports, Beat()]
    assert [sum(len(getattr(message, "body", b"")) for message in piece) for piece in pieces] == [10, 5, 30, 1]


def test_a_result_that_no_record_holds_fails_its_trial_before_anything_is_acknowledged(monkeypatch):
    """It was acknowledged once, and could then not be read."""
    monkeypatch.setattr(masters, "RECORD_BYTES", 20_000)
    ranks = Ranks('workload = "m:f"\n[parameters]\nx = [1, 2]\n')
    ranks.join(0)
    large = EndedBlock(0, 0, [0], [1], [int(TrialState.COMPLETE)], [0.0], [1.0], {f"m{n}": [1.0] for n in range(4000)})
    ranks.master.on_messages(0, [Ended(1, encode(large))], 0.0)
    written = [decode(body) for body in ranks.disk.bodies]
    [end] = [block for block in written if isinstance(block, EndedBlock)]
    assert end.states == [int(TrialState.FAILED)]
    assert end.metrics == {}
    assert end.messages == ["the result has 0 MiB, and the results file takes up to 0 MiB at once; report less"]
    assert max(map(len, ranks.disk.bodies)) < 20_000
    ranks.disk.sync()
    ranks.master.step(0.1, frozenset())
    assert Acknowledge((1,)) in ranks.sent[0]


def test_reports_that_no_record_holds_are_dropped_and_the_run_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(masters, "RECORD_BYTES", 20_000)
    ranks = Ranks('workload = "m:f"\n[parameters]\nx = [1, 2]\n')
    ranks.join(0)
    count = 2000
    curve = Curve(array("q", range(count)), array("d", [0.0] * count), array("d", [0.0] * count))
    before = len(ranks.disk.bodies)
    ranks.master.on_messages(0, [Reported(encode(ReportBlock(0, 0, 1, {"loss": curve})))], 0.0)
    assert len(ranks.disk.bodies) == before
    assert "which no record holds" in caplog.text


# ------------------------------------------------------------------------------------- whole runs

EXCESSIVE = """
class Long(Exception):
    pass

def run(trial):
    match trial.params["how"]:
        case "message":
            raise Long("begins " + "x" * 20_000_000 + " ends")
        case "notes":
            error = ValueError("short")
            for number in range(20_000):
                error.add_note(f"note {number} " + "y" * 100)
            raise error
        case "names":
            trial.report(0, **{"n" * 2_000_000: 1.0})
            return {"loss": 1.0, "m" * 2_000_000: 2.0}
        case "metrics":
            for step in range(3):
                trial.report(step, **{f"m{number}": float(step) for number in range(1500)})
            return {f"r{number}": 1.0 for number in range(5000)} | {"loss": 2.0}
        case "odd":
            return {"loss": 3.0} | {f"o{number}": "z" * 100 for number in range(300)}
        case "points":
            for step in range(300_000):
                trial.report(step, loss=step)
            return 4.0
    return 5.0
"""


@pytest.mark.mpi
def test_what_a_trial_makes_too_long_is_cut_and_said_and_everything_can_be_read(folder, mpisweep: Run):
    (folder / "mine.py").write_text(EXCESSIVE)
    how = ["message", "notes", "names", "metrics", "odd", "points", "fine"]
    done = mpisweep("run", "mine:run", "-p", f"how={','.join(how)}", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    told = dict(zip(how, sweep.trials["message"].tolist(), strict=True))
    assert sweep.trials["state"].tolist() == ["failed", "failed", *["complete"] * 5]
    assert told["message"].startswith("mine.Long: begins xxx")
    assert told["message"].endswith(" in run")
    assert "characters are left out here]" in told["message"]
    assert max(map(len, told.values())) < MESSAGE_CHARS + 100
    assert told["notes"].startswith("ValueError: short\nnote 0 ")
    assert told["names"].startswith("the name of a metric has 2,000,000 characters: it is kept as 'nnn")
    assert told["metrics"] == "it has more than 1,000 metrics: 'm1000' and others after it are not kept"
    assert sweep.trials["loss"].tolist()[2:] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(sweep.curve(5, "loss").value) == 300_000
    assert max(map(len, sweep.metrics)) <= NAME_CHARS
    assert sweep.curve(3, "m999").value.tolist() == [0.0, 1.0, 2.0]
    logs = sum(log.stat().st_size for log in Path(folder / "r.h5.logs").glob("rank-*.log"))
    assert logs < 1_000_000
    assert len(done.stderr) < 100_000
    assert mpisweep("repair", "r.h5").returncode == 0


@pytest.mark.mpi
def test_short_trials_whose_metrics_have_other_names_each_do_not_make_one_huge_record(folder, mpisweep: Run):
    (folder / "mine.py").write_text(
        "def run(trial):\n    x = trial.params['x']\n    return {'loss': 1.0} | {f'm{x % 10}_{n}': 1.0 for n in range(100)}\n"
    )
    done = mpisweep("run", "mine:run", "-p", "x=1:500", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert (trials["state"] == "complete").all()
    assert trials["m3_99"][2] == 1.0
