"""``mpisweep replay FILE NUMBER``: run one trial again, alone, and see how close it comes.

The trial gets what it had: its parameters, its number (and so its seed), the sweep file as it was.  It runs in a
trial process like any other, without MPI, in folders that are removed afterwards; the results file is not
touched.
"""

from __future__ import annotations

import math
import select
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpisweep.blocks import AssignedBlock, Column, Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.devices import Node, lay_out, this_node
from mpisweep.forkserver import ForkServer
from mpisweep.outputs import read_outputs
from mpisweep.records import DeviceShare, FailureCause, TrialState
from mpisweep.results.load import Sweep
from mpisweep.trialprocess import Back, ProcessSetting, Result, TrialProcess

__all__ = ["Comparison", "Rerun", "rerun"]

#: How often there is a look whether anything has happened, in seconds.
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number, then and now."""

    name: str
    then: float
    now: float

    @property
    def is_same(self) -> bool:
        """Whether they are equal to the last bit, or both no number."""
        return self.then == self.now or (math.isnan(self.then) and math.isnan(self.now))

    @property
    def relative(self) -> float:
        """The difference over the larger of the two; 0 where they are the same."""
        if self.is_same:
            return 0.0
        return abs(self.now - self.then) / max(abs(self.now), abs(self.then))


@dataclass(frozen=True, slots=True)
class Rerun:
    """What came of it.

    Attributes:
        state: in which the trial has ended now.
        message: why, where it failed.
        metrics: final values; durations among them are those of a machine and not of a configuration.
        curves: for each metric the report that differs most, or the last one where none does.
        first_difference: for each metric whose curve differs, the first step at which it does.
        wall_time_s: then and now.
        output: what a command line has printed.
    """

    state: TrialState
    message: str
    metrics: tuple[Comparison, ...]
    curves: tuple[Comparison, ...]
    first_difference: dict[str, int]
    wall_time_s: Comparison
    output: str


def rerun(sweep: Sweep, number: int, folder: Path, tell: Callable[[DeviceShare], None]) -> Rerun:
    """Run a trial of a sweep again.

    Args:
        sweep: where it is from.
        number: of the trial.
        folder: where the user's code is.
        tell: is told what the trial may use, before it starts.
    """
    share = _share(sweep, number)
    tell(share)
    server = ForkServer.start()
    built_in = sweep.spec.built_in
    server.preload(built_in.preload if built_in else ())
    row = sweep.trials[number]
    try:
        with tempfile.TemporaryDirectory(prefix="mpisweep-replay-") as made:
            scratch = Path(made)
            setting = ProcessSetting(
                spec=sweep.spec.text, source=sweep.spec.source, folder=folder, trials_folder=scratch / "trials",
                log_file=scratch / "logs" / "rank-0000.log", worker=0, timeout_s=sweep.spec.limits.timeout_s,
                stall_s=sweep.spec.limits.stall_s,
            )  # fmt: skip
            process = TrialProcess(server, setting, 0, share)
            columns: dict[str, Column] = dict(sweep.configuration(number))
            block = AssignedBlock([[0, 0]], time.time(), [number], [max(1, int(row["attempt"]))], columns)
            process.give(encode(block), 1)
            ended, curves = _await(server, process)
            process.close()
            outputs = read_outputs(setting.log_file.parent, number)
    finally:
        server.close()
    return _compare(sweep, number, ended, curves, outputs[-1].text if outputs else "")


def _share(sweep: Sweep, number: int) -> DeviceShare:
    """The first device of this machine, and as many cores as the trial had: sums depend on the threads."""
    node = this_node()
    worker = int(sweep.trials[number]["worker"])
    had = int(sweep.workers["cores"][worker]) if worker >= 0 else len(node.cores)
    node = Node(node.cores[: max(1, had)], node.gpus)
    share = lay_out([node], has_master=True, policy="works", host="this machine")[0]
    assert share is not None
    return share


def _await(server: ForkServer, process: TrialProcess) -> tuple[EndedBlock, dict[str, Curve]]:
    curves: dict[str, Curve] = {}
    while True:
        files = [file for file in (server.fileno(), process.fileno()) if file >= 0]
        select.select(files, [], [], _LOOK_S)
        happened = process.listen()
        for notice in server.notices():
            if process.is_child(notice.child):
                happened += process.on_died(notice.status)
        process.keep_time(time.monotonic())
        for happening in happened:
            if isinstance(happening, Back):
                block = decode(happening.body)
                assert isinstance(block, ReportBlock)
                for name, curve in block.curves.items():
                    known = curves.setdefault(name, Curve(curve.step[:0], curve.value[:0], curve.time[:0]))
                    known.step.extend(curve.step)
                    known.value.extend(curve.value)
                    known.time.extend(curve.time)
            elif isinstance(happening, Result):
                ended = decode(happening.body)
                assert isinstance(ended, EndedBlock)
                return ended, curves


def _compare(sweep: Sweep, number: int, ended: EndedBlock, curves: dict[str, Curve], output: str) -> Rerun:
    row = sweep.trials[number]
    now = {name: column[0] for name, column in ended.metrics.items()}
    metrics: list[Comparison] = []
    for name in dict.fromkeys([*sweep.metrics, *now]):
        then = float(row[sweep.column(name)]) if name in sweep.metrics else math.nan
        value = now.get(name)
        metrics.append(Comparison(name, then, math.nan if value is None else value))
    compared: list[Comparison] = []
    first: dict[str, int] = {}
    for name in (name for name in sweep.curve_names if name in curves):
        then_curve, now_values = sweep.curve(number, name).value, np.array(curves[name].value)
        count = min(len(then_curve), len(now_values))
        if not count:
            continue
        differs = (then_curve[:count] != now_values[:count]) & ~(
            np.isnan(then_curve[:count]) & np.isnan(now_values[:count])
        )
        if differs.any():
            first[name] = int(curves[name].step[int(differs.argmax())])
        gaps = np.where(differs, np.abs(then_curve[:count] - now_values[:count]), 0.0)
        worst = int(np.nanargmax(gaps)) if differs.any() and np.isfinite(gaps).any() else count - 1
        compared.append(Comparison(name, float(then_curve[worst]), float(now_values[worst])))
    message = ended.messages[0] if ended.messages else ""
    if ended.causes and ended.causes[0]:
        message = f"{FailureCause(ended.causes[0]).label}: {message}"
    return Rerun(
        TrialState(ended.states[0]), message, tuple(metrics), tuple(compared), first,
        Comparison("wall_time", float(row["wall_time"]), ended.wall_time_s[0]), output,
    )  # fmt: skip
