"""The voice of the project: phrases that must not come back, and first lines of docstrings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import voice
from phrases import HELP_PHRASES, PHRASES, Phrase

#: The same statements in the words to use.
BETTER = (
    "cannot be resumed",
    "recovering from a lost rank; process lifetimes; life of a trial; modules",
    "the last run died without closing; run the same command to resume",
    "mpirun exited with 1 before the sweep reported an end",
    "restart limit (limits.restarts) reached",
    "no rank started within 10 min; ending mpirun and retrying",
    "7 completed trials have no finite loss",
    "largest batch_size that fits in memory: 640",
    "stop requested (slow.h5.stop exists); stopped on request",
    "no active run; run the same command to resume",
    'three.toml: OK (sweep "three")',
    "unknown until three trials have run; set limits.timeout for an upper bound",
    "live view on a terminal, otherwise one line per change",
    "the page is self-contained",
    "let rank 0 run trials too (default: only if a device would be idle)",
    "cut the sweep into K shares; start the same command in each job",
    "is on a node-local disk that other nodes cannot see",
    "jobs do not inherit your login environment",
    "one worker per GPU, or per core; one page per batch system",
    "Commands can be pasted; replace names in CAPITALS",
    "ignore messages from a superseded master",
    "a member that stalled may have been declared dead",
    "splitting it again; the sweep file is unchanged but now gives different trials",
    "the segments in order of their offsets, and a lock in order to wait",
    "there is room for a trial of several ranks",
)
BETTER_HELP = ("name of the sweep", "trial number", "print JSON", "number of trials", "ranks per node")


def found(text: str, phrases: tuple[Phrase, ...]) -> list[str]:
    return [str(one) for one in voice.findings([voice.Text("page", 1, text)], phrases)]


@pytest.mark.parametrize("phrase", [*PHRASES, *HELP_PHRASES], ids=lambda phrase: phrase.examples[:40])
def test_a_phrase_is_found_in_each_of_its_examples(phrase: Phrase):
    for example in phrase.examples.split("|"):
        assert re.search(phrase.pattern, example, re.IGNORECASE), example
        assert found(example, (phrase,))


def test_the_better_words_contain_no_phrase():
    for sentence in BETTER:
        assert not found(sentence, PHRASES)
    for sentence in BETTER_HELP:
        assert not found(sentence, HELP_PHRASES)


SOURCE = '''"""Where the sweep is
gone on with.
"""
# It is shared
# anew.
class Held:
    """A short line."""

    def _private(self):
        """This first line is longer than ninety characters, but it is read by nobody outside the module."""

    def public(self, name):
        """This first line is longer than ninety characters, and everybody who reads the API would see it."""
        return f"{name} is gone" f" on with {name}, {name:>10}"  #: again and again

    def two_lines(self):
        """A first sentence that goes
        over two lines.
        """
        return ("nothing is "
                "to be had")
'''


def test_phrases_are_found_in_every_kind_of_text_of_a_module():
    def of(texts):
        return [(one.text.line, one.found) for one in voice.findings(texts)]

    assert of(voice.prose("m.py", SOURCE)) == [(1, "gone on with"), (4, "anew"), (14, "again and again")]
    assert of(voice.messages("m.py", SOURCE)) == [(14, "gone on with"), (20, "to be had")]
    long = voice.long_first_lines("m.py", SOURCE)
    assert sorted((text.line, text.words[:10]) for text in long) == [
        (1, "Where the "),
        (13, "This first"),
        (17, "A first se"),
    ]


def test_phrases_are_found_in_a_page_also_across_lines_but_not_in_its_generated_blocks():
    page = (
        "# A page\n\nIt is gone\non with.\n\n<!-- made by a script: x -->\nanew\n<!-- end -->\n\n"
        "| a | now\n| b | and then |\n\n```sh\nrun    # all is\n       # to be had\n```\n"
    )
    texts = voice.paragraphs("page.md", page)
    assert [(one.text.line, one.found) for one in voice.findings(texts)] == [
        (3, "gone on with"),
        (13, "to be had"),
    ]


def test_the_help_of_every_command_is_read():
    names = {parser.prog for parser in voice.all_parsers()}
    assert {"mpisweep", "mpisweep run", "mpisweep top", "mpisweep chain"} <= names
    assert any(
        "one worker per GPU" in text.words or "exit codes" in text.words.lower()
        for text in voice.help_texts()
    )
    assert any(text.file == "mpisweep run output" for text in voice.option_helps())


def test_all_tests_are_searched():
    names = {Path(file).name for file, _ in voice.sources_of_tests()}
    assert names == {path.name for path in Path(__file__).parent.glob("*.py")}


@pytest.mark.parametrize("kind", voice.FINDINGS)
def test_no_phrase_comes_back(kind: str):
    assert [str(one) for one in voice.FINDINGS[kind]()] == []
