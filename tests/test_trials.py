"""Trials: what their records hold, and that each is trained once."""

import dataclasses
import itertools
import json
from datetime import datetime
from functools import partial

import pytest
import torch
from quick_training import QUICKER as QUICK

import adapter_pruning as ap
from adapter_pruning import metrics, training, trials
from adapter_pruning.records import comparable


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path / "runs")


@pytest.fixture
def fits(monkeypatch):
    """The list of all trainings, one entry each."""
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return training.fit(*args, **options)

    monkeypatch.setattr(trials, "fit", counted)
    return calls


def run_once(store, model, task, **changes):
    options = {"seed": 0, "method": "adapter", "progress": False} | changes
    return ap.run_once(store, model, task, options.pop("config", QUICK), **options)


# Parameters, by hand

WIDTH, LAYERS, FFN, BOTTLENECK, CLASSES = 32, 2, 64, 4, 2
HEAD = WIDTH * CLASSES + CLASSES
ADAPTERS = 2 * LAYERS * (2 * WIDTH * BOTTLENECK + BOTTLENECK + WIDTH)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    embeddings = (len(tokenizer) + 512 + 2) * WIDTH + 2 * WIDTH
    attention = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH
    feed_forward = WIDTH * FFN + FFN + FFN * WIDTH + WIDTH + 2 * WIDTH
    pooler = WIDTH * WIDTH + WIDTH
    return embeddings + LAYERS * (attention + feed_forward) + pooler


def test_full_fine_tuning_trains_and_stores_everything(plain, encoder):
    assert trials.parameter_counts(plain()) == {
        "parameters_trained": encoder + HEAD,
        "parameters_stored": encoder + HEAD,
        "parameters_percent": 100,
    }


def test_adapters_train_and_store_themselves_and_the_head(small, encoder):
    assert trials.parameter_counts(small()) == {
        "parameters_trained": ADAPTERS + HEAD,
        "parameters_stored": ADAPTERS + HEAD,
        "parameters_percent": 100 * ADAPTERS / (encoder + ADAPTERS),
    }


def test_what_a_mask_prunes_counts_nowhere(small, everything, encoder):
    mask = ap.random_mask(everything, 100, seed=0)
    left = ADAPTERS - 2 * LAYERS * 2 * WIDTH * BOTTLENECK + 100

    assert trials.parameter_counts(small(), mask) == {
        "parameters_trained": left + HEAD,
        "parameters_stored": left + HEAD,
        "parameters_percent": 100 * left / (encoder + ADAPTERS),
    }


# Records


@pytest.fixture(scope="module")
def record(small, rotten, half):
    return trials.run(
        small(),
        rotten,
        QUICK,
        seed=5,
        method="some method",
        mask=half,
        detail={"round": 2},
        profile="smoke",
        progress=False,
    )


def test_a_record_is_plain_json(record):
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_record_says_what_was_trained_on_what(record, small, rotten):
    model = small()
    assert record["task"] == "rotten_tomatoes"
    assert record["data_revision"] == rotten.revision
    assert record["rows"] == {"train": 64, "validation": 32, "test": 64}
    assert record["model"] == model.name
    assert record["model_revision"] == model.revision
    assert record["pooling"] == "pooler"
    assert record["adapter"] == {
        "kind": "Houlsby",
        "bottleneck": 4,
        "activation": "gelu",
        "init_std": 0.02,
    }
    assert record["config"] == dataclasses.asdict(QUICK)
    assert record["seed"] == 5


def test_a_record_says_who_asked_for_it(record):
    assert record["method"] == "some method"
    assert record["detail"] == {"round": 2}
    assert record["profile"] == "smoke"


def test_a_record_holds_the_sizes(record, small, half):
    assert record["density"] == 0.5
    assert trials.parameter_counts(small(), half).items() <= record.items()


