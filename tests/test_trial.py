"""The trial as user code sees it: valid reports and steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpisweep.blocks import Curve
from mpisweep.spec.commandline import read_json_line
from mpisweep.workloads.report import report
from mpisweep.workloads.trial import Trial


@pytest.fixture
def sent() -> list[dict[str, Curve]]:
    return []


@pytest.fixture
def trial(sent: list[dict[str, Curve]], tmp_path: Path) -> Trial:
    return Trial(
        0,
        {},
        sweep_seed=0,
        device="cpu",
        cores=1,
        folder=tmp_path,
        send=sent.append,
        stop_asked=lambda: False,
    )


@pytest.mark.parametrize(
    "step", [0.5, float("nan"), float("inf"), "3", None, 2**63, 1e300, 1j, np.float32(0.25)]
)
def test_a_step_that_is_not_an_integer_is_refused_and_the_curve_stays_intact(trial: Trial, sent, step):
    trial.report(0, loss=1.0)
    with pytest.raises(TypeError, match="expected an integer"):
        trial.report(step, loss=2.0)
    trial.report(1, loss=3.0)
    trial.flush()
    [curves] = sent
    assert curves["loss"].step.tolist() == [0, 1]
    assert curves["loss"].value.tolist() == [1.0, 3.0]
    assert len(curves["loss"].time) == 2


def test_a_step_may_be_a_numpy_integer_or_a_float_with_an_integer_value(trial: Trial, sent):
    for step in (np.int32(1), 2.0, np.float64(3.0), np.array(4)):
        trial.report(step, loss=0.0)
    trial.flush()
    assert sent[0]["loss"].step.tolist() == [1, 2, 3, 4]


def test_a_wrong_step_is_also_refused_outside_of_a_sweep():
    with pytest.raises(TypeError, match=r"the step of a report is 0\.5"):
        report(step=0.5, loss=1.0)  # type: ignore[arg-type]


def test_a_printed_step_too_large_for_an_integer_is_replaced_by_a_count():
    assert read_json_line('{"step": 1e300, "loss": 1}') == (None, {"loss": 1.0})
