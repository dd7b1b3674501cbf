"""Adapters: how many, where, what they compute, and what trains with them."""

import math

import pytest
import torch
from by_hand import affine, bert_layer, bottleneck, norm
from small_adapters import KINDS, SMALL, logits, randomise
from torch import nn
from transformers import BertConfig, BertModel

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters, adapter_share, init_adapters
from adapter_pruning.backbones import Model
from adapter_pruning.bottleneck import BottleneckAdapter

BERT_BASE = 109_482_240  # parameters of bert-base-uncased with its pooler


# How many


@pytest.fixture(scope="module")
def bert_base():
    """bert-base-uncased's geometry without its numbers, which counting does not need."""
    with torch.device("meta"):
        return Model(BertModel(BertConfig()), None, 2, "pooler", "bert-base-uncased")


@pytest.mark.parametrize(
    ("bottleneck", "count", "percent"),
    [(128, 4_740_096, 4.150), (27, 1_014_408, 0.918), (64, 2_379_264, 2.127)],
)
def test_counts_and_shares_on_bert_base_are_those_of_the_paper(
    bert_base, bottleneck, count, percent
):
    assert sum(p.numel() for p in bert_base.encoder.parameters()) == BERT_BASE
    model = ap.attach(bert_base, ap.Houlsby(bottleneck=bottleneck))
    try:
        parameters = adapter_parameters(model)
        assert sum(p.numel() for p in parameters.values()) == count
        assert len({name.rsplit(".", 2)[0] for name in parameters}) == 24
        assert adapter_share(model) == pytest.approx(percent, abs=5e-4)
        assert adapter_share(model) == 100 * count / (BERT_BASE + count)
    finally:
        ap.detach(model)


@pytest.mark.parametrize(
    ("units", "rounds", "kept_percent", "published"),
    [(24 * 2 * 768 * 128, 7, 21, "0.87"), (3072, 6, 26, "1.08"), (24, 5, 37.5, "1.56")],
)
def test_pruned_shares_are_those_of_the_papers_table_2(units, rounds, kept_percent, published):
    # The paper multiplies the share of the dense adapters by the rounded percentage.
    kept = 100 * ap.schedule(units, rounds)[-1] / units
    assert round(kept, 0 if kept_percent % 1 == 0 else 1) == kept_percent
    dense = 4_740_096 / (BERT_BASE + 4_740_096)
    assert f"{kept_percent * dense:.2f}" == published


# Where and what


def houlsby(a):
    ends = {f"{place}_end": lambda out, *_, p=a[place]: out + bottleneck(p, out) for place in a}
    return ends


def pfeiffer(a):
    return {"last": lambda n, x: norm(n, x + bottleneck(a["ffn"], norm(n, x)))}


def parallel(a):
    return {"ffn_end": lambda out, read: out + 0.5 * bottleneck(a["ffn"], read)}


def prefix(a):
    return {"prefix": (a["prefix"].key, a["prefix"].value)}


def lora(a):
    change = a["query"].up.weight @ a["query"].down.weight
    return {"query": lambda linear, x: affine(linear, x) + 1.5 * x @ change.T}


def fusion(a):
    fused = a["fusion"]

    def mixed(h):
        added = [bottleneck(adapter, h) for adapter in fused.fused]
        q = affine(fused.query, h)
        scores = torch.stack([(q * (x @ fused.key.weight.T)).sum(-1) for x in added])
        raised = (scores - scores.amax(0)).exp()
        shares = raised / raised.sum(0)
        return sum(
            p[..., None] * (x @ fused.value.weight.T) for p, x in zip(shares, added, strict=True)
        )

    return {"last": lambda n, x: norm(n, x + mixed(norm(n, x)))}


BY_HAND = {
    "Houlsby": (KINDS["Houlsby"], houlsby),
    "Pfeiffer": (KINDS["Pfeiffer"], pfeiffer),
    "Parallel": (KINDS["Parallel"], parallel),
    "Prefix": (KINDS["Prefix"], prefix),
    "LoRA": (ap.LoRA(rank=4, alpha=6.0, targets=("query",)), lora),
    "MAM": (ap.MAM(bottleneck=3, activation="gelu", scale=0.5), lambda a: prefix(a) | parallel(a)),
    "Fusion": (KINDS["Fusion"], fusion),
}


@pytest.mark.parametrize(("config", "gaps"), BY_HAND.values(), ids=BY_HAND)
def test_a_layer_with_adapters_equals_one_written_by_hand(base, inputs, config, gaps):
    model = ap.attach(base, config)
    randomise(model)
    words = inputs["attention_mask"].bool()
    with torch.no_grad():
        states = model.encoder(**inputs, output_hidden_states=True).hidden_states
        for index, layer in enumerate(model.layers()):
            filled = gaps(model.adapters[str(index)])
            expected = bert_layer(layer.module, states[index], words, 4, **filled)
            torch.testing.assert_close(states[index + 1][words], expected[words])


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("swish", lambda x: x * torch.sigmoid(x)),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
    ],
)
def test_an_adapter_is_a_bottleneck_with_its_activation(activation, expected):
    adapter = BottleneckAdapter(6, 3, activation)
    hidden = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    inner = expected(adapter.down(hidden))
    torch.testing.assert_close(adapter(hidden), adapter.up(inner))
    assert adapter(hidden).shape == hidden.shape


