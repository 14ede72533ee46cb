"""Waiting for events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Timeout of every wait, in seconds.  It only keeps a broken program from hanging the tests: a busy machine
#: needs far less, and trials that never end sleep for longer.  The mutation run sets less, because mutants
#: may hang.
PATIENCE_S = float(os.environ.get("MPISWEEP_TESTS_PATIENCE_S", "300"))

#: Pause between two polls, in seconds, and as a multiple of the time that a poll takes: waiting must not use
#: the core that the awaited process needs.
_PAUSE_S = 0.005
_PAUSE_AT_MOST_S = 0.1
_PAUSE_FACTOR = 3.0


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until `what` returns true; pass `seconds` only if the caller handles the failure."""
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if what():
            return
        now = time.monotonic()
        assert now < until, "this never came true"
        time.sleep(min(max(_PAUSE_S, _PAUSE_FACTOR * (now - began)), _PAUSE_AT_MOST_S))
