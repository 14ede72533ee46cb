"""Trials as runs of Weights & Biases in its offline format, which `wandb sync` uploads.

The package writes it, without network; a run takes it about a second.  ``wandb sync --sync-all`` in the
folder uploads them.  Imports wandb.
"""

from __future__ import annotations

import math
from pathlib import Path

import wandb

from mpisweep.results.load import Sweep
from mpisweep.views.exported.facts import TrialFacts, trial_facts

__all__ = ["write"]


def write(sweep: Sweep, out: Path) -> None:
    """Write a folder per trial, for a project named as the sweep."""
    out.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True)
    for facts in trial_facts(sweep):
        if math.isfinite(facts.started_at):
            _run(sweep, facts, out, settings)


def _run(sweep: Sweep, facts: TrialFacts, out: Path, settings: wandb.Settings) -> None:
    run = wandb.init(
        mode="offline",
        dir=str(out),
        project=sweep.name,
        name=f"trial-{facts.number:05d}",
        tags=[facts.state],
        config=facts.params | facts.fixed,
        notes=str(facts.told.get("message", "")),
        reinit=True,
        settings=settings,
    )
    steps: dict[int, dict[str, float]] = {}
    for name, curve in facts.curves.items():
        for step, value in zip(curve.step.tolist(), curve.value.tolist(), strict=True):
            steps.setdefault(step, {})[name] = value
    for step, values in sorted(steps.items()):
        run.log(values, step=step)
    run.summary.update(facts.metrics | {"wall_time": facts.ended_at - facts.started_at})
    run.finish(exit_code=1 if facts.state == "failed" else 0)
