"""Every kind of adapter in both stacks of a model that writes."""

import copy
from dataclasses import replace

import pytest
import torch
from small_adapters import KINDS, logits, randomise
from small_xsum import QUICK, made_up
from tiny_models import LAYERS

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.at_init import prune_at_init
from adapter_pruning.batches import collate
from adapter_pruning.training import trainable


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def config(request):
    return request.param


@pytest.fixture
def adapted(model, config):
    randomise(ap.attach(model, config))
    return model


def test_adapters_hang_in_every_layer_of_both_stacks(model, config):
    ap.attach(model, config)
    assert list(model.adapters) == ["0", "1", "2", "3"]
    assert all(len(placed) for placed in model.adapters.values())


def test_detach_restores_the_network_bit_for_bit(model, config, batch):
    before, state = logits(model, batch), copy.deepcopy(model.state_dict())
    modules = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    randomise(ap.attach(model, config))
    assert list(model.encoder.state_dict()) == [n.removeprefix("encoder.") for n in state]
    assert not torch.equal(logits(model, batch), before)
    ap.detach(model)
    assert torch.equal(logits(model, batch), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    after = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    assert after == modules
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(p.requires_grad for p in model.parameters())


def test_saved_and_loaded_adapters_give_bit_equal_outputs(
    adapted, bart_folder, config, batch, tmp_path
):
    ap.save_adapters(adapted, tmp_path / "adapters.safetensors")
    other = ap.load_model(str(bart_folder), made_up(), device="cpu", seed=9).eval()
    ap.load_adapters(other, tmp_path / "adapters.safetensors")
    assert other.adapter_config == config
    assert torch.equal(logits(other, batch), logits(adapted, batch))


def test_a_copy_is_on_its_own(loaded, model, config, batch):
    before = logits(ap.attach(model, config), batch)
    twin = copy.deepcopy(model)
    randomise(twin)
    assert not torch.equal(logits(twin, batch), before)
    assert torch.equal(logits(model, batch), before)
    assert torch.equal(logits(ap.detach(twin), batch), logits(loaded, batch))
    assert torch.equal(logits(model, batch), before)


def test_every_parameter_has_a_say(adapted, batch):
    adapted(**batch)[..., :50].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter_parameters(adapted).values())


def test_padding_changes_nothing(adapted, batch, rows, tokenizer):
    alone = collate([rows[1]], tokenizer.pad_token_id, torch.device("cpu"))
    length = alone["target_ids"].shape[1]
    together = logits(adapted, batch)[1:, :length]
    torch.testing.assert_close(logits(adapted, alone), together, rtol=1e-4, atol=1e-4)


def test_a_token_is_blind_to_those_after_it_and_not_to_those_before(adapted, batch):
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["target_ids"][:, 2] = 1000
    before, after = logits(adapted, batch), logits(adapted, other)
    # The token in place 2 is read, shifted, from place 3 on.
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).all(-1).any()


def test_what_is_written_is_the_same_with_and_without_a_cache(adapted, batch):
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    how = {"max_length": 10, "num_beams": 3, "do_sample": False}
    with torch.inference_mode():
        ids = [
            adapted.encoder.generate(
                **source, **how, use_cache=cached, return_dict_in_generate=True
            )
            for cached in (True, False)
        ]
        texts = [adapted.write(**source, **how, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*(found.sequences for found in ids))
    assert ids[0].past_key_values is not None
    assert ids[1].past_key_values is None
    assert texts[0] == texts[1]


def test_attention_of_a_gpu_gives_the_same_logits_and_texts(adapted, batch, rows):
    # On a GPU the mask is boolean, or none at all where nothing is padded.
    other, model = copy.deepcopy(adapted), adapted
    other.encoder.set_attn_implementation("sdpa")
    alone = collate(rows[:1], 0, torch.device("cpu"))
    for inputs in (batch, alone):
        torch.testing.assert_close(
            logits(other, inputs), logits(model, inputs), rtol=1e-3, atol=1e-3
        )
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        how = {"max_length": 8, "num_beams": 2, "do_sample": False}
        assert other.write(**source, **how) == model.write(**source, **how)


def test_bfloat16_gives_about_the_same_logits_and_a_loss(model, config, batch):
    ap.attach(model, config)
    exact = logits(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(model, batch)
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05 * exact.abs().max().item())
    losses = [
        ap.evaluate(model, made_up(), replace(QUICK, precision=precision))["loss"]
        for precision in ("bf16", "fp32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_training_moves_adapters_and_nothing_else(model, config):
    ap.attach(model, config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ap.fit(model, made_up(), QUICK, progress=False)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(trainable(model)) == set(adapter_parameters(model))


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_matrices_are_pruned_at_initialisation_by_derivatives(model, config, criterion):
    parameters = adapter_parameters(ap.attach(model, config))
    if not any(name.endswith("weight") for name in parameters):
        pytest.skip("a prefix has no matrices")
    sample = {"rows": 4, "batch_size": 2, "max_length": 16}
    mask = prune_at_init(model, made_up(), criterion, 0.5, **sample)
    assert mask.kept == mask.total // 2
    stacks = {int(name.split(".")[1]) < LAYERS for name, kept in mask.items() if kept.any()}
    assert stacks == {True, False}


def test_merged_low_ranks_give_the_same_outputs(model, batch):
    randomise(ap.attach(model, KINDS["LoRA"]))
    before = logits(model, batch)
    torch.testing.assert_close(logits(ap.merge(model), batch), before, rtol=1e-4, atol=1e-4)
