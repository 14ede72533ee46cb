"""Types as a user's mypy --strict sees them: the examples, and a script with every call of the interface."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from voice import ROOT

USER = """
import numpy as np
import numpy.typing as npt

import mpisweep


def train(trial: mpisweep.Trial) -> dict[str, float]:
    width = int(trial.params["width"])
    for step in range(10):
        trial.report(step, loss=1.0 / (width + step))
        if trial.should_stop():
            break
    return {"loss": 1.0 / width}


sweep: mpisweep.Sweep = mpisweep.run(train, parameters={"width": [1, 2, 4]}, objective="loss", output="w.h5")
loss: npt.NDArray[np.float64] = sweep.trials["loss"]
curve: npt.NDArray[np.float64] = sweep.curve(0, "loss").value
again: mpisweep.Sweep = mpisweep.load("w.h5").at(step=5)
print(again.best(3), again.baseline, sweep.pareto(), sweep.configurations, sweep.ended)
job: mpisweep.Job = mpisweep.submit("sweep.toml", site="flow-cx", nodes=4, elapse="2:00:00")
done: mpisweep.Sweep = job.wait()
identity: str = job.id
"""
#: Lines that are wrong, and what mypy says of each.
WRONG = {
    'mpisweep.load("w.h5").best("5")': 'has incompatible type "str"; expected "int"',
    "mpisweep.load()": "Missing positional argument",
    'mpisweep.submit("s.toml", sites="flow-cx")': 'Unexpected keyword argument "sites"',
    'mpisweep.load("w.h5").best(key="loss")': 'Unexpected keyword argument "key"',
}


@pytest.mark.long
def test_examples_and_a_user_s_script_are_typed(tmp_path: Path):
    pytest.importorskip("lightning")
    for path in sorted((ROOT / "examples").glob("*/*.py")):
        # Two have the same name.
        shutil.copy(path, tmp_path / f"{path.parent.name}_{path.name}".replace("-", "_"))
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    lines = ["import mpisweep", *WRONG]
    (tmp_path / "wrong.py").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            # With what `make lint` has read of torch.
            *("--cache-dir", str(ROOT / ".mypy_cache")),
            *map(str, sorted(tmp_path.glob("*.py"))),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [
        line for line in done.stdout.splitlines()
        # Some of torch's functions have no types; the options stay those of `make lint`, for its cache.
        if ": error: " in line and not re.search(r"untyped function \"(backward|split)\"", line)
    ]  # fmt: skip
    assert len(errors) == len(WRONG), done.stdout + done.stderr
    for line, (number, said) in zip(errors, enumerate(WRONG.values(), 2), strict=True):
        assert f"wrong.py:{number}: " in line
        assert said in line
