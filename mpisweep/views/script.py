"""What the analysis scripts share: arguments, writing a figure, errors as one sentence."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.results import ResultsError
from mpisweep.views.figure_kinds import add_figure_options, figure_kind, used_options

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep
    from mpisweep.views.figures import SweepFigure

__all__ = ["figure_arguments", "run_script", "write_figure"]


def figure_arguments(kind: str, about: str | None) -> tuple[list[Sweep], dict[str, Any], argparse.Namespace]:
    """Parse the arguments of the script of one kind of figure, and load its results files.

    Args:
        kind: of figure; its options are those of ``mpisweep figure``.
        about: docstring of the script, of which the help has the first line.

    Returns:
        The sweeps, the options of the figure that were given, and all arguments for :func:`write_figure`.

    Raises:
        ResultsError: if a file cannot be read.
    """
    from mpisweep.results.load import load

    taken = figure_kind(kind)
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="+", help="a results file")
    add_figure_options(parser, taken)
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = Path(Path(sys.argv[0]).with_suffix(".png").name)
    given = used_options(taken, arguments)
    return [load(file) for file in arguments.file], given | {"width": arguments.width}, arguments


def write_figure(figure: SweepFigure, arguments: argparse.Namespace) -> None:
    """Save a figure as ``--output`` and its numbers as ``--data``, and print the names."""
    from mpisweep.views.figures import save, write_data

    save(figure, Path(arguments.output))
    print(arguments.output)
    if arguments.data is not None:
        write_data(figure, arguments.data)
        print(arguments.data)


def run_script(main: Callable[[], None]) -> int:
    """Run the main function of an analysis script; a user error becomes one sentence.

    Returns:
        The exit code: 0, or 2 after a sentence on standard error.
    """
    try:
        main()
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, `head` for one, has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0