def test_a_record_holds_the_scores_of_the_trained_model(small, rotten, half):
    model = small()
    record = trials.run(model, rotten, QUICK, seed=5, method="m", mask=half, progress=False)

    scores = ap.evaluate(model, rotten, QUICK)
    assert record["metrics"] == scores
    assert set(scores) == {"accuracy", "loss"}
    assert record["metric"] == "accuracy"
    assert record["score"] == scores["accuracy"]
    assert record["majority"] == rotten.majority


def test_a_record_holds_how_training_went(record):
    assert [row["step"] for row in record["history"]] == [2, 4]
    assert record["steps"] == 4
    assert record["best_step"] in {2, 4}
    assert record["validation_loss"] == min(row["validation_loss"] for row in record["history"])
    assert record["stopped_early"] is False


def test_the_validation_score_is_that_of_the_best_step(plain, rotten, monkeypatch):
    numbers = map(float, itertools.count())  # no two evaluations have one score
    monkeypatch.setattr(metrics, "compute", lambda *args: {"accuracy": next(numbers)})
    # Far too fast: the loss falls, then rises.
    config = dataclasses.replace(QUICK, learning_rate=0.02, epochs=3, patience=100)
    record = trials.run(plain(), rotten, config, seed=0, method="m", progress=False)

    scores = {row["step"]: row["score"] for row in record["history"]}
    assert len(set(scores.values())) == 6
    assert record["best_step"] not in (min(scores), max(scores))
    assert record["validation_score"] == scores[record["best_step"]]


def test_the_validation_score_is_what_the_trained_model_scores(plain, rotten):
    model, config = plain(), dataclasses.replace(QUICK, learning_rate=0.03, epochs=3)
    record = trials.run(model, rotten, config, seed=0, method="m", progress=False)

    scores = ap.evaluate(model, rotten, config, "validation")
    assert record["validation_score"] == scores["accuracy"]
    assert record["validation_loss"] == scores["loss"]


def test_a_record_holds_cost_and_circumstances(record):
    assert record["seconds"] > 0
    assert record["peak_memory_mib"] > 0
    assert set(record["hardware"]) == {"device", "threads"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["library"] == ap.records.library_hash()
    assert datetime.fromisoformat(record["created"]).tzinfo is not None


def test_two_runs_with_one_seed_give_equal_records(record, small, rotten, half):
    again = trials.run(
        small(),
        rotten,
        QUICK,
        seed=5,
        method="some method",
        mask=half,
        detail={"round": 2},
        profile="smoke",
        progress=False,
    )

    assert comparable(again) == comparable(record)
    assert again["seconds"] != record["seconds"]


def test_seed_and_mask_reach_the_training(small, rotten, half, fits):
    trials.run(small(), rotten, QUICK, seed=5, method="m", mask=half, progress=False)

    assert fits[0]["seed"] == 5
    assert fits[0]["mask"] == half


# Once


def test_a_trial_is_trained_once(store, small, rotten, fits):
    first = run_once(store, small(), rotten)
    second = run_once(ap.RecordStore(store.folder), small(), rotten)

    assert len(fits) == 1
    assert first == second
    assert store.all() == [first]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"method": "another"}, {"detail": {"round": 1}}],
    ids=["seed", "method", "detail"],
)
def test_another_trial_is_trained_beside_the_first(store, small, rotten, half, fits, change):
    run_once(store, small(), rotten, mask=half)
    run_once(store, small(), rotten, mask=half, **change)

    assert len(fits) == 2
    assert len(store.all()) == 2


# Shared


def state(model):
    """Name -> the exact bytes of everything that trains."""
    return {n: p.detach().numpy().tobytes() for n, p in training.trainable(model).items()}


