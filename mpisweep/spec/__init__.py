"""Parse a sweep file, or flags, into a frozen Spec, and report every user error.

The message of a :class:`SpecError` is one sentence: file, key, what was found, what is expected.  Nothing
outside this package checks the user's input again.
"""

from __future__ import annotations

from mpisweep.spec.after import After, ReadAfter
from mpisweep.spec.hooks import Hooks
from mpisweep.spec.keys import (
    ADAPTIVE,
    ADDING,
    LEARNING,
    OPTUNA,
    PRUNER_NAMES,
    SEARCH_NAMES,
    closest,
    nearest,
    one_of,
)
from mpisweep.spec.model import (
    RANKS,
    BuiltinWorkload,
    CommandWorkload,
    FunctionWorkload,
    ImportSource,
    Limits,
    PrunerChoice,
    Repeats,
    SamplerChoice,
    Spec,
    SpecError,
    StopRules,
    Workload,
)
from mpisweep.spec.quick import spec_from_flags
from mpisweep.spec.sweepfile import load_spec, parse_spec
from mpisweep.spec.units import parse_duration
from mpisweep.spec.wording import COMMAND_LINE

__all__ = [
    "ADAPTIVE",
    "ADDING",
    "COMMAND_LINE",
    "LEARNING",
    "OPTUNA",
    "PRUNER_NAMES",
    "RANKS",
    "SEARCH_NAMES",
    "After",
    "BuiltinWorkload",
    "CommandWorkload",
    "FunctionWorkload",
    "Hooks",
    "ImportSource",
    "Limits",
    "PrunerChoice",
    "ReadAfter",
    "Repeats",
    "SamplerChoice",
    "Spec",
    "SpecError",
    "StopRules",
    "Workload",
    "closest",
    "load_spec",
    "nearest",
    "one_of",
    "parse_duration",
    "parse_spec",
    "spec_from_flags",
]
