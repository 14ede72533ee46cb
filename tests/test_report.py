"""What the report says: the first sentence, failures by group, device-hours, and a page while a sweep runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from figure_sweeps import made_sweep
from test_figures import resnet_sweep
from test_objectives import repeated_sweep, sweep_of
from test_results import history, opening, write_journal
from test_usage import HOUR, LOST, assigned, ended, written
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    EndedBlock,
    JoinedRecord,
    LeftRecord,
    QuarantineRecord,
    TrialsBlock,
    UnfinishedBlock,
)
from mpisweep.records import FailureCause
from mpisweep.results import journal_folder
from mpisweep.results.claim import Claim
from mpisweep.views.device_hours import device_hours
from mpisweep.views.figures import draw
from mpisweep.views.figures.inline import inline
from mpisweep.views.report import follow, page
from mpisweep.views.report.failures import failure_groups
from mpisweep.views.report.headline import headline
from mpisweep.views.status import sweep_status
from mpisweep.workloads.outputs import append_output, first_lines, output_file


def said(sweep) -> str:
    return headline(sweep, sweep_status(sweep))


def failing(path: Path, texts: list[str], causes: list[FailureCause]) -> package.results.load.Sweep:
    """A sweep of four trials of which the first ones fail with these messages."""
    numbers = list(range(len(texts)))
    write_journal(
        path,
        [
            TrialsBlock([0, 1, 2, 3], {"x": [1, 2, 3, 4], "mode": "fast"}, baseline=None),
            JoinedRecord(0, "node0", "cpu 0", 1, 1, 1000.0),
            AssignedBlock([[0, 0]], 1000.0, numbers, [1] * len(numbers), {"x": numbers, "mode": "fast"}),
            EndedBlock(
                0, 0, numbers, [1] * len(numbers), [4] * len(numbers), [1000.0] * len(numbers),
                [1.0] * len(numbers), {}, list(map(int, causes)), texts,
            ),
            ClosedRecord(2000.0, "walltime"),
        ],
        opening(),
    )  # fmt: skip
    return package.load(path)


# ------------------------------------------------------------------------------------- the first sentence


def test_with_repeats_the_sentence_names_the_best_mean_its_interval_and_what_is_like_it(tmp_path):
    sweep = package.load(repeated_of_one_objective(tmp_path / "s.h5"))
    assert re.match(
        r"Best mean loss 1\.1 ± [\d.]+ \(2 runs\), x=1; 1 of the other 3 cannot be told apart from it "
        r"\(95%\): x=2",
        said(sweep),
    ), said(sweep)


def repeated_of_one_objective(path: Path) -> Path:
    """Four configurations with two runs each, of which two are alike."""
    values = [1.0, 1.2, 1.25, 1.0, 9.0, 9.1, 20.0, 20.1]
    spec = 'workload = "m:f"\nrepeats = 2\n[parameters]\nx = { from = 1, to = 4 }\n'
    write_journal(
        path,
        [
            TrialsBlock(
                list(range(8)), {"x": [1, 1, 2, 2, 3, 3, 4, 4]},
                configurations=[0, 0, 1, 1, 2, 2, 3, 3], repeats=[0, 1] * 4,
            ),
            JoinedRecord(0, "node0", "cpu 0", 1, 1, 1000.0),
            AssignedBlock([[0, 0]], 1000.0, list(range(8)), [1] * 8, {"x": [1, 1, 2, 2, 3, 3, 4, 4]}),
            EndedBlock(0, 0, list(range(8)), [1] * 8, [2] * 8, [1000.0] * 8, [1.0] * 8, {"loss": values}),
            ClosedRecord(2000.0, "complete"),
        ],
        opening(spec=spec),
    )  # fmt: skip
    return path


def test_with_one_run_each_the_sentence_gives_the_best_trial_and_the_region_of_the_trend(tmp_path):
    sentence = said(package.load(resnet_sweep(tmp_path / "s.h5")))
    assert sentence.startswith(
        "Best loss 8.402 in trial 12, batch_size=208, of 35 trials with a value; one run"
    )
    assert re.search(r"by the trend over batch_size, .* the best is at 208 \(95%\)\.$", sentence)


def test_a_sweep_that_has_not_ended_says_so_first(tmp_path):
    sweep = failing(tmp_path / "s.h5", ["bad"], [FailureCause.EXCEPTION])
    assert said(sweep) == (
        "So far, with 1 of 4 trials ended: no trial has completed: 1 trial failed (1 exception)."
    )


def test_of_several_objectives_the_sentence_gives_the_size_of_the_front_and_its_ends(tmp_path):
    sweep = package.load(sweep_of(tmp_path / "s.h5", [[1.0, 3.0], [2.0, 5.0], [3.0, 4.0]]))
    assert said(sweep) == (
        "2 of 3 complete trials are on the Pareto front of loss and speed, from one run each, so that some "
        "may be there by luck: loss from 1 to 2, speed from 3 to 5."
    )
    repeated = said(package.load(repeated_sweep(tmp_path / "r.h5")))
    assert re.match(r"\d of \d complete configurations (is|are) on the Pareto front", repeated), repeated
    assert "by means over up to 2 runs" in repeated


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "No trial has ended yet: 0 of 40."),
        (float("nan"), "Nothing to compare: 35 completed trials have no finite loss."),
    ],
)
def test_when_nothing_was_found_the_sentence_says_why(tmp_path, values, expected):
    made = resnet_sweep(tmp_path / "s.h5", **({"last": 0} if values == [] else {"losses": values}))
    assert said(package.load(made)) == expected


# ------------------------------------------------------------------------------------- failures


def test_failures_that_differ_only_in_their_numbers_are_one_group(tmp_path):
    sweep = failing(
        tmp_path / "s.h5",
        [
            "ValueError: width 122 at rate 2.5e-3\n  at m.py:3", "ValueError: width 7 at rate 0.1\n  at m.py:3",
            "sh exited with code 1: gone", "sh exited with code 2: gone",
        ],
        [FailureCause.EXCEPTION, FailureCause.EXCEPTION, FailureCause.CRASH, FailureCause.CRASH],
    )  # fmt: skip
    assert [(one.count, one.cause, one.message, one.example) for one in failure_groups(sweep)] == [
        (2, "exception", "ValueError: width … at rate …", 0),
        (1, "crash", "sh exited with code 1: gone", 2),
        (1, "crash", "sh exited with code 2: gone", 3),
    ]
    made = page(sweep, log_lines=lambda numbers: {number: f"<log of {number}>" for number in numbers})
    assert "<td>trial 0</td>" in made
    assert "&lt;log of 2&gt;" in made


def test_the_first_line_of_the_outputs_is_read_in_one_pass(tmp_path):
    for rank, number, text in ((0, 3, b"\n  starting\nmore"), (1, 4, b"x\n"), (1, 3, b"second attempt\n")):
        append_output(output_file(tmp_path, rank, 0), number, 1, "exited with code 1", text)
    assert first_lines(tmp_path, [3, 4, 9]) == {3: "starting", 4: "x"}
    assert first_lines(tmp_path / "none", [3]) == {}


# ------------------------------------------------------------------------------------- device-hours


def test_every_hour_of_every_device_has_one_reason(tmp_path):
    def at(hours: float) -> float:
        return 1000.0 + hours * HOUR

    found = device_hours(written(
        tmp_path / "s.h5", 0.0,
        # Rank 0: an hour of start-up, trial 0 for two hours, half an hour of nothing, trial 1 for an hour.
        assigned(0, at(1), 0), ended(0, 0, at(1), 2.0),
        assigned(0, at(3.5), 1), ended(0, 1, at(3.5), 1.0),
        # Rank 1: no start-up, lost with trial 2 after three hours.
        assigned(1, at(0), 2), UnfinishedBlock(1, [2], [1], LOST, at(3)), LeftRecord(1, at(3), "lost"),
        # Trial 2 again on rank 0, for an hour; the run ends half an hour later.
        assigned(0, at(4.5), 2, attempt=2), ended(0, 2, at(4.5), 1.0, attempt=2),
        ClosedRecord(at(6), "complete"),
    ))  # fmt: skip
    assert found is not None
    assert found.unit == "core"
    # Eight cores per worker.
    assert {name: hours / 8 for name, hours in found.hours.items() if hours > 1e-9} == {
        "complete": pytest.approx(4.0),
        "lost or interrupted": pytest.approx(3.0),
        "start-up": pytest.approx(1.0),
        "between trials": pytest.approx(0.5),
        "no trial left": pytest.approx(0.5),
        "worker lost": pytest.approx(3.0),
    }
    assert found.total == pytest.approx(8 * 12.0)


def test_a_quarantined_device_is_not_a_tail_and_half_a_gpu_counts_half(tmp_path):
    found = device_hours(written(
        tmp_path / "s.h5", 0.5,
        assigned(0, 1000.0, 0), ended(0, 0, 1000.0, 1.0), QuarantineRecord(0, 1000.0 + HOUR, "three failures"),
        assigned(1, 1000.0, 1), ended(1, 1, 1000.0, 4.0), ClosedRecord(1000.0 + 4 * HOUR, "complete"),
    ))  # fmt: skip
    assert found is not None
    assert found.unit == "GPU"
    assert found.hours["quarantined"] == pytest.approx(1.5)
    assert found.hours["no trial left"] == pytest.approx(0.0, abs=1e-6)
    assert found.hours["complete"] == pytest.approx(2.5)


def test_a_running_trial_is_neither_idle_nor_a_tail(tmp_path):
    found = device_hours(written(
        tmp_path / "s.h5", 0.0,
        assigned(0, 1000.0, 0), assigned(1, 1000.0, 1), ended(1, 1, 1000.0, 2.0),
    ))  # fmt: skip
    assert found is not None
    assert found.hours["running"] == pytest.approx(8 * 2.0)
    assert found.total == pytest.approx(8 * 4.0)


# ------------------------------------------------------------------------------------- figures in it


def test_the_command_that_resumes_does_not_start_over(tmp_path):
    command = ["/lib/mpisweep/__main__.py", "run", "--fresh", "-n", "2", "--", "my prog", "--fresh", "{x}"]
    write_journal(tmp_path / "s.h5", history()[:1], replace(opening(), command=command))
    shown = page(package.load(tmp_path / "s.h5"))
    assert "<pre>mpisweep run -n 2 -- &#x27;my prog&#x27; --fresh &#x27;{x}&#x27;</pre>" in shown


def test_a_figure_is_svg_with_text_or_png_if_that_is_smaller(tmp_path):
    few = inline(draw("metric", package.load(made_sweep(tmp_path / "few.h5", "rates", 40))), "loss & rate")
    assert few.startswith('<svg role="img" aria-label="loss &amp; rate"')
    assert "<text" in few
    many = inline(draw("metric", package.load(made_sweep(tmp_path / "many.h5", "two", 3000))), "loss & rate")
    assert re.match(r'<img width="\d+" height="\d+" alt="loss &amp; rate" src="data:image/png;base64,', many)
    assert len(many) < 250_000


@pytest.mark.parametrize(("space", "count"), [("two", 40), ("sizes", 300)])
def test_the_page_of_single_runs_does_not_wait_for_distributions(tmp_path, space, count):
    path = made_sweep(tmp_path / "s.h5", space, count)
    program = (
        "import sys, mpisweep\nfrom mpisweep.views.report import page\n"
        f"page(mpisweep.load({str(path)!r}))\nprint('scipy.special' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------- while it runs


def test_an_interrupt_while_a_page_is_drawn_leaves_one_that_does_not_reload(tmp_path):
    path = tmp_path / "s.h5"
    write_journal(path, history()[:4])
    pages: list[bool] = []

    def write(sweep: object, reloads: bool) -> None:
        pages.append(reloads)
        if len(pages) == 1:
            raise KeyboardInterrupt

    claim = Claim.take(journal_folder(path), "")
    with pytest.raises(KeyboardInterrupt):
        follow(path, write, every_s=1)
    claim.release()
    assert pages == [True, False]


def test_the_page_is_written_again_until_the_sweep_has_ended(folder, environment, mpisweep):
    (folder / "s.toml").write_text(
        'workload = "workloads:gated"\n[parameters]\nx = { from = 1, to = 6 }\n', encoding="utf-8"
    )
    command = [sys.executable, "-m", "mpisweep"]
    report = [*command, "report", "s.h5", "--every", "0.1", "-o"]
    pages = [folder / "followed.html", folder / "left.html"]
    # A process that was started in the background ignores interrupts, and so do its children.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    start = partial(
        subprocess.Popen, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    )
    started = [start([*command, "run", "s.toml", "-o", "s.h5", "-n", "1", "--quiet"])]
    try:
        wait_for(lambda: (folder / "begun.0").exists())
        started += [start([*report, page.name]) for page in pages]
        run, followed, left = started
        wait_for(lambda: all(page.exists() for page in pages))
        shown = pages[1].read_text(encoding="utf-8")
        assert '<meta http-equiv="refresh" content="1">' in shown
        assert "No trial has ended yet: 0 of 6, 1 trial running." in shown
        assert re.search(r"Written at [\d-]+ [\d:]+; this page is written again every 0\.1 s\.", shown)
        left.send_signal(signal.SIGINT)
        assert (left.communicate(timeout=PATIENCE_S)[0], left.returncode) == ("left.html\n", 0)
        # A page that is no longer written does not reload itself.
        assert 'http-equiv="refresh"' not in pages[1].read_text(encoding="utf-8")
        (folder / "go").touch()
        assert run.wait(PATIENCE_S) == 0
        assert (followed.communicate(timeout=PATIENCE_S)[0], followed.returncode) == ("followed.html\n", 0)
    finally:
        for process in started:
            process.terminate()
            process.communicate()
    last = pages[0].read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in last
    assert "Written at" not in last
    assert "Best loss 1 in trial 0" in last
    assert not list(folder.glob(".*.html.*"))
    assert mpisweep("report", "s.h5", "-o", "again.html").returncode == 0
    assert (folder / "again.html").read_text(encoding="utf-8") == last
    assert re.search(r"<pre>mpisweep run .*s\.toml -o s\.h5 -n 1 --quiet</pre>", last)
