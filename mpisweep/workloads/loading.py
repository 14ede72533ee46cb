"""Load a workload of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpisweep.processes.shared_page import SignalPage
from mpisweep.spec import Spec
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.workloads.function import load_function
from mpisweep.workloads.trial import Trial

__all__ = ["load_or_report"]


def load_or_report(
    spec: Spec, outputs: Path, signals: SignalPage, watch: Callable[[int], None]
) -> Callable[[Trial], Any]:
    """Load the workload; if that fails, return a function that raises the error in every trial.

    Args:
        spec: the sweep file.
        outputs: the file for the output of programs.
        signals: tells when all processes of the job received a signal.
        watch: is called periodically with the process group of a program that runs.
    """
    try:
        if isinstance(spec.workload, CommandWorkload):
            from mpisweep.workloads.command import make_run

            return make_run(spec.workload, spec.folder, outputs, signals, spec.limits, watch)
        return load_function(spec)
    except BaseException as error:
        problem, where = error, error.__traceback__

    def fail(trial: Trial) -> None:
        # Without this, each raise would extend the traceback of the one before.
        raise problem.with_traceback(where)

    return fail
