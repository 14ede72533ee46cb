"""Run a whole hyperparameter sweep in one batch job.

::

    import mpisweep

    sweep = mpisweep.run("my_train:train", parameters={"lr": [0.1, 0.01]}, output="lr.h5")
    print(sweep.best(5))
    sweep = mpisweep.load("lr.h5")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpisweep.api.errors import InputError, SweepError
    from mpisweep.api.jobs import Job, submit
    from mpisweep.api.running import run
    from mpisweep.results import ResultsError
    from mpisweep.results.load import Sweep, load
    from mpisweep.workloads.report import report
    from mpisweep.workloads.trial import Trial

__all__ = [
    "InputError", "Job", "ResultsError", "Sweep", "SweepError", "Trial", "load", "report", "run", "submit",
]  # fmt: skip
__version__ = "0.1.0"

_HOME = {
    "InputError": "mpisweep.api.errors",
    "Job": "mpisweep.api.jobs",
    "ResultsError": "mpisweep.results",
    "Sweep": "mpisweep.results.load",
    "SweepError": "mpisweep.api.errors",
    "Trial": "mpisweep.workloads.trial",
    "load": "mpisweep.results.load",
    "report": "mpisweep.workloads.report",
    "run": "mpisweep.api.running",
    "submit": "mpisweep.api.jobs",
}


def __getattr__(name: str) -> object:
    # Lazy, so that a user's module that imports mpisweep does not load h5py in every rank.
    if name in _HOME:
        import importlib

        found = getattr(importlib.import_module(_HOME[name]), name)
        # The next access does not come here.
        globals()[name] = found
        return found
    raise AttributeError(f"module 'mpisweep' has no attribute {name!r}")
