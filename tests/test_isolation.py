"""Isolation of trials: all start in the same state; none is blamed for signals to the job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from started import family
from test_run import start
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.spec import parse_spec
from mpisweep.workloads.loading import load_or_report

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi


def sweep(
    folder: Path, workload: str, more: str = "", parameters: str = "x = { from = 1, to = 4 }", top: str = ""
) -> str:
    text = f'name = "s"\nworkload = {workload}\n{top}\n[parameters]\n{parameters}\n{more}\n'
    (folder / "s.toml").write_text(text, encoding="utf-8")
    return "s.toml"


def function(folder: Path, code: str, more: str = "", **tables: str) -> str:
    (folder / "mine.py").write_text(
        "import os, signal, subprocess, sys, time\nfrom pathlib import Path\n" + code
    )
    return sweep(folder, '"mine:run"', more, **tables)


def stderr_of(folder: Path) -> str:
    return (folder / "stderr.txt").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------- signals

#: As bits of a mask.  The C library reserves signals 32 and 33: programs cannot change them through it, so
#: they stay as inherited.
OWN_OF_LIBC = 0b11 << 31
MASKS = f"""
for name in Ign Blk; do
    mask=$(sed -n "s/^Sig$name:[^0-9a-f]*//p" /proc/self/status)
    echo "{{\\"$name\\": $((0x$mask & ~{OWN_OF_LIBC}))}}"
done
"""


@contextlib.contextmanager
def signals_ignored():
    """Ignore and block signals as nohup, background jobs of a shell and some launchers do."""
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, signal.SIGPIPE)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_program_starts_with_no_signal_ignored_or_blocked(folder, mpisweep: Run, ranks):
    (folder / "masks.sh").write_text(MASKS)
    spec = sweep(
        folder,
        '{ command = "sh masks.sh {x}" }',
        parameters=f"x = [1, 2]\nranks_per_trial = [{ranks}]",
        top='objective = "Ign"',
    )
    with signals_ignored():
        done = mpisweep("run", spec, "-n", "2", "-o", "r.h5", "-q")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["Ign"].tolist() == [0.0, 0.0]
    assert trials["Blk"].tolist() == [0.0, 0.0]


SEES = (
    f"OWN_OF_LIBC = {OWN_OF_LIBC}"
    """
def run(trial):
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in status.splitlines())
    own = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
    held_up = (signal.SIGUSR1, signal.SIGXCPU)
    odd = [n for n in range(1, 32) if n not in held_up and signal.getsignal(n) is not usual.get(n, signal.SIG_DFL)]
    odd += [n for n in held_up if not callable(signal.getsignal(n))]
    masks = [int(mask, 16) & ~OWN_OF_LIBC for mask in (fields["SigIgn"], own["SigBlk"])]
    Path(f"saw.{trial.number}.{trial.rank}").write_text(f"{masks} {odd}")
    return 1.0
"""
)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_function_finds_the_usual_signals_and_what_it_starts_does_too(folder, mpisweep: Run, ranks):
    spec = function(folder, SEES, parameters="x = [1, 2]", top=f"ranks_per_trial = {ranks}")
    with signals_ignored():
        done = mpisweep("run", spec, "-n", "2", "-o", "r.h5", "-q")
    assert done.returncode == 0, done.stderr
    saw = {path.name: path.read_text() for path in folder.glob("saw.*")}
    assert saw == {f"saw.{number}.{rank}": "[0, 0] []" for number in (0, 1) for rank in range(ranks)}


TRAPS = """
trap 'echo "checkpoint: 1"; exit 0' {name}
(sleep 0.3; kill -{name} $$) &
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("name", ["HUP", "INT", "USR1", "USR2", "XCPU", "TERM"])
def test_a_shell_script_may_trap_what_it_likes(folder, mpisweep: Run, name):
    (folder / "job.sh").write_text(TRAPS.format(name=name))
    spec = sweep(
        folder,
        '{ command = "bash job.sh {x}" }',
        "[metrics]\ncheckpoint = 'checkpoint: '\n",
        "x = [1]",
        'objective = "checkpoint"',
    )
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["checkpoint"].tolist() == [1.0]


