"""The table of keys and its products: the parser's checks, the reference, the schema for editors."""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts import load_script

from mpisweep.cli import main
from mpisweep.spec import Limits, SpecError, parse_spec
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.keys import KEYS, Key, keys_of, names_of
from mpisweep.spec.schema import schema
from mpisweep.spec.sweepfile import _Parser

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "mpisweep" / "spec" / "sweep-file.schema.json"
PAGES = sorted((ROOT / "docs").glob("*.md"))

validate = fastjsonschema.compile(schema(), use_default=False)


def editor_accepts(raw: dict[str, Any]) -> bool:
    try:
        validate(raw)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def parser_accepts(raw: dict[str, Any]) -> bool:
    try:
        _Parser("sweep.toml").spec(raw, "", Path())
    except SpecError:
        return False
    return True


@pytest.fixture(scope="module")
def reference():
    return load_script("docs/write_reference.py")


def test_the_pages_on_keys_and_options_are_generated_from_the_tables(reference):
    shown = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown += reference.blocks_of(text)
        assert reference.filled(text) == text, f"{page}: run `make reference`"
    assert sorted(shown) == sorted(reference.BLOCKS)


def test_every_key_has_its_row_in_the_reference():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for key in KEYS:
        assert re.search(rf"^\| `{key.name}` \|.*{re.escape(key.meaning)}", text, flags=re.MULTILINE), key


def test_the_shipped_schema_is_that_of_the_tables():
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == schema(), "run `make reference`"


def test_check_prints_the_schema(capsys):
    assert main(["check", "--schema"]) == 0
    assert capsys.readouterr().out == SHIPPED.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda path: path.parent.name
)
def test_editors_accept_the_examples(path):
    assert editor_accepts(tomllib.loads(path.read_text(encoding="utf-8")))


SHOWING = [page for page in (ROOT / "README.md", *PAGES) if "\n```toml\n" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.stem)
def test_editors_accept_the_documented_sweep_files(page):
    shown = re.findall(
        r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert shown
    for block in shown:
        raw = tomllib.loads(block)
        if raw.keys() <= set(names_of("")):
            # Some blocks show only part of a file.
            assert editor_accepts({"workload": "my_train:train"} | raw), block


RESNET = {"workload": "resnet50"}
PROGRAM = {"workload": {"command": "train {x}"}, "parameters": {"x": [1, 2]}}


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"workload": "resnet"},
        {"workload": 3},
        {"workload": {}},
        {"workload": "a b"},
        PROGRAM | {"workload": {"command": "train {x}", "shell": True}},
        PROGRAM | {"workload": {"command": 3}},
        PROGRAM | {"workload": {"command": "train {x}", "directory": "home"}},
        PROGRAM | {"workload": {"command": "train {x}", "env": {"1X": "a"}}},
        PROGRAM | {"workload": {"command": "train {x}", "env": {"X": ["a"]}}},
        PROGRAM | {"workload": {"command": "train {x}", "template": "../up"}},
        PROGRAM | {"workload": {"command": "train {x}", "template": "/etc/passwd"}},
        PROGRAM | {"metrics": {"loss": 3}},
        PROGRAM | {"metrics": {"step": "step="}},
        PROGRAM | {"metrics": {"a b": "loss="}},
        RESNET | {"sed": 1},
        RESNET | {"objective": "los"},
        RESNET | {"limits": {"timeouts": 1}},
        RESNET | {"parameters": {"batchsize": {"from": 1, "to": 7}}},
        RESNET | {"parameters": {"batch_size": {"from": 0, "to": 7}}},
        RESNET | {"parameters": {"batch_size": {"from": 1.0, "to": 7.5, "step": 0.5}}},
        RESNET | {"parameters": {"batch_size": ["many", "few"]}},
        RESNET | {"parameters": {"batch_size": {"values": [0, 3], "memory": "increasing"}}},
        RESNET | {"parameters": {"optimizer": ["sgd", "lion"]}},
        RESNET | {"fixed": {"data": "mnist"}},
        RESNET | {"fixed": {"compile": "yes"}},
        RESNET | {"fixed": {"image_size": 16}},
        RESNET | {"fixed": {"momentum": -0.1}},
        RESNET | {"fixed": {"ranks_per_trial": 5000}},
        RESNET | {"baseline": {"data_root": 3}},
        {"workload": "m:f", "fixed": {"a-b": 1}},
        {"workload": "m:f", "fixed": {"a": [1]}},
        {"workload": "m:f", "ranks_per_trial": 5000},
        *(
            {"workload": "m:f", "parameters": {"x": described}}
            for described in (
                3,
                [],
                [1, "a"],
                [1, True],
                ["a", "a"],
                ["a" * 65537],
                {"from": 1},
                {"from": 1, "to": "7"},
                {"from": 1, "to": 7, "stpe": 1},
                {"from": 1, "to": 7, "step": 0},
                {"from": 1, "to": 7, "scale": "ln"},
                {"from": 1.0, "to": 7.0, "points": 0},
                {"from": 1.0, "to": 7.0, "points": 1_000_001},
                {"from": 1.0, "to": 7.0, "points": 3, "step": 1.0},
                {"from": 1.0, "to": 7.0, "scale": "log", "step": 1.0},
                {"from": 0.0, "to": 7.0, "scale": "log", "points": 3},
                {"from": 1, "to": 7, "memory": "more"},
                {"values": [1, 2]},
                {"values": ["a", "b"], "memory": "increasing"},
                {"values": [1, 2], "memory": "increasing", "from": 1},
            )
        ),
    ],
)  # fmt: skip
def test_editors_refuse_every_form_that_the_parser_refuses(raw):
    assert not parser_accepts(raw)
    assert not editor_accepts(raw)


