"""A scikit-learn estimator as a function of a trial; data and imports stay loaded between trials."""

from functools import cache
from typing import Any

from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import mpisweep


@cache
def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    images, labels = load_digits(return_X_y=True)
    return images, labels


def train(trial: mpisweep.Trial) -> dict[str, float]:
    images, labels = digits()
    forest = RandomForestClassifier(**trial.params, random_state=trial.seed % 2**32, n_jobs=trial.cores)
    scores = []
    for fold, score in enumerate(cross_val_score(forest, images, labels, cv=3)):
        scores.append(score)
        trial.report(fold, accuracy=score)
    return {"accuracy": sum(scores) / len(scores)}
