"""Samplers and pruners of Optuna that a sweep file chooses by name, with options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from mpisweep.errors import how_to_add
from mpisweep.spec import nearest

__all__ = ["ChoiceError", "check_choice", "options_of"]


class ChoiceError(ValueError):
    """Unknown class or option; the message continues a sentence that begins with the key."""


@cache
def options_of(chosen: type) -> tuple[str, ...]:
    """Names of the options of a class."""
    return tuple(inspect.signature(chosen).parameters)


def check_choice(
    what: str,
    name: str,
    options: Mapping[str, Any],
    known: Mapping[str, type],
    make: Callable[[], object],
    *,
    without: Iterable[str] = (),
) -> None:
    """Check a class and its options.

    Args:
        what: it is: ``sampler`` or ``pruner``.
        name: of the class.
        options: its options.
        known: all classes that can be chosen, by name.
        make: creates the object, which checks the values of the options.
        without: options that cannot be set.

    Raises:
        ChoiceError: if the class does not exist, or refuses its options.
    """
    if name not in known:
        raise ChoiceError(f"{what} {name!r} does not exist; {nearest(name, known)}")
    settable = [option for option in options_of(known[name]) if option not in without]
    for option in options:
        if option not in settable:
            raise ChoiceError(f"{name} has no option {option!r}; {nearest(option, settable)}")
    try:
        make()
    except ModuleNotFoundError as error:
        module = error.name or str(error)
        raise ChoiceError(f"{name} needs {module!r}, which is not installed; {how_to_add(module)}") from error
    except Exception as error:
        plain = {name: value for name, value in options.items() if isinstance(value, (bool, int, float, str))}
        shown = ", ".join(f"{option} = {value!r}" for option, value in plain.items())
        raise ChoiceError(f"{name} refuses {shown or 'its options'}: {error}") from error