VALUES = [
    "exclude",
    "stop",
    "median",
    -1,
    0,
    1,
    2,
    5000,
    0.5,
    0.4,
    1.5,
    2.0,
    1e13,
    True,
    False,
    "",
    "a",
    "a b",
    "../a",
    "m:f",
    "maximize",
    "sobol",
    "grid",
    "10m",
    "1:30:00",
    "1h30m",
    " 90s ",
    "0s",
    "0:00:00",
    "0",
    "1.5",
    "h",
    "s",
    "m1",
    "10 m",
    "1:60:00",
    "4GiB",
    "500 MB",
    "4",
    "GB",
    "4 gib",
    "4kB",
    [],
    ["a"],
    [1, 2],
    "spread",
    ["x < 2", "x > 0"],
    "x > 1",
    [{"a": 1}, {"a": 2}],
    [{"a": 1}, 2],
    {},
    {"a": 1},
    {"a": "b"},
    {"x": [1, 2]},
    datetime.date(2026, 1, 1),
]


#: The parser reads the file that `after` names.
CHECKED = [key for key in (*keys_of(""), *keys_of("limits")) if key.kind != "after"]


@pytest.mark.parametrize("key", CHECKED, ids=lambda key: key.path)
def test_editor_and_parser_accept_the_same_values_of_every_key(key: Key):
    raw: dict[str, Any] = {"workload": "m:f", "search": "random", "trials": 3, "parameters": {"x": [1, 2, 3]}}
    taken = []
    for value in VALUES:
        given = raw | ({key.name: value} if not key.table else {key.table: {key.name: value}})
        if key.path == "search" and value == "grid":
            del given["trials"]
        if key.path == "parameters" and value == {}:
            # Its form is valid, but a sampling search has nothing to sample.
            continue
        is_whole = isinstance(value, float) and value == round(value)
        if (key.kind in ("integer", "repeats") and is_whole) or (key.kind == "devices" and value == 0.4):
            # JSON has one number type, and a schema cannot express reciprocals.
            continue
        if key.kind == "conditions" and isinstance(value, str | list) and not parser_accepts(given):
            # A schema knows no expressions.
            continue
        if key.path == "points":
            given = {"workload": "m:f", "points": value}
            if isinstance(value, str) and value:
                # The file does not exist.
                continue
        if key.path == "import":
            # Only a search that learns takes it.
            given |= {"search": "tpe"}
        if key.path == "metrics":
            given = PROGRAM | {"metrics": value}
        if key.path == "baseline" and isinstance(value, dict):
            value = given["baseline"] = {"x": 1, **value}
        assert editor_accepts(given) == parser_accepts(given), value
        taken += [value] if editor_accepts(given) else []
    # The comparison must have covered both outcomes.
    assert taken
    assert len(taken) < len(VALUES)


