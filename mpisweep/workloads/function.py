"""Loading the function that a sweep names, and converting its return value to metrics."""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpisweep.spec import BuiltinWorkload, FunctionWorkload, Spec, nearest, parse_spec
from mpisweep.workloads.trial import Trial

__all__ = ["WorkloadError", "load_function", "to_metrics"]

Run = Callable[[Trial], Any]


class WorkloadError(Exception):
    """The workload is not valid; the message is for the user."""


def load_function(spec: Spec) -> Run:
    """Load the function that runs a trial of this sweep.

    A user's module is searched on Python's path first and then beside the sweep file, so that files there
    cannot replace modules of Python, torch or mpisweep.

    Raises:
        WorkloadError: when the module has no such function.
        Exception: whatever importing the user's module raises.
    """
    if isinstance(spec.workload, BuiltinWorkload):
        described = spec.built_in
        assert described is not None, "the sweep file was parsed where the workload is"
        named: Run = importlib.import_module(described.module).run
        return named
    assert isinstance(spec.workload, FunctionWorkload), "a command line is run by workloads.command"
    folder = os.fspath(spec.folder)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.import_module(spec.workload.module)
    found: object = module
    for name in spec.workload.function.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        functions = [name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_"]
        raise WorkloadError(
            f"{module.__file__} has no function {spec.workload.function!r}, "
            f"which the sweep names as its workload; {nearest(spec.workload.function, functions)}"
        )
    if spec.is_defined_by_run:
        # Imports Optuna, which other functions do not need.
        from mpisweep.workloads.objective import runner

        return runner(found, spec)
    return found


def to_metrics(returned: object, objectives: Sequence[str]) -> tuple[dict[str, float], str]:
    """Convert a workload's return value: a mapping, one number (the objective), or None.

    With several objectives it may be a tuple or list of their values, as in Optuna; one number is the first.

    Returns:
        The metrics, with NaN for values that are not numbers; and a message about those, or "".
    """
    if returned is None:
        return {}, ""
    if type(returned) is float:
        return {objectives[0]: returned}, ""
    given = returned if isinstance(returned, Mapping) else {objectives[0]: returned}
    if isinstance(returned, (tuple, list)) and len(returned) == len(objectives) > 1:
        given = dict(zip(objectives, returned, strict=True))
    metrics: dict[str, float] = {}
    odd: list[str] = []
    for name, value in given.items():
        number = _to_float(value)
        if number is None:
            odd.append(f"{str(name)!r} is {_shown(value)} ({type(value).__name__}), not a number")
        metrics[str(name)] = math.nan if number is None else number
    return metrics, "; ".join(odd)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:
        return "a value without a repr"


def _to_float(value: Any) -> float | None:
    if isinstance(value, str) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except Exception:
        # An array or tensor of several elements, an integer too large for a float, or a faulty class.
        return None


def main() -> int:
    """Load the function of the sweep file on standard input; print any problem to stderr."""
    source, folder = sys.argv[1:]
    try:
        text = sys.stdin.buffer.read().decode(errors="surrogateescape")
        load_function(parse_spec(text, source=source, folder=Path(folder)))
    except BaseException as error:
        what = "".join(traceback.format_exception_only(error)).strip()
        # Frames of the import system do not help the user.
        theirs = [
            frame for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<frozen")
            and frame.filename not in (__file__, importlib.__file__)
        ]  # fmt: skip
        where = f" (at {theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
        print(what.splitlines()[-1] + where, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
