"""Models that write: the parts of BART, the small random model, and what bad input is told."""

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import KINDS, logits
from small_xsum import QUICK, made_up
from tiny_models import HIDDEN, INNER, LAYERS, save_tiny_bart
from torch import nn
from transformers import BartForConditionalGeneration

import adapter_pruning as ap
from adapter_pruning.batches import collate
from adapter_pruning.seq2seq import TINY
from adapter_pruning.training import trainable

# The model


def test_every_named_part_is_the_right_kind_of_module_in_both_stacks(model):
    square, within = (HIDDEN, HIDDEN), dict.fromkeys(("query", "key", "value"), (HIDDEN, HIDDEN))
    within |= {"attention_output": square, "attention_end": square}
    within |= {"ffn_in": (INNER, HIDDEN), "ffn_out": (HIDDEN, INNER), "ffn_end": (HIDDEN, INNER)}
    layers = list(model.layers())
    stacks = model.encoder.get_encoder().layers, model.encoder.get_decoder().layers
    assert [layer.module for layer in layers] == [module for stack in stacks for module in stack]
    assert len(layers) == 2 * LAYERS
    for layer in layers:
        for part, shape in within.items():
            module = layer.part(part)
            assert type(module) is nn.Linear, part
            assert tuple(module.weight.shape) == shape, part
        assert type(layer.part("ffn_norm")) is nn.LayerNorm


@pytest.mark.parametrize(
    ("end", "norm"), [("attention_end", "self_attn_layer_norm"), ("ffn_end", "final_layer_norm")]
)
def test_each_end_comes_right_before_its_residual_connection(model, batch, end, norm):
    for layer in model.layers():
        seen = {}
        parts = {"end": getattr(model.architecture, end), "norm": norm}
        parts["into"] = "self_attn.q_proj" if end == "attention_end" else "fc1"
        for name, part in parts.items():
            layer.module.get_submodule(part).register_forward_hook(
                lambda module, args, out, name=name, seen=seen: seen.update({name: (args[0], out)})
            )
        logits(model, batch)
        assert torch.equal(seen["norm"][0], seen["into"][0] + seen["end"][1])


def test_a_folder_loads_with_the_weights_that_are_in_it(model, bart_folder):
    stored, state = load_file(bart_folder / "model.safetensors"), model.encoder.state_dict()
    assert stored.keys() <= state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert model.revision.startswith("sha256:")


def test_a_folder_of_the_bare_transformer_loads_as_well(bart_folder, tokenizer, tmp_path, model):
    # facebook/bart-base keeps its weights without the part that writes.
    whole = BartForConditionalGeneration.from_pretrained(bart_folder)
    whole.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bare = ap.load_model(str(tmp_path), made_up(), device="cpu")
    state = bare.encoder.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in model.encoder.state_dict().items())


def test_the_output_weights_are_the_token_embeddings_and_nothing_is_a_head(model):
    network = model.encoder
    assert network.lm_head.weight is network.model.shared.weight
    assert not list(model.head.parameters())
    assert set(trainable(model)) == {f"encoder.{name}" for name, _ in network.named_parameters()}


def test_the_loss_is_that_of_transformers_for_one_summary(model, rows, tokenizer):
    # Its own shift by one place, and its own mean over tokens.
    task = made_up()
    for row in rows:
        inputs = collate([row], tokenizer.pad_token_id, torch.device("cpu"))
        labels = torch.tensor([row["labels"]])
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        expected = model.encoder(**source, labels=labels).loss
        torch.testing.assert_close(task.loss(model(**inputs), labels), expected)


def test_a_given_dropout_is_every_dropout_of_the_network(bart_folder):
    model = ap.load_model(str(bart_folder), made_up(), device="cpu", dropout=0.25)
    layer = next(model.layers()).module
    assert (model.dropout_rate, layer.dropout, layer.activation_dropout) == (0.25, 0.25, 0.25)
    assert layer.self_attn.dropout == 0.25


# The small random model


def test_the_seed_fixes_the_random_model_and_its_revision():
    first, same, other = (ap.load_model(TINY, made_up(), seed=s, device="cpu") for s in (3, 3, 4))
    state = first.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in same.state_dict().items())
    assert not torch.equal(other.encoder.model.shared.weight, first.encoder.model.shared.weight)
    assert first.revision == same.revision != other.revision
    assert first.revision.startswith("random:")


def test_the_random_model_is_small_and_has_the_tokenizer_of_minilm(tokenizer):
    model = ap.load_model(TINY, made_up(), device="cpu")
    assert (len(list(model.layers())), model.width) == (4, 64)
    assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert sum(p.numel() for p in model.parameters()) < 3e6


def test_loading_a_random_model_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ap.load_model(TINY, made_up(), seed=5, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_adapters_of_one_random_model_are_refused_by_another(tmp_path, refused):
    model = ap.attach(ap.load_model(TINY, made_up(), device="cpu"), KINDS["LoRA"])
    ap.save_adapters(model, tmp_path / "file")
    other = ap.load_model(TINY, made_up(), seed=1, device="cpu")
    with refused(model.revision, other.revision):
        ap.load_adapters(other, tmp_path / "file")


# Bad input


@pytest.mark.parametrize("name", ["minilm", "folder"])
def test_an_encoder_alone_is_refused_for_summarization(name, tiny_folder, refused):
    with refused("is a 'bert'", "needs an encoder-decoder: bart"):
        ap.load_model(str(tiny_folder) if name == "folder" else name, made_up())


@pytest.mark.parametrize("name", [TINY, "folder"])
def test_an_encoder_decoder_is_refused_for_a_task_with_classes(name, bart_folder, rotten, refused):
    with refused("is a 'bart'", "needs an encoder: bert, roberta, mpnet"):
        ap.load_model(str(bart_folder) if name == "folder" else name, rotten)


def test_a_model_of_another_kind_is_refused_before_it_is_trained(model, tiny_bert, rotten, refused):
    with refused("writes text", "'rotten_tomatoes'", "load a model for this task"):
        ap.fit(model, rotten, QUICK, progress=False)
    encoder = tiny_bert()
    with refused("reads text", "'xsum'", "load a model for this task"):
        ap.fit(encoder, made_up(), QUICK, progress=False)


def test_a_pooling_is_refused_where_nothing_is_pooled(bart_folder, refused):
    with refused("pooling of a model that writes 'mean'", "auto, none"):
        ap.load_model(str(bart_folder), made_up(), pooling="mean")


def test_a_dropout_out_of_range_is_refused(bart_folder, refused):
    with refused("dropout is 1.5"):
        ap.load_model(str(bart_folder), made_up(), dropout=1.5)


def test_damaged_weights_are_refused(bart_folder, tokenizer, tmp_path, refused):
    save_tiny_bart(tmp_path, tokenizer)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with refused(str(tmp_path), "missing or damaged"):
        ap.load_model(str(tmp_path), made_up(), device="cpu")
