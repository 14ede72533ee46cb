"""Nodes that all run on this machine, each with its own host name."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

__all__ = ["CAN_NAME_NODES", "needs_named_nodes"]

CAN_NAME_NODES = (
    os.geteuid() == 0
    and shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0
)
needs_named_nodes = pytest.mark.skipif(not CAN_NAME_NODES, reason="naming nodes takes root and unshare")
