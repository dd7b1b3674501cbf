"""Backbones: every known architecture loads from a folder and keeps its parts where we look."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

import adapter_pruning as ap
from adapter_pruning import offline
from adapter_pruning.backbones import ARCHITECTURES, Model, init_head, pick_device

HIDDEN, INNER, LAYERS = 32, 64, 2
CLASSES = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "mpnet": (MPNetConfig, MPNetModel),
}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def folder(request, tmp_path_factory, tokenizer) -> Path:
    """A folder with a tiny random model of each known architecture, saved by transformers."""
    config_class, model_class = CLASSES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=INNER,
        pad_token_id=tokenizer.pad_token_id,
    )
    pooler = ARCHITECTURES[request.param].has_pooler
    model_class(config, add_pooling_layer=pooler).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(folder, rotten) -> Model:
    return ap.load_model(str(folder), rotten, device="cpu").eval()


@pytest.fixture
def inputs(tokenizer):
    texts = ["a film with a heart and a head", "dull"]
    return tokenizer(texts, padding=True, return_tensors="pt")


@pytest.fixture
def copied(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny BERT's folder, to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


# Architectures


def test_every_named_part_is_the_right_kind_of_module_with_the_right_shape(model):
    shapes = {"query": (HIDDEN, HIDDEN), "key": (HIDDEN, HIDDEN), "value": (HIDDEN, HIDDEN)}
    shapes |= {"attention_output": (HIDDEN, HIDDEN)}
    shapes |= {"ffn_in": (INNER, HIDDEN), "ffn_out": (HIDDEN, INNER)}
    layers = list(model.layers())
    assert len(layers) == LAYERS
    for layer in layers:
        for part, shape in shapes.items():
            module = layer.get_submodule(getattr(model.architecture, part))
            assert type(module) is nn.Linear, part
            assert tuple(module.weight.shape) == shape, part
        for part in ("attention_end", "ffn_end"):
            assert type(layer.get_submodule(getattr(model.architecture, part))) is nn.Dropout


def test_no_two_parts_are_the_same_module(model):
    layer = next(model.layers())
    parts = ["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
    names = [getattr(model.architecture, part) for part in (*parts, "attention_end", "ffn_end")]
    assert len({id(layer.get_submodule(name)) for name in names}) == len(names)


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
        part = layer.get_submodule(getattr(model.architecture, name))
        part.register_forward_hook(note(name))
    layer.register_forward_hook(note("layer"))
    norms = [m for name, m in layer.named_modules() if name.endswith("LayerNorm")]
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


# Pooling and head


def test_each_pooling_is_what_it_says(tiny_bert, inputs):
    model = tiny_bert().eval()
    out = model.encoder(**inputs)
    words = inputs["attention_mask"][1].sum()  # the second row is padded
    assert words < inputs["input_ids"].shape[1]
    expected = {
        "pooler": torch.tanh(model.encoder.pooler.dense(out.last_hidden_state[:, 0]))[1],
        "mean": out.last_hidden_state[1, :words].mean(0),
        "cls": out.last_hidden_state[1, 0],
    }
    for pooling, vector in expected.items():
        model.pooling = pooling
        logits = model(**inputs)
        assert logits.shape == (2, 2)
        torch.testing.assert_close(logits[1], model.head(vector))


def test_the_pooling_that_is_asked_for_is_taken(tiny_bert):
    assert [tiny_bert(pooling=p).pooling for p in ("mean", "cls")] == ["mean", "cls"]


def test_the_head_is_as_wide_as_the_task_needs(tiny_bert, rotten):
    assert tiny_bert().head.out_features == rotten.outputs == 2


def test_the_head_is_of_its_seed_alone(tiny_bert):
    torch.manual_seed(1)
    first = tiny_bert(seed=3).head
    torch.manual_seed(2)
    same, other = tiny_bert(seed=3).head, tiny_bert(seed=4).head
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not first.bias.any()


def test_the_head_is_drawn_with_a_standard_deviation_of_002(minilm):
    model = minilm()
    model.head = nn.Linear(384, 100)
    init_head(model, seed=0)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.head.weight.mean().item() == pytest.approx(0, abs=5e-4)


def test_the_head_is_drawn_on_the_cpu_wherever_the_model_is(tiny_bert):
    # The CPU's generator gives the same numbers to a model on any device.
    generator = torch.Generator("cpu").manual_seed(7)
    expected = torch.empty(2, HIDDEN).normal_(0, 0.02, generator=generator)
    assert torch.equal(tiny_bert(seed=7).head.weight, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_head_is_the_same_on_a_gpu(tiny_bert):
    on_gpu = tiny_bert(seed=7, device="cuda")
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.head.weight.cpu(), tiny_bert(seed=7).head.weight)


# Revision: which weights these are


def test_the_revision_of_a_folder_follows_the_content_of_its_weights(copied, tiny_bert, rotten):
    assert ap.load_model(str(copied), rotten).revision == tiny_bert().revision
    weights = load_file(copied / "model.safetensors")
    weights["pooler.dense.bias"] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert ap.load_model(str(copied), rotten).revision != tiny_bert().revision


def test_the_revision_of_a_folder_with_older_weight_files_follows_them_too(copied, rotten):
    revisions = set()
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    for shift in (0, 1):
        weights["pooler.dense.bias"] += shift
        torch.save(weights, copied / "pytorch_model.bin")
        revisions.add(ap.load_model(str(copied), rotten).revision)
    assert len(revisions) == 2


# Bad input


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no such name at all//", "./nowhere"])
def test_a_name_that_cannot_be_loaded_is_answered_with_what_can(rotten, refused, name):
    with refused(repr(name), "'minilm'", "folder", "hub name"):
        ap.load_model(name, rotten)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (
            "distilbert",
            lambda: DistilBertModel(
                DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_heads=2, n_layers=1)
            ),
        ),
        (
            "gpt2",
            lambda: GPT2Model(
                GPT2Config(
                    vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
                )
            ),
        ),
    ],
)
def test_an_unknown_architecture_is_answered_with_the_known_ones(
    tmp_path, rotten, refused, kind, made
):
    made().save_pretrained(tmp_path)
    with refused(f"'{kind}'", str(tmp_path), "bert, roberta, mpnet"):
        ap.load_model(str(tmp_path), rotten)


def test_a_damaged_weights_file_is_refused(copied, rotten, refused):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with refused(str(copied), "missing or damaged", "fetch them again"):
        ap.load_model(str(copied), rotten)


def test_a_folder_without_weights_is_refused(copied, rotten, refused):
    (copied / "model.safetensors").unlink()
    with refused(str(copied), "missing or damaged", "fetch them again"):
        ap.load_model(str(copied), rotten)


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(copied, rotten, refused):
    weights = load_file(copied / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "layer.1." not in name}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with refused(str(copied), "incomplete", "encoder.layer.1."):
        ap.load_model(str(copied), rotten)


def test_weights_without_a_pooler_are_pooled_otherwise(copied, rotten, refused):
    weights = load_file(copied / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    model = ap.load_model(str(copied), rotten)
    assert model.pooling == "cls"
    assert not any("pooler" in name for name in model.state_dict())
    with refused("no trained pooler", "'cls' or 'mean'"):
        ap.load_model(str(copied), rotten, pooling="pooler")


def test_weights_of_another_size_than_the_config_says_are_refused(copied, rotten, refused):
    file = copied / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 48}))
    with refused(str(copied), "damaged", "fetch them again"):
        ap.load_model(str(copied), rotten)


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_config_is_refused(copied, rotten, refused, content):
    (copied / "config.json").write_text(content)
    with refused(str(copied), "could not load"):
        ap.load_model(str(copied), rotten)


def test_a_damaged_tokenizer_is_refused(copied, rotten, refused):
    (copied / "tokenizer.json").write_text("{")
    with refused(str(copied), "tokenizer", "damaged"):
        ap.load_model(str(copied), rotten)


def test_a_folder_without_tokenizer_files_is_refused(copied, rotten, refused):
    for file in [*copied.glob("*token*"), *copied.glob("vocab*")]:
        file.unlink()
    with refused(str(copied), "tokenizer"):
        ap.load_model(str(copied), rotten)


def test_an_unknown_pooling_is_answered_with_the_known_ones(tiny_bert, refused):
    with refused("unknown pooling 'max'", "pooler, mean, cls"):
        tiny_bert(pooling="max")


def test_an_unknown_device_is_answered_with_the_known_ones(refused):
    with refused("unknown device 'tpu'", "auto, cpu, cuda"):
        pick_device("tpu")


def test_a_gpu_that_is_not_there_is_said_before_anything_is_loaded(monkeypatch, tiny_bert, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    with refused("'cuda'", "use 'auto' or 'cpu'"):
        tiny_bert(device="cuda")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for present, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert pick_device("auto").type == kind


def test_dropout_is_the_encoders_own_unless_it_is_given(tiny_bert):
    assert _rates(tiny_bert()) == {0.1}
    assert _rates(tiny_bert(dropout=0.0)) == {0.0}


def _rates(model):
    return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_out_of_range_is_refused(tiny_bert, refused, dropout):
    with refused("dropout is", str(dropout)):
        tiny_bert(dropout=dropout)


def test_a_pooler_that_the_head_does_not_read_does_not_train(tiny_bert):
    def frozen(model):
        return {name for name, p in model.named_parameters() if not p.requires_grad}

    pooler = {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}
    assert frozen(tiny_bert(pooling="mean")) == pooler
    assert frozen(tiny_bert(pooling="pooler")) == set()
    model = ap.detach(ap.attach(tiny_bert(pooling="mean"), ap.Houlsby(bottleneck=2)))
    assert frozen(model) == pooler
