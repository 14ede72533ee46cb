"""Bad input: any sweep file, journal or results file gives an answer or one clear sentence.

Reading never hangs, never takes more memory than the machine has, and never runs code from the input.  The
cases are the same in every run, unless MPISWEEP_FUZZ_ANEW is set in the environment.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_results import history, opening
from waiting import PATIENCE_S

import mpisweep
from mpisweep.blocks import EndedBlock, ReportBlock, RunRecord, encode
from mpisweep.records import TrialState
from mpisweep.results import ResultsError, journal_folder, merged
from mpisweep.results.compaction import compact
from mpisweep.results.journal.reader import Damage, read_journal
from mpisweep.results.journal.segments import frame
from mpisweep.spec import Spec, SpecError, load_spec, parse_spec
from mpisweep.spec.keys import names_of

FOLDER = Path(__file__).parent
SEGMENT = "20260101T000000-aaaaaa-000000.000000"
#: Processor time limit per case, in seconds.
SECONDS = 5
BYTES = 1 << 30
ANEW = "MPISWEEP_FUZZ_ANEW" in os.environ
CASES = 2000 if ANEW else 500

fuzz = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=not ANEW,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


class HangError(BaseException):
    """A case exceeds its time limit; a BaseException, so no handler in the program catches it."""


@contextlib.contextmanager
def bounded(what: object) -> Iterator[None]:
    """Limit processor time, wall time and memory of the block."""

    def told(number: int, frame: object) -> None:
        raise HangError(f"too long ({signal.Signals(number).name}): {what!r}"[:2000])

    limits = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE_S))
    before = [signal.signal(number, told) for number, _, _ in limits]
    usual = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, usual[1]))
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        # Lift the memory limit first: no memory may be left for the rest.
        resource.setrlimit(resource.RLIMIT_AS, usual)
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------- sweep files


def judge_spec(make: Callable[[], Spec], what: object) -> None:
    """Expect a usable Spec, or an error of one line that names the file."""
    with bounded(what):
        try:
            spec = make()
        except SpecError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            assert "sweep.toml: " in str(error)
            return
        assert isinstance(spec, Spec)
        assert spec.differences(spec) == []
        assert all(parameter.describe() for parameter in spec.space.parameters)
        spec.baseline_configuration()
        spec.full({})
        if spec.space.parameters:
            spec.space.from_unit([0.5] * len(spec.space.axes))
        if spec.space.size:
            assert spec.space.index(spec.space.point(spec.space.size - 1)) is not None


def judge_text(text: str) -> None:
    judge_spec(lambda: parse_spec(text, source="sweep.toml", folder=Path()), text)


WHOLE = """name = "a"
workload = "m:f"
objective = "loss"
direction = "minimize"
search = "grid"
seed = 1
max_points = 1000

[parameters]
x = { from = 1, to = 700, step = 3 }
y = { from = 1e-4, to = 1e-1, scale = "log", points = 4 }
z = ["sgd", "adamw"]

[fixed]
mode = "fast"
num = 300

[baseline]
x = 1
y = 0.0001
z = "sgd"

[limits]
timeout = "1h10m"
retries = 3
grace = 10
"""
SAMPLED = (
    'workload = "resnet50"\nsearch = "random"\ntrials = 9\n[parameters]\n'
    'learning_rate = { from = 0.001, to = 1.0 }\nbatch_size = { from = 1, to = 700, scale = "log" }\n'
)
TOKENS = [
    "=",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'''",
    '"""',
    "\n",
    "\\",
    "#",
    ".",
    ",",
    "-",
    "1",
    "0x",
    "e",
    "inf",
    "nan",
    "true",
    "[[parameters]]",
    "[parameters.x]",
    "from",
    "to",
    "step = 1e-9",
    "points = 9",
    'scale = "log"',
    "9" * 30,
    "1979-05-27",
    "\0",
    "\x7f",
    "\u2028",
    "é",
    "\U0001f600",
    '"a\\nb" = 1',
    "\r",
    "1_000",
    "trials = 3",
]

mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "remove", "repeat", "replace"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.sampled_from(TOKENS),
    ),
    min_size=1,
    max_size=5,
)


def mutated(text: str, changes: list[tuple[str, float, int, str]]) -> str:
    for change, where, length, token in changes:
        at = int(where * len(text))
        part = text[at : at + length]
        made = {"insert": token + part, "remove": "", "repeat": part + part, "replace": token}
        text = text[:at] + made[change] + text[at + length :]
    return text


@given(st.binary(max_size=200))
@fuzz
def test_random_bytes_are_not_a_sweep_file(tmp_path, data):
    (tmp_path / "sweep.toml").write_bytes(data)
    judge_spec(lambda: load_spec(tmp_path / "sweep.toml"), data)


@given(st.text(max_size=100) | st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
@fuzz
def test_random_text_is_a_spec_or_one_sentence(text):
    judge_text(text)


@given(st.sampled_from([WHOLE, SAMPLED]), mutations)
@fuzz
def test_a_sweep_file_with_any_typing_errors_is_a_spec_or_one_sentence(text, changes):
    judge_text(mutated(text, changes))


def toml(value: Any) -> str:
    """The value as TOML text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else repr(value)


names = st.sampled_from(["x", "y", "from", "to", "step", "points", "scale", "", "a\nb", "ä", "a.b"])
integers = (
    st.sampled_from([0, 1, -1, 3, 10**12, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400]) | st.integers()
)
floats = st.floats() | st.sampled_from([1e-12, 1e-300, 5e-324, 1e308, -1e308])
scalars = (
    integers
    | floats
    | st.booleans()
    | st.dates()
    | st.times()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from(
        ["log", "linear", "m:f", "resnet50", "grid", "random", "sobol", "a\nb", "10m", "9" * 400 + "h"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
numbers = integers | floats
ranges = st.fixed_dictionaries(
    {"from": numbers, "to": numbers},
    optional={"step": numbers, "points": integers, "scale": st.sampled_from(["log", "linear"])},
)


@given(st.dictionaries(st.sampled_from(names_of("")), values, min_size=1, max_size=3))
@fuzz
def test_any_values_of_the_known_keys_are_a_spec_or_one_sentence(top):
    judge_text("\n".join(f"{key} = {toml(value)}" for key, value in ({"workload": "m:f"} | top).items()))


@given(
    st.dictionaries(st.sampled_from(["x", "y", "batch_size"]), ranges | values, min_size=1, max_size=2),
    st.sampled_from(["grid", "random", "sobol"]),
    st.sampled_from(["m:f", "resnet50"]),
)
@fuzz
def test_any_ranges_are_a_spec_or_one_sentence(parameters, search, workload):
    trials = "" if search == "grid" else "trials = 9\n"
    head = f'workload = "{workload}"\nsearch = "{search}"\nmax_points = 100000\n{trials}[parameters]\n'
    judge_text(head + "\n".join(f"{name} = {toml(value)}" for name, value in parameters.items()))


@given(
    st.sampled_from(["fixed", "baseline", "limits"]),
    st.dictionaries(names | st.sampled_from(names_of("limits")), values, min_size=1, max_size=3),
)
@fuzz
def test_any_tables_of_fixed_values_and_limits_are_a_spec_or_one_sentence(table, inner):
    judge_text(
        f'workload = "m:f"\n[{table}]\n' + "\n".join(f"{toml(k)} = {toml(v)}" for k, v in inner.items())
    )


@pytest.mark.parametrize(
    "text",
    [
        "x = { from = 0.0, to = 1.0, step = 1e-12 }",
        "x = { from = 0.0, to = 1.0, step = 5e-324 }",
        "x = { from = 0.0, to = 1.0, points = 1000000000000 }",
        "x = { from = 1, to = 1000000000000, scale = 'log', points = 1000000000000 }",
        "x = { from = -1e308, to = 1e308, step = 1.0 }",
        "x = { from = -1e308, to = 1e308, points = 3 }",
        f"x = {{ from = 1, to = 1{'0' * 400} }}",
        f"x = [1.5, 1{'0' * 400}]",
        f"x = [{'9' * 5000}]",
        f"x = {'[' * 3000}",
        '"a\\nb" = 3',
        '[fixed]\n"a\\nb" = 3',
        f"[limits]\ntimeout = 1{'0' * 400}",
        f"[limits]\ntimeout = '{'9' * 400}h'",
        f"[limits]\ntimeout = '{'9' * 5000}:00:00'",
    ],
    ids=lambda text: text[:40],
)
def test_absurd_numbers_and_names_are_refused_in_one_sentence(text):
    with bounded(text), pytest.raises(SpecError) as caught:
        parse_spec(f'workload = "m:f"\n[parameters]\n{text}\n', source="sweep.toml", folder=Path())
    assert len(str(caught.value).splitlines()) == 1


# ------------------------------------------------------------------------------------- journals


def records() -> list[Any]:
    return [opening(), *history()]


def look(path: Path) -> None:
    """Read everything in a sweep."""
    sweep = mpisweep.load(path)
    assert repr(sweep)
    for table in (sweep.trials.array, sweep.attempts, sweep.workers, sweep.allocations):
        table.tolist()
    for name in sweep.curve_names:
        for number in range(min(len(sweep.trials), 5)):
            sweep.curve(number, name)
    for name in (*sweep.parameters, *sweep.metrics):
        assert sweep.column(name) in sweep.trials.names
    assert len(sweep.best(2)) <= 2
    assert sweep.count(TrialState.COMPLETE) <= len(sweep.trials)
    assert sweep.baseline is not NotImplemented
    assert isinstance(sweep.environment, dict)
    assert isinstance(sweep.state, str)


def judge(path: Path, what: object, use: Callable[[Path], object] = look) -> bool:
    """Whether `use` succeeds; the only error allowed is a ResultsError of one line."""
    with bounded(what):
        try:
            use(path)
        except ResultsError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            return False
    return True


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of a results file that does not exist, with a folder for its journal."""
    monkeypatch.setattr(merged.time, "sleep", lambda seconds: None)
    journal_folder(tmp_path / "s.h5").mkdir()
    return tmp_path / "s.h5"


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    (journal_folder(path) / SEGMENT).write_bytes(data)


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"mSj1", b"\0\0\0\0", b"\x10\0\0\0", b"{}"])).map(b"".join)
)
@fuzz
def test_random_bytes_are_not_a_journal(sweep, data):
    """The reader finds no record and reports damage; loading fails with one sentence."""
    put(sweep, data)
    damages: list[Damage] = []
    with bounded(data):
        assert list(read_journal(journal_folder(sweep), {}, damages)) == []
    assert sum(damage.length for damage in damages) <= len(data)
    assert not judge(sweep, data)


