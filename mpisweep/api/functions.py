"""Functions as workloads: the name and the folder by which trial processes import one.

A trial process is not a copy of the caller, and may be on another node: it imports the function by the name
of its module.  A function of a script is imported from the script's file.  A function that is typed into a
notebook or an interactive session is in no file, and is refused: its text alone does not say which of the
other cells it needs.
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mpisweep.api.errors import InputError

__all__ = ["NamedFunction", "check_not_in_trial", "named_function"]


class NamedFunction(NamedTuple):
    """A function as ``module:function``, and the folder from which its module is imported."""

    workload: str
    folder: Path


def named_function(function: Callable[..., Any]) -> NamedFunction:
    """Name a function for trial processes.

    Raises:
        InputError: if they could not import it.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or inspect.ismethod(function):
        raise InputError(
            f"workload: is {function!r}, which trial processes cannot import; expected a function of a module"
        )
    if "<" in name:
        raise InputError(
            f"workload: {name} is a lambda or is defined inside a function, where trial processes cannot "
            "import it; define it at the top level of a module"
        )
    if module == "__main__":
        return _of_main(function, name)
    return NamedFunction(f"{module}:{name}", _folder_of(module))


def check_not_in_trial(call: str) -> None:
    """Refuse a call from a process that imports the module of a workload.

    Args:
        call: name of the called function.

    Raises:
        InputError: if this is a trial process, or the check of the workload before a run.
    """
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_check = main is not None and main.name.startswith("mpisweep.workloads.")
    if is_check or "mpisweep.workloads.serve" in sys.modules:
        raise InputError(
            f"{call} is called where the module of a workload is imported; put the call under "
            '`if __name__ == "__main__":`'
        )


def _of_main(function: Callable[..., Any], name: str) -> NamedFunction:
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        # `python -m package.module`
        folder = _folder_of(spec.name) if "." in spec.name else Path(str(file)).resolve().parent
        return NamedFunction(f"{spec.name}:{name}", folder)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if file is None or code is None or not _is_same(code.co_filename, file):
        _refuse_typed(name)
    script = Path(file).resolve()
    if script.suffix != ".py" or not script.stem.isidentifier():
        raise InputError(
            f"workload: {name} is in {script.name}, which is not a module name that trial processes could "
            "import; rename the file to letters, digits and underscores, with the ending .py"
        )
    return NamedFunction(f"{script.stem}:{name}", script.parent)


def _refuse_typed(name: str) -> NoReturn:
    if "IPython" in sys.modules:
        raise InputError(
            f"workload: {name} is defined in the notebook, where trial processes cannot import it; put "
            f"`%%writefile mytrial.py` on the first line of its cell, with the imports it needs, run it, "
            f"and then use `from mytrial import {name}`"
        )
    raise InputError(
        f"workload: {name} is defined in an interactive session, where trial processes cannot import it; "
        f"write it to a file, such as mytrial.py, and use `from mytrial import {name}`"
    )


def _is_same(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def _folder_of(module: str) -> Path:
    """The folder that must be on the path to import a module; the working directory if it is installed."""
    top = sys.modules.get(module.partition(".")[0])
    places = [str(place) for place in getattr(top, "__path__", [])] or [getattr(top, "__file__", None) or ""]
    if not places[0]:
        return Path.cwd()
    folder = Path(places[0]).resolve().parent
    installed = (sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib"))
    return Path.cwd() if str(folder) in {str(Path(place).resolve()) for place in installed} else folder
