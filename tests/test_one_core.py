"""The libraries of the launcher, the master and the writer of results start no threads of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

MANY_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def run(program: str) -> list[str]:
    """The words that a program prints after it has told how many threads its process has."""
    told = (
        "\nprint(next(line for line in open('/proc/self/status') if line.startswith('Threads')).split()[1])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) + told],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@MANY_CORES
def test_numpy_starts_threads_without_it():
    assert int(run("import numpy")[-1]) > 1


@MANY_CORES
def test_a_thread_loads_numpy_on_one_core_and_leaves_nothing_behind():
    assert run("""
        import os, threading
        from mpisweep.processes.one_core import on_one_core

        def threads():
            return len(os.listdir("/proc/self/task"))

        def load():
            before, few = os.sched_getaffinity(0), threads()
            with on_one_core():
                import numpy
                print(len(os.sched_getaffinity(0)))
            print(os.sched_getaffinity(0) == before, threads() == few)

        loading = threading.Thread(target=load)
        loading.start()
        loading.join()
        print(any(name.endswith("_NUM_THREADS") for name in os.environ))
    """)[:-1] == ["1", "True", "True", "False"]


@MANY_CORES
@pytest.mark.parametrize("reader", ["OwnResults(Path('x.h5')).prepare()", "tables_if_readable(Path('x.h5'))"])
def test_the_launcher_reads_results_without_threads(reader: str):
    program = f"""
        from pathlib import Path
        from mpisweep.cli.outcome import OwnResults, tables_if_readable
        {reader}
        import sys
        print("numpy" in sys.modules)
    """
    assert run(program) == ["True", "1"]


@MANY_CORES
def test_a_process_of_its_own_stays_on_one_core():
    assert run("""
        from mpisweep.processes.one_core import use_one_core
        use_one_core()
        import numpy
    """) == ["1"]
