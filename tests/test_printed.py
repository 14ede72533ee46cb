"""Reading numbers from program output: all common notations are read, ambiguous ones are not."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisweep.spec.commandline import MetricPattern, parse_pattern
from mpisweep.spec.printed import plain, read_number


def fortran(value: float) -> str:
    """Write a number like Fortran's D format: a mantissa below one, and D."""
    mantissa, exponent = f"{value:.15e}".split("e")
    sign, digits = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    return f"{sign}0.{digits.replace('.', '')}D{int(exponent) + 1:+03d}"


def exponent_without_letter(value: float) -> str:
    """Write a number like Fortran with an exponent of three digits, which has no letter."""
    mantissa, exponent = f"{value:.16e}".split("e")
    return f"{mantissa}{exponent}" if abs(int(exponent)) >= 100 else f"{mantissa}E{exponent}"


#: Ways in which programs write a number; each must be read back as the same number.
NUMBERS = {
    "repr": repr, "e": "{:.16e}".format, "E": "{:.16E}".format, "g": "{:.17g}".format, "G": "{:.17G}".format,
    "plus": "{:+.17g}".format, "fortran": fortran, "exponent_without_letter": exponent_without_letter, "json": json.dumps,
    "d": lambda value: f"{value:.16e}".replace("e", "d"),
}  # fmt: skip
#: Lines around the number.
LINES = [
    "loss: {}",
    "loss = {}",
    "loss={}",
    "loss {}",
    "loss:{}",
    "loss\t{}",
    "  loss : {}  ",
    "[3/10] loss: {}, acc: 0.5",
    "step 4 loss={};lr=0.1",
    '{{"epoch": 3, "loss": {}}}',
    "{{'loss': {}, 'lr': 1}}",
    "(loss: {})",
    "| loss | x | loss: {} |",
    "\x1b[1mloss\x1b[0m: \x1b[32m{}\x1b[0m",
    "\x1b[38;5;12mloss={}\x1b[m.",
    "INFO:root:loss: {}",
    "loss: {}s",
    "loss: {}%",
]
STYLES = list(itertools.product(NUMBERS, LINES))
LOSS = MetricPattern("loss", "loss").compiled()


def found_in(line: str) -> list[float | None]:
    return [read_number(match["value"]) for match in LOSS.finditer(plain(line))]


@given(style=st.sampled_from(STYLES), value=st.floats(-1e300, 1e300, allow_subnormal=False))
def test_every_common_notation_is_read(style: tuple[str, str], value: float):
    number, line = style
    [found] = [one for one in found_in(line.format(NUMBERS[number](value))) if one is not None]
    assert found == value or math.isclose(found, value, rel_tol=1e-14)


@given(st.floats(min_value=1000, max_value=1e15), st.sampled_from(",_"))
def test_thousands_are_read(value: float, mark: str):
    written = f"{value:{mark}.3f}" if mark == "," else f"{value:_.3f}"
    assert found_in(f"loss: {written} images/s") == [float(f"{value:.3f}")]


@given(st.text(alphabet="0123456789.,:+-eEdDx_ '", max_size=12))
def test_only_printed_digits_are_read(text: str):
    """Except for thousands separators and exponent letters, the number is the one that Python reads."""
    found = read_number(text)
    if found is None:
        return
    digits = {"".join(c for c in text[:end] if c.isdigit()) for end in range(len(text) + 1)}
    mantissa = f"{abs(found):.17g}".split("e")[0].replace(".", "").strip("0")
    # The digits of the number are the leading digits of the text, in order.
    assert (
        found == 0
        or math.isinf(found)
        or any(shown.strip("0").startswith(mantissa[:6]) for shown in digits)
        or len(mantissa) > 12
    )


@pytest.mark.parametrize(
    "text", ["NaN", "NAN", "nan", "-nan", "nan(ind)", "null", "-1.#IND", "1.#QNAN", "nan,", "NaN]"]
)
def test_nan_is_read_in_any_form(text: str):
    value = read_number(text)
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("inf", math.inf),
        ("-INF", -math.inf),
        ("+Infinity", math.inf),
        ("1.#INF", math.inf),
        ("INF,", math.inf),
        ("1e999", math.inf),
    ],
)
def test_infinity_is_read_in_any_form(text: str, value: float):
    assert read_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.123D-01", 0.0123), ("1.2345-101", 1.2345e-101), ("1.2E+03", 1200.0), ("12,345.6", 12345.6), ("1,234,567", 1234567.0),
        ("3.0}", 3.0), ("0.25,acc=1", 0.25), ("12.5s", 12.5), ("340MB/s", 340.0), ("50%", 50.0), (".5", 0.5), ("5.", 5.0),
        ("\u22120.5", -0.5), ("3/10", 3.0), ("7:", 7.0), ("1_000", 1000.0), ("0.5\"", 0.5), ("9.", 9.0),
    ],
)  # fmt: skip
def test_other_unambiguous_numbers_are_read(text: str, value: float):
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "0,25", "1.234,5", "1.2.3", "2026-11-26", "12:30", "12:30:05", "0x1F", "1e", "1e+", "100-200", "1,23", "12,3456", "1__0", "-", "+",
        "", ".", "abc", "e5", "nano", "infer", "nullable", "12_a", "--5", "1d", "1.5e3.2",
    ],
)  # fmt: skip
def test_ambiguous_text_is_not_read(text: str):
    assert read_number(text) is None


def test_escape_sequences_for_colours_links_and_cursors_are_removed():
    shown = "\x1b[36mloss\x1b[0m: \x1b[1;32m0.25\x1b[0m \x1b]8;;http://x\x1b\\here\x1b]8;;\x07 \x1b[2K\x1b(B"
    assert plain(shown) == "loss: 0.25 here "


def test_a_regular_expression_with_a_group_is_used_unchanged():
    pattern = parse_pattern("loss", r"loss=(?P<value>\S+) at (?P<step>\d+)").compiled()
    match = pattern.search("loss=3.0} at 7")
    assert match is not None
    assert (read_number(match["value"]), match["step"]) == (3.0, "7")


@pytest.mark.parametrize(
    "line", ["loss of step 3", "loss (train) 0.5", "loss: none, 0.5", "loss is 3", "losses 3", "loss == 3"]
)
def test_only_a_separator_may_stand_between_a_name_and_its_number(line: str):
    assert found_in(line) == []
