"""Parse and format numbers, durations and sizes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from mpisweep.records import Value

__all__ = [
    "CHARS_AT_MOST",
    "DURATION_AT_MOST_S",
    "configuration_text",
    "duration_text",
    "number_text",
    "parse_bytes",
    "parse_duration",
    "toml_value",
    "value_text",
]

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B")
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")
#: Beyond these a duration (30,000 years) or the text of a duration or size is a typo.
DURATION_AT_MOST_S = 1e12
CHARS_AT_MOST = 40


def parse_duration(raw: object) -> float | None:
    """Seconds of ``90``, ``"90s"``, ``"10m"``, ``"1h30m"`` or ``"1:30:00"``; else None."""
    if isinstance(raw, str):
        seconds = _text_seconds(raw) if len(raw) <= CHARS_AT_MOST else None
    elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
        seconds = float(raw) if 0 < raw <= DURATION_AT_MOST_S else None
    else:
        return None
    return seconds if seconds is not None and seconds <= DURATION_AT_MOST_S else None


def parse_bytes(raw: object) -> int | None:
    """Bytes of ``"4GiB"`` or ``"500MB"``; else None."""
    size = _MEMORY.fullmatch(raw.strip()) if isinstance(raw, str) and len(raw) <= CHARS_AT_MOST else None
    if size is None:
        return None
    prefix, binary = size[2].upper(), bool(size[3])
    return int(float(size[1]) * (1024 if binary else 1000) ** (" KMGT".index(prefix) if prefix else 0))


def _text_seconds(raw: str) -> float | None:
    text = raw.strip()
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return float(3600 * hours + 60 * minutes + seconds) or None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) or None
    if text and (parts := _DURATION.fullmatch(text)):
        hours_s, minutes_s, seconds_s = (float(part or 0) for part in parts.groups())
        return 3600 * hours_s + 60 * minutes_s + seconds_s or None
    return None


def number_text(value: float) -> str:
    """Format a number: five significant digits, without an exponent below 1e9."""
    if math.isfinite(value) and 1e5 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.5g}"


def configuration_text(values: Mapping[str, object]) -> str:
    """Format a configuration: ``batch_size=256, data=digits``."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in values.items())


def value_text(value: object) -> str:
    """Format the value of a parameter or metric."""
    return number_text(value) if isinstance(value, float) else str(value)


def duration_text(seconds: float) -> str:
    """Format a duration: ``0.02 s``, ``47 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 0.005:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def toml_value(value: Value) -> str:
    """Format a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but TOML also requires DEL to be escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
