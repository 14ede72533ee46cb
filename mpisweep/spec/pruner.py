"""The value of ``prune``: a name, or a pruner of Optuna with its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpisweep.spec.keys import PRUNER_NAMES, nearest
from mpisweep.spec.model import PrunerChoice
from mpisweep.spec.wording import Wording

__all__ = ["WRAPPED", "parse_pruner"]

#: The option that is a pruner itself.
WRAPPED = "wrapped_pruner"
_EXAMPLE = 'a pruner of Optuna, such as { pruner = "MedianPruner", n_startup_trials = 10 }'


def parse_pruner(wording: Wording, value: object, key: str = "prune") -> PrunerChoice:
    """Parse a pruner; whether Optuna has it with these options is checked before a sweep starts.

    Raises:
        SpecError: if the value has another form.
    """
    if isinstance(value, str):
        if key == "prune" and value not in PRUNER_NAMES:
            wording.fail(key, f"is {value!r}; {nearest(value, PRUNER_NAMES)}, or {_EXAMPLE}")
        return PrunerChoice(value, {})
    if not isinstance(value, Mapping) or not isinstance(value.get("pruner"), str):
        wording.fail(key, f"is {value!r}; expected one of {', '.join(PRUNER_NAMES)}, or {_EXAMPLE}")
    options: dict[str, Any] = {}
    for name, option in value.items():
        if name == "pruner":
            continue
        if name == WRAPPED:
            option = parse_pruner(wording, option, f"{key}.{name}")
        elif isinstance(option, (dict, list)):
            wording.fail(f"{key}.{name}", f"is {option!r}; expected a number, string or boolean")
        options[name] = option
    return PrunerChoice(value["pruner"], options)
