"""Every fenced block of README, CONTRIBUTING and docs: parsed, and run as far as a computer without a batch system can.

A block in a language, or a command of a program, that nothing here knows fails.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import docresults
import pytest
import voice
from docblocks import ELSEWHERE, PAGES, Block, Command, blocks_of, commands_of, completed, inline_commands
from voice import ROOT

from mpisweep.batch.sitefile import parse_site
from mpisweep.cli import main
from mpisweep.cli.program import make_parser
from mpisweep.cli.sweepargs import split_command_line
from mpisweep.plugins import BATCH, SEARCHES, SITES, WORKLOADS

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = ("sh", "console")
LANGUAGES = (*COMMANDS, "toml", "python", "json", "text")
#: A word in capitals that readers replace -> what replaces it here.
PLACEHOLDERS = {
    "FILE": "results.h5", "NUMBER": "3", "N": "12", "RANKS": "2", "SITE": "flow-cx", "SHELL": "bash", "COMMAND": "top",
    "A": "a.h5", "B": "b.h5", "WORKLOAD": "resnet50", "SCRIPT": "job.sh", "SWEEP": "sweep.toml",
}  # fmt: skip
#: Python's packages of which a page speaks, and that no extra installs.
READERS_OWN = ("xarray", "plotly")
#: The digits.py of the page about Optuna.
OBJECTIVE = """
def objective(trial):
    return trial.suggest_float("x", 0, 1)
"""
#: Names of metrics, axes and devices in what the pages show.
VALUES = ("loss", "steps", "samples", "seconds", "cpu")
#: Pages whose commands are run by test_commands.py, and by test_site.py with what they print.
RUN_ELSEWHERE = ("docs/commands.md", "docs/tutorial.md")
#: The results file of what runs here; those with the names of the pages hold other sweeps.
NEW = ("-o", "new.h5")
MY_TRAIN = """
def train(trial):
    for step in range(4):
        trial.report(step, loss=1 / (1 + step), val_loss=2 / (1 + step))
    return {"loss": 0.25, "val_loss": 0.5}
"""


def pages_with(*languages: str) -> list[str]:
    """The pages that have blocks in a language."""
    return list(dict.fromkeys(block.page for block in BLOCKS if block.language in languages))


def of_page(page: str, *languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == page and block.language in languages]


def filled(words: tuple[str, ...] | list[str]) -> list[str]:
    """Words with something in place of what readers replace."""
    return [PLACEHOLDERS.get(word, word) for word in words]


SWEEP = (
    'workload = "my_train:train"\n[parameters]\nwidth = { from = 1, to = 64 }\n[limits]\ntimeout = "10m"\n'
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: what a reader has, a checkout and files with the names of the pages."""
    folder = tmp_path / "work"
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in ("analysis", "jobscripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my_train.py").write_text(MY_TRAIN, encoding="utf-8")
    (folder / "train.py").write_text(
        "import argparse\nargparse.ArgumentParser().parse_args()\n", encoding="utf-8"
    )
    (folder / "digits.py").write_text(OBJECTIVE, encoding="utf-8")
    for name in ("sweep.toml", "coarse.toml", "fine.toml", "first.toml", "second.toml"):
        (folder / name).write_text(SWEEP, encoding="utf-8")
    (folder / "image").write_bytes(b"1")
    with tarfile.open(folder / "imagenet.tar", "w") as images:
        images.add(folder / "image", "image")
    (folder / "points.csv").write_text("batch_size,learning_rate\n64,0.1\n256,0.15\n", encoding="utf-8")
    (folder / "by-hand.csv").write_text("batch_size,loss\n64,0.1\n256,0.15\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    # A folder that job scripts may name: that of the tests is node-local.
    monkeypatch.setenv("WORK", str(tmp_path))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]


def make_results(folder: Path, page: str) -> None:
    """Write the results files that the blocks of a page name."""
    text = "".join(block.text for block in of_page(page, *COMMANDS, "python", "toml"))
    names = {*re.findall(r"[\w-]+\.h5\b", text), *(["results.h5"] if "FILE" in text else [])}
    for name in sorted(names):
        kind = docresults.Kind.SEARCHED
        if re.search(rf"mpisweep add {re.escape(name)}", text):
            kind = docresults.Kind.WAITS
        elif "scaling.py" in text:
            kind = docresults.Kind.SCALES
        elif '"lr"' in text:
            kind = docresults.Kind.OWN
        docresults.make(folder / name, kind)


