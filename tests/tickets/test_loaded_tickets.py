"""Tickets are loaded from their records as they were trained."""

import numpy as np
import pytest
import torch
from ticket_searches import QUICK, bits, no_training, refusal

import adapter_pruning as ap
from adapter_pruning import training, trials
from adapter_pruning.errors import PruningError
from adapter_pruning.training import trainable
from adapter_pruning.units import UNITS


@pytest.fixture
def on_cpu(monkeypatch):
    """`load_ticket` takes the device that is there; bits are compared on one kind."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("unit", UNITS)
def test_a_ticket_is_loaded_from_its_record_as_it_was_trained(
    search, store, rotten, trained, monkeypatch, unit
):
    rounds = search(store, unit=unit, rounds=2, drop=0.5)
    monkeypatch.setattr(trials, "fit", no_training)

    for found, run in zip(rounds, trained, strict=True):
        model = ap.load_ticket(ap.RecordStore(store.folder), found.record, rotten)
        assert bits(trainable(model)) == bits(run.end)
        assert ap.evaluate(model, rotten, QUICK) == found.record["metrics"]


@pytest.mark.usefixtures("on_cpu")
def test_a_loaded_ticket_predicts_what_the_trained_model_predicted(search, store, rotten, small):
    model = small()
    last = search(store, model, rounds=1)[-1]

    loaded = ap.load_ticket(store, last.record, rotten)

    expected = training.predict(model, rotten, "test", QUICK)
    for found, known in zip(training.predict(loaded, rotten, "test", QUICK), expected, strict=True):
        np.testing.assert_array_equal(found, known)
    assert not any(p.requires_grad for p in loaded.encoder.parameters())
    assert (loaded.pooling, loaded.name) == (model.pooling, model.name)
    assert loaded.adapter_config == model.adapter_config


@pytest.mark.usefixtures("on_cpu")
def test_a_loaded_ticket_has_the_records_pooling_dropout_and_adapters(
    tiny_bert, rotten, search, store
):
    config = ap.Houlsby(bottleneck=3, activation="relu", init_std=0.05)
    model = ap.attach(tiny_bert(pooling="mean", dropout=0.25), config)
    last = search(store, model, rounds=1)[-1]

    loaded = ap.load_ticket(store, last.record, rotten)

    assert (loaded.pooling, loaded.dropout.p) == ("mean", 0.25)
    assert loaded.adapter_config == config
    assert bits(trainable(loaded)) == bits(trainable(model))
    assert ap.evaluate(loaded, rotten, QUICK) == last.record["metrics"]


@pytest.mark.usefixtures("on_cpu")
def test_of_two_searches_in_one_store_the_records_own_round_is_loaded(
    search, store, rotten, trained
):
    slow = search(store, rounds=1, drop=0.2)
    fast = search(store, rounds=1, drop=0.7)

    dense, slower, faster = trained  # both searches begin with the same round
    for found, run in zip(slow + fast, [dense, slower, dense, faster], strict=True):
        model = ap.load_ticket(store, found.record, rotten)
        assert bits(trainable(model)) == bits(run.end)


@pytest.mark.parametrize(("index", "gone"), [(0, 0), (1, 1), (2, 2), (2, 1)])
def test_a_record_whose_round_file_is_gone_is_refused(search, store, rotten, refused, index, gone):
    record = search(store, rounds=2)[index].record
    (file,) = store.folder.rglob(f"round_0{gone}.safetensors")
    file.unlink()

    with refused(str(store.folder), record["key"] if index == gone else file.name):
        ap.load_ticket(store, record, rotten)


def test_a_record_of_another_store_is_refused(search, store, rotten, tmp_path, refused):
    record = search(store, rounds=0)[0].record
    elsewhere = ap.RecordStore(tmp_path / "elsewhere")

    with refused(record["key"], str(elsewhere.folder), "run its search again there"):
        ap.load_ticket(elsewhere, record, rotten)


def test_a_ticket_from_a_damaged_round_is_refused(search, store, rotten):
    record = search(store, rounds=0)[0].record
    (file,) = store.folder.rglob("round_00.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(PruningError, match=refusal(file)):
        ap.load_ticket(store, record, rotten)


def test_a_ticket_for_a_task_with_another_number_of_outputs_is_refused(search, store, refused):
    record = search(store, rounds=0)[0].record
    task = ap.load_task("stsb", train_size=8, validation_size=4, test_size=4)

    with refused("'rotten_tomatoes' with 2 output(s)", "'stsb' has 1"):
        ap.load_ticket(store, record, task)


def test_a_record_of_no_search_is_refused_in_a_sentence(store, small, rotten, refused):
    options = {"seed": 0, "method": "adapter", "progress": False}
    record = ap.run_once(store, small(), rotten, QUICK, **options)

    with refused(record["key"]):
        ap.load_ticket(store, record, rotten)
