"""Common part of the stand-ins for batch systems: jobs on disk, and a keeper process per job.

Every job is a JSON file in ``$STANDIN_FOLDER``, and a keeper that waits until the jobs before it have ended,
runs its script in the background with the batch system's environment, sends the system's signals at the time
limit and at a deletion, and kills the remaining processes ten seconds later.  A variable in their environment
marks the processes of a job, including those in their own session, like a container on a real node.

``$STANDIN_LIMITS`` is JSON, ``{"GROUP": {"node": 24, "elapse": 3600}}``; a job in any other group is refused
then.  ``$STANDIN_KILL_S`` shortens the ten seconds.  A file ``ID.limit`` in the folder makes the time limit
of a job come at once, so that tests wait for events and not for time.  ``$STANDIN_MODULES`` is a folder that
every module puts on PATH.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ["STANDIN_FOLDER"])
KILL_S = float(os.environ.get("STANDIN_KILL_S", "10"))
_LOOK_S = 0.02
#: Polling interval of waiting jobs, in seconds; a chain has many of them.
_WAITING_LOOK_S = 0.1

Job = dict[str, Any]


def refuse(words: str, code: int = 1) -> NoReturn:
    """Print the reason and exit."""
    print(words, file=sys.stderr)
    sys.exit(code)


def limits() -> dict[str, dict[str, float]]:
    """Limits of the resource groups; empty if any group is accepted."""
    return json.loads(os.environ.get("STANDIN_LIMITS", "{}"))


def directives(script: str, marker: str) -> list[str]:
    """Words of all effective directives, which are those before the first command."""
    words: list[str] = []
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith(marker):
            words += shlex.split(line[len(marker) :], comments=False)
    return words


def seconds(text: str) -> float:
    """Parse ``1:00:00``, ``10:00`` or ``30``; raises ValueError for anything else."""
    parts = [int(part) for part in text.split(":")]
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise ValueError(text)
    return float(sum(part * 60**power for power, part in enumerate(reversed(parts))))


def hours(total: float, digits: int = 2) -> str:
    """Format a time limit like pjstat and qstat."""
    whole = int(total)
    return f"{whole // 3600:0{digits}d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


# ------------------------------------------------------------------------------------- jobs on disk


def new_number() -> int:
    """Reserve the number of the next job."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "counter", "a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        number = int(counter.read() or 9713) + 1
        counter.truncate(0)
        counter.write(str(number))
    return number


def write(job: Job) -> None:
    """Replace a job's file."""
    path = FOLDER / f"{job['id']}.json"
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(job))
    os.replace(aside, path)


def read(job_id: str) -> Job | None:
    """Read a job; None if it does not exist."""
    try:
        return json.loads((FOLDER / f"{job_id}.json").read_text())
    except FileNotFoundError:
        return None


def jobs() -> list[Job]:
    """All jobs in order of submission."""
    found = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    return sorted(found, key=lambda job: job["submitted"])


def launch(job: Job, script: str) -> None:
    """Queue a job and start its keeper."""
    job |= {
        "state": "queued",
        "submitted": time.time(),
        "started": None,
        "code": None,
        "user": getpass.getuser(),
    }
    (FOLDER / f"{job['id']}.script").write_text(script)
    write(job)
    with open(FOLDER / f"{job['id']}.keeper", "w") as complaints:
        subprocess.Popen(
            [sys.executable, HERE / "standin.py", job["id"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,
            cwd="/",
            # The keeper must not belong to a job that submits this one.
            env={name: value for name, value in os.environ.items() if name != "STANDIN_JOB"},
        )


def delete(job_id: str) -> bool:
    """Ask a job's keeper to end it; False if the job has ended or is unknown."""
    job = read(job_id)
    if job is None or job["state"] == "ended":
        return False
    (FOLDER / f"{job_id}.delete").touch()
    return True


def environment(job: Job, own: dict[str, str], passed: dict[str, str]) -> dict[str, str]:
    """Environment of a job: that of a login, the system's variables, and those passed explicitly.

    `module` is a shell function, as on real systems; it records the modules to load.
    """
    found = os.environ.get("STANDIN_MODULES", "")
    module = f'() {{ echo "$*" >> {shlex.quote(str(FOLDER / "modules"))}; PATH=$PATH:{shlex.quote(found)}; }}'
    login = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "LANG") if name in os.environ}
    return {
        **login,
        "PATH": f"{HERE}:/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/bash",
        "BASH_FUNC_module%%": module,
        "STANDIN_FOLDER": str(FOLDER),
        "STANDIN_KILL_S": str(KILL_S),
        "STANDIN_LIMITS": os.environ.get("STANDIN_LIMITS", "{}"),
        "STANDIN_MODULES": found,
        **passed,
        **own,
        "STANDIN_JOB": job["id"],
    }