values = st.recursive(
    st.integers(-3, 300)
    | st.floats(-3, 300)
    | st.text(max_size=5)
    | st.booleans()
    | st.sampled_from(["sgd", "log", "10m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
ranges = st.fixed_dictionaries(
    {"from": st.integers(-3, 300) | st.floats(-3, 300), "to": st.integers(-3, 300) | st.floats(-3, 300)},
    optional={
        "step": st.integers(0, 3) | st.floats(0, 3), "scale": st.sampled_from(["linear", "log", "ln"]),
        "points": st.integers(0, 9), "memory": st.sampled_from(["increasing", "decreasing", "none"]),
    },
)  # fmt: skip
options = st.sampled_from(["x", "y", *(option.name for option in BUILTIN["resnet50"].options)])


@given(
    st.sampled_from(["m:f", "resnet50", {"command": "train {x}", "env": {"Y": "{y}"}}]),
    st.dictionaries(options, ranges | values | st.lists(st.integers(1, 9), max_size=3), max_size=2),
    st.dictionaries(options, values, max_size=2),
    st.dictionaries(st.sampled_from(names_of("limits")), values, max_size=2),
    st.dictionaries(
        st.sampled_from(sorted({*names_of("")} - {"workload", "parameters", "fixed", "limits"})),
        values,
        max_size=2,
    ),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_editor_never_refuses_a_file_that_the_parser_accepts(workload, parameters, fixed, limits, others):
    raw = others | {"workload": workload, "parameters": parameters, "fixed": fixed, "limits": limits}
    if parser_accepts(raw):
        assert editor_accepts(raw)


def test_missing_keys_have_the_documented_defaults():
    spec = parse_spec('workload = "m:f"', source="sweep.toml", folder=Path())
    said = {
        "name": spec.name,
        "objective": spec.objective,
        "direction": spec.direction.value,
        "search": spec.search,
        "trials": spec.trials,
        "seed": spec.seed,
        "devices_per_trial": spec.devices_per_trial,
        "fresh_process": spec.fresh_process,
        "baseline": spec.baseline,
    }
    for key in keys_of(""):
        if key.name in said:
            assert said[key.name] == key.default, key
    assert spec.limits == Limits(
        timeout_s=None, retries=2, grace_s=10, stall_s=None, silence_s=30, disk_s=600, restarts=20,
        same_failures=20, quarantine=True, memory_bytes=None,
    )  # fmt: skip


def test_every_default_is_a_valid_value_of_its_key():
    for key in KEYS:
        if key.kind == "repeats":
            assert parser_accepts({"workload": "m:f", "parameters": {"x": [1, 2]}, key.name: key.default})
        elif key.default is not None:
            assert key.problem(key.default) is None, key
            assert key.since


def test_the_largest_grid_is_the_default_of_its_key():
    [key] = [key for key in KEYS if key.name == "max_points"]
    text = 'workload = "m:f"\n[parameters]\nx = {{ from = 1, to = {} }}'
    assert parse_spec(text.format(key.default), source="s", folder=Path()).space.size == key.default
    with pytest.raises(SpecError, match=f"set max_points = {key.default + 1}"):
        parse_spec(text.format(key.default + 1), source="s", folder=Path())


def test_numbers_outside_json_are_left_to_the_parser():
    assert not parser_accepts({"workload": "m:f", "fixed": {"x": math.inf}})


@pytest.mark.parametrize(
    ("lines", "objective", "warning"),
    [
        ("", "loss", "loss of synthetic data is that of one random batch, repeated; use real data"),
        ("", "loss_mean", "loss_mean of synthetic data is that of one random batch"),
        ("", "images_per_second", None),
        ("data = 'digits'", "loss", "loss is that of the last step's batch, which is noisy"),
        ("data = 'digits'", "loss_mean", None),
        ("data = 'digits'", "val_loss", "val_loss is only measured with val_every of at least 0"),
        ("data = 'digits'\nval_every = 0", "val_loss", None),
    ],
)
def test_check_warns_of_an_uninformative_objective(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, objective: str, warning: str | None
):
    text = f"workload = 'resnet50'\nobjective = '{objective}'\n[parameters]\nbatch_size = [2, 4]\n[fixed]\n"
    (tmp_path / "s.toml").write_text(f"{text}num_iter = 1\n{lines}\n")
    assert main(["check", str(tmp_path / "s.toml"), "-n", "1"]) == 0
    printed = capsys.readouterr().out
    assert ("\n  warning     " in printed) == (warning is not None)
    assert warning is None or f"  warning     {warning}" in printed
