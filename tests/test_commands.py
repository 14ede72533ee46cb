"""Help, examples, suggestions and JSON of the commands, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import voice
from commands import SWEEP, make_sweeps
from test_results import opening, write_journal

from mpisweep.blocks import TrialsBlock
from mpisweep.cli import main
from mpisweep.cli.examples import EXAMPLES, Example
from mpisweep.cli.program import make_parser
from mpisweep.cli.sweepargs import split_command_line

ROOT = Path(__file__).parent.parent
COMMANDS = make_parser().commands()
ALL = [(name, example) for name, examples in EXAMPLES.items() for example in examples]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    make_sweeps(folder, os.environ)
    return folder


@pytest.fixture
def sweeps(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the folder with the sweeps."""
    folder = tmp_path / "work"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def words_of(example: Example) -> list[str]:
    """The arguments of an example, without redirections and pipes."""
    words = shlex.split(" ".join(example.command))
    assert words[0] == "mpisweep"
    end = min((words.index(mark) for mark in (">", "|") if mark in words), default=len(words))
    return words[1:end]


# ------------------------------------------------------------------------------------------ help and examples


def test_every_command_has_two_to_four_examples_of_its_own():
    assert set(EXAMPLES) == {"", *COMMANDS}
    for name, examples in EXAMPLES.items():
        assert 2 <= len(examples) <= 4, name
        for example in examples:
            assert name in ("", words_of(example)[0]), example


