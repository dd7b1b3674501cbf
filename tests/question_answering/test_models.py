"""Models that answer: training, pruning and trials as for any other task."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from quick_training import QUICKER
from small_adapters import KINDS, randomise

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.at_init import prune_at_init
from adapter_pruning.training import predict


def test_on_every_architecture_the_head_speaks_at_every_token(folder, task, inputs):
    model = ap.load_model(str(folder), task, device="cpu").eval()
    out = model.encoder(**inputs).last_hidden_state
    logits = model(**inputs)
    assert model.pooling == "tokens"
    assert logits.shape == (*inputs["input_ids"].shape, 2)
    words = inputs["attention_mask"][1].sum()
    torch.testing.assert_close(logits[0], model.head(out[0]))
    torch.testing.assert_close(logits[1, :words], model.head(out[1, :words]))


def test_padding_is_no_rival_and_changes_nothing(folder, task, inputs):
    model = ap.load_model(str(folder), task, device="cpu").eval()
    words = int(inputs["attention_mask"][1].sum())
    alone = model(**{name: tensor[1:, :words] for name, tensor in inputs.items()})
    padded = model(**inputs)[1:]
    labels = torch.tensor([[1, words - 1]])
    assert padded.shape[1] > words
    torch.testing.assert_close(task.loss(padded, labels), task.loss(alone, labels))
    torch.testing.assert_close(padded[:, :words], alone)
    assert padded.softmax(1)[:, words:].max() == 0


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_every_kind_of_adapter_learns_to_answer(reader, task, config):
    model = ap.attach(reader, config)
    encoder = copy.deepcopy(model.encoder.state_dict())
    config = dataclasses.replace(QUICKER, learning_rate=1e-2, epochs=6)
    losses = [row["training_loss"] for row in ap.fit(model, task, config, progress=False).history]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in adapter_parameters(model).values())
    assert all(torch.equal(tensor, encoder[n]) for n, tensor in model.encoder.state_dict().items())


def test_a_model_that_learned_where_answers_are_gives_them_back_as_text(reader, task):
    config = dataclasses.replace(QUICKER, learning_rate=1e-2, epochs=15, max_length=64)
    before = ap.evaluate(reader, task, config)
    ap.fit(reader, task, config, progress=False)
    after = ap.evaluate(reader, task, config)
    assert before["exact_match"] < 0.5
    assert after["exact_match"] == after["answer_f1"] == 1.0
    answers, _ = predict(reader, task, "test", config)
    windows = task.encode(reader.tokenizer, 64)["test"]
    assert task.texts("test", answers, windows) == [golds[0] for golds in task.test.texts[2]]


def test_bf16_trains_and_scores_as_fp32_does(reader, task):
    found = {}
    for precision in ("fp32", "bf16"):
        model = copy.deepcopy(reader)
        config = dataclasses.replace(QUICKER, precision=precision)
        ap.fit(ap.attach(model, KINDS["Houlsby"]), task, config, progress=False)
        found[precision] = ap.evaluate(model, task, config)["loss"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)
    assert found["bf16"] != found["fp32"]


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_adapters_are_pruned_at_initialisation_by_the_loss_of_answers(reader, task, criterion):
    model = ap.attach(reader, KINDS["Houlsby"])
    randomise(model)
    mask = prune_at_init(model, task, criterion, 0.4, rows=8, batch_size=4, max_length=16)
    assert mask.kept == mask.total - np.ceil(0.4 * mask.total)


def test_a_trial_is_recorded_once_and_a_search_goes_on_to_its_tickets(reader, task, tmp_path):
    store = ap.RecordStore(tmp_path / "records.jsonl")
    model = ap.attach(copy.deepcopy(reader), KINDS["Houlsby"])
    options = {"seed": 0, "method": "adapters", "progress": False}
    record = ap.run_once(store, copy.deepcopy(model), task, QUICKER, **options)
    assert ap.run_once(store, copy.deepcopy(model), task, QUICKER, **options) == record
    assert json.loads(json.dumps(record)) == record
    assert record["metric"] == "answer_f1"
    assert set(record["metrics"]) == {"answer_f1", "exact_match", "loss"}
    assert record["majority"] == task.majority
    assert (record["pooling"], record["rows"]) == ("tokens", task.sizes)
    options = {"unit": "neuron", "rounds": 2, "drop": 0.4, "store": store, "progress": False}
    found = list(ap.find_tickets(model, task, config=QUICKER, **options))
    ticket = ap.load_ticket(store, found[-1].record, task)
    assert ap.evaluate(ticket, task, QUICKER)["answer_f1"] == found[-1].score


def test_a_head_for_texts_does_not_answer_and_one_for_tokens_does_not_classify(
    tiny_bert, reader, rotten, task, refused
):
    with refused("pooling 'pooler'", "'squad'", "load a model for this task"):
        ap.fit(tiny_bert(), task, QUICKER, progress=False)
    with refused("pooling 'tokens'", "'rotten_tomatoes'", "load a model for this task"):
        ap.evaluate(reader, rotten, QUICKER)


def test_a_pooling_that_does_not_go_with_the_task_is_refused(tiny_bert, rotten, task, refused):
    with refused("pooling 'mean'", "'squad'", "'tokens'"):
        tiny_bert(task, pooling="mean")
    with refused("pooling 'tokens'", "'rotten_tomatoes'", "another"):
        tiny_bert(rotten, pooling="tokens")
