"""Optuna: one process per worker, all on one journal file, until the study has enough complete trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from work import COUNT, FOLDER, TRIALS, WHAT, Run, drive

STATES = (TrialState.COMPLETE,)


def storage() -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(FOLDER / "journal.log")))


def objective(trial: optuna.Trial) -> float:
    trial.suggest_int("x", 0, COUNT)
    return TRIALS[WHAT](trial.number)


def work() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="s", storage=storage(), sampler=optuna.samplers.RandomSampler())
    study.optimize(objective, callbacks=[MaxTrialsCallback(COUNT, states=STATES)])


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    def run(trial, inputs):
        study = optuna.create_study(study_name="s", storage=storage())
        processes = [Process(target=work) for _ in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [one.value for one in study.get_trials(states=STATES)]

    yield run


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drive(pool, stores=True, can_warm=False)
