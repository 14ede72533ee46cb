"""A small network on scikit-learn's digits, judged after equal steps, samples and seconds.

Needs numpy and scikit-learn.  Every trial runs until it has reached the last of its three budgets.
"""

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import mpisweep

Array = NDArray[Any]
HIDDEN = 32


def train(trial: mpisweep.Trial) -> dict[str, float]:
    size, rate = trial.params["batch_size"], trial.params["learning_rate"]
    budgets = {
        "steps": trial.params["num_iter"],
        "samples": trial.params["num_samples"],
        "seconds": trial.params["seconds"],
    }
    images, labels, held_out, truth = data()
    random = np.random.default_rng(trial.seed)
    network = [
        random.normal(0, 0.125, (64, HIDDEN)), np.zeros(HIDDEN),
        random.normal(0, HIDDEN**-0.5, (HIDDEN, 10)), np.zeros(10),
    ]  # fmt: skip
    metrics = {"steps_to_target": math.nan, "samples_to_target": math.nan}
    step, seconds = 0, 0.0
    while len(metrics) < 5:
        started = time.process_time()
        chosen = random.integers(0, len(images), size)
        update(network, images[chosen], labels[chosen], rate)
        seconds += time.process_time() - started
        step += 1
        used = {"steps": step, "samples": step * size, "seconds": seconds}
        due = [name for name in budgets if used[name] >= budgets[name] and f"loss_at_{name}" not in metrics]
        is_open = math.isnan(metrics["steps_to_target"])
        if due or (is_open and step % max(1, min(5, 640 // size)) == 0):
            loss = loss_of(network, held_out, truth)
            metrics |= {f"loss_at_{name}": loss for name in due}
            if is_open and loss <= trial.params["target"]:
                metrics |= {"steps_to_target": step, "samples_to_target": step * size}
    return metrics | {"loss": metrics["loss_at_steps"], "steps": step, "samples": step * size}


def data() -> tuple[Array, Array, Array, Array]:
    """Four fifths of the digits to train on, and one fifth to judge by."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16 - 0.3
    is_held_out = np.arange(len(labels)) % 5 == 0
    return images[~is_held_out], labels[~is_held_out], images[is_held_out], labels[is_held_out]


def forward(network: list[Array], images: Array) -> tuple[Array, Array]:
    hidden = np.maximum(0, images @ network[0] + network[1])
    scores = hidden @ network[2] + network[3]
    scores -= scores.max(1, keepdims=True)
    return hidden, scores - np.log(np.exp(scores).sum(1, keepdims=True))


def loss_of(network: list[Array], images: Array, labels: Array) -> float:
    return float(-forward(network, images)[1][np.arange(len(labels)), labels].mean())


def update(network: list[Array], images: Array, labels: Array, rate: float) -> None:
    hidden, logs = forward(network, images)
    error = np.exp(logs)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    back = (error @ network[2].T) * (hidden > 0)
    for part, gradient in zip(
        network, (images.T @ back, back.sum(0), hidden.T @ error, error.sum(0)), strict=True
    ):
        part -= rate * gradient
