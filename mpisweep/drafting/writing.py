"""Write the text of a drafted sweep file: everything that is a guess says so in a comment."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from mpisweep.drafting.flags import Flag
from mpisweep.drafting.guessing import domain_of, is_setting, is_usual, objective_of
from mpisweep.drafting.looking import Subject
from mpisweep.drafting.objectives import Objective
from mpisweep.records import Value
from mpisweep.spec.units import toml_value

__all__ = ["draft_text"]

#: Most parameters that are varied unless the user removes comment marks.
_MOST_VARIED = 4
#: With fewer that are often searched, others are varied as well.
_FEW = 3
_TRIALS = 20
#: Of an objective of Optuna whose study does not say.
_OPTUNA_TRIALS = 100
#: Pruners of Optuna -> their short names; others need options.
_PRUNERS = {"MedianPruner": "median", "SuccessiveHalvingPruner": "asha", "HyperbandPruner": "hyperband"}
#: Values of required options about which nothing is known.
_UNKNOWN: dict[str, Value] = {"integer": 1, "number": 1.0}

_LIMITS = (
    "", "[limits]", '# timeout = "10m"           # of one trial; a longer one is killed',
    '# memory  = "8GiB"          # main memory of one trial',
)  # fmt: skip

_RESNET50 = """\
# A sweep of the built-in ResNet50, drafted by mpisweep.  `mpisweep options resnet50` lists all options.
#
#   mpisweep check {file}     validates it, and says what would run and how long that takes
#   mpisweep run {file}       runs it, or resumes it

name      = "resnet50"
workload  = "resnet50"
objective = "val_loss"      # the metric that ranks the trials; smaller is better
search    = "grid"          # every value; or "random", "sobol", "tpe" with trials = N

[parameters]
batch_size = {{ from = 16, to = 512, scale = "log", points = 6 }}
# learning_rate = {{ from = 1e-3, to = 1e-1, scale = "log", points = 5 }}
# optimizer     = ["sgd", "adamw"]

[fixed]
num_iter    = 300           # optimiser steps of a trial; or num_samples = 76_800, or seconds = 60
data        = "digits"      # scikit-learn's images, no download; or cifar10, imagefolder with data_root
image_size  = 64
num_classes = 10
val_every   = 0             # measure val_loss on held-out images at the end

[baseline]                  # the configuration to compare with
batch_size = 256

