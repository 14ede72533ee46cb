"""An objective of Optuna as its documentation has them; nothing in it knows of mpisweep."""

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier


def objective(trial: optuna.Trial) -> float:
    images, labels = load_digits(return_X_y=True)
    train_x, valid_x, train_y, valid_y = train_test_split(images / 16, labels, random_state=0)
    kind = trial.suggest_categorical("classifier", ["sgd", "neighbours"])
    if kind == "neighbours":
        neighbours = trial.suggest_int("n_neighbors", 1, 30)
        return float(KNeighborsClassifier(neighbours).fit(train_x, train_y).score(valid_x, valid_y))

    alpha = trial.suggest_float("alpha", 1e-5, 1e-1, log=True)
    classifier = SGDClassifier(alpha=alpha, random_state=0)
    for epoch in range(20):
        classifier.partial_fit(train_x, train_y, np.unique(labels))
        accuracy = float(classifier.score(valid_x, valid_y))
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    trial.set_user_attr("nonzero", int(np.count_nonzero(classifier.coef_)))
    return accuracy


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=40)
    print(study.best_params, study.best_value)
