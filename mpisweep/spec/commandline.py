r"""A command line as a workload: parse its placeholders and metrics, and fill them in.

::

    workload = { command = "python resnet.py --batch_size={batch_size}", env = { SEED = "{seed}" } }

    [metrics]
    loss = 'loss[=: ]+(?P<value>\S+)'

The text is split into arguments before placeholders are filled in, and no shell is involved: a value with
spaces, quotes or semicolons stays one argument and cannot become a command.

Pure: starts no process, reads no file.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import string
import warnings
from collections.abc import Iterable, Mapping

from mpisweep.dataclass import dataclass
from mpisweep.records import Value
from mpisweep.spec.keys import IDENTIFIER, key_of, names_of, unknown_key

__all__ = [
    "SPECIAL_NAMES", "CommandError", "CommandWorkload", "MetricPattern", "as_text", "check_formats",
    "command_text", "names_in_template", "parse_arguments", "parse_command", "parse_pattern",
    "read_json_line", "render", "render_template",
]  # fmt: skip

#: Placeholders besides the parameters, and their meaning.
SPECIAL_NAMES = {
    "number": "trial number",
    "repeat": "which repeat of its configuration the trial is, from 0",
    "seed": "seed of the trial, derived from the sweep's seed and the repeat",
    "directory": "folder of the trial",
    "device": "cpu or cuda:0",
    "cores": "number of CPU cores that the trial may use",
    "rank": "rank of the program within its trial",
    "template": "path of the rendered template",
    "data": "this node's copy of the data, with `stage_data`",
}
_IN_TEMPLATE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*(?::([^{}]*))?\}\}")
_VARIABLE = re.compile(IDENTIFIER)
_EXAMPLE = "python train.py --batch_size={batch_size}"


class CommandError(ValueError):
    """Invalid command line, template, environment or metric.

    Args:
        key: its key, e.g. ``workload.env.SEED``.
        problem: the end of a sentence that begins with the key.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


@dataclass(frozen=True, slots=True)
class MetricPattern:
    """The pattern that finds a metric in a line of output; each match is one step of its curve."""

    name: str
    pattern: str

    def compiled(self) -> re.Pattern[str]:
        """Compile it; group ``value`` is the number, the optional group ``step`` the step."""
        return _compiled(_with_value(self.pattern))


@dataclass(frozen=True, slots=True)
class CommandWorkload:
    """A program that each trial starts once.

    Attributes:
        arguments: the program and its arguments, with placeholders.
        template: file beside the sweep file that is rendered for each trial; empty for none.
        environment: variables and their values, with placeholders.
        own_directory: whether it runs in the trial's folder instead of the sweep file's.
        metrics: patterns of metrics in its output.
    """

    arguments: tuple[str, ...]
    template: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    own_directory: bool = False
    metrics: tuple[MetricPattern, ...] = ()

    @property
    def text(self) -> str:
        """The command line as typed in a shell, with placeholders."""
        return shlex.join(self.arguments)

    @property
    def names(self) -> set[str]:
        """Names of all placeholders in the arguments and the environment."""
        texts = [*self.arguments, *(value for _, value in self.environment)]
        return {name for text in texts for _, name, _ in _pieces(text) if name}