[limits]
# timeout = "10m"           # of one trial
"""


def draft_text(subject: Subject, file: str) -> str:
    """The text of a sweep file.

    Args:
        subject: what was looked at.
        file: name of the sweep file, for the comments.
    """
    if subject.workload == "resnet50":
        return _RESNET50.format(file=file)
    if subject.objective is not None:
        return "\n".join([*_head(subject, file), *_of_optuna(subject, subject.objective), *_LIMITS, ""])
    flags = list(subject.parameters)
    varied = _varied(flags)
    passed = [flag for flag in flags if flag in varied or flag.is_required]
    lines = [
        *_head(subject, file),
        *_workload(subject, passed, varied),
        *_objective(subject),
        *_search(varied),
    ]
    lines += ["", "[parameters]", *_parameters(subject, flags, varied)]
    fixed = [flag for flag in passed if flag not in varied]
    if fixed:
        lines += ["", "[fixed]                     # the same in every trial"]
        lines += [f"{flag.name} = {toml_value(_fixed_value(flag))}{_todo(flag)}" for flag in fixed]
    if (
        varied
        and all(_is_number(flag.default) or flag.choices for flag in varied)
        and all(flag.default is not None for flag in varied)
    ):
        lines += ["", "[baseline]                  # the configuration to compare with: the defaults"]
        lines += [f"{flag.name} = {toml_value(flag.default)}" for flag in varied if flag.default is not None]
    lines += _metrics(subject)
    return "\n".join([*lines, *_LIMITS, ""])


def _of_optuna(subject: Subject, objective: Objective) -> Iterator[str]:
    """The lines for an objective of Optuna, which names its parameters while it runs."""
    yield f"workload  = {toml_value(subject.workload)}"
    names = objective.returns
    directions = objective.directions or tuple(objective_of([name])[1] for name in names)
    what = "A name for the number" if len(names) == 1 else "Names for the numbers"
    source = "that of create_study" if objective.directions else "a guess"
    yield from _comment(f"{what} that it returns; the direction is {source}.")
    for key, values in (("objective", names), ("direction", directions)):
        listed = ", ".join(map(toml_value, values))
        yield f"{key} = {listed}" if len(values) == 1 else f"{key} = [{listed}]"
    yield from _comment(
        f"The function says itself which values it takes, so there are no [parameters]. It asks for "
        f"{', '.join(objective.asks_for)}."
    )
    if objective.sampler:
        yield from _comment(f"The study has {objective.sampler}; any sampler of Optuna can be named here.")
    yield 'search    = "tpe"           # learns from the results so far'
    stated = "as in study.optimize" if objective.trials else "a guess"
    yield f"trials    = {objective.trials or _OPTUNA_TRIALS:<15} # {stated}"
    if objective.prunes and len(names) == 1:
        yield from _pruner(objective.pruner)


def _pruner(written: str) -> Iterator[str]:
    """The line for the pruner of a study."""
    name = written.partition("(")[0]
    if name == "NopPruner":
        return
    if written and name not in _PRUNERS:
        yield from _comment(f"The study has {written}; any pruner of Optuna can be named here.")
    elif written.partition("(")[2] not in ("", ")"):
        yield from _comment(f"The study has {written}.")
    chosen = _PRUNERS.get(name, "median")
    why = "Optuna's default" if not written else "as in the study" if name in _PRUNERS else "a guess"
    yield f"prune     = {toml_value(chosen):<15} # {why}; without this line no trial is pruned"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varied(flags: Sequence[Flag]) -> list[Flag]:
    """The parameters to vary: those that are often searched; if these are few, others with a range too."""
    fit = [flag for flag in flags if not is_setting(flag) and domain_of(flag) is not None]
    usual = [flag for flag in fit if is_usual(flag)][:_MOST_VARIED]
    more = [flag for flag in fit if flag not in usual][: max(0, _FEW - len(usual))]
    return [flag for flag in fit if flag in usual or flag in more]


def _comment(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")


def _head(subject: Subject, file: str) -> Iterator[str]:
    guessed = (
        "ranges and metrics are guesses, so read them"
        if subject.objective is None
        else "it stays as it is, and its study is not used"
    )
    yield from _comment(f"A sweep of {subject.title}, drafted by mpisweep: {guessed}.")
    yield "#"
    yield f"#   mpisweep check {file}     validates it, and says what would run and how long that takes"
    yield f"#   mpisweep run {file}       runs it, or resumes it"
    yield ""
    yield f"name      = {toml_value(subject.name)}"


def _workload(subject: Subject, passed: Iterable[Flag], varied: Sequence[Flag]) -> Iterator[str]:
    if subject.workload:
        yield f"workload  = {toml_value(subject.workload)}"
        return
    words = [word.replace("{", "{{").replace("}", "}}") for word in subject.words]
    words += [word for flag in passed for word in flag.placed]
    if not varied:
        words.append("{x}")
    is_plain = all(re.fullmatch(r"[\w./={}:-]+", word) for word in words)
    command = toml_value(" ".join(words)) if is_plain else f"[{', '.join(map(toml_value, words))}]"
    yield "# {name} becomes the value of a parameter; the command runs in the folder of this file."
    yield f"workload  = {{ command = {command} }}"


def _objective(subject: Subject) -> Iterator[str]:
    names = [metric.name for metric in subject.metrics]
    objective, direction = objective_of(names)
    if objective:
        others = [name for name in names if name != objective]
        also = f"; also found: {', '.join(others)}" if others else ""
        yield from _comment(f"The metric that ranks the trials, guessed{also}.")
        yield f"objective = {toml_value(objective)}"
        yield f"direction = {toml_value(direction)}"
    else:
        yield "# The metric that ranks the trials: no printed or reported number was found."
        yield 'objective = "loss"'
        yield 'direction = "minimize"'


def _search(varied: Sequence[Flag]) -> Iterator[str]:
    if not varied:
        yield 'search    = "grid"'
        return
    yield "# random and sobol cover the space; tpe learns from the results so far; grid runs every value."
    yield 'search    = "sobol"' if not any(flag.choices for flag in varied) else 'search    = "random"'
    yield f"trials    = {_TRIALS}"


def _parameters(subject: Subject, flags: Sequence[Flag], varied: Sequence[Flag]) -> Iterator[str]:
    if not varied:
        where = (
            "trial.params has the parameters"
            if subject.workload
            else "name them, and use them in the command"
        )
        x = "so name one of its options" if subject.kind == "workload" else f"so x is a placeholder: {where}"
        yield from _comment(f"No parameter with a range was found, {x}.")
        yield "# x = [1, 2, 3]" if subject.kind == "workload" else "x = [1, 2, 3]"
    else:
        yield from _comment(f"{'Parameters' if subject.workload else 'Options'} {subject.asked}.")
    for flag in varied:
        domain = domain_of(flag)
        assert domain is not None, "only parameters with a domain are varied"
        yield from _comment(f"{flag.help}; {domain.why}" if flag.help else domain.why)
        yield f"{flag.name} = {domain.text}"
        if re.fullmatch(r".*batch_?size", flag.name) and domain.text.startswith("{"):
            yield '# Add memory = "increasing" if larger ones need more memory: sizes beyond it are skipped.'
    if left := [flag for flag in flags if flag not in varied and not flag.is_required]:
        yield from _left_out(subject, left)


def _left_out(subject: Subject, left: Sequence[Flag]) -> Iterator[str]:
    use = "" if subject.workload else ", and pass them in the command"
    yield "#"
    yield from _comment(f"Left at their defaults; to vary some, remove the comment mark{use}:")
    for flag in left:
        domain = domain_of(flag)
        default = "" if flag.default is None else f"  default {toml_value(flag.default)}"
        if flag.kind == "switch":
            yield f"#   {flag.flag or flag.name} is a switch, which takes no value"
        elif domain is None:
            yield f"#   {flag.name} = [...]{default}"
        else:
            yield f"#   {flag.name} = {domain.text}{default}"


def _fixed_value(flag: Flag) -> Value:
    if flag.default is not None:
        return flag.default
    return flag.choices[0] if flag.choices else _UNKNOWN.get(flag.kind, "FILL-IN")


def _todo(flag: Flag) -> str:
    return "" if flag.default is not None else "   # required by the program; fill in the right value"


def _metrics(subject: Subject) -> Iterator[str]:
    if subject.workload:
        return
    yield ""
    yield "[metrics]"
    if not subject.metrics:
        yield from _comment(
            "A regular expression before each number in the output. None was found; this one matches "
            "'loss: 0.25' and 'loss=0.25'."
        )
        yield r"loss = '\bloss'"
        return
    yield from _comment("Regular expressions, guessed from what it prints; step makes the numbers a curve.")
    for metric in subject.metrics:
        quoted = toml_value(metric.pattern) if "'" in metric.pattern else f"'{metric.pattern}'"
        yield f"{metric.name} = {quoted}"
