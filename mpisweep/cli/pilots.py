"""Arguments for pilots, and for the prediction that a plan makes."""

from __future__ import annotations

import argparse
import math

from mpisweep.cli.arguments import at_least_1
from mpisweep.spec import ADAPTIVE, Spec, SpecError

__all__ = ["check_pilot", "pilot_size", "planned_times"]

#: The duration model predicts from three measured trials on.
_PILOT_LEAST = 3


def pilot_size(text: str) -> int:
    """Parse the number of trials of a pilot."""
    count = at_least_1(text)
    if count < _PILOT_LEAST:
        raise argparse.ArgumentTypeError(
            f"durations are predicted from {_PILOT_LEAST} trials on, and {count} are fewer; use e.g. 5"
        )
    return count


def planned_times(text: str) -> tuple[float, float]:
    """Parse the median and the bound of a plan, in seconds."""
    try:
        expected, bound = map(float, text.split(","))
    except ValueError:
        expected = bound = math.nan
    if not 0 <= expected <= bound < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not two ascending numbers of seconds, e.g. 3500,4100")
    return expected, bound


def check_pilot(spec: Spec, pilot: int | None, split: int | None = None) -> None:
    """Reject a pilot of a search that chooses its trials itself, or of a split sweep.

    Raises:
        SpecError: if there can be no pilot.
    """
    if pilot is None:
        return
    if spec.search in ADAPTIVE:
        raise SpecError(
            f"{spec.source}: --pilot: {spec.search_text!r} chooses its trials from results; start the sweep, "
            "stop it after some trials with `mpisweep stop`, and plan the rest"
        )
    if split is not None:
        raise SpecError("command line: --pilot with --split: run the pilot first, and alone")
