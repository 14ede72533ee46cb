"""The figures of the report: which ones, and each with its heading and what it shows."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any, NamedTuple

from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.spec import LEARNING, RANKS
from mpisweep.views.figure_kinds import KINDS
from mpisweep.views.figures import draw
from mpisweep.views.figures.inline import inline

__all__ = ["figures", "time_figures"]


class _Wanted(NamedTuple):
    """A figure by its kind, heading and options."""

    kind: str
    heading: str
    options: dict[str, Any]


def figures(sweep: Sweep) -> Iterator[str]:
    """The figures of the objectives; those without anything to draw are left out."""
    names = [objective.name for objective in sweep.objectives]
    wanted: list[_Wanted] = []
    if sweep.spec.search == "batch_size":
        wanted.append(_Wanted("batch-sizes", "Batch sizes", {}))
    if len(names) > 1:
        wanted += [
            _Wanted("front", "Pareto front", {}), _Wanted("hypervolume", "Hypervolume", {}),
        ]  # fmt: skip
    wanted += [_Wanted("metric", f"Objective: {name}", {"metric": name}) for name in names]
    if sweep.spec.search in LEARNING and len(names) == 1:
        wanted.append(_Wanted("history", "Best so far", {}))
    wanted += [_Wanted("curves", f"Learning curves: {name}", {"metric": name}) for name in names]
    if "batch_size" in sweep.spec.space.names and "steps_to_target" in sweep.metrics:
        wanted.append(_Wanted("critical-batch", "Critical batch size", {}))
    if RANKS in sweep.parameters:
        wanted.append(_Wanted("scaling", "Ranks per trial", {}))
    yield from _drawn(sweep, wanted)


def time_figures(sweep: Sweep) -> Iterator[str]:
    """The figures of the time that the sweep took."""
    yield from _drawn(sweep, [_Wanted("total", "Total time", {}), _Wanted("timeline", "Timeline", {})])


def _drawn(sweep: Sweep, wanted: list[_Wanted]) -> Iterator[str]:
    for kind, heading, options in wanted:
        try:
            figure = draw(kind, sweep, **options)
        except (ResultsError, KeyError):
            # There is nothing to draw: no curves, or no ended trial.
            continue
        said = KINDS[kind].text
        caption = " ".join(filter(None, [f"{said[0].upper()}{said[1:]}.", figure.note]))
        title = " ".join(figure.get_suptitle().replace(r"\$", "$").split()) or heading
        label = html.escape(heading)
        yield (
            f'<h3>{label}</h3><figure><div class="box" tabindex="0" role="region" aria-label="{label}">'
            f"{inline(figure, title)}</div><figcaption>{html.escape(caption)}</figcaption></figure>"
        )
