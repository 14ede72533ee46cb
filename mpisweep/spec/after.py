"""``after``: numbers of the best configuration of another sweep.

::

    after = "coarse.h5"

    [parameters]
    learning_rate = { from = "{best.learning_rate} / 3", to = "{best.learning_rate} * 3", scale = "log" }

The other sweep is read once, when this one is made.  From then on the text of the sweep file, in the results
file and in every process, has what was found in place of the file's name, so that it means the same whatever
becomes of the other file::

    after = { file = "coarse.h5", trial = 17, objective = "loss", value = 0.4, runs = 3, best = { ... } }

:mod:`~mpisweep.spec.best_values` evaluates such texts, without ``eval``.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mpisweep.dataclass import asdict, dataclass
from mpisweep.records import Value
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.units import configuration_text, number_text

if TYPE_CHECKING:
    from mpisweep.spec.wording import Wording

__all__ = ["After", "ReadAfter", "with_best"]

#: What a text contains that stands for a value.
_MARK = "{best."
#: The keys of a range, and of a list with more than values, that such a text may stand for.
_OF_PARAMETERS = ("from", "to", "step", "values")


@dataclass(frozen=True, slots=True)
class After:
    """The best configuration of an earlier sweep.

    Attributes:
        file: its results file, as the sweep file names it.
        trial: first trial of the configuration.
        objective: by which it is the best.
        value: mean of the objective.
        runs: number of trials in this mean.
        best: searched and fixed parameter -> value.
    """

    file: str
    trial: int
    objective: str
    value: float
    runs: int
    best: Mapping[str, Value]

    @property
    def table(self) -> dict[str, Any]:
        """As a sweep file has it."""
        return asdict(self)

    def __str__(self) -> str:
        mean = f", mean of {self.runs} runs" if self.runs > 1 else ""
        return (
            f"{self.file}, trial {self.trial} ({self.objective} {number_text(self.value)}{mean}): "
            f"{configuration_text(self.best)}"
        )


#: Reads the best configuration: from the name of a results file, for the sweep of a name.
ReadAfter = Callable[[str, str], After]


def _parse(wording: Wording, found: object) -> After | None:
    """Parse the table that stands for a file that was read; None if there is no such key."""
    if found is None:
        return None
    kinds = {"file": str, "trial": int, "objective": str, "value": (int, float), "runs": int, "best": dict}
    if not isinstance(found, Mapping) or found.keys() != kinds.keys():
        wording.fail("after", f'is {found!r}; expected a results file, such as "coarse.h5"')
    for name, kind in kinds.items():
        if not isinstance(found[name], kind):  # type: ignore[arg-type]
            wording.fail(f"after.{name}", f"is {found[name]!r}; results files set it, and nobody else")
    for name, value in found["best"].items():
        if not isinstance(value, (int, float, str, bool)):
            wording.fail(f"after.best.{name}", f"is {value!r}; expected one number, string or boolean")
    return After(**found)


def with_best(wording: Wording, raw: Mapping[str, Any]) -> tuple[dict[str, Any], After | None]:
    """Put values in place of texts that contain ``{best.NAME}``; also return ``after``.

    Args:
        wording: of the sweep.
        raw: its keys.

    Raises:
        SpecError: if a text has no value, or ``after`` is not what was read from a file.
    """
    made, after = dict(raw), _parse(wording, raw.get("after"))
    for table in ("parameters", "fixed", "baseline"):
        entries = raw.get(table)
        if isinstance(entries, dict):
            made[table] = {
                name: _entry(wording, f"{table}.{name}", entry, after) for name, entry in entries.items()
            }
    return made, after


def _entry(wording: Wording, key: str, entry: Any, after: After | None) -> Any:
    if isinstance(entry, list):
        return [_value(wording, key, value, after) for value in entry]
    if isinstance(entry, dict):
        return {
            name: _entry(wording, key, value, after) if name in _OF_PARAMETERS else value
            for name, value in entry.items()
        }
    return _value(wording, key, entry, after)


def _value(wording: Wording, key: str, text: Any, after: After | None) -> Any:
    """The value of one text; anything that is no such text stays."""
    if not isinstance(text, str) or _MARK not in text:
        return text
    if after is None:
        wording.fail(key, f'is {text!r}; set after = "FILE.h5", the results file of an earlier sweep')
    from mpisweep.spec.best_values import best_value

    try:
        return best_value(text, after.file, after.best)
    except ExpressionError as error:
        wording.fail(key, str(error))
