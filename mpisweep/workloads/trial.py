"""The trial as seen by user code."""

from __future__ import annotations

import contextlib
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.blocks import Curve
from mpisweep.bounds import MetricNames
from mpisweep.messages import Team
from mpisweep.processes.unsent import Unsent
from mpisweep.records import FailureCause, Value
from mpisweep.workloads.report import whole_step
from mpisweep.workloads.stageddata import StagedData

__all__ = ["CHECKPOINT", "DivergedError", "Trial", "TrialFailedError", "remove_checkpoint", "trial_seed"]

#: How often the reports of a running trial are sent, in seconds; viewers see them with this delay.
_FLUSH_S = 0.5
#: The same if a pruner waits for them.
_FLUSH_FOR_PRUNER_S = 0.1


#: File in the trial's folder in which a built-in workload saves an unfinished trial.
CHECKPOINT = "checkpoint.pt"


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint in a trial's folder, and the folder if it is then empty."""
    for name in (CHECKPOINT, f"{CHECKPOINT}.new"):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def trial_seed(seed: int, repeat: int) -> int:
    """The seed of a trial, in [0, 2**63), from the sweep's seed and the trial's repeat alone.

    So configurations are compared on common seeds.
    """
    # With it come OpenSSL's libraries, for 2 ms.
    import hashlib

    digest = hashlib.blake2b(f"{seed}:{repeat}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class TrialFailedError(Exception):
    """A failed trial whose cause is known.

    Args:
        cause: for the results file.
        message: for the results file; its first line says what happened.
        details: for the log.
        killed_by: number of the signal that ended the trial's program; 0 if none did.
    """

    def __init__(self, cause: FailureCause, message: str, details: str = "", *, killed_by: int = 0) -> None:
        super().__init__(message)
        self.cause = cause
        self.details = details
        self.killed_by = killed_by


class DivergedError(BaseException):
    """A report of an objective that is NaN or infinite ends the trial; the message says which.

    Not an Exception, so that a workload's own handlers let it pass.
    """


class Trial:
    """One configuration under evaluation; the argument of every Python workload.

    ::

        def train(trial: mpisweep.Trial) -> dict[str, float]:
            model = Model(width=trial.params["width"])
            for step in range(100):
                loss = model.step()
                trial.report(step, loss=loss)
                if trial.should_stop():
                    break
            return {"loss": loss}

    Attributes:
        number: counts from 0 and never changes.
        repeat: which repeat of its configuration it is, from 0.
        attempt: number of this attempt, from 1.
        params: the configuration, fixed values included.
        device: ``cpu``, or ``cuda:0``; the trial sees only its own GPU.
        cores: number of CPU cores that each rank of the trial may use.
        rank: this process's rank within the trial; 0 if it has only one.
        ranks: number of the trial's ranks.
    """

    def __init__(
        self,
        number: int,
        params: dict[str, Value],
        *,
        sweep_seed: int,
        device: str,
        cores: int,
        folder: Path,
        send: Callable[[dict[str, Curve]], None],
        stop_asked: Callable[[], bool],
        note_report: Callable[[], None] | None = None,
        unsent: Unsent | None = None,
        attempt: int = 1,
        repeat: int = 0,
        team: Team | None = None,
        objectives: Sequence[str] = (),
        is_pruned: Callable[[], bool] | None = None,
        ends_diverged: bool = False,
        staged: StagedData | None = None,
    ) -> None:
        self.number = number
        self.attempt = attempt
        self.repeat = repeat
        # Any: the sweep file gives each value its type; a union would need a cast at every use.
        self.params: dict[str, Any] = params
        self.device = device
        self.cores = cores
        self.rank, self.ranks = (team.rank, team.size) if team else (0, 1)
        self.team = team
        self._staged = staged
        self._sweep_seed = sweep_seed
        self._folder = folder
        self._send = send
        self._stop_asked = stop_asked
        self._note_report = note_report
        #: Memory for unsent reports, which survives a kill of the trial.
        self._unsent = unsent
        self._started = time.monotonic()
        #: Whether a pruner has found the trial hopeless; None if the sweep has none.
        self._asked_by_pruner = is_pruned
        self._flush_s = _FLUSH_S if is_pruned is None else _FLUSH_FOR_PRUNER_S
        self._flush_at = self._flush_s if is_pruned is None else 0.0
        self._curves: dict[str, Curve] = {}
        #: The stored names of metrics, reported or returned.
        self.names = MetricNames(objectives)
        #: Final values so far: the last report of each metric.
        self._last: dict[str, float] = {}
        self._objectives = objectives
        #: Whether a report of an objective that is not finite ends the trial.
        self._ends_diverged = ends_diverged
        #: Step of the last report of an objective; -1 before.
        self.last_step = -1
        self._told_to_stop = False
        #: Whether the trial returns because it is hopeless.
        self.is_pruned = False
        #: What an objective of Optuna has asked for so far; None for other workloads.
        self.suggested: dict[str, dict[str, Any]] | None = None
        #: The message of a trial that is complete; usually empty.
        self.notice = ""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            problem = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name.startswith("suggest_") or name in ("should_prune", "set_user_attr"):
                problem += "; for an objective of Optuna, set a number of trials and no parameters"
            raise AttributeError(problem)

    @property
    def seed(self) -> int:
        """A seed in [0, 2**63), from the sweep's seed and the repeat; common to all configurations."""
        return trial_seed(self._sweep_seed, self.repeat)

    @property
    def directory(self) -> Path:
        """A folder for this trial alone, created on first use; it survives interruptions."""
        folder = self._folder / str(self.number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def has_directory(self) -> bool:
        """Whether :attr:`directory` exists, because an earlier attempt used it."""
        return (self._folder / str(self.number)).is_dir()

    @property
    def data(self) -> Path | None:
        """The copy on this node of the data that is staged; None if none is."""
        return None if self._staged is None else self._staged.root

    def local(self, path: str) -> str:
        """The path on this node of something in the staged data; any other path as it is."""
        return path if self._staged is None else self._staged.local(path)

    def report(self, step: int, **metrics: float) -> None:
        """Add one step to the trial's curves; cheap enough for every iteration.

        Args:
            step: any increasing integer, e.g. the iteration; a float that is whole is accepted.
            metrics: metric names and their values at this step.

        Raises:
            TypeError: when the step is not an integer.
            DivergedError: when the objective is not finite, and ``limits.diverged`` is ``stop``.
        """
        self.add(step, metrics)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Do the same as :meth:`report`, for metrics whose names are not Python identifiers."""
        # Convert the step first: a curve with columns of different lengths could not be read.
        step = whole_step(step)
        now = time.monotonic() - self._started
        curves = self._curves
        for name, value in metrics.items():
            curve = curves.get(name)
            if curve is None:
                kept = self.names.kept(name)
                if kept is None:
                    continue
                name = kept
                curve = curves.get(name)
                if curve is None:
                    curve = curves[name] = Curve(array("q"), array("d"), array("d"))
            try:
                curve.value.append(value)
            except TypeError:
                raise
            except Exception as error:
                # Too large for a float, or a faulty class: the trial is worth more than this value.
                curve.value.append(math.nan)
                self.notice = (
                    self.notice
                    or f"{name!r:.200} was reported as a value that is not a number ({type(error).__name__})"
                )
            curve.step.append(step)
            curve.time.append(now)
            if self._unsent is not None and not self._unsent.add(name, step, now, curve.value[-1]):
                self._flush_at = now
        if self._note_report is not None:
            self._note_report()
        for name in self._objectives if self._ends_diverged else ():
            if name in metrics and not math.isfinite(value := curves[name].value[-1]):
                raise DivergedError(f"diverged: {name} is {value} at step {step}")
        if now >= self._flush_at:
            self.flush()

    def should_stop(self) -> bool:
        """Whether the trial must return now.

        Either its curve is hopeless, and it ends as pruned with its reports so far; or the sweep is being
        stopped, and it should save its state, because it runs again.
        """
        if self._stop_asked():
            self._told_to_stop = True
        return self.ask_pruner() or self._told_to_stop

    def ask_pruner(self) -> bool:
        """Whether the trial must return now because its curve is hopeless."""
        if self._asked_by_pruner is not None and self._asked_by_pruner():
            self.is_pruned = self._told_to_stop = True
        return self.is_pruned

    def stop(self, *, is_pruned: bool = False) -> None:
        """Record that the trial returns because one of its ranks has to stop."""
        self._told_to_stop = True
        self.is_pruned = self.is_pruned or is_pruned

    def flush_if_due(self) -> None:
        """Call :meth:`flush` if it is due, for a workload that reports nothing for a while."""
        if self._curves and time.monotonic() - self._started >= self._flush_at:
            self.flush()

    def flush(self) -> None:
        """Send the reports since the last flush; called automatically twice a second and at the end."""
        self._flush_at = time.monotonic() - self._started + self._flush_s
        curves = {name: curve for name, curve in self._curves.items() if curve.step}
        if not curves:
            return
        self._curves = {}
        for name, curve in curves.items():
            self._last[name] = curve.value[-1]
            if name in self._objectives:
                self.last_step = curve.step[-1]
        self._send(curves)

    @property
    def last_reported(self) -> dict[str, float]:
        """The last flushed report of each metric."""
        return self._last

    @property
    def told_to_stop(self) -> bool:
        """Whether :meth:`should_stop` has returned true."""
        return self._told_to_stop
