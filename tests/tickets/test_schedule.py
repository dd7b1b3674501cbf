"""How many units every round keeps, where a search ends, and the calls that are refused."""

import pytest
from ticket_searches import WEIGHTS

import adapter_pruning as ap
from adapter_pruning.errors import PruningError

# The schedule


def test_every_round_drops_its_share_of_the_survivors(search, coarse):
    rounds = search(rounds=4, drop=0.2)

    kept = [WEIGHTS]
    for _ in range(4):
        kept.append(kept[-1] - kept[-1] * 2 // 10)
    assert [found.units.kept for found in rounds] == kept
    assert [found.index for found in rounds] == [0, 1, 2, 3, 4]
    assert [found.density for found in rounds] == [count / WEIGHTS for count in kept]


def test_no_rounds_means_the_unpruned_adapter_alone(search, coarse):
    (only,) = search(rounds=0)

    assert (only.index, only.density, len(coarse)) == (0, 1, 1)


@pytest.mark.parametrize("rounds", [10, 11, 15])
def test_the_search_ends_when_there_is_nothing_left_to_drop(search, coarse, rounds):
    found = search(rounds=rounds, drop=0.5)

    assert [one.units.kept for one in found] == [2**power for power in range(10, -1, -1)]
    assert len(coarse) == 11


@pytest.mark.parametrize(
    ("unit", "drop", "kept"),
    [
        ("neuron", 0.2, [16, 13, 11, 9, 8, 7, 6, 5, 4]),
        ("neuron", 0.5, [16, 8, 4, 2, 1]),
        ("adapter", 0.2, [4]),
        ("adapter", 0.5, [4, 2, 1]),
    ],
)
def test_a_search_of_neurons_or_adapters_ends_by_the_schedule(search, coarse, unit, drop, kept):
    found = search(unit=unit, rounds=15, drop=drop)

    assert [one.units.kept for one in found] == kept
    assert [one.units.total for one in found] == kept[:1] * len(kept)
    assert len(coarse) == len(kept)


# Bad calls


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"unit": "wait"}, r"unknown unit 'wait'; choose one of: weight.*"),
        (
            {"drop": 0.0},
            r"drop is 0\.0; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": 1.0},
            r"drop is 1\.0; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": 20},
            r"drop is 20; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": float("nan")},
            r"drop is nan; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        (
            {"drop": "0.2"},
            r"drop is '0\.2'; it must be a number above 0 and below 1 \(which empties the model\)",
        ),
        ({"rounds": -1}, r"rounds is -1; it must be a whole number, at least 0"),
        ({"rounds": 2.0}, r"rounds is 2\.0; it must be a whole number, at least 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_by_the_call_itself(small, rotten, store, options, sentence):
    with pytest.raises(PruningError, match=f"^{sentence}$"):
        ap.find_tickets(small(), rotten, store=store, **options)

    assert not store.folder.exists()


def test_a_model_without_adapters_is_refused_by_the_call_itself(tiny_bert, rotten):
    with pytest.raises(PruningError, match=r"^the model has no adapters; attach some first$"):
        ap.find_tickets(tiny_bert(), rotten)
