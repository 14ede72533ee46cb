"""Search spaces beyond the full product: `where`, `when`, `zip`, `points`."""

from __future__ import annotations

import itertools
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpisweep.records import TrialState, Value
from mpisweep.search import make_sampler
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.spec import Spec, SpecError, parse_spec, spec_from_flags
from mpisweep.spec.preflight import check_startable


def spec_of(text: str, folder: Path = Path()) -> Spec:
    return parse_spec(f'workload = "m:f"\n{text}', source="sweep.toml", folder=folder)


def configurations(text: str, folder: Path = Path()) -> list[dict[str, Value]]:
    return list(make_sampler(spec_of(text, folder)))  # type: ignore[call-overload]


def why_refused(text: str, folder: Path = Path()) -> str:
    with pytest.raises(SpecError) as error:
        make_sampler(spec_of(text, folder))
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------- where


def test_constraints_leave_the_points_for_which_they_hold_in_the_order_of_the_grid() -> None:
    found = configurations(
        'where = ["a * b <= 6", "a != b"]\n[parameters]\na = { from = 1, to = 4 }\nb = { from = 1, to = 4 }'
    )
    expected = [(a, b) for a in range(1, 5) for b in range(1, 5) if a * b <= 6 and a != b]
    assert [(c["a"], c["b"]) for c in found] == expected


def test_a_constraint_may_be_one_string_and_name_fixed_values_and_defaults() -> None:
    text = """where = "batch_size * ranks_per_trial * accumulate <= 8"
    ranks_per_trial = 2
    [parameters]
    batch_size = [1, 2, 4, 8]
    """
    spec = parse_spec('workload = "resnet50"\n' + text, source="sweep.toml", folder=Path())
    assert [c["batch_size"] for c in make_sampler(spec)] == [1, 2, 4]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('where = "a > 9"\n[parameters]\na = [1, 2]', "where: 'a > 9' is never true: no point satisfies it"),
        (
            'where = ["a > 1", "a < 2"]\n[parameters]\na = [1, 2]',
            "where: 'a < 2' is never true: no point that satisfies the constraints before it satisfies it",
        ),
        (
            'where = "1 / (a - 2) > b"\n[parameters]\na = [1, 2]\nb = [0]',
            "where: '1 / (a - 2) > b' has no value at a=2, b=0: division by zero",
        ),
        ('where = "a > "\n[parameters]\na = [1, 2]', "where: 'a > ', column 5: it is not an expression"),
        ('where = "c > 1"\n[parameters]\na = [1, 2]', "'c' is not a parameter; known are a, ranks_per_trial"),
        ("where = 3\n[parameters]\na = [1, 2]", "where: is 3; expected a list of strings"),
        (
            'where = "x > 1"\n[parameters]\na = [1, 2]\n[fixed]\nx = 2',
            "where: 'x > 1' has no searched parameter; searched are a",
        ),
        (
            'max_points = 10\nwhere = "a > 1"\n[parameters]\na = { from = 1, to = 50 }',
            "the grid has more than 10 points; set narrower ranges, or a larger max_points = N",
        ),
        (
            'max_points = 10\nwhere = "a + b > 198"\n[parameters]\na = { from = 1, to = 100 }\n'
            "b = { from = 1, to = 100 }",
            "the constraints must be evaluated for more than 100 points of the grid",
        ),
        (
            'where = "a > 1"\n[parameters]\na = { from = 1, to = 9000000000 }',
            "the constraints must be evaluated for more than 10,000,000 points of the grid",
        ),
        (
            'search = "random"\ntrials = 5\nwhere = "a > 2"\n[parameters]\na = { from = 0.0, to = 1.0 }',
            "where: 'a > 2' was not true for 100,000 random points in a row",
        ),
        (
            'search = "largest_batch"\nobjective = "v"\nwhere = "a > 9"\n[parameters]\na = [1, 2]',
            "where: no value of a satisfies 'a > 9'",
        ),
    ],
)
def test_constraints_that_are_invalid_or_leave_no_point_are_refused_in_one_sentence(
    text: str, message: str
) -> None:
    assert message in why_refused(text)


def test_a_constraint_that_excludes_nothing_is_reported_before_the_sweep_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "m.py").write_text("def f(trial): return 1.0\n", encoding="utf-8")
    check_startable(spec_of('where = ["a > 0", "a < 3"]\n[parameters]\na = [1, 2, 3]', tmp_path))
    assert "where: 'a > 0' is always true: it excludes no point" in caplog.text
    assert "a < 3" not in caplog.text


