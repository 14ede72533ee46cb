"""Users' requests to real sweeps: running, finished, and with masters that are killed in the middle."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from started import end
from test_reliability import python_path, stderr_of
from test_run import start
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.results import ResultsError, requests_folder

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

MINE = '''
import time
from pathlib import Path

BUG = True


def run(trial):
    """Run until the file `go` exists, or `go.<number>`; x = 1 meets the bug, and x = 9 another one."""
    Path(f"begun.{trial.number}").touch()
    while not Path("go").exists() and not Path(f"go.{trial.number}").exists():
        if trial.should_stop():
            return None
        time.sleep(0.002)
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number}\\n")
    if trial.params["x"] == 1 and BUG:
        raise ValueError("the bug")
    if trial.params["x"] == 9 and Path("other-bug").exists():
        raise ValueError("the other bug")
    return {"loss": float(trial.params["x"])}
'''


def sweep_file(folder: Path, last: int) -> str:
    (folder / "mine.py").write_text(MINE)
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:run"\n[parameters]\nx = {{ from = 0, to = {last} }}\n'
    )
    return "s.toml"


def loaded(folder: Path) -> package.Sweep | None:
    try:
        return package.load(folder / "r.h5")
    except ResultsError:
        return None


def states(folder: Path) -> list[str]:
    sweep = loaded(folder)
    return [] if sweep is None else [str(state) for state in sweep.trials["state"]]


def ran(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "ran.txt").read_text().split()]


def begun(folder: Path) -> set[int]:
    return {int(path.suffix[1:]) for path in folder.glob("begun.*")}


def count_applied(folder: Path) -> int:
    sweep = loaded(folder)
    return 0 if sweep is None else len(sweep.requests)


def test_a_running_sweep_takes_every_request_and_a_finished_one_goes_on(
    folder: Path, environment: dict[str, str], mpisweep: Run
):
    for name in ("go.0", "go.1", "other-bug"):
        (folder / name).touch()
    process = start(folder, environment, "run", sweep_file(folder, 9), "-n", "2", "-o", "r.h5")
    wait_for(lambda: states(folder)[1:2] == ["failed"] and len(begun(folder)) == 4)
    running = begun(folder) - {0, 1}
    # The first of these waits in a slot behind a running trial.
    skipped = [number for number in range(2, 8) if number not in running][:2]
    (folder / "mine.py").write_text(MINE.replace("BUG = True", "BUG = False"))
    said = [
        mpisweep(*command)
        for command in (
            ("skip", "r.h5", *map(str, skipped)), ("first", "r.h5", "9", "8"),
            ("add", "r.h5", "-p", "x=20:21"), ("retry", "r.h5", "--failed"),
        )
    ]  # fmt: skip
    assert [done.returncode for done in said] == [0] * 4, said
    assert "the running sweep does this within seconds" in said[0].stdout
    wait_for(lambda: count_applied(folder) == 4)
    wait_for(lambda: not requests_folder(folder / "r.h5").exists())
    (folder / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert sorted(ran(folder)) == sorted([1, *({*range(12)} - {*skipped})]), "the failed trial ran once more"
    sweep = package.load(folder / "r.h5")
    since = sweep.requests["applied_at"][sweep.requests["what"] == "first"][0]
    assert sweep.attempts["trial"][sweep.attempts["assigned_at"] >= since].tolist()[:2] == [9, 8]
    # Trial 1 ran again in a process that has imported the mended code.
    expected = ["skipped" if number in skipped else "complete" for number in range(12)]
    assert sweep.trials["state"].tolist() == [*expected[:9], "failed", *expected[10:]]
    assert sweep.trials["attempt"][1] >= 2
    assert sweep.trials["x"].tolist() == [*range(10), 20, 21]
    status = mpisweep("status", "r.h5").stdout
    assert "9 complete, 1 failed, 2 skipped" in status
    named = ", ".join(map(str, skipped))
    for line in (f"skip trials {named}", "first trials 9, 8", "add trials 10, 11", "retry trial 1"):
        assert f"  request: {line} by " in status
    assert "retried after exception: ValueError: the bug" in mpisweep("trial", "r.h5", "1").stdout

    (folder / "other-bug").unlink()
    again = str(skipped[0])
    said = [mpisweep("retry", "r.h5", which) for which in ("--failed", again, again)]
    assert [done.returncode for done in said] == [0] * 3, said
    assert "no run is active" in said[0].stdout
    assert mpisweep("status", "r.h5").stdout.count("not applied yet") == 3
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    expected[skipped[0]] = "complete"
    assert states(folder) == expected
    assert sorted(ran(folder)[11:]) == [skipped[0], 9]
    assert package.load(folder / "r.h5").trials["attempt"][9] >= 2
    assert not requests_folder(folder / "r.h5").exists()


#: Rank 0 gets a signal before, or after, its first record of a request is on the disk.
STRUCK = """
import os

if os.environ.get("OMPI_COMM_WORLD_RANK") == "0" and not os.path.exists("struck"):
    import signal
    from mpisweep.master.requesting import RequestDesk

    apply, release = RequestDesk.apply, RequestDesk.release

    def strike():
        open("struck", "x").close()
        os.kill(os.getpid(), signal.SIGNAL)

    def struck_apply(desk, decision):
        if MOMENT == "before the record":
            strike()
        apply(desk, decision)

    def struck_release(desk, synced):
        if MOMENT == "before the removal" and desk._recorded and desk._recorded[0][0] <= synced:
            strike()
        return release(desk, synced)

    RequestDesk.apply, RequestDesk.release = struck_apply, struck_release
"""


@pytest.mark.parametrize("moment", ["before the record", "before the removal"])
@pytest.mark.parametrize("dies", ["master", "everything"])
def test_a_request_is_applied_once_wherever_the_master_is_killed(
    folder: Path, environment: dict[str, str], mpisweep: Run, moment: str, dies: str
):
    """Another rank takes over, or, where everything was killed, the next run."""
    signal = "SIGKILL" if dies == "master" else "SIGSTOP"
    (folder / "sitecustomize.py").write_text(STRUCK.replace("MOMENT", repr(moment)).replace("SIGNAL", signal))
    environment["PYTHONPATH"] = python_path(folder, environment)
    process = start(folder, environment, "run", sweep_file(folder, 5), "-n", "2", "-o", "r.h5")
    wait_for(lambda: (folder / "begun.0").exists())
    assert mpisweep("add", "r.h5", "-p", "x=50:52").returncode == 0
    wait_for(lambda: (folder / "struck").exists())
    if dies == "everything":
        assert requests_folder(folder / "r.h5").exists()
        end(process)
        (folder / "go").touch()
        done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
        assert done.returncode == 0, done.stderr
    else:
        wait_for(lambda: count_applied(folder) == 1 and not requests_folder(folder / "r.h5").exists())
        (folder / "go").touch()
        assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
        assert "rank 1 is the master now" in stderr_of(folder)
    sweep = package.load(folder / "r.h5")
    assert [row["trials"] for row in sweep.requests] == ["[6, 7, 8]"]
    assert sweep.trials["x"].tolist() == [*range(6), 50, 51, 52]
    assert sweep.trials["state"].tolist() == [*["complete"] * 1, "failed", *["complete"] * 7]
    assert sorted(number for number in ran(folder) if number > 5) == [6, 7, 8]
    assert not requests_folder(folder / "r.h5").exists()
