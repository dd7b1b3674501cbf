"""PEFT's folders: what PEFT loads from ours says what ours says, and the other way round."""

import copy
import json
import sys
import warnings

import peft
import pytest
import tiny_models
import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from small_adapters import KINDS, logits, randomise
from some_masks import mask_of
from strong_models import load_strong
from torch import nn

import adapter_pruning as ap
from adapter_pruning.peft_format import from_peft, to_peft
from adapter_pruning.surgery import cut
from adapter_pruning.training import trainable

EXACT = {"rtol": 0, "atol": 1e-6}
SOME = mask_of(**{"0.heads": [1, 0, 1, 1], "1.heads": [0, 1, 0, 0], "1.ffn": [1, 0, 0, 1] * 16})
HEADLESS = mask_of(**{"0.heads": [0] * 4, "1.heads": [1, 0, 0, 1]})
VARIED = ap.LoRA(rank=(3, 5), scale=0.7, targets=("query", "attention_output", "ffn_in"))


@pytest.fixture
def loaded(folder, rotten):
    return load_strong(folder, rotten)


@pytest.fixture(params=[SOME, HEADLESS], ids=["some heads", "no heads in a layer"])
def bare(loaded, request):
    """A model that was cut, of each architecture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cut(loaded, request.param)


def trained(bare, lora=VARIED):
    """A copy with LoRA, LayerNorms and head as after training."""
    model = ap.attach(copy.deepcopy(bare), lora)
    randomise(model)
    for module in model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    nn.init.normal_(model.head.weight)
    return model


def in_peft(bare, folder):
    """PEFT's model of the folder around a copy, with no word of complaint."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return peft.PeftModel.from_pretrained(copy.deepcopy(bare), folder).eval()


def test_peft_says_what_ours_says(bare, inputs, tmp_path):
    model = trained(bare)
    to_peft(model, tmp_path / "new")
    theirs, expected = in_peft(bare, tmp_path / "new"), logits(model, inputs)
    torch.testing.assert_close(logits(theirs, inputs), expected, **EXACT)
    assert not torch.allclose(logits(bare, inputs), expected, atol=0.1)
    with theirs.disable_adapter():  # LayerNorms and head lie beside the bare ones
        torch.testing.assert_close(logits(theirs, inputs), logits(bare, inputs), **EXACT)


def test_the_way_there_and_back(bare, inputs, tmp_path):
    model = trained(bare)
    to_peft(model, tmp_path / "a")
    back = from_peft(copy.deepcopy(bare), tmp_path / "a")
    torch.testing.assert_close(logits(back, inputs), logits(model, inputs), **EXACT)
    assert trainable(back).keys() == trainable(model).keys()
    assert back.adapter_config.rank == VARIED.rank
    to_peft(back, tmp_path / "b")
    tensors = [(tmp_path / one / "adapter_model.safetensors").read_bytes() for one in "ab"]
    assert tensors[0] == tensors[1]


def test_what_is_frozen_stays_with_the_bare_model(bare, inputs, tmp_path):
    model = ap.attach(copy.deepcopy(bare), VARIED)
    randomise(model)
    model.head.requires_grad_(False)
    to_peft(model, tmp_path)
    assert all(".lora_" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    back = from_peft(copy.deepcopy(bare), tmp_path)
    for other in (in_peft(bare, tmp_path), back):
        torch.testing.assert_close(logits(other, inputs), logits(model, inputs), **EXACT)
    assert not back.head.weight.requires_grad


def test_ours_says_what_peft_says(loaded, inputs, tmp_path):
    suffixes = [loaded.architecture.query.split(".")[-1], loaded.architecture.ffn_out]
    config = peft.LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=suffixes,
        rank_pattern={r"layer\.1\..*": 2},
        modules_to_save=["head", "LayerNorm"],
        init_lora_weights="gaussian",
        lora_dropout=0.1,
    )
    theirs = peft.get_peft_model(copy.deepcopy(loaded), config).eval()
    with torch.no_grad():
        for parameter in trainable(theirs).values():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path)
    ours = from_peft(loaded, tmp_path)
    torch.testing.assert_close(logits(ours, inputs), logits(theirs, inputs), **EXACT)
    assert ours.adapter_config.rank == (4, 2)
    assert ours.adapter_config.alpha == 10
    assert set(ours.adapter_config.targets) >= {"query", "ffn_out"}


@pytest.fixture
def deep(tmp_path, tokenizer, rotten, monkeypatch):
    """A BERT of twelve layers: `layer.1` is the beginning of `layer.10`."""
    monkeypatch.setattr(tiny_models, "LAYERS", 12)
    tiny_models.save_tiny("bert", tmp_path / "deep", tokenizer)
    return load_strong(tmp_path / "deep", rotten)


