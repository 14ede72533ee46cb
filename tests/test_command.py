"""Command lines as workloads: refusals, inputs of a program, and the handling of its output."""

from __future__ import annotations

import gzip
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from started import remember
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.spec import SpecError, parse_spec, spec_from_flags
from mpisweep.spec.commandline import (
    SPECIAL_NAMES,
    CommandWorkload,
    parse_command,
    parse_pattern,
    read_json_line,
    render,
    render_template,
)
from mpisweep.spec.quick import toml_value
from mpisweep.workloads.outputs import Tape, append_output, output_file, read_outputs

Run = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import json, os, signal, subprocess, sys, time
x, how = int(sys.argv[1]), sys.argv[2]
print("begin", repr(sys.argv), flush=True)
if how == "lines":
    for step in range(4):
        print(f"step {10 * step} loss = {x + step}e-1, accuracy: {step / 4}", end="\\\\r" if step % 2 else "\\\\n")
elif how == "json":
    for step in range(3):
        print(json.dumps({"step": 5 * step, "loss": x / (1 + step), "note": "text", "best": True}))
elif how == "report":
    import mpisweep
    for step in range(3):
        mpisweep.report(step=step, loss=x * 2.0 + step)
elif how == "nested":
    program = f"import mpisweep; mpisweep.report(loss={x}.5)"
    subprocess.run([sys.executable, "-c", program], check=True)
elif how == "environment":
    print("loss", os.environ["SCALED"], os.environ["MPISWEEP_TRIAL"], "accuracy", os.path.basename(os.getcwd()))
elif how == "code":
    print("the reason", file=sys.stderr)
    sys.exit(x)
elif how == "signal":
    os.kill(os.getpid(), signal.SIGSEGV)
elif how == "memory":
    print("RuntimeError: CUDA out of memory. Tried to allocate", file=sys.stderr)
    print("something else")
    sys.exit(1)
elif how == "children":
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open("child.txt", "w").write(str(child.pid))
    print("loss 1")
elif how == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open("child.txt", "w").write(str(child.pid))
    time.sleep(1000)
