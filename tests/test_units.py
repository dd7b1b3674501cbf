"""Units: what a weight, a neuron and an adapter cover, and what ranks them."""

import math

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.masks import Mask, hold
from adapter_pruning.units import UNITS


@pytest.fixture
def model(tiny_bert):
    """Two layers, four adapters of three neurons each, on a hidden size of 32."""
    return ap.attach(tiny_bert(), ap.Houlsby(bottleneck=3)).eval()


@pytest.fixture
def parameters(model):
    return adapter_parameters(model)


ADAPTERS = ["adapters.0.attention", "adapters.0.ffn", "adapters.1.attention", "adapters.1.ffn"]


@pytest.mark.parametrize(
    ("unit", "names", "each"),
    [
        ("weight", [f"{a}.{m}.weight" for a in ADAPTERS for m in ("down", "up")], 96),
        ("neuron", ADAPTERS, 3),
        ("adapter", ADAPTERS, 1),
    ],
)
def test_all_units_are_kept_at_first(parameters, unit, names, each):
    mask = UNITS[unit].all(parameters)
    assert list(mask) == names
    assert mask.kept == mask.total == each * len(names)


def test_the_units_of_minilm_follow_the_published_schedules(minilm):
    parameters = adapter_parameters(ap.attach(minilm(), ap.Houlsby(bottleneck=64)))
    adapters = UNITS["adapter"].all(parameters).total
    assert ap.schedule(adapters, rounds=15) == [12, 10, 8, 7, 6, 5, 4]
    assert UNITS["neuron"].all(parameters).total == 12 * 64


def test_a_neuron_is_a_row_its_bias_and_a_column(parameters):
    units = UNITS["neuron"].all(parameters)
    gone = Mask({**units, ADAPTERS[1]: torch.tensor([True, False, True])})
    mask = UNITS["neuron"].expand(gone, parameters)
    down, bias, up = (
        mask[f"{ADAPTERS[1]}.{part}"] for part in ("down.weight", "down.bias", "up.weight")
    )
    assert (
        down.all(dim=1).tolist() == bias.tolist() == up.all(dim=0).tolist() == [True, False, True]
    )
    assert not down[1].any() and not up[:, 1].any()
    assert mask.total - mask.kept == 32 + 1 + 32
    assert f"{ADAPTERS[1]}.up.bias" not in mask


def test_a_removed_neuron_contributes_nothing(model, parameters):
    adapter, hidden = model.adapters["0"]["ffn"], torch.randn(2, 5, 32)
    torch.nn.init.normal_(adapter.down.bias)
    units = UNITS["neuron"].all(parameters)
    gone = Mask({**units, ADAPTERS[1]: torch.tensor([True, False, True])})
    left = torch.tensor([0, 2])
    inner = adapter.activation(hidden @ adapter.down.weight[left].T + adapter.down.bias[left])
    expected = hidden + inner @ adapter.up.weight[:, left].T + adapter.up.bias
    hold(parameters, UNITS["neuron"].expand(gone, parameters))
    torch.testing.assert_close(adapter(hidden), expected)


def test_a_removed_adapter_is_the_identity(model, parameters):
    adapter, hidden = model.adapters["1"]["attention"], torch.randn(2, 5, 32)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    gone = Mask({**UNITS["adapter"].all(parameters), ADAPTERS[2]: torch.tensor([False])})
    mask = UNITS["adapter"].expand(gone, parameters)
    assert {name for name, kept in mask.items() if not kept.all()} == {
        f"{ADAPTERS[2]}.{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")
    }
    hold(parameters, mask)
    assert torch.equal(adapter(hidden), hidden)


def test_without_any_adapter_the_model_gives_the_outputs_of_the_bare_encoder(tiny_bert, rotten):
    bare, model = tiny_bert().eval(), ap.attach(tiny_bert(), ap.Houlsby(bottleneck=3)).eval()
    parameters = adapter_parameters(model)
    hold(parameters, UNITS["adapter"].expand(~UNITS["adapter"].all(parameters), parameters))
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3)}
    assert torch.equal(model(**inputs), bare(**inputs))


def test_a_neurons_score_is_the_length_of_its_column(parameters):
    scores = UNITS["neuron"].score(parameters, UNITS["neuron"].all(parameters))
    for name, score in scores.items():
        up = parameters[f"{name}.up.weight"].tolist()
        expected = [math.sqrt(sum(row[i] ** 2 for row in up)) for i in range(3)]
        assert score.tolist() == pytest.approx(expected)


def test_an_adapters_score_is_the_sum_of_its_two_matrices(parameters):
    scores = UNITS["adapter"].score(parameters, UNITS["adapter"].all(parameters))
    for name, score in scores.items():
        entries = [
            abs(value)
            for matrix in ("down", "up")
            for row in parameters[f"{name}.{matrix}.weight"].tolist()
            for value in row
        ]
        assert score.shape == (1,)
        assert score.item() == pytest.approx(sum(entries))


@pytest.mark.parametrize("unit", UNITS)
def test_scores_fit_the_units_and_carry_no_gradient(parameters, unit):
    mask = UNITS[unit].all(parameters)
    scores = UNITS[unit].score(parameters, mask)
    assert {n: s.shape for n, s in scores.items()} == {n: kept.shape for n, kept in mask.items()}
    assert not any(score.requires_grad for score in scores.values())


def test_nine_of_24_adapters_are_the_papers_share_of_the_parameters():
    # Table 2 of Wu & Chen (2022): 37.5 % of the adapters are 1.56 % of BERT-base with adapters.
    each, encoder = 2 * 768 * 128 + 128 + 768, 109_482_240
    assert round(100 * 9 * each / (encoder + 24 * each), 2) == 1.56
