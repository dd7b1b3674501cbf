"""Frozen weights in the precision of the forward pass: the same results, and given back."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from quick_training import QUICK, bits, fit, outcome
from torch import nn

import adapter_pruning as ap
from adapter_pruning import training
from adapter_pruning.precision import frozen_cast

CPU = torch.device("cpu")
BF16 = replace(QUICK, precision="bf16")


def contents(model):
    return {name: (p.dtype, p.detach().clone()) for name, p in model.named_parameters()}


def assert_same(model, before):
    for name, p in model.named_parameters():
        dtype, value = before[name]
        assert p.dtype == dtype
        assert torch.equal(p, value)


def test_only_frozen_linear_layers_are_cast(small):
    model = small()
    linear = {
        f"{name}.{part}"
        for name, module in model.encoder.named_modules(prefix="encoder")
        if isinstance(module, nn.Linear)
        for part in ("weight", "bias")
    }
    with frozen_cast(model, CPU, "bf16"):
        cast = {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}

    assert cast == linear
    assert linear


def test_a_weight_that_is_also_an_embedding_is_left_alone():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)).requires_grad_(False)
    model[1].weight = model[0].weight
    with frozen_cast(model, CPU, "bf16"):
        assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_weights_come_back_bit_for_bit(small, error):
    model = small()
    before = contents(model)
    try:
        with frozen_cast(model, CPU, "bf16"):
            if error:
                raise error
    except KeyboardInterrupt:
        pass

    assert_same(model, before)


@pytest.mark.parametrize("nested", ["fp32", "bf16"])
def test_nothing_is_cast_in_fp32_and_nothing_twice(small, nested):
    model = small()
    before = contents(model)
    with frozen_cast(model, CPU, nested):
        kept = contents(model)
        with frozen_cast(model, CPU, nested):
            assert_same(model, kept)
        assert_same(model, kept)

    assert_same(model, before)
    assert (nested == "fp32") == all(dtype == torch.float32 for dtype, _ in kept.values())


@pytest.mark.parametrize("kind", [ap.Houlsby, ap.LoRA, ap.MAM])
def test_training_and_scores_are_those_of_autocast_alone(plain, rotten, monkeypatch, kind):
    model = ap.attach(plain(), kind())
    twin, before = copy.deepcopy(model), contents(model.encoder)
    ours = outcome(model, fit(model, rotten, BF16)), ap.evaluate(model, rotten, BF16)
    assert_same(model.encoder, before)
    monkeypatch.setattr(training, "frozen_cast", lambda *args: nullcontext())

    assert (outcome(twin, fit(twin, rotten, BF16)), ap.evaluate(twin, rotten, BF16)) == ours
    assert bits(model) == bits(twin)
