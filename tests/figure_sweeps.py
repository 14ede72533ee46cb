"""Results files of any size for tests of figures: failures, NaN, pruned trials, choices, curves."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from test_results import opening, write_journal

from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    Curve,
    EndedBlock,
    InfeasibleBlock,
    JoinedRecord,
    ReportBlock,
    TrialsBlock,
)
from mpisweep.records import FailureCause, TrialState
from mpisweep.results.compaction import compact_and_close

__all__ = ["SPACES", "made_sweep"]

#: Name of a space -> its [parameters], and how to draw one value of each from a generator.
SPACES = {
    "sizes": {"batch_size": "{ from = 1, to = 1000000 }"},
    "powers": {"batch_size": "{ from = 16, to = 1024, scale = 'log' }"},
    "rates": {"learning_rate": "{ from = 1e-5, to = 1e-1, scale = 'log' }"},
    "choices": {"optimizer": "['sgd', 'adam', 'adamw', 'rmsprop with a long name', 'lion']"},
    "two": {
        "learning_rate": "{ from = 1e-5, to = 1e-1, scale = 'log' }",
        "momentum": "{ from = 0.5, to = 0.99 }",
    },
    "mixed": {"batch_size": "{ from = 16, to = 640, step = 16 }", "optimizer": "['sgd', 'adamw']"},
    "five": {
        "learning_rate": "{ from = 1e-5, to = 1e-1, scale = 'log' }",
        "weight_decay": "{ from = 1e-6, to = 1e-2, scale = 'log' }",
        "width": "{ from = 16, to = 512 }",
        "dropout": "{ from = 0.0, to = 0.5 }",
        "optimizer": "['sgd', 'adam', 'adamw']",
    },
}
_BLOCK = 1000


def _values(name: str, count: int, generator: np.random.Generator) -> list[object]:
    spread = generator.random(count)
    match name:
        case "learning_rate":
            return (10.0 ** (-5 + 4 * spread)).tolist()
        case "weight_decay":
            return (10.0 ** (-6 + 4 * spread)).tolist()
        case "momentum":
            return (0.5 + 0.49 * spread).tolist()
        case "dropout":
            return (0.5 * spread).tolist()
        case "width":
            return generator.integers(16, 513, count).tolist()
        case _:
            raise AssertionError(name)


def _columns(space: str, count: int, generator: np.random.Generator) -> dict[str, list[object]]:
    names = SPACES[space]
    if space == "sizes":
        return {"batch_size": list(range(1, count + 1))}
    if space == "powers":
        return {"batch_size": [16 * 2 ** (n % 7) for n in range(count)]}
    if space == "choices":
        choices = ["sgd", "adam", "adamw", "rmsprop with a long name", "lion"]
        return {"optimizer": [choices[n % 5] for n in range(count)]}
    if space == "mixed":
        sizes = [16 * (1 + (n // 2) % 40) for n in range(count)]
        return {"batch_size": sizes, "optimizer": [("sgd", "adamw")[n % 2] for n in range(count)]}
    made = {name: _values(name, count, generator) for name in names if name != "optimizer"}
    if "optimizer" in names:
        made["optimizer"] = [("sgd", "adam", "adamw")[n] for n in generator.integers(0, 3, count)]
    return made


def _losses(columns: dict[str, list[object]], count: int, generator: np.random.Generator) -> np.ndarray:
    """A bowl over every parameter, with noise."""
    loss = 0.5 + 0.05 * generator.standard_normal(count) ** 2
    for weight, (name, values) in enumerate(columns.items(), 1):
        if name == "optimizer":
            loss += 0.2 * np.array([len(str(value)) % 4 for value in values])
            continue
        numbers = np.array(values, dtype=float)
        if name != "momentum" and name != "dropout":
            numbers = np.log(numbers)
        span = np.ptp(numbers) or 1.0
        loss += (2.0 / weight) * ((numbers - numbers.min()) / span - 0.4) ** 2
    return loss


def made_sweep(
    path: Path, space: str, count: int, *, workers: int = 4, failed: float = 0.06, nan: float = 0.02,
    pruned: float = 0.1, infeasible: int = 0, reports: int = 0, objectives: tuple[str, ...] = ("loss",),
    seed: int = 1, open_trials: int = 0, baseline: bool = True, seconds: float = 30.0,
) -> Path:  # fmt: skip
    """Write a results file.

    Args:
        path: of the file.
        space: a name in :data:`SPACES`.
        count: number of trials.
        workers: each with one device.
        failed: share of trials that fail, of two causes.
        nan: share that completes without a finite loss.
        pruned: share that is pruned; every second one without a value.
        infeasible: number of trials at the end that do not fit in memory.
        reports: per trial.
        objectives: ``loss``, or ``loss`` and ``train_time``.
        seed: of everything random.
        open_trials: number of trials that wait.
        baseline: whether trial 0 is the baseline.
        seconds: typical duration of a trial.
    """
    generator = np.random.default_rng(seed)
    columns = _columns(space, count, generator)
    losses = _losses(columns, count, generator)
    chance = generator.random(count)
    state = np.full(count, int(TrialState.COMPLETE))
    state[chance < failed] = int(TrialState.FAILED)
    state[(chance >= failed) & (chance < failed + pruned)] = int(TrialState.PRUNED)
    is_nan = (chance >= failed + pruned) & (chance < failed + pruned + nan)
    causes = np.where(generator.random(count) < 0.5, FailureCause.OUT_OF_MEMORY, FailureCause.EXCEPTION)
    took = seconds * generator.lognormal(0, 0.5, count)
    took[state == TrialState.FAILED] *= 0.01
    took[state == TrialState.PRUNED] *= 0.3
    ending = count - infeasible - open_trials
    names = "".join(f"{name} = {text}\n" for name, text in SPACES[space].items())
    objective = ", ".join(f'"{name}"' for name in objectives)
    spec = f'name = "{space}"\nworkload = "m:f"\nobjective = [{objective}]\n[parameters]\n{names}'
    if any(key in SPACES[space] for key in ("learning_rate", "momentum", "weight_decay")):
        spec = f'search = "random"\ntrials = {count}\n{spec}'
    if baseline:
        texts = (f"{name} = {_toml(values[0])}" for name, values in columns.items())
        spec += "[baseline]\n" + "\n".join(texts) + "\n"
    records: list[object] = [
        TrialsBlock(list(range(count)), columns, baseline=0 if baseline else None),
        *(JoinedRecord(w, f"node{w // 4}", f"V100 #{w % 4}", 8, 1, 1002.0 + w / 8) for w in range(workers)),
    ]
    clocks = np.full(workers, 1005.0)
    for worker in range(workers):
        own = np.arange(worker, ending, workers)
        for part in np.array_split(own, max(1, -(-len(own) // _BLOCK))) if len(own) else ():
            starts = clocks[worker] + np.concatenate([[0.0], np.cumsum(took[part] + 0.1)[:-1]])
            clocks[worker] = starts[-1] + took[part[-1]] + 0.1
            numbers, ones = part.tolist(), [1] * len(part)
            # Each starts when the one before has ended.
            for number, start in zip(numbers, starts.tolist(), strict=True):
                if len(part) <= 200:
                    records.append(
                        AssignedBlock(
                            [[worker, 0]], start, [number], [1], {n: c[number] for n, c in columns.items()}
                        )
                    )
            if len(part) > 200:
                records.append(
                    AssignedBlock(
                        [[worker, 0]], float(starts[0]), numbers, ones,
                        {n: [c[k] for k in numbers] for n, c in columns.items()},
                    )
                )  # fmt: skip
            shown = [
                None if state[k] == TrialState.FAILED or (state[k] == TrialState.PRUNED and k % 2)
                else float("nan") if is_nan[k] else float(losses[k]) * (1.3 if state[k] == 3 else 1.0)
                for k in numbers
            ]  # fmt: skip
            if reports:
                records += [
                    ReportBlock(worker, k, 1, {"loss": _curve(losses[k], took[k], reports, generator)})
                    for k in numbers if state[k] != TrialState.FAILED
                ]  # fmt: skip
            bad = [k for k in numbers if state[k] == TrialState.FAILED]
            records.append(
                EndedBlock(
                    worker, 0, numbers, ones, [int(state[k]) for k in numbers], starts.tolist(),
                    took[part].tolist(),
                    {"loss": shown, "train_time": [float(took[k]) if state[k] == 2 else None for k in numbers]},
                    [int(causes[k]) if state[k] == TrialState.FAILED else 0 for k in numbers] if bad else [],
                    ["it failed" if state[k] == TrialState.FAILED else "" for k in numbers] if bad else [],
                )
            )  # fmt: skip
    if infeasible:
        last = list(range(ending, ending + infeasible))
        records.append(InfeasibleBlock(last, "needs too much memory"))
    records.append(ClosedRecord(float(clocks.max()) + 1, "complete"))
    write_journal(path, records, opening(spec=spec))
    compact_and_close(path)
    return path


def _curve(loss: float, took: float, reports: int, generator: np.random.Generator) -> Curve:
    steps = np.arange(1, reports + 1)
    values = loss + 2 * np.exp(-4 * steps / reports) + 0.02 * generator.standard_normal(reports)
    return Curve(
        array("q", steps.tolist()), array("d", values.tolist()), array("d", (took * steps / reports).tolist())
    )


def _toml(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)
