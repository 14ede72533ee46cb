"""Checkpoints of a training, which is resumed from them as if it had not been interrupted.

A checkpoint holds everything that the next step depends on: parameters, optimiser, loss scaler, the states of
the random number generators, the number of steps done (hence the position in the data), and the measurements
so far.  It is written aside, synced and renamed, so that a complete one always exists.  torch's restricted
unpickler reads it: numbers and tensors, no code.  If it is torn, or belongs to another configuration, seed or
version of torch, it is ignored, and the trial starts from the beginning.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mpisweep.workloads.trial import CHECKPOINT

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["Checkpoint", "HasState"]


class HasState(Protocol):
    """A model, an optimiser or a scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Restore a state."""


class Checkpoint:
    """The checkpoint of one trial.

    Args:
        trial: whose folder holds the checkpoint.
        device: of the training.
        parts: the objects to save and restore, by name.
    """

    def __init__(self, trial: Trial, device: torch.device, parts: Mapping[str, HasState]) -> None:
        self._trial = trial
        self._device = device
        self._parts = parts
        self._belongs_to = {
            "params": dict(trial.params), "seed": trial.seed, "torch": torch.__version__.partition("+")[0],
        }  # fmt: skip

    def save(self, step: int, measured: Mapping[str, list[float]]) -> bool:
        """Save after `step` steps; False if the write fails, which loses only those steps."""
        state = {
            "belongs_to": self._belongs_to,
            "step": step,
            "measured": {name: list(values) for name, values in measured.items()},
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }
        try:
            file = self._trial.directory / CHECKPOINT
            aside = file.with_name(f"{CHECKPOINT}.new")
            with aside.open("wb") as out:
                torch.save(state, out)
                out.flush()
                os.fsync(out.fileno())
            aside.replace(file)
        except (OSError, RuntimeError):
            # torch raises RuntimeError when the disk is full.
            return False
        return True

    def restore(self) -> tuple[int, dict[str, list[float]]]:
        """Restore the last checkpoint; return its steps and measurements, or 0 and nothing."""
        if not self._trial.has_directory:
            return 0, {}
        try:
            state = torch.load(self._trial.directory / CHECKPOINT, map_location="cpu", weights_only=True)
            if state["belongs_to"] != self._belongs_to:
                return 0, {}
            measured = {
                str(name): [float(value) for value in values] for name, values in state["measured"].items()
            }
            step = int(state["step"])
            parts = {name: state["parts"][name] for name in self._parts}
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            pickle.UnpicklingError,
        ):
            return 0, {}
        for name, part in self._parts.items():
            part.load_state_dict(parts[name])
        torch.set_rng_state(state["cpu_rng"])
        if state["cuda_rng"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self._device)
        return step, measured
