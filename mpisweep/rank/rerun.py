"""``mpisweep replay FILE NUMBER``: run one trial again, alone, and compare its results.

The trial gets what it had: its parameters, its number, its repeat (and so its seed), the sweep file as it
was.  It runs in one trial process per rank, without MPI, in folders that are removed afterwards; the results
file stays unchanged.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mpisweep.blocks import AssignedBlock, ColumnValues, Curve, EndedBlock, ReportBlock, decode, encode
from mpisweep.devices.nodes import Node, lay_out, this_node
from mpisweep.messages import Team
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.trial_events import Broke, RendezvousOpened, Reports, Result, TrialEvent
from mpisweep.processes.trialprocess import TrialProcess
from mpisweep.rank.signals import Sleeper
from mpisweep.records import DeviceShare, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.comparison import Rerun, compare
from mpisweep.results.load import Sweep
from mpisweep.scheduling.teams import all_devices
from mpisweep.staged import DATA_VARIABLE, SOURCE_VARIABLE
from mpisweep.workloads.outputs import read_outputs

__all__ = ["rerun"]

#: Longest time between two looks at the trial processes, in seconds.
_LOOK_S = 0.2


def rerun(sweep: Sweep, number: int, folder: Path, tell: Callable[[DeviceShare], None]) -> Rerun:
    """Run a trial of a sweep again.

    Args:
        sweep: the sweep of the trial.
        number: of the trial.
        folder: where the user's code is.
        tell: called with the devices and cores of rank 0 before the trial starts.

    Raises:
        ResultsError: when the trial's process could not start or broke.
    """
    shares = _shares(sweep, number)
    tell(shares[0])
    server = ForkServer.start()
    built_in = sweep.spec.built_in
    server.preload(built_in.preload if built_in else ())
    row = sweep.trials[number]
    try:
        with tempfile.TemporaryDirectory(prefix="mpisweep-replay-") as made:
            scratch = Path(made)
            setting = ProcessSetting(
                spec=sweep.spec.text,
                source=sweep.spec.source,
                folder=folder,
                trials_folder=scratch / "trials",
                log_file=scratch / "logs" / "rank-0000.log",
                worker=0,
                timeout_s=sweep.spec.limits.timeout_s,
                stall_s=sweep.spec.limits.stall_s,
                environment=_data(sweep.spec.stage_data),
            )
            processes = [TrialProcess(server, setting, rank, share) for rank, share in enumerate(shares)]
            columns: dict[str, ColumnValues] = dict(sweep.configuration(number))
            slots = [[0, rank] for rank in range(len(shares))]
            repeats = [max(0, int(row["repeat"]))]
            block = encode(
                AssignedBlock(
                    slots, time.time(), [number], [max(1, int(row["attempt"]))], columns, repeats=repeats
                )
            )
            for process, team in zip(processes, _teams(shares), strict=True):
                process.give(block, 1, team)
            ended, curves = _await(server, processes)
            for process in processes:
                process.close()
            outputs = read_outputs(setting.log_file.parent, number)
    finally:
        server.close()
    return compare(sweep, number, ended, curves, outputs[-1].text if outputs else "")


def _shares(sweep: Sweep, number: int) -> list[DeviceShare]:
    """Share out this machine: a device per rank, and as many cores as the trial had."""
    node = this_node()
    ranks = sweep.spec.ranks(sweep.configuration(number))
    worker = int(sweep.trials[number]["worker"])
    had = max(1, int(sweep.workers["cores"][worker])) if worker >= 0 else len(node.cores)
    # Sums depend on the number of threads.
    node = Node(node.cores[: ranks * had], node.gpus)
    shares = lay_out([node] * ranks, has_master=True, policy="works", host="this machine")
    return [share for share in shares if share is not None]


def _data(source: str) -> tuple[tuple[str, str], ...]:
    """Name the data to the trial: a folder is read where it is, without a copy."""
    return ((DATA_VARIABLE, source), (SOURCE_VARIABLE, source)) if source and Path(source).is_dir() else ()


def _teams(shares: Sequence[DeviceShare]) -> list[Team | None]:
    size = len(shares)
    if size == 1:
        return [None]
    environment = all_devices([share.environment for share in shares])
    return [Team(rank, size, rank, size, environment=environment) for rank in range(size)]


def _await(server: ForkServer, processes: Sequence[TrialProcess]) -> tuple[EndedBlock, dict[str, Curve]]:
    """Wait until rank 0 ends or a rank fails; returns that end and the trial's curves."""
    curves: dict[str, Curve] = {}
    sleeper = Sleeper()
    while True:
        files = (server.fileno(), *(process.fileno() for process in processes))
        sleeper.sleep((file for file in files if file >= 0), _LOOK_S)
        happened: list[tuple[int, TrialEvent]] = []
        notices = server.notices()
        for rank, process in enumerate(processes):
            happened += ((rank, event) for event in process.receive())
            happened += ((rank, event) for notice in notices for event in process.on_notice(notice))
            process.keep_time(time.monotonic())
        for rank, event in happened:
            if isinstance(event, Reports):
                _add_reports(curves, event.body)
            elif isinstance(event, RendezvousOpened):
                for process in processes[1:]:
                    process.set_rendezvous(event.number, event.attempt, event.address)
            elif isinstance(event, Broke) and (event.trial is not None or event.is_gone):
                raise ResultsError(f"the trial could not be run: {event.why}")
            elif isinstance(event, Result):
                ended = decode(event.body)
                assert isinstance(ended, EndedBlock)
                if rank == 0 or ended.states[0] == TrialState.FAILED:
                    return ended, curves


def _add_reports(curves: dict[str, Curve], body: bytes) -> None:
    block = decode(body)
    assert isinstance(block, ReportBlock)
    for name, curve in block.curves.items():
        known = curves.setdefault(name, Curve(curve.step[:0], curve.value[:0], curve.time[:0]))
        known.step.extend(curve.step)
        known.value.extend(curve.value)
        known.time.extend(curve.time)
