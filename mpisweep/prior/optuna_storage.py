"""Trials of an Optuna study: in a database, or in a journal file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mpisweep.prior.foreign import ForeignError, ForeignSweep, ForeignTrial
from mpisweep.spec import Spec

__all__ = ["read_study"]


def read_study(place: str, study: str, spec: Spec) -> ForeignSweep:
    """Read a study.

    Args:
        place: URL of a database, or path of a journal file.
        study: its name; may be empty if the storage has one study.
        spec: the sweep that imports it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            storage = _storage(place)
            names = [one.study_name for one in optuna.get_all_study_summaries(storage)]
            found = optuna.load_study(study_name=_chosen(names, study), storage=storage)
            trials = found.get_trials(deepcopy=False)
        except ForeignError:
            raise
        except Exception as error:
            # Databases, their drivers and Optuna raise errors of their own.
            text = str(error).strip().partition("\n")[0]
            raise ForeignError(f"cannot be read as an Optuna storage: {text}") from error
    if len(found.directions) > 1:
        raise ForeignError(f"has {len(found.directions)} objectives; this sweep has one, {spec.objective!r}")
    return ForeignSweep(
        [
            ForeignTrial(
                trial.params,
                trial.value if trial.state is TrialState.COMPLETE else None,
                None if trial.duration is None else trial.duration.total_seconds(),
            )
            for trial in trials
        ],
        frozenset(name for trial in trials for name in trial.params),
        [],
    )


def _storage(place: str) -> Any:
    if "://" in place:
        # A missing file of SQLite would be made.
        if place.startswith("sqlite:///") and not Path(place.removeprefix("sqlite:///")).exists():
            raise ForeignError("does not exist")
        return optuna.storages.RDBStorage(place)
    return JournalStorage(JournalFileBackend(place))


def _chosen(names: list[str], study: str) -> str:
    if not names:
        raise ForeignError("has no study")
    if study and study not in names:
        raise ForeignError(f"has no study {study!r}; it has {', '.join(names)}")
    if not study and len(names) > 1:
        raise ForeignError(
            f"has the studies {', '.join(names)}; expected one of them, "
            f'{{ from = "...", study = "{names[0]}" }}'
        )
    return study or names[0]