def test_a_function_may_interrupt_itself(folder, mpisweep: Run):
    code = """
import _thread, threading
def run(trial):
    threading.Timer(0.05, _thread.interrupt_main).start()
    try:
        while True:
            time.sleep(0.001)
    except KeyboardInterrupt:
        return 1.0
"""
    done = mpisweep("run", function(folder, code), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [1.0] * 4


# --------------------------------------------------------------------------------- signals to the whole job


def send_to_whole_job(process: subprocess.Popen[str], number: int, *, last_first: bool = True) -> None:
    """Send a signal to one process of the job after another, as batch systems do."""
    numbers = [member.pid for member in family(process)]
    for pid in reversed(numbers) if last_first else numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


PROGRAMS = {
    "dies": "touch begun.$1; sleep 600",
    "saves": "trap 'sleep 1; touch saved.$1; exit 0' XCPU USR1; touch begun.$1; while :; do sleep 0.05; done",
    "complains": "trap 'exit 3' XCPU USR1; touch begun.$1; while :; do sleep 0.05; done",
}


@pytest.mark.parametrize("number", [signal.SIGXCPU, signal.SIGUSR1])
@pytest.mark.parametrize("how", PROGRAMS)
def test_a_program_that_ends_by_a_signal_to_the_whole_job_runs_again(folder, environment, number, how):
    (folder / "job.sh").write_text(PROGRAMS[how])
    spec = sweep(folder, '{ command = "bash job.sh {x}" }', "[limits]\ngrace = 60\n")
    process = start(folder, environment, "run", spec, "-n", "2", "-o", "r.h5")
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    send_to_whole_job(process, number)
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["waiting"] * 4
    assert set(found.attempts["end"].tolist()) <= {"interrupted", "reclaimed"}
    assert len(list(folder.glob("saved.*"))) == (2 if how == "saves" else 0)


FUNCTIONS = {
    "saves": """
def run(trial):
    Path(f"begun.{trial.number}").touch()
    while not trial.should_stop():
        time.sleep(0.002)
    Path(f"saved.{trial.number}").touch()
""",
    "has a helper": """
def run(trial):
    helper = subprocess.Popen(["sleep", "600"])
    Path(f"begun.{trial.number}").touch()
    if helper.wait() != 0:
        raise RuntimeError("the helper has died")
    return 1.0
""",
    "handles it itself": """
def run(trial):
    told = []
    for number in (signal.SIGUSR1, signal.SIGXCPU):
        signal.signal(number, lambda *_: told.append(1))
    Path(f"begun.{trial.number}").touch()
    while not told:
        time.sleep(0.002)
    return 0.5
""",
    "has it end itself": """
def run(trial):
    for number in (signal.SIGUSR1, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    Path(f"begun.{trial.number}").touch()
    time.sleep(600)
""",
}


@pytest.mark.parametrize("number", [signal.SIGXCPU, signal.SIGUSR1])
@pytest.mark.parametrize("how", FUNCTIONS)
def test_a_function_that_ends_by_a_signal_to_the_whole_job_runs_again(folder, environment, number, how):
    process = start(
        folder,
        environment,
        "run",
        function(folder, FUNCTIONS[how], "[limits]\ngrace = 3"),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    send_to_whole_job(process, number, last_first=how != "has a helper")
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["waiting"] * 4
    assert set(found.attempts["end"].tolist()) <= {"interrupted", "reclaimed"}
    assert len(list(folder.glob("saved.*"))) == (2 if how == "saves" else 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
@pytest.mark.parametrize("kind", ["function", "program"])
def test_no_trial_is_blamed_for_a_signal_that_ends_trials_but_no_rank(folder, environment, number, kind):
    """Under nohup the ranks ignore a signal that ends all other processes."""
    if kind == "program":
        (folder / "job.sh").write_text("echo x >> begun.$1; until test -e go; do sleep 0.02; done")
        spec = sweep(folder, '{ command = "bash job.sh {x}" }')
    else:
        spec = function(
            folder,
            """
def run(trial):
    with open(f"begun.{trial.number}", "a") as begun:
        begun.write("x\\n")
    while not Path("go").exists():
        time.sleep(0.01)
    return 1.0
""",
        )
    with signals_ignored():
        process = start(folder, environment, "run", spec, "-n", "1", "-o", "r.h5")
    wait_for(lambda: any(path.read_text() for path in folder.glob("begun.*")))
    send_to_whole_job(process, number)
    wait_for(lambda: sum(len(path.read_text().split()) for path in folder.glob("begun.*")) >= 2)
    (folder / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 4
    assert "interrupted" in found.attempts["end"].tolist()


def test_a_trial_is_blamed_for_a_signal_that_it_sends_itself(folder, mpisweep: Run):
    code = """
def run(trial):
    how = trial.params["how"]
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1000)
    if how == "hang up":
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1000)
    if how == "usr1":
        os.kill(os.getpid(), signal.SIGUSR1)
    return 1.0
"""
    spec = function(folder, code, parameters='how = ["interrupt", "hang up", "usr1", "nothing"]')
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["state"].tolist() == ["failed", "failed", "complete", "complete"]
    assert trials["cause"].tolist() == ["exception", "crash", "", ""]
    assert trials["message"][0].startswith("KeyboardInterrupt")
    assert trials["message"][1] == "the trial process was killed by signal 1 (SIGHUP)"


# ------------------------------------------------------------------------------------- processes of a trial

FORKS = """
def run(trial):
    how = trial.params["how"]
    child = os.fork()
    if child == 0:
        if how == "raises":
            raise ValueError("in the child")
        if how == "exits":
            sys.exit(7)
        if how == "says why":
            sys.exit("not so")
        return 999.0
    _, status = os.waitpid(child, 0)
    return {"loss": 1.0, "status": os.waitstatus_to_exitcode(status)}
"""


def test_only_the_process_that_was_given_a_trial_answers_for_it(folder, mpisweep: Run):
    spec = function(folder, FORKS, parameters='how = ["returns", "raises", "exits", "says why"]')
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["loss"].tolist() == [1.0] * 4
    assert found.trials["status"].tolist() == [0.0, 1.0, 7.0, 1.0]
    assert found.attempts["end"].tolist().count("ended") == 4
    logs = "".join(log.read_text() for log in (folder / "r.h5.logs").glob("rank-*.log"))
    assert "ValueError: in the child" in logs
    assert "Traceback" not in done.stderr


def test_a_process_that_a_module_has_forked_while_it_was_imported_runs_no_trial(folder, mpisweep: Run):
    code = "if os.fork() == 0:\n    Path('forked').touch()\ndef run(trial):\n    return float(os.getpid())\n"
    done = mpisweep("run", function(folder, code), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert (folder / "forked").exists()
    assert len(set(package.load(folder / "r.h5").trials["loss"].tolist())) == 1


# ------------------------------------------------------------------------------------- state

STATE = """
import ctypes, json, locale, random, resource
{imports}

def state(trial):
    {imports}
    variables = subprocess.run(["env", "-0"], capture_output=True, text=True, check=True).stdout.split("\\0")
    return [
        os.getcwd(), sorted(variables), sorted(os.environ.items()), sys.path, sys.argv, locale.setlocale(locale.LC_ALL),
        os.umask(0o22), [str(signal.getsignal(n)) for n in range(1, 32)], sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        signal.getitimer(signal.ITIMER_REAL), [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        random.random(), random.gauss(0, 1), {draws}
    ]

def spoil(trial):
    trial.directory.mkdir(exist_ok=True)
    os.chdir(trial.directory)
    trial.directory.rename("../gone." + str(trial.number))
    os.environ["MINE"] = "1"
    os.environ["PATH"] += ":/mine"
    del os.environ["HOME"]
    ctypes.CDLL(None).setenv(b"OF_A_LIBRARY", b"1", 1)
    sys.path.insert(0, "/mine")
    sys.argv = ["mine"]
    locale.setlocale(locale.LC_ALL, "C")
    os.umask(0o77)
    for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGXCPU, signal.SIGALRM, signal.SIGPROF):
        signal.signal(n, lambda *_: os._exit(n))
    signal.alarm(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

def run(trial):
    found = json.dumps(state(trial), default=str)
    Path(f"saw.{{trial.number}}.{{trial.rank}}").write_text(found)
    spoil(trial)
    if trial.params["x"] == 3:
        raise ValueError("a failure leaves no more than a success")
    return float(os.getpid())
"""
NUMPY = ("import numpy as np", "float(np.random.random()), float(np.random.normal())")
TORCH = ("import torch", "float(torch.rand(1)), torch.initial_seed()")


@pytest.mark.parametrize("where", ["module", "function"])
@pytest.mark.parametrize("library", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_every_trial_finds_what_the_first_one_found(folder, mpisweep: Run, library, where):
    imports, draws = library
    code = STATE.format(imports=imports, draws=draws)
    if where == "function":
        code = code.replace(f"\n{imports}\n", "\n", 1)
    spec = function(folder, code, parameters="x = { from = 1, to = 5 }")
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["state"].tolist() == ["complete", "complete", "failed", "complete", "complete"]
    assert len({pid for pid in trials["loss"].tolist() if pid == pid}) == 1, "the process was replaced"
    saw = [(folder / f"saw.{number}.0").read_text() for number in trials["started_at"].argsort()]
    if where == "function":
        # The first trial imports the library, whose generator starts at random; the later ones start alike.
        saw = saw[1:]
    assert len(set(saw)) == 1


def test_the_ranks_of_a_wide_trial_find_what_those_of_the_first_one_found(folder, mpisweep: Run):
    code = STATE.format(imports="", draws="").replace('"MASTER_PORT"', "")
    code = code.replace("sorted(variables)", "None").replace(
        "sorted(os.environ.items())", "sorted(os.environ)"
    )
    spec = function(folder, code, parameters="x = [1, 2, 4, 5]", top="ranks_per_trial = 2")
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        saw = [json.loads((folder / f"saw.{number}.{rank}").read_text()) for number in range(4)]
        assert [state[:-2] for state in saw] == [saw[0][:-2]] * 4


def test_the_ranks_of_a_wide_trial_draw_the_same_default_numbers_whatever_ran_there_before(
    folder, mpisweep: Run
):
    imports, draws = f"{NUMPY[0]}; {TORCH[0]}", f"{NUMPY[1]}, {TORCH[1]}"
    code = STATE.format(imports=imports, draws=draws).replace("    import numpy as np; import torch\n", "")
    code = code.replace("sorted(variables)", "None").replace(
        "sorted(os.environ.items())", "sorted(os.environ)"
    )
    code = code.replace('{trial.rank}").write_text', '{os.getpid()}").write_text')
    spec = function(folder, code, parameters="x = [1, 2, 4, 5, 6]", top="ranks_per_trial = 2")
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    saw: dict[str, set[str]] = {}
    for path in folder.glob("saw.*"):
        saw.setdefault(path.suffix, set()).add(path.read_text())
    assert [len(states) for states in saw.values()] == [1, 1], (
        "two processes, and each has found the same five times"
    )


#: A program records its environment, then changes everything that it can.
LOOKS_AROUND = """
import json, os, random, resource, signal, sys
own = ("MPISWEEP_TRIAL", "MPISWEEP_SEED", "MPISWEEP_REPORT", "MASTER_PORT")
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
umask = os.umask(0)
state = [
    os.getcwd(), sorted((name, value) for name, value in os.environ.items() if name not in own), umask,
    [status[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")], signal.getitimer(signal.ITIMER_REAL), os.nice(0),
    [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_STACK)],
    sorted(os.sched_getaffinity(0)), os.getpgrp() == os.getpid(), len(os.listdir("/proc/self/fd")), sys.argv[2:],
]
number, rank = os.environ["MPISWEEP_TRIAL"], os.environ.get("RANK", "0")
with open(f"saw.{number}.{rank}", "w") as saw:
    json.dump(state, saw)
os.nice(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
for name in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(name, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.alarm(1)
os.environ["MINE"] = "1"
os.makedirs(f"away.{number}.{rank}")
os.chdir(f"away.{number}.{rank}")
if sys.argv[1] == "3":
    os.kill(os.getpid(), 9)
print("loss: 1")
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_program_finds_what_the_first_one_found(folder, mpisweep: Run, ranks):
    (folder / "look.py").write_text(LOOKS_AROUND)
    spec = sweep(
        folder,
        f'{{ command = ["{sys.executable}", "look.py", "{{x}}", "a b"], env = {{ SAME = "1" }} }}',
        "[metrics]\nloss = 'loss'\n",
        "x = { from = 1, to = 5 }",
        f"ranks_per_trial = {ranks}",
    )
    done = mpisweep("run", spec, "-n", str(ranks), "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["state"].tolist() == [
        "complete",
        "complete",
        "failed",
        "complete",
        "complete",
    ]
    for rank in range(ranks):
        saw = [json.loads((folder / f"saw.{number}.{rank}").read_text()) for number in range(5)]
        assert saw == [saw[0]] * 5
        where, variables, _, signals, *_ = saw[0]
        assert where == str(folder)
        assert ["SAME", "1"] in variables
        assert signals[0] == "0" * 16, "none is blocked"


def test_the_next_trial_finds_the_folder_whatever_the_one_before_did(folder, mpisweep: Run):
    code = """
def run(trial):
    rows = len(open("data.txt").readlines())
    was_set = "MY_FLAG" in os.environ
    os.environ["MY_FLAG"] = "1"
    os.chdir(trial.directory)
    return {"loss": float(rows), "leaked": float(was_set)}
"""
    (folder / "data.txt").write_text("a\nb\n")
    done = mpisweep(
        "run", function(folder, code, parameters="x = { from = 1, to = 8 }"), "-n", "2", "-o", "r.h5"
    )
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["loss"].tolist() == [2.0] * 8
    assert trials["leaked"].tolist() == [0.0] * 8


def can_raise_limits() -> bool:
    code = "from resource import *; old = getrlimit(RLIMIT_CORE); setrlimit(RLIMIT_CORE, (0, 0)); setrlimit(RLIMIT_CORE, old)"
    return (
        subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )


@pytest.mark.parametrize("spoils", ["os.fchdir = None", "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"])
def test_state_that_cannot_be_restored_replaces_the_process_and_fails_no_trial(folder, mpisweep: Run, spoils):
    code = f"""
import resource
def run(trial):
    if trial.params["x"] == 2:
        {spoils}
        time.sleep(0.001)
    return float(os.getpid())
"""
    done = mpisweep("run", function(folder, code), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 4
    # If the user may raise the limit again, the process is kept.
    is_restored = "rlimit" in spoils and can_raise_limits()
    assert len(set(found.trials["loss"].tolist())) == (1 if is_restored else 2)
    assert "lost" not in found.attempts["end"].tolist()


COST = """
import timeit
from mpisweep.workloads.startstate import StartState
start = StartState()
print(min(timeit.repeat(lambda: start.restore(all_of_it=False), number=2000, repeat=20)) / 2000 * 1e6)
"""


@pytest.mark.parametrize("libraries", ["", "import numpy.random, torch\n"], ids=["bare", "numpy and torch"])
def test_looking_for_changes_costs_microseconds(libraries, tell):
    done = subprocess.run(
        [sys.executable, "-c", libraries + COST], capture_output=True, text=True, check=True
    )
    took_us = float(done.stdout)
    tell(
        f"a trial's state made as it was, nothing changed: {took_us:.1f} us"
        + (" with numpy and torch" if libraries else "")
    )
    assert took_us < 20


# ------------------------------------------------------------------------------ a new process for every trial

COUNTS = """
calls = 0

def run(trial):
    global calls
    calls += 1
    sys.modules["sys"].mine = getattr(sys, "mine", 0) + 1
    Path(f"ran.{trial.number}.{trial.rank}").write_text(f"{os.getpid()} {calls} {sys.mine}")
    # A rank that has not begun when rank 0 returns is skipped.
    while not Path(f"ran.{trial.number}.{trial.ranks - 1}").exists():
        time.sleep(0.001)
    return float(calls)
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("is_fresh", [True, False])
def test_with_a_fresh_process_no_state_of_a_module_outlives_its_trial(folder, mpisweep: Run, is_fresh, ranks):
    top = f"fresh_process = {str(is_fresh).lower()}\nranks_per_trial = {ranks}"
    done = mpisweep(
        "run",
        function(folder, COUNTS, parameters="x = { from = 1, to = 12 }", top=top),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 12
    # An idle worker may have received a trial reclaimed from another.
    assert set(found.attempts["end"].tolist()) <= {"ended", "reclaimed"}
    ran = [path.read_text().split() for path in folder.glob("ran.*")]
    assert len(ran) == 12 * ranks
    if is_fresh:
        assert {tuple(counts) for _, *counts in ran} == {("1", "1")}
        assert len({pid for pid, *_ in ran}) == len(ran)
    else:
        assert max(int(calls) for _, calls, _ in ran) > 1


def test_check_shows_that_every_trial_has_a_new_process(folder, mpisweep: Run):
    spec = function(folder, COUNTS, top="fresh_process = true")
    assert "  process     a new process for every trial\n" in mpisweep("check", spec).stdout
    assert "process" not in mpisweep("check", function(folder, COUNTS)).stdout


@pytest.mark.parametrize("wrong", ['"yes"', "1", "[true]"])
def test_fresh_process_must_be_true_or_false(folder, mpisweep: Run, wrong):
    done = mpisweep("check", function(folder, COUNTS, top=f"fresh_process = {wrong}"))
    assert done.returncode == 2
    assert "fresh_process: is " in done.stderr
    assert "expected true or false" in done.stderr


def test_a_workload_that_cannot_be_loaded_fails_every_trial_with_the_same_traceback(
    folder, monkeypatch: pytest.MonkeyPatch
):
    """All trials share one exception; its traceback must not grow, nor keep trials referenced."""
    # Loading appends the folder to sys.path, where other tests in this process would find its modules.
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "broken.py").write_text("raise RuntimeError('at every trial')\n")
    spec = parse_spec('workload = "broken:run"\n[parameters]\nx = [1, 2]\n', source="s.toml", folder=folder)
    fail = load_or_report(spec, folder / "outputs", None, None)
    places = []
    for _ in range(3):
        try:
            fail(None)
        except RuntimeError as error:
            places.append(len(traceback.extract_tb(error.__traceback__)))
    assert len(set(places)) == 1