@pytest.mark.parametrize(
    ("name", "example"), ALL, ids=lambda one: one if isinstance(one, str) else one.purpose
)
def test_every_example_runs(name: str, example: Example, sweeps: Path, environment: dict[str, str]):
    arguments = words_of(example)
    make_parser(arguments[0]).parse_args(split_command_line(arguments)[0])
    if arguments[:2] == ["run", "resnet50"]:
        arguments[0] = "check"
    if "job.sh" in arguments:
        # The folder of the tests is node-local, which the check of a script reports.
        (sweeps / "job.sh").write_text(
            "#!/bin/bash\n#PJM -L rscgrp=cx-small,elapse=1:00:00,node=1\n#PJM -j\nhostname\n"
        )
    if arguments[0] == "init":
        # Nothing is overwritten.
        (sweeps / "sweep.toml").unlink()
        (sweeps / "heat").write_text("#!/bin/sh\necho '  --dt DT  time step (default: 0.1)'\n")
        (sweeps / "heat").chmod(0o755)
    if "--stage-data" in arguments:
        (sweeps / "images").mkdir()
    if arguments[0] in ("skip", "first"):
        # The trials of the other sweeps have ended.
        (sweeps / "flow.h5").unlink()
        waiting = TrialsBlock([*range(700)], {"width": [*range(700)], "depth": 3})
        write_journal(sweeps / "flow.h5", [waiting], opening(spec=SWEEP))
    if arguments[0] in ("jobscript", "submit") and "sweep.toml" in arguments:
        # What submit writes, without a batch system to submit to.
        end = arguments.index("--chain") if "--chain" in arguments else len(arguments)
        arguments = ["jobscript", *arguments[1:end]]
    if arguments[0] in ("run", "replay"):
        # Processes are forked, so the run gets a process of its own.
        command = [sys.executable, "-m", "mpisweep", *arguments]
        if arguments[0] == "run" and "--" not in arguments:
            command += ["-n", "1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        assert main(arguments) == 0
    if arguments[0] == "init":
        [made] = sweeps.glob("*.toml")
        assert main(["check", made.name]) == 0


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_ends_with_the_examples(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    [parser] = [one for one in voice.parsers(make_parser()) if one.prog == f"mpisweep {name}".strip()]
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []
    shown = lines[lines.index("examples:") + 1 :]
    for example in EXAMPLES[name]:
        assert f"  # {example.purpose}" in shown
        assert f"  {example.command[0]}".rstrip() in [line.removesuffix(" \\") for line in shown]


def test_the_help_of_the_program_groups_all_commands():
    text = make_parser().format_help()
    for name, described in COMMANDS.items():
        assert text.count(f"\n  {name:<12}{described}\n") == 1, name
    grouped = [name for group in make_parser().groups.values() for name in group]
    assert sorted(grouped) == sorted(COMMANDS)


# ------------------------------------------------------------------------------------------ suggestions

UNKNOWN = [
    (["rnu"], "mpisweep: there is no command 'rnu'; did you mean 'run'? (see `mpisweep --help`)"),
    (["--versoin"], "mpisweep: there is no option --versoin; did you mean --version? (see `mpisweep --help`)"),
    (["check", "sweep.toml", "--wallltime=1h"],
     "mpisweep check: there is no option --wallltime; did you mean --walltime? (see `mpisweep check --help`)"),
    (["top", "flow.h5", "loss"],
     "mpisweep top: found the argument 'loss', which is one too many (see `mpisweep top --help`)"),
    (["top", "flow.h5", "--direction", "maximise"],
     "mpisweep top: --direction: found 'maximise'; did you mean 'maximize'? (see `mpisweep top --help`)"),
    (["check", "model:train", "--search", "tpee"],
     "mpisweep check: --search: found 'tpee'; did you mean 'tpe'? (see `mpisweep check --help`)"),
    (["top", "flow.h5", "--by", "wall_tiem"],
     "mpisweep: there is no parameter or metric 'wall_tiem'; did you mean 'wall_time'?"),
    (["check", "sweeep.toml"], "mpisweep: sweeep.toml: no sweep file or workload has this name; did you mean 'sweep.toml'?"),
    (["run", "resnet5"], "mpisweep: resnet5: no sweep file or workload has this name; did you mean 'resnet50'?"),
    (["check", "resnet50", "-p", "bach_size=1:3"],
     "mpisweep: command line: -p bach_size: resnet50 has no such option; did you mean 'batch_size'?"),
    (["check", "resnet50", "--objective", "val_los"],
     "mpisweep: command line: --objective: resnet50 has no metric 'val_los'; did you mean 'val_loss'?"),
    (["check", "resnet50", "-p", "optimizer=adam"],
     "mpisweep: command line: -p optimizer: is 'adam'; expected one of 'sgd', 'adamw'; did you mean 'adamw'?"),
    (["options", "resnet5"], "mpisweep: there is no workload 'resnet5'; did you mean 'resnet50'?"),
    (["sites", "fugako"],
     "mpisweep: --site fugako: there is no such site; did you mean 'fugaku'? (`mpisweep sites` lists them, and the "
     "path of a site file works too)"),
    (["jobscript", "sweep.toml", "--site", "flow-cx", "--group", "cx-smal", "--elapse", "1:00:00"],
     "mpisweep: --group cx-smal: is not a resource group of flow-cx; did you mean 'cx-small'? (a copy of the site "
     "file can name more)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"), UNKNOWN, ids=lambda one: " ".join(one) if isinstance(one, list) else ""
)
def test_an_unknown_name_is_answered_with_the_nearest_one_in_one_line(
    arguments: list[str], sentence: str, sweeps: Path, capsys: pytest.CaptureFixture[str]
):
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    assert (code, capsys.readouterr().err) == (2, f"{sentence}\n")


@pytest.mark.parametrize(("text", "sentence"), [
    ('workload = "resnet5"', "did you mean 'resnet50'?"),
    ('search = "gird"', "nsga2; did you mean 'grid'?"),
    ('direction = "minimise"', "direction: is 'minimise'; expected one of minimize, maximize; did you mean 'minimize'?"),
    ('serach = "grid"', "serach: is not a known key; did you mean 'search'?"),
    ('workload = "model:trian"', "has no function 'trian', which the sweep names as its workload; did you mean 'train'?"),
])  # fmt: skip
def test_an_unknown_name_in_a_sweep_file_is_answered_with_the_nearest_one(
    text: str, sentence: str, sweeps: Path, capsys: pytest.CaptureFixture[str]
):
    workload = "" if text.startswith("workload") else 'workload = "model:train"\n'
    (sweeps / "other.toml").write_text(f"{workload}{text}\n[parameters]\nwidth = [1, 2]\n")
    assert main(["check", "other.toml"]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"{sentence}\n"), said


def test_an_unknown_system_in_a_site_file_is_answered_with_the_nearest_one(
    sweeps: Path, capsys: pytest.CaptureFixture[str]
):
    (sweeps / "site.toml").write_text('system = "slrum"\n')
    assert main(["sites", "./site.toml"]) == 2
    assert capsys.readouterr().err.endswith("gridengine, workstation; did you mean 'slurm'?\n")


# ------------------------------------------------------------------------------------------ lists


Printed = Callable[..., Any]


@pytest.fixture
def printed(sweeps: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run a command and return its JSON."""

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    return run


def test_sites_are_listed_with_what_their_files_state(printed: Printed, capsys: pytest.CaptureFixture[str]):
    listed = {site["name"]: site for site in printed("sites")["sites"]}
    assert listed["flow-cx"]["gpus_per_node"] == 4
    assert (listed["slurm"]["gpus_per_node"], listed["slurm"]["group"]) == (None, None)
    alone = printed("sites", "wisteria-aquarius")
    assert alone == listed["wisteria-aquarius"]
    assert main(["sites", "wisteria-aquarius"]) == 0
    text = capsys.readouterr().out
    for group in alone["groups"]:
        assert group["name"] in text
    assert main(["sites"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["flow-cx"][1:5] == ["PJM", "4", "40", "cx-small"]
    assert rows["slurm"][1:5] == ["Slurm", "?", "?", "-"]


def test_options_of_a_workload_are_those_of_its_description(
    printed: Printed, capsys: pytest.CaptureFixture[str]
):
    from mpisweep.spec.catalogue import RESNET50

    found = printed("options", "resnet50")
    assert {one["name"]: one["default"] for one in found["options"]} == RESNET50.defaults
    assert [one["name"] for one in found["metrics"]] == [metric.name for metric in RESNET50.metrics]
    assert main(["options", "resnet50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.split()[:1] == ["batch_size"]]
    assert line.split() == ["batch_size", "256", "images", "images", "per", "optimiser", "step"]
    [line] = [line for line in lines if line.split()[:1] == ["augment"]]
    assert line.split()[1] == "false"
    assert printed("options") == {"workloads": ["resnet50"]}


def test_options_fit_a_terminal_of_80_columns(sweeps: Path, environment: dict[str, str]):
    done = subprocess.run(
        ["script", "-qec", "stty cols 80; " + shlex.join([sys.executable, "-m", "mpisweep", "options", "resnet50"]), "/dev/null"],
        env=environment | {"TERM": "dumb", "COLUMNS": "80"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) > 60
    assert max(map(len, lines)) <= 80
    assert " ".join(done.stdout.split()).count("pixels height and width of an image") == 1


# ------------------------------------------------------------------------------------------ one trial


def test_a_trial_is_described_whole(printed: Printed, capsys: pytest.CaptureFixture[str]):
    found = printed("trial", "flow.h5", "1")
    assert found["is_baseline"]
    assert found["parameters"] == {"width": 32, "depth": 3}
    assert found["searched"] == ["width"]
    assert (found["state"], found["place"], found["ranked"]) == ("complete", 4, 5)
    [attempt] = found["attempts"]
    assert (attempt["attempt"], attempt["end"], attempt["rank"]) == (1, "ended", 0)
    assert attempt["assigned_at"] <= found["started_at"] + 1
    [curve] = found["curves"]
    assert (curve["metric"], curve["reports"], curve["first"], curve["last_step"]) == ("loss", 40, 1.0, 39)
    assert found["rerun"] == "mpisweep replay flow.h5 1"
    assert main(["trial", "flow.h5", "1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "trial 1 of flow, the baseline: complete\n  place 4 of 5 complete trials by smallest loss\n"
    )
    assert "  depth  3  (fixed)\n" in text
    assert re.search(r"\n  1: ended on \S+ .*, rank 0, slot 0, assigned \d{4}-", text)
    # The curve falls from its upper left corner to its lower right one.
    plot = re.findall(r"^ +[\d.]* \|(.*)$", text, flags=re.MULTILINE)
    assert len(plot) == 8
    assert plot[0].startswith("*")
    assert plot[-1].endswith("*")
    assert [line.index("*") for line in plot] == sorted(line.index("*") for line in plot)


def test_a_failed_trial_says_why(printed: Printed, capsys: pytest.CaptureFixture[str]):
    found = printed("trial", "flow.h5", "2")
    assert (found["state"], found["cause"], found["place"]) == ("failed", "exception", None)
    assert "48 does not fit" in found["message"]
    assert main(["trial", "flow.h5", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("trial 2 of flow: failed (exception)\n  | ValueError: 48 does not fit\n")


def test_a_trial_of_a_program_names_its_output_and_its_command(printed: Printed, sweeps: Path):
    found = printed("trial", "program.h5", "2")
    assert found["command"] == "python train.py --batch_size=3"
    [path] = found["output"]
    assert (sweeps / path).is_file()
    assert f"`mpisweep output program.h5 2` prints it from {path}" in shown(["trial", "program.h5", "2"])


def shown(arguments: list[str]) -> str:
    """The output of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_trial_that_does_not_exist_is_refused(sweeps: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["trial", "flow.h5", "6"]) == 2
    assert capsys.readouterr().err == "mpisweep: flow.h5: there is no trial 6; the last is 5\n"


# ------------------------------------------------------------------------------------------ JSON


def test_every_command_with_a_table_prints_json_too(printed: Printed, sweeps: Path):
    with_json = {
        parser.prog.removeprefix("mpisweep ")
        for parser in voice.parsers(make_parser())
        if "--json" in parser._option_string_actions
    }
    assert with_json == {
        "check",
        "top",
        "status",
        "trial",
        "replay",
        "sites",
        "options",
        "jobscript",
        "compare",
    }
    top = printed("top", "flow.h5", "-k", "2")
    assert [row["rank"] for row in top["trials"]] == ["1st", "2nd", "baseline"]
    assert top["trials"][0]["parameters"] == {"width": 96}
    check = printed("check", "sweep.toml", "-n", "2")
    assert (check["configurations"], check["trials"], check["ended"], check["workers"]) == (6, 6, 6, 2)
    assert check["baseline"] == {"width": 32, "depth": 3}
    ranks = printed("check", "sweep.toml", "-n", "2", "--devices")["ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    (sweeps / "job.sh").write_text("#!/bin/bash\n#PJM -L elapse=1:00:00\nhostname\n")
    findings = printed("jobscript", "--check", "job.sh")
    assert all(set(found) == {"line", "severity", "found", "expected"} for found in findings["findings"])
    replay = json.loads(shown(["replay", "flow.h5", "0", "--json"]))
    assert (replay["state_then"], replay["state_now"]) == ("complete", "complete")
    assert [one["is_same"] for one in replay["metrics"] if one["name"] == "loss"] == [True]


def test_a_job_script_is_no_json(sweeps: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["jobscript", "sweep.toml", "--site", "slurm", "--elapse", "1:00:00", "--json"]) == 2
    assert (
        capsys.readouterr().err
        == "mpisweep: --json: applies to --check only; a job script is printed as it is\n"
    )
