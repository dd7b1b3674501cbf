"""Scores: the mask's names and shapes, higher is more important."""

import pytest
import torch

from adapter_pruning import importance, units
from adapter_pruning.masks import Mask, prune

PARAMETERS = {
    "a.weight": torch.nn.Parameter(torch.tensor([[-3.0, 0.5], [2.0, -0.1]])),
    "a.bias": torch.nn.Parameter(torch.tensor([9.0, 9.0])),
    "b.weight": torch.nn.Parameter(torch.tensor([1.0, -4.0])),
}
WEIGHTS = Mask.ones({name: p for name, p in PARAMETERS.items() if name.endswith("weight")})


def test_magnitude_is_the_absolute_value_of_every_weight_in_the_mask():
    scores = importance.magnitude(PARAMETERS, WEIGHTS)
    assert list(scores) == ["a.weight", "b.weight"]
    assert torch.equal(scores["a.weight"], torch.tensor([[3.0, 0.5], [2.0, 0.1]]))
    assert torch.equal(scores["b.weight"], torch.tensor([1.0, 4.0]))


def test_magnitude_prunes_the_small_weights_of_all_tensors_together():
    left = prune(WEIGHTS, importance.magnitude(PARAMETERS, WEIGHTS), 0.5)
    assert left["a.weight"].tolist() == [[True, False], [True, False]]
    assert left["b.weight"].tolist() == [False, True]


@pytest.mark.parametrize("score", [importance.magnitude, importance.random])
def test_scores_fit_the_mask_carry_no_gradient_and_leave_the_weights_alone(score):
    before = {name: p.detach().clone() for name, p in PARAMETERS.items()}
    scores = score(PARAMETERS, WEIGHTS)
    assert {n: s.shape for n, s in scores.items()} == {n: m.shape for n, m in WEIGHTS.items()}
    assert not any(s.requires_grad for s in scores.values())
    scores["a.weight"].fill_(7)
    assert all(torch.equal(PARAMETERS[name], tensor) for name, tensor in before.items())


def test_random_scores_are_of_the_seed_alone_and_never_zero():
    mask = Mask.ones({"a": torch.empty(300, 100)})
    state = torch.get_rng_state()
    first, same, other = (importance.random({}, mask, seed)["a"] for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.min() > 0
    assert first.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)


def test_random_scores_prune_about_evenly():
    mask = Mask.ones({"a": torch.empty(10_000), "b": torch.empty(10_000)})
    left = prune(mask, importance.random({}, mask, 0), 0.5)
    assert left.kept == 10_000
    assert left.densities() == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.02)


def test_the_weight_unit_ranks_matrices_and_no_biases():
    unit = units.UNITS["weight"]
    mask = unit.all(PARAMETERS)
    assert mask == WEIGHTS
    assert unit.expand(mask, PARAMETERS) == mask
    assert unit.score is importance.magnitude
