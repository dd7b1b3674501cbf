"""Scores from 0 to 1, and ranks."""

import math

import pytest
import torch

from adapter_pruning.head_importance import normalise, ranks

SCORES = {"0.heads": torch.tensor([3.0, 4.0]), "1.heads": torch.tensor([0.0, 10.0])}


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        # 0 to 10.
        ("none", [[0.3, 0.4], [0.0, 1.0]]),
        # Norms 5 and 10: 0.6, 0.8, 0, 1.
        ("layer", [[0.6, 0.8], [0.0, 1.0]]),
        # One norm, which the scaling takes out again.
        ("global", [[0.3, 0.4], [0.0, 1.0]]),
    ],
)
def test_the_equations_by_hand(norm, expected):
    found = normalise(SCORES, norm)
    assert list(found) == list(SCORES)
    torch.testing.assert_close(torch.stack(list(found.values())), torch.tensor(expected))


@pytest.mark.parametrize("norm", ["none", "layer", "global"])
def test_the_lowest_is_0_and_the_highest_1_over_all_layers(norm):
    generator = torch.Generator().manual_seed(0)
    scores = {f"{i}.heads": torch.rand(12, generator=generator) * 10.0**-i for i in range(12)}
    every = torch.cat(list(normalise(scores, norm).values()))
    assert (every.min(), every.max()) == (0, 1)


def test_the_norm_of_a_layer_is_its_own_and_its_lowest_score_is_not_0():
    # sqrt(1 + 4) and sqrt(9 + 16): 1/sqrt(5) is the lowest and 2/sqrt(5) the highest of all.
    scores = {"0.heads": torch.tensor([1.0, 2.0]), "1.heads": torch.tensor([3.0, 4.0])}
    low, high = 1 / math.sqrt(5), 2 / math.sqrt(5)
    expected = torch.tensor([0.0, 1.0, (0.6 - low) / (high - low), (0.8 - low) / (high - low)])
    torch.testing.assert_close(torch.cat(list(normalise(scores).values())), expected)


def test_a_layer_without_any_gradient_stays_at_0_and_is_not_divided_by_0():
    found = normalise({"0.heads": torch.zeros(2), "1.heads": torch.tensor([1.0, 2.0])})
    assert found["0.heads"].tolist() == [0, 0]
    assert found["1.heads"].tolist() == [0.5, 1.0]


# Ranked


def test_ranks_go_from_0_for_the_highest_and_ties_to_the_first():
    scores = {"0.heads": torch.tensor([0.5, 0.9, 0.1]), "1.heads": torch.tensor([0.9, 0.5, 0.2])}
    found = ranks(scores)
    assert {name: rank.tolist() for name, rank in found.items()} == {
        "0.heads": [2, 0, 5],
        "1.heads": [1, 3, 4],
    }


def test_ranks_are_a_permutation_also_with_many_ties():
    generator = torch.Generator().manual_seed(0)
    scores = {f"{i}.heads": torch.randint(3, (12,), generator=generator) for i in range(12)}
    found = torch.cat(list(ranks(scores).values()))
    assert sorted(found.tolist()) == list(range(144))
    ordered = torch.cat(list(scores.values()))[found.argsort()]
    assert (ordered.diff() <= 0).all()
    ties = ordered.diff() == 0
    assert (found.argsort().diff()[ties] > 0).all()


# Refused


def test_an_unknown_norm_is_refused(refused):
    with refused("norm 'l1'", "none, layer, global"):
        normalise(SCORES, "l1")


@pytest.mark.parametrize("norm", ["none", "layer", "global"])
@pytest.mark.parametrize("score", [0.0, 0.25])
def test_scores_that_are_all_equal_are_refused(refused, norm, score):
    with refused("all scores are", "nothing ranks"):
        normalise({"0.heads": torch.full((4,), score), "1.heads": torch.full((4,), score)}, norm)