@pytest.mark.parametrize("scaling", [{"alpha": 5.0}, {"scale": 0.3}])
def test_no_layer_is_taken_for_another(deep, inputs, tmp_path, scaling):
    ranks = (1, 9, 3, 4, 5, 6, 7, 8, 2, 10, 11, 12)
    model = trained(deep, ap.LoRA(rank=ranks, **scaling))
    to_peft(model, tmp_path)
    expected = logits(model, inputs)
    torch.testing.assert_close(logits(in_peft(deep, tmp_path), inputs), expected, **EXACT)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    names = [name for name, _ in deep.named_modules()]
    for key in config["rank_pattern"].keys() | config["alpha_pattern"].keys():
        assert sum(get_pattern_key([key], name) == key != name for name in names) == 1
    back = from_peft(deep, tmp_path)
    assert back.adapter_config.rank == ranks
    torch.testing.assert_close(logits(back, inputs), expected, **EXACT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "LoRA"])
def test_adapters_of_another_kind_are_not_written(base, tmp_path, refused, kind):
    with refused(kind, "only LoRA"):
        to_peft(ap.attach(base, KINDS[kind]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(base, tmp_path, refused):
    with refused("no adapters", "attach"):
        to_peft(base, tmp_path)
    model = ap.attach(base, VARIED)
    (tmp_path / "file").touch()
    with refused("could not write", "file"):
        to_peft(model, tmp_path / "file")
    model.encoder.pooler.requires_grad_(True)
    with refused("encoder.pooler.dense.weight trains", "freeze"):
        to_peft(model, tmp_path)


@pytest.fixture
def written(base, tmp_path):
    """A folder with LoRA for `base`."""
    to_peft(ap.attach(copy.deepcopy(base), ap.LoRA(rank=3)), tmp_path)
    return tmp_path


def rewrite(folder, **options):
    """Change the configuration in the folder."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


def retensor(folder, change):
    """Change the tensors in the folder."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


QUERY = "encoder.encoder.layer.1.attention.self.query"
A = f"base_model.model.{QUERY}.lora_A.weight"
DAMAGED = {
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), ["no file", "config"]),
    "no tensors": (lambda f: (f / "adapter_model.safetensors").unlink(), ["no file", "model"]),
    "torn": (lambda f: (f / "adapter_config.json").write_text('{"peft_'), ["damaged", "again"]),
    "a list": (lambda f: (f / "adapter_config.json").write_text("[]"), ["damaged"]),
    "no type": (lambda f: (f / "adapter_config.json").write_text("{}"), ["damaged"]),
    "torn tensors": (lambda f: (f / "adapter_model.safetensors").write_text("x"), ["damaged"]),
    "IA3": (lambda f: rewrite(f, peft_type="IA3"), ["IA3", "only LORA"]),
    "DoRA": (lambda f: rewrite(f, use_dora=True), ["use_dora True", "False"]),
    "rsLoRA": (lambda f: rewrite(f, use_rslora=True), ["use_rslora True"]),
    "biases": (lambda f: rewrite(f, bias="all"), ["bias 'all'", "'none'"]),
    "PiSSA": (lambda f: rewrite(f, init_lora_weights="pissa"), ["init_lora_weights 'pissa'"]),
    "two ranks": (lambda f: rewrite(f, rank_pattern={QUERY: 2}), ["ranks 2 and 3 in layer 1"]),
    "two scales": (lambda f: rewrite(f, alpha_pattern={QUERY: 2}), ["scales", "one alpha"]),
    "bad rank": (lambda f: rewrite(f, r="x", rank_pattern={}), ["LoRA: rank", "is 'x'"]),
    "one too few": (lambda f: retensor(f, lambda t: t.pop(A) is None or t), [A, "None"]),
    "one too many": (lambda f: retensor(f, lambda t: {"x": t[A].clone(), **t}), ["x is", "None"]),
    "a shape": (lambda f: retensor(f, lambda t: {**t, A: torch.ones(3, 9)}), [A, "(3, 9)"]),
    "none": (lambda f: retensor(f, lambda t: {}), ["for no matrix", "whole model"]),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_bad_folder_is_refused_and_the_model_stays(base, written, refused, what):
    before = {name: p.detach().clone() for name, p in trainable(base).items()}
    damage, said = DAMAGED[what]
    damage(written)
    with refused(str(written), *said):
        from_peft(base, written)
    torch.testing.assert_close(trainable(base), before)


def test_a_folder_of_another_model_is_refused(base, written, refused):
    with refused("does not fit", "cut the model"):
        from_peft(cut(base, SOME), written)


def test_a_model_with_adapters_takes_no_folder(base, written, refused):
    with refused("already has adapters"):
        from_peft(ap.attach(base, VARIED), written)


def test_without_peft_the_package_to_install_is_named(base, written, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for call in (to_peft, from_peft):
        with refused("'peft' is not installed", "adapter-pruning[notebooks]"):
            call(base, written)
