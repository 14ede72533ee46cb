"""Read numbers from program output, and never a number that was not printed.

Accepted:

* signs, decimals and exponents of any language: ``-1.5``, ``.5``, ``1.2E+03``, Fortran's ``0.123D-01`` and
  ``1.2345-101``;
* NaN and infinity in any spelling: ``NAN``, ``-inf``, ``Infinity``, ``-1.#IND``, JSON's ``null``;
* thousands separated by commas, underscores or apostrophes, if unambiguous: ``12,345.6``;
* a unit or punctuation after the number: ``12.5s``, ``340MB/s``, ``50%``, ``0.25,``, ``3.0}``.

Rejected, because ambiguous or not a number: ``0,25``, ``1.234,5``, ``1.2.3``, ``2026-11-26``, ``12:30``,
``0x1F``, ``1e``.

Pure.
"""

from __future__ import annotations

import math
import re

__all__ = ["AFTER_WORD", "plain", "read_number"]

#: Escape sequences of terminals (ECMA-48): control sequences, operating system commands, two-byte escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])")
#: Separator between a word and its number; the group ``value`` looks ahead at the number.
AFTER_WORD = r"""["']?\s*[:=]?\s*(?=(?P<value>[-+\u2212]?(?:[\d.]|(?i:nan|inf|null)(?![a-hj-z]))\S*))"""

_NOTHING = re.compile(r"[-+]?(?:nan(?:\(\w*\))?|1\.?#(?:q|s)nan|1\.?#ind|null)(?!\w)", re.IGNORECASE)
_INFINITE = re.compile(r"(?P<sign>[-+]?)(?:inf(?:inity)?|1\.?#inf)(?!\w)", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<whole>[-+]?(?:[1-9]\d{0,2}(?:(?P<mark>[,_'])\d{3})(?:(?P=mark)\d{3})*(?![\d_'])|\d+|(?=\.\d)))"
    r"(?P<part>\.\d*)?"
    r"(?P<exponent>[eEdDqQ][-+]?\d+)?"
)
#: An exponent of three digits, for which Fortran omits the letter.
_LETTERLESS = re.compile(r"[-+]\d{3}(?!\d)")
#: End of a number: nothing, punctuation that does not continue it, or a unit.
_END = re.compile(
    r"(?:[.,:;/]?(?![\w.,:+-])|[,;/]\D|[%)\]}\"'|>*!]|(?![eEdDqQxX_](?:\d|\W|$))[^\W\d_]+(?![\d_]))"
)


def plain(line: str) -> str:
    """Remove terminal escape sequences from a line."""
    return _ESCAPES.sub("", line) if "\x1b" in line else line


def read_number(text: str) -> float | None:
    """Read the number at the beginning of `text`; None if there is none or it is ambiguous.

    Args:
        text: one word of a line: the number, then its unit or punctuation.
    """
    text = text.strip().replace("\u2212", "-")
    if _NOTHING.match(text):
        return math.nan
    if found := _INFINITE.match(text):
        return -math.inf if found["sign"] == "-" else math.inf
    found = _NUMBER.match(text)
    if found is None or not (found["whole"].strip("+-") or found["part"]):
        return None
    end = found.end()
    mantissa = found["whole"].translate(_MARKS) + (found["part"] or "")
    exponent = found["exponent"] or ""
    letterless = _LETTERLESS.match(text, end) if found["part"] and not exponent else None
    if letterless is not None:
        exponent, end = f"e{letterless[0]}", letterless.end()
    if end < len(text) and not _END.match(text, end):
        return None
    return float(mantissa + re.sub("[dDqQ]", "e", exponent))


_MARKS = {ord(mark): None for mark in ",_'"}
