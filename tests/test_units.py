"""Units: what a weight, a neuron and an adapter cover, and what ranks them."""

import dataclasses
import math

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning import importance, trials
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.masks import Mask, hold
from adapter_pruning.units import UNITS, Unit, get, weights


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
    assert mask[f"{ADAPTERS[1]}.up.bias"].all()


def test_a_removed_neuron_contributes_nothing(model, parameters):
    adapter, hidden = model.adapters["0"]["ffn"], torch.randn(2, 5, 32)
    torch.nn.init.normal_(adapter.down.bias)
    units = UNITS["neuron"].all(parameters)
    gone = Mask({**units, ADAPTERS[1]: torch.tensor([True, False, True])})
    left = torch.tensor([0, 2])
    inner = adapter.activation(hidden @ adapter.down.weight[left].T + adapter.down.bias[left])
    expected = inner @ adapter.up.weight[:, left].T + adapter.up.bias
    hold(parameters, UNITS["neuron"].expand(gone, parameters))
    torch.testing.assert_close(adapter(hidden), expected)


def test_a_removed_adapter_adds_nothing(model, parameters):
    adapter, hidden = model.adapters["1"]["attention"], torch.randn(2, 5, 32)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    gone = Mask({**UNITS["adapter"].all(parameters), ADAPTERS[2]: torch.tensor([False])})
    mask = UNITS["adapter"].expand(gone, parameters)
    assert {name for name, kept in mask.items() if not kept.all()} == {
        f"{ADAPTERS[2]}.{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")
    }
    hold(parameters, mask)
    assert not adapter(hidden).any()


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


# Other biases, scores and units than the three

QUICK = ap.TrainConfig(
    epochs=1,
    batch_size=16,
    evaluations_per_epoch=2,
    max_length=16,
    precision="fp32",
    learning_rate=0.01,
)


@pytest.fixture
def rounds(model, rotten):
    """rounds(unit, **options): each round of a search while the model has its weights."""

    def rounds(unit, **options):
        options = {"rounds": 2, "drop": 0.5, "config": QUICK, "progress": False} | options
        return ap.find_tickets(model, rotten, unit=unit, **options)

    return rounds


def lowest(scores: dict, count: int) -> set:
    return set(sorted(scores, key=scores.get)[:count])


def test_biases_can_be_units_beside_the_weights(parameters):
    unit = weights(prune_bias=True)
    mask = unit.all(parameters)
    assert list(mask) == list(parameters)
    assert mask.total == sum(p.numel() for p in parameters.values()) == 4 * (2 * 96 + 3 + 32)
    assert unit.expand(mask, parameters) == mask
    assert {n: s.tolist() for n, s in unit.score(parameters, mask).items()} == {
        n: p.abs().tolist() for n, p in parameters.items()
    }


def test_a_unit_with_biases_has_a_name_of_its_own():
    assert weights().name == "weight"
    assert weights(prune_bias=True).name == "weight and bias"


