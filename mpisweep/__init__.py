"""Run a whole hyperparameter sweep in one batch job.

::

    import mpisweep

    sweep = mpisweep.load("resnet50.h5")
    print(sweep.best(5))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpisweep.results import ResultsError
    from mpisweep.results.load import Sweep, load
    from mpisweep.workloads.report import report
    from mpisweep.workloads.trial import Trial

__all__ = ["ResultsError", "Sweep", "Trial", "load", "report"]
__version__ = "0.1.0"

_HOME = {
    "ResultsError": "mpisweep.results",
    "Sweep": "mpisweep.results.load",
    "Trial": "mpisweep.workloads.trial",
    "load": "mpisweep.results.load",
    "report": "mpisweep.workloads.report",
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
