"""Make the trial that user code sees, connected to this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mpisweep.blocks import Curve
from mpisweep.messages import Team
from mpisweep.processes.shared_page import Page
from mpisweep.records import Value
from mpisweep.spec import Spec
from mpisweep.workloads.stageddata import StagedData
from mpisweep.workloads.trial import Trial

__all__ = ["TrialMaker"]


class TrialMaker:
    """Makes the trials of one process.

    Args:
        spec: the sweep.
        page: the memory shared with the worker.
        device: ``cpu`` or ``cuda:0``.
        cores: number of CPU cores per rank.
        folder: holds the folders of trials.
        watch_reports: whether the worker watches when trials report.
        data: the data on this node; None if none is staged.
    """

    def __init__(
        self, spec: Spec, page: Page, device: str, cores: int, folder: Path, *, watch_reports: bool,
        data: StagedData | None = None,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._page = page
        self._device = device
        self._cores = cores
        self._folder = folder
        self._note_report = page.note_report if watch_reports else None
        self._data = data
        self._is_built_in = spec.built_in is not None

    def __call__(
        self,
        index: int,
        number: int,
        attempt: int,
        repeat: int,
        params: dict[str, Value],
        team: Team | None,
        send: Callable[[dict[str, Curve]], None],
    ) -> Trial:
        """Make the trial with this index in the process; `send` sends its reports."""
        spec, page = self._spec, self._page
        is_lead = team is None or team.rank == 0
        return Trial(
            number,
            params,
            sweep_seed=spec.seed,
            device=self._device,
            cores=self._cores,
            folder=self._folder,
            send=send if is_lead else _drop_curves,
            stop_asked=lambda: page.stop_asked,
            note_report=self._note_report,
            unsent=page.unsent if is_lead else None,
            attempt=attempt,
            repeat=repeat,
            team=team,
            staged=self._data,
            objectives=[objective.name for objective in spec.objectives],
            is_pruned=None if spec.prune is None else lambda: page.is_pruned(index),
            # All ranks of a built-in workload report the same numbers; of others, those of rank 0 count.
            ends_diverged=spec.limits.diverged == "stop" and (is_lead or self._is_built_in),
        )


def _drop_curves(curves: dict[str, Curve]) -> None:
    """Drop the curves: a trial's curves are those of its rank 0."""
