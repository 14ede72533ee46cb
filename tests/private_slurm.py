"""A private Slurm on this machine: a controller and three node daemons.  Takes root, and Slurm's and munge's programs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import psutil
from waiting import PATIENCE_S, wait_for

__all__ = ["DAEMONS", "NODES", "Cluster", "node_of"]

NODES = ("n1", "n2", "n3")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=3
SlurmdTimeout=300
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[3]}] CPUs={cores} RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A Slurm cluster of three nodes with `cores` cores each; its commands need `environment`."""

    def __init__(self, folder: Path, environment: dict[str, str], *, cores: int = 4) -> None:
        self.folder = folder
        self.cores = cores
        self.environment = environment | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        folder = self.folder
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(host=host, ports=free_ports(4), folder=folder, cores=self.cores)
        )
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        files = {
            "socket": "munge.socket",
            "key-file": "munge.key",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        self._run(
            "munged",
            "munged",
            "--foreground",
            "--force",
            *(f"--{name}={folder / file}" for name, file in files.items()),
        )
        wait_for(lambda: (folder / "munge.socket").exists())
        self._run("slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%D %t") == "3 idle")

    def start_node(self, node: str) -> None:
        self._run(node, "slurmd", "-D", "-N", node)

    def stop(self) -> None:
        """End the daemons that this cluster started."""
        self.ask("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.ask("squeue", "--noheader") == "", 20)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=10)
            daemon.kill()
            daemon.wait()

    def lose(self, node: str) -> list[psutil.Process]:
        """Kill all processes of a node at once: its daemon, the daemons of its job steps, and their children."""
        ours = [process for process in psutil.process_iter() if node_of(process) == node]
        steps = {step for process in ours for step in process.parents() if step.name() == "slurmstepd"}
        # Not the launcher's own node.
        lost = [psutil.Process(self._daemons[node].pid), *steps, *ours]
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in lost:
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(process)
        self._daemons.pop(node).wait()
        return lost

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return done.stdout.strip()

    def submit(self, folder: Path, *lines: str, options: tuple[str, ...] = ()) -> str:
        """Submit a script on all nodes; return the job's id."""
        (folder / "job.sh").write_text("#!/bin/bash\n" + "\n".join(lines) + '\necho "$?" > rc\n')
        (folder / "rc").unlink(missing_ok=True)
        command = [
            "sbatch",
            "--parsable",
            "--nodes=3",
            "--ntasks-per-node=1",
            "--output=log",
            "--open-mode=append",
            *options,
            "job.sh",
        ]
        done = subprocess.run(
            command,
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def wait(self, job: str, seconds: float = 120) -> None:
        """Wait for the end of a job."""
        wait_for(lambda: self.ask("squeue", "--noheader", "--jobs", job, "--states=PD,R,CG") == "", seconds)

    def _run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("w") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


def free_ports(count: int) -> list[int]:
    """Find consecutive free ports."""
    for first in range(20000 + os.getpid() % 8000, 32000, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            for port in range(first, first + count):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return list(range(first, first + count))
    raise AssertionError("no free ports")


def node_of(process: psutil.Process) -> str:
    """The Slurm node of a process; empty outside of nodes and for processes that a remote launcher started."""
    try:
        return process.environ().get("SLURMD_NODENAME", "")
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""