@pytest.mark.parametrize("search", ["random", "sobol"])
def test_draws_that_violate_a_constraint_are_drawn_again(search: str) -> None:
    text = 'where = "a + b < 0.5"\n[parameters]\na = { from = 0.0, to = 1.0 }\nb = { from = 0.0, to = 1.0 }'
    first, more = (configurations(f'search = "{search}"\ntrials = {n}\n{text}') for n in (8, 12))
    assert len(first) == 8
    assert all(c["a"] + c["b"] < 0.5 for c in more)  # type: ignore[operator]
    assert more[:8] == first


def test_a_rare_constraint_in_a_small_space_is_found_point_by_point() -> None:
    rules = 'where = "a == 77 and b == 99 and c == 3"\n[parameters]\n'
    space = rules + "\n".join(f"{name} = {{ from = 1, to = 99 }}" for name in "abc")
    assert configurations(f'search = "random"\ntrials = 5\n{space}') == [{"a": 77, "b": 99, "c": 3}]


def test_the_largest_batch_is_searched_among_the_sizes_that_satisfy_the_constraints() -> None:
    text = 'search = "largest_batch"\nobjective = "v"\nwhere = "a % 8 == 0"\n[parameters]\na = { from = 1, to = 64 }'
    search: Any = make_sampler(spec_of(text))
    search.add(0, {"a": 12})
    search.note(0, int(TrialState.COMPLETE), 0, 1.0)
    assert search.sizes == 8
    assert search[0]["a"] % 8 == 0
    assert all(c["a"] % 8 == 0 for c in search.ask())


# ------------------------------------------------------------------------------------- when

OPTIMIZERS = """
[parameters]
optimizer = ["sgd", "adamw"]
momentum  = { from = 0.5, to = 0.9, points = 3, when = "optimizer == 'sgd'" }
rate      = [1, 2]
"""


def test_a_conditional_parameter_is_absent_elsewhere_and_repeats_no_configuration() -> None:
    assert configurations(OPTIMIZERS) == [
        *({"optimizer": "sgd", "momentum": m, "rate": r} for m in (0.5, 0.7, 0.9) for r in (1, 2)),
        *({"optimizer": "adamw", "rate": r} for r in (1, 2)),
    ]


def test_a_conditional_parameter_may_have_another_value_elsewhere() -> None:
    found = configurations(OPTIMIZERS.replace("'sgd'\" }", "'sgd'\", else = 0 }"))
    assert [c["momentum"] for c in found] == [0.5, 0.5, 0.7, 0.7, 0.9, 0.9, 0.0, 0.0]
    assert isinstance(found[-1]["momentum"], float)


def test_conditions_may_depend_on_conditional_parameters_in_any_order_of_the_file() -> None:
    text = """
    [parameters]
    c = { values = ["x", "y"], when = "b == 2" }
    b = { values = [1, 2], when = "a" }
    a = [true, false]
    """
    assert sorted(map(repr, configurations(text))) == sorted(
        map(
            repr,
            [{"b": 1, "a": True}, {"c": "x", "b": 2, "a": True}, {"c": "y", "b": 2, "a": True}, {"a": False}],
        )
    )


def test_a_constraint_on_an_absent_parameter_does_not_apply() -> None:
    found = configurations('where = "momentum > 0.8"\n' + OPTIMIZERS)
    assert [c.get("momentum") for c in found] == [0.9, 0.9, None, None]


