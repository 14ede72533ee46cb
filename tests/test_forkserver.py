"""The watchdog of a fork server over its rank."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from waiting import PATIENCE_S


def test_a_parent_that_hangs_is_killed_and_one_that_beats_is_not():
    """No other rank could end a rank that is alone on its node."""
    rank = textwrap.dedent("""
        import signal, time
        from mpisweep.processes.forkserver import ForkServer
        server = ForkServer.start()
        server.watch(1.5)
        for _ in range(5):
            time.sleep(0.5)
            server.beat()
        print("beats", flush=True)
        server.watch(0)
        time.sleep(2.5)
        print("is not watched", flush=True)
        server.watch(0.1)
        signal.pause()
    """)
    ended = subprocess.run([sys.executable, "-c", rank], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.stdout.splitlines(), ended.returncode) == (["beats", "is not watched"], -9), ended.stderr
