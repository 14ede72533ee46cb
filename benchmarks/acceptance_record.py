"""The record of one part of the acceptance, written after every check: a part that is ended keeps it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mpisweep

__all__ = ["Part"]


class Part:
    """The record of one part.

    Args:
        folder: of this part.
        output: of all parts.
        budget_s: what it may take.
        is_rehearsal: whether it runs on a CPU, at tiny sizes.
    """

    def __init__(self, folder: Path, output: Path, budget_s: float, *, is_rehearsal: bool) -> None:
        self.folder, self.output, self.budget_s, self.is_rehearsal = folder, output, budget_s, is_rehearsal
        self.checks: list[tuple[str, bool, str]] = []
        self.numbers: dict[str, Any] = {}
        self.not_run: list[str] = []
        self._save()

    def check(self, what: str, ok: bool, detail: str) -> None:
        """Record whether something held."""
        self.checks.append((what, bool(ok), detail))
        self._save()

    def note(self, **numbers: Any) -> None:
        """Record numbers."""
        self.numbers |= numbers
        self._save()

    def leave_out(self, what: str) -> None:
        """Record what could not run here."""
        self.not_run.append(what)
        self._save()

    def _save(self) -> None:
        status = "NOT RUN" if not self.checks else "PASS" if all(ok for _, ok, _ in self.checks) else "FAIL"
        found = {
            "status": status, "checks": self.checks, "numbers": self.numbers, "not_run": self.not_run,
        }  # fmt: skip
        aside = self.folder / "result.json.new"
        aside.write_text(json.dumps(found), encoding="utf-8")
        aside.replace(self.folder / "result.json")

    def start(self, name: str, text: str, *more: str) -> subprocess.Popen[bytes]:
        """Start `mpisweep run` of a sweep file with one worker."""
        (self.folder / f"{name}.toml").write_text(text, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "mpisweep",
            "run",
            f"{name}.toml",
            "-o",
            f"{name}.h5",
            "-n",
            "1",
            *more,
        ]
        return subprocess.Popen(command, cwd=self.folder)

    def sweep(self, name: str, text: str, *more: str) -> mpisweep.Sweep:
        """Run a new sweep to its end, with one worker."""
        code = self.start(name, text, "--fresh", *more).wait()
        self.check(f"the sweep {name} ends", code == 0, f"exit code {code}")
        return mpisweep.load(self.folder / f"{name}.h5")
