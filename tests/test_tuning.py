"""Settings by TPE: what is tried, what is chosen, and that a search goes on where it stopped."""

import copy
import dataclasses
import functools
import itertools
import os
import shutil
import threading

import numpy as np
import pytest
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pandas.testing import assert_frame_equal

import adapter_pruning as ap
from adapter_pruning import training, trials, tuning
from adapter_pruning.records import comparable
from adapter_pruning.tasks import Classification, Split

QUICK = ap.TrainConfig(
    epochs=1, batch_size=16, evaluations_per_epoch=2, max_length=8, precision="fp32"
)
# On the task below the first space has good and bad settings; the second moves hardly anything.
VARIED = {"learning_rates": [1e-2, 3e-2, 1e-1], "epochs": [2, 3]}
ALIKE = {"learning_rates": [1e-6, 2e-6, 3e-6], "epochs": [1]}
WORDS = ("bad dull poor slow weak stale", "good fresh fine warm sharp moving")


def sentences(rows, seed):
    """Two words that say the label, and one of either kind."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    words = [side.split() for side in WORDS]
    drawn = [[*draw.choice(words[y], 2), draw.choice(words[draw.integers(2)])] for y in labels]
    return Split(([" ".join(three) for three in drawn],), labels)


@pytest.fixture(scope="module")
def task():
    splits = [sentences(64, 0), sentences(32, 1), sentences(32, 2)]
    return Classification(ap.TASKS["rotten_tomatoes"], *splits, revision="made up")


@pytest.fixture(scope="module")
def make(tiny_bert):
    """make(seed): the tiny BERT, all of which trains; its pooling can be another."""

    @functools.cache
    def loaded(seed, options):
        return tiny_bert(seed=seed, **dict(options))

    def make(seed, **options):
        model = loaded(seed, tuple(options.items()))
        # Its tokenizer, which nothing changes, is what takes time to copy.
        return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})

    return make


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def search(make, task):
    """search(store, **options): a search over the varied space."""

    def search(store, make=make, task=task, config=QUICK, **options):
        options = VARIED | {"method": "adapter", "trials": 6} | options
        return ap.tune(make, task, config, store=store, **options)

    return search


LONGEST = 14  # four beyond the ten trials that TPE draws at random


@pytest.fixture(scope="module")
def unbroken(search, tmp_path_factory):
    """What a search finds that nobody disturbed, its records, and the store's folder."""
    store = ap.RecordStore(tmp_path_factory.mktemp("unbroken") / "runs")
    return search(store, trials=LONGEST), store.all(), store.folder


@pytest.fixture
def finished(unbroken, store):
    """A copy of the store of that search."""
    shutil.copytree(unbroken[2], store.folder)
    return store


@pytest.fixture
def fits(monkeypatch):
    """The list of all trainings, each by the setting it tried."""
    calls = []

    def counted(model, task, config, **options):
        calls.append((config.learning_rate, config.epochs))
        return training.fit(model, task, config, **options)

    monkeypatch.setattr(trials, "fit", counted)
    return calls


def cells(history):
    """The settings of a history, in its order."""
    return list(zip(history.learning_rate, history.epochs, strict=True))


def cell(record):
    return record["config"]["learning_rate"], record["config"]["epochs"]


def study_file(store):
    (file,) = store.folder.glob("studies/*.log")
    return file


# What is chosen


def test_the_choice_has_the_best_validation_score_of_the_records(unbroken):
    found, records, _ = unbroken
    scores = {cell(record): record["validation_score"] for record in records}

    assert len(set(scores.values())) > 2
    chosen = (found.config.learning_rate, found.config.epochs)
    assert [c for c, score in scores.items() if score == max(scores.values())] == [chosen]


def test_the_record_is_that_of_the_chosen_setting(unbroken):
    found, records, _ = unbroken

    assert found.record in records
    assert found.record["config"] == dataclasses.asdict(found.config)


def test_a_record_that_was_lost_is_made_again(search, store, fits):
    found = search(store, trials=2)
    store.file(found.record).unlink()
    trained = len(fits)

    again = search(store, trials=2)

    assert comparable(again.record) == comparable(found.record)
    assert len(fits) == trained + 1


def test_the_history_has_the_validation_score_of_every_trial(unbroken):
    found, records, _ = unbroken
    scores = {cell(record): record["validation_score"] for record in records}

    assert set(cells(found.history)) == set(scores)
    assert found.history.score.tolist() == [scores[c] for c in cells(found.history)]
    assert set(found.history.learning_rate) <= set(VARIED["learning_rates"])
    assert set(found.history.epochs) <= set(VARIED["epochs"])


def test_the_history_counts_from_1_and_its_best_never_falls(unbroken):
    history = unbroken[0].history

    assert list(history) == ["trial", "learning_rate", "epochs", "score", "best"]
    assert history.trial.tolist() == list(range(1, LONGEST + 1))
    assert history.best.tolist() == list(itertools.accumulate(history.score, max))
    assert history.best.iloc[0] < history.best.iloc[-1]


