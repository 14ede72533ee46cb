"""Running commands of batch systems and launchers for what they print, within a time limit."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping, Sequence

__all__ = ["answer_of"]

log = logging.getLogger(__name__)


def answer_of(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Run a command; None if it cannot be started, or does not end within the limit."""
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=limit_s, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.debug("%s: %s", command[0], error)
        return None
