"""What every kind of adapter does alike, on every architecture."""

import copy

import pytest
import torch
from quick_training import QUICKER as QUICK
from small_adapters import KINDS, logits, randomise

import adapter_pruning as ap
from adapter_pruning.adapters import KINDS as REGISTERED
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.training import trainable


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def config(request):
    return request.param


@pytest.fixture
def model(folder, rotten):
    return ap.load_model(str(folder), rotten, device="cpu").eval()


def test_all_kinds_are_tested_here():
    assert set(KINDS) == set(REGISTERED)


def test_detach_restores_the_encoder_bit_for_bit(model, config, inputs):
    before, state = logits(model, inputs), copy.deepcopy(model.state_dict())
    modules = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    randomise(ap.attach(model, config))
    assert not torch.equal(logits(model, inputs), before)
    ap.detach(model)
    assert torch.equal(logits(model, inputs), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    after = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    assert after == modules
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked


def test_the_encoder_itself_is_the_same_while_adapters_hang_on_it(model, config):
    encoder = model.encoder.state_dict()
    ap.attach(model, config)
    assert list(model.encoder.state_dict()) == list(encoder)


def test_saved_and_loaded_adapters_give_bit_equal_outputs(
    model, folder, rotten, config, inputs, tmp_path
):
    randomise(ap.attach(model, config))
    ap.save_adapters(model, tmp_path / "adapters.safetensors")
    other = ap.load_model(str(folder), rotten, device="cpu", seed=9).eval()
    ap.load_adapters(other, tmp_path / "adapters.safetensors")
    assert other.adapter_config == config
    assert torch.equal(logits(other, inputs), logits(model, inputs))


def test_a_copy_is_on_its_own(model, config, inputs):
    plain = logits(model, inputs)
    before = logits(ap.attach(model, config), inputs)
    twin = copy.deepcopy(model)
    randomise(twin)
    assert not torch.equal(logits(twin, inputs), before)
    assert torch.equal(logits(model, inputs), before)
    assert torch.equal(logits(ap.detach(twin), inputs), plain)
    assert torch.equal(logits(model, inputs), before)


def test_the_same_seed_draws_the_same_adapters_and_another_seed_others(model, config):
    drawn = [
        {n: p.detach().clone() for n, p in adapter_parameters(m).items()}
        for m in (ap.attach(copy.deepcopy(model), config, seed=s) for s in (1, 1, 2))
    ]
    # Biases start at 0, and the value matrix of a fusion as the identity.
    matrices = [name for name in drawn[0] if not name.endswith(("bias", "fusion.value.weight"))]
    assert matrices
    for name in matrices:
        assert torch.equal(drawn[0][name], drawn[1][name])
        assert not torch.equal(drawn[0][name], drawn[2][name])


def test_every_parameter_has_a_say(model, config, inputs):
    randomise(ap.attach(model, config))
    parameters = adapter_parameters(model)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.mul_(0.2)  # so that no softmax is all or nothing
    model(**inputs).sum().backward()
    assert [name for name, p in parameters.items() if not p.grad.any()] == []


def test_padding_changes_nothing(model, config, inputs):
    randomise(ap.attach(model, config))
    short = {
        name: tensor[1:, : inputs["attention_mask"][1].sum()] for name, tensor in inputs.items()
    }
    torch.testing.assert_close(logits(model, short), logits(model, inputs)[1:])


def test_training_moves_adapters_and_head_and_nothing_else(model, config, rotten):
    ap.attach(model, config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ap.fit(model, rotten, QUICK, progress=False)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(trainable(model))
    assert moved == {*adapter_parameters(model), "head.weight", "head.bias"}