def parse_command(table: Mapping[str, object]) -> CommandWorkload:
    """Parse the table ``workload`` of a sweep file; metrics are added by the caller.

    Raises:
        CommandError: if a key or value is invalid.
    """
    for key in table:
        if key not in names_of("workload"):
            raise CommandError(f"workload.{key}", unknown_key(key, "workload"))
    arguments = parse_arguments("workload.command", table.get("command"), _EXAMPLE)
    for argument in arguments:
        _check_text("workload.command", argument)
    environment = table.get("env", {})
    if not isinstance(environment, Mapping):
        raise CommandError("workload.env", f'is {environment!r}; expected a table, {{ NAME = "VALUE" }}')
    variables: list[tuple[str, str]] = []
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            raise CommandError("workload.env", f"{name!r} is not a valid variable name")
        if not isinstance(value, (str, int, float)):
            raise CommandError(f"workload.env.{name}", f"is {value!r}; expected a string")
        variables.append((name, as_text(value)))
        _check_no_nul(f"workload.env.{name}", as_text(value))
        _check_text(f"workload.env.{name}", as_text(value))
    template = table.get("template", "")
    if not isinstance(template, str) or template.startswith("/") or ".." in template.split("/"):
        raise CommandError(
            "workload.template", f"is {template!r}; expected a path relative to the sweep file"
        )
    directory = key_of("directory", "workload").get(dict(table))
    if directory not in key_of("directory", "workload").values:
        raise CommandError(
            "workload.directory", f'is {directory!r}; expected "sweep" (the sweep file\'s folder) or "trial"'
        )
    made = CommandWorkload(arguments, template, tuple(variables), directory == "trial")
    if "template" in made.names and not template:
        raise CommandError("workload.command", "contains {template}, but workload.template is not set")
    return made


def parse_arguments(key: str, command: object, example: str) -> tuple[str, ...]:
    """Split a command line into its arguments like a shell; a list is taken as it is.

    Args:
        key: its key.
        command: as written in the sweep file.
        example: a command line, for messages.

    Raises:
        CommandError: if it is invalid.
    """
    expected = f'expected a command line, e.g. "{example}"'
    if isinstance(command, str):
        try:
            # A backslash at the end of a line continues it, as in a shell.
            arguments = shlex.split(command.replace("\\\r\n", "").replace("\\\n", ""))
        except ValueError as error:
            raise CommandError(key, f"cannot be split into arguments: {error}") from error
    elif isinstance(command, list) and all(isinstance(argument, str) for argument in command):
        arguments = list(command)
    else:
        raise CommandError(key, f"is {command!r}; {expected}")
    if not arguments or not arguments[0]:
        raise CommandError(key, f"is empty; {expected}")
    for argument in arguments:
        _check_no_nul(key, argument)
    return tuple(arguments)


def parse_pattern(name: str, pattern: object) -> MetricPattern:
    """Parse one entry of [metrics].

    Raises:
        CommandError: if the name or the pattern is invalid.
    """
    key = f"metrics.{name}"
    if name == "step" or not _VARIABLE.fullmatch(name):
        raise CommandError(
            key, "is not a valid metric name; expected letters, digits and underscores, and not 'step'"
        )
    if not isinstance(pattern, str) or not pattern:
        raise CommandError(
            key, f"is {pattern!r}; expected a regular expression, e.g. 'loss[=: ]+(?P<value>\\S+)'"
        )
    try:
        groups = _compiled(_with_value(pattern)).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise CommandError(key, f"is not a valid regular expression: {error}") from error
    if "value" not in groups:
        raise CommandError(key, "has groups, but none named value; write (?P<value>...)")
    return MetricPattern(name, pattern)


def render(text: str, values: Mapping[str, Value]) -> str:
    """Fill in the placeholders of `text`; see :func:`as_text`."""
    parts: list[str] = []
    for literal, name, spec in _pieces(text):
        parts.append(literal)
        if name:
            parts.append(format(values[name], spec) if spec else as_text(values[name]))
    return "".join(parts)


def command_text(
    workload: CommandWorkload, values: Mapping[str, Value], *, number: int, repeat: int = 0
) -> str:
    """The command line of a trial for a shell; values known only at run time stay placeholders.

    Args:
        workload: the command line.
        values: of the searched and fixed parameters.
        number: of the trial.
        repeat: of the trial.
    """
    later: dict[str, Value] = {name: f"{{{name}}}" for name in SPECIAL_NAMES}
    known = later | {"number": number, "repeat": repeat} | dict(values)
    return shlex.join(
        # The format may be for numbers, and the stand-in is a string.
        argument
        if "{" in argument and any(f"{{{name}:" in argument for name in later)
        else render(argument, known)
        for argument in workload.arguments
    )


