"""A search for settings goes on where it stopped, and none gets into another's way."""

import dataclasses
import threading

import pytest
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pandas.testing import assert_frame_equal
from setting_searches import ALIKE, LONGEST, QUICK, cells, study_file

import adapter_pruning as ap
from adapter_pruning import training, trials, tuning

# Going on


@pytest.mark.parametrize("stop", [3, 12])
def test_a_search_that_is_extended_is_the_unbroken_one(search, store, fits, unbroken, stop):
    search(store, trials=stop)
    found = search(ap.RecordStore(store.folder), trials=LONGEST)

    assert_frame_equal(found.history, unbroken[0].history)
    assert found.config == unbroken[0].config
    assert len(fits) == len(unbroken[1]) == len(set(fits))


def test_a_finished_search_is_read_and_not_run_again(search, finished, fits, unbroken):
    again = search(finished, trials=LONGEST)

    assert_frame_equal(again.history, unbroken[0].history)
    assert (again.config, again.record) == (unbroken[0].config, unbroken[0].record)
    assert not fits
    assert states(finished) == [TrialState.COMPLETE] * LONGEST


def test_fewer_trials_than_are_stored_are_the_first_of_them(search, finished, fits, unbroken):
    found = search(finished, trials=2)

    first = unbroken[0].history[:2]
    assert_frame_equal(found.history, first)
    assert found.config.learning_rate == first.learning_rate[first.score.idxmax()]
    assert not fits


def states(store):
    """The states of all trials in the study's journal."""
    storage = JournalStorage(JournalFileBackend(str(study_file(store))))
    (study,) = storage.get_all_studies()
    return [trial.state for trial in storage.get_all_trials(study._study_id)]


class Killed(Exception):  # noqa: N818
    """What nothing in the library catches."""


@pytest.fixture
def killed(monkeypatch):
    """The settings whose training was killed: once each, and only at its end."""
    struck = []

    def fit(model, task, config, **options):
        progress = training.fit(model, task, config, **options)
        if (setting := (config.learning_rate, config.epochs)) not in struck:
            struck.append(setting)
            raise Killed
        return progress

    monkeypatch.setattr(trials, "fit", fit)
    return struck


@pytest.mark.parametrize("length", [8, LONGEST])
def test_a_search_that_is_killed_in_every_training_is_the_unbroken_one(
    search, store, killed, unbroken, length
):
    first = unbroken[0].history[:length]
    for kills in range(1, len(set(cells(first))) + 1):
        with pytest.raises(Killed):
            search(store, trials=length)
        assert states(store)[-1] == TrialState.RUNNING
        assert len(killed) == kills

    assert_frame_equal(search(store, trials=length).history, first)
    assert states(store).count(TrialState.COMPLETE) == length


@pytest.fixture
def blocked(monkeypatch):
    """An event: somebody has found the lock of a study taken."""
    event = threading.Event()

    class Watched(FileLock):
        def _acquire(self):
            super()._acquire()
            if not self.is_locked:
                event.set()

    monkeypatch.setattr(tuning, "FileLock", Watched)
    return event


def test_a_second_search_waits_for_the_first(search, store, blocked, unbroken, monkeypatch):
    found, trained = {}, []
    second = threading.Thread(target=lambda: found.update(second=search(store)), daemon=True)

    def fit(model, task, config, **options):
        trained.append((threading.current_thread() is second, config.learning_rate, config.epochs))
        if len(trained) == 1:  # in the middle of the first search
            second.start()
            assert blocked.wait(60)
        return training.fit(model, task, config, **options)

    monkeypatch.setattr(trials, "fit", fit)
    found["first"] = search(store)
    second.join(60)

    assert not any(by_second for by_second, *_ in trained)
    assert len(trained) == len(set(trained)) == len(store.all())
    assert states(store) == [TrialState.COMPLETE] * 6
    for one in ("first", "second"):
        assert_frame_equal(found[one].history, unbroken[0].history[:6])


# Apart


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rates": [1e-6, 2e-6, 4e-6]},
        {"epochs": [2]},
        {"method": "another"},
        {"seed": 1},
        {"config": dataclasses.replace(QUICK, batch_size=32)},
        {"pooling": "cls"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_searches_in_one_store_are_kept_apart(search, store, tmp_path, make, change):
    change = dict(change)
    if pooling := change.pop("pooling", None):
        change["make"] = lambda seed: make(seed, pooling=pooling)
    one, other = ALIKE | {"trials": 3}, ALIKE | {"trials": 3} | change
    alone = search(ap.RecordStore(tmp_path / "alone"), **other)
    first = search(store, **one)
    before = len(store.all())

    beside = search(store, **other)

    assert_frame_equal(beside.history, alone.history)
    assert beside.config == alone.config
    assert len(store.all()) > before
    assert len(list(store.folder.glob("studies/*.log"))) == 2
    assert_frame_equal(search(store, **one).history, first.history)


def test_another_space_takes_over_the_cells_that_are_trained(search, store, fits):
    search(store, trials=2, learning_rates=[1e-6], epochs=[1])
    search(store, trials=8, **ALIKE)

    assert len(fits) == len(set(fits)) == 3
