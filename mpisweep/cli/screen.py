"""The full screen of `mpisweep watch`, with the requests that its keys make."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mpisweep.records import RequestKind

__all__ = ["has_screen", "watch_screen"]


def has_screen() -> bool:
    """Whether this Python has curses, and curses knows the terminal."""
    if importlib.util.find_spec("_curses") is None:
        return False
    from mpisweep.views.screen.terminal import can_show

    return can_show()


def watch_screen(path: Path, every_s: float) -> int:
    """Show the sweep until the user leaves, then print its status.

    Returns:
        The exit code of the run; 0 while it runs.

    Raises:
        ResultsError: if there is no sweep.
    """
    from mpisweep.views.screen.reader import Reader
    from mpisweep.views.screen.terminal import show_screen
    from mpisweep.views.status import print_status
    from mpisweep.views.watch import exit_code_of

    reader = Reader(path, every_s)
    show_screen(reader, lambda kind, trials: _ask(path, kind, trials))
    status = reader.latest.facts.watched.status
    print_status(status)
    return 0 if status.state == "running" else exit_code_of(status)


def _ask(path: Path, kind: RequestKind, trials: tuple[int, ...]) -> str:
    """Do what the command of this name does, and return what it prints."""
    if kind is RequestKind.STOP:
        from mpisweep.cli.stop import ask_to_stop

        said: list[str] = []
        ask_to_stop(path, said.append)
    else:
        from mpisweep.cli.requests import ask

        said = ask(path, kind, [range(number, number + 1) for number in trials])
    return "; ".join(said).replace(f"{path}: ", "")
