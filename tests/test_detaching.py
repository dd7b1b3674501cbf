"""Adapters can be taken out and put back, and the encoder never notices."""

import copy

import pytest
import torch
from small_adapters import SMALL, logits, randomise

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters, adapter_share

# Taking them out


def test_detach_gives_back_the_loaded_encoder_bit_for_bit(tiny_bert, inputs):
    model = tiny_bert().eval()
    state = copy.deepcopy(model.state_dict())
    before = logits(model, inputs)
    randomise(ap.attach(model, SMALL))
    assert not torch.equal(logits(model, inputs), before)
    assert ap.detach(model) is model
    assert torch.equal(logits(model, inputs), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_was_detached_can_be_attached_again(adapted, inputs):
    before = logits(adapted, inputs)
    ap.attach(ap.detach(adapted), SMALL, seed=1)
    assert torch.equal(logits(adapted, inputs), before)


def test_attach_works_alike_on_every_layer_of_a_real_model(minilm, inputs):
    model = minilm().eval()
    before = logits(model, inputs)
    ap.attach(model, ap.Houlsby(bottleneck=16))
    assert len(adapter_parameters(model)) == 6 * 2 * 4
    assert not torch.equal(logits(model, inputs), before)
    assert torch.equal(logits(ap.detach(model), inputs), before)


def test_a_second_attach_is_refused_and_changes_nothing(adapted, inputs, refused):
    before = logits(adapted, inputs)
    with refused("already has adapters", "detach"):
        ap.attach(adapted, ap.Houlsby(bottleneck=9))
    assert torch.equal(logits(adapted, inputs), before)


@pytest.mark.parametrize("use", [ap.detach, adapter_parameters, adapter_share])
def test_a_model_without_adapters_says_so(base, refused, use):
    with refused("no adapters", "attach"):
        use(base)


def test_a_copy_has_adapters_of_its_own(adapted, inputs):
    before = logits(adapted, inputs)
    twin = copy.deepcopy(adapted)
    assert torch.equal(logits(twin, inputs), before)
    randomise(twin)
    assert not torch.equal(logits(twin, inputs), before)
    assert torch.equal(logits(adapted, inputs), before)


def test_detaching_a_copy_leaves_the_original_attached_and_the_other_way_round(base, inputs):
    plain = logits(base, inputs)
    adapted = logits(ap.attach(base, SMALL), inputs)
    twin = ap.detach(copy.deepcopy(base))
    assert torch.equal(logits(twin, inputs), plain)
    assert torch.equal(logits(base, inputs), adapted)
    third = copy.deepcopy(base)
    assert torch.equal(logits(ap.detach(base), inputs), plain)
    assert torch.equal(logits(third, inputs), adapted)
