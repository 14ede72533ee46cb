"""The page: tables, figures and sentences, all computed from the results file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import poster
from comparing import Comparison, Runs, budgets_for, compare, readings, runs_of
from drawing import draw_budgets, draw_figure_1
from sweep import Plan, plan_of
from verdicts import held_out, verdicts
from wording import counted, counts_text, device_name, differences

import mpisweep
from mpisweep.views import figures

__all__ = ["write_page"]


def write_page(sweep: mpisweep.Sweep, decided: dict[str, Any], folder: Path) -> Path:
    """Write figures and README.md.

    Args:
        sweep: the results.
        decided: what :func:`sweep.run_sweep` returned.
        folder: for the page.

    Raises:
        mpisweep.ResultsError: when too few sizes have completed.
    """
    plan = plan_of(decided)
    done = sweep.trials["state"] == "complete"
    if len(np.unique(sweep.trials["batch_size"][done])) < 3:
        raise mpisweep.ResultsError(
            f"{sweep.path}: fewer than three batch sizes have completed; run it again"
        )
    runs = runs_of(sweep)
    compared = [
        found
        for budget in budgets_for(runs)
        if (found := compare(runs, budget, readings(sweep, runs, budget))) is not None
    ]
    if not compared or compared[0].budget.axis != "step":
        raise mpisweep.ResultsError(f"{sweep.path}: fewer than three batch sizes have a finite loss")
    first = compared[0]
    figures.save(
        draw_figure_1(runs, first, readings(sweep, runs, first.budget), plan.baseline), folder / "figure1.png"
    )
    figures.save(figures.draw_total_time(sweep), folder / "figure2.png")
    figures.save(draw_budgets(compared, plan.baseline), folder / "budgets.png")
    parts = [
        heading(sweep, decided, plan, runs),
        table_1(plan, runs, first),
        figure_1(),
        figure_2(sweep, runs),
        conclusion(plan, runs, compared),
        held_out(sweep, runs, first.budget, plan),
        differences(sweep, decided, plan, runs),
    ]
    page = folder / "README.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def heading(sweep: mpisweep.Sweep, decided: dict[str, Any], plan: Plan, runs: Runs) -> str:
    """Title, what was run, and on what."""
    lines = [
        "# The poster's table and figures, from a sweep of ours", "",
        "Made by `make paper`. Every number of ours comes from [`paper.h5`](paper.h5); those of the "
        "poster are cited from its text.", "",
    ]  # fmt: skip
    if plan.device == "CPU":
        lines += [
            "**This sweep is smaller than the poster's, because there was no GPU**: batch sizes "
            f"{plan.lowest} to {plan.highest} instead of {poster.LOWEST} to {poster.HIGHEST}, "
            f"{plan.num_iter} iterations instead of {poster.NUM_ITER}, images of {plan.image_size} pixels. "
            "On a GPU `make paper` covers the full range.", "",
        ]  # fmt: skip
    lines += [
        f"* **Ours**: ResNet50 on {device_name(sweep, decided)}; {counted(len(runs.number), 'trial')} "
        f"completed, {len(runs.sizes)} batch sizes from {runs.sizes.min()} to {runs.sizes.max()}, "
        f"{counts_text(runs)} each, in {decided['seconds'] / 60:.1f} min.",
    ]
    if len(sweep.trials) > len(runs.number):
        lines[-1] += f" {counted(len(sweep.trials) - len(runs.number), 'trial')} did not complete."
    return "\n".join([*lines, f"* **The poster**: {poster.CITATION}."])


def table_1(plan: Plan, runs: Runs, found: Comparison) -> str:
    """Table 1 twice: as the poster counts, and with the repeats."""
    last = runs.last_loss
    by_last = compare(runs, found.budget, last)
    source = "its own runs" if found.source == "repeats" else f"the noise of {found.source}"
    return "\n".join([
        "## Table 1", "",
        "As the poster counts: one run per batch size, ranked by the loss of the last step.", "",
        "| | ours: batch size | loss | time [s] | the poster's: batch size | loss | time [s] |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *rows_beside_the_poster(plan, runs, last), "",
        *winners_text("the loss of the last step", by_last), *winners_text("the mean loss", found), "",
        "With all repeats, ranked by the mean loss over the last tenth of the steps; in brackets the 95% "
        f"interval of each mean by itself, from {source}.", "",
        "| | batch size | mean loss | | runs | time [s] | told apart from the best |",
        "|---|---:|---:|---|---:|---:|---|",
        *rows_with_repeats(plan, runs, found),
    ])  # fmt: skip


def rows_beside_the_poster(plan: Plan, runs: Runs, last: np.ndarray) -> list[str]:
    once = np.flatnonzero(runs.repeat == runs.repeat.min())
    best = once[np.argsort(last[once], kind="stable")][: len(poster.TABLE_1)]
    pairs = list(zip(best.tolist(), poster.TABLE_1, strict=False))
    pairs += [(at, poster.DEFAULT) for at in once[runs.size[once] == plan.baseline].tolist()]
    return [
        f"| {row.rank} | {runs.size[at]} | {last[at]:.4f} | {runs.wall_time_s[at]:.1f} | {row.batch_size} | "
        f"{row.loss:.4f} | {row.time_s:.1f} |"
        for at, row in pairs
    ]


def rows_with_repeats(plan: Plan, runs: Runs, found: Comparison) -> list[str]:
    times = dict(zip(runs.sizes.tolist(), runs.mean_by_size(runs.wall_time_s), strict=True))
    entries = list(zip(("1st", "2nd", "3rd", "4th", "5th"), np.argsort(found.mean).tolist(), strict=False))
    if (baseline := found.entry(plan.baseline)) is not None:
        entries.append(("default", baseline))
    rows = []
    for name, entry in entries:
        size, mean, factor = int(found.size[entry]), found.mean[entry], np.exp(found.half_width[entry])
        apart = "the best" if entry == found.best else "no" if found.alike[entry] else "yes"
        rows.append(
            f"| {name} | {size} | {mean:.3f} | ({mean / factor:.3f} to {mean * factor:.3f}) | "
            f"{found.count[entry]} | {times[size]:.1f} | {apart} |"
        )
    return rows


def winners_text(metric: str, found: Comparison | None) -> list[str]:
    """Which size each repeat alone would have made the winner."""
    if found is None or len(found.winners) < 2:
        return []
    return [
        f"* Winner of each repeat alone, by {metric}: {', '.join(map(str, found.winners))}. A single run "
        f"varies by {100 * found.noise:.0f}% (standard deviation, from {found.source})."
    ]


def figure_1() -> str:
    """Figure 1 and its caption."""
    return (
        "## Figure 1\n\n![Loss vs. batch size](figure1.png)\n\nLeft: every run, and the means with 95% "
        "intervals. Right: the six points of the poster's Figure 1 whose values its Table 1 gives; its "
        "text has none of the others."
    )


def figure_2(sweep: mpisweep.Sweep, runs: Runs) -> str:
    """Figure 2, its numbers, and their extrapolation to every size."""
    total = figures.total_time(sweep)
    every = np.arange(runs.sizes.min(), runs.sizes.max() + 1)
    one_by_one = float(np.interp(every, runs.sizes, runs.mean_by_size(runs.wall_time_s)).sum()) / 60
    times = [row.time_s for row in (*poster.TABLE_1, poster.DEFAULT)]
    workers = counted(total.workers, "worker")
    hours = [poster.HIGHEST * seconds / 3600 for seconds in (min(times), max(times))]
    return "\n".join([
        "## Figure 2", "", "![Total time](figure2.png)", "",
        f"* {counted(total.trials, 'trial')} took {total.trials_s / 60:.1f} min in sum, and "
        f"{total.wall_s / 60:.1f} min in {counted(total.allocations, 'run')} of the program with "
        f"{workers}: the ratio is {total.speedup:.2f}, and the workers were busy "
        f"{100 * total.utilisation:.0f}% of the time. The first run is a pilot of three sizes.",
        f"* **Every size from {every[0]} to {every[-1]} is an extrapolation**: once each, interpolated "
        f"between the sizes that were run, they take {one_by_one:.1f} min one by one, and "
        f"{one_by_one / total.workers / max(total.utilisation, 1e-9):.1f} min on {workers} as busy as "
        "these.",
        f"* The poster's text gives no values of its Figure 2. Trials of {min(times):.1f} to "
        f"{max(times):.1f} s, as in its Table 1, would take {hours[0]:.0f} to {hours[1]:.0f} hours one by "
        f"one for {poster.HIGHEST} sizes.",
    ])  # fmt: skip


def conclusion(plan: Plan, runs: Runs, compared: Sequence[Comparison]) -> str:
    """What holds of the poster's Table 1 at equal iterations, samples and seconds."""
    gap = 100 * (1 - poster.BEST.loss / poster.DEFAULT.loss)
    faster = 100 * (1 - poster.BEST.time_s / poster.DEFAULT.time_s)
    return "\n".join([
        "## What holds of the poster's result", "",
        f"The poster finds that of {poster.HIGHEST} sizes {poster.BEST.batch_size} has the smallest loss "
        f"after {poster.NUM_ITER} iterations, {gap:.1f}% below that of the default, "
        f"{poster.DEFAULT.batch_size}, in {faster:.0f}% less time. After equal iterations a larger batch "
        "has seen more images and has computed for longer. So the same runs are compared after equal "
        "images and equal seconds too.", "",
        f"| compared after | sizes that got there | best | its loss | the default, {plan.baseline} | not "
        "told apart from the best |",
        "|---|---:|---:|---:|---|---|",
        *(found.row(plan.baseline) for found in compared), "",
        "![At equal iterations, samples and seconds](budgets.png)", "",
        *(f"* {sentence}" for sentence in verdicts(plan, runs, compared)), "",
        "A size whose runs ended before a budget is left out of its comparison: the smallest sizes see "
        "too few images. Sizes are told apart from the best as in all tables of mpisweep "
        "(`docs/statistics.md`), at 95%, on the logarithm of the loss. So \"not told apart\" says that "
        "these runs do not show a difference; more repeats may.",
    ])  # fmt: skip
