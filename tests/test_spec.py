from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpisweep.cli import main
from mpisweep.spec import BuiltinWorkload, SpecError, load_spec, parse_duration, parse_spec, spec_from_flags

EXAMPLES = Path(__file__).parent.parent / "examples"


def parse(text: str):
    return parse_spec(text, source="sweep.toml", folder=Path())


RESNET = 'workload = "resnet50"\n'


def test_a_sweep_file_with_every_table_is_parsed():
    spec = parse(
        'name = "a"\nworkload = "resnet50"\nobjective = "loss"\nsearch = "grid"\nseed = 1\n'
        "[parameters]\nbatch_size = { from = 1, to = 700 }\n[fixed]\nnum_iter = 300\n"
        '[baseline]\nbatch_size = 256\n[limits]\ntimeout = "10m"\nretries = 3\n'
    )
    assert spec.workload == BuiltinWorkload("resnet50")
    assert spec.space.size == 700
    assert spec.limits.timeout_s == 600
    assert spec.limits.retries == 3
    assert spec.baseline_configuration() == {"batch_size": 256, "num_iter": 300}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "workload: is missing; expected 'resnet50', a function like 'my_train:train', or { command = "
             "\"python train.py --x={x}\" }"),
        ('workload = "resnet"', "workload: is 'resnet'; expected 'resnet50', a function like "
                                "'my_train:train', or { command = \"python train.py --x={x}\" }; did you mean 'resnet50'?"),
        (RESNET + "sed = 1", "sed: is not a known key; did you mean 'seed'?"),
        (RESNET + 'objective = "los"', "objective: resnet50 has no metric 'los'; did you mean 'loss'?"),
        (RESNET + "seed = -1", "seed: is -1; expected an integer of at least 0"),
        (RESNET + 'search = "gird"', "search: is 'gird'; expected one of grid, points, random, sobol, largest_batch, batch_size, "
            "tpe, gp, cmaes, nsga2; did you mean 'grid'?"),
        (
            RESNET + "[parameters]\nbatchsize = { from = 1, to = 7 }",
            "parameters.batchsize: resnet50 has no such option; did you mean 'batch_size'?",
        ),
        (
            RESNET + "[parameters]\nbatch_size = { from = 7, to = 1 }",
            "parameters.batch_size: 'from' is 7 and 'to' is 1; 'from' must not exceed 'to'",
        ),
        (
            RESNET + "[parameters]\nbatch_size = { from = 0, to = 7 }",
            "parameters.batch_size: is 0; expected an integer of at least 1",
        ),
        (
            RESNET + "[parameters]\nlearning_rate = { from = 0.0, to = 1.0 }",
            "parameters.learning_rate: is continuous (numbers from 0 to 1), but a grid needs points; "
            "set 'step' or 'points', or search = \"random\" with trials = N",
        ),
        (
            RESNET + "[parameters]\nbatch_size = { from = 1, to = 2000000 }",
            "parameters: the grid has 2,000,000 points, more than 1,000,000; to run it anyway, "
            "set max_points = 2000000",
        ),
        (
            RESNET + 'search = "random"\n[parameters]\nbatch_size = { from = 1, to = 7 }',
            "trials: is missing; a random search needs a number of trials, e.g. trials = 100",
        ),
        (RESNET + "trials = 3", "trials: does not apply to a grid, which runs every "
                                  "point; remove it, or choose another search"),
        (RESNET + '[limits]\n'
                  'timeout = "soon"', "limits.timeout: is 'soon'; expected a duration such as \"10m\" or 600"),
        (RESNET + "[limits]\ntimeouts = 1", "limits.timeouts: is not a known key; did you mean 'timeout'?"),
        (RESNET + "[limits]\nfresh_process = true",
         "limits.fresh_process: belongs at the top of the file, before the first [table]"),
        (RESNET + "[limits]\nbaseline = {}",
         "limits.baseline: belongs at the top of the file, before the first [table]"),
        (RESNET + 'timeout = "10m"', "timeout: belongs in [limits] or in [hooks]"),
        (RESNET + 'memory = "10GB"', "memory: belongs in [limits] or in an entry of [parameters]"),
        (RESNET + "scale = 'log'", "scale: belongs in an entry of [parameters]"),
        (RESNET + "command = 'train'", "command: belongs in workload = { ... }"),
        (RESNET + "[fixed]\ngrace = '5s'", "fixed.grace: resnet50 has no such option; it belongs in [limits]"),
        (RESNET + "[parameters]\nbatch_size = { from = 1, to = 7, seed = 2 }",
         "parameters.batch_size: found the key 'seed'; it belongs at the top of the file, before the first "
         "[table]"),
        ('workload = { command = "p", timeout = 3 }', "workload.timeout: belongs in [limits] or in [hooks]"),
        (
            RESNET + "[parameters]\nbatch_size = [1, 2]\n[fixed]\nbatch_size = 3",
            "fixed.batch_size: is also under [parameters]; a parameter is either searched or fixed",
        ),
        (RESNET + '[fixed]\ndata = "mnist"',
         "fixed.data: is 'mnist'; expected one of 'synthetic', 'digits', 'cifar10', 'imagefolder'"),
        (RESNET + "parameters = 3", "parameters: is 3; expected a table, [parameters]"),
        (
            'workload = "m:f"\n[parameters]\nx = [1, 2]\ny = [1, 2]\n[baseline]\nx = 1',
            "baseline: 'y' is missing; a baseline must set every searched parameter",
        ),
        ('name = "../x"\n' + RESNET,
         "name: is '../x'; expected letters, digits, '.', '_' and '-', as in a file name"),
    ],
)  # fmt: skip
def test_every_mistake_is_reported_in_one_sentence(text, message):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert str(caught.value) == f"sweep.toml: {message}"


