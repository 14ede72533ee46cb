"""Progress: a bar in a terminal, a display in a notebook, lines in a log."""

from __future__ import annotations

import contextlib
import html
import os
import sys
from collections.abc import Iterator
from typing import Any

from mpisweep.batch.output import PlainView, View
from mpisweep.progress import Progress, progress_line

__all__ = ["chosen_view"]


class NotebookView:
    """One display below the cell that is updated, and output as it comes.

    Args:
        display: ``IPython.display.display``.
    """

    def __init__(self, display: Any) -> None:
        self._display = display
        self._handle: Any = None

    def write(self, line: str, *, error: bool = False) -> None:
        """Print a line.

        To standard output, also for lines of standard error: a notebook marks that as a failure, and most of
        what ranks log is none.
        """
        print(line, flush=True)

    def show(self, progress: Progress) -> None:
        """Update the display."""
        text = progress_line(progress)
        bundle = {
            "text/plain": text,
            "text/html": f'<progress value="{progress.ended}" max="{max(progress.total, 1)}" '
            f'style="width: 20em; vertical-align: middle"></progress> {html.escape(text)}',
        }
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


@contextlib.contextmanager
def chosen_view() -> Iterator[tuple[View, bool]]:
    """The view for where this process runs, and whether the ranks are to send it their progress."""
    if (display := _notebook_display()) is not None:
        yield NotebookView(display), True
        return
    from rich.console import Console

    from mpisweep.batch.bar import Bar

    console = Console(stderr=True)
    if console.is_terminal and os.environ.get("TERM") != "dumb":
        with Bar(console) as bar:
            yield bar, True
        return
    yield PlainView(), False


def _notebook_display() -> Any:
    """``IPython.display.display`` in the kernel of a notebook; else None."""
    # Where IPython is not imported there is no notebook.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from importlib import import_module

    return import_module("IPython.display").display
