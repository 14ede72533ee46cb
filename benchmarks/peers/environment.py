"""The environment of the tools: installed one by one, so that one that fails is listed and the others run."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from peers.catalogue import HERE, Peer

REQUIREMENTS = HERE.parent / "requirements.txt"


def prepare(folder: Path) -> str:
    """Make the environment and install what is missing; return its Python interpreter.

    A tool that cannot be installed is missed later, by :func:`missing`.
    """
    python = folder / "bin" / "python"
    stamp = folder / ".requirements"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*install, "-r", str(REQUIREMENTS)]).returncode != 0:
        for line in wanted.splitlines():
            if line and not line.startswith("#"):
                print(f"installing {line} alone", file=sys.stderr)
                subprocess.run([*install, line])
    else:
        stamp.write_text(wanted)
    return str(python)


def missing(peer: Peer, python: str) -> str:
    """Why a tool is not there: the last line of the error; empty if it is."""
    done = subprocess.run([python, "-c", f"import {peer.module}"], capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["import failed"])[-1]


def version(peer: Peer, python: str) -> str:
    """The version of a tool's distribution, or of Python."""
    ask = f"from importlib.metadata import version; print(version({peer.package!r}))"
    if not peer.package:
        ask = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()