def test_only_learning_rate_and_epochs_are_chosen(unbroken):
    config = unbroken[0].config

    assert dataclasses.replace(config, learning_rate=0.5, epochs=9) == dataclasses.replace(
        QUICK, learning_rate=0.5, epochs=9
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_equal_scores_the_earliest_trial_wins(search, store, seed):
    found = search(store, seed=seed, **ALIKE)

    assert found.history.score.nunique() == 1
    assert found.history.learning_rate.nunique() > 1
    assert found.config.learning_rate == found.history.learning_rate[0]


def test_the_test_split_does_not_matter(search, store, task, unbroken):
    wrong = Split(task.test.texts, 1 - task.test.labels)
    corrupted = Classification(task.spec, task.train, task.validation, wrong, task.revision)

    found = search(store, task=corrupted, trials=8)

    reported = {cell(record): record["score"] for record in unbroken[1]}
    for record in store.all():
        assert record["score"] == 1 - reported[cell(record)]
    assert_frame_equal(found.history, unbroken[0].history[:8])
    assert found.config == unbroken[0].config


def test_after_ten_drawn_trials_the_search_prefers_what_scored_well(search, finished):
    score = search(finished, trials=24).history.score

    assert score[:10].nunique() > 2
    # Drawn at random, each of the six settings would be tried in one of six trials.
    assert (score[10:] == score[:10].max()).mean() > 0.5


# What is trained


def test_thirty_trials_train_each_cell_of_a_small_space_once(search, store, fits):
    space = {"learning_rates": [1e-6, 1e-2], "epochs": [1, 2]}
    found = search(store, trials=30, **space)

    assert len(found.history) == 30
    assert sorted(fits) == sorted(itertools.product(*space.values()))
    assert sorted(cell(record) for record in store.all()) == sorted(fits)


def test_every_trial_is_of_one_seed_and_starts_from_one_model(search, store, make, task):
    asked = []

    def spied(seed):
        asked.append(seed)
        return make(seed)

    search(store, spied, trials=3, seed=5, profile="smoke", method="dense")

    assert set(asked) == {5}
    start = trials.identity(make(5), task, QUICK, 5)["start"]
    assert len(store.all()) > 1
    for record in store.all():
        assert (record["seed"], record["start"]) == (5, start)
        assert (record["profile"], record["method"]) == ("smoke", "dense")


def test_another_seed_tries_another_order(search, store):
    orders = [cells(search(store, seed=s, trials=4, **ALIKE).history) for s in (0, 1)]

    assert orders[0] != orders[1]


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


# Bad calls and bad files


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"learning_rates": []}, ["no learning_rate to choose from", "at least one"]),
        ({"epochs": ()}, ["no epochs to choose from", "at least one"]),
        ({"learning_rates": [1e-3, 1.5]}, ["learning_rate", "1.5"]),
        ({"epochs": [2, 0]}, ["epochs", "0"]),
        ({"trials": 0}, ["trials is 0", "at least 1"]),
        ({"trials": -1}, ["trials is -1", "at least 1"]),
        ({"trials": 2.5}, ["trials is 2.5", "whole number"]),
        ({"trials": "3"}, ["trials is '3'", "whole number"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_search_of_nothing_or_of_a_setting_out_of_range_is_refused_at_once(
    search, store, refused, options, said
):
    def make(seed):
        raise AssertionError("a model was made")

    with refused(*said):
        search(store, make, **options)

    assert not store.folder.exists()


def unbalanced(content):
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:3], b"{\n", *lines[4:]])


DAMAGES = {
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"no study\n",
    "broken line": unbalanced,
    "end of another": lambda content: content + content[-40:],
    "line without fields": lambda content: content + b'{"op_code": 4, "worker_id": "x"}\n',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_study_is_refused_and_deleting_it_brings_the_search_back(
    search, finished, fits, refused, unbroken, damage
):
    file = study_file(finished)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))

    with refused(f"the study file {str(file)!r} is damaged", "delete it"):
        search(finished, trials=LONGEST)

    file.unlink()
    assert_frame_equal(search(finished, trials=LONGEST).history, unbroken[0].history)
    assert not fits


def trial_cut(content):
    """The last trial is gone but for the half of its first line."""
    lines = content.splitlines(keepends=True)
    begun = max(i for i, line in enumerate(lines) if b'"op_code":4' in line)
    return b"".join(lines[:begun]) + lines[begun][:40]


# What a write leaves that a kill or a full disk cuts short, or a foreign file.
TORN = {
    "half": lambda content: content[: len(content) // 2],
    "last line cut": lambda content: content[:-5],
    "first line cut": lambda content: content[:20],
    "text without an end": lambda content: b"no study",
    "list": lambda content: b"[]\n",
    "null": lambda content: b"null\n",
    "unknown operation": lambda content: content + b'{"op_code": 77, "worker_id": "x"}\n',
    "last trial cut": trial_cut,
}


@pytest.mark.parametrize("damage", TORN)
def test_a_torn_or_foreign_study_is_refused_in_a_sentence_or_mended(
    search, finished, unbroken, damage
):
    file = study_file(finished)
    file.write_bytes(TORN[damage](file.read_bytes()))

    try:
        history = search(finished, trials=LONGEST).history
    except ap.PruningError as error:
        assert str(file) in str(error)
    else:
        assert_frame_equal(history, unbroken[0].history)


def test_a_lock_that_a_kill_left_on_the_journal_does_not_stop_the_next_search(
    search, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    store = ap.RecordStore("runs")  # the link's target is then no file, seen from the link
    search(store, trials=1)
    file = study_file(store)
    os.symlink(file, f"{file}.lock")
    link = os.symlink

    def impatient(source, target):
        assert not os.path.lexists(target), "it waits for a process that is gone"
        link(source, target)

    monkeypatch.setattr(os, "symlink", impatient)

    assert len(search(store, trials=2).history) == 2
