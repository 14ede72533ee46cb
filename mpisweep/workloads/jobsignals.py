"""Signals to the whole job, which may end or shorten a trial that would run again."""

from __future__ import annotations

import signal

from mpisweep.processes.kernel import JOB_SIGNALS, delivery_s
from mpisweep.processes.shared_page import Page, SignalPage
from mpisweep.workloads.startstate import has_survived_since

__all__ = ["JobSignals"]


class JobSignals:
    """Tells whether all processes of the job were signalled during the running trial.

    Args:
        page: says when the trial started.
        signals: those that the fork server has received.
        has_handlers: whether trials run in this process, and may handle signals.
    """

    def __init__(self, page: Page, signals: SignalPage, *, has_handlers: bool) -> None:
        self._page = page
        self._signals = signals
        self._has_handlers = has_handlers

    def was_signalled(self, number: int, wall_time_s: float) -> bool:
        """Whether the whole job was signalled during a trial that ended by this signal or by none."""
        started_ns = self._page.started_ns
        is_sent = number in (*JOB_SIGNALS, signal.SIGKILL) or has_survived_since(started_ns)
        # The fork server may receive it last; the wait may take up to a tenth of the trial's time.
        within_s = delivery_s()
        return self._signals.await_any(started_ns, within_s if is_sent else min(within_s, wall_time_s / 10))

    def may_cut_short(self, wall_time_s: float, *, handled: bool) -> bool:
        """Whether a signal to the whole job may have made a trial return too early."""
        if self._has_handlers:
            return handled and self.was_signalled(0, wall_time_s)
        return self._signals.any_since(self._page.started_ns)