byte_changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "remove", "repeat", "move"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 300),
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=6,
)


def damaged(data: bytes, changes: list[tuple[str, float, float, int, bytes]]) -> bytes:
    for change, where, to, length, new in changes:
        at, target = int(where * len(data)), int(to * len(data))
        part = data[at : at + length]
        match change:
            case "flip":
                data = (
                    data[:at]
                    + bytes(a ^ b for a, b in zip(data[at:], new, strict=False))
                    + data[at + len(new) :]
                )
            case "insert":
                data = data[:at] + new + data[at:]
            case "remove":
                data = data[:at] + data[at + length :]
            case "repeat":
                data = data[:at] + part + data[at:]
            case "move":
                data = data[:target] + part + data[target:]
    return data


@given(byte_changes)
@fuzz
def test_every_record_of_a_damaged_segment_is_one_that_was_written(sweep, changes):
    bodies = [encode(record) for record in records()]
    data = damaged(b"".join(map(frame, bodies)), changes)
    put(sweep, data)
    with bounded(changes):
        found = [encode(entry.record) for entry in read_journal(journal_folder(sweep), {}, [])]
    assert set(found) <= set(bodies)
    judge(sweep, changes)


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


NAMES = ["x", "loss", "a/b", "", ".", "..", "a\0b", "number", "metric_x", "parameter_loss", "\ud800"]
hostile_scalars = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        5,
        2**31,
        2**40,
        2**63 - 1,
        2**63,
        -(2**63),
        10**30,
        -(10**30),
        10**400,
        0.5,
        -0.5,
        math.nan,
        math.inf,
        1e300,
        "",
        "a",
        "1",
        "a/b",
        ".",
        "a\0b",
        "\ud800",
        "number",
        "x" * 70_000,
        deep(500),
    ]
)
hostile = st.recursive(
    hostile_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)


