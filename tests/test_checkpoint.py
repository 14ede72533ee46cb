"""Interrupted training resumes from its checkpoint with bit-identical results on a CPU.

One test trains the real ResNet50, whose checkpoint has 200 MB.  The others train a ResNet with a tenth of
the layers, because the same state is saved and restored.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from mpisweep.spec.catalogue import BUILTIN
from mpisweep.workloads.datasets import DataError, Images, load_images
from mpisweep.workloads.resnet50 import experiment, recipe, run
from mpisweep.workloads.trial import CHECKPOINT, Trial

SMALL = {
    "batch_size": 3,
    "num_iter": 6,
    "image_size": 33,
    "num_classes": 10,
    "data": "digits",
    "warmup_iter": 1,
}


class Attempt:
    """A real Trial that is asked to stop after `stop_after` reports."""

    def __init__(self, folder: Path, stop_after: int = 10**9, **options) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []
        self.trial = Trial(
            4,
            BUILTIN["resnet50"].defaults | SMALL | options,
            sweep_seed=1,
            device="cpu",
            cores=1,
            folder=folder,
            send=self.keep,
            stop_asked=lambda: self.count >= stop_after,
        )
        self.count = 0
        add = self.trial.add

        def counted(step, metrics):
            self.count += 1
            add(step, metrics)

        self.trial.add = counted  # type: ignore[method-assign]

    def keep(self, curves) -> None:
        self.losses += curves["loss"].value
        self.steps += curves["loss"].step

    def run(self) -> dict[str, float]:
        metrics = run(self.trial)
        self.trial.flush()
        return metrics


def small_resnet(num_classes: int, **_: object) -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "resnet50", small_resnet)


def test_the_curve_of_resnet50_is_that_of_an_uninterrupted_run(tmp_path: Path):
    assert_the_curve_is_that_of_an_uninterrupted_run(tmp_path, {})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw"}, {"data": "synthetic"}], ids=["adamw", "synthetic"]
)
def test_the_curve_is_that_of_an_uninterrupted_run(tmp_path: Path, options):
    assert_the_curve_is_that_of_an_uninterrupted_run(tmp_path, options)


@pytest.mark.usefixtures("small")
def test_the_curve_is_that_of_an_uninterrupted_run_when_it_is_cut_in_a_later_epoch(
    tmp_path: Path, monkeypatch
):
    digits = load_images("digits", "")
    five = Images(digits.images[:5], digits.labels[:5])
    monkeypatch.setattr(experiment, "load_images", lambda *_: five)
    # Two steps of three images: the first batch after the cut begins in the middle of the second epoch.
    assert_the_curve_is_that_of_an_uninterrupted_run(tmp_path, {})


def assert_the_curve_is_that_of_an_uninterrupted_run(tmp_path: Path, options) -> None:
    whole = Attempt(tmp_path / "whole", **options)
    expected = whole.run()
    assert not list(tmp_path.glob("whole/*"))
    stopped = Attempt(tmp_path / "cut", stop_after=2, **options)
    assert stopped.run() == {}
    assert stopped.trial.told_to_stop
    assert stopped.losses == whole.losses[:2]
    assert (tmp_path / "cut" / "4" / CHECKPOINT).exists()
    resumed = Attempt(tmp_path / "cut", **options)
    metrics = resumed.run()
    assert resumed.losses == whole.losses
    assert resumed.steps == list(range(len(whole.losses)))
    for name in ("loss", "loss_mean"):
        assert metrics[name] == expected[name]
    assert not (tmp_path / "cut" / "4").exists()


@pytest.mark.usefixtures("small")
def test_a_kill_loses_only_the_steps_since_the_last_checkpoint(tmp_path: Path, monkeypatch):
    whole = Attempt(tmp_path / "whole")
    whole.run()
    killed = Attempt(tmp_path, checkpoint_every=2)
    add, saved = killed.trial.add, (tmp_path / "4" / CHECKPOINT)

    def kill(step, metrics):
        if step == 5:
            saved.rename(tmp_path / "kept")
            raise KeyboardInterrupt
        add(step, metrics)

    killed.trial.add = kill  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    saved.parent.mkdir(exist_ok=True)
    (tmp_path / "kept").rename(saved)
    assert torch.load(saved, weights_only=True)["step"] == 4
    resumed = Attempt(tmp_path, checkpoint_every=2)
    resumed.run()
    assert resumed.losses == whole.losses


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["torn", "foreign", "pickle", "other configuration", "other version"])
def test_a_checkpoint_that_does_not_belong_to_the_trial_is_ignored(tmp_path: Path, damage: str):
    whole = Attempt(tmp_path / "whole")
    whole.run()
    Attempt(tmp_path, stop_after=2, **({"momentum": 0.5} if damage == "other configuration" else {})).run()
    file = tmp_path / "4" / CHECKPOINT
    if damage == "torn":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "foreign":
        torch.save({"step": 3}, file)
    elif damage == "pickle":
        torch.save({"step": 3, "belongs_to": Attempt}, file)
    elif damage == "other version":
        state = torch.load(file, weights_only=True)
        state["belongs_to"]["torch"] = "1.0"
        torch.save(state, file)
    resumed = Attempt(tmp_path)
    resumed.run()
    assert resumed.losses == whole.losses


@pytest.mark.usefixtures("small")
def test_a_full_disk_loses_the_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch):
    whole = Attempt(tmp_path / "whole")
    whole.run()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    one = Attempt(tmp_path, checkpoint_every=1)
    one.run()
    assert one.losses == whole.losses


@pytest.mark.usefixtures("small")
def test_a_failed_trial_leaves_no_checkpoint(tmp_path: Path):
    Attempt(tmp_path, stop_after=2).run()
    failing = Attempt(tmp_path)
    failing.trial.params["num_iter"] = 7
    failing.trial.params["data"] = "cifar10"
    with pytest.raises(DataError, match="data_root"):
        failing.run()
    assert not (tmp_path / "4").exists()
