"""The storm, a fault-injection test: kill and stop processes and break the disk until a sweep is complete.

Run it with a seed and a number of strikes; the test suite runs a small part of it::

    python tests/storm.py --strikes 200 --seed 1 --workers 4

It kills (SIGKILL) trial processes, worker ranks, masters, two ranks at once, fork servers and whole jobs.  It
stops (SIGSTOP) ranks, masters, the processes that write the results file, fork servers and launchers for up
to 2.5 times `silence`, then continues them.  disk.c makes the disk hang, fill up, fail or slow down.

It repeats a grid of short trials, each time into a new file, until the number of strikes is reached.  In
every second sweep half of the trials have two ranks; in every third sweep the ranks have different host names.
Each sweep is resumed until it is complete, then compared with an uninterrupted run: every trial once, with the
right value and curve.  A trial that was once read as ended must stay ended with the same value.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from disks import Disk
from started import kill_family
from waiting import PATIENCE_S

import mpisweep
from mpisweep.processes.kernel import HOSTS_VARIABLE

TRIALS = 240
WORKLOAD = """
import time

def storm(trial):
    for step in range(3):
        time.sleep(0.004)
        trial.report(step, loss=trial.params["x"] + step)
        trial.flush()
    return trial.params["x"] * trial.params["x"]
