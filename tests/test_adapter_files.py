"""Files of adapters: bit-equal outputs from the right one, and a sentence from any other."""

from dataclasses import replace

import pytest
import torch
from small_adapters import logits, randomise

import adapter_pruning as ap
from adapter_pruning import files
from adapter_pruning.adapters import adapter_parameters

# Files


def test_saved_adapters_give_bit_equal_outputs_on_a_freshly_loaded_model(
    adapted, tiny_bert, inputs, tmp_path
):
    file = tmp_path / "adapters.safetensors"
    randomise(adapted)
    ap.save_adapters(adapted, file)
    loaded = ap.load_adapters(tiny_bert(seed=99).eval(), file)
    assert torch.equal(logits(loaded, inputs), logits(adapted, inputs))
    assert loaded.adapter_config == adapted.adapter_config
    assert [p.requires_grad for p in loaded.parameters()] == [
        p.requires_grad for p in adapted.parameters()
    ]


def test_a_file_holds_adapters_and_head_and_not_the_encoder(adapted, tmp_path):
    file = tmp_path / "adapters.safetensors"
    ap.save_adapters(adapted, file)
    tensors, about = files.load_tensors(file)
    assert tensors.keys() == {*adapter_parameters(adapted), "head.weight", "head.bias"}
    assert about["revision"] == adapted.revision


@pytest.fixture
def saved(adapted, tmp_path):
    file = tmp_path / "saved" / "adapters.safetensors"
    ap.save_adapters(adapted, file)
    return file


def refused_and_unchanged(model, file, refused, *parts):
    before = list(model.state_dict())
    with refused(str(file), *parts):
        ap.load_adapters(model, file)
    assert model.adapter_config is None
    assert list(model.state_dict()) == before


def test_adapters_of_other_weights_are_refused(saved, tiny_bert, refused):
    model = tiny_bert()
    model.revision, right = "sha256:0123", model.revision
    refused_and_unchanged(model, saved, refused, right, "sha256:0123")


def test_adapters_with_another_head_are_refused(saved, tiny_bert, rotten, refused):
    regression = replace(rotten, spec=ap.TASKS["stsb"])
    model = tiny_bert(task=regression)
    refused_and_unchanged(model, saved, refused, "another head", "head.weight")


def test_adapters_are_refused_by_a_model_that_has_some(saved, adapted, refused):
    with refused("already has adapters"):
        ap.load_adapters(adapted, saved)


def test_a_missing_file_is_named(tmp_path, base, refused):
    refused_and_unchanged(base, tmp_path / "nowhere", refused, "no file")


def test_a_truncated_file_is_named(saved, tiny_bert, refused):
    saved.write_bytes(saved.read_bytes()[:-9])
    refused_and_unchanged(tiny_bert(), saved, refused, "damaged")


def test_a_file_of_something_else_is_named(tmp_path, base, refused):
    files.save_tensors(tmp_path / "mask", {"a": torch.ones(2)}, {"kind": "mask"})
    refused_and_unchanged(base, tmp_path / "mask", refused, "no saved adapters")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state, about: state.pop("head.bias"), "head.bias"),
        (lambda state, about: state.pop("adapters.1.ffn.up.weight"), "save it again"),
        (lambda state, about: state.update({"adapters.9.ffn.up.weight": torch.ones(1)}), "again"),
        (lambda state, about: about.update(config='{"bottleneck": 6}'), "save it again"),
        (lambda state, about: about.update(config='{"width": 5}'), "describes no adapters"),
        (lambda state, about: about.update(config="{"), "describes no adapters"),
        (lambda state, about: about.pop("config"), "describes no adapters"),
        (lambda state, about: about.pop("revision"), "None"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_and_the_model_left_alone(
    saved, tiny_bert, refused, change, said
):
    state, about = files.load_tensors(saved)
    change(state, about)
    files.save_tensors(saved, state, about)
    refused_and_unchanged(tiny_bert(), saved, refused, said)