SAME_KIND: dict[type, list[Any]] = {
    str: ["", "a", "a/b", "a\0b", "a\nb", "\ud800", "x" * 70_000, "z" * 2, "= no TOML", "../../x"],
    int: [-1, 0, 1, 2, 3, 5, 100, 2**31, 2**40, 2**62, 2**63, -(2**63), 10**30],
    float: [0, -1, math.nan, math.inf, -math.inf, 1e308, 5e-324, 2**63, 10**400],
}


@st.composite
def hostile_fields(draw: Callable[..., Any]) -> dict[str, Any]:
    """The JSON of a good record in which some fields, or values inside them, are replaced."""
    kinds = {record.kind: record for record in records()}
    fields: dict[str, Any] = json.loads(encode(kinds[draw(st.sampled_from(sorted(kinds)))]))
    if "run" in fields and draw(st.booleans()):
        # A different run, because records of a known run are skipped.
        fields["run"] = "zz"
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        name = draw(st.sampled_from(sorted(fields.keys() - {"kind"})))
        holder: Any = fields
        while isinstance(holder[name], (dict, list)) and holder[name] and draw(st.integers(0, 3)):
            holder = holder[name]
            name = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        match draw(
            st.sampled_from(["same kind", "same kind", "same kind", "any kind", "longer", "shorter", "drop"])
        ):
            case "same kind" if type(holder[name]) in SAME_KIND:
                holder[name] = draw(st.sampled_from(SAME_KIND[type(holder[name])]))
            case "longer" if isinstance(holder, list):
                holder.append(_own(draw(hostile)))
            case "longer" if isinstance(holder, dict):
                holder[draw(st.sampled_from(NAMES))] = holder[name]
            case "shorter" if isinstance(holder[name], list):
                holder[name] = holder[name][1:]
            case "drop" if isinstance(holder, dict):
                del holder[name]
                break
            case _:
                holder[name] = _own(draw(hostile))
    return fields


def _own(value: Any) -> Any:
    """Copy a sampled value: it is one shared object and could end up inside itself."""
    return json.loads(json.dumps(value))


def hostile_segment(hostiles: list[dict[str, Any]], at: int) -> bytes:
    """A good segment with frames of these fields inserted, all with valid checksums."""
    bodies = [encode(record) for record in records()]
    bodies[at:at] = [json.dumps(fields).encode() for fields in hostiles]
    return b"".join(map(frame, bodies))


@given(st.lists(hostile_fields(), min_size=1, max_size=3), st.sampled_from([0, 1, 2, 9, 17]))
@fuzz
def test_records_with_senseless_fields_give_an_answer_or_one_sentence(sweep, hostiles, at):
    put(sweep, hostile_segment(hostiles, at))
    judge(sweep, hostiles)