def names_in_template(text: str) -> set[str]:
    """Names of the placeholders ``{{name}}`` and ``{{name:FORMAT}}`` of a template."""
    return {match[1] for match in _IN_TEMPLATE.finditer(text)}


def render_template(text: str, values: Mapping[str, Value]) -> str:
    """Fill in a template; single braces stay, because many file formats use them."""

    def fill(match: re.Match[str]) -> str:
        return format(values[match[1]], match[2]) if match[2] else as_text(values[match[1]])

    return _IN_TEMPLATE.sub(fill, text)


def as_text(value: Value) -> str:
    """Format a value for a program: true and false as in TOML, numbers with all digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def read_json_line(line: str) -> tuple[int | None, dict[str, float]]:
    """Read step and metrics from a line that is a JSON object; ignore everything else."""
    if not line.startswith("{") or not line.endswith("}"):
        return None, {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None, {}
    numbers: dict[str, float] = {}
    for name, value in found.items():
        # Strict JSON writers print null for NaN.
        if value is None:
            numbers[name] = math.nan
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                numbers[name] = float(value)
            except OverflowError:
                numbers[name] = math.nan
    step = numbers.pop("step", None)
    return int(step) if step is not None and abs(step) < 2**63 else None, numbers


def check_formats(workload: CommandWorkload, values: Mapping[str, Iterable[Value]]) -> None:
    """Check that every placeholder is known, and that its format fits its values.

    Args:
        workload: the command line.
        values: sample values of each parameter, of every type that it can have.

    Raises:
        CommandError: if a placeholder is unknown or its format does not fit.
    """
    texts = [("workload.command", argument) for argument in workload.arguments]
    texts += [(f"workload.env.{name}", value) for name, value in workload.environment]
    for key, text in texts:
        for _, name, spec in _pieces(text):
            if name is None or (name in SPECIAL_NAMES and name not in values):
                continue
            if name not in values:
                known = ", ".join([*values, *SPECIAL_NAMES])
                raise CommandError(
                    key, f"has the placeholder {{{name}}}, which is not a parameter; known are {known}"
                )
            for value in values[name] if spec else ():
                try:
                    format(value, spec)
                except ValueError as error:
                    raise CommandError(
                        key, f"has the placeholder {{{name}:{spec}}}, which cannot format {value!r}: {error}"
                    ) from error


def _check_no_nul(key: str, text: str) -> None:
    if "\0" in text:
        raise CommandError(key, "contains a NUL byte, which arguments cannot contain")


def _check_text(key: str, text: str) -> None:
    try:
        for _, name, _ in _pieces(text):
            if name is not None and not _VARIABLE.fullmatch(name):
                raise CommandError(
                    key, f"has the placeholder {{{name}}}; write {{{{ and }}}} for literal braces"
                )
    except ValueError as error:
        if isinstance(error, CommandError):
            raise
        raise CommandError(
            key, f"has an unpaired brace in {text!r}; write {{{{ and }}}} for literal braces"
        ) from error


def _pieces(text: str) -> Iterable[tuple[str, str | None, str]]:
    """Split text into (literal, name, format)."""
    for literal, name, spec, conversion in string.Formatter().parse(text):
        if conversion or "{" in (spec or ""):
            raise ValueError(f"{{{name}!{conversion}}}")
        yield literal, name, spec or ""


def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # Python warns of expressions whose meaning a later version may change.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern)


def _with_value(pattern: str) -> str:
    """Append a group for the following number to a pattern without groups."""
    from mpisweep.spec.printed import AFTER_WORD

    has_groups = bool(_compiled(pattern).groups)
    return pattern if has_groups else f"(?:{pattern}){AFTER_WORD}"
