"""``mpisweep.submit``: a sweep as a job of a batch system."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

from mpisweep.api.command import call
from mpisweep.api.errors import InputError, SweepError
from mpisweep.api.functions import check_not_in_trial
from mpisweep.api.keys import Source, SweepKeys
from mpisweep.api.running import Duration, Master
from mpisweep.api.source import Asked, asked_sweep
from mpisweep.batch.chain import read_record
from mpisweep.batch.queue import ask
from mpisweep.batch.registry import batch_system
from mpisweep.results import ResultsError

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["Job", "State", "submit"]

#: State of a job in its queue; ``unknown`` while the batch system does not answer.
State: TypeAlias = Literal["waiting", "held", "running", "gone", "unknown"]

#: The order in which the states of several jobs count: one that runs makes all of them running.
_ORDER: tuple[State, ...] = ("running", "waiting", "held")
#: A job can be gone before other nodes see the results file, in seconds.
_SEEN_S = 30.0
_LOOK_S = 1.0
_WRONG = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted sweep.

    Attributes:
        ids: of the jobs in the batch system: several with ``chain`` and ``split``.
        system: name of the batch system, such as ``pjm``.
        script: the job script.
        results: the results file.
    """

    ids: tuple[str, ...]
    system: str
    script: Path
    results: Path

    @property
    def id(self) -> str:
        """The id of the first job."""
        return self.ids[0]

    @property
    def state(self) -> State:
        """State in the queue; of several jobs ``running`` if one runs, and ``gone`` if all are."""
        system = batch_system(self.system)
        answer = ask(system, self._all_ids()) if system is not None else None
        if answer is None:
            return "unknown"
        states = {str(job.state) for job in answer.values()}
        return next((state for state in _ORDER if state in states), "gone")

    def sweep(self) -> Sweep:
        """Load the sweep as it is now, also while the job runs.

        Raises:
            ResultsError: when the job has not begun it yet.
        """
        from mpisweep.results.load import load

        return load(self.results)

    def wait(self, timeout: float | None = None, every: float = 10.0) -> Sweep:
        """Wait until no job of the sweep is waiting or running, and load the sweep.

        An interrupt ends the waiting, not the job.

        Args:
            timeout: longest wait in seconds; None for any.
            every: seconds between two questions to the batch system.

        Raises:
            TimeoutError: when the time is up.
            SweepError: when the job has left no results.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self.state != "gone":
            left_s = every if until is None else min(every, until - time.monotonic())
            if left_s <= 0:
                raise TimeoutError(f"job {self.id} is {self.state} after {timeout:g} s")
            time.sleep(left_s)
        until = time.monotonic() + _SEEN_S
        while True:
            try:
                return self.sweep()
            except ResultsError as error:
                if time.monotonic() > until:
                    raise SweepError(
                        f"job {self.id} has ended without results ({error}); its output says why", 1
                    ) from None
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """Stop the sweep cleanly: cancel jobs that wait, and have a running one save and end.

        Raises:
            SweepError: when the batch system refuses.
        """
        done = call(["stop", "--no-wait", os.fspath(self.results)])
        if done.returned:
            raise SweepError(done.message, done.returned)

    def _all_ids(self) -> list[str]:
        """The jobs of the sweep, also those that a chain has submitted since."""
        record = read_record(self.results)
        own = {job.chain for job in record.submitted if job.job_id in self.ids and job.chain}
        return [*self.ids, *(
            job.job_id for job in record.submitted if job.chain in own and job.job_id not in self.ids
        )]  # fmt: skip


def submit(
    sweep: Source | None = None, *, site: str | os.PathLike[str], nodes: int = 1,
    elapse: Duration | None = None, output: str | os.PathLike[str] | None = None, gpus: int | None = None,
    ranks: int | None = None, cores: int | None = None, group: str | None = None, project: str | None = None,
    modules: Sequence[str] = (), directives: Sequence[str] = (), venv: str | os.PathLike[str] | None = None,
    conda: str | None = None, container: str | os.PathLike[str] | None = None,
    chain: int | Literal["complete"] = 1, split: int | None = None, master: Master = "auto",
    stage_env: bool = False, stage_to: str | None = None, stage_keep: bool = False, mail: str | None = None,
    **keys: Unpack[SweepKeys],
) -> Job:  # fmt: skip
    """Write a job script for a sweep, submit it, and return the job.

    Args:
        sweep: as for :func:`mpisweep.run`.
        site: name of a site (``mpisweep sites`` lists them), or path of a site file.
        nodes: number of nodes.
        elapse: time limit of the job, in seconds or as ``"H:MM:SS"``.
        output: results file; ``NAME.h5`` unless given.
        gpus: GPUs per node; per job on shared nodes.
        ranks: ranks per node; one per GPU, else per core, unless given.
        cores: cores per rank.
        group: resource group, partition or queue.
        project: project group or account.
        modules: to load in place of the site's.
        directives: options of the batch system to add to the script.
        venv: virtual environment with mpisweep; this one unless given.
        conda: conda environment with mpisweep.
        container: container image with mpisweep.
        chain: number of jobs, one after another, or ``"complete"`` for as many as needed.
        split: number of jobs that share the sweep.
        master: whether rank 0 runs trials too.
        stage_env: whether trial processes import from one file.
        stage_to: node-local folder for the copies of `stage_data`; may contain ``$VARIABLES`` of each node.
        stage_keep: keep the copies for the next job on these nodes.
        mail: address that the batch system writes to when the job ends or fails.
        keys: keys of a sweep file; not with a sweep file.

    Raises:
        InputError: when the sweep or an argument is wrong, or the batch system refuses the job.
    """
    check_not_in_trial("mpisweep.submit")
    asked = asked_sweep(sweep, keys, output)
    values: dict[str, object] = {
        "--site": site, "--nodes": nodes, "--elapse": elapse, "--gpus": gpus, "--ranks": ranks,
        "--cores": cores, "--group": group, "--project": project, "--venv": venv, "--conda": conda,
        "--container": container, "--chain": chain, "--split": split, "--master": master,
        "--mail": mail, "--stage-to": stage_to,
    }  # fmt: skip
    options = [f"{flag}={value}" for flag, value in values.items() if value is not None]
    options += [f"--module={name}" for name in modules] + [f"--directive={text}" for text in directives]
    options += ["--stage-env"] * stage_env + ["--stage-keep"] * stage_keep
    return _submitted(asked, options)


def _submitted(asked: Asked, options: Sequence[str]) -> Job:
    known = len(read_record(asked.results).submitted)
    with asked.written():
        done = call(["submit", *asked.arguments, *options])
    if done.returned:
        raise InputError(done.message) if done.returned == _WRONG else SweepError(done.message, done.returned)
    if done.message:
        print(done.message, file=sys.stderr)
    added = read_record(asked.results).submitted[known:]
    if not added:
        raise SweepError(f"{asked.results}.jobs: the job was submitted, but cannot be read there", 1)
    return Job(tuple(job.job_id for job in added), added[0].system, Path(added[0].script), asked.results)
