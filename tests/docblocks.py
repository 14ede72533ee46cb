"""Fenced blocks of the pages: what kind each is, the commands in it, and what a fragment needs to be complete.

A block has a language. What a test does with it follows from that and from these rules:

* ``sh``: commands. Of those that :data:`ELSEWHERE` names none runs here; every other program is known to
  :func:`tests.test_doc_blocks`, or the test fails.
* ``console``: commands behind ``$``, each with what it prints.
* ``toml``: a sweep file, or a part of one, which :func:`completed` completes; or another file, which the comment
  in its first line names.
* ``python``: compiled and run, one namespace per page; a comment in the first line makes it a file.
* ``text``: the layout of a results file, points as CSV, or what mpisweep prints.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voice import ROOT

__all__ = [
    "ELSEWHERE",
    "PAGES",
    "Block",
    "Command",
    "blocks_of",
    "commands_of",
    "completed",
    "inline_commands",
]

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "packaging").glob("*.md")),
]

#: Program -> what it needs that a test does not have.
ELSEWHERE = {
    **dict.fromkeys(("pjsub", "pjstat", "pjdel", "sbatch", "squeue", "qsub", "qstat"), "a batch system"),
    **dict.fromkeys(("ssh", "module"), "a cluster's login node"),
    **dict.fromkeys(("apptainer", "spack", "conda", "mamba", "rattler-build"), "another package manager"),
    "git": "a server",
    "optuna-dashboard": "a browser",
    "tail": "a job that runs",
    "source": "the reader's environment",
    "cd": "the reader's folders",
    "export": "the reader's environment",
}

_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'(\w*)(?: title="([^"]+)")?')
#: A first line that names the file whose text the block is.
_FILE = re.compile(r"(?:%%writefile|#) ([\w/]+\.(?:py|toml))\b")
_PROMPT = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its page, as a path from the root of the repository.
        line: of the opening fence, from 1.
        language: behind the fence.
        file: the file whose text it is; "" if it is none.
        text: without the fences and their indentation.
        section: text of the page between the heading before and the block.
    """

    page: str
    line: int
    language: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A simple command of a shell.

    Attributes:
        words: without assignments before it and without redirections.
        output: the file to which its output goes; "" for none.
        printed: what the page says that it prints.
    """

    words: tuple[str, ...]
    output: str = ""
    printed: str = ""


def blocks_of(path: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page; `text` stands in for its text."""
    text = path.read_text(encoding="utf-8") if text is None else text
    found = []
    for fence in _FENCE.finditer(text):
        indentation, info, inside = fence.groups()
        language, title = _TITLE.match(info).groups()  # type: ignore[union-attr]
        inside = re.sub(f"^{indentation}", "", inside, flags=re.MULTILINE)
        named = _FILE.match(inside)
        file = title or (named[1] if named else "")
        if named and inside.startswith("%%"):
            inside = inside.partition("\n")[2]
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(str(path.relative_to(ROOT)), line, language, file, inside))
    return found


def commands_of(block: Block) -> Iterator[Command]:
    """The simple commands of a block of ``sh`` or ``console``."""
    if block.language == "console":
        for line, printed in _PROMPT.findall(block.text):
            *before, last = _simple(line)
            yield from before
            yield Command(last.words, last.output, printed)
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        yield from _simple(line)


def _simple(line: str) -> Iterator[Command]:
    """The simple commands of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    words: list[str] = []
    output = ""
    tokens = [*lexer, ";"]
    while tokens:
        token = tokens.pop(0)
        if token in (">", ">>"):
            output = tokens.pop(0)
        elif token in (">&", "<"):
            if words and words[-1].isdigit():
                words.pop()
            tokens.pop(0)
        elif set(token) <= set(";&|"):
            if words := _without_syntax(words):
                yield Command(tuple(words), output)
            words, output = [], ""
        else:
            words.append(token)


def _without_syntax(words: list[str]) -> list[str]:
    """Words without assignments before a command, nohup and the keywords of loops."""
    while words and (words[0] in ("do", "nohup") or re.match(r"[A-Za-z_]\w*=", words[0])):
        words = words[1:]
    return [] if words and words[0] in ("for", "done") else words


def completed(text: str) -> str:
    """Complete a part of a sweep file.

    What has parameters or points but no workload gets that of a function, ``my_train:train``; what has neither gets
    ResNet50 and a range of batch sizes. A sampler of Optuna without a number of trials gets one.
    """
    shown = tomllib.loads(text)
    has_space = "parameters" in shown or "points" in shown
    workload = "my_train:train" if has_space else "resnet50"
    before = "" if "workload" in shown else f'workload = "{workload}"\n'
    behind = "" if has_space else "\n[parameters]\nbatch_size = { from = 1, to = 700 }\n"
    if isinstance(shown.get("search"), dict) and "trials" not in shown:
        before += "trials = 9\n"
    return before + text + behind


def inline_commands(text: str) -> list[list[str]]:
    """The commands ``mpisweep COMMAND ...`` in the prose of a page; those with an ellipsis are not whole."""
    prose = _FENCE.sub("", text)
    shown = re.findall(r"`mpisweep ([^`\n]+)`", prose)
    return [shlex.split(one) for one in shown if "..." not in one and re.match(r"[a-z]+\b", one)]
