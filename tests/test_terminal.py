"""`mpisweep watch` in a real pseudo-terminal: beside a run, and however it is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from started import remember
from test_screen import COMPLETE, ended_sweep, ends
from waiting import wait_for

import mpisweep as package

pytest.importorskip("pyte", reason="the emulator of a terminal is not installed")
from terminals import Terminal, in_terminal

WORKLOAD = '''
import time
from pathlib import Path


def steps(trial):
    """Trial 1 fails until it is repaired; the others run until each is let go."""
    Path(f"begun.{trial.number}").touch()
    if trial.params["x"] == 2:
        if not Path("repaired").exists():
            raise ValueError("x is two")
        return {"loss": 0.25}
    while not Path(f"go.{trial.number}").exists():
        trial.report(1, loss=3.5)
        if trial.should_stop():
            return None
        time.sleep(0.01)
    return {"loss": float(trial.params["x"])}
'''
#: The sequence that leaves the second screen of an xterm, and those that set a colour.
LEAVES, COLOUR = b"\x1b[?1049l", re.compile(rb"\x1b\[(\d+;)*[34][0-8](;\d+)*m")


def watching(file: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "mpisweep", "watch", file, *options]


@pytest.mark.mpi
def test_a_run_is_watched_and_asked_from_the_keys(folder, environment):
    """On a terminal as old and small as they come, without colours."""
    (folder / "work.py").write_text(WORKLOAD)
    command = [sys.executable, "-m", "mpisweep", "run", "work:steps", "-p", "x=1:6", "-n", "2", "-o", "r.h5"]
    command += ["-q", "--walltime", "1:00:00"]
    run = remember(subprocess.Popen(command, cwd=folder, env=environment, text=True))
    (folder / "go.0").touch()
    old = environment | {"TERM": "vt100", "NO_COLOR": "1"}
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 4)
    held = [number for number in range(2, 6) if (folder / f"begun.{number}").exists()]
    waiting = min({2, 3, 4, 5} - set(held))
    with in_terminal(watching("r.h5", "--every", "0.1"), folder, old) as terminal:
        terminal.wait_for("2 of 6", "2 running", "1 failed", "walltime [", "of 60 min", "failed 1 exception")
        terminal.press("/", *"failed", "enter")
        terminal.wait_for("1 with failed", ">     1  failed")
        terminal.press("R")
        terminal.wait_for("retry trial 1? y/n")
        (folder / "repaired").touch()
        terminal.press("y")
        terminal.wait_for("asked to retry trial 1")
        terminal.press("/", "backspace", "backspace", "backspace", "backspace", "backspace", "backspace")
        terminal.press(*f"trial == {waiting}", "enter")
        terminal.wait_for(f">     {waiting}  waiting")
        terminal.press("K", "y")
        terminal.wait_for(f">     {waiting}  skipped")
        terminal.press("esc", "2")
        terminal.wait_for("rank, device", "3.5 at 1", *(f"x={number + 1}" for number in held))
        (folder / f"go.{held[0]}").touch()
        terminal.wait_for("best loss 0.25 (trial 1: x=2)")
        terminal.resize(120, 40)
        terminal.press("1")
        terminal.wait_for("rank, device", "loss   . one trial", "complete")
        terminal.resize(50, 10)
        terminal.wait_for("16 are needed.")
        terminal.resize(80, 24)
        terminal.press("S")
        terminal.wait_for("stop the sweep? It can be resumed y/n")
        terminal.press("y")
        terminal.wait_for("stopped")
        assert run.wait() == 3
        terminal.wait_for("0 running")
        terminal.press("q")
        assert terminal.end() == 3
        assert terminal.colours == {"default"}
        assert not COLOUR.search(terminal.written)
    sweep = package.load(folder / "r.h5")
    states = sweep.trials["state"].tolist()
    assert (states[1], states[waiting], states[held[1]]) == ("complete", "skipped", "waiting")
    assert sweep.trials["attempt"][1] == 2


def finished(folder: Path) -> str:
    spec = "[parameters]\nx = { from = 1, to = 3 }\n"
    block = ends([COMPLETE] * 3, loss=[3.0, 1.0, 2.0])
    return ended_sweep(folder / "s.h5", spec, {"x": [1, 2, 3]}, [block]).name


def opened(terminal: Terminal) -> object:
    """Wait for the screen; the settings of the terminal as they are while it is shown."""
    terminal.wait_for("3 of 3", "best loss 1")
    return terminal.settings()


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM", "q"])
def test_the_terminal_is_restored_however_the_screen_is_left(folder, environment, how):
    colourful = environment | {"TERM": "xterm-256color"}
    colourful.pop("NO_COLOR", None)
    with in_terminal(watching(finished(folder)), folder, colourful, 120, 40) as terminal:
        before = terminal.settings()
        assert opened(terminal) != before
        assert COLOUR.search(terminal.written)
        if how == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.press(how)
        assert terminal.end() == {"ctrl-c": 0, "SIGTERM": -signal.SIGTERM, "q": 3}[how]
        assert terminal.settings() == before
        assert LEAVES in terminal.written
        if how == "q":
            assert "3 of 3 trials have ended" in terminal.text


def test_the_terminal_is_restored_after_a_crash(folder, environment):
    program = (
        "from mpisweep.views.screen.terminal import show_screen\n"
        "class Broken:\n"
        "    latest = property(lambda self: 1 / 0)\n"
        "    end = lambda self: None\n"
        "show_screen(Broken(), None)\n"
    )
    with in_terminal([sys.executable, "-c", program], folder, environment | {"TERM": "xterm"}) as terminal:
        before = terminal.settings()
        assert terminal.end() == 1
        assert terminal.settings() == before
        assert "ZeroDivisionError" in terminal.text


@pytest.mark.parametrize(
    ("term", "options"), [("dumb", ()), ("no-such-terminal", ()), ("xterm", ("--lines",))]
)
def test_a_terminal_that_cannot_show_a_screen_gets_lines(folder, environment, term, options):
    with in_terminal(watching(finished(folder), *options), folder, environment | {"TERM": term}) as terminal:
        assert terminal.end() == 3
        assert "3/3 trials, 0 running" in terminal.text
        assert b"\x1b[" not in terminal.written