# ------------------------------------------------------------------------------------------ what a block is


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_a_language_that_is_tested(page: Path):
    fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = blocks_of(page)
    assert len(fences) == 2 * len(blocks)
    assert [str(block) for block in blocks if block.language not in LANGUAGES] == []


def test_json():
    """Blocks of JSON can be read."""
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.text)


def test_a_block_without_a_language_is_found():
    [block] = blocks_of(ROOT / "README.md", "text\n\n  ```\n  a: b\n  ```\n")
    assert (block.language, block.text, block.line) == ("", "a: b\n", 3)


# ------------------------------------------------------------------------------------------ sweep files


@pytest.mark.parametrize("page", pages_with("toml"))
def test_toml(page: str, work: Path, capsys: pytest.CaptureFixture[str]):
    make_results(work, page)
    for block in of_page(page, "toml"):
        found = tomllib.loads(block.text)
        # The scripts of commands and hooks, which are checked.
        for script in re.findall(r"\b\w+\.py\b", block.text):
            (work / script).touch()
        if "project" in found:
            assert set(found["project"]["entry-points"]) <= {WORKLOADS, SEARCHES, SITES, BATCH}
        elif "system" in found:
            # The system is a plugin's.
            text = block.text.replace(found["system"], "pjm")
            assert parse_site(text, name="shown", source=block.file).title == found["title"]
        else:
            (work / "shown.toml").write_text(completed(block.text), encoding="utf-8")
            assert main(["check", "shown.toml", *NEW]) == 0, (str(block), capsys.readouterr().err)


def test_a_wrong_key_in_a_fragment_fails(work: Path, capsys: pytest.CaptureFixture[str]):
    (work / "shown.toml").write_text(completed("repeat = 3\n"), encoding="utf-8")
    assert main(["check", "shown.toml"]) == 2
    assert "did you mean 'repeats'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ commands


def parse(words: list[str]) -> None:
    """Parse the arguments of ``mpisweep``; exits if they are wrong."""
    options, unknown = make_parser(words[0]).parse_known_args(split_command_line(words)[0])
    if unknown:
        options.parser.refuse(unknown)


def as_run_here(words: list[str]) -> list[str] | None:
    """What runs in place of a command that starts ranks or needs a batch system; None if nothing does."""
    match words[0]:
        case "run":
            # Prints what would start.
            end = words.index("--") if "--" in words else len(words)
            return [*without(words[:end], "-o"), "--dry-run", *NEW, *words[end:]]
        case "submit":
            # Writes the script that would be submitted.
            elapse = ["--elapse", "1:00:00"] if "--plan" in words else []
            return ["jobscript", *without(words[1:], "--chain", "--plan"), *elapse]
        case "check" if "--devices" in words:
            return None
        case "check" if "--schema" not in words:
            return [*without(words, "--pilot", "-o"), *NEW]
        case "init" if "-o" not in words:
            return [*words, "-o", "drafted.toml"]
        case "replay":
            return None
    return words


def without(words: list[str], *options: str) -> list[str]:
    """Words without some options and their values."""
    kept = list(words)
    for option in options:
        if option in kept:
            at = kept.index(option)
            has_value = at + 1 < len(kept) and not kept[at + 1].startswith("-")
            del kept[at : at + 1 + has_value]
    return kept