def test_a_sampled_configuration_lacks_inactive_parameters() -> None:
    found = configurations('search = "random"\ntrials = 40\n' + OPTIMIZERS.replace("points = 3, ", ""))
    assert all(("momentum" in c) == (c["optimizer"] == "sgd") for c in found)
    assert len({tuple(c.items()) for c in found}) == len(found)
    assert sum("momentum" not in c for c in found) == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('b = { values = [1, 2], when = "b == 1" }', "parameters: 'when' depends on itself: b -> b"),
        (
            'b = { values = [1, 2], when = "c == 1" }\nc = { values = [1, 2], when = "b == 1" }',
            "parameters: 'when' depends on itself: b -> c -> b",
        ),
        ('b = { values = [1, 2], when = "a == 9" }', "parameters.b: 'when' is 'a == 9', which is never true"),
        ('b = { values = [1, 2], when = "a" }', "parameters.b: 'when' is 'a', column 1: it is a number"),
        ("b = { values = [1, 2], when = 3 }", "parameters.b: 'when' is 3; expected a string"),
        ("b = { values = [1, 2], else = 3 }", "parameters.b: found 'else' without 'when'"),
        ("b = { values = [1, 2], when = \"a == 1\", else = 'x' }", "'else' is 'x'; expected a number"),
        ("b = { values = ['', 'x'], when = \"a == 1\" }", "parameters.b: found '' among the choices"),
        ('ranks_per_trial = { values = [1, 2], when = "a == 1" }', "found 'when' without 'else'"),
        (
            "b = { from = 1, to = 2, memory = 'increasing', when = \"a == 1\" }",
            "found both 'memory' and 'when'",
        ),
        ("b = { values = [1, 2] }", "parameters.b: found 'values' without 'memory'"),
    ],
)
def test_an_invalid_condition_is_refused_in_one_sentence(entry: str, message: str) -> None:
    assert message in why_refused(f"[parameters]\na = [1, 2]\n{entry}")


def test_a_command_line_needs_a_value_for_every_parameter() -> None:
    command = 'workload = { command = "train {a} {b}" }\n[parameters]\na = [1, 2]\n'
    entry = 'b = { values = [1, 2], when = "a == 1"'
    with pytest.raises(SpecError, match=r"parameters\.b: found 'when' without 'else'; a command line needs"):
        parse_spec(f"{command}{entry} }}", source="sweep.toml", folder=Path())
    spec = parse_spec(f"{command}{entry}, else = 0 }}", source="sweep.toml", folder=Path())
    assert [c["b"] for c in make_sampler(spec)] == [1, 2, 0]  # type: ignore[attr-defined]


def test_a_baseline_has_only_its_active_parameters() -> None:
    baseline = '[baseline]\noptimizer = "adamw"\nrate = 1\n'
    spec = spec_of(OPTIMIZERS + baseline)
    assert spec.baseline_configuration() == {"optimizer": "adamw", "rate": 1}
    assert number_trials(spec, make_sampler(spec), None).baseline == 6
    with pytest.raises(SpecError, match=r"baseline\.momentum: is set, but .* does not hold for the baseline"):
        spec_of(OPTIMIZERS + baseline + "momentum = 0.9")
    with pytest.raises(SpecError, match="baseline: 'momentum' is missing"):
        spec_of(OPTIMIZERS + baseline.replace("adamw", "sgd"))


# ------------------------------------------------------------------------------------- zip


def test_zipped_parameters_are_one_axis() -> None:
    text = """
    zip = [["b", "c"]]
    [parameters]
    b = [16, 64]
    a = [1, 2]
    c = { from = 0.1, to = 0.2, points = 2 }
    """
    assert configurations(text) == [
        {"b": b, "a": a, "c": c} for (b, c) in ((16, 0.1), (64, 0.2)) for a in (1, 2)
    ]
    drawn = configurations(f'search = "random"\ntrials = 9\n{text}')
    assert {(c["b"], c["c"]) for c in drawn} == {(16, 0.1), (64, 0.2)}
    assert len(drawn) == 4
    space = spec_of(text).space
    assert [space.index(space.point(index)) for index in range(4)] == [0, 1, 2, 3]
    assert not space.contains({"b": 16, "a": 1, "c": 0.2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            '[["a", "b"]]',
            "zip: found 2 values of 'a' and 3 values of 'b'; what varies together needs equally many",
        ),
        ('["a", "b"]', 'zip: is ["a", "b"]; expected a list of groups: [["a", "b"]]'),
        ('[["a"]]', "zip: has the group ['a']; expected at least two parameters"),
        ('[["a", "d"]]', "zip: 'd' is not under [parameters]; known are a, b, c"),
        ('[["a", "a"]]', "zip: 'a' is there twice"),
        ('[["a", "c"]]', "zip: 'c' is continuous"),
    ],
)
def test_an_invalid_zip_is_refused_in_one_sentence(value: str, message: str) -> None:
    text = f"zip = {value}\n[parameters]\na = [1, 2]\nb = [1, 2, 3]\nc = {{ from = 0.1, to = 0.2 }}"
    assert message in why_refused(text)


