"""What a round trains: the units it keeps, from the initial values."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from ticket_searches import QUICK, bits, values

import adapter_pruning as ap
from adapter_pruning import tickets
from adapter_pruning.importance import neuron_norm
from adapter_pruning.training import trainable
from adapter_pruning.units import UNITS


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_gone_stays_gone(search, unit):
    rounds = search(unit=unit, drop=0.4)

    assert len(rounds) > 1
    for one, following in itertools.pairwise(rounds):
        assert (one.units & following.units) == following.units != one.units
        assert (one.mask & following.mask) == following.mask != one.mask


def ranked(masks, trained, drop_tenths):
    """The next masks by brute force: sort every survivor, drop the floor of its share."""
    survivors = [
        (abs(float(trained[name][index])), place, index)
        for place, name in enumerate(masks)
        for index in zip(*np.nonzero(masks[name].numpy()), strict=True)
    ]
    survivors.sort()  # equal scores: the earlier matrix, then the earlier entry
    following = {name: kept.numpy().copy() for name, kept in masks.items()}
    names = list(masks)
    for _, place, index in survivors[: len(survivors) * drop_tenths // 10]:
        following[names[place]][index] = False
    return ap.Mask({name: torch.from_numpy(kept) for name, kept in following.items()})


@pytest.mark.parametrize("drop_tenths", [2, 7])
def test_the_next_mask_ranks_all_trained_weights_together(search, trained, drop_tenths):
    rounds = search(drop=drop_tenths / 10)

    for one, following, training_run in zip(rounds, rounds[1:], trained, strict=False):
        assert following.mask == ranked(one.mask, training_run.end, drop_tenths)


def test_ties_fall_to_the_entry_that_comes_first(search, coarse):
    rounds = search(rounds=5, drop=0.3)

    for one, following, training_run in zip(rounds, rounds[1:], coarse, strict=False):
        assert following.mask == ranked(one.mask, training_run.end, 3)


def test_biases_and_the_head_are_never_pruned(search, coarse):
    last = search(rounds=15, drop=0.5)[-1]

    assert all(re.fullmatch(r"adapters\..*\.(down|up)\.weight", name) for name in last.mask)


@pytest.mark.parametrize("unit", UNITS)
def test_every_round_starts_from_the_initial_values(search, small, trained, unit):
    search(unit=unit, drop=0.4)

    for run in trained:
        assert bits(run.start) == bits(values(small()))


@pytest.mark.parametrize("unit", UNITS)
def test_pruned_entries_are_zero_in_the_trained_model(search, trained, unit):
    rounds = search(unit=unit, drop=0.4)

    assert [run.mask for run in trained] == [found.mask for found in rounds]
    for run in trained:
        for name, kept in run.mask.items():
            assert not run.end[name][~kept].any()
            assert run.end[name][kept].all()


def test_the_model_ends_with_the_trained_weights_of_the_last_round(search, small, trained):
    model = small()
    search(model=model)

    assert bits(trainable(model)) == bits(trained[-1].end)


LOW = "adapters.0.ffn"


def low_score(parameters, mask):
    """Neurons of one adapter rank below all others; in their order, so that none is zero."""
    scores = neuron_norm(parameters, mask)
    scores[LOW] = scores[LOW] * 1e-9
    return scores


@pytest.fixture
def emptied(small, rotten):
    """A model whose one adapter has lost its neurons, trained, and the round that left it so."""
    model = small()
    unit = dataclasses.replace(UNITS["neuron"], name="neuron, one adapter first", score=low_score)
    config = dataclasses.replace(QUICK, learning_rate=0.01, warmup_epochs=0.0)
    options = {"rounds": 2, "drop": 0.25, "config": config, "progress": False}
    *_, emptying, last = ap.find_tickets(model, rotten, unit=unit, **options)
    for found in (emptying, last):
        assert [name for name, kept in found.units.items() if not kept.any()] == [LOW]
    return model, last


def output_of(model, hidden):
    layer, position = LOW.split(".")[1:]
    with torch.no_grad():
        return model.eval().adapters[layer][position](hidden)


def test_a_ticket_with_an_adapter_that_lost_all_neurons_still_trains(emptied, small):
    model, last = emptied
    start = values(small())

    assert last.units.kept == 9
    for name, kept in last.mask.items():
        moved = trainable(model)[name] != start[name]
        assert moved[kept].all(), name


def test_an_adapter_that_lost_all_neurons_adds_nothing(emptied):
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))

    assert not output_of(emptied[0], hidden).any()


def test_without_rewinding_the_head_goes_on_from_its_last_training(search, small, trained):
    search(rewind_head=False)

    initial = bits(values(small()))
    for before, run in itertools.pairwise(trained):
        for name, content in bits(run.start).items():
            expected = bits(before.end) if name.startswith("head.") else initial
            assert content == expected[name], name


def test_rewind_sets_everything_back_to_the_bit(small):
    model, initial = small(), values(small())
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(1)

    tickets.rewind(model, initial, head=True)

    assert bits(trainable(model)) == bits(initial)


def test_another_seed_finds_other_tickets(search):
    assert search(rounds=1, seed=0)[1].mask != search(rounds=1, seed=1)[1].mask