def test_every_adapter_has_a_say_in_the_logits(adapted, inputs):
    before = logits(adapted, inputs)
    for layer in adapted.adapters.values():
        for position in ("attention", "ffn"):
            bias = layer[position].up.bias
            with torch.no_grad():
                bias.copy_(torch.arange(32.0))
            assert not torch.equal(logits(adapted, inputs), before)
            with torch.no_grad():
                bias.zero_()
    assert torch.equal(logits(adapted, inputs), before)


def test_zero_up_projections_are_the_identity(base, inputs):
    before = logits(base, inputs)
    ap.attach(base, SMALL)
    assert not torch.equal(logits(base, inputs), before)
    with torch.no_grad():
        for name, parameter in adapter_parameters(base).items():
            if ".up." in name:
                parameter.zero_()
    assert torch.equal(logits(base, inputs), before)


def test_names_say_layer_position_and_matrix_from_the_lowest_layer_up(adapted):
    names = [
        f"adapters.{layer}.{position}.{matrix}.{part}"
        for layer in range(2)
        for position in ("attention", "ffn")
        for matrix in ("down", "up")
        for part in ("weight", "bias")
    ]
    parameters = adapter_parameters(adapted)
    assert list(parameters) == names
    assert dict(adapted.named_parameters()).items() >= parameters.items()


def test_an_adapter_starts_with_the_initial_values_of_its_seed(tiny_bert):
    config = ap.Houlsby(bottleneck=64)
    torch.manual_seed(1)
    first = adapter_parameters(ap.attach(tiny_bert(), config, seed=3))
    torch.manual_seed(2)
    same = adapter_parameters(ap.attach(tiny_bert(), config, seed=3))
    other = adapter_parameters(ap.attach(tiny_bert(), config, seed=4))
    for name, parameter in first.items():
        assert torch.equal(parameter, same[name])
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert not torch.equal(parameter, other[name])
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)


def test_init_adapters_draws_anew_what_attach_drew(adapted, tiny_bert):
    randomise(adapted)
    init_adapters(adapted, seed=1)
    fresh = adapter_parameters(ap.attach(tiny_bert(), SMALL, seed=1))
    assert all(torch.equal(p, fresh[n]) for n, p in adapter_parameters(adapted).items())


def test_the_standard_deviation_of_the_start_is_a_choice(tiny_bert):
    model = ap.attach(tiny_bert(), ap.Houlsby(bottleneck=64, init_std=0.5))
    assert model.adapters["0"]["ffn"].up.weight.std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_adapters_start_with_the_same_values_on_a_gpu(tiny_bert, adapted):
    on_gpu = adapter_parameters(ap.attach(tiny_bert(device="cuda"), SMALL, seed=1))
    for name, parameter in adapter_parameters(adapted).items():
        assert torch.equal(parameter, on_gpu[name].cpu())


# What trains


def test_only_adapters_and_head_train(adapted):
    training = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert training == {*adapter_parameters(adapted), "head.weight", "head.bias"}
    frozen = {name for name, p in adapted.named_parameters() if not p.requires_grad}
    assert "encoder.pooler.dense.weight" in frozen
    assert sum("LayerNorm" in name for name in frozen) == 2 * (2 * 2 + 1)


def test_a_step_of_training_moves_adapters_and_head_and_nothing_else(adapted, inputs):
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    optimizer = torch.optim.Adam((p for p in adapted.parameters() if p.requires_grad), lr=0.1)
    nn.functional.cross_entropy(adapted(**inputs), torch.tensor([0, 1])).backward()
    optimizer.step()
    moved = {n for n, p in adapted.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {*adapter_parameters(adapted), "head.weight", "head.bias"}


# The configuration


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"bottleneck": 0}, ["bottleneck is 0", "greater than or equal to 1"]),
        ({"bottleneck": 2.5}, ["bottleneck is 2.5", "integer"]),
        ({"bottleneck": "64"}, ["bottleneck is '64'", "integer"]),
        ({"init_std": 0.0}, ["init_std is 0.0", "greater than 0"]),
        ({"activation": "tanh"}, ["activation is 'tanh'", "'gelu', 'relu' or 'swish'"]),
        ({"width": 3}, ["width"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(refused, wrong, parts):
    with refused("Houlsby", *parts):
        ap.Houlsby(**wrong)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        ap.Houlsby().bottleneck = 3