# ------------------------------------------------------------------------------------- points

POINTS = [{"a": 1, "b": 0.5, "c": "x"}, {"a": 2, "b": 1.0, "c": "y"}, {"a": 1, "b": 2.0, "c": "z"}]
CSV = "a, b,c\n1,0.5,x\n2,1,y\n\n1,2,z\n"


@pytest.mark.parametrize(
    "value",
    [
        '[{ a = 1, b = 0.5, c = "x" }, { a = 2, b = 1, c = "y" }, { a = 1, b = 2, c = "z" }]',
        '{ a = [1, 2, 1], b = [0.5, 1, 2], c = ["x", "y", "z"] }',
        '"points.csv"  # beside the sweep file',
    ],
)
def test_points_are_the_configurations_in_their_order(value: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(CSV, encoding="utf-8-sig")
    spec = spec_of(f"points = {value}", tmp_path)
    assert spec.search == "points"
    assert list(make_sampler(spec)) == POINTS  # type: ignore[call-overload]
    assert [type(value) for value in make_sampler(spec)[1].values()] == [int, float, str]
    # The results file needs no other file.
    (tmp_path / "points.csv").unlink()
    again = parse_spec(spec.text, source="sweep.toml", folder=tmp_path, is_recorded=True)
    assert again.space == spec.space
    assert configurations(f'where = "a + b > 1.5"\n{spec.text.partition(chr(10))[2]}') == POINTS[1:]


def test_a_csv_file_is_named_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a;flag\n1;true\n2;False\n", encoding="utf-8")
    spec = spec_from_flags("m:f", [], folder=tmp_path, options={"points": "p.csv"}, where=["a > 1"])
    assert list(make_sampler(spec)) == [{"a": 2, "flag": False}]  # type: ignore[call-overload]
    assert tomllib.loads(spec.text)["points"] == {"a": [1, 2], "flag": [True, False]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", "points.csv, line 3, column b: is 'x'; expected a number, as in the lines above"),
        ("a,b\n1,2\n\n3,\n", "points.csv, line 4, column b: is empty"),
        ("a,b\n1,2\n3\n", "points.csv, line 3: has 1 entries; the first line has 2"),
        ("a,b\n1,nan\n", "points.csv, line 2, column b: is nan; expected a finite number"),
        ("a,b\n", "points.csv: has no points"),
        ("", "points.csv: has no points"),
        ("a,a\n1,2\n", "points.csv, line 1: a column is there twice"),
        ("a,b c\n1,2\n", "points.csv, line 1: 'b c' is not a valid parameter name"),
        ("a,b\n1,2\n1,2\n", "points: entries 1 and 2 are equal"),
    ],
)
def test_an_invalid_csv_file_is_refused_with_line_and_column(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    assert message in why_refused('points = "points.csv"', tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('points = "none.csv"', "none.csv cannot be read: No such file or directory"),
        ("points = []", "points: is empty"),
        ("points = 3", "points: is 3; expected a list"),
        ("points = [{ a = 1 }, { b = 1 }]", "points: entry 2 has 'b' and entry 1 has not"),
        ("points = [{ a = 1 }, 2]", "points: entry 2 is 2; expected a table"),
        ("points = [{ a = 1 }, { a = 'x' }]", "points: 'a' is 'x' in entry 2 and 1 in entry 1"),
        ("points = { a = [1, 2], b = [1] }", "points: found 2 values of 'a' and 1 values of 'b'"),
        ("points = [{ a = 1 }]\n[parameters]\nb = [1]", "points: is also the search space"),
        (
            'search = "random"\ntrials = 3\npoints = [{ a = 1 }]',
            "with 'points' every point runs; remove 'search'",
        ),
        ('search = "points"\n[parameters]\nb = [1]', "search: is 'points'; set 'points' to the list"),
        ("points = [{ a = 1 }]\n[fixed]\na = 2", "fixed.a: is also under [parameters]"),
    ],
)
def test_invalid_points_are_refused_in_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    assert message in why_refused(text, tmp_path)


# ------------------------------------------------------------------------------------- properties

_choices = st.sampled_from(
    ["[1, 2, 3]", "[2, 4]", "{ from = 0, to = 4 }", "{ from = 0.5, to = 1.5, step = 0.5 }"]
)
_rules = st.sampled_from(
    [
        "a + b > 3",
        "a * c != 4",
        "b <= c",
        "a == 1 or b == 2",
        "c < 3",
        "not (a == b == c)",
        "max(a, b) - c <= 2",
    ]
)
_conditions = st.sampled_from([None, "a > 1", "c >= 2", "b == 2", "a + c > 2"])


