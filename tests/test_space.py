from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisweep.spec.parameters import parse_parameter, parse_quick
from mpisweep.spec.space import Choice, FloatRange, IntegerRange, SearchSpace, SpaceError

integers = st.builds(
    lambda low, width, step: IntegerRange("n", low, low + width, step),
    st.integers(-1000, 1000), st.integers(0, 1000), st.integers(1, 50),
)  # fmt: skip
log_integers = st.builds(
    lambda low, width, points: IntegerRange("n", low, low + width, log=True, points=points),
    st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 20) | st.none(),
)  # fmt: skip
floats = st.builds(
    lambda low, width, points: FloatRange("f", low, low + width, points=points),
    st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 30) | st.none(),
)  # fmt: skip
log_floats = st.builds(
    lambda low, ratio, points: FloatRange("f", low, low * ratio, log=True, points=points),
    st.floats(1e-6, 1e3), st.floats(1.5, 1e6), st.integers(1, 30) | st.none(),
)  # fmt: skip
choices = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=5, unique=True).map(
    lambda values: Choice("c", tuple(values))
)
parameters = integers | log_integers | floats | log_floats | choices
units = st.floats(0, 1, exclude_max=True)


@given(parameters, units)
def test_every_point_of_the_unit_interval_gives_a_value_of_the_parameter(parameter, unit):
    assert parameter.contains(parameter.from_unit(unit))


@given(parameters, units)
def test_a_value_comes_back_from_the_unit_interval(parameter, unit):
    value = parameter.from_unit(unit)
    back = parameter.from_unit(min(parameter.to_unit(value), 1 - 1e-12))
    assert back == (value if not isinstance(value, float) else pytest.approx(value, rel=1e-6, abs=1e-6))


@given(integers | log_integers | choices, st.data())
def test_the_index_of_a_grid_point_is_found(parameter, data):
    index = data.draw(st.integers(0, parameter.count - 1))
    assert parameter.index(parameter.at(index)) == index


@given(st.lists(integers | choices, min_size=1, max_size=3), st.data())
def test_the_index_of_a_point_of_the_space_is_found(made, data):
    named = tuple(_named(p, f"p{i}") for i, p in enumerate(made))
    space = SearchSpace(named)
    index = data.draw(st.integers(0, space.size - 1))
    assert space.index(space.point(index)) == index
    assert space.contains(space.point(index))


def _named(parameter, name):
    if isinstance(parameter, Choice):
        return Choice(name, parameter.values)
    return IntegerRange(name, parameter.low, parameter.high, parameter.step)


def test_the_last_parameter_runs_fastest():
    space = SearchSpace((IntegerRange("a", 1, 2), Choice("b", ("x", "y"))))
    assert [tuple(space.point(i).values()) for i in range(4)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_steps_of_a_tenth_reach_the_end_and_stay_short():
    parameter = parse_parameter("f", {"from": 0.1, "to": 0.7, "step": 0.1})
    assert [parameter.at(i) for i in range(parameter.count)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ({"from": -0.3, "to": 0.3, "step": 0.1}, [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
        ({"from": -0.9, "to": 0.9, "points": 7}, [-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9]),
        ({"from": -1e-20, "to": 1e-20, "points": 3}, [-1e-20, 0.0, 1e-20]),
        ({"from": 1.5, "to": 1.5, "points": 3}, [1.5]),
        ({"from": 1.5, "to": 1.5, "points": 3, "scale": "log"}, [1.5]),
        ({"from": 0.5, "to": 1.5, "points": 1}, [0.5]),
    ],
)
def test_a_grid_of_numbers_has_each_once_and_zero_as_zero(raw, values):
    parameter = parse_parameter("f", raw)
    assert [parameter.at(i) for i in range(parameter.count)] == values


def test_numbers_far_smaller_than_the_largest_are_told_apart():
    parameter = parse_parameter("f", {"from": 1e-10, "to": 1, "scale": "log", "points": 11})
    assert [parameter.index(parameter.at(i)) for i in range(parameter.count)] == list(range(11))
    assert not parameter.contains(2e-10)


def test_true_is_not_an_integer():
    assert not IntegerRange("n", 0, 2).contains(True)
    assert not Choice("c", (0, 1)).contains(True)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"from": 7, "to": 1}, "'from' is 7 and 'to' is 1; 'from' must not exceed 'to'"),
        ({"from": 0, "to": 1, "scale": "log"}, "'from' is 0 on a log scale; expected a number above 0"),
        ({"from": 1}, "'to' is missing; expected a range such as { from = 1, to = 700 }"),
        (
            {"from": 1, "to": 2, "setp": 1},
            "found the key 'setp'; a range has from, to, step, scale, points, memory, when, else",
        ),
        ({"from": 1, "to": 9, "step": 0}, "'step' is 0; expected a number above 0"),
        ({"from": True, "to": 9}, "'from' is True; expected a finite number"),
        ({"from": 1, "to": float("inf")}, "'to' is inf; expected a finite number"),
        ([], "found an empty list; expected at least one choice"),
        ([1, 1], "found 1 more than once; expected every choice once"),
        (["a", 1], "found ['a', 1]; expected choices of one kind: all numbers, all strings or all booleans"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_sentence(raw, message):
    with pytest.raises(SpaceError) as caught:
        parse_parameter("p", raw)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1:700", IntegerRange("p", 1, 700)),
        ("1:700:10", IntegerRange("p", 1, 700, 10)),
        ("1e-4:1e-1:log", FloatRange("p", 1e-4, 1e-1, log=True)),
        ("1e-4:1e-1:log:points=4", FloatRange("p", 1e-4, 1e-1, log=True, points=4)),
        ("sgd,adamw", Choice("p", ("sgd", "adamw"))),
        ("300", 300), ("0.5", 0.5), ("digits", "digits"), ("true", True),
        # Names made of digits stay texts.
        ("007", "007"), ("007,008", Choice("p", ("007", "008"))), ("008,010,100", Choice("p", ("008", "010", "100"))),
        ("2024_01", "2024_01"), ("0", 0), ("-3", -3), ("0.50", 0.5), (".5", 0.5), ("5.", 5.0), ("1E3", 1000.0), ("0e0", 0.0),
        ("\u0663", "\u0663"),
        # A text in brackets is one value.
        ("(0.9,0.99),(0.8,0.9)", Choice("p", ("(0.9,0.99)", "(0.8,0.9)"))), ("a[1:2]", "a[1:2]"), ("{1,2},3x", Choice("p", ("{1,2}", "3x"))),
    ],
)  # fmt: skip
def test_the_quick_form_is_parsed_as_expected(text, meant):
    assert parse_quick("p", text) == meant


