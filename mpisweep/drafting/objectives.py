"""Objectives of Optuna: which function is one, what it asks for, and what its study says.

All is read from the source.  What other functions of the module do with the trial counts, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Objective", "objectives_in"]

#: Usual name of an objective.
_USUAL = "objective"
#: Name of a returned number that has none.
_UNNAMED = "value"


@dataclass(frozen=True, slots=True)
class Objective:
    """A function that takes a trial of Optuna.

    Attributes:
        name: of the function.
        asks_for: parameters that it suggests, in the order of the text; the source of an f-string.
        returns: one name for each number that it returns.
        directions: of the study, one for each; empty if no study is in the source.
        prunes: whether it asks if it should be pruned.
        trials: of ``study.optimize``; None if it does not say.
        sampler: source of the sampler of the study; empty if it does not say.
        pruner: that of its pruner.
    """

    name: str
    asks_for: tuple[str, ...]
    returns: tuple[str, ...]
    directions: tuple[str, ...] = ()
    prunes: bool = False
    trials: int | None = None
    sampler: str = ""
    pruner: str = ""


def objectives_in(tree: ast.Module) -> list[Objective]:
    """The functions of a module that can be an objective, the most likely one first."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    study, trials = _study(tree), _trials(tree)
    directions = _directions(study)
    sampler, pruner = (_written(tree, study.get(name)) for name in ("sampler", "pruner"))
    found: list[Objective] = []
    passed_on: set[str] = set()
    for function in functions.values():
        if not _takes_one(function):
            continue
        calls = list(_calls(function, function.args.args[0].arg, functions, {function.name}))
        asks_for = tuple(dict.fromkeys(filter(None, map(_suggested, calls))))
        if not asks_for:
            continue
        passed_on |= {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        names = _returns(function, max(len(directions), 1), asks_for)
        found.append(
            Objective(
                function.name, asks_for, names, directions if len(directions) == len(names) else (),
                any(_method(call) == "should_prune" for call in calls), trials, sampler, pruner,
            )
        )  # fmt: skip
    optimized = {
        call.args[0].id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _method(call) == "optimize"
        if call.args and isinstance(call.args[0], ast.Name)
    }
    return sorted(
        found, key=lambda one: (one.name not in optimized, one.name in passed_on, one.name != _USUAL)
    )


def _takes_one(function: ast.FunctionDef) -> bool:
    needed = len(function.args.args) - len(function.args.defaults)
    return not function.args.posonlyargs and needed == 1 and None not in function.args.kw_defaults


def _calls(
    function: ast.FunctionDef, trial: str, functions: Mapping[str, ast.FunctionDef], seen: set[str]
) -> Iterator[ast.Call]:
    """Yield the calls of a trial's methods, and of functions that it is passed to.

    Args:
        function: takes the trial.
        trial: its name there.
        functions: those of the module.
        seen: functions that are not looked into again.
    """
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        match call.func:
            case ast.Attribute(value=ast.Name(name)) if name == trial:
                yield call
            case ast.Name(name) if name in functions and name not in seen:
                inner = _parameter_for(trial, call, functions[name])
                if inner:
                    yield call
                    yield from _calls(functions[name], inner, functions, {*seen, name})


def _parameter_for(trial: str, call: ast.Call, function: ast.FunctionDef) -> str:
    """The parameter of a function that a call passes the trial to; empty if it does not."""
    names = [argument.arg for argument in function.args.args]
    for at, value in enumerate(call.args[: len(names)]):
        if isinstance(value, ast.Name) and value.id == trial:
            return names[at]
    for word in call.keywords:
        if word.arg and isinstance(word.value, ast.Name) and word.value.id == trial:
            return word.arg
    return ""


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _suggested(call: ast.Call) -> str:
    """Name of the parameter that a call suggests; empty for another call."""
    if not _method(call).startswith("suggest_"):
        return ""
    named = [word.value for word in call.keywords if word.arg == "name"]
    match (*call.args[:1], *named):
        case (ast.Constant(str(name)), *_):
            return name
        case (ast.JoinedStr() as text, *_):
            return ast.unparse(text)[2:-1]
        case (other, *_):
            return f"{{{ast.unparse(other)}}}"
    return ""


def _returns(function: ast.FunctionDef, count: int, asks_for: tuple[str, ...]) -> tuple[str, ...]:
    """Names for the numbers that a function returns; those of variables if they are no parameters."""
    nested = {
        inner
        for node in ast.walk(function)
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.AsyncFunctionDef) and node is not function
        for inner in ast.walk(node)
    }
    values = [
        node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node not in nested
    ]
    values = [value for value in values if value is not None]
    several = [value.elts for value in values if isinstance(value, ast.Tuple | ast.List)]
    if several:
        parts: list[ast.expr | None] = list(several[-1])
    else:
        # Early returns of a number, e.g. for a failure, have no name.
        parts = [next((value for value in reversed(values) if isinstance(value, ast.Name)), None)]
    if len(parts) != count and count > 1:
        parts = [None] * count
    names = [
        part.id if isinstance(part, ast.Name) and part.id not in asks_for else _UNNAMED for part in parts
    ]
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{_UNNAMED}_{at}" for at in range(len(names)))


# ------------------------------------------------------------------------------------- the study


def _study(tree: ast.Module) -> dict[str, ast.expr]:
    """The keywords of ``create_study``, if it is called."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = call.func.id if isinstance(call.func, ast.Name) else _method(call)
            if name == "create_study":
                said = {word.arg: word.value for word in call.keywords if word.arg}
                # Optuna's default.
                return said if "directions" in said else {"direction": ast.Constant("minimize"), **said}
    return {}


def _directions(study: Mapping[str, ast.expr]) -> tuple[str, ...]:
    match study.get("directions", study.get("direction")):
        case ast.List(parts) | ast.Tuple(parts):
            listed = parts
        case None:
            listed = []
        case one:
            listed = [one]
    words = [
        str(part.value).lower()
        if isinstance(part, ast.Constant)
        else part.attr.lower()
        if isinstance(part, ast.Attribute)
        else ""
        for part in listed
    ]
    return tuple(words) if all(word in ("minimize", "maximize") for word in words) else ()


def _trials(tree: ast.Module) -> int | None:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _method(call) == "optimize":
            stated = [
                *call.args[1:2],
                *(word.value for word in call.keywords if word.arg == "n_trials"),
            ]
            for value in stated:
                if isinstance(value, ast.Constant) and type(value.value) is int and value.value > 0:
                    return value.value
    return None


def _written(tree: ast.Module, value: ast.expr | None) -> str:
    """The source of a sampler or pruner, also if a variable holds it; empty for none."""
    if isinstance(value, ast.Name):
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(name)], value=ast.Call() as made) if name == value.id:
                    value = made
                    break
    match value:
        case None | ast.Constant(None):
            return ""
        case ast.Call(func=ast.Attribute(attr=name)):
            return ast.unparse(value).replace(ast.unparse(value.func), name, 1)
    return ast.unparse(value)