@given(st.lists(hostile_fields(), min_size=1, max_size=3), st.sampled_from([1, 2, 9, 17]))
@settings(fuzz, max_examples=CASES // 3)
def test_a_journal_with_senseless_fields_is_compacted_into_a_readable_file(sweep, hostiles, at):
    """Compaction must never write an unreadable results file, because it deletes the journal."""
    put(sweep, hostile_segment(hostiles, at))
    if judge(sweep, hostiles, compact):
        (journal_folder(sweep) / SEGMENT).unlink()
        assert judge(sweep, hostiles), "the results file cannot be read"


@pytest.mark.parametrize("number", [2**31, 2**40, 2**63, 10**30, -1, -5])
@pytest.mark.parametrize("kind", ["trials", "assigned", "ended", "reports"])
def test_a_gigantic_or_negative_trial_number_takes_no_memory(sweep, kind, number):
    """The record is refused; all good ones are read."""
    good = next(record for record in records() if record.kind == kind)
    fields = json.loads(encode(good))
    if kind == "reports":
        fields["number"] = number
    else:
        fields |= {
            name: value[:1] for name, value in fields.items() if isinstance(value, list) and name != "slots"
        }
        fields["numbers"] = [number]
    if kind == "ended":
        fields["metrics"] = {"loss": [7.0]}
    put(sweep, hostile_segment([fields], 5))
    assert judge(sweep, fields)
    table = mpisweep.load(sweep).trials
    assert table["number"].tolist() == [0, 1, 2, 3]
    assert table["loss"][[1, 3]].tolist() == [4.0, 1.0]


METRICS = [
    "loss",
    "train/loss",
    "a/b/c",
    "/",
    ".",
    "..",
    "",
    "a\0b",
    "a\nb",
    "\ud800",
    "number",
    "x" * 70_000,
    "ü",
]


@pytest.mark.parametrize("name", METRICS, ids=lambda name: ascii(name[:10]))
def test_the_values_of_a_metric_of_any_name_survive_compaction(sweep, name):
    """The values are the same in the journal, in the file, and after another compaction."""
    run, trials, *_ = records()
    report = next(record for record in records() if isinstance(record, ReportBlock))
    made = [
        run,
        trials,
        ReportBlock(1, 0, 1, {name: report.curves["loss"]}),
        EndedBlock(1, 0, [0], [1], [2], [1.0], [1.0], {name: [4.5], "other": [2.5]}),
    ]
    put(sweep, b"".join(frame(encode(record)) for record in made))
    for _ in range(3):
        table = mpisweep.load(sweep)
        assert len(table.metrics) == 2
        assert table.trials[table.column(table.metrics[0])][0] == 4.5
        assert table.trials["other"][0] == 2.5
        assert table.curve(0, table.curve_names[0]).value.tolist() == report.curves["loss"].value.tolist()
        compact(sweep)


@pytest.mark.parametrize("filler", [b"mSj1\xff\xff\x0f\0\0\0\0\0", b"mSj1\0\0\1\0\0\0\0\0", b"mSj1", b"\0"])
def test_two_megabytes_of_damage_are_skipped_at_once(sweep, filler):
    """Also if every few bytes look like the beginning of a long frame."""
    frames = [frame(encode(record)) for record in records()]
    put(sweep, b"".join(frames[:5]) + filler * ((1 << 21) // len(filler)) + b"".join(frames[5:]))
    with bounded(filler):
        assert len(list(read_journal(journal_folder(sweep), {}, []))) == len(frames)


@pytest.mark.parametrize(
    "body",
    [b'{"kind":"run","run":' + b"[" * 100_000, b"[" * 500_000, b'{"kind":' * 50_000, b'{"kind":"left","worker":' + b"9" * 5000 + b"}"],
    ids=["deep field", "deep list", "deep record", "long number"],
)  # fmt: skip
def test_a_body_that_json_cannot_take_is_damage(sweep, body):
    frames = [frame(encode(record)) for record in records()]
    put(sweep, b"".join(frames[:5]) + frame(body) + b"".join(frames[5:]))
    damages: list[Damage] = []
    with bounded(body[:40]):
        assert len(list(read_journal(journal_folder(sweep), {}, damages))) == len(frames)
    assert [damage.length for damage in damages] == [len(frame(body))]


# ------------------------------------------------------------------------------------- HDF5 files


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A results file in which every table has rows."""
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    journal_folder(path).mkdir()
    put(path, b"".join(frame(encode(record)) for record in records()))
    compact(path)
    return path.read_bytes()


def noise(rng: random.Random, image: bytes, path: Path) -> None:
    """Random bytes, some after the beginning of a real file."""
    path.write_bytes(image[: rng.choice([0, 0, 8, 48, 96, 512])] + rng.randbytes(rng.randrange(3000)))


def truncated(rng: random.Random, image: bytes, path: Path) -> None:
    """A file whose end is missing or zeroed."""
    at = rng.randrange(len(image))
    path.write_bytes(image[:at] + rng.choice([b"", bytes(len(image) - at)]))


def flipped(rng: random.Random, image: bytes, path: Path) -> None:
    """A real file with a few changed bytes."""
    data = bytearray(image)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        data[rng.randrange(len(data))] = rng.choice([0, 0xFF, rng.randrange(256)])
    path.write_bytes(data)


def reshaped(rng: random.Random, image: bytes, path: Path) -> None:
    """Valid HDF5 in which some objects or attributes are missing or of another kind."""
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visit(places.append)
        for _ in range(rng.choice([1, 1, 2, 4])):
            if rng.random() < 0.2:
                name = rng.choice([*file.attrs])
                made = rng.choice(
                    [
                        "",
                        "1",
                        "{",
                        "[1]",
                        '{"a": "b"}',
                        '{"9": 1}',
                        "a\nb",
                        1.5,
                        -7,
                        2**62,
                        [1, 2],
                        b"\xff",
                        h5py.Empty("f8"),
                    ]
                )
                if rng.random() < 0.3:
                    del file.attrs[name]
                else:
                    file.attrs[name] = made
                continue
            place = rng.choice(places)
            try:
                length = file[place].size or 1 if isinstance(file[place], h5py.Dataset) else 4
            except (KeyError, RuntimeError, OSError):
                # It was deleted with its group, or an earlier change turned it into a dangling link.
                continue
            del file[place]
            if rng.random() < 0.25:
                continue
            count = rng.choice([length, length, length, length + 1, 0, 1, 1000])
            replace(file, place, rng.choice(REPLACEMENTS), rng, min(count, 1000))


def replace(file: h5py.File, place: str, what: str, rng: random.Random, count: int) -> None:
    match what:
        case "integers":
            file[place] = np.array(
                [rng.choice([-1, 0, 1, 2, 7, -9, 2**62, -(2**63)]) for _ in range(count)], "i8"
            )
        case "bytes":
            file[place] = np.array([rng.randrange(-128, 128) for _ in range(count)], "i1")
        case "unsigned":
            file[place] = np.full(count, 2**64 - 1, "u8")
        case "floats":
            file[place] = np.array([rng.choice([np.nan, np.inf, 0.5, -1.0]) for _ in range(count)])
        case "texts":
            file.create_dataset(
                place, data=[rng.choice(["", "a", "ü\n"]) for _ in range(count)], dtype=h5py.string_dtype()
            )
        case "not utf-8":
            file[place] = np.array([b"\xff\xfe"] * count, "S2")
        case "opaque":
            file[place] = np.array([b"\x80\x04K\x01."] * count, "V5")
        case "complex":
            file[place] = np.zeros(count, "c16")
        case "compound":
            file[place] = np.zeros(count, [("a", "i4"), ("b", "f8")])
        case "scalar":
            file[place] = 1
        case "table":
            file[place] = np.zeros((count, 2))
        case "nothing":
            file[place] = h5py.Empty("f8")
        case "gigantic":
            file.create_dataset(place, shape=(2**42,), dtype="i8", chunks=(1024,))
        case "group":
            file.create_group(place)
        case "broken link":
            file[place] = h5py.SoftLink("/nowhere")
        case "loop":
            file[place] = h5py.SoftLink("/" + place)
        case "outside":
            file[place] = h5py.ExternalLink("nowhere.h5", "/a")


REPLACEMENTS = [
    "integers",
    "integers",
    "bytes",
    "unsigned",
    "floats",
    "texts",
    "not utf-8",
    "opaque",
    "complex",
    "compound",
    "scalar",
    "table",
    "nothing",
    "gigantic",
    "group",
    "broken link",
    "loop",
    "outside",
]
#: Signals by which the HDF5 library ends a process: crashes, and endless loops (2 s of processor time).
LIBRARY_ENDS = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGBUS, -signal.SIGVTALRM}
MAKERS = {maker.__name__: maker for maker in (noise, truncated, flipped, reshaped)}


def read_many(maker: str, image: str, folder: str, seed: int, first: int, count: int) -> None:
    """Read damaged files in a child; print the number of each before and its outcome after."""
    merged.time.sleep = lambda seconds: None
    path = Path(folder) / "s.h5"
    for case in range(first, count):
        print(case, end=" ", flush=True)
        # This ends the process even inside the library.
        signal.setitimer(signal.ITIMER_VIRTUAL, 2)
        path.unlink(missing_ok=True)
        MAKERS[maker](random.Random(f"{seed} {maker} {case}"), Path(image).read_bytes(), path)
        try:
            with bounded(case):
                look(path)
            print("answer", flush=True)
        except ResultsError as error:
            print(
                "refused" if len(str(error).splitlines()) == 1 else f"wrong: two lines: {error!r}", flush=True
            )
        except BaseException as error:
            frames = [
                (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
            ]
            where = [
                f"{Path(file).name}:{line}" for file, line in frames if f"{os.sep}mpisweep{os.sep}" in file
            ][-1:]
            print(f"wrong: {type(error).__name__} at {where}: {ascii(str(error))[:150]}", flush=True)


@pytest.mark.parametrize(
    ("maker", "count"),
    [("noise", CASES), ("truncated", CASES // 2), ("flipped", CASES), ("reshaped", CASES // 2)],
)
def test_a_damaged_hdf5_file_gives_an_answer_or_one_sentence(maker, count, whole, tmp_path):
    """Files are read in child processes, because the HDF5 library may crash; mpisweep may not."""
    (tmp_path / "whole").write_bytes(whole)
    seed = random.SystemRandom().randrange(2**32) if ANEW else 0
    outcomes: dict[int, str] = {}
    ends: list[str] = []
    while len(outcomes) < count and len(ends) <= count // 200:
        program = (
            f"import test_fuzz; test_fuzz.read_many({maker!r}, 'whole', '.', {seed}, {len(outcomes)}, "
            f"{count})"
        )
        child = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])},
        )
        for line in child.stdout.splitlines():
            case, _, outcome = line.partition(" ")
            outcomes[int(case)] = outcome or f"ended by {child.returncode}"
        if child.returncode:
            assert child.returncode in LIBRARY_ENDS, (
                f"{outcomes.popitem()} of seed {seed}: {child.stderr[-2000:]}"
            )
            ends.append(f"case {len(outcomes) - 1} by {signal.Signals(-child.returncode).name}")
    wrong = {case: outcome for case, outcome in outcomes.items() if outcome.startswith("wrong")}
    kinds = sorted(set(wrong.values()))
    assert not wrong, (
        f"{len(wrong)} of {count} with seed {seed}, the first is case {min(wrong)}:\n" + "\n".join(kinds[:40])
    )
    assert len(ends) <= count // 200, (
        f"the HDF5 library crashed or hung {len(ends)} times with seed {seed}: {ends}"
    )
    assert set(outcomes.values()) & {"refused"}


# ------------------------------------------------------------------------------------- nothing runs code


class _Payload:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._folder,)


WATCHER = """
import sys, warnings
from pathlib import Path
import mpisweep, test_fuzz
from mpisweep.results.compaction import compact
test_fuzz.look(Path("good.h5")); compact(Path("good.h5"))
BAD = ("exec", "compile", "pickle.find_class", "marshal.load", "marshal.loads", "os.system", "os.exec", "os.fork",
       "os.posix_spawn", "subprocess.Popen", "ctypes.dlopen", "os.mkdir")
def watch(event, arguments):
    if event in BAD and not (event == "os.mkdir" and str(arguments[0]).endswith(".damaged")):
        print("ran", event, repr(arguments)[:200], flush=True)
sys.addaudithook(watch)
for path in map(Path, sys.argv[1:]):
    for use in (test_fuzz.look, compact, test_fuzz.look):
        try:
            use(path)
            print("read", path, flush=True)
        except mpisweep.ResultsError as error:
            print("refused", path, error, flush=True)
        except Exception as error:
            print("wrong", path, use.__name__, type(error), str(error)[:200], flush=True)
"""


def texts_replaced(value: Any, text: str, spec: str) -> Any:
    """The JSON value with every text replaced, except those that identify a record and a sweep."""
    if isinstance(value, dict):
        return {
            k: v if k in ("kind", "run") else spec if k == "spec" else texts_replaced(v, text, spec)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [texts_replaced(inner, text, spec) for inner in value]
    return text if isinstance(value, str) else value


def test_nothing_in_a_results_file_or_a_journal_runs(tmp_path, whole):
    """Texts, attributes and bytes hold pickles, and the sweep names a module that must not run."""
    made = tmp_path / "made by the payload"
    payloads = [pickle.dumps(_Payload(os.fspath(made)), protocol) for protocol in (0, 2, 5)]
    pickle.loads(payloads[0])
    made.rmdir()
    (tmp_path / "canary.py").write_text(f"import os; os.mkdir({os.fspath(made)!r})", encoding="utf-8")
    spec = 'workload = "canary:f"\n[parameters]\nx = [1, 2, 3, 4]\n[fixed]\nmode = "fast"\n'
    good = tmp_path / "good.h5"
    good.write_bytes(whole)
    journal_folder(good).mkdir()
    paths: list[str] = []
    for index, payload in enumerate(payloads):
        for text in (
            payload.decode("latin-1"),
            repr(payload),
            f"__import__('os').mkdir({os.fspath(made)!r})",
        ):
            path = tmp_path / f"journal{len(paths)}.h5"
            paths.append(path.name)
            journal_folder(path).mkdir()
            bodies = [texts_replaced(json.loads(encode(record)), text, spec) for record in records()]
            bodies[0]["command"] = [text]
            data = b"".join(frame(json.dumps(fields).encode()) for fields in bodies)
            (journal_folder(path) / SEGMENT).write_bytes(data + frame(payload) + payload)
        path = tmp_path / f"file{index}.h5"
        paths.append(path.name)
        path.write_bytes(whole)
        fill_with(path, payload, spec)
    child = subprocess.run(
        [sys.executable, "-c", WATCHER, *paths],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])},
    )
    assert not made.exists()
    assert "ran" not in [line.partition(" ")[0] for line in child.stdout.splitlines()], child.stdout
    assert child.returncode == 0, child.stderr
    assert all(f"read {path}\n" in child.stdout for path in paths), child.stdout


def fill_with(path: Path, payload: bytes, spec: str) -> None:
    """Put the payload into texts of an HDF5 file, and as bytes where other tools keep pickles."""
    text = payload.replace(b"\0", b" ")
    with h5py.File(path, "r+") as file:
        file.attrs["spec"] = spec
        file.attrs["source"] = text.decode("latin-1")
        file.attrs["pickle"] = np.void(payload)
        file.attrs["CLASS"] = np.void(payload)
        file["environment"].attrs["python"] = text.decode("latin-1")
        for name in ("trials/parameters/mode", "trials/message", "workers/host", "allocations/run"):
            count = len(file[name])
            del file[name]
            file.create_dataset(name, data=[text.decode("latin-1")] * count, dtype=h5py.string_dtype())
        file["trials/payload"] = np.array([payload] * 4, f"V{len(payload)}")
        file["trials/payload"].attrs["PSEUDOATOM"] = np.void(payload)


def test_the_records_that_the_cases_are_made_from_are_valid():
    """The records from which the cases are made are good ones."""
    assert isinstance(records()[0], RunRecord)
    assert parse_spec(records()[0].spec, source="s", folder=Path()).space.size == 4