def test_biases_are_pruned_among_the_weights(rounds, parameters):
    alive = {(n, i) for n, p in parameters.items() for i in range(p.numel())}
    for found in rounds(weights(prune_bias=True)):
        values = {(n, i): abs(parameters[n].flatten()[i].item()) for n, i in alive}
        kept = {(n, i) for n, k in found.mask.items() for i in k.flatten().nonzero().squeeze(1)}
        assert {(n, int(i)) for n, i in kept} == alive
        gone = {n: parameters[n][~k] for n, k in found.mask.items()}
        assert not any(values.any() for values in gone.values())
        alive -= lowest(values, len(alive) // 2)
    assert any(not found.mask[name].all() for name in parameters if name.endswith("bias"))


def biggest_bias(parameters, mask):
    """A score of one's own for neurons: they start at 0 and move in training."""
    return {name: 1 + parameters[f"{name}.down.bias"].detach().abs() for name in mask}


def test_a_score_of_ones_own_ranks_the_units(rounds, parameters):
    unit = dataclasses.replace(UNITS["neuron"], name="neuron by bias", score=biggest_bias)
    alive = {(name, i) for name in ADAPTERS for i in range(3)}
    for found in rounds(unit):
        assert {(n, i) for n in ADAPTERS for i in range(3) if found.units[n][i]} == alive
        assert found.record["detail"]["unit"] == "neuron by bias"
        assert found.record["method"] == "neuron by bias ticket"
        scores = {(n, i): abs(parameters[f"{n}.down.bias"][i].item()) for n, i in alive}
        alive -= lowest(scores, len(alive) // 2)
    assert UNITS["neuron"].score is importance.neuron_norm


def every_matrix(parameters):
    return Mask.ones({n: torch.empty(1) for n in parameters if n.endswith("weight")})


def mean_size(parameters, mask):
    return {name: parameters[name].detach().abs().mean().view(1) for name in mask}


def whole_matrix(mask, parameters):
    return Mask({name: kept.expand(parameters[name].shape) for name, kept in mask.items()})


MATRIX = Unit("matrix", every_matrix, mean_size, whole_matrix)


def test_a_unit_of_ones_own_goes_through_a_search(rounds, parameters):
    alive = {name for name in parameters if name.endswith("weight")}
    counts = []
    for found in rounds(MATRIX, rounds=15):
        counts.append(found.units.kept)
        assert {name for name, kept in found.units.items() if kept} == alive
        assert {name for name in found.mask if parameters[name].any()} == alive
        scores = {n: sum(abs(v) for row in parameters[n].tolist() for v in row) for n in alive}
        alive -= lowest(scores, len(alive) // 2)
    assert counts == [8, 4, 2, 1]


# Units that cannot be searched for


def nan_for_one(parameters, mask):
    scores = mean_size(parameters, mask)
    scores["adapters.0.ffn.up.weight"] *= float("nan")
    return scores


def without_one(parameters, mask):
    return dict(list(mean_size(parameters, mask).items())[:-1])


def as_scalars(parameters, mask):
    return {name: score.squeeze() for name, score in mean_size(parameters, mask).items()}


def under_other_names(mask, parameters):
    return Mask({f"model.{name}": kept for name, kept in whole_matrix(mask, parameters).items()})


def turned(mask, parameters):
    return Mask({name: kept.T for name, kept in whole_matrix(mask, parameters).items()})


def not_expanded(mask, parameters):
    return mask


BAD = {
    "a score that is not a number": (
        {"score": nan_for_one},
        ["scores of 'adapters.0.ffn.up.weight' are not all finite"],
    ),
    "a score too few": ({"score": without_one}, ["'adapters.1.ffn.up.weight'", "has not"]),
    "scores of another shape": (
        {"score": as_scalars},
        ["'adapters.0.attention.down.weight' has shape ()", "(1,)"],
    ),
    "no units": (
        {"all": lambda parameters: Mask.ones({n: p for n, p in parameters.items() if "key" in n})},
        ["at least one tensor"],
    ),
    "units without entries": (
        {
            "all": lambda parameters: Mask.ones({"nothing": torch.empty(0)}),
            "score": lambda parameters, mask: {"nothing": torch.empty(0)},
            "expand": lambda mask, parameters: Mask.ones(parameters),
        },
        ["finds nothing"],
    ),
    "names that the model has not": (
        {"expand": under_other_names},
        ["'model.adapters.0.attention.down.weight'", "has not"],
    ),
    "matrices turned over": (
        {"expand": turned},
        ["'adapters.0.attention.down.weight' has shape (32, 3)", "(3, 32)"],
    ),
    "a mask that is not expanded": (
        {"expand": not_expanded},
        ["'adapters.0.attention.down.weight' has shape (1,)", "(3, 32)"],
    ),
}


def no_training(*args, **options):
    raise AssertionError("something was trained")


@pytest.mark.parametrize(("wrong", "said"), BAD.values(), ids=BAD)
def test_a_unit_that_does_not_fit_is_refused_by_the_call_of_a_search(
    rounds, monkeypatch, refused, wrong, said
):
    monkeypatch.setattr(trials, "fit", no_training)
    with refused("the unit 'matrix'", *said):
        rounds(dataclasses.replace(MATRIX, **wrong))


def test_an_unknown_name_of_a_unit_is_answered_with_the_known_ones(refused):
    with refused("unknown unit 'layer'", "weight, neuron, adapter"):
        get("layer")


def test_a_unit_stands_for_itself_and_a_name_for_the_unit_that_has_it():
    assert get(MATRIX) is MATRIX
    assert [get(name).name for name in UNITS] == list(UNITS) == ["weight", "neuron", "adapter"]
