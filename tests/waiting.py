"""Waiting for events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: How long anything may take, in seconds: a limit only so that a broken program cannot hang the tests.  It is
#: far beyond what a machine needs that others use as well, and no trial that a test has sleep for ever sleeps
#: for less.  A mutant may well hang, so the mutation run has less patience.
PATIENCE_S = float(os.environ.get("MPISWEEP_TESTS_PATIENCE_S", "300"))

#: Pauses between two looks, in seconds, and how many times as long as looking takes they are: who waits must
#: not take the core that the others need.
_PAUSE_S = 0.005
_PAUSE_AT_MOST_S = 0.1
_PAUSE_FACTOR = 3.0


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Until `what` is true; `seconds` is for who goes on in another way when it is not."""
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if what():
            return
        now = time.monotonic()
        assert now < until, "this never came true"
        time.sleep(min(max(_PAUSE_S, _PAUSE_FACTOR * (now - began)), _PAUSE_AT_MOST_S))
