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


# The two scores of the paper that leave a choice, by plain loops over numbers


@pytest.fixture(scope="module")
def adapters():
    """Two adapters of three neurons on a width of five, with biases that must not count."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"down.weight": (3, 5), "down.bias": (3,), "up.weight": (5, 3), "up.bias": (5,)}
    return {
        f"{name}.{part}": torch.nn.Parameter(torch.randn(shape, generator=generator))
        for name in ("first", "second")
        for part, shape in shapes.items()
    }


@pytest.mark.parametrize(("outputs", "rows"), [(None, 5), (5, 5), (2, 2), (1, 1)])
def test_a_neurons_score_is_the_length_of_its_column_or_of_its_first_outputs(
    adapters, outputs, rows
):
    mask = Mask.ones({name: torch.empty(3) for name in ("first", "second")})
    scores = importance.neuron_norm(adapters, mask, outputs=outputs)
    assert list(scores) == ["first", "second"]
    for name, score in scores.items():
        up = adapters[f"{name}.up.weight"].tolist()
        squares = [0.0, 0.0, 0.0]
        for output in range(rows):
            for neuron in range(3):
                squares[neuron] += up[output][neuron] ** 2
        assert score.tolist() == pytest.approx([square**0.5 for square in squares])
        assert not score.requires_grad


@pytest.mark.parametrize("matrices", [("down", "up"), ("up", "down"), ("down",), ("up",)])
def test_an_adapters_score_is_the_sum_over_the_matrices_that_are_asked_for(adapters, matrices):
    mask = Mask.ones({name: torch.empty(1) for name in ("first", "second")})
    scores = importance.adapter_norm(adapters, mask, matrices=matrices)
    assert list(scores) == ["first", "second"]
    for name, score in scores.items():
        total = 0.0
        for matrix in matrices:
            for row in adapters[f"{name}.{matrix}.weight"].tolist():
                for value in row:
                    total += value if value > 0 else -value
        assert score.shape == (1,)
        assert score.item() == pytest.approx(total)
        assert not score.requires_grad


def test_an_adapters_score_is_of_both_matrices_unless_asked_otherwise(adapters):
    mask = Mask.ones({"second": torch.empty(1)})
    both = importance.adapter_norm(adapters, mask)["second"]
    parts = [importance.adapter_norm(adapters, mask, (m,))["second"] for m in ("down", "up")]
    assert both.item() == pytest.approx(sum(part.item() for part in parts))
    assert all(part.item() > 0 for part in parts)


def test_a_neurons_score_is_of_all_outputs_unless_asked_otherwise(adapters):
    mask = Mask.ones({"first": torch.empty(3)})
    whole, all_but_one = (importance.neuron_norm(adapters, mask, n)["first"] for n in (None, 4))
    assert torch.equal(importance.neuron_norm(adapters, mask)["first"], whole)
    assert (all_but_one < whole).all()
