"""Limits on the results of a trial: nothing exceeds its bound, and every cut is reported."""

from __future__ import annotations

import subprocess
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_master import Ranks, SlowDisk

import mpisweep as package
from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, ReportBlock, TrialsBlock, decode, encode
from mpisweep.bounds import MESSAGE_CHARS, METRICS, NAME_CHARS, MetricNames, shortened
from mpisweep.master import inbox
from mpisweep.master.adding import record_trials
from mpisweep.messages import Acknowledge, Beat, Ended, Reported
from mpisweep.processes.channel import Line
from mpisweep.processes.shared_page import Page, SignalPage, page_file
from mpisweep.processes.unsent import UNSENT_BYTES, Unsent
from mpisweep.rank.transport import in_pieces
from mpisweep.records import TrialState
from mpisweep.results.journal.writer import Journal
from mpisweep.search import make_sampler
from mpisweep.search.numbering import number_trials
from mpisweep.spec import Spec, SpecError, parse_spec
from mpisweep.workloads.devicecheck import TrialDevice
from mpisweep.workloads.serve import _Loop
from mpisweep.workloads.trial import Trial

Run = Callable[..., subprocess.CompletedProcess[str]]


@given(st.text(max_size=300), st.integers(10, 100))
def test_a_shortened_text_keeps_its_beginning_and_its_end_and_says_how_much_is_missing(
    text: str, at_most: int
):
    cut = shortened(text, at_most)
    if len(text) <= at_most:
        assert cut == text
        return
    head, middle, tail = cut[: at_most // 2], cut[at_most // 2 : -(at_most // 2)], cut[-(at_most // 2) :]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert middle == f"\n[mpisweep: {len(text) - len(head) - len(tail):,} characters are left out here]\n"


def test_long_names_stay_different_and_the_objective_is_kept_however_many_metrics_there_are():
    names = MetricNames(["loss"])
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
    assert [sum(len(getattr(message, "body", b"")) for message in piece) for piece in pieces] == [
        10,
        5,
        30,
        1,
    ]


def test_a_result_too_large_for_a_record_fails_its_trial_before_anything_is_acknowledged(monkeypatch):
    """Regression: such a result was acknowledged and could not be read afterwards."""
    monkeypatch.setattr(inbox, "RECORD_BYTES", 20_000)
    ranks = Ranks('workload = "m:f"\n[parameters]\nx = [1, 2]\n')
    ranks.join(0)
    large = EndedBlock(
        0, 0, [0], [1], [int(TrialState.COMPLETE)], [0.0], [1.0], {f"m{n}": [1.0] for n in range(4000)}
    )
    ranks.master.on_messages(0, [Ended(1, encode(large))], 0.0)
    written = [decode(body) for body in ranks.disk.bodies]
    [end] = [block for block in written if isinstance(block, EndedBlock)]
    assert end.states == [int(TrialState.FAILED)]
    assert end.metrics == {}
    assert end.messages == [
        "the result has 0 MiB, and the results file takes up to 0 MiB at once; report less"
    ]
    assert max(map(len, ranks.disk.bodies)) < 20_000
    ranks.disk.sync()
    ranks.master.step(0.1, frozenset())
    assert Acknowledge((1,)) in ranks.sent[0]


def test_reports_too_large_for_a_record_are_dropped_and_the_run_continues(monkeypatch, caplog):
    monkeypatch.setattr(inbox, "RECORD_BYTES", 20_000)
    ranks = Ranks('workload = "m:f"\n[parameters]\nx = [1, 2]\n')
    ranks.join(0)
    count = 2000
    curve = Curve(array("q", range(count)), array("d", [0.0] * count), array("d", [0.0] * count))
    before = len(ranks.disk.bodies)
    ranks.master.on_messages(0, [Reported(encode(ReportBlock(0, 0, 1, {"loss": curve})))], 0.0)
    assert len(ranks.disk.bodies) == before
    assert "more than a record holds" in caplog.text


def test_a_text_fits_into_a_record_and_many_texts_are_split_over_several():
    def spec_with(length: int) -> Spec:
        choices = ", ".join(f'"{letter * length}"' for letter in "abcdefgh")
        text = f'workload = "m:f"\n[parameters]\nx = [{choices}]\ny = {{ from = 1, to = 50 }}\n'
        return parse_spec(text, source="s.toml", folder=Path())

    with pytest.raises(
        SpecError,
        match=r"^s\.toml: parameters\.x: found a string of 65,537 characters among the choices; expected at most 65,536$",
    ):
        spec_with((1 << 16) + 1)
    spec = spec_with(1 << 16)
    trials = number_trials(spec, make_sampler(spec), None)
    disk = SlowDisk()
    record_trials(cast(Journal, disk), trials)
    introduced = [block for block in map(decode, disk.bodies) if isinstance(block, TrialsBlock)]
    assert [number for block in introduced for number in block.numbers] == list(range(400))
    assert max(map(len, disk.bodies)) < 1 << 23


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
        case "points":
            for step in range(300_000):
                trial.report(step, loss=step)
            return 4.0
        case "odd":
            return {"loss": 3.0} | {f"o{number}": "z" * 100 for number in range(300)}
    return 5.0
"""


@pytest.mark.mpi
def test_a_message_of_twenty_megabytes_fills_neither_the_file_nor_the_log(folder, mpisweep: Run):
    (folder / "mine.py").write_text(EXCESSIVE)
    how = ["message", "notes", "names", "odd", "points", "fine"]
    done = mpisweep("run", "mine:run", "-p", f"how={','.join(how)}", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    told = dict(zip(how, sweep.trials["message"].tolist(), strict=True))
    assert sweep.trials["state"].tolist() == ["failed", "failed", *["complete"] * 4]
    assert told["message"].startswith("mine.Long: begins xxx")
    assert told["message"].endswith(" in run")
    assert "characters are left out here]" in told["message"]
    assert max(map(len, told.values())) < MESSAGE_CHARS + 100
    assert told["notes"].startswith("ValueError: short\nnote 0 ")
    assert told["names"].startswith("metric name of 2,000,000 characters: stored as 'nnn")
    assert sweep.trials["loss"].tolist()[2:] == [1.0, 3.0, 4.0, 5.0]
    assert len(sweep.curve(4, "loss").value) == 300_000
    assert max(map(len, sweep.metrics)) <= NAME_CHARS
    logs = sum(log.stat().st_size for log in (folder / "r.h5.logs").glob("rank-*.log"))
    assert logs < 1_000_000
    assert len(done.stderr) < 100_000
    assert mpisweep("repair", "r.h5").returncode == 0


class Alone(Line):
    """The loop of a trial process within this process, and the line on which it sends."""

    def __init__(self, folder: Path) -> None:
        self.sent: list[EndedBlock] = []
        spec = parse_spec('workload = "m:run"\n[parameters]\nx = [1]\n', source="s.toml", folder=folder)
        self.loop = _Loop(
            self,
            Page(page_file()),
            SignalPage(page_file()),
            spec,
            worker=0,
            slot=0,
            device=TrialDevice("cpu", (), worker=0, checks=False, spec=spec),
            cores=1,
            trials_folder=folder,
            log_file=folder / "log",
            watch_reports=False,
            data=None,
        )

    def send(self, kind: int, body: bytes = b"", first: int = 0, second: int = 0) -> None:
        block = decode(body)
        if isinstance(block, EndedBlock):
            self.sent.append(block)

    def run(self, work: Callable[[Trial], object], count: int = 1) -> list[EndedBlock]:
        numbers = list(range(count))
        self.loop._run_block(AssignedBlock([[0, 0]], 0.0, numbers, [1] * count, {"x": 1}), work)
        return self.sent


def test_a_trial_keeps_a_thousand_metrics_whether_they_are_reported_or_returned(tmp_path: Path):
    def work(trial: Trial) -> dict[str, float]:
        for step in range(3):
            trial.report(step, **{f"m{number}": float(step) for number in range(600)})
        return {f"r{number}": 1.0 for number in range(600)} | {"loss": 2.0}

    [block] = Alone(tmp_path).run(work)
    assert block.states == [int(TrialState.COMPLETE)]
    assert len(block.metrics) == METRICS + 1
    assert block.metrics["loss"] == [2.0]
    assert block.metrics["m599"] == [2.0]
    assert block.messages == ["more than 1,000 metrics: 'r400' and later ones are not stored"]


def test_gathered_results_are_sent_before_they_hold_too_many_numbers(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mpisweep.workloads.serve._GATHER_S", 1e9)
    blocks = Alone(tmp_path).run(
        lambda trial: {"loss": 1.0} | {f"m{trial.number}_{n}": 1.0 for n in range(100)}, 60
    )
    assert len(blocks) > 1
    assert sum(len(block.numbers) for block in blocks) == 60
    assert max(len(block.numbers) * len(block.metrics) for block in blocks) < 200_000


def test_reports_sent_before_the_process_was_killed_are_not_read_again():
    unsent = Unsent(memoryview(bytearray(UNSENT_BYTES)))
    unsent.add("loss", 0, 0.0, 0.5)
    assert unsent.curves(0)["loss"].value.tolist() == [0.5]
    assert unsent.curves(1) == {}, "the block that was sent last had it"
    unsent.release()
