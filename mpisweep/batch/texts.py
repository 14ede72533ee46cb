"""Reading and writing durations, dates, counts and words as batch systems print them."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["clock", "duration_s", "first_word", "moment", "positive", "whole", "words"]

_DURATION = re.compile(r"(?:(?:(\d{1,5})-)?(\d{1,6}):)?(\d{1,4}):(\d{2})(?:\.\d+)?\Z", re.ASCII)
#: A complete time of day.
_TIME = re.compile(r"(?<!\d)\d{1,2}:\d{2}:\d{2}(?!\d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}\Z", re.ASCII)


def clock(seconds: float) -> str:
    """Format seconds as ``2:00:00``, which all systems accept."""
    whole_s = round(seconds)
    return f"{whole_s // 3600}:{whole_s % 3600 // 60:02d}:{whole_s % 60:02d}"


def duration_s(text: str) -> float | None:
    """Read ``[[days-]hours:]minutes:seconds`` or plain seconds; None for anything else."""
    text = text.strip()
    if _NUMBER.match(text):
        return float(text)
    found = _DURATION.match(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24.0 * days + hours) * 60 + minutes) * 60 + seconds


def moment(text: str, *formats: str) -> float | None:
    """Read a local time in one of the formats as seconds since 1970; None for anything else."""
    for layout in formats if _TIME.search(text) else ():
        try:
            return datetime.strptime(text.strip(), layout).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None


def positive(text: str | None) -> int | None:
    """Read a positive integer; None for anything else."""
    return int(text) if text and _NUMBER.match(text) and int(text) > 0 else None


def first_word(line: str) -> str:
    """The first word of a line; empty for a blank one."""
    return line.split(maxsplit=1)[0] if line.strip() else ""


def whole(text: str) -> int | None:
    """Read an integer of up to nine digits; None for anything else."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
