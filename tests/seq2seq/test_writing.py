"""What a model writes, and the records and tickets of its trainings."""

from dataclasses import replace

import pytest
import torch
from small_adapters import KINDS, logits, randomise
from small_xsum import QUICK, made_up

import adapter_pruning as ap
from adapter_pruning.seq2seq import TINY

# What is written


def test_greedy_writing_takes_the_likeliest_token_each_time(model, batch, tokenizer):
    ap.attach(model, KINDS["Prefix"])
    randomise(model)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    begun = torch.full((2, 1), tokenizer.sep_token_id)
    for _ in range(6):
        with torch.no_grad():
            out = model.encoder(**source, decoder_input_ids=begun, use_cache=False)
        begun = torch.cat([begun, out.logits[:, -1:].argmax(-1)], dim=1)
    assert not (begun[:, 1:] == tokenizer.sep_token_id).any()
    # At the length limit an end is forced, in place of the eighth token.
    texts = model.write(**source, max_length=8, num_beams=1, do_sample=False)
    assert texts == tokenizer.batch_decode(begun, skip_special_tokens=True)


def test_more_beams_find_likelier_summaries(model, batch):
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    how = {"min_length": 8, "max_length": 8, "do_sample": False, "length_penalty": 0.0}
    likelihood = []
    for beams in (1, 6):
        options = how if beams > 1 else {k: v for k, v in how.items() if k != "length_penalty"}
        ids = model.encoder.generate(**source, **options, num_beams=beams)
        out = logits(model, {**source, "target_ids": ids[:, 1:-1]}).log_softmax(-1)
        likelihood.append(out.gather(2, ids[:, 1:-1, None]).sum())
    assert likelihood[1] > likelihood[0]


def test_a_model_learns_its_training_summaries(bart_folder):
    task, config = made_up(), QUICK
    model = ap.load_model(str(bart_folder), task, device="cpu", dropout=0.0)
    before = ap.evaluate(model, task, config, "train")["loss"]
    long = replace(config, epochs=15, learning_rate=0.005)
    progress = ap.fit(model, task, long, progress=False)
    assert progress.step > 5
    assert ap.evaluate(model, task, config, "train")["loss"] < before / 2


# Records and tickets


def test_a_trial_of_the_random_model_is_recorded_as_random_and_run_once(tmp_path):
    store, task = ap.RecordStore(tmp_path), made_up()

    def trial(**how):
        model = ap.load_model(TINY, task, seed=2, device="cpu")
        ap.attach(model, KINDS["Houlsby"])
        return ap.run_once(
            store, model, task, QUICK, seed=2, method="Houlsby", progress=False, **how
        )

    record = trial()
    assert record == trial()
    assert len(store.all()) == 1
    assert record["model_revision"].startswith("random:")
    assert (record["pooling"], record["metric"]) == ("none", "rougeL")
    assert record["parameters_stored"] == record["parameters_trained"]
    assert record["majority"] == task.majority
    assert set(record["metrics"]) == {"rougeL", "rouge1", "rouge2", "loss"}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A store with two rounds over a random model, and the second round."""
    store = ap.RecordStore(tmp_path_factory.mktemp("search"))
    model = ap.attach(ap.load_model(TINY, made_up(), seed=1, device="cpu"), ap.LoRA(rank=2))
    rounds = ap.find_tickets(
        model, made_up(), rounds=1, config=QUICK, seed=1, store=store, progress=False
    )
    return store, list(rounds)[-1], model


def test_a_ticket_of_a_model_that_writes_is_found_and_loaded_again(search, batch):
    store, found, model = search
    assert found.density == pytest.approx(0.8, abs=0.01)
    loaded = ap.load_ticket(store, found.record, made_up())
    assert torch.equal(logits(loaded.eval(), batch), logits(model.eval(), batch))


def test_a_ticket_is_refused_where_the_model_is_another_by_now(search, refused):
    # With another seed `tiny-bart` is another model, on which the ticket means nothing.
    store, found, _ = search
    with refused("'tiny-bart'", found.record["model_revision"], "random:"):
        ap.load_ticket(store, found.record | {"seed": 7}, made_up())


def test_a_ticket_of_a_model_that_writes_is_refused_for_a_task_with_classes(
    search, rotten, refused
):
    store, found, _ = search
    with refused("'xsum'", "0 output(s)", "'rotten_tomatoes'"):
        ap.load_ticket(store, found.record, rotten)
