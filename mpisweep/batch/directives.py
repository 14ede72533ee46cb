"""Reading a job script: its directives, the request they make, and its commands.

:mod:`mpisweep.batch.checkscript` judges it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Asked, Directive
from mpisweep.batch.registry import known_systems

__all__ = ["Command", "JobScript", "asked_for", "read_script"]

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(\S.*)?")
#: A word that may be a value.
_VALUE = re.compile(r"[A-Za-z0-9_][\w.,:=/+@%-]*")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Command:
    """A command, with continuation lines joined and variables expanded that the script sets."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobScript:
    """A job script, taken apart.

    Attributes:
        system: None if it has no directive of any system.
        others: markers of other systems, each with its first line.
        late: lines of directives after the first command.
        broken: lines of directives without their value, each with the next line, which looks like it.
        misspelt: lines that look like directives and are comments.
        carriage_returns: first line with a Windows line ending; 0 for none.
    """

    system: BatchSystem | None
    has_interpreter: bool
    directives: tuple[Directive, ...]
    commands: tuple[Command, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    late: tuple[int, ...] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    misspelt: tuple[int, ...] = ()
    carriage_returns: int = 0
    lines: tuple[str, ...] = ()

    def find(self, *options: str) -> Directive | None:
        """Find the last directive with one of these options, which is the one that counts."""
        return next((d for d in reversed(self.directives) if d.option in options), None)


# ------------------------------------------------------------------------------------- reading


def read_script(text: str) -> JobScript:
    """Parse a script."""
    raw = text.split("\n")
    carriage_returns = next((n for n, line in enumerate(raw, 1) if line.endswith("\r")), 0)
    lines = [line.rstrip("\r") for line in raw]
    markers: dict[str, list[int]] = {}
    misspelt: list[int] = []
    for number, line in enumerate(lines, 1):
        name = _marker(line)
        if name:
            markers.setdefault(name, []).append(number)
        elif _nearly_a_marker(line):
            misspelt.append(number)
    systems = {system.name: system for system in known_systems()}
    system = systems[max(markers, key=lambda name: len(markers[name]))] if markers else None
    own = markers.pop(system.name) if system else []
    broken = {n: value for n in own if system and (value := _broken_off(system, lines[n - 1 : n + 1]))}
    # A value that was broken off its directive is not a command, though the shell takes it for one.
    lines_of_commands = ["" if number in broken else line for number, line in enumerate(lines)]
    end = len(lines) + 1
    first_command = (
        end
        if system and system.reads_whole_script
        else next(
            (
                n
                for n, line in enumerate(lines_of_commands, 1)
                if line.strip() and not line.lstrip().startswith("#")
            ),
            end,
        )
    )
    return JobScript(
        system=system,
        has_interpreter=lines[0].startswith("#!"),
        directives=tuple(
            d
            for n in own
            if system and n < first_command
            for d in _directives(system, n, f"{lines[n - 1]} {broken.get(n, '')}")
        ),
        commands=tuple(_commands(lines_of_commands)),
        others={systems[name].marker: found[0] for name, found in markers.items()},
        late=tuple(n for n in own if n > first_command),
        broken=broken,
        misspelt=tuple(misspelt),
        carriage_returns=carriage_returns,
        lines=tuple(lines),
    )


def _marker(line: str) -> str:
    """The name of the batch system whose directive a line is; empty for none."""
    return next(
        (
            system.name
            for system in known_systems()
            if re.match(system.marker_pattern or rf"{re.escape(system.marker)}(\s|$)", line)
        ),
        "",
    )


def _broken_off(system: BatchSystem, lines: list[str]) -> str:
    """The second line, if it is the missing value of the directive in the first; else empty."""
    last = next(reversed(list(_directives(system, 1, lines[0]))), None)
    value = lines[1].strip() if len(lines) > 1 else ""
    if last is None or not last.lacks_value or not _VALUE.fullmatch(value):
        return ""
    return value if last.option != system.resource_option or "=" in value else ""


def _nearly_a_marker(line: str) -> bool:
    # A comment that only mentions PJM does not count; one with an option after it does.
    names = "|".join(re.escape(name) for system in known_systems() for name in system.nearly_markers)
    return re.match(rf"\s*#+\s*({names})\s*-", line, re.IGNORECASE) is not None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _directives(system: BatchSystem, number: int, line: str) -> Iterable[Directive]:
    words = _split(line[len(system.marker) :])
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        lacks_value = False
        if not equals and option in system.flags:
            value = ""
        elif not equals and option in system.valued:
            value = words.pop(0) if words and _may_be_value(words[0]) else ""
            lacks_value = not value
        elif option in system.two_valued:
            value = " ".join(words[:2]) if len(words) > 1 and all(map(_may_be_value, words[:2])) else ""
            del words[: 2 if value else 0]
            lacks_value = not value
        elif system.glues_values and not equals and not word.startswith("--") and word[:2] in system.valued:
            option, value = word[:2], word[2:]
        elif option not in system.valued | system.flags:
            yield Directive(number, option, value, known=False)
            # Skip its value, if any.
            while words and _may_be_value(words[0]):
                words.pop(0)
            continue
        else:
            lacks_value = not value
        yield from _resources(
            system, Directive(number, system.aliases.get(option, option), value, lacks_value=lacks_value)
        )


def _may_be_value(word: str) -> bool:
    """Whether the word after an option may be its value: anything but an option; -1 may."""
    return not word.startswith("-") or re.fullmatch(r"-\d+", word) is not None


def _resources(system: BatchSystem, found: Directive) -> Iterable[Directive]:
    """Split a value like ``node=4,elapse=1:00:00`` into one directive per resource."""
    if found.option not in (system.resource_option, *system.list_options) or found.lacks_value:
        yield found
        return
    for part in found.value.split(","):
        name, equals, value = part.strip().partition("=")
        known = not system.resources or found.option != system.resource_option or name in system.resources
        yield Directive(
            found.line, f"{found.option} {name}", value, known, lacks_value=bool(equals) and not value
        )


def _commands(lines: list[str]) -> Iterable[Command]:
    variables: dict[str, str] = {}
    joined, start = "", 0
    for number, line in enumerate(lines, 1):
        if not joined and line.lstrip().startswith("#"):
            continue
        start = start if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\") and number < len(lines):
            continue
        text, joined = joined.strip(), ""
        if assignment := _ASSIGNMENT.fullmatch(text):
            variables[assignment[1]] = _fill_in(" ".join(_split(assignment[2] or "")), variables)
        words = tuple(_fill_in(word, variables) for word in _split(text))
        if words:
            yield Command(start, words)


def _fill_in(word: str, variables: Mapping[str, str]) -> str:
    """Expand variables that the script sets and defaults of others; leave the rest as they are."""

    def value(found: re.Match[str]) -> str:
        known = variables.get(found[1] or found[2])
        return known if known is not None else found[3] if found[3] is not None else found[0]

    return _VARIABLE.sub(value, word)


# ------------------------------------------------------------------------------------- the request


def asked_for(script: JobScript) -> Asked:
    """Read the request that the directives make."""
    return script.system.asked(script.find) if script.system else Asked()
