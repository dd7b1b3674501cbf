"""Every round has a record, and a search goes on where it stopped."""

import dataclasses
import itertools
from functools import partial

import pytest
import torch
from ticket_searches import QUICK, WEIGHTS, assert_same, bits, no_training, refusal

import adapter_pruning as ap
from adapter_pruning import training, trials
from adapter_pruning.errors import PruningError
from adapter_pruning.importance import neuron_norm
from adapter_pruning.training import trainable
from adapter_pruning.units import UNITS

# Records


def test_every_round_has_a_record(search, store):
    rounds = search(store, profile="smoke")

    assert store.all() == [found.record for found in rounds]
    for found in rounds:
        record = found.record
        assert record["method"] == "weight ticket"
        assert record["profile"] == "smoke"
        assert record["density"] == found.mask.density
        assert found.score == record["score"] == record["metrics"]["accuracy"]
        assert record["detail"] == {
            "unit": "weight",
            "round": found.index,
            "kept": found.units.kept,
            "total": WEIGHTS,
            "unit_density": found.density,
            "density_by_matrix": found.mask.densities(),
        }


def test_without_a_store_the_search_runs_in_memory(search, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_memory = search()

    assert not list(tmp_path.rglob("*"))
    assert_same(in_memory, search(store))


# Going on


@pytest.mark.parametrize("unit", UNITS)
def test_a_finished_search_is_read_and_not_trained_again(search, store, monkeypatch, unit):
    first = search(store, unit=unit)
    monkeypatch.setattr(trials, "fit", no_training)
    second = search(ap.RecordStore(store.folder), unit=unit)

    assert [found.record for found in second] == [found.record for found in first]
    assert_same(second, first)


def test_a_search_that_is_extended_trains_only_the_new_rounds(search, store, trained):
    two = search(store, rounds=2)
    four = search(store, rounds=4)

    assert len(trained) == 5
    assert_same(four[:3], two)
    assert_same(four, search(rounds=4))


def test_a_search_that_is_cut_short_has_stored_what_it_yielded(
    small, rotten, store, search, trained
):
    some = ap.find_tickets(small(), rotten, rounds=3, config=QUICK, store=store, progress=False)
    first = [next(some), next(some)]
    assert len(trained) == 2
    some.close()

    assert_same(search(store)[:2], first)
    assert len(trained) == 4


def test_extending_without_rewinding_the_head_finds_the_head_again(search, store):
    search(store, rounds=1, rewind_head=False)

    assert_same(search(store, rewind_head=False), search(rewind_head=False))


@pytest.mark.parametrize(
    "change",
    [{"drop": 0.5}, {"seed": 1}, {"rewind_head": False}, {"config": ap.TrainConfig(epochs=1)}],
    ids=lambda change: next(iter(change)),
)
def test_another_search_in_the_same_store_is_kept_apart(search, store, change):
    first = search(store, rounds=2)
    search(store, rounds=2, **change)

    assert_same(search(store, rounds=2), first)
    assert len(list((store.folder / "searches").iterdir())) == 2


@pytest.mark.parametrize("unit", UNITS)
def test_a_round_that_is_read_leaves_the_trained_weights_in_the_model_to_the_bit(
    small, rotten, store, trained, monkeypatch, unit
):
    options = {"unit": unit, "rounds": 2, "drop": 0.5, "config": QUICK, "progress": False}
    rounds = list(ap.find_tickets(small(), rotten, store=store, **options))
    monkeypatch.setattr(trials, "fit", no_training)
    model = small()

    again = ap.find_tickets(model, rotten, store=store, **options)

    assert len(rounds) == len(trained) == 3
    for run, _ in zip(trained, again, strict=True):
        assert bits(trainable(model)) == bits(run.end)


def test_another_score_under_the_same_name_is_another_search(search, store, trained):
    search(store, unit="neuron", rounds=1)
    backwards = dataclasses.replace(
        UNITS["neuron"], score=lambda p, mask: {n: -s for n, s in neuron_norm(p, mask).items()}
    )

    found = search(store, unit=backwards, rounds=1)

    assert_same(found, search(unit=backwards, rounds=1))
    assert len(list((store.folder / "searches").iterdir())) == 2


def test_a_score_that_is_rounded_differently_is_the_same_search(search, store, trained):
    # Sums over large tensors do so on another device or with another number of threads.
    def rounded(parameters, mask):
        scores = neuron_norm(parameters, mask)
        return {name: torch.nextafter(score, 2 * score) for name, score in scores.items()}

    search(store, unit="neuron", rounds=1)
    search(store, unit=dataclasses.replace(UNITS["neuron"], score=rounded), rounds=1)

    assert len(trained) == 2


EVALUATIONS = 2 * 3 + 3  # two in each training, and one of the trained model


@pytest.mark.parametrize("rewind_head", [True, False])
@pytest.mark.parametrize("evaluation", range(1, EVALUATIONS + 1))
def test_an_interrupted_search_goes_on_to_the_same_end(
    search, store, monkeypatch, evaluation, rewind_head
):
    options = {"rounds": 2, "rewind_head": rewind_head}
    whole = search(**options)
    calls, predict = itertools.count(1), training.predict

    def interrupted(*args):
        if next(calls) == evaluation:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(trials, "fit", partial(training.fit, checkpoint_seconds=0))
    monkeypatch.setattr(training, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(store, **options)

    assert_same(search(store, **options), whole)
    # One evaluation was begun twice, and no other.
    assert next(calls) == EVALUATIONS + 2
    assert not list(store.folder.rglob("*.pt"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: content + b"more",
    ],
    ids=["cut off", "empty", "zeros", "too long"],
)
def test_a_damaged_round_is_refused_in_a_sentence(search, store, damage):
    search(store, rounds=1)
    (file,) = store.folder.rglob("round_00.safetensors")
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(PruningError, match=refusal(file)):
        search(store, rounds=1)


def test_a_round_with_one_changed_byte_is_refused(search, store):
    search(store, rounds=1)
    (file,) = store.folder.rglob("round_00.safetensors")
    content = file.read_bytes()

    for place in range(0, len(content), len(content) // 40):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(PruningError, match=refusal(file)):
            search(store, rounds=1)


def test_a_deleted_round_is_trained_again(search, store, trained):
    whole = search(store, rounds=2)
    (file,) = store.folder.rglob("round_01.safetensors")
    file.unlink()

    assert_same(search(store, rounds=2), whole)
    assert len(trained) == 4
    assert len(store.all()) == 3


def test_a_record_lost_from_the_store_is_restored_from_its_round(search, store, monkeypatch):
    rounds = search(store, rounds=2)
    store.file(rounds[0].record).unlink()
    monkeypatch.setattr(trials, "fit", no_training)

    search(store, rounds=2)

    assert store.all() == [found.record for found in rounds]
