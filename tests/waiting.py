"""Waiting for events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: The time that anything may take, in seconds.  It only keeps a broken program from hanging the tests: it is far
#: more than a busy machine needs, and trials that never end sleep for longer.  The mutation run sets less, for a
#: mutant may well hang.
PATIENCE_S = float(os.environ.get("MPISWEEP_TESTS_PATIENCE_S", "300"))

#: Pause between two looks, in seconds, and as a multiple of the time that a look takes: waiting must not use the
#: core that the awaited process needs.
_PAUSE_S = 0.005
_PAUSE_AT_MOST_S = 0.1
_PAUSE_FACTOR = 3.0


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until `what` is true; give `seconds` only where the caller handles the failure."""
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if what():
            return
        now = time.monotonic()
        assert now < until, "this never came true"
        time.sleep(min(max(_PAUSE_S, _PAUSE_FACTOR * (now - began)), _PAUSE_AT_MOST_S))