def node_names(count: int) -> list[str]:
    """The nodes of a job: this machine once per requested node, or the names in ``$STANDIN_NODES``."""
    named = os.environ.get("STANDIN_NODES", "").split()
    return named[:count] if named else [socket.gethostname()] * count


# ------------------------------------------------------------------------------------- the keeper


def processes_of(job_id: str) -> list[int]:
    """Every process of a job."""
    # Concurrent tests may have jobs of the same name.
    marks = {f"STANDIN_JOB={job_id}".encode(), f"STANDIN_FOLDER={FOLDER}".encode()}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marks <= set((folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found


def send(job_id: str, number: int) -> None:
    """Send a signal to every process of a job."""
    for pid in processes_of(job_id):
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def keep(job_id: str) -> None:
    """Run the keeper of a job: wait, start it, enforce its limit, end it."""
    job = read(job_id)
    assert job is not None
    while not _may_start(job):
        if _deleted(job):
            return _end(job, None)
        time.sleep(_WAITING_LOOK_S)
    if _deleted(job):
        return _end(job, None)
    job |= {"state": "running", "started": time.time()}
    write(job)
    with open(job["output"], "wb") as out, open(os.devnull if job["joined"] else job["error"], "wb") as err:
        running = subprocess.Popen(
            ["/bin/bash", FOLDER / f"{job_id}.script"], cwd=job["cwd"], env=job["environment"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT if job["joined"] else err,
            start_new_session=True,
        )  # fmt: skip
        kill_at: float | None = None
        while running.poll() is None:
            now = time.time()
            if kill_at is None and _deleted(job):
                _warn(job, running.pid, job.get("delete_signal", "SIGTERM"))
                kill_at = now + KILL_S
            elif kill_at is None and (
                now >= job["started"] + job["elapse"] or (FOLDER / f"{job_id}.limit").exists()
            ):
                _warn(job, running.pid, job["limit_signal"])
                kill_at = now + KILL_S
            elif kill_at is not None and now >= kill_at:
                send(job_id, signal.SIGKILL)
            time.sleep(_LOOK_S)
    while processes_of(job_id):
        send(job_id, signal.SIGKILL)
        time.sleep(_LOOK_S)
    return _end(job, running.returncode if running.returncode >= 0 else 128 - running.returncode)


def _warn(job: Job, script: int, name: str) -> None:
    """Send a job's warning signal to all of its processes, or to the process group of its shell."""
    if job.get("warns_group"):
        with contextlib.suppress(OSError):
            os.killpg(script, getattr(signal, name))
    else:
        send(job["id"], getattr(signal, name))


def _deleted(job: Job) -> bool:
    return (FOLDER / f"{job['id']}.delete").exists()


def _may_start(job: Job) -> bool:
    before = [read(job_id) for job_id in job["after"]]
    if any(other is not None and other["state"] != "ended" for other in before):
        return False
    _delete_by_condition(job, {other["id"]: other for other in before if other is not None})
    return True


def _delete_by_condition(job: Job, before: dict[str, Job]) -> None:
    """PJM's ``sd``: delete this sub job, later ones or all, depending on exit codes of earlier ones."""
    condition = job.get("sd")
    if not condition:
        return
    codes = [before[i]["code"] for i in condition["of"] if i in before and before[i]["code"] is not None]
    compare = {"==": lambda c: c in condition["values"], "!=": lambda c: c not in condition["values"]}[
        condition["is"]
    ]
    if any(map(compare, codes)):
        step_job, _, number = job["id"].partition("_")
        for other in jobs():
            parent, _, place = other["id"].partition("_")
            later = {"one": place == number, "after": int(place or 0) >= int(number), "all": True}[
                condition["delete"]
            ]
            if parent == step_job and later and other["state"] != "ended":
                (FOLDER / f"{other['id']}.delete").touch()


def _end(job: Job, code: int | None) -> None:
    write(job | {"state": "ended", "code": code, "ended": time.time()})


if __name__ == "__main__":
    keep(sys.argv[1])
