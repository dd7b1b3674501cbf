"""Folders of weights: which weights they hold, and what is said of one that cannot be loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertModel, GPT2Config, GPT2Model

import adapter_pruning as ap


@pytest.fixture
def copied(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny BERT's folder, to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


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
