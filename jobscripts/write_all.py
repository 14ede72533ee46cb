"""Write the ready-made job scripts of this folder, the poster's sweep on each system: `make jobscripts`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mpisweep.batch.jobscript import Payload, write_script
from mpisweep.batch.request import Wishes, plan_job
from mpisweep.batch.sitefile import known_sites, load_site

HERE = Path(__file__).parent
TWO_HOURS = Wishes(elapse_s=7200)
POSTER = Payload(
    name="resnet50-batch-size",
    sweep="~/mpisweep/examples/resnet50-batch-size.toml",
    results="resnet50-batch-size.h5",
    venv="~/mpisweep/.venv",
)
#: Script -> site, request, payload, and a hint about placeholders.
SCRIPTS = {
    "flow-cx-share": ("flow-cx-share", TWO_HOURS, POSTER, ""),
    "flow-cx": ("flow-cx", dataclasses.replace(TWO_HOURS, nodes=2), POSTER, ""),
    "flow-cx-singularity": (
        "flow-cx",
        dataclasses.replace(TWO_HOURS, nodes=2),
        dataclasses.replace(POSTER, venv="", image="~/mpisweep/mpisweep.sif"),
        "",
    ),
    "wisteria-aquarius": (
        "wisteria-aquarius",
        dataclasses.replace(TWO_HOURS, nodes=2, project="GROUP"),
        POSTER,
        "Replace GROUP with your project group, and put this folder below /work.",
    ),
    "pjm": (
        "pjm",
        dataclasses.replace(TWO_HOURS, nodes=2, gpus=4, group="RESOURCE_GROUP"),
        POSTER,
        "Replace RESOURCE_GROUP with a resource group of your system, and load the modules of your "
        "environment.",
    ),
    "slurm": (
        "slurm",
        dataclasses.replace(TWO_HOURS, nodes=2, gpus=4),
        POSTER,
        "Add --partition and --account where your system wants them, and load the modules of your "
        "environment.",
    ),
    "pbs": (
        "pbs",
        dataclasses.replace(TWO_HOURS, nodes=2, gpus=4),
        POSTER,
        "Add -q and -P where your system wants them, and load the modules of your environment.",
    ),
    "gridengine": (
        "gridengine",
        dataclasses.replace(TWO_HOURS, nodes=2, gpus=4, directives=("-pe mpi 8",)),
        POSTER,
        "Replace -pe with your system's request for nodes, add -q and -P where it wants them, and load "
        "your modules.",
    ),
    "tsubame4": (
        "tsubame4",
        dataclasses.replace(TWO_HOURS, nodes=2, project="GROUP"),
        POSTER,
        "Replace GROUP with your TSUBAME group.",
    ),
    "miyabi-g": (
        "miyabi-g",
        dataclasses.replace(TWO_HOURS, nodes=2, project="GROUP"),
        POSTER,
        "Replace GROUP with your project group, and put this folder below /work.",
    ),
    "abci3": (
        "abci3",
        dataclasses.replace(TWO_HOURS, nodes=2, project="GROUP"),
        POSTER,
        "Replace GROUP with your ABCI group.",
    ),
    "workstation": ("workstation", Wishes(), dataclasses.replace(POSTER, venv=""), ""),
}


def script_text(name: str) -> str:
    """Return the text of one script."""
    site, wishes, payload, hint = SCRIPTS[name]
    # The shipped site, even if the user has one of the same name.
    shipped = known_sites([HERE / "sites"])[site]
    script = write_script(plan_job(load_site(str(shipped)), wishes), payload)
    return dataclasses.replace(script, head=(*script.head, *([hint] if hint else []))).text()


if __name__ == "__main__":
    for name in SCRIPTS:
        path = HERE / f"{name}.sh"
        path.write_text(script_text(name), encoding="utf-8")
        path.chmod(0o755)
