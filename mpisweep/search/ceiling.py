"""Proposals that need no less memory than a trial that ran out of it.

A learning search proposes one configuration after another, so there is no frontier to look for
(:mod:`mpisweep.search.frontier`): the search itself goes where the objective is best.  But what is known to
be out of reach is not run.  A proposal is *above the ceiling* of a kind of device if a trial ran out of
memory there that needs no more by any parameter with ``memory``, and agrees with it in all integers and
choices.

Real numbers, such as a learning rate, are taken to need no memory unless they say ``memory``: no two
proposals would ever agree in one.

A trial that fits although a smaller one ran out of memory counts, as on the frontier.

Pure: evidence in, answers out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence

from mpisweep.records import Value
from mpisweep.search.evidence import Evidence
from mpisweep.search.lines import Comparable, Group, needs_at_most, signs_of

__all__ = ["Ceiling"]


class Ceiling:
    """What ran out of memory and what fitted, by kind of device.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the memory parameters: ``increasing`` or ``decreasing``.
        ignored: parameters that do not change the memory.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Value | None]],
        directions: Mapping[str, str],
        ignored: Container[str],
    ) -> None:
        self._directions = directions
        self._trials = Comparable(columns, directions, ignored)
        #: (group, kind of device) -> trials that ran out of memory there, and that fitted.
        self._too_large: dict[tuple[Group, str], list[int]] = {}
        self._fits: dict[tuple[Group, str], list[int]] = {}
        #: Kind of device -> number of its slots that get trials.
        self._slots: Counter[str] = Counter()
        #: Whether anything is new since :meth:`above`.
        self.is_due = True

    def add(self, configurations: Iterable[Mapping[str, Value | None]]) -> None:
        """Add the next trials."""
        self._trials.add(configurations)
        self.is_due = True

    def join(self, kind: str) -> None:
        """Note that a slot of this kind gets trials from now on."""
        self._slots[kind] += 1
        self.is_due = True

    def leave(self, kind: str) -> None:
        """Note that a slot of this kind gets no more trials."""
        self._slots[kind] -= 1
        self.is_due = True

    def learn(self, number: int, kind: str | None, evidence: Evidence) -> None:
        """Learn from the end of a trial; on several kinds of devices at once it shows nothing."""
        if kind is None or evidence is Evidence.NOTHING:
            return
        found = self._fits if evidence is Evidence.FITS else self._too_large
        found.setdefault((self._trials.groups[number], kind), []).append(number)
        self.is_due = True

    def above(self, numbers: Iterable[int]) -> list[tuple[int, str]]:
        """Those of these trials that fit on no kind of device that there is, and why."""
        self.is_due = False
        kinds = sorted(kind for kind, count in self._slots.items() if count)
        if not kinds or not self._too_large:
            return []
        found = ((number, [self._shown_by(number, kind) for kind in kinds]) for number in numbers)
        return [
            (number, self._why(kinds, [one for one in shown if one is not None]))
            for number, shown in found
            if None not in shown
        ]

    def _shown_by(self, number: int, kind: str) -> int | None:
        """The trial that shows that this one needs too much on this kind; None if none does."""
        key = self._trials.groups[number], kind
        needs = self._trials.needs
        for other in self._too_large.get(key, ()):
            if not needs_at_most(needs[other], needs[number]):
                continue
            fits = self._fits.get(key, ())
            if not any(needs_at_most(needs[other], needs[fitted]) for fitted in fits):
                return other
        return None

    def _why(self, kinds: Sequence[str], shown: Sequence[int]) -> str:
        """Say why, e.g. ``batch_size 412 ran out of memory on NVIDIA H100``."""
        signs = signs_of(self._directions)
        texts: list[str] = []
        for kind, number in zip(kinds, shown, strict=True):
            needs = zip(self._directions, signs, self._trials.needs[number], strict=True)
            values = ", ".join(f"{name} {sign * need:g}" for name, sign, need in needs)
            texts.append(f"{values} ran out of memory on {kind}")
        return "; ".join([*texts, "what needs more was not run"])