def test_broken_files_are_reported(tmp_path):
    with pytest.raises(SpecError, match=r"no\.toml: cannot be read: No such file"):
        load_spec(tmp_path / "no.toml")
    (tmp_path / "broken.toml").write_text("a = [1\nb", encoding="utf-8")
    with pytest.raises(SpecError, match=r"broken\.toml: is not TOML: .*line"):
        load_spec(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(SpecError, match=r"binary\.toml: is not UTF-8 text"):
        load_spec(tmp_path / "binary.toml")


toml_values = st.recursive(
    st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.booleans() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        "name",
        "workload",
        "search",
        "trials",
        "seed",
        "parameters",
        "fixed",
        "baseline",
        "limits",
        "max_points",
    ]
)


@given(
    st.dictionaries(keys, toml_values, max_size=6),
    st.dictionaries(st.text(max_size=6), toml_values, max_size=3),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_sweep_file_is_a_spec_or_one_sentence(top, inner):
    from mpisweep.spec.sweepfile import _Parser

    raw = {"workload": "m:f"} | top | {"parameters": inner}
    try:
        _Parser("sweep.toml").spec(raw, "", Path())
    except SpecError as error:
        assert str(error).startswith("sweep.toml: ")


@given(st.text())
def test_any_text_is_a_spec_or_one_sentence(text):
    try:
        parse(text)
    except SpecError as error:
        assert str(error).startswith("sweep.toml: ")


def test_a_file_that_was_saved_on_windows_is_read_like_any_other(tmp_path):
    text = 'workload = "resnet50"\n[parameters]\nbatch_size = { from = 1, to = 7 }\n'
    (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_spec(tmp_path / "windows.toml").text == text


def test_flags_give_the_same_spec_as_a_file():
    spec = spec_from_flags(
        "resnet50",
        ["batch_size=1:700", "learning_rate=1e-4:1e-1:log:points=3", "optimizer=sgd,adamw", "num_iter=300"],
        baseline=["batch_size=256"],
        options={"seed": 3, "name": None},
        limits={"timeout": "10m"},
        folder=Path(),
    )
    again = parse_spec(spec.text, source=spec.source, folder=spec.folder)
    assert again == spec
    assert spec.space.size == 700 * 3 * 2
    assert spec.fixed == {"num_iter": 300}
    assert spec.seed == 3


def test_flags_may_declare_how_memory_depends_on_a_list():
    spec = spec_from_flags(
        "resnet50", ["batch_size=16,64,256:memory=increasing", "num_iter=3"], folder=Path()
    )
    assert spec.space.memory == {"batch_size": "increasing"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=",()[]{}"), max_size=20))
