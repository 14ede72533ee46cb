"""A perceptron on the 8 x 8 digits of scikit-learn, trained by plain SGD in NumPy.

Every trial sees the same number of images, so a smaller batch takes more steps and more time.  `repeat` seeds
the initial weights and the order of the images.
"""

from __future__ import annotations

import time
from functools import cache
from types import SimpleNamespace

import numpy as np
from sklearn.datasets import load_digits

EPOCHS = 27
HIDDEN = 48
#: The other images are for validation.
TRAINING_IMAGES = 1200


@cache
def digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16.0).astype(np.float32), labels[order]
    return (
        images[:TRAINING_IMAGES],
        labels[:TRAINING_IMAGES],
        images[TRAINING_IMAGES:],
        labels[TRAINING_IMAGES:],
    )


def train(trial):
    batch_size, learning_rate = trial.params["batch_size"], trial.params["learning_rate"]
    random = np.random.default_rng(trial.params["repeat"])
    images, labels, unseen, answers = digits()
    hidden = random.normal(0, np.sqrt(2 / 64), (64, HIDDEN)).astype(np.float32)
    hidden_bias = np.zeros(HIDDEN, np.float32)
    output = random.normal(0, np.sqrt(1 / HIDDEN), (HIDDEN, 10)).astype(np.float32)
    output_bias = np.zeros(10, np.float32)
    # Time of the processor: others may use the machine.
    used = 0.0
    for epoch in range(1, EPOCHS + 1):
        started = time.process_time()
        order = random.permutation(len(images))
        with np.errstate(all="ignore"):
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                x = images[batch]  # (batch, 64)
                active = np.maximum(x @ hidden + hidden_bias, 0)  # (batch, HIDDEN)
                error = softmax(active @ output + output_bias)  # (batch, 10)
                error[np.arange(len(batch)), labels[batch]] -= 1
                error *= learning_rate / len(batch)
                back = (error @ output.T) * (active > 0)  # (batch, HIDDEN)
                output -= active.T @ error
                output_bias -= error.sum(axis=0)
                hidden -= x.T @ back
                hidden_bias -= back.sum(axis=0)
            found = softmax(np.maximum(unseen @ hidden + hidden_bias, 0) @ output + output_bias)
        used += time.process_time() - started
        chance = np.nan_to_num(found[np.arange(len(answers)), answers])
        # A network that diverged knows nothing; its loss is bounded, so that every trial is comparable.
        loss = float(-np.log(np.clip(chance, 1e-6, 1.0)).mean())
        trial.report(epoch, val_loss=loss)
    accuracy = float((np.nan_to_num(found).argmax(axis=1) == answers).mean())
    return {"val_loss": loss, "val_accuracy": accuracy, "train_time": used}


def train_without_curves(trial):
    return train(SimpleNamespace(params=trial.params, report=lambda step, **metrics: None))


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
