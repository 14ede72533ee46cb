"""Completion in real shells, pages for man, and the reference of the commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import voice

from mpisweep.cli.program import make_parser
from mpisweep.cli.reference import commands_markdown, man_pages

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs" / "man"
SHELLS = ("bash", "zsh", "fish")

#: What completes the last word of a line, in each shell.
PROGRAMS = {
    "bash": """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}
_comp=$(complete -p mpisweep | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$_comp mpisweep "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": "source {script}; complete -C {quoted}",
}


#: Types a command into a zsh, and presses the key that completes a word.
TYPE = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "cd $1; fpath=($1/functions \\$fpath)"
zpty -w z 'autoload -U compinit; compinit -u -D; PS1=; bindkey "^I" complete-word; print re""ady'
zpty -r -m z out '*ready*'
zpty -w -n z $'mpisweep stat\\t'
zpty -r -m z out '*stat*us*'
print completed
zpty -d z
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts of all shells, a results file and a sweep file."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        done = subprocess.run(
            [sys.executable, "-m", "mpisweep", "completion", shell],
            capture_output=True,
            text=True,
            check=True,
        )
        (folder / f"script.{shell}").write_text(done.stdout)
    for name in ("flow.h5", "sweep.toml", "notes.txt"):
        (folder / name).touch()
    return folder


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}")


def completed(folder: Path, shell: str, line: str) -> set[str]:
    """The words that a shell offers at the end of a line."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    program = PROGRAMS[shell].format(
        script=folder / f"script.{shell}", words=shlex.join(words), line=line, quoted=shlex.quote(line)
    )
    done = subprocess.run([shell, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == "", done.stderr
    return {offered.partition("\t")[0] for offered in done.stdout.splitlines() if offered}


@pytest.mark.parametrize(
    "shell", [pytest.param("bash", marks=needs("bash")), pytest.param("fish", marks=needs("fish"))]
)
@pytest.mark.parametrize(
    ("line", "offered", "missing"),
    [
        ("mpisweep st", {"status", "stop"}, set()),
        ("mpisweep check --wall", {"--walltime"}, set()),
        ("mpisweep run --search tp", {"tpe"}, {"grid"}),
        ("mpisweep top ", {"flow.h5"}, {"notes.txt", "sweep.toml"}),
        ("mpisweep check ", {"sweep.toml"}, {"notes.txt", "flow.h5"}),
        ("mpisweep completion ", set(SHELLS), set()),
    ],
)  # fmt: skip
def test_a_shell_completes_commands_options_values_and_files(
    scripts: Path, shell: str, line: str, offered: set[str], missing: set[str]
):
    found = completed(scripts, shell, line)
    assert offered <= found
    assert not missing & found


@needs("zsh")
def test_zsh_completes_commands(scripts: Path):
    functions = scripts / "functions"
    functions.mkdir()
    shutil.copy(scripts / "script.zsh", functions / "_mpisweep")
    # Completion runs in an editor only, so zsh gets a terminal.
    (scripts / "type.zsh").write_text(TYPE)
    done = subprocess.run(
        ["zsh", "-f", "type.zsh", str(scripts)],
        cwd=scripts,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "completed\n", done.stderr


def test_every_argument_that_names_a_file_completes_files():
    from mpisweep.cli.shell import FILES

    named = {str(action.metavar) for action in make_parser().all_actions() if action.metavar}
    assert set(FILES) <= named
    # Other words stand for numbers, names and patterns.
    assert not {name for name in named if "FILE" in name or "FOLDER" in name} - {*FILES, "FOLDER"}


# ------------------------------------------------------------------------------------------ man and the reference


def test_the_pages_for_man_agree_with_the_parser():
    made = man_pages(make_parser())
    assert {path.name: path.read_text(encoding="utf-8") for path in MANUAL.glob("*.1")} == made
    assert set(made) == {"mpisweep.1", *(f"mpisweep-{name}.1" for name in make_parser().commands())}


@needs("man")
def test_the_pages_for_man_render_without_warnings():
    for path in sorted(MANUAL.glob("*.1")):
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", str(path)],
            env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "", path
        text = re.sub(r".\x08", "", done.stdout)
        assert max(map(len, text.splitlines())) <= 80, path
        assert "EXAMPLES" in text
    run = (MANUAL / "mpisweep-run.1").read_text()
    assert "\\-\\-dry\\-run" in run


def test_the_page_of_the_commands_lists_every_option():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert commands_markdown(make_parser()) in page
    for parser in voice.parsers(make_parser()):
        for option in parser._option_string_actions:
            assert option in page, (parser.prog, option)


def test_the_page_of_the_commands_documents_every_key_of_the_json(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
):
    import json

    from commands import make_sweeps

    from mpisweep.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_sweeps(tmp_path, environment)
    (tmp_path / "job.sh").write_text("#!/bin/bash\n#PJM -L elapse=1:00:00\nhostname\n")
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([^`]+ --json)` \| (.*) \|$", page, flags=re.MULTILINE))
    commands = {
        "check SWEEP --json": ["check", "sweep.toml"],
        "check SWEEP --devices --json": ["check", "sweep.toml", "--devices", "-n", "1"],
        "check SWEEP --plan --json": ["check", "sweep.toml", "--plan"],
        "top FILE --json": ["top", "flow.h5"],
        "compare A B --json": ["compare", "flow.h5", "new.h5"],
        "status FILE --json": ["status", "flow.h5"],
        "trial FILE NUMBER --json": ["trial", "flow.h5", "0"],
        "sites --json": ["sites"],
        "sites SITE --json": ["sites", "slurm"],
        "options --json": ["options"],
        "options WORKLOAD --json": ["options", "resnet50"],
        "jobscript --check SCRIPT --json": ["jobscript", "--check", "job.sh"],
    }
    assert set(documented) == {*commands, "replay FILE NUMBER --json"}
    for name, arguments in commands.items():
        main([*arguments, "--json"])
        keys = set(json.loads(capsys.readouterr().out))
        # What a key holds is in parentheses.
        outside = re.sub(r"\([^)]*\)", "", documented[name])
        assert keys == set(re.findall(r"`(\w+)`", outside)), name
