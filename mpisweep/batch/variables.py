"""Environment variables with which the launcher tells the ranks what it knows."""

from __future__ import annotations

__all__ = [
    "AFTER_VARIABLE",
    "BEGUN_VARIABLE",
    "CALLER_VARIABLE",
    "ENDS_VARIABLE",
    "HANDED_VARIABLE",
    "LAUNCH_VARIABLE",
    "ONE_HOST_VARIABLE",
    "PROGRESS_VARIABLE",
    "QUEUE_WAIT_VARIABLE",
    "SYSTEM_VARIABLE",
]

#: Tells the ranks that the launcher draws their progress, and the launcher that its caller does.
PROGRESS_VARIABLE = "MPISWEEP_PROGRESS"

#: Tells the launcher the process that called it; the sweep stops when that dies.
CALLER_VARIABLE = "MPISWEEP_CALLER"

#: Identifies the launch to the ranks; the same after a restart.
LAUNCH_VARIABLE = "MPISWEEP_LAUNCH"

#: Tells the ranks that others of their launch have begun the sweep: a failing disk may recover in a moment.
BEGUN_VARIABLE = "MPISWEEP_BEGUN"

#: Tells the ranks when the allocation ends, in seconds since 1970; empty for unknown.
ENDS_VARIABLE = "MPISWEEP_ENDS_AT"

#: Tells the ranks how long the job waited in the queue, in seconds; empty for unknown.
QUEUE_WAIT_VARIABLE = "MPISWEEP_QUEUE_WAIT"

#: Tells the ranks that all of them are on one host.
ONE_HOST_VARIABLE = "MPISWEEP_ONE_HOST"

#: Tells the ranks the name of the batch system, so that they need not search installed packages for it.
SYSTEM_VARIABLE = "MPISWEEP_BATCH_SYSTEM"

#: Tells the ranks the best configuration of the sweep that theirs comes after, as JSON.
AFTER_VARIABLE = "MPISWEEP_AFTER"

#: Hands the ranks the sweep and their options, as JSON, so that they need not parse the command line.
HANDED_VARIABLE = "MPISWEEP_HANDED"
