"""Two trials are one exactly when everything that could change the result is equal."""

import dataclasses
import json

import pytest
import torch
from quick_training import QUICKER as QUICK

import adapter_pruning as ap
from adapter_pruning import trials

# Identity


@pytest.fixture
def identity(small, rotten, half):
    """identity(**changes): of one and the same trial, but for the changes."""

    def identity(**changes):
        trial = {"model": small(), "task": rotten, "config": QUICK, "seed": 0, "mask": half}
        return trials.identity(**(trial | changes))

    return identity


def test_equal_trials_have_equal_identities(tiny_bert, rotten, half):
    def made_anew():
        model = ap.attach(tiny_bert(), ap.Houlsby(bottleneck=4))
        return trials.identity(model, rotten, ap.TrainConfig(), 0, ap.Mask(dict(half)))

    assert made_anew() == made_anew()


def test_an_identity_is_plain_json(identity):
    found = identity()

    assert json.loads(json.dumps(found)) == found


OTHER_SETTINGS = {
    "learning_rate": 2e-3,
    "epochs": 2,
    "batch_size": 8,
    "warmup_epochs": 0.5,
    "weight_decay": 0.1,
    "optimizer": "adamw",
    "evaluations_per_epoch": 1,
    "patience": 1,
    "max_length": 17,
    "precision": "bf16",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ap.TrainConfig)])
def test_every_setting_is_part_of_the_identity(identity, name):
    changed = dataclasses.replace(QUICK, **{name: OTHER_SETTINGS[name]})

    assert identity(config=changed) != identity()


def with_other(model, **values):
    for name, value in values.items():
        setattr(model, name, value)
    return model


def with_other_weight(model):
    with torch.no_grad():
        model.adapters["1"]["ffn"].up.weight[3, 2] += 1e-6
    return model


def with_other_head(model):
    with torch.no_grad():
        model.head.bias[0] = 1e-6
    return model


def with_other_activation(model):
    config = dataclasses.replace(model.adapter_config, activation="relu")
    return with_other(model, adapter_config=config)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: with_other(model, name="another"),
        lambda model: with_other(model, revision="another"),
        lambda model: with_other(model, pooling="cls"),
        with_other_activation,
        with_other_weight,
        with_other_head,
    ],
    ids=["name", "revision", "pooling", "adapter", "initial adapters", "initial head"],
)
def test_another_model_is_another_trial(identity, small, change):
    assert identity(model=change(small())) != identity()


def test_a_frozen_head_is_part_of_the_identity_as_one_that_trains_is(identity, small):
    one, other = small(), with_other_head(small())
    for model in (one, other):
        model.head.requires_grad_(False)
    assert identity(model=one) != identity(model=other)


def test_which_heads_were_cut_is_part_of_the_identity(plain, rotten):
    """Two models of one shape, with the same LoRA."""
    found = []
    for gone in (0, 3):
        keep = torch.arange(4) != gone
        model = ap.cut(plain(), ap.Mask({"0.heads": keep}))
        ap.attach(model, ap.LoRA(rank=2), seed=1)
        found.append(trials.identity(model, rotten, QUICK, 0))
    assert found[0] != found[1]
    assert found[0] | {"cut": None} == found[1] | {"cut": None}


def test_full_fine_tuning_is_another_trial(identity, plain):
    assert identity(model=plain(), mask=None) != identity(mask=None)


@pytest.mark.parametrize(
    "change",
    [
        lambda task: {"revision": "another"},
        lambda task: {"train": task.validation},
        lambda task: {"validation": task.train},
        lambda task: {"test": task.validation},
        lambda task: {"spec": ap.TASKS["glue/sst2"]},
    ],
    ids=["revision", "training rows", "validation rows", "test rows", "name"],
)
def test_another_task_is_another_trial(identity, rotten, change):
    assert identity(task=dataclasses.replace(rotten, **change(rotten))) != identity()


def test_other_rows_of_the_same_number_are_another_trial(identity):
    sizes = {"train_size": 64, "validation_size": 32, "test_size": 64}
    tenth, half = (ap.load_task("rotten_tomatoes", hold_out=h, **sizes) for h in (0.1, 0.5))
    assert tenth.train.texts != half.train.texts

    assert identity(task=tenth) != identity(task=half)


def test_another_seed_is_another_trial(identity):
    assert identity(seed=1) != identity()


def test_another_mask_is_another_trial(identity, half):
    found = [identity(mask=mask) for mask in (half, ~half, None)]

    assert found[0] != found[1] != found[2] != found[0]


def test_another_library_makes_other_trials(identity, monkeypatch):
    before = identity()
    monkeypatch.setattr(trials, "library_hash", lambda: "another")

    assert identity() != before


def test_a_key_depends_on_method_and_detail(identity):
    about = identity()
    keys = {
        trials.key(about, "a"),
        trials.key(about, "b"),
        trials.key(about, "a", {"round": 1}),
        trials.key(about, "a", {"round": 2}),
    }

    assert len(keys) == 4
    assert trials.key(about, "a", {}) == trials.key(about, "a", None) in keys


def test_other_versions_are_another_trial(identity, monkeypatch):
    before = identity()
    monkeypatch.setattr(trials.measure, "versions", lambda: {"torch": "0.0.0"})
    assert identity() != before
