"""Search pages, help, messages, docstrings and comments for phrases that must not come back.

``python tests/voice.py`` prints every phrase with its place and the wording to use instead;
``python tests/voice.py docs mpisweep/cli`` does so for some files.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, starmap
from pathlib import Path
from typing import NamedTuple

from phrases import HELP_PHRASES, PHRASES, Phrase

ROOT = Path(__file__).parent.parent
#: Longest first line of a docstring, in characters.
FIRST_LINE = 90


class Text(NamedTuple):
    """A text to search, with its whitespace reduced to single spaces."""

    file: str
    line: int
    words: str


class Finding(NamedTuple):
    """A phrase that was found in a text, and the words to use instead."""

    text: Text
    found: str
    better: str
    at: int = 0

    def __str__(self) -> str:
        start = max(0, self.at - 50)
        around = self.text.words[start : self.at + len(self.found) + 40]
        return f"{self.text.file}:{self.text.line}: {self.found!r} -> {self.better}\n    {around}"


def findings(texts: Iterable[Text], phrases: Iterable[Phrase] = PHRASES) -> Iterator[Finding]:
    """Yield every phrase that occurs in the texts."""
    compiled = [(re.compile(phrase.pattern, re.IGNORECASE), phrase.better) for phrase in phrases]
    for text in texts:
        for pattern, better in compiled:
            for found in pattern.finditer(text.words):
                yield Finding(text, found[0], better, found.start())


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------------------------- pages

#: Searched whole, except for the generated blocks of pages, whose words come from tables of the package.
PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*.py", "examples/*.toml", "examples/*/*", "Makefile",
    "analysis/*.py", "benchmarks/*.py", "jobscripts/*.sh", "jobscripts/*.py", ".pre-commit-config.yaml",
    "CITATION.cff", "setup.cfg",
)  # fmt: skip
GENERATED = re.compile(r"<!-- made by .+? -->.*?<!-- end -->", re.DOTALL)


def paragraphs(file: str, text: str) -> Iterator[Text]:
    """Yield the paragraphs, rows and comments of a page or of another text."""
    text = GENERATED.sub(lambda found: "\n" * found[0].count("\n"), text)
    line = 1
    for paragraph in re.split(r"(\n(?:[ #*]*\n|(?=[|*-] )))", text):
        # Comment marks interrupt a sentence.
        words = re.sub(r"^[ \t]*#+[:!]?(?= )", "", paragraph, flags=re.MULTILINE)
        if words.strip():
            yield Text(file, line, _single_spaced(words))
        line += paragraph.count("\n")


def pages() -> Iterator[Text]:
    """The texts of all pages."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()):
        yield from paragraphs(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------- the package


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of each module of the package."""
    for path in sorted((ROOT / "mpisweep").rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def sources_of_tests() -> Iterator[tuple[str, str]]:
    """Yield name and text of each test file."""
    for path in sorted((ROOT / "tests").glob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


class Docstring(NamedTuple):
    """A docstring and its owner."""

    name: str
    is_public: bool
    line: int
    text: str


def docstrings(source: str) -> Iterator[Docstring]:
    """Yield all docstrings of a module; anything below a private name or inside a function is not public."""
    tree = ast.parse(source)
    below: list[tuple[ast.AST, str, bool]] = [(tree, "", True)]
    while below:
        node, name, is_public = below.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True)
            if text is not None:
                yield Docstring(name, is_public, node.body[0].lineno, text)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                shown = is_public and not inside and not child.name.startswith("_")
                below.append((child, f"{name}.{child.name}".lstrip("."), shown))
            else:
                below.append((child, name, is_public))


def messages(file: str, source: str) -> Iterator[Text]:
    """Yield every string literal of a module except docstrings; ``{}`` stands for an inserted value."""
    tree = ast.parse(source)
    seen = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            seen |= {id(part) for part in node.values}
            yield Text(file, node.lineno, _single_spaced("".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen:
            yield Text(file, node.lineno, _single_spaced(node.value))


def prose(file: str, source: str) -> Iterator[Text]:
    """Yield the docstrings and comments of a module; comments on successive lines are one text."""
    for docstring in docstrings(source):
        yield Text(file, docstring.line, _single_spaced(docstring.text))
    blocks: list[tuple[int, list[str]]] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != last + 1 or not token.line.lstrip().startswith("#"):
                blocks.append((line, []))
            blocks[-1][1].append(token.string.lstrip("#:"))
            last = line
    for line, parts in blocks:
        yield Text(file, line, _single_spaced(" ".join(parts)))


def long_first_lines(file: str, source: str) -> Iterator[Text]:
    """Yield first lines of public docstrings that are too long or do not end with their sentence."""
    for docstring in docstrings(source):
        paragraph = docstring.text.partition("\n\n")[0]
        first = paragraph.partition("\n")[0]
        if docstring.is_public and (len(first) > FIRST_LINE or first != paragraph):
            yield Text(file, docstring.line, first)


# ------------------------------------------------------------------------------------- help


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from parsers(command)


def all_parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands, including the hidden one."""
    from mpisweep.cli.program import make_parser

    yield from parsers(make_parser())
    yield from list(parsers(make_parser("chain")))[1:]


def help_texts() -> Iterator[Text]:
    """Yield the ``--help`` output of each command."""
    for parser in all_parsers():
        yield Text(parser.prog, 0, _single_spaced(parser.format_help()))


def option_helps() -> Iterator[Text]:
    """Yield the help of each option, argument and command of the program and of the scripts."""
    for parser in all_parsers():
        for action in parser._actions:
            shown = [action]
            if isinstance(action, argparse._SubParsersAction):
                shown = list(action._choices_actions)
            for one in shown:
                if one.help and one.help != argparse.SUPPRESS:
                    yield Text(f"{parser.prog} {one.dest}", 0, _single_spaced(one.help))
    for path in sorted([*(ROOT / "analysis").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
                yield Text(str(path.relative_to(ROOT)), node.value.lineno, str(node.value.value))


# ------------------------------------------------------------------------------------- findings


def _package(texts_of: Callable[[str, str], Iterator[Text]]) -> Iterator[Text]:
    for file, source in sources():
        yield from texts_of(file, source)


#: Kind of text -> its findings.
FINDINGS: dict[str, Callable[[], Iterator[Finding]]] = {
    "pages": lambda: findings(pages()),
    "help": lambda: chain(findings(help_texts()), findings(option_helps(), HELP_PHRASES)),
    "messages": lambda: findings(_package(messages)),
    "prose": lambda: findings(_package(prose)),
    "prose_of_tests": lambda: findings(chain.from_iterable(starmap(prose, sources_of_tests()))),
    "first_lines": lambda: (
        Finding(
            text, f"a first line of {len(text.words)} characters", f"one sentence of at most {FIRST_LINE}"
        )
        for text in _package(long_first_lines)
    ),
}


def main() -> None:
    """Print all findings, or those in the given files."""
    wanted = tuple(sys.argv[1:])
    for find in FINDINGS.values():
        for finding in find():
            if finding.text.file.startswith(wanted or ""):
                print(finding)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
