"""Comparing the devices of a sweep by their checks: which is far below its peers.

Peers are the devices of the same kind: the same product should take them the same time, and they should
have the same memory free.  A device is compared with the median of all others, and with the lower one of two,
so that two of three devices are not low because the third is better.  Uncorrected memory errors, and a check
that failed, need no peers.

Pure: measurements in, findings out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from mpisweep.blocks import CheckedRecord

__all__ = ["LEAST_FREE", "LEAST_RATE", "findings"]

#: A device is far below its peers with less than this share of their median rate, or median free memory.
LEAST_RATE = 0.7
LEAST_FREE = 0.8


def findings(checks: Mapping[int, tuple[str, CheckedRecord]]) -> dict[int, str]:
    """Find the devices that are far below their peers.

    Args:
        checks: rank -> kind of its device, and its measurement.

    Returns:
        Rank -> what is wrong, in one sentence.
    """
    kinds: dict[str, list[int]] = {}
    for rank, (kind, _) in checks.items():
        kinds.setdefault(kind, []).append(rank)
    found: dict[int, str] = {}
    for ranks in kinds.values():
        records = [checks[rank][1] for rank in ranks]
        rates = _Medians([record.rate for record in records])
        free = _Medians([record.free_bytes for record in records])
        clocks = _Medians([record.clock_mhz for record in records])
        for rank, record in zip(ranks, records, strict=True):
            if why := _judge(record, rates, free, clocks):
                found[rank] = why
    return found


def _judge(record: CheckedRecord, rates: _Medians, free: _Medians, clocks: _Medians) -> str:
    why: list[str] = []
    if record.problem:
        why.append(f"the check failed: {record.problem}")
    if record.errors:
        why.append(f"{record.errors:,} uncorrected ECC error{'s' * (record.errors != 1)}")
    usual = rates.of_others(record.rate)
    if record.rate is not None and usual is not None and record.rate < LEAST_RATE * usual:
        text = f"matmul {record.rate:.3g} TFLOP/s, {record.rate / usual:.2f} of {_peers(rates.count - 1)}"
        usual_mhz = clocks.of_others(record.clock_mhz)
        if record.clock_mhz is not None and usual_mhz is not None:
            text += f" (clock {record.clock_mhz:.0f} MHz, theirs {usual_mhz:.0f})"
        why.append(text)
    usual = free.of_others(record.free_bytes)
    if record.free_bytes is not None and usual is not None and record.free_bytes < LEAST_FREE * usual:
        share = record.free_bytes / usual
        why.append(
            f"{record.free_bytes / 2**30:.1f} GiB of memory free, {share:.2f} of {_peers(free.count - 1)}"
        )
    return "; ".join(why)


def _peers(count: int) -> str:
    return f"the median of its {count:,} peers" if count > 1 else "its only peer"


class _Medians:
    """The median of all values but one, for any of them; of two in the middle the lower one."""

    def __init__(self, values: Sequence[float | None]) -> None:
        self._sorted = sorted(value for value in values if value is not None)
        self.count = len(self._sorted)

    def of_others(self, value: float | None) -> float | None:
        """The median of the others; None if this value is unknown, or there are no others."""
        others = self.count - 1
        if value is None or others < 1:
            return None
        place = (others - 1) // 2
        return self._sorted[place + (place >= bisect_left(self._sorted, value))]
