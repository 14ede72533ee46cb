"""mpisweep in a real Jupyter kernel: progress, interrupts, functions, tables; and the tutorial."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from notebooks import Kernel, kernel_in, text_of
from waiting import wait_for

import mpisweep

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

from write_tutorial import PAGE, executed

pytestmark = [
    pytest.mark.mpi,
    # Of jupyter_client and its dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

RUN = 'sweep = mpisweep.run("workloads:{}", parameters={{"x": range(1, {})}}, output="x.h5", workers={})'


@pytest.fixture
def kernel(folder: Path, environment: dict[str, str]) -> Iterator[Kernel]:
    with kernel_in(folder, environment) as made:
        made.run("import mpisweep")
        yield made


def test_a_cell_runs_a_sweep_and_updates_one_display(kernel: Kernel, folder: Path):
    outputs = kernel.run(RUN.format("slowly", 41, 2) + "\nsweep")
    [display] = [one for one in outputs if one["kind"] == "display_data"]
    assert display["data"]["text/plain"].startswith("40/40 trials, 0 running")
    assert '<progress value="40" max="40"' in display["data"]["text/html"]
    assert kernel.updates >= 1
    [result] = [one for one in outputs if one["kind"] == "execute_result"]
    assert "complete; 40 of 40 trials have ended" in result["data"]["text/plain"]
    assert result["data"]["text/html"].count("<tr>") == 6
    printed = [one for one in outputs if one["kind"] == "stream"]
    assert "40 of 40 trials have ended" in text_of(printed)
    # Routine lines are not marked as errors.
    assert {one["name"] for one in printed} == {"stdout"}
    # Every trial is the one that a shell would have run.
    assert mpisweep.load(folder / "x.h5").environment["user_folder"] == str(folder.resolve())


def test_an_interrupt_stops_cleanly_and_the_same_cell_resumes(kernel: Kernel, folder: Path):
    cell = kernel.begin(RUN.format("gated", 5, 2))
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    kernel.manager.interrupt_kernel()
    outputs = kernel.end(cell)
    [error] = [one for one in outputs if one["kind"] == "error"]
    assert (error["ename"], error["evalue"]) == (
        "KeyboardInterrupt", "x.h5: the run was interrupted; the same call resumes it",
    )  # fmt: skip
    # The run has ended before the cell.
    assert str(mpisweep.load(folder / "x.h5").ended) == "stopped by a signal"
    (folder / "go").touch()
    outputs = kernel.run(RUN.format("gated", 5, 2) + "\nprint(sweep.ended, len(sweep.allocations))")
    assert text_of(outputs).rstrip().endswith("complete 2")
    # The kernel's own handling of interrupts is back.
    assert "KeyboardInterrupt" in str(kernel.run("import signal; signal.raise_signal(signal.SIGINT)"))


def test_a_second_interrupt_ends_the_sweep_at_once(kernel: Kernel, folder: Path):
    with (folder / "workloads.py").open("a") as more:
        more.write(
            "\n\ndef deaf(trial):\n"
            "    while True:\n"
            "        Path('asked' if trial.should_stop() else f'begun.{trial.number}').touch()\n"
            "        time.sleep(0.01)\n"
        )
    cell = kernel.begin(
        'mpisweep.run("workloads:deaf", parameters={"x": [1, 2]}, limits={"grace": "1h"}, output="x.h5", workers=2)'
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    kernel.manager.interrupt_kernel()
    wait_for((folder / "asked").exists)
    kernel.manager.interrupt_kernel()
    [error] = [one for one in kernel.end(cell) if one["kind"] == "error"]
    assert error["ename"] == "KeyboardInterrupt"


def test_a_function_of_the_notebook_is_refused_and_a_written_one_runs(kernel: Kernel, folder: Path):
    cell = "import math\ndef train(trial):\n    return math.sqrt(trial.params['x'])\n"
    call = 'mpisweep.run(train, parameters={"x": [1, 4, 9]}, output="f.h5", workers=1)'
    [error] = [one for one in kernel.run(cell + call) if one["kind"] == "error"]
    assert error["ename"] == "InputError"
    assert re.fullmatch(
        r"workload: train is defined in the notebook, where .* `%%writefile mytrial.py` on the first line of its "
        r"cell, .* `from mytrial import train`",
        error["evalue"],
    )
    # The advice, followed word by word.
    kernel.run("%%writefile mytrial.py\n" + cell)
    outputs = kernel.run("from mytrial import train\n" + call.replace("mpisweep.run", "sweep = mpisweep.run"))
    assert not [one for one in outputs if one["kind"] == "error"], text_of(outputs)
    assert text_of(kernel.run("print(sweep.best(3)['loss'].tolist())")).strip() == "[1.0, 2.0, 3.0]"


def test_wrong_input_is_one_sentence_without_a_run(kernel: Kernel, folder: Path):
    [error] = [one for one in kernel.run(RUN.format("halff", 3, 1)) if one["kind"] == "error"]
    assert error["ename"] == "InputError"
    assert error["evalue"].endswith(
        "has no function 'halff', which the sweep names as its workload; did you mean 'half'?"
    )
    assert not (folder / "x.h5").exists()


def test_a_kernel_that_dies_stops_its_sweep(kernel: Kernel, folder: Path):
    kernel.begin(RUN.format("gated", 5, 2))
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    kernel.manager.signal_kernel(9)
    wait_for(lambda: (folder / "x.h5").exists() and mpisweep.load(folder / "x.h5").ended)
    assert str(mpisweep.load(folder / "x.h5").ended) == "stopped by a signal"


def test_the_tutorial_runs_and_shows_what_it_shows_in_the_documentation(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """The same outputs, but for numbers that depend on the machine."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown, now = nbformat.read(PAGE, as_version=4), executed(tmp_path)
    assert [_outline(cell) for cell in now.cells] == [_outline(cell) for cell in shown.cells]
    assert sum(bool(cell.get("outputs")) for cell in shown.cells) >= 5
    sweep = mpisweep.load(tmp_path / "digits.h5")
    assert (str(sweep.ended), len(sweep.trials), len(sweep.allocations)) == ("complete", 16, 2)


def _outline(cell: nbformat.NotebookNode) -> list[str]:
    """Source and outputs of a cell; digits, the space that they take and progress do not count."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
        for output in cell.get("outputs", [])
    ]
    ends = [text for text in texts if not re.match(r"\d+/\d+ trials, ", text)]
    return [cell.source, *(re.sub(r"[\d.\s]+(e-\d+|/min|/s)?", " ", text) for text in ends)]