elif how == "stop":
    def save(*_):
        open("saved.txt", "a").write(f"{x}\\\\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    open(f"begun.{x}", "w")
    while not os.path.exists("go"):
        time.sleep(0.01)
    print("loss", x)
elif how == "quiet":
    pass
""".replace("\\\\", "\\")

NUMBERS = "[metrics]\nloss = 'loss[= ]+'\naccuracy = 'accuracy[: ]+'\n"


@pytest.fixture
def program(folder: Path) -> str:
    """The command of a program that behaves as its arguments say, from the sweep file's folder."""
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    return f"{sys.executable} program.py"


def sweep_file(folder: Path, command: str, last: int = 3, more: str = NUMBERS, table: str = "") -> str:
    (folder / "s.toml").write_text(
        f"name = 's'\nworkload = {{ command = \"{command}\"{table} }}\n"
        f"[parameters]\nx = {{ from = 1, to = {last} }}\n{more}\n",
        encoding="utf-8",
    )
    return "s.toml"


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("workload", "more", "complaint"),
    [
        ('{ command = "p {y}" }', "", "{y}, which is not a parameter; known are x, number"),
        ('{ command = "p {x.real}" }', "", "{x.real}"),
        ('{ command = "p {x!r}" }', "", "unpaired brace"),
        ('{ command = "p {x" }', "", "unpaired brace"),
        ('{ command = "p {}" }', "", "placeholder {}"),
        ('{ command = "p {x:s}" }', "", "cannot format 1"),
        ('{ command = "p \'x" }', "", "cannot be split"),
        ('{ command = "" }', "", "is empty"),
        ("{ command = 3 }", "", "expected a command line"),
        ('{ command = "p {x}", shell = true }', "", "workload.shell: is not a known key"),
        ('{ command = "p {x}", env = "A=1" }', "", "workload.env: is 'A=1'"),
        ('{ command = "p {x}", env = { "A B" = "1" } }', "", "is not a valid variable name"),
        ('{ command = "p {x}", env = { A = "{y}" } }', "", "workload.env.A: has the placeholder {y}"),
        ('{ command = "p {x}", template = "../t.in" }', "", "workload.template"),
        ('{ command = "p {x}", template = "/etc/passwd" }', "", "workload.template"),
        ('{ command = "p {x} {template}" }', "", "workload.template is not set"),
        ('{ command = "p {x}", directory = "home" }', "", "workload.directory"),
        ('{ command = "p" }', "", "parameters.x: is not used"),
        ('{ command = "p {x}" }', "[metrics]\nloss = '('", "metrics.loss: is not a valid regular expression"),
        ('{ command = "p {x}" }', "[metrics]\nloss = '(a)'", "none named value"),
        ('{ command = "p {x}" }', "[metrics]\nloss = 3", "metrics.loss: is 3"),
        ('{ command = "p {x}" }', "[metrics]\nstep = 'a'", "metrics.step"),
        ('"resnet50"', "[metrics]\nloss = 'a'", "metrics: only applies to a command line"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_key(workload: str, more: str, complaint: str):
    name = "batch_size" if "resnet50" in workload else "x"
    text = f"workload = {workload}\n[parameters]\n{name} = {{ from = 1, to = 3 }}\n{more}"
    with pytest.raises(SpecError) as caught:
        parse_spec(text, source="s.toml", folder=Path("/"))
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("s.toml: ")
    assert "\n" not in str(caught.value)


def test_the_quick_form_is_a_sweep_file_that_parses_to_itself():
    command = ["python", "a b.py", "--x={x}", "q\"u'o\\te", "{{}}"]
    made = spec_from_flags(command, ["x=1:3"], folder=Path("/tmp"), metrics=["loss=loss: (?P<value>\\S+)"])
    again = parse_spec(made.text, source="s", folder=Path("/tmp"))
    assert again.workload == made.workload
    assert made.workload.arguments == tuple(command)  # type: ignore[union-attr]
    assert made.differences(again) == []


@pytest.mark.parametrize(
    ("files", "workload", "complaint"),
    [
        ({}, '{ command = "no-such-program-1 {x}" }', "program 'no-such-program-1' is not on PATH"),
        ({}, '{ command = "./missing {x}" }', "program './missing' does not exist in"),
        ({}, '{ command = "python -u train.py {x}" }', "script 'train.py' does not exist in"),
        ({}, '{ command = "true {x}", template = "t.in" }', "t.in cannot be read"),
        (
            {"t.in": "a = {{y}}"},
            '{ command = "true {template}", template = "t.in" }',
            "{{y}}, which is not a parameter",
        ),
        (
            {"t.in": "a = 1"},
            '{ command = "true {template}", template = "t.in" }',
            "parameters.x: is not used",
        ),
        ({"mine.py": "import nonsense_1"}, '"mine:f"', "No module named 'nonsense_1' (at"),
        ({"mine.py": "f = 3"}, '"mine:f"', "has no function 'f'"),
    ],
)
def test_what_cannot_start_is_refused_before_any_rank_starts(
    folder: Path, mpisweep: Run, files, workload, complaint
):
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "s.toml").write_text(f"workload = {workload}\n[parameters]\nx = {{ from = 1, to = 3 }}\n")
    for command in ("run", "check"):
        done = mpisweep(command, "s.toml", "-o", "r.h5")
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
    assert not (folder / "r.h5").exists()
    assert not list(folder.glob("r.h5*"))


# ---------------------------------------------------------------------- parsing and rendering


def test_values_are_written_as_in_a_sweep_file():
    values = {"x": 0.1, "on": True, "n": 3, "t": "a b; c"}
    assert render("--x={x} {on} {n:03d} {t} {{}}", values) == "--x=0.1 true 003 a b; c {}"
    assert render_template('{"a": {{ x }}, "b": {"c": {{n:04d}}}}', values) == '{"a": 0.1, "b": {"c": 0003}}'


def test_a_backslash_at_the_end_of_a_line_continues_it_on_the_next():
    assert parse_command({"command": "p --a \\\n  --b \\\r\n  c \\\n"}).arguments == ("p", "--a", "--b", "c")


def test_arguments_are_split_before_values_are_filled_in():
    made = parse_command({"command": "p --a={t} '{t} {t}'"})
    assert [render(a, {"t": "1 2'3"}) for a in made.arguments] == ["p", "--a=1 2'3", "1 2'3 1 2'3"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("loss 1", "1"), ("loss -1.5e-3,", "-1.5e-3,"), ("loss nan", "nan"), ("loss: .5", ".5"), ("loss=inf", "inf"), ("'loss': "
                                                                                                                       "1}", "1}"),
    ],
)  # fmt: skip
def test_a_pattern_without_groups_stands_for_the_number_after_it(text: str, value: str):
    match = parse_pattern("loss", "loss").compiled().search(text)
    assert match is not None
    assert match["value"] == value


@pytest.mark.parametrize("text", ["loss function: mse", "loss of information", "loss", "loss: info"])
def test_a_word_without_a_number_after_it_is_not_a_metric(text: str):
    assert parse_pattern("loss", "loss").compiled().search(text) is None


def test_a_json_line_gives_its_numbers_and_nothing_else():
    assert read_json_line('{"step": 3, "loss": 0.5, "a": "b", "c": true, "e": [1]}') == (3, {"loss": 0.5})
    assert read_json_line('{"loss": Infinity}') == (None, {"loss": float("inf")})
    # A number too large for a float, and the two ways in which writers of JSON spell NaN.
    for text in ('{"loss": ' + "1" * 400 + "}", '{"loss": null}', '{"loss": NaN}'):
        step, metrics = read_json_line(text)
        assert (step, list(metrics), math.isnan(metrics["loss"])) == (None, ["loss"], True)
    for text in ("", "{", "{}", "[1]", "loss", '{"a": }', "{" * 100_000 + "}", '{"step": NaN}'):
        assert read_json_line(text) == (None, {})


def test_a_long_output_keeps_its_beginning_and_its_end():
    tape = Tape()
    for index in range(200_000):
        tape.add(f"line {index:06d} {'x' * 80}\n".encode())
    content = tape.content()
    assert len(content) < 8 << 20
    assert content.startswith(b"line 000000 ")
    assert b"bytes are left out here" in content
    assert tape.last_lines(1)[0].startswith("line 199999 ")


def test_a_torn_member_hides_no_other(tmp_path: Path):
    path = output_file(tmp_path, 0, 0)
    append_output(path, 1, 1, "exit code 0", b"one\n")
    torn = gzip.compress(b"==== trial 2, attempt 1: exit code 0 ====\n" + bytes(range(256)) * 50)
    for cut in range(1, len(torn), 7):
        path.write_bytes(path.read_bytes() + torn[:cut])
    append_output(path, 3, 2, "exit code 0", "drei ü".encode())
    assert [output.text for output in read_outputs(tmp_path, 1)] == ["one\n"]
    assert [output.text for output in read_outputs(tmp_path, 3)] == ["drei ü\n"]
    assert read_outputs(tmp_path, 3)[0].attempt == 2


# ------------------------------------------------------------------------------------- real programs


def test_metrics_come_from_patterns(folder: Path, program: str, mpisweep: Run):
    patterns = "[metrics]\nloss = 'step (?P<step>\\d+) loss = (?P<value>[^,]+)'\naccuracy = 'accuracy:'\n"
    done = mpisweep(
        "run", sweep_file(folder, f"{program} {{x}} lines", more=patterns), "-n", "2", "-o", "r.h5"
    )
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["loss"] == pytest.approx([0.4, 0.5, 0.6])
    assert sweep.curve(0, "loss").step.tolist() == [0, 10, 20, 30]
    assert sweep.curve(0, "loss").value == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert sweep.curve(2, "accuracy").step.tolist() == [0, 1, 2, 3]
    assert sweep.curve(2, "accuracy").value.tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("how", "loss", "step"),
    [
        ("json", [1 / 3, 2 / 3, 1], [0, 5, 10]),
        ("report", [4, 6, 8], [0, 1, 2]),
        ("nested", [1.5, 2.5, 3.5], [0]),
    ],
)
def test_metrics_come_from_json_lines_and_from_report(
    folder: Path, program: str, mpisweep: Run, how, loss, step
):
    done = mpisweep("run", sweep_file(folder, f"{program} {{x}} {how}", more=""), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["loss"] == pytest.approx(loss)
    assert sweep.metrics == ("loss",)
    assert sweep.curve(1, "loss").step.tolist() == step


def test_a_program_that_reports_runs_without_mpisweep_too(folder: Path, program: str):
    done = subprocess.run([*program.split(), "1", "report"], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_environment_directory_and_template(folder: Path, program: str, mpisweep: Run):
    (folder / "in.toml.in").write_text("x = {{x}}\ntable = { a = 1 }\n")
    (folder / "show.py").write_text(
        "import sys; print('loss', open(sys.argv[1]).read().split()[2]); print(sys.argv[1])"
    )
    own = ", directory = 'trial', env = { SCALED = '{x}.25' }"
    spec = sweep_file(folder, f"{sys.executable} ../../program.py {{x}} environment", table=own)
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["loss"].tolist() == [1.25, 2.25, 3.25]
    assert sweep.trials["accuracy"].tolist() == [0, 1, 2]
    spec = sweep_file(folder, f"{sys.executable} show.py {{template}}", table=", template = 'in.toml.in'")
    done = mpisweep("run", spec, "-n", "1", "-o", "t.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "t.h5").trials["loss"].tolist() == [1, 2, 3]
    assert mpisweep("output", "t.h5", "2").stdout.endswith("t.h5.trials/2/in.toml\n")
    assert not (folder / "t.h5.trials").exists(), "a rendered file is gone with its trial"


def test_no_shell_ever_sees_a_value(folder: Path, program: str, mpisweep: Run):
    hostile = "a; touch hacked $(touch hacked) `touch hacked` 'b\" ü\\\n--x"
    (folder / "s.toml").write_text(
        "name = 's'\n"
        f'workload = {{ command = "{program} 1 quiet {{t}}" }}\n'
        "[parameters]\n"
        f"t = [{toml_value(hostile)}]\n",
        encoding="utf-8",
    )
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5").returncode == 0
    assert repr(hostile) in mpisweep("output", "r.h5", "0").stdout
    assert not list(folder.rglob("hacked*"))
    sweep = package.load(folder / "r.h5")
    assert bool(sweep.trials["diverged"][0])
    assert "'loss' was never reported" in sweep.trials["message"][0]


@pytest.mark.parametrize(
    ("how", "cause", "message"),
    [
        ("code", "crash", "exited with code 1: the reason"),
        ("signal", "crash", "was killed by SIGSEGV"),
        ("memory", "out_of_memory", "exited with code 1: something else"),
    ],
)
def test_the_end_of_the_program_is_the_end_of_the_trial(
    folder: Path, program: str, mpisweep: Run, how, cause, message
):
    done = mpisweep("run", sweep_file(folder, f"{program} {{x}} {how}", last=1), "-n", "1", "-o", "r.h5")
    assert done.returncode == 4, done.stderr
    trial = package.load(folder / "r.h5").trials[0]
    assert (trial["state"], trial["cause"]) == ("failed", cause)
    assert message in trial["message"]
    assert mpisweep("output", "r.h5", "0").stdout.startswith("begin")
    log = (folder / "r.h5.logs" / "rank-0000.log").read_text()
    assert "trial 0, attempt 1" in log
    assert "begin [" in log


def test_output_is_kept_in_one_file_per_slot(folder: Path, program: str, mpisweep: Run):
    done = mpisweep("run", sweep_file(folder, f"{program} {{x}} lines", last=20), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (folder / "r.h5.logs").iterdir()) == [
        "output-0000-0.gz",
        "output-0001-0.gz",
    ]
    for number in (0, 7, 19):
        assert f"'{number + 1}', 'lines'" in mpisweep("output", "r.h5", str(number)).stdout
    refused = mpisweep("output", "r.h5", "20")
    assert refused.returncode == 2
    assert "the last is 19" in refused.stderr


def test_a_timeout_ends_the_whole_tree(folder: Path, program: str, mpisweep: Run):
    spec = sweep_file(folder, f"{program} {{x}} hang", last=1, more="[limits]\ntimeout = 1\n")
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 4, done.stderr
    assert package.load(folder / "r.h5").trials["cause"].tolist() == ["timeout"]
    child = int((folder / "child.txt").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_what_a_program_leaves_behind_is_ended(folder: Path, program: str, mpisweep: Run):
    done = mpisweep("run", sweep_file(folder, f"{program} {{x}} children", last=1), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    child = int((folder / "child.txt").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


KILLED = """
import sys
from pathlib import Path
from types import SimpleNamespace

from mpisweep.spec.commandline import parse_command
from mpisweep.workloads.programs import start_program

trial = SimpleNamespace(number=0, repeat=0, seed=0, team=None)
command = ["sleep", "1000"]
workload = parse_command({"command": "sleep 1000"})
program, *_ = start_program(workload, Path.cwd(), trial, command, {}, directly="directly" in sys.argv)
print(program.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["directly", "after a command"])
def test_a_program_dies_with_its_trial_process(folder: Path, how: str):
    """With and without the command of util-linux that asks the kernel for it."""
    command = [sys.executable, "-c", KILLED, how]
    with remember(
        subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as trial_process:
        assert trial_process.stdout is not None
        program = psutil.Process(int(trial_process.stdout.readline()))
        wait_for(lambda: program.name() == "sleep")
        trial_process.kill()
    assert psutil.wait_procs([program], timeout=PATIENCE_S)[1] == []


def test_a_program_that_is_gone_is_reported_in_its_own_name(folder: Path, mpisweep: Run):
    script = folder / "once.sh"
    script.write_text("#!/bin/sh\nrm once.sh\necho loss 1\n")
    script.chmod(0o755)
    done = mpisweep("run", sweep_file(folder, "./once.sh {x}", last=2), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert sorted(trials["state"]) == ["complete", "failed"]
    assert "exception" in trials["cause"]
    assert "'./once.sh' cannot be started: No such file or directory" in trials["message"]


@pytest.mark.parametrize("kind", ["another machine", "no first line"])
def test_a_program_that_the_kernel_cannot_execute_is_given_to_no_shell(
    folder: Path, mpisweep: Run, kind: str
):
    """A program for the login node's processors is an error, not a script."""
    head = bytearray(Path("/proc/self/exe").read_bytes()[:4096])
    head[18:20] = b"\xb7\x00" if head[18:20] == b"\x3e\x00" else b"\x3e\x00"
    (folder / "odd").write_bytes(bytes(head) if kind == "another machine" else b"echo loss 1\n")
    (folder / "odd").chmod(0o755)
    done = mpisweep("run", sweep_file(folder, "./odd {x}", last=1), "-n", "1", "-o", "r.h5")
    assert "exception): './odd' cannot be started: Exec format error" in done.stderr


def test_a_stop_reaches_the_program_and_the_trial_runs_again(
    folder: Path, program: str, environment, mpisweep: Run
):
    spec = sweep_file(folder, f"{program} {{x}} stop", last=2)
    command = [sys.executable, "-m", "mpisweep", "run", spec, "-n", "1", "-o", "r.h5"]
    running = remember(
        subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL, text=True)
    )
    wait_for(lambda: list(folder.glob("begun.*")))
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE_S) == 3
    assert (folder / "saved.txt").read_text() in ("1\n", "2\n")
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["waiting"] * 2
    (folder / "go").touch()
    assert mpisweep(*command[3:]).returncode == 0
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [1, 2]


def test_a_command_after_two_dashes_is_the_workload(folder: Path, program: str, mpisweep: Run):
    words = [*program.split(), "{x}", "lines"]
    done = mpisweep("run", "-p", "x=1:3", "--metric", "loss=loss =", "-n", "2", "-o", "r.h5", "--", *words)
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["loss"] == pytest.approx([0.4, 0.5, 0.6])
    again = mpisweep("run", "-p", "x=1:3", "-o", "r.h5", "--", *words, "more")
    assert again.returncode == 2
    assert "workload: the results file has" in again.stderr
    both = mpisweep("run", "resnet50", "--", *words)
    assert both.returncode == 2
    assert "expected either a sweep" in both.stderr


# ------------------------------------------------------------------------------------- arbitrary input

braces = st.text(st.sampled_from(list("ab{}x:!.[]'\"\\ =-03dfs%\n\0ü(?P<value>)+*")), max_size=40)


@given(braces, braces, braces)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_command_is_refused_in_a_sentence_or_can_be_rendered(command: str, variable: str, pattern: str):
    text = (
        f"workload = {{ command = {toml_value(command)}, env = {{ A = {toml_value(variable)} }} }}\n"
        f"[parameters]\nx = {{ from = 1, to = 3 }}\n[metrics]\nloss = {toml_value(pattern)}\n"
    )
    try:
        made = parse_spec(text, source="s.toml", folder=Path("/"))
    except SpecError as error:
        assert str(error).startswith("s.toml: ")
        assert "\n" not in str(error)
        return
    workload = made.workload
    assert isinstance(workload, CommandWorkload)
    values = {"x": 2} | dict.fromkeys(SPECIAL_NAMES, "0")
    for argument in workload.arguments:
        try:
            assert "\0" not in render(argument, values)
        except ValueError:
            # A number format, applied to a text.
            assert ":" in argument
    for metric in workload.metrics:
        metric.compiled().search("loss 1")


@given(st.text(max_size=60) | st.from_regex(r"\{.*\}"))
def test_any_line_can_be_read(line: str):
    step, metrics = read_json_line(line)
    assert all(isinstance(value, float) for value in metrics.values())
    assert step is None or isinstance(step, int)


@given(st.lists(st.binary(max_size=80), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_bytes_between_outputs_hide_none_of_them(pieces: list[bytes]):
    with tempfile.TemporaryDirectory() as made:
        path = output_file(Path(made), 0, 0)
        for number, piece in enumerate(pieces):
            append_output(path, number, 1, "exit code 0", b"text")
            with path.open("ab") as file:
                # The removed byte could begin another gzip member.
                file.write(piece.replace(b"\x1f", b""))
        for number in range(len(pieces)):
            assert [output.text for output in read_outputs(Path(made), number)] == ["text\n"]


# ------------------------------------------------------------------------------ output of real-world programs


def swept(
    folder, mpisweep: Run, script: str, more: str = "", x: str = "[1]"
) -> tuple[package.Sweep, subprocess.CompletedProcess[str]]:
    """Run a sweep of a shell script that takes x as its argument."""
    (folder / "prog.sh").write_text(script)
    (folder / "s.toml").write_text(
        f'workload = {{ command = "sh prog.sh {{x}}" }}\n[parameters]\nx = {x}\n{more}\n'
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    return package.load(folder / "r.h5"), done


HANGS = 'echo "loss: 0.5"; echo "loss: 0.4"; echo "waiting for lock"; exec sleep 1000\n'


@pytest.mark.parametrize("limit", ["timeout = 1", "stall = 1"])
def test_what_a_program_has_printed_before_its_time_was_up_is_kept_to_the_last_line(
    folder, mpisweep: Run, limit: str
):
    sweep, _ = swept(folder, mpisweep, HANGS, f"[metrics]\nloss = 'loss'\n[limits]\n{limit}")
    assert sweep.trials["cause"].tolist() == ["timeout"]
    assert sweep.curve(0, "loss").value.tolist() == [0.5, 0.4]
    assert mpisweep("output", "r.h5", "0").stdout.endswith("loss: 0.5\nloss: 0.4\nwaiting for lock\n")


@pytest.mark.parametrize("end", ["time.sleep(1000)", "os.kill(os.getpid(), 9)"])
def test_what_a_function_has_reported_before_it_was_killed_is_kept_to_the_last_point(
    folder, mpisweep: Run, end: str
):
    (folder / "mine.py").write_text(
        "import os, time\n"
        "def run(trial):\n"
        "    for step in range(5):\n"
        "        trial.report(step, loss=step / 2, acc=1)\n"
        "        if step == 2:\n"
        "            trial.flush()\n"
        f"    {end}\n"
    )
    mpisweep("run", "mine:run", "-p", "x=1:1", "-n", "1", "-o", "r.h5", "--timeout", "1")
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["failed"]
    assert sweep.curve(0, "loss").value.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert sweep.curve(0, "acc").step.tolist() == [0, 1, 2, 3, 4]


def test_fortran_numbers_colours_and_thousands_are_read_and_ambiguous_numbers_are_not(folder, mpisweep: Run):
    script = (
        'echo "loss: 0.123D-01"; echo "small 1.2345-101"; echo "speed = 12,345.6 images/s"; echo "odd: 0,25"\n'
        "printf '\\033[36macc\\033[0m: \\033[1;32m0.25\\033[0m\\n'\n"
    )
    metrics = "[metrics]\nloss = 'loss'\nsmall = 'small'\nspeed = 'speed'\nacc = 'acc'\nodd = 'odd'\n"
    sweep, done = swept(folder, mpisweep, script, metrics, "[1, 2]")
    trial = sweep.trials[0]
    assert [trial[sweep.metric_column(name)] for name in ("loss", "small", "speed", "acc")] == [
        0.0123,
        1.2345e-101,
        12345.6,
        0.25,
    ]
    assert "odd" not in sweep.metrics
    said = "metric 'odd': '0,25' was not read as a number, in the line 'odd: 0,25'"
    assert done.stderr.count(said) == 1
    assert trial["message"] == said


def test_a_carriage_return_ends_a_line_when_metrics_are_searched(folder, mpisweep: Run):
    script = "printf 'step 1 loss: 4\\rstep 2 loss: 3\\r\\nloss: 2\\r\\nloss: 1'\n"
    sweep, _ = swept(folder, mpisweep, script, "[metrics]\nloss = '^(?:step . )?loss: (?P<value>\\d)$'\n")
    assert sweep.curve(0, "loss").value.tolist() == [4.0, 3.0, 2.0, 1.0]


def test_null_in_a_line_of_json_is_nan(folder, mpisweep: Run):
    sweep, _ = swept(
        folder, mpisweep, 'echo \'{"step": 1, "loss": 0.5}\'; echo \'{"step": 2, "loss": null}\'\n'
    )
    assert sweep.trials["diverged"].tolist() == [True]


@pytest.mark.parametrize("told", ["print(json.dumps(long), flush=True)", "mpisweep.report(**long)"])
def test_a_report_on_too_long_a_line_is_not_read_and_that_is_reported_once(folder, mpisweep: Run, told: str):
    (folder / "long.py").write_text(
        "import json, mpisweep\n"
        "print('loss: 0.5', flush=True)\n"
        "long = {'loss': 3.0, 'n' * 2**20: 1.0, 'm' * 2**20: 1.0}\n"
        "print('{' + 'no report ' * 200_000, flush=True)\n"
        f"for _ in range(2):\n    {told}\n"
    )
    sweep, done = swept(folder, mpisweep, f"{sys.executable} long.py\n", "[metrics]\nloss = '^loss'\n")
    assert sweep.metrics == ("loss",)
    assert sweep.curve(0, "loss").value.tolist() == [0.5]
    said = (
        'a report of more than 1,048,576 bytes was not read: the line that begins with \'{"loss": '
        f"3.0, \"{'n' * 65}'"
    )
    assert sweep.trials["message"].tolist() == [said]
    assert done.stderr.count(said) == 1


@pytest.mark.parametrize(
    ("name", "content", "mode", "why"),
    [
        (
            "crlf.sh",
            "#!/bin/sh\r\necho loss: 1\r\n",
            0o755,
            "cannot start: it has Windows line endings (CRLF)",
        ),
        (
            "closed.sh",
            "#!/bin/sh\necho loss: 1\n",
            0o644,
            "is not executable; run chmod +x ./closed.sh",
        ),
        (
            "lost.sh",
            "#!/no/such/shell -e\necho loss: 1\n",
            0o755,
            "cannot start: its interpreter '/no/such/shell' does not exist",
        ),
    ],
)
def test_why_a_script_does_not_start_is_said_before_anything_is_started(
    folder, mpisweep: Run, name, content, mode, why
):
    (folder / name).write_bytes(content.encode())
    (folder / name).chmod(mode)
    done = mpisweep("run", "-p", "x=1:2", "-n", "1", "-o", "r.h5", "--", f"./{name}", "{x}")
    assert done.returncode == 2
    assert f"mpisweep: command line: after --: './{name}' {why}" in done.stderr
    assert not (folder / "r.h5").exists()


FUNCTIONS = """
import sys

class Odd(Exception):
    def __str__(self):
        return self.text

class Broken:
    def __float__(self):
        raise ZeroDivisionError

def run(trial):
    match trial.params["how"]:
        case "exit": sys.exit(0)
        case "exit1": sys.exit(1)
        case "odd": raise Odd("lr")
        case "huge": return {"loss": 1.0, "huge": 10**400}
        case "broken": return {"loss": 1.0, "broken": Broken()}
        case "reported":
            trial.report(0, huge=10**5000)
            return 1.0
"""


def test_functions_may_exit_raise_exceptions_without_a_text_and_return_values_that_are_no_floats(
    folder, mpisweep: Run
):
    (folder / "mine.py").write_text(FUNCTIONS)
    mpisweep("run", "mine:run", "-p", "how=exit,exit1,odd,huge,broken,reported", "-n", "1", "-o", "r.h5")
    trials = package.load(folder / "r.h5").trials
    assert trials["state"].tolist() == ["complete", "failed", "failed", "complete", "complete", "complete"]
    messages = trials["message"].tolist()
    assert "SystemExit: 1" in messages[1]
    assert "Odd" in messages[2]
    assert trials["cause"][2] == "exception"
    assert "'huge' is 1000" in messages[3]
    assert "'broken' is <mine.Broken object" in messages[4]
    assert "'huge' was reported as a value that is not a number (OverflowError)" in messages[5]