class Reader:
    """Runs the commands of a page one after another, in the working directory."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self._folder = folder

    def run(self, command: Command) -> None:
        """Run a command, or check it as far as it can be."""
        program, *rest = filled(command.words)
        known: dict[str, Callable[[list[str]], str]] = {
            "mpisweep": self._mpisweep, "python": self._script, "make": self._make, "pip": self._pip,
            "mpirun": self._mpirun, "python3.11": self._venv, "sed": self._sed,
        }  # fmt: skip
        if program in ELSEWHERE:
            return
        if program.startswith("jobscripts/"):
            subprocess.run(["bash", "-n", program], check=True)
            return
        assert program in known, f"no rule for the command {program!r}"
        printed = known[program](rest)
        if command.output:
            # The folder of the tests is node-local, which `jobscript --check` reports.
            text = printed.replace(str(self._folder.parent), "$WORK")
            (self._folder / command.output).write_text(text, encoding="utf-8")

    def _mpisweep(self, words: list[str]) -> str:
        if "--help" in words:
            with pytest.raises(SystemExit) as end:
                main(words)
            assert end.value.code == 0
            return ""
        parse(words)
        if (here := as_run_here(words)) is None:
            return ""
        self._capsys.readouterr()
        code = main(here)
        printed = self._capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    def _script(self, words: list[str]) -> str:
        if words[0].startswith("benchmarks/"):
            # Minutes of device time.
            compile((ROOT / words[0]).read_text(encoding="utf-8"), words[0], "exec")
            return ""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            try:
                runpy.run_path(words[0], run_name="__main__")
            except SystemExit as end:
                assert not end.code, self._capsys.readouterr().err
        return ""

    def _mpirun(self, words: list[str]) -> str:
        parse(words[words.index("mpisweep") + 1 :])
        return ""

    def _make(self, words: list[str]) -> str:
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
        return ""

    def _pip(self, words: list[str]) -> str:
        assert words[0] == "install"
        for word in words[1:]:
            for extra in re.findall(r"\[(.+)\]", word):
                assert set(extra.split(",")) <= set(docresults.setup()["options.extras_require"])
        return ""

    def _venv(self, words: list[str]) -> str:
        assert docresults.setup()["options"]["python_requires"] == ">=3.11"
        assert words[:2] == ["-m", "venv"]
        return ""

    def _sed(self, words: list[str]) -> str:
        return subprocess.run(["sed", *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("page", [page for page in pages_with(*COMMANDS) if page not in RUN_ELSEWHERE])
def test_commands(page: str, work: Path, capsys: pytest.CaptureFixture[str]):
    make_results(work, page)
    reader = Reader(capsys, work)
    for block in of_page(page, *COMMANDS):
        if block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        for command in commands_of(block):
            try:
                reader.run(command)
            except (SystemExit, AssertionError, OSError, subprocess.CalledProcessError) as error:
                pytest.fail(f"{block}: {' '.join(command.words)}: {error} {capsys.readouterr().err}")


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_commands_that_other_tests_run_can_be_parsed(page: str):
    for block in of_page(page, *COMMANDS):
        for command in commands_of(block):
            if command.words[0] == "mpisweep" and "--help" not in command.words:
                parse(filled(command.words[1:]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_prose_can_be_parsed(page: Path, capsys: pytest.CaptureFixture[str]):
    for words in inline_commands(page.read_text(encoding="utf-8")):
        # What is left out is a value of the last option, a file, or a file and the number of a trial.
        for more in ([], ["2"], ["x.h5"], ["x.h5", "3"], ["x=1:2"]):
            try:
                parse([*filled(words), *more])
                break
            except SystemExit as end:
                if not end.code:
                    break
        else:
            pytest.fail(f"{page.name}: mpisweep {' '.join(words)}: {capsys.readouterr().err}")


def test_commands_are_taken_apart_as_a_shell_does():
    text = (
        "cd /x/$USER   # a folder\nA=1 nohup mpisweep run s.toml -o r.h5 > log 2>&1 &\n"
        "for job in 1 2; do pjsub job.sh; done\nmpisweep top 'a b.h5' \\\n    -k 3 | head\n"
    )
    block = Block("README.md", 1, "sh", "", text)
    assert list(commands_of(block)) == [
        Command(("cd", "/x/$USER")),
        Command(("mpisweep", "run", "s.toml", "-o", "r.h5"), "log"),
        Command(("pjsub", "job.sh")),
        Command(("mpisweep", "top", "a b.h5", "-k", "3")),
        Command(("head",)),
    ]
    console = Block("README.md", 1, "console", "", "$ mpisweep top r.h5 > x\nr: best\n$ true\n")
    assert list(commands_of(console)) == [
        Command(("mpisweep", "top", "r.h5"), "x", "r: best\n"),
        Command(("true",)),
    ]


def test_a_wrong_option_and_an_unknown_program_fail(work: Path, capsys: pytest.CaptureFixture[str]):
    reader = Reader(capsys, work)
    with pytest.raises(SystemExit):
        reader.run(Command(("mpisweep", "check", "sweep.toml", "--wal1", "1h")))
    with pytest.raises(AssertionError, match="no rule for the command 'frobnicate'"):
        reader.run(Command(("frobnicate", "x")))
    with pytest.raises(AssertionError, match="no sweep file"):
        reader.run(Command(("mpisweep", "check", "sweeep.toml")))


# ------------------------------------------------------------------------------------------ Python


def starts_processes(block: Block) -> bool:
    """Whether a block runs a sweep or submits a job."""
    return re.search(r"\bmpisweep\.(run|submit)\(", block.text) is not None


def run_python(page: str, folder: Path, *, runs: bool) -> int:
    """Run the Python blocks of a page in one namespace, or write them as the files that they name.

    Args:
        page: the page.
        folder: for the files.
        runs: whether to run those that run a sweep, or all others.

    Returns:
        The number of blocks that ran.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    exec("import h5py, mpisweep\nfrom pathlib import Path", names)
    if any("optuna." in block.text for block in of_page(page, "python")):
        exec("import optuna", names)
    ran = 0
    for block in of_page(page, "python"):
        code = compile(block.text, str(block), "exec")
        if block.file:
            target = folder / block.file
            target.parent.mkdir(exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            if block.file.endswith("train.py"):
                continue
        if ".submit(" in block.text or starts_processes(block) is not runs:
            continue
        try:
            exec(code, names)
        except ImportError as error:
            assert any(name in str(error) for name in READERS_OWN), (str(block), error)
        except Exception as error:
            pytest.fail(f"{block}: {type(error).__name__}: {error}")
        ran += 1
    return ran


@pytest.mark.parametrize("page", pages_with("python"))
def test_python(page: str, work: Path, monkeypatch: pytest.MonkeyPatch):
    make_results(work, page)
    # What a program of the page reads.
    shown = [json.loads(block.text) for block in of_page(page, "json")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, shown))))
    # The copies of results that the page's commands make.
    for command in (command for block in of_page(page, *COMMANDS) for command in commands_of(block)):
        if command.words[:2] == ("mpisweep", "export"):
            assert main(list(command.words[1:])) == 0
    run_python(page, work, runs=False)


