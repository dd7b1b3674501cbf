"""Backbones: every known architecture loads from a folder and keeps its parts where we look."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import HIDDEN, INNER, LAYERS
from torch import nn

import adapter_pruning as ap
from adapter_pruning import offline
from adapter_pruning.backbones import Model


@pytest.fixture
def model(folder, rotten) -> Model:
    return ap.load_model(str(folder), rotten, device="cpu").eval()


# Architectures


def test_every_named_part_is_the_right_kind_of_module_with_the_right_shape(model):
    shapes = {"query": (HIDDEN, HIDDEN), "key": (HIDDEN, HIDDEN), "value": (HIDDEN, HIDDEN)}
    shapes |= {"attention_output": (HIDDEN, HIDDEN)}
    shapes |= {"ffn_in": (INNER, HIDDEN), "ffn_out": (HIDDEN, INNER)}
    layers = list(model.layers())
    assert len(layers) == LAYERS
    for layer in layers:
        for part, shape in shapes.items():
            module = layer.part(part)
            assert type(module) is nn.Linear, part
            assert tuple(module.weight.shape) == shape, part
        for part in ("attention_end", "ffn_end"):
            assert type(layer.part(part)) is nn.Dropout


def test_no_two_parts_are_the_same_module(model):
    layer = next(model.layers())
    parts = ["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
    names = [getattr(model.architecture, part) for part in (*parts, "attention_end", "ffn_end")]
    assert len({id(layer.module.get_submodule(name)) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("end", "dense"), [("attention_end", "attention_output"), ("ffn_end", "ffn_out")]
)
def test_each_end_comes_between_its_projection_and_the_residual_connection(
    model, inputs, end, dense
):
    seen = {}

    def note(name):
        return lambda module, args, out: seen.update({name: (args[0], out)})

    layer = next(model.layers())
    for name in (end, dense, "ffn_in"):
        layer.part(name).register_forward_hook(note(name))
    layer.module.register_forward_hook(note("layer"))
    norms = [m for name, m in layer.module.named_modules() if name.endswith("LayerNorm")]
    norms[0 if end == "attention_end" else 1].register_forward_hook(note("norm"))
    model(**inputs)
    residual = seen["layer"][0] if end == "attention_end" else seen["ffn_in"][0]
    assert torch.equal(seen[end][0], seen[dense][1])
    assert torch.equal(seen["norm"][0], seen[end][1] + residual)


def test_a_folder_loads_with_the_weights_that_are_in_it(model, folder):
    stored = load_file(folder / "model.safetensors")
    state = model.encoder.state_dict()
    assert stored.keys() <= state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


def test_padding_does_not_change_the_logits(model, tokenizer):
    for pooling in ("mean", "cls"):
        model.pooling = pooling
        alone = model(**tokenizer(["dull"], return_tensors="pt"))
        padded = model(
            **tokenizer(["dull"], padding="max_length", max_length=9, return_tensors="pt")
        )
        torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-6)


def test_auto_pooling_is_the_pooler_only_where_one_was_pretrained(model):
    natural = {"bert": "pooler", "roberta": "cls", "mpnet": "cls"}
    assert model.pooling == natural[model.encoder.config.model_type]


# MiniLM from its wheel


def test_minilm_is_a_bert_of_6_layers_with_mean_pooling(minilm):
    model = minilm()
    assert (len(list(model.layers())), model.head.in_features) == (6, 384)
    assert model.pooling == "mean"
    assert model.revision == offline.revision("minilm")
    assert model.name == "minilm"


def test_minilm_puts_alike_sentences_closer(minilm):
    # Mean vectors of real weights know meaning; random or misplaced weights do not.
    model = minilm().eval()
    texts = ["A man plays a guitar.", "Someone is playing a guitar.", "The stock market fell."]
    batch = model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        vectors = model._pool(model.encoder(**batch), batch["attention_mask"])
    first, second, third = nn.functional.normalize(vectors)
    assert first @ second > 0.8
    assert first @ third < 0.2
