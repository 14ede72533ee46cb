"""The options of a training taken together: its length, its target, and what contradicts.

A trial ends at the first bound that it reaches (``ends_at = "last"``: at the last): ``num_iter`` steps,
``num_samples`` images or ``seconds`` of training; 0 sets no bound.  Only whole steps are taken, so
``num_samples`` is ``ceil(num_samples / batch_size)`` steps.  ``until`` names a metric and the value at which
the trial ends before that.

Pure; nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from mpisweep.dataclass import dataclass
from mpisweep.records import Value
from mpisweep.spec.keys import nearest

__all__ = [
    "Target",
    "contradiction",
    "last_bounds",
    "parse_target",
    "planned_steps",
    "target_problem",
    "target_text",
]

#: Metric of a target -> whether a smaller value is better.  Single batches are too noisy for one.
_TARGETS = {"loss_mean": True, "accuracy": False, "val_loss": True, "val_accuracy": False}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TARGET = re.compile(rf"\s*([A-Za-z_]\w*)\s*(<=|>=|=)\s*({_NUMBER})\s*")


@dataclass(frozen=True, slots=True)
class Target:
    """A value of a metric at which a trial ends."""

    metric: str
    value: float

    def is_reached_by(self, value: float) -> bool:
        """Whether `value` is at least as good; NaN is not."""
        return value <= self.value if _TARGETS[self.metric] else value >= self.value


def parse_target(text: str) -> Target | None:
    """Parse a valid ``until``: ``loss_mean = 0.5``; None for the empty one.

    Raises:
        ValueError: if it is not valid; the message is the end of a sentence.
    """
    if not text:
        return None
    if problem := target_problem(text):
        raise ValueError(problem)
    found = _TARGET.fullmatch(text)
    assert found is not None
    return Target(found[1], float(found[3]))


def target_problem(value: object) -> str | None:
    """Why `value` is no target, as the end of a sentence; None if it is one, or empty."""
    if value == "":
        return None
    found = _TARGET.fullmatch(value) if isinstance(value, str) else None
    if found is None or not math.isfinite(float(found[3])):
        return f"is {value!r}; expected a metric and its value, such as {{ loss_mean = 0.5 }}"
    metric, comparison, _ = found.groups()
    if metric not in _TARGETS:
        return f"is {value!r}; {metric!r} cannot be a target; {nearest(metric, _TARGETS)}"
    usual = "<=" if _TARGETS[metric] else ">="
    if comparison not in ("=", usual):
        better = "smaller" if _TARGETS[metric] else "larger"
        return f"is {value!r}; a {better} {metric} is better, so expected {usual}"
    return None


def target_text(table: Mapping[str, object]) -> str | None:
    """The text of a target that is written as a table with one number; None for any other table."""
    if len(table) != 1:
        return None
    [(metric, value)] = table.items()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return f"{metric} = {value!r}"


def planned_steps(params: Mapping[str, Value]) -> int | None:
    """The number of steps that a trial takes at most; None if its time may end it later."""
    bounds: list[int] = []
    if params["num_iter"]:
        bounds.append(int(params["num_iter"]))
    if params["num_samples"]:
        bounds.append(_steps_of_samples(params))
    if params.get("ends_at") == "last":
        return None if params["seconds"] else max(bounds, default=None)
    return min(bounds, default=None)


def last_bounds(params: Mapping[str, Value]) -> dict[str, float]:
    """The bounds of a trial that ends at the last of them: steps for two of them, and seconds.

    Empty for a trial that ends at the first.
    """
    if params.get("ends_at") != "last":
        return {}
    bounds = {
        "steps": int(params["num_iter"]),
        "samples": _steps_of_samples(params),
        "seconds": float(params["seconds"]),
    }
    return {axis: amount for axis, amount in bounds.items() if amount}


def _steps_of_samples(params: Mapping[str, Value]) -> int:
    # Integers throughout: a float is not exact beyond 2**53.
    return -(-int(params["num_samples"]) // int(params["batch_size"]))


def contradiction(params: Mapping[str, Value]) -> tuple[str, str] | None:
    """The first option that contradicts others; None if all agree.

    Returns:
        Its name, and why, as the end of a sentence.
    """
    return next(_contradictions(params), None)


def _contradictions(params: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    steps, val_every, data = planned_steps(params), int(params["val_every"]), params["data"]
    if steps is None and not params["seconds"]:
        yield "num_iter", "is 0, as are num_samples and seconds; a trial needs one of them above 0"
    if steps is None and params["lr_schedule"] != "constant" and params.get("ends_at") != "last":
        yield (
            "lr_schedule",
            f"is {params['lr_schedule']!r}, which needs a number of steps; set num_iter or num_samples too",
        )
    if params.get("ends_at") == "last" and params["lr_schedule"] != "constant":
        yield (
            "lr_schedule",
            f"is {params['lr_schedule']!r}, of which each budget would see another part; "
            "with ends_at = \"last\" only 'constant' compares budgets",
        )
    if val_every >= 0 and data == "synthetic":
        yield "val_every", "needs real data: synthetic images have nothing that could be held out"
    if val_every >= 0 and data == "imagefolder" and not params["val_root"]:
        yield "val_root", "is missing; val_every needs the folder of the images that validate an imagefolder"
    target = parse_target(str(params["until"]))
    if target is None:
        return
    if target.metric.startswith("val_") and val_every < 1:
        yield (
            "until",
            f"needs {target.metric} during the training; set val_every to the steps between validations",
        )
    if target.metric == "accuracy" and data == "synthetic":
        yield "until", "needs accuracy, which synthetic images do not have"