def _is_cyclic(conditions: list[str | None]) -> bool:
    needs = {n: {x for x in "abc" if c and x in c} for n, c in zip("abc", conditions, strict=True)}
    free = {name for name in needs if not needs[name]}
    while grown := {name for name in needs if needs[name] <= free} - free:
        free |= grown
    return len(free) < 3


def _entry(domain: str, condition: str | None) -> str:
    if condition is None:
        return domain
    inner = f"values = {domain}" if domain.startswith("[") else domain[1:-1]
    return f'{{ {inner}, when = "{condition}" }}'


def _by_brute_force(spec: Spec) -> list[dict[str, Value]]:
    """Return all distinct configurations by evaluating every point of the product."""
    found: dict[tuple[Any, ...], dict[str, Value]] = {}
    counts = [range(parameter.count or 0) for parameter in spec.space.parameters]
    for positions in itertools.product(*counts):
        values: dict[str, Value] = {
            p.name: p.at(position) for p, position in zip(spec.space.parameters, positions, strict=True)
        }
        # An absent parameter can make others inactive, so repeat until nothing changes.
        while gone := [
            c.name for c in spec.space.conditions if c.name in values and not _true(c.when.text, values)
        ]:
            for name in gone:
                del values[name]
        if all(_true(rule.text, values, if_absent=True) for rule in spec.space.constraints):
            found.setdefault(tuple(map(values.get, "abc")), values)
    return list(found.values())


def _true(text: str, values: dict[str, Value], *, if_absent: bool = False) -> bool:
    try:
        return bool(eval(text, {"max": max}, dict(values)))
    except NameError:
        return if_absent


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_choices, min_size=3, max_size=3),
    st.lists(_conditions, min_size=3, max_size=3),
    st.lists(_rules, max_size=2, unique=True),
)
def test_a_grid_has_the_points_that_brute_force_finds(
    domains: list[str], conditions: list[str | None], rules: list[str]
) -> None:
    assume(not _is_cyclic(conditions))
    entries = [f"{n} = {_entry(d, c)}" for n, d, c in zip("abc", domains, conditions, strict=True)]
    spec = spec_of(f"where = {rules!r}\n[parameters]\n" + "\n".join(entries))
    expected = _by_brute_force(spec)
    try:
        sampler = make_sampler(spec)
    except SpecError as error:
        # A condition that never holds is refused, and a constraint only where it leaves no point.
        refused = [name for name in "abc" if f"parameters.{name}: 'when'" in str(error)]
        assert all(name not in one for name in refused for one in expected)
        assert refused or not expected
        return
    found = list(sampler)  # type: ignore[call-overload]
    key = lambda c: tuple(map(c.get, "abc"))  # noqa: E731
    assert set(map(key, found)) == set(map(key, expected))
    assert len(found) == len(expected)
    indices = [spec.space.index(c) for c in found]
    assert indices == sorted(indices)  # type: ignore[type-var]
    assert all(spec.space.contains(c) for c in found)


def _resumed(trials: Trials) -> Known:
    return Known(trials.parameters, trials.states, trials.attempts, trials.baseline)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 6), st.integers(2, 12), st.integers(0, 6), st.booleans())
def test_numbers_are_permanent_when_constraints_are_loosened_and_ranges_grow(
    limit: int, more: int, size: int, wider: int, has_condition: bool
) -> None:
    def numbered(limit: int, size: int, known: Known | None) -> Trials:
        when = ', when = "a > 1"' if has_condition else ""
        spec = spec_of(
            f'where = "a * a <= {limit * limit}"\n[parameters]\na = {{ from = 1, to = {size} }}\n'
            f"b = {{ from = 1, to = 3{when} }}"
        )
        return number_trials(spec, make_sampler(spec), known)

    first = numbered(limit, size, None)
    second = numbered(limit + more, size + wider, _resumed(first))
    assert second.first_new == first.count
    assert not second.excluded
    old = [first.configuration(number) for number in range(first.count)]
    assert [second.configuration(number) for number in range(first.count)] == old
    everything = [second.configuration(number) for number in range(second.count)]
    assert len({tuple(c.items()) for c in everything}) == second.count
    fresh = numbered(limit + more, size + wider, None)
    assert second.count == fresh.count