@pytest.mark.long
@pytest.mark.mpi
@pytest.mark.parametrize(
    "page", sorted({b.page for b in BLOCKS if b.language == "python" and starts_processes(b)})
)
def test_python_with_its_runs(page: str, work: Path):
    assert run_python(page, work, runs=True) > 0


# ------------------------------------------------------------------------------------------ what is printed


@pytest.fixture(scope="module")
def said() -> str:
    """All texts of the package, each in a line of its own."""
    texts = (one.words for file, source in voice.sources() for one in voice.messages(file, source))
    return "\n".join(text.replace("%s", "{}") for text in texts)


def phrases_of(text: str) -> Iterator[str]:
    """Runs of at least three words within a line, without numbers, names and punctuation between them."""
    for cell in re.split(r"\n|  ", text):
        for run in re.split(r"(?:^| )\S*[^A-Za-z' ,;:.]\S*|[,;:.](?: |$)", cell):
            if len(run.split()) >= 3:
                yield " ".join(run.split())


def is_said(phrase: str, said: str) -> bool:
    """Whether mpisweep prints a phrase: as a part of one text, or of several one after another."""
    words = phrase.split()
    reached = {0}
    for end in range(1, len(words) + 1):
        if any(start in reached and _is_part(words[start:end], said) for start in range(end)):
            reached.add(end)
    return len(words) in reached


def _is_part(words: list[str], said: str) -> bool:
    """Whether words are a part of a text, in which up to three may be inserted values; or one inserted value."""
    if len(words) == 1:
        [word] = words
        return (
            len(word) < 4
            or word in VALUES
            or f"\n{word.removesuffix('s')}\n" in said
            or f"\n{word}\n" in said
        )
    for count in range(min(3, len(words) - 2) + 1):
        for places in itertools.combinations(range(len(words)), count):
            if " ".join("{}" if n in places else word for n, word in enumerate(words)) in said:
                return True
    return False


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "text"], ids=str)
def test_text(block: Block, said: str, work: Path):
    first = block.text.partition("\n")[0]
    if first.startswith("/"):
        docresults.make(work / "r.h5")
        docresults.check_layout(work / "r.h5", block.text)
    elif re.fullmatch(r"\w+(,\w+)+", first):
        (work / "shown.csv").write_text(block.text, encoding="utf-8")
        (work / "shown.toml").write_text('workload = "resnet50"\npoints = "shown.csv"\n', encoding="utf-8")
        assert main(["check", "shown.toml", *NEW]) == 0
    else:
        unknown = [phrase for phrase in phrases_of(block.text) if not is_said(phrase, said)]
        assert not unknown, block


def test_a_phrase_that_nothing_prints_is_found(said: str):
    line = "best mean loss 0.5 (3 runs); 4 of the other 19 cannot be distinguished from it"
    unknown = [phrase for phrase in phrases_of(line) if not is_said(phrase, said)]
    assert unknown == ["cannot be distinguished from it"]