def test_any_text_may_be_a_choice_on_the_command_line(text):
    spec = spec_from_flags("m:f", [f"x=a{text}a,another"], folder=Path())
    assert spec.space.parameters[0].values == (f"a{text}a", "another")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["batch_size"], "command line: -p batch_size: expected NAME=VALUE, e.g. batch_size=256"),
        (["batch_size=1:2", "batch_size=3"], "command line: -p batch_size: is given twice"),
        (["optimizer=sgd,\udcff"], "command line: contains bytes that are not UTF-8"),
        (["batch_size=7:1"], "command line: -p batch_size: 'from' is 7 and 'to' is 1; 'from' must not "
                             "exceed 'to'"),
        (["batchsize=1:7"], "command line: -p batchsize: resnet50 has no such option; did you mean "
                            "'batch_size'?"),
        (["batch_size=1:7", "learning_rate=1e-4:1e-1:log"],
         "command line: -p learning_rate: is continuous (numbers from 0.0001 to 0.1 on a log scale), but a "
         "grid needs points; set the number of points, e.g. -p learning_rate=0.0001:0.1:log:points=8, or --search random with "
         "--trials N"),
        (["batch_size=1:2000000"], "command line: -p: the grid has 2,000,000 points, more than 1,000,000; "
                                   "to run it anyway, set --max-points 2000000"),
    ],
)  # fmt: skip
def test_wrong_flags_are_reported(parameters, message):
    with pytest.raises(SpecError) as caught:
        spec_from_flags("resnet50", parameters, folder=Path())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"options": {"search": "random"}}, "command line: --trials: is missing; a random search needs a "
                                            "number of trials, e.g. --trials 100"),
        ({"options": {"search": "largest_batch"}}, "command line: --objective: is missing; --search "
                                                   "largest_batch needs the metric that measures speed"),
        ({"limits": {"timeout": "soon"}}, "command line: --timeout: is 'soon'; expected a duration such as "
                                          "\"10m\" or 600"),
        ({"baseline": ["y=3"]}, "command line: --baseline: 'x' is missing; a baseline must set every "
                                "searched parameter"),
        ({"baseline": ["x=1,2"]}, "command line: --baseline x: found '1,2'; expected one value"),
        ({"baseline": ["x=(1"]}, "command line: --baseline x: found '(' without its closing bracket in "
                                 "'(1'; expected brackets in pairs"),
        ({"metrics": ["loss=loss="]}, "command line: --metric: only applies to a command line; other "
                                      "workloads report their metrics themselves"),
        ({"workload": ["echo", "{y}"]}, "command line: after --: has the placeholder {y}, which is not a "
                                        "parameter; known are x, "),
        ({"workload": ["echo"]}, "command line: -p x: is not used: the command does not contain {x}"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line_are_reported_in_its_form(flags, message):
    with pytest.raises(SpecError) as caught:
        spec_from_flags(**({"workload": "m:f", "parameters": ["x=1:3"], "folder": Path()} | flags))
    assert str(caught.value).startswith(message)


def test_the_examples_in_the_help_of_parameters_work(capsys):
    """Every example in the help of -p works with only the flags that the help names."""
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    shown = text.partition("-p NAME=RANGE, --parameter NAME=RANGE ")[2].partition(" --baseline")[0]
    ranges = re.findall(r"[\w.+-]+:[\w.+:=-]*\w|\ba,b,c\b", shown.partition(" append :memory")[0])
    assert ranges == ["1:700", "1:700:10", "1e-4:1e-1:log:points=8", "a,b,c"]
    for example in ranges:
        assert spec_from_flags("m:f", [f"x={example}"], folder=Path()).space.size
    assert spec_from_flags("m:f", ["x=1:700:memory=increasing"], folder=Path()).space.memory == {
        "x": "increasing"
    }


def test_the_baseline_of_a_text_parameter_is_always_a_text():
    spec = spec_from_flags("m:f", ["x=001,010,100"], baseline=["x=100"], folder=Path())
    assert spec.baseline == {"x": "100"}
    assert spec.space.contains(spec.baseline)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [(90, 90), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1:30:00", 5400), ("", None),
     (True, None), (0, None), (-1, None), ("soon", None), (float("nan"), None), ([], None)],
)  # fmt: skip
def test_durations(raw, seconds):
    assert parse_duration(raw) == seconds


def test_allowed_and_refused_changes_between_two_runs():
    old = parse(RESNET + "[parameters]\nbatch_size = { from = 1, to = 7 }")
    grown = parse(RESNET + "[parameters]\nbatch_size = { from = 1, to = 9 }\n[limits]\ntimeout = 5")
    shrunk = parse(RESNET + "seed = 2\n[parameters]\nbatch_size = { from = 2, to = 9 }")
    assert grown.differences(old) == []
    assert shrunk.differences(old) == [
        "seed: the results file has 0, sweep.toml has 2",
        "parameters.batch_size: the results file has integers from 1 to 7, sweep.toml has integers from 2 "
        "to 9; a space may grow but must keep its old values",
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.name)
def test_the_shipped_sweep_files_are_valid(path):
    assert load_spec(path).space.size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("500MB", 500_000_000),
        ("1.5 kB", 1500),
        ("2TiB", 2 << 40),
        ("12B", 12),
        ("3KiB", 3072),
    ],
)
def test_a_size_of_memory_is_parsed(text, size):
    made = parse_spec(f'workload = "m:f"\n[limits]\nmemory = "{text}"\n', source="s", folder=Path("/"))
    assert made.limits.memory_bytes == size


@pytest.mark.parametrize("wrong", ['"4"', "4", '"4G"', '"-1GB"', '"1e9B"', "true", '"9" '])
def test_an_invalid_size_is_refused(wrong):
    with pytest.raises(SpecError, match=r"limits\.memory: is .*; expected a size such as"):
        parse_spec(f'workload = "m:f"\n[limits]\nmemory = {wrong}\n', source="s", folder=Path("/"))
