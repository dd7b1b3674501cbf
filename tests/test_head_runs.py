"""Importance maps as records."""

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import head_runs
from adapter_pruning.head_runs import scores_of

CONFIG = ap.TrainConfig(epochs=2, batch_size=16, max_length=16, precision="fp32")


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path)


def scored(store, model, rotten, **options):
    return ap.run_importance(store, model, rotten, CONFIG, **{"seed": 0, "rows": 8, **options})


def test_the_record_has_the_scores_to_the_bit_and_what_they_are(store, plain, rotten):
    record = scored(store, plain(), rotten, draw=3, kinds=("heads", "ffn"), profile="smoke")
    direct = ap.unit_importance(
        plain(), rotten, rows=8, seed=3, kinds=("heads", "ffn"), batch_size=16, max_length=16
    )
    found = scores_of(store.all()[0])
    assert list(found) == list(direct)
    assert all(torch.equal(found[name], direct[name]) for name in direct)
    assert record["detail"] == {
        "rows": 8,
        "draw": 3,
        "head": "untrained",
        "form": "example",
        "kinds": ["heads", "ffn"],
    }
    assert (record["task"], record["profile"]) == ("rotten_tomatoes", "smoke")


def test_a_known_map_is_not_scored_again(store, plain, rotten, monkeypatch):
    first = scored(store, plain(), rotten)
    monkeypatch.setattr(head_runs, "unit_importance", None)
    assert scored(store, plain(), rotten) == first


def test_layers_are_in_their_order_and_not_in_that_of_the_alphabet():
    names = [f"{layer}.{kind}" for layer in range(12) for kind in ("heads", "ffn")]
    record = {"scores": {name: [float(i)] for i, name in sorted(enumerate(names), key=str)}}
    assert list(scores_of(record)) == names
    assert [score.item() for score in scores_of(record).values()] == list(range(24))


@pytest.mark.parametrize("other", [{"rows": 9}, {"draw": 1}, {"form": "position"}, {"seed": 1}])
def test_another_sample_form_or_seed_is_another_map(store, plain, rotten, other):
    assert scored(store, plain(), rotten)["key"] != scored(store, plain(), rotten, **other)["key"]
    assert len(store.all()) == 2


def test_a_trained_head_is_another_map_and_only_the_head_was_trained(store, plain, rotten):
    before, model = plain(), plain()
    ap.train_head(model, rotten, CONFIG, seed=0)
    assert not torch.equal(model.head.weight, before.head.weight)
    for name, parameter in before.encoder.named_parameters():
        assert torch.equal(parameter, model.encoder.get_parameter(name)), name
    assert scored(store, before, rotten)["key"] != scored(store, model, rotten)["key"]


def test_the_head_trains_for_one_pass(store, plain, rotten, monkeypatch):
    seen = []
    monkeypatch.setattr(head_runs, "fit", lambda *args, **options: seen.append(args[2].epochs))
    ap.train_head(plain(), rotten, CONFIG, seed=0)
    assert seen == [1]
