"""A real Jupyter kernel, and what a notebook would show of its cells."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager
from waiting import PATIENCE_S


class Kernel:
    """A kernel in a folder; a cell's displays are updated as a front end does."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self.manager = manager
        self._client = client
        #: Updates of displays, over all cells.
        self.updates = 0

    def begin(self, code: str) -> str:
        """Send a cell."""
        return str(self._client.execute(code))

    def end(self, cell: str) -> list[dict[str, Any]]:
        """Wait for the end of a cell, and return its outputs, as in a notebook's file."""
        outputs: list[dict[str, Any]] = []
        displays: dict[str, dict[str, Any]] = {}
        while True:
            message = self._client.get_iopub_msg(timeout=PATIENCE_S)
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                self._client.get_shell_msg(timeout=PATIENCE_S)
                return outputs
            if kind == "update_display_data":
                self.updates += 1
                displays[content["transient"]["display_id"]].update(data=content["data"])
            elif kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append(content | {"kind": kind})
                if display := content.get("transient", {}).get("display_id"):
                    displays[display] = outputs[-1]

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell to its end."""
        return self.end(self.begin(code))


@contextmanager
def kernel_in(folder: Path, environment: Mapping[str, str]) -> Iterator[Kernel]:
    """Start a kernel with this environment; it is shut down at the end."""
    # Sockets in files: no port is opened.
    manager = KernelManager(transport="ipc", ip=f"{environment['TMPDIR']}/kernel")
    # Of this interpreter, whatever kernels are installed.
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(cwd=str(folder), env=dict(environment))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def text_of(outputs: list[dict[str, Any]]) -> str:
    """All text of a cell's outputs, without colours."""
    return "\n".join(
        str(one.get("text", "") or one.get("data", {}).get("text/plain", "") or one.get("evalue", ""))
        for one in outputs
    )
