"""mpisweep: a whole hyperparameter sweep in one batch job.

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
    # Imported when first used: a rank must not load h5py because a user's module imports mpisweep.
    if name in _HOME:
        import importlib

        found = getattr(importlib.import_module(_HOME[name]), name)
        # The next use finds it without asking.
        globals()[name] = found
        return found
    raise AttributeError(f"module 'mpisweep' has no attribute {name!r}")