"""
SWEEP = """
name = "storm"
workload = "storm_workload:storm"
[parameters]
%s
[limits]
retries = 1000000
restarts = 1000
same_failures = 0
quarantine = false
silence = 2
"""
SILENCE_S = 2.0
#: Parameters of a sweep of one-rank trials, and of one in which half of the trials have two ranks.
NARROW = f"x = {{ from = 1, to = {TRIALS} }}"
WIDE = f"x = {{ from = 1, to = {TRIALS // 2} }}\nranks_per_trial = [1, 2]"
#: Target -> relative frequency of strikes.
KILLS = {
    "trial process": 8,
    "worker rank": 4,
    "master rank": 5,
    "two ranks at once": 2,
    "fork server": 1,
    "job": 2,
}
STOPS = {
    "stopped worker rank": 2, "stopped master rank": 3, "stopped writer": 2, "stopped fork server": 1,
    "stopped launcher": 1,
}  # fmt: skip
DISKS = {"hanging disk": 2, "full disk": 2, "failing disk": 1, "slow disk": 1}
KINDS = KILLS | STOPS | DISKS
#: Strike -> state of the disk, see disk.c.
STATES = {"hanging disk": "hang", "full disk": "fail 28", "failing disk": "fail 5", "slow disk": "slow 0.1"}


@dataclass
class Storm:
    """The state of a storm."""

    folder: Path
    random: random.Random
    workers: int
    kinds: dict[str, int]
    strikes: collections.Counter[str] = field(default_factory=collections.Counter)
    disk: Disk = field(init=False)
    sweeps: int = 0
    #: Due time and action: continue a process, mend the disk.
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def run(self, strikes: int, seconds: float) -> None:
        """Run sweeps until `strikes` are done or the time is up."""
        until = time.monotonic() + seconds
        (self.folder / "storm_workload.py").write_text(WORKLOAD)
        self.disk = Disk(self.folder / "disk", self.folder)
        while self.strikes.total() < strikes and time.monotonic() < until:
            self.sweeps += 1
            (self.folder / "storm.toml").write_text(SWEEP % (NARROW if self.sweeps % 2 else WIDE))
            self._one_sweep(self.folder / "disk" / f"storm-{self.sweeps}.h5", strikes)

    def _one_sweep(self, path: Path, strikes: int) -> None:
        before = self.strikes["trial process"]
        seen: dict[int, float] = {}
        hosts = "" if self.sweeps % 3 else ",".join(self.random.choices(["n1", "n2", "n3"], k=self.workers))
        while not self._run_until_killed(path, seen, strikes, hosts):
            self._bring_back(math.inf)
            remember(path, seen)
        check(path, seen, self.strikes["trial process"] - before)

    def _run_until_killed(self, path: Path, seen: dict[int, float], strikes: int, hosts: str) -> bool:
        """Launch once; True when the sweep has ended, False when the job was killed or ended early."""
        self.disk_was_bad = False
        environment = os.environ | self.disk.environment | ({HOSTS_VARIABLE: hosts} if hosts else {})
        with (self.folder / "stderr.txt").open("a") as stderr:
            launcher = psutil.Popen(
                [
                    sys.executable,
                    "-m",
                    "mpisweep",
                    "run",
                    "storm.toml",
                    "-o",
                    f"disk/{path.name}",
                    "-n",
                    str(self.workers),
                    "-q",
                ],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                env=environment,
            )
        try:
            while launcher.poll() is None:
                with contextlib.suppress(psutil.TimeoutExpired):
                    launcher.wait(self.random.uniform(0.02, 0.25))
                self._bring_back(time.monotonic())
                if self.strikes.total() >= strikes or not path.with_name(path.name + ".journal").exists():
                    continue
                # Strike mostly while ranks run, sometimes while they start.
                is_up = master_of(path) in [rank.pid for rank in ranks_of(launcher)]
                if (is_up or self.random.random() < 0.004) and self._strike(launcher, path) == "job":
                    return False
                if self.random.random() < 0.05:
                    remember(path, seen)
            self._bring_back(math.inf)
            # 3: restart limit reached before any trial ended.  2: the disk did not work at the start.
            expected = (0, 3, 2) if self.disk_was_bad else (0, 3)
            assert launcher.returncode in expected, (self.folder / "stderr.txt").read_text(errors="replace")[
                -5000:
            ]
            return bool(launcher.returncode == 0)
        finally:
            self._bring_back(math.inf)
            kill(launcher, everything=True)

    def _bring_back(self, now: float) -> None:
        """Run the actions that are due."""
        due = [act for at, act in self.later if at <= now]
        self.later = [(at, act) for at, act in self.later if at > now]
        for act in due:
            act()

    def _strike(self, launcher: psutil.Process, path: Path) -> str:
        kind = self.random.choices(list(self.kinds), list(self.kinds.values()))[0]
        if kind in DISKS:
            self._spoil_disk(kind)
        elif kind in STOPS:
            self._stop(kind, self._victims(kind.removeprefix("stopped "), launcher, path))
        else:
            self._kill(kind, launcher, path)
        return kind

    def _kill(self, kind: str, launcher: psutil.Process, path: Path) -> None:
        if kind == "job":
            self.strikes[kind] += 1
            kill(launcher, everything=True)
            return
        victims = self._victims(kind, launcher, path)
        chosen = self.random.sample(victims, min(len(victims), 2 if kind == "two ranks at once" else 1))
        for victim in chosen:
            kill(victim)
        self.strikes[kind] += bool(chosen)

    def _stop(self, kind: str, victims: list[psutil.Process]) -> None:
        """Stop one process for a time shorter or longer than `silence`; one at a time."""
        if not victims or self.later:
            return
        victim = self.random.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.suspend()
            self.strikes[kind] += 1
            self.later.append(
                (time.monotonic() + self.random.uniform(0.5, 2.5) * SILENCE_S, lambda: wake(victim))
            )

    def _spoil_disk(self, kind: str) -> None:
        if self.later:
            return
        self.disk.be(STATES[kind])
        self.disk_was_bad = True
        self.strikes[kind] += 1
        self.later.append(
            (time.monotonic() + self.random.uniform(0.2, 2.0) * SILENCE_S, lambda: self.disk.be("fine"))
        )

    def _victims(self, kind: str, launcher: psutil.Process, path: Path) -> list[psutil.Process]:
        ranks = ranks_of(launcher)
        master = master_of(path)
        return {
            "trial process": lambda: [trial for rank in ranks for trial in trials_of(rank)],
            "worker rank": lambda: [rank for rank in ranks if rank.pid != master],
            "master rank": lambda: [rank for rank in ranks if rank.pid == master],
            "two ranks at once": lambda: ranks,
            "fork server": lambda: [server for rank in ranks for server in children(rank)],
            "writer": lambda: [writer for rank in ranks for writer in writers_of(rank)],
            "launcher": lambda: [launcher],
        }[kind]()


def wake(process: psutil.Process) -> None:
    """Let a stopped process continue if it still exists."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def kill(process: psutil.Process, *, everything: bool = False) -> None:
    """Kill a process, with all of its descendants if `everything`."""
    if everything:
        psutil.wait_procs(kill_family(process), timeout=PATIENCE_S)
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def children(process: psutil.Process) -> list[psutil.Process]:
    """Children of a process; empty when it has ended."""
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The ranks: mpirun's direct children that run mpisweep."""
    found = []
    for mpirun in children(launcher):
        for child in children(mpirun):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if "mpisweep" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
    return found