@pytest.mark.parametrize(
    "other", [{"method": "another"}, {"detail": {"round": 0}}, {"mask": "all"}]
)
def test_a_whole_adapter_is_trained_once_for_all_methods(
    store, small, rotten, everything, fits, other
):
    first, second = small(), small()
    if other.get("mask"):
        other = {"mask": everything}
    one = run_once(store, first, rotten)
    two = run_once(ap.RecordStore(store.folder), second, rotten, **({"method": "other"} | other))

    assert len(fits) == 1
    assert len(store.all()) == 2
    assert state(first) == state(second) != state(small())
    for fact in ("metrics", "history", "validation_loss", "seconds", "peak_memory_mib", "hardware"):
        assert one[fact] == two[fact]


def test_a_search_begins_with_the_dense_baseline(store, small, rotten, fits):
    dense, model = run_once(store, small(), rotten), small()
    options = {"config": QUICK, "store": store, "progress": False}
    first, second = ap.find_tickets(model, rotten, rounds=1, **options)

    assert len(fits) == 2  # the baseline and round 1
    assert first.record["metrics"] == dense["metrics"]
    alone = list(ap.find_tickets(small(), rotten, rounds=1, config=QUICK, progress=False))
    assert [r.record["metrics"] for r in alone] == [
        first.record["metrics"],
        second.record["metrics"],
    ]
    assert [r.units for r in alone] == [first.units, second.units]


@pytest.mark.parametrize("change", ["seed", "start", "config", "pruned", "everything trains"])
def test_another_model_is_trained_for_itself(store, small, plain, rotten, half, fits, change):
    whole = plain if change == "everything trains" else small
    run_once(store, whole(), rotten)
    model, options = whole(), {"method": "another"}
    if change == "start":
        model.head.weight.data += 1
    options |= {"seed": 1} if change == "seed" else {}
    options |= {"mask": half} if change == "pruned" else {}
    options |= {"config": dataclasses.replace(QUICK, batch_size=8)} if change == "config" else {}
    run_once(store, model, rotten, **options)

    assert len(fits) == 2


@pytest.mark.parametrize("harm", ["torn", "changed"])
def test_a_damaged_trained_adapter_is_refused(store, small, rotten, refused, harm):
    run_once(store, small(), rotten)
    (file,) = (store.folder / "dense").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-9] if harm == "torn" else content)

    with refused(file.name, "damaged", "delete it"):
        run_once(store, small(), rotten, method="another")


def test_another_profile_takes_over_what_is_trained(store, small, rotten, fits):
    run_once(store, small(), rotten, profile="quick")
    run_once(store, small(), rotten, profile="gpu")

    assert len(fits) == 1


@pytest.fixture
def often(monkeypatch):
    """Checkpoints at every evaluation, instead of once a minute."""
    monkeypatch.setattr(trials, "fit", partial(training.fit, checkpoint_seconds=0))


def test_an_interrupted_trial_goes_on_where_it_stopped(store, small, rotten, often, monkeypatch):
    whole = run_once(ap.RecordStore(store.folder / "whole"), small(), rotten)
    steps, factor = [], training.rate_factor

    def interrupted(step, *args):
        if step == 3 and 3 not in steps:
            steps.append(step)
            raise KeyboardInterrupt
        steps.append(step)
        return factor(step, *args)

    monkeypatch.setattr(training, "rate_factor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_once(store, small(), rotten)
    assert store.all() == []

    assert comparable(run_once(store, small(), rotten)) == comparable(whole)
    assert steps == [0, 1, 2, 3, 2, 3]


@pytest.mark.usefixtures("often")
def test_no_checkpoint_stays_behind(store, small, rotten):
    run_once(store, small(), rotten)

    assert not list(store.folder.glob("*.pt"))


@pytest.mark.usefixtures("often")
def test_a_kill_right_after_the_record_leaves_no_checkpoint_for_ever(
    store, small, rotten, monkeypatch
):
    append = ap.RecordStore.append

    def killed(self, record):
        append(self, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ap.RecordStore, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            run_once(store, small(), rotten)
    assert list(store.folder.glob("*.pt"))

    run_once(store, small(), rotten)

    assert not list(store.folder.glob("*.pt"))
    assert len(store.all()) == 1
