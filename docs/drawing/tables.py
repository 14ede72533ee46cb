"""The tables of trial states, of ends of attempts and of the stages of closing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from drawing.source import Source, calls_in, word_of

__all__ = ["closing_table", "ends_table", "states_table", "writers_table"]

#: Rooms in which the end of an attempt is decided or recorded.
_DECIDES = ("processes", "scheduling", "results")
#: The stages that no step of the loop ends, and the method that does.
_ENDED_BY = {"RUNNING": "begin", "SHARE": "left_share"}
#: How a stage ends when the disk does not answer.
_GIVES_UP = "give_up_disk"
#: Calls that look and change nothing.
_LOOKS = {"keep_time", "poll"}


def states_table(source: Source) -> str:
    """Every legal move of a trial; a row for the state before, a column for the state after."""
    moves = source.value("scheduling.trials", "MOVES")
    assert isinstance(moves, ast.Dict)
    names: dict[tuple[str, str], str] = {}
    for pair, name in zip(moves.keys, moves.values, strict=True):
        assert isinstance(pair, ast.Tuple)
        old, new = (word_of(state).rpartition(".")[2] for state in pair.elts)
        names[old, new] = ast.literal_eval(name)
    states = list(source.members("records", "TrialState"))
    rows = [_row("from", *(f"to {state.lower()}" for state in states)), _row(*["---"] * (len(states) + 1))]
    for old in states:
        # A trial that has ended stays as it is.
        if any((old, new) in names for new in states):
            rows.append(_row(old.lower(), *(names.get((old, new), "") for new in states)))
    return "\n".join(rows)


def writers_table(source: Source) -> str:
    """Every function that moves a trial, and to which state."""
    states = set(source.members("records", "TrialState"))
    rows = [_row("decided by", "state"), _row("---", "---")]
    for module in source.below("scheduling"):
        for function in source.trees[module].body:
            if isinstance(function, ast.FunctionDef) and (found := _moved_to(function, states)):
                rows.append(_row(f"`{module}:{function.name}`", ", ".join(found)))
    return "\n".join(rows)


def _moved_to(function: ast.FunctionDef, states: set[str]) -> list[str]:
    found = ["running" for call in calls_in(function, "begin") if word_of(call.func).endswith("trials.begin")]
    for call in calls_in(function, "move"):
        state = word_of(call.args[1])
        found.append(state.lower() if state in states else "that of the result")
    return list(dict.fromkeys(found))


def ends_table(source: Source) -> str:
    """Every end of an attempt: what it means, and which modules decide or record it."""
    decided: dict[str, list[str]] = defaultdict(list)
    for module in (module for room in _DECIDES for module in source.below(room)):
        found = {word_of(node) for node in _not_compared(source.trees[module])}
        for end in (word for word in found if word.startswith("AttemptEnd.")):
            decided[end].append(f"`{module}`")
    rows = [_row("end", "what it means", "decided or recorded in"), _row("---", "---", "---")]
    for name, meaning in source.members("records", "AttemptEnd").items():
        if not meaning:
            raise LookupError(f"AttemptEnd.{name} has no comment that says what it means")
        rows.append(_row(name.lower(), meaning, ", ".join(decided[f"AttemptEnd.{name}"])))
    return "\n".join(rows)


def _not_compared(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that are no part of a comparison."""
    if not isinstance(node, ast.Compare):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _not_compared(child)


# ------------------------------------------------------------------------------------- closing


@dataclass
class _Step:
    """What a stage does when it ends."""

    calls: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    gives_up: bool = False


def closing_table(source: Source) -> str:
    """Every stage of closing: what it waits for, what is called then, and which stage is next."""
    closing = source.definition("master.closing", "Closing")
    methods = {node.name: node for node in closing.body if isinstance(node, ast.FunctionDef)}
    steps = _steps(closing) | _ENDED_BY
    words = source.table("master.closing")
    rows = [
        _row("stage", "waits until", "then", "calls", "next stage", "if the disk does not answer"),
        _row(*["---"] * 6),
    ]
    for stage in source.members("master.closing", "Stage"):
        if stage not in words:
            raise LookupError(f"Stage.{stage} has no row in the table of its module")
        step = _Step()
        _follow(methods, steps[stage], step, set())
        calls = ", ".join(f"`{call}`" for call in dict.fromkeys(step.calls))
        following = " or ".join(f"`{name}`" for name in dict.fromkeys(step.stages) if name != stage)
        gives_up = f"`{_GIVES_UP}`" if step.gives_up else ""
        rows.append(_row(f"`{stage}`", *map(_in_words, words[stage]), calls, following, gives_up))
    return "\n".join(rows)


def _steps(closing: ast.AST) -> dict[str, str]:
    """Stage -> the method that is called at every turn of the loop."""
    for node in ast.walk(closing):
        if isinstance(node, ast.AnnAssign) and word_of(node.target) == "self._steps":
            assert isinstance(node.value, ast.Dict)
            return {
                word_of(stage).rpartition(".")[2]: word_of(method).rpartition(".")[2]
                for stage, method in zip(node.value.keys, node.value.values, strict=True)
                if stage is not None
            }
    raise LookupError("Closing has no table of steps")


def _follow(methods: dict[str, ast.FunctionDef], name: str, step: _Step, seen: set[str]) -> None:
    """Gather what a method does, and the methods of its own that it calls."""
    if name == _GIVES_UP:
        step.gives_up = True
    if name in seen or name == _GIVES_UP or _calls(methods, name, _GIVES_UP):
        step.gives_up |= _calls(methods, name, _GIVES_UP)
        return
    seen.add(name)
    for node in _statements(methods[name]):
        if isinstance(node, ast.Assign) and word_of(node.targets[0]) == "self.stage":
            step.stages.append(word_of(node.value).rpartition(".")[2])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            own, *names = word_of(node.value.func).split(".")
            if own == "self" and names[0] in methods:
                _follow(methods, names[0], step, seen)
            elif own == "self" and names[-1] not in _LOOKS:
                step.calls.append(".".join(names).lstrip("_"))


def _calls(methods: dict[str, ast.FunctionDef], name: str, other: str) -> bool:
    return any(calls_in(methods[name], other))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a method in the order of the text."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
            yield from _statements(child)


def _in_words(text: str) -> str:
    """A text with its cross references as plain names."""
    parts = text.split("`")
    return "".join(
        part.removesuffix(":attr:").removesuffix(":class:") if index % 2 == 0 else f"`{part}`"
        for index, part in enumerate(parts)
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