@pytest.mark.parametrize(("raw", "memory"), [
    ({"from": 1, "to": 700, "memory": "increasing"}, "increasing"),
    ({"from": 0.5, "to": 2.0, "memory": "decreasing"}, "decreasing"),
    ({"values": [16, 64, 256], "memory": "increasing"}, "increasing"),
    ({"from": 1, "to": 700}, ""),
])  # fmt: skip
def test_a_parameter_may_declare_how_memory_depends_on_it(raw, memory):
    parameter = parse_parameter("n", raw)
    assert parameter.memory == memory
    assert SearchSpace((parameter,)).memory == ({"n": memory} if memory else {})
    # The `memory` key does not change the searched values.
    raw.pop("memory", None)
    assert parameter == (Choice("n", tuple(raw["values"])) if "values" in raw else parse_parameter("n", raw))


def test_the_quick_form_may_declare_it_too():
    assert parse_quick("n", "1:700:memory=increasing").memory == "increasing"
    assert parse_quick("n", "16,64,256:memory=increasing") == Choice("n", (16, 64, 256))
    assert parse_quick("n", "16,64,256:memory=decreasing").memory == "decreasing"


@pytest.mark.parametrize(("text", "problem"), [
    ("1:700:mem=increasing", "found 'mem=increasing' after a range; expected a step, 'log', 'points=N' or "
                             "'memory=increasing'"),
    ("1:700:points=few", "found 'points=few' after a range"),
    ("1:700:10:20", "found '20' after a range that has a step"),
    ("16,64:memory=more", "'memory' is 'more'; expected 'increasing' or 'decreasing'"),
    ("sgd,adamw:memory=increasing", "with 'memory' all values must be numbers"),
    ("[1,2", "found '[' without its closing bracket in '[1,2'"),
    ("1,2]", "found ']' without its opening bracket in '1,2]'"),
    ("(1,2],3", "found ']' without its opening bracket"),
    ("f(1", "found '(' without its closing bracket"),
    ("[1,2]", "found '[1,2]'; write choices without brackets: 1,2"),
    ("01:10", "'from' is '01'; expected a finite number"),
    ("9" * 5000 + ",1", "found inf among the choices; expected finite numbers"),
    # The suggestion has the form of the command line, not of a sweep file.
    ("1:9:2:log", "set FROM:TO:log:points=N instead"),
    ("1:9:points=3", "set FROM:TO:STEP instead"),
])  # fmt: skip
def test_a_mistake_in_the_quick_form_is_reported(text, problem):
    with pytest.raises(SpaceError) as raised:
        parse_quick("n", text)
    assert problem in str(raised.value)


@pytest.mark.parametrize(("raw", "problem"), [
    ({"from": 1, "to": 7, "memory": "more"}, "'memory' is 'more'; expected 'increasing' or 'decreasing'"),
    ({"from": 1, "to": 7, "memory": ["increasing"]}, "'memory' is ['increasing']; expected"),
    ({"values": [1, 2]}, "found 'values' without 'memory'"),
    ({"values": ["a", "b"], "memory": "increasing"}, "with 'memory' all values must be numbers"),
    ({"values": 3, "memory": "increasing"}, "'values' is 3; expected a list"),
    ({"values": [1, 2], "from": 1, "memory": "increasing"}, "found the key 'from' beside 'values'"),
])  # fmt: skip
def test_a_wrong_declaration_of_memory_is_refused_in_one_sentence(raw, problem):
    with pytest.raises(SpaceError) as raised:
        parse_parameter("n", raw)
    assert problem in str(raised.value)
