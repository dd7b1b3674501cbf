"""Choose learning rate and epochs with Optuna's TPE, on held-out training rows."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pandas as pd
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from .backbones import Model
from .errors import PruningError
from .records import RecordStore, digest
from .tasks import Task
from .training import TrainConfig
from .trials import identity, run_once


@dataclass(frozen=True)
class Tuned:
    """What a search chose.

    Attributes:
        config: the setting with the best validation score, the earliest trial of equals.
        history: one row a trial: `trial` (from 1), `learning_rate`, `epochs`, `score` on the
            validation split, and the `best` so far.
        record: of the model that was trained with the chosen setting.
    """

    config: TrainConfig
    history: pd.DataFrame
    record: dict


def tune(
    make: Callable[[int], Model],
    task: Task,
    config: TrainConfig,
    *,
    learning_rates: Sequence[float],
    epochs: Sequence[int],
    store: RecordStore,
    method: str,
    trials: int = 30,
    seed: int = 0,
    profile: str = "",
) -> Tuned:
    """Search learning rate x epochs as Wu & Chen (2022), section 3.1, do: TPE, 30 trials.

    The paper's space has nine cells, so most of 30 trials come back to a known one. Such a trial
    answers from its record: a search trains each cell at most once. Only the validation split
    is looked at. The study is a journal file in the store's folder; the same call after a kill
    goes on from it and gives the result of an unbroken search, and a second process waits for
    the first.

    Args:
        make: seed -> a fresh model, the same for the same seed.
        config: everything but the learning rate and the epochs.
        method: what the records of the trials are called.
        trials: in all, counting those that are stored already.
        seed: of the models and of the sampler.

    Raises:
        PruningError: an empty space, a setting out of range, no trials, a damaged study file.
    """
    space = {"learning_rate": list(learning_rates), "epochs": list(epochs)}
    _check(space, config, trials)

    def run(setting: dict) -> dict:
        """The record of one setting, trained where it is not in the store."""
        chosen, options = replace(config, **setting), {"method": method, "profile": profile}
        return run_once(store, make(seed), task, chosen, seed=seed, **options)

    name = digest([identity(make(seed), task, config, seed), space, method])
    folder = store.folder / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        study = _study((folder / f"{name}.log").resolve(), name)
        done = _search(study, space, trials, seed, lambda setting: run(setting)["validation_score"])
    history = _history(done)
    best = history.loc[history.score.idxmax()]
    chosen = {"learning_rate": float(best.learning_rate), "epochs": int(best.epochs)}
    return Tuned(replace(config, **chosen), history, run(chosen))


def _check(space: dict[str, list], config: TrainConfig, trials: int) -> None:
    for name, values in space.items():
        if not values:
            raise PruningError(f"the search has no {name} to choose from; give at least one")
        for value in values:  # a value out of range is refused now, not when a trial draws it
            replace(config, **{name: value})
    if not isinstance(trials, int) or trials < 1:
        raise PruningError(f"trials is {trials!r}; it must be a whole number, at least 1")


def _search(
    study: optuna.Study,
    space: dict[str, list],
    trials: int,
    seed: int,
    score: Callable[[dict], float],
) -> list[optuna.trial.FrozenTrial]:
    """The first `trials` finished trials; those that are not stored yet are run."""
    while len(done := _complete(study)) < trials:
        # A sampler of its own for each trial, so that a resumed search is the unbroken one.
        study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(done))
        trial = study.ask()
        study.tell(trial, score({n: trial.suggest_categorical(n, v) for n, v in space.items()}))
    return done[:trials]


def _study(file: Path, name: str) -> optuna.Study:
    """The stored study, with nothing of a killed process left in it; the caller has the lock."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(f"{file}.lock").unlink(missing_ok=True)  # Optuna's own
    content = file.read_bytes() if file.exists() else b""
    if end := content.rfind(b"\n") + 1:  # a line that a kill tore would garble the next one
        os.truncate(file, end)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
        # TPE would learn from a trial that seems to run, so that the search would go elsewhere.
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        return study
    except Exception as error:  # replaying a damaged journal raises many kinds
        raise PruningError(
            f"the study file {str(file)!r} is damaged ({type(error).__name__}); delete it, and the "
            f"search is run again from the records"
        ) from error


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Finished trials; one that a kill left running is asked for again."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _history(done: list[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    rows = [{"trial": i, **t.params, "score": t.value} for i, t in enumerate(done, 1)]
    frame = pd.DataFrame(rows)
    return frame.assign(best=frame.score.cummax())
