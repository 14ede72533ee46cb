"""What holds of the poster's result: one sentence per claim, decided by the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import poster
from comparing import Budget, Comparison, Runs, budget_text, compare
from sweep import Plan

import mpisweep

__all__ = ["held_out", "runs_needed", "verdicts"]

#: Quantiles of the normal distribution: a two-sided test at 95%, and its power of 80%.
_TEST, _POWER = 1.960, 0.842


def verdicts(plan: Plan, runs: Runs, compared: Sequence[Comparison]) -> list[str]:
    """One sentence per claim of the poster's Table 1."""
    return [
        one_is_best(compared[0]),
        better_than_the_default(compared[0], plan.baseline),
        within_the_range(compared),
        faster_than_the_default(compared[0], runs, plan.baseline),
    ]


def one_is_best(found: Comparison) -> str:
    """Whether one size is better than all others."""
    alike, after = int(found.alike.sum()), f"after {budget_text(found.budget)}"
    if alike == 1:
        return f'**"One size is best": holds {after}.** It is {found.size[found.best]}.'
    return (
        f'**"One size is best": not shown {after}.** {alike} of {len(found.size)} sizes '
        "are not told apart; which of them wins depends on the seed."
    )


def better_than_the_default(found: Comparison, baseline: int) -> str:
    """Whether the best is better than the default, and what the poster could tell."""
    gap = poster.DEFAULT.loss / poster.BEST.loss - 1
    spread = poster.TABLE_1[-1].loss / poster.BEST.loss - 1
    return (
        f'**"It is better than the default": {_better(found, baseline)} The poster\'s gap is '
        f"{100 * gap:.1f}%, and its best five lie within {100 * spread:.1f}%. If its single runs varied by "
        f"{100 * found.noise:.0f}% as ours do, seeing such a gap would take some "
        f"{runs_needed(found.noise, gap):,} runs of each size; with one run per size how much they vary is "
        "not known."
    )


def _better(found: Comparison, baseline: int) -> str:
    entry = found.entry(baseline)
    after = f"after {budget_text(found.budget)}"
    if entry is None:
        return f"not measured {after}.** The default, {baseline}, did not complete."
    if entry == found.best:
        return f"does not hold {after}.** The default, {baseline}, is the best."
    behind = f"its loss is {100 * (found.mean[entry] / found.mean[found.best] - 1):.0f}% larger"
    if found.alike[entry]:
        return f"not decided {after}.** The default, {baseline}, is not told apart from the best; {behind}."
    return f"holds {after}.** The default, {baseline}, is told apart from the best; {behind}."


def runs_needed(noise: float, gap: float) -> int:
    """Runs of each of two sizes until a 95% test sees a relative gap with a power of 80%."""
    return max(1, int(np.ceil(2 * ((_TEST + _POWER) * noise / np.log1p(gap)) ** 2)))


def within_the_range(compared: Sequence[Comparison]) -> str:
    """Whether the best size is neither the smallest nor the largest, and how it moves with the budget."""
    found = compared[0]
    best = int(found.size[found.best])
    if found.size.min() < best < found.size.max():
        said = f"holds after {budget_text(found.budget)}.** The best is {best}."
    else:
        end = "largest" if best == found.size.max() else "smallest"
        said = f"does not hold after {budget_text(found.budget)}.** The best, {best}, is the {end} size."
    others = "; ".join(f"{one.size[one.best]} after {budget_text(one.budget)}" for one in compared[1:])
    moved = {int(one.size[one.best]) for one in compared}
    if len(moved) > 1:
        said += f" It depends on what is held equal: {others}."
    elif others:
        said += " It is the same whatever is held equal."
    return f'**"It is neither the smallest nor the largest": {said}'


def faster_than_the_default(found: Comparison, runs: Runs, baseline: int) -> str:
    """Whether the best size takes less time than the default."""
    best = int(found.size[found.best])
    times = compare(runs, found.budget, runs.wall_time_s)
    assert times is not None, "as many sizes have a time as have a loss"
    if (entry := times.entry(baseline)) is None:
        said = f"not measured.** The default, {baseline}, did not complete."
    else:
        ratio = times.mean[times.size == best][0] / times.mean[entry]
        held = "holds" if ratio < 1 else "does not hold"
        said = held if times.differ(best, baseline) else "not decided"
        said += (
            f".** The best, {best}, takes {ratio:.2f} times as long as the default, {baseline}; times of "
            f"single runs vary by {100 * times.noise:.0f}%."
        )
    fourth = poster.TABLE_1[3]
    faster = [
        row.batch_size
        for row in poster.TABLE_1
        if row.batch_size > fourth.batch_size and row.time_s < fourth.time_s
    ]
    return (
        f'**"It takes less time than the default": {said} On the poster {fourth.batch_size} takes longer '
        f"than the larger sizes {', '.join(map(str, faster))}, so its times vary by more than the size "
        "explains."
    )


def held_out(sweep: mpisweep.Sweep, runs: Runs, budget: Budget, plan: Plan) -> str:
    """The same by the loss of held-out images, where that was measured."""
    if "val_loss" not in sweep.metrics:
        return ""
    values: Any = sweep.trials["val_loss"][runs.number]
    found = compare(runs, budget, values)
    if found is None:
        return ""
    return "\n".join([
        "## Held-out images", "",
        "The same by the loss of images that the training never saw (`val_loss`).", "",
        f"| compared after | sizes | best | its loss | the default, {plan.baseline} | not told apart from "
        "the best |",
        "|---|---:|---:|---:|---|---|", found.row(plan.baseline),
    ])  # fmt: skip