def test_waiting_trials_that_a_new_constraint_excludes_are_listed_and_ended_ones_are_kept() -> None:
    grid = "[parameters]\na = { from = 1, to = 6 }\n[baseline]\na = 5\n"
    before = spec_of(grid)
    known = _resumed(number_trials(before, make_sampler(before), None))
    states = [int(TrialState.COMPLETE)] * 4 + [int(TrialState.WAITING)] * 2
    known = Known(known.parameters, states, [1] * 6, known.baseline)
    after = spec_of('where = "a < 3"\n' + grid)
    assert not after.differences(before)
    trials = number_trials(after, make_sampler(after), known)
    # Trials 2 and 3 have ended, and trial 4 is the baseline.
    assert trials.excluded == {5: "a < 3"}
    assert trials.count == 6


def test_a_sweep_whose_conditions_or_groups_changed_is_another_sweep() -> None:
    plain = "[parameters]\na = [1, 2]\nb = [1, 2]"
    when = '[parameters]\na = [1, 2]\nb = { values = [1, 2], when = "a == 1" }'
    assert "parameters.b: 'when' or 'else' differ" in spec_of(when).differences(spec_of(plain))[0]
    assert "zip: " in spec_of('zip = [["a", "b"]]\n' + plain).differences(spec_of(plain))[0]
    points = spec_of("points = [{ a = 1 }, { a = 2 }]")
    assert not spec_of("points = [{ a = 2 }, { a = 3 }, { a = 1 }]").differences(points)
    assert "points may be added but not removed" in spec_of("points = [{ a = 2 }]").differences(points)[0]


# ------------------------------------------------------------------------------------- size


def test_constraints_of_a_million_points_are_evaluated_in_seconds(tell) -> None:  # type: ignore[no-untyped-def]
    axes = "\n".join(f"{name} = {{ from = 1, to = 100 }}" for name in "abc")
    spec = spec_of(f'where = ["a * b * c % 7 != 0", "a + b < 150"]\n[parameters]\n{axes}')
    begun = time.perf_counter()
    count = len(make_sampler(spec))
    seconds = time.perf_counter() - begun
    tell(f"a grid of 1,000,000 points with two constraints, {count:,} left: {seconds:.2f} s")
    expected = sum(
        a * b * c % 7 != 0 and a + b < 150
        for a, b, c in itertools.product(range(1, 101), range(1, 101), range(1, 101))
    )
    assert count == expected
    assert seconds < 30


def test_a_zipped_pair_beside_a_continuous_parameter_belongs_to_the_space():
    text = (
        'workload = "m:f"\nsearch = "random"\ntrials = 5\nzip = [["a", "b"]]\n'
        "[parameters]\na = [1, 2]\nb = [3, 4]\nx = { from = 0.0, to = 1.0 }\n"
    )
    space = parse_spec(text, source="s.toml", folder=Path()).space
    assert space.contains({"a": 1, "b": 3, "x": 0.5})
    assert not space.contains({"a": 1, "b": 4, "x": 0.5})


@pytest.mark.parametrize(
    "text",
    [
        'points = [{ data = "synthetic", val_every = -1 }, { data = "digits", val_every = 0 }]\n',
        'zip = [["data", "val_every"]]\n[parameters]\ndata = ["synthetic", "digits"]\nval_every = [-1, 0]\n',
        "where = \"data != 'synthetic' or val_every < 0\"\n"
        '[parameters]\ndata = ["synthetic", "digits"]\nval_every = [-1, 0]\n',
    ],
)
def test_options_contradict_each_other_only_in_configurations_of_the_space(text):
    start = 'workload = "resnet50"\nobjective = "loss_mean"\n'
    check_startable(parse_spec(start + text, source="s.toml", folder=Path()))


def test_options_that_contradict_each_other_in_a_configuration_of_the_space_are_refused():
    text = (
        'workload = "resnet50"\nobjective = "loss_mean"\nzip = [["data", "val_every"]]\n'
        '[parameters]\ndata = ["digits", "synthetic"]\nval_every = [-1, 0]\n'
    )
    with pytest.raises(SpecError, match="val_every"):
        check_startable(parse_spec(text, source="s.toml", folder=Path()))
