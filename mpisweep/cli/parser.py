"""The parser of the command line: help with examples, and errors in one sentence.

A name that does not exist is answered with the nearest one that does.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from mpisweep.cli.answers import wait_for_first_rank
from mpisweep.rank.transport import is_first_rank
from mpisweep.spec import closest, nearest

__all__ = ["Parser", "Section"]


class Section(NamedTuple):
    """A group of arguments: names with values, and help."""

    title: str
    entries: tuple[tuple[str, str], ...]


class Parser(argparse.ArgumentParser):
    """A parser of which only the first rank prints.

    Attributes:
        groups: of the commands in the help, by their titles.
        exit_codes: what they mean, at the end of the help.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if not is_first_rank():
            # It prints nothing, and each argument would ask for the width of the terminal.
            keywords.setdefault("formatter_class", functools.partial(argparse.HelpFormatter, width=80))
        super().__init__(*arguments, **keywords)
        self._positionals.title = "arguments"
        self.groups: Mapping[str, Sequence[str]] = {}
        self.exit_codes = ""
        # What is left over by the parser of a command is known only when all is parsed.
        self.set_defaults(parser=self)

    def format_help(self) -> str:
        """The help, with groups of commands and with examples."""
        # Every rank makes a parser.
        import textwrap

        from mpisweep.cli.examples import examples_of

        lines = [
            line
            for title, group in self.groups.items()
            for line in ("", f"{title}:", *self._described(group))
        ]
        if examples := examples_of(self.prog):
            lines += ["", "examples:", *(line for example in examples for line in example.lines())]
        if self.exit_codes:
            lines += ["", *textwrap.wrap(self.exit_codes, 78)]
        return super().format_help() + "".join(f"{line}\n" for line in lines)

    def commands(self) -> dict[str, str]:
        """The help of each command that is listed, by its name."""
        found = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return {one.dest: str(one.help) for action in found for one in action._choices_actions}

    def sections(self) -> Iterator[Section]:
        """Yield the groups of arguments in the order of the help."""
        for group in self._action_groups:
            entries = [
                (_written(action), " ".join(str(action.help or "").split()))
                for action in group._group_actions
                if action.help != argparse.SUPPRESS
            ]
            if entries:
                yield Section(str(group.title), tuple(entries))

    def synopsis(self) -> list[str]:
        """The words of the usage: options in brackets, then arguments; one word per option."""
        if self.usage:
            return self.usage.split()
        options = [
            f"[{action.option_strings[0]}{_value(action)}]"
            for action in self._actions
            if action.option_strings
        ]
        others = [action for action in self._actions if not action.option_strings]
        names = [f"[{_value(one)[1:]}]" if one.nargs == "?" else _value(one)[1:] for one in others]
        return [*self.prog.split(), *options, *names]

    def parsers(self) -> Iterator[Parser]:
        """Yield the parsers of the commands, in the order of their groups."""
        found: dict[str, Parser] = {}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= action.choices
        yield from (found[name] for group in self.groups.values() for name in group)

    def show_commands(self) -> None:
        """List the commands as argparse does, in short, for programs that read the parser."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                action.help = None
        helps = self.commands()
        for parser in self.parsers():
            parser.description = helps[parser.prog.partition(" ")[2]]

    def all_actions(self) -> Iterator[argparse.Action]:
        """Yield the arguments of this parser and of its commands."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.all_actions()
            else:
                yield action

    def _described(self, names: Sequence[str]) -> list[str]:
        helps = self.commands()
        return [f"  {name:<12}{helps[name]}" for name in names if name in helps]

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with an error about the first of these arguments, which do not exist."""
        given = unknown[0].partition("=")[0]
        if not given.startswith("-"):
            self.error(f"found the argument {unknown[0]!r}, which is one too many")
        flags = [flag for action in self._actions for flag in action.option_strings]
        if near := closest(given, flags):
            self.error(f"there is no option {given}; did you mean {near}?")
        self.error(f"there is no option {given}")

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one sentence."""
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')} (see `{self.prog} --help`)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit; on an error, only after the first rank had time to print it."""
        if status:
            wait_for_first_rank()
        super().exit(status, message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is None or value in choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"there is no command {value!r}; {nearest(str(value), choices)}")
        raise argparse.ArgumentError(action, f"found {value!r}; {nearest(str(value), choices)}")

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_rank():
            super()._print_message(message, file)


def _value(action: argparse.Action) -> str:
    """The value of an argument behind a space; empty if it takes none."""
    if action.nargs == 0:
        return ""
    choices = "" if action.choices is None else f"{{{','.join(map(str, action.choices))}}}"
    return f" {action.metavar or choices or action.dest.upper()}"


def _written(action: argparse.Action) -> str:
    """An argument with all its names and its value."""
    value = _value(action)
    return ", ".join(f"{name}{value}" for name in action.option_strings) or value[1:]