def writers_of(rank: psutil.Process) -> list[psutil.Process]:
    """Processes that write the results file for a rank."""
    others = [child for server in children(rank) for child in children(server)]
    return [child for child in others if name_of(child) == "mpisweep-writer"]


def trials_of(rank: psutil.Process) -> list[psutil.Process]:
    """Trial processes of a rank of any niceness."""
    return [child for server in children(rank) for child in children(server) if runs_trials(child)]


def runs_trials(process: psutil.Process) -> bool:
    """Whether a process maps the page that a trial process shares with its worker.

    See :class:`mpisweep.processes.shared_page.Page`.
    """
    try:
        return "/memfd:mpisweep-page" in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


def name_of(process: psutil.Process) -> str:
    """Name of a process; empty if it has ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def master_of(path: Path) -> int | None:
    """Process id of the master, from its claim."""
    try:
        return int(json.loads((path.with_name(path.name + ".journal") / "claim.json").read_text())["pid"])
    except (OSError, ValueError):
        return None


def remember(path: Path, seen: dict[int, float]) -> None:
    """Note the trials that have ended, and check that those noted before are unchanged."""
    try:
        trials = mpisweep.load(path).trials
    except mpisweep.ResultsError:
        assert not seen, "the sweep is gone"
        return
    ended = dict(ended_values(trials))
    for number, value in seen.items():
        assert number in ended, f"trial {number} had ended and has not any more"
        assert same(ended[number], value), f"trial {number} had {value} and now has {ended[number]}"
    seen.update(ended)


def ended_values(trials: Any) -> Iterator[tuple[int, float]]:
    """Number and value of each ended trial; NaN for a failed one."""
    values = trials["loss"] if "loss" in trials.names else [math.nan] * len(trials)
    for number, state, value in zip(trials["number"], trials["state"], values, strict=True):
        if state in ("complete", "failed"):
            yield int(number), float(value)


def same(one: float, other: float) -> bool:
    """Whether two values are equal; NaN equals NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def check(path: Path, seen: dict[int, float], trial_kills: int) -> None:
    """Compare the sweep with an uninterrupted run."""
    remember(path, seen)
    sweep = mpisweep.load(path)
    trials, attempts = sweep.trials, sweep.attempts
    assert len(trials) == TRIALS
    assert not path.with_name(path.name + ".journal").exists(), "a clean end leaves only the file"
    failed = trials["state"] == "failed"
    assert set(trials["state"]) <= {"complete", "failed"}
    assert set(trials["cause"][failed]) <= {"crash"}, set(trials["message"][failed])
    assert failed.sum() <= trial_kills, f"{failed.sum()} have failed of {trial_kills} trial processes killed"
    complete = trials.array[~failed]
    assert (complete["loss"] == complete["x"] ** 2).all(), "a wrong value"
    ends = collections.Counter(attempts["trial"][attempts["end"] == "ended"].tolist())
    assert all(ends[number] == 1 for number in range(TRIALS)), "a trial has ended twice, or never"
    for row in complete:
        curve = sweep.curve(int(row["number"]), "loss")
        assert curve.step.tolist() == [0, 1, 2], f"trial {row['number']} has reports {curve.step.tolist()}"
        assert curve.value.tolist() == [row["x"] + step for step in range(3)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strikes", type=int, default=200)
    parser.add_argument("--only", choices=["kills", "stops", "disks"], help="strikes of one kind alone")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="start no further sweep after this time"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="keep everything here (default: a temporary folder)")
    options = parser.parse_args()
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.fspath(folder), os.environ.get("PYTHONPATH")])
        )
        kinds = {"kills": KILLS, "stops": STOPS, "disks": DISKS, None: KINDS}[options.only]
        storm = Storm(folder, random.Random(options.seed), options.workers, kinds)
        storm.run(options.strikes, options.seconds)
    print(
        f"seed {options.seed}: {storm.strikes.total()} strikes over {storm.sweeps} sweeps of {TRIALS} trials "
        f"in {time.monotonic() - started:.0f} s; every trial ended once, with the right value and curve"
    )
    for kind, count in storm.strikes.most_common():
        print(f"  {count:5d} {kind}")


if __name__ == "__main__":
    main()
