"""The commands as Markdown for the documentation, and as pages for man."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from mpisweep import __version__
from mpisweep.cli.examples import examples_of
from mpisweep.cli.parser import Parser, Section

__all__ = ["commands_markdown", "man_pages"]

_EXIT_STATUS = (
    ("0", "all trials ended"),
    ("3", "stopped early; the same command resumes"),
    ("4", "no trial completed"),
    ("2", "invalid input"),
    ("1", "a bug"),
)


# ------------------------------------------------------------------------------------- Markdown


def commands_markdown(program: Parser) -> str:
    """Render all commands: a list by groups, then one section each."""
    helps = program.commands()
    lines: list[str] = []
    for title, names in program.groups.items():
        lines += [f"| {title} | |", "|---|---|"]
        lines += [f"| [`{name}`](#mpisweep-{name}) | {helps[name]} |" for name in names]
        lines.append("")
    seen: dict[Section, str] = {}
    for parser in program.parsers():
        lines += [f"## {parser.prog}", "", _markdown(parser.description or ""), ""]
        for section in parser.sections():
            if section in seen:
                lines += [
                    f"**{section.title}**: as of [`{seen[section]}`](#{seen[section].replace(' ', '-')}).",
                    "",
                ]
                continue
            # Every command has --help.
            entries = [entry for entry in section.entries if not entry[0].startswith("-h,")]
            if len(entries) > 2:
                seen[section] = parser.prog
            if entries:
                lines += [f"| {section.title} | |", "|---|---|"]
                lines += [f"| `{_cell(shown)}` | {_cell(_markdown(text))} |" for shown, text in entries]
                lines.append("")
        lines += ["```sh", *(line[2:] for one in examples_of(parser.prog) for line in one.lines()), "```", ""]
    return "\n".join(lines).rstrip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(text: str) -> str:
    """Protect what Markdown or HTML would read as markup."""
    return re.sub(r"(?<!`)([*_<>])", r"\\\1", text)


# ------------------------------------------------------------------------------------- man


def man_pages(program: Parser) -> dict[str, str]:
    """Write a page for the program and one per command, by the names of their files."""
    parsers = list(program.parsers())
    pages = {f"{program.prog}.1": _page(program, parsers)}
    return pages | {f"{parser.prog.replace(' ', '-')}.1": _page(parser, [program]) for parser in parsers}


def _page(parser: Parser, related: list[Parser]) -> str:
    title = parser.prog.replace(" ", "-")
    about = parser.description or ""
    summary = about.partition(".")[0]
    lines = [
        f'.TH {_roff(title.upper())} 1 "" "mpisweep {__version__}" "User Commands"',
        ".SH NAME",
        f"{_roff(title)} \\- {_roff(summary[:1].lower() + summary[1:])}",
        ".SH SYNOPSIS",
        *_as_it_is(_wrapped(parser.synopsis())),
        ".SH DESCRIPTION",
        _roff(about),
    ]
    helps = parser.commands()
    for heading, names in parser.groups.items():
        lines += [
            f".SH {_roff(heading.upper())}",
            *_listed((f"mpisweep-{name}(1)", helps[name]) for name in names),
        ]
    for section in parser.sections():
        lines += [f".SH {_roff(section.title.upper())}", *_listed(section.entries)]
    examples = (line for example in examples_of(parser.prog) for line in example.lines())
    lines += [".SH EXAMPLES", *_as_it_is(examples), ".SH EXIT STATUS", *_listed(_EXIT_STATUS)]
    names_of_others = ", ".join(f"{one.prog.replace(' ', '-')}(1)" for one in related)
    return "\n".join([*lines, ".SH SEE ALSO", _roff(names_of_others)]) + "\n"


def _wrapped(words: Iterable[str]) -> list[str]:
    """Wrap a usage between its options, not inside of them."""
    whole = " ".join(word.replace(" ", "\0") for word in words)
    lines = textwrap.wrap(whole, 72, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _listed(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for shown, text in entries:
        yield from (".TP", f".B {_roff(shown)}", _roff(text))


def _as_it_is(lines: Iterable[str]) -> Iterator[str]:
    yield from (".nf", *map(_roff, lines), ".fi")


#: Characters that roff would read as markup or print as others -> how it prints them.
_ROFF = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", '"': "\\(dq", "^": "\\(ha", "~": "\\(ti"}
)


def _roff(text: str) -> str:
    """Escape what roff would read as markup."""
    escaped = text.translate(_ROFF)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
