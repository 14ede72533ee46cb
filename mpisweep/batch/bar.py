"""The live bar of a launcher; output of trials scrolls above it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from mpisweep.progress import Progress, facts_of

__all__ = ["Bar"]


class Bar:
    """The bar on a console, from ``with`` on."""

    def __init__(self, console: Console) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=False,
            refresh_per_second=5,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._rich.start()
        self._task = self._rich.add_task("trials", total=None, text="starting")
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def show(self, progress: Progress) -> None:
        """Redraw the bar."""
        assert self._task is not None
        parts = [
            f"[{colour}]{escape(text)}[/]" if colour else escape(text) for text, colour in facts_of(progress)
        ]
        self._rich.update(self._task, total=progress.total, completed=progress.ended, text=" · ".join(parts))

    def write(self, line: str, *, error: bool = False) -> None:
        """Print a line of output above the bar."""
        self._rich.console.print(
            line, markup=False, highlight=False, soft_wrap=True, style="dim" if error else None
        )
