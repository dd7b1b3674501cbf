"""Settings by TPE: what is tried, and what is chosen."""

import dataclasses
import itertools

import pytest
from pandas.testing import assert_frame_equal
from setting_searches import ALIKE, LONGEST, QUICK, VARIED, cell, cells

from adapter_pruning import trials
from adapter_pruning.records import comparable
from adapter_pruning.tasks import Classification, Split

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
