"""What the launcher's hooks are told, read from the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.batch.hooks import EndedTrials, HookRun, Reached
from mpisweep.batch.jobfacts import Allocation
from mpisweep.cli.outcome import tables_if_readable
from mpisweep.processes.kernel import this_host
from mpisweep.results import journal_folder, logs_folder
from mpisweep.spec import Spec

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["hooks_of"]

#: The file of the hooks' output in the folder of logs.
_LOG = "hooks.log"


def hooks_of(
    spec: Spec, path: Path, allocation: Allocation, ends_at: float | None, *, is_fresh: bool
) -> HookRun | None:
    """The hooks of a launch; None if the sweep has none.

    Args:
        spec: the sweep.
        path: of the results file.
        allocation: its job is told.
        ends_at: when it ends, in seconds since 1970; None for unknown.
        is_fresh: whether the sweep starts over.
    """
    if not spec.hooks.commands:
        return None
    facts = _Facts(spec, path, allocation, is_fresh=is_fresh)
    return HookRun(spec.hooks, spec.folder, logs_folder(path) / _LOG, facts, ends_at)


class _Facts:
    """See :class:`mpisweep.batch.hooks.HookFacts`; results that cannot be read tell nothing."""

    def __init__(self, spec: Spec, path: Path, allocation: Allocation, *, is_fresh: bool) -> None:
        from mpisweep.views.told import Told

        self._spec = spec
        self._path = path.absolute()
        self._is_fresh = is_fresh
        self._told = Told()
        self._run = {
            "host": this_host(), "batch_system": allocation.system, "job_id": allocation.job_id,
            "resumed": not is_fresh and (path.exists() or journal_folder(path).exists()),
        }  # fmt: skip

    def before(self) -> dict[str, Any]:
        """The sweep before its ranks start."""
        return self._about("before_sweep", None if self._is_fresh else tables_if_readable(self._path))

    def ended(self, launch: str, at_most: int) -> EndedTrials | None:
        """The next trials that have ended in this launch; None if the results cannot be read now."""
        from mpisweep.views.told import ended_facts, read_tables

        state = read_tables(self._path)
        if state is None:
            exists = self._path.exists() or journal_folder(self._path).exists()
            return None if exists else EndedTrials([], 0)
        numbers, others = self._told.take(state, launch, at_most)
        return EndedTrials(ended_facts(state, numbers, self._spec, self._path), others)

    def after(self, launch: str, reached: Reached) -> dict[str, Any]:
        """The sweep after a launch."""
        from mpisweep.views.told import ended_in

        sweep = tables_if_readable(self._path)
        return self._about("after_sweep", sweep) | {
            "reason": reached.reason,
            "exit_code": reached.exit_code,
            "ended_in_run": 0 if sweep is None else ended_in(sweep, launch),
        }

    def _about(self, hook: str, sweep: Sweep | None) -> dict[str, Any]:
        from mpisweep.views.told import sweep_facts

        return {"hook": hook, **sweep_facts(sweep, self._spec, self._path), **self._run}
