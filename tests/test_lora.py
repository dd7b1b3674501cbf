"""LoRA: a change beside a weight, which becomes part of it."""

import copy

import peft
import pytest
import torch
from small_adapters import KINDS, logits, randomise

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.lora import LowRank


@pytest.fixture
def adapted(base):
    model = ap.attach(base, KINDS["LoRA"])
    randomise(model)
    return model


def test_the_change_has_the_rank_and_stands_beside_each_target(adapted):
    for layer in adapted.adapters.values():
        assert list(layer) == ["query", "attention_output", "ffn_in"]
        for change in layer.values():
            product = change.up.weight @ change.down.weight
            assert torch.linalg.matrix_rank(product) == 3
    shapes = {n: tuple(p.shape) for n, p in adapter_parameters(adapted).items()}
    assert shapes["adapters.1.ffn_in.down.weight"] == (3, 32)
    assert shapes["adapters.1.ffn_in.up.weight"] == (64, 3)


def test_merging_keeps_the_outputs_and_leaves_no_adapters(adapted, inputs):
    before, names = logits(adapted, inputs), {n for n, _ in adapted.encoder.named_parameters()}
    assert ap.merge(adapted) is adapted
    torch.testing.assert_close(logits(adapted, inputs), before, rtol=1e-5, atol=1e-5)
    assert adapted.adapter_config is None
    assert {n for n, _ in adapted.encoder.named_parameters()} == names


def test_merging_adds_the_scaled_product_to_the_weight(adapted):
    query = next(adapted.layers()).part("query")
    frozen, change = query.weight.detach().clone(), adapted.adapters["0"]["query"]
    expected = frozen + 6.0 / 3 * change.up.weight.detach() @ change.down.weight.detach()
    ap.merge(adapted)
    torch.testing.assert_close(query.weight.detach(), expected)


def test_a_pruned_change_is_merged_as_it_is_pruned(adapted, inputs):
    parameters = adapter_parameters(adapted)
    every = ap.Mask.ones(parameters)
    mask = ap.random_mask(every, every.total // 4, seed=0)
    with torch.no_grad():
        for name, kept in mask.items():
            parameters[name].masked_fill_(~kept, 0)
    before = logits(adapted, inputs)
    torch.testing.assert_close(logits(ap.merge(adapted), inputs), before, rtol=1e-5, atol=1e-5)


@pytest.fixture
def both(base):
    """Our model with LoRA on query and value, and PEFT's on a copy of the encoder, alike."""
    bare = copy.deepcopy(base.encoder)
    ours = ap.attach(base, ap.LoRA(rank=4, alpha=10.0))
    randomise(ours)
    options = {"r": 4, "lora_alpha": 10.0, "target_modules": ["query", "value"]}
    theirs = peft.get_peft_model(bare, peft.LoraConfig(**options)).eval()
    halves = {"down": "lora_A", "up": "lora_B"}
    with torch.no_grad():
        for name, parameter in adapter_parameters(ours).items():
            _, layer, target, half, _ = name.split(".")
            attention = bare.encoder.layer[int(layer)].attention.self
            linear = getattr(attention.get_submodule(target), halves[half])["default"]
            linear.weight.copy_(parameter)
    return ours, theirs


def hidden(encoder, inputs):
    with torch.no_grad():
        return encoder(**inputs).last_hidden_state


def test_forward_and_merge_are_those_of_peft_on_the_same_weights(both, inputs):
    ours, theirs = both
    torch.testing.assert_close(
        hidden(ours.encoder, inputs), hidden(theirs, inputs), rtol=1e-5, atol=1e-5
    )
    merged, expected = ap.merge(ours).encoder, theirs.merge_and_unload()
    torch.testing.assert_close(hidden(merged, inputs), hidden(expected, inputs))
    for layer, other in zip(merged.encoder.layer, expected.encoder.layer, strict=True):
        for target in ("query", "value"):
            pair = (getattr(part.attention.self, target).weight for part in (layer, other))
            torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


def test_without_an_up_projection_nothing_is_changed():
    linear = torch.nn.Linear(6, 5)
    change = LowRank(linear, 2, 4.0)
    torch.nn.init.zeros_(change.up.weight)
    assert not change(torch.randn(3, 6)).any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "LoRA"])
def test_what_is_no_linear_map_cannot_be_merged(base, inputs, refused, kind):
    before = logits(ap.attach(base, KINDS[kind]), inputs)
    with refused(kind, "cannot be merged", "only LoRA"):
        ap.merge(base)
    assert torch.equal(logits(base, inputs), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, ["LoRA: rank is 0"]),
        ({"rank": 2.5}, ["LoRA: rank is 2.5"]),
        ({"alpha": 0.0}, ["LoRA: alpha is 0.0"]),
        ({"targets": ("head",)}, ["LoRA: targets.0 is 'head'", "query"]),
        ({"r": 3}, ["LoRA: r is 3"]),
    ],
)
def test_bad_options_are_refused(refused, options, said):
    with refused(*said):
        ap.LoRA(**options)
