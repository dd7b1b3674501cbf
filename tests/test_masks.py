"""Masks: what they are, how they combine, and that a file gives back the mask or names itself."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_masks import mask_of, masks

import adapter_pruning as ap
from adapter_pruning import files
from adapter_pruning.masks import Mask, check_fit, load_mask, save_mask

# What a mask is


def test_a_mask_is_a_mapping_in_the_order_it_was_made_in():
    mask = mask_of(z=[1, 0], a=[0])
    assert list(mask) == ["z", "a"]
    assert len(mask) == 2
    assert "z" in mask
    assert mask["z"].tolist() == [True, False]


def test_a_mask_does_not_follow_the_tensor_it_was_made_from():
    source = torch.tensor([True, True])
    mask = Mask({"a": source})
    source[0] = False
    assert mask["a"].all()


def test_what_a_mask_hands_out_cannot_change_it():
    mask = mask_of(a=[1, 1], b=[1])
    mask["a"][0] = False
    for tensor in mask.values():
        tensor.zero_()
    assert mask == mask_of(a=[1, 1], b=[1])


def test_a_mask_takes_no_assignment():
    mask = mask_of(a=[1])
    with pytest.raises(TypeError):
        mask["a"] = torch.tensor([False])
    with pytest.raises(TypeError):
        del mask["a"]


def test_a_mask_cannot_be_hashed():
    # Equal masks would need equal hashes, and tensors have none that goes by value.
    with pytest.raises(TypeError):
        hash(mask_of(a=[1]))


@pytest.mark.parametrize("entry", [torch.ones(2), torch.ones(2, dtype=torch.uint8), [True], None])
def test_an_entry_that_is_no_bool_tensor_is_named(refused, entry):
    with refused("'b'", "bool tensor"):
        Mask({"a": torch.tensor([True]), "b": entry})


def test_an_empty_mask_is_refused(refused):
    with refused("at least one tensor"):
        Mask({})


def test_density_counts_entries_and_not_tensors():
    mask = mask_of(a=[1, 1, 1, 0, 0, 0], b=[[1], [1]])
    assert (mask.kept, mask.total) == (5, 8)
    assert mask.density == 5 / 8
    assert mask.densities() == {"a": 0.5, "b": 1.0}


def test_ones_keeps_everything_in_the_shapes_given():
    mask = Mask.ones({"w": torch.nn.Parameter(torch.zeros(2, 3)), "s": torch.tensor(0.0)})
    assert mask == mask_of(w=[[1, 1, 1], [1, 1, 1]], s=1)


@given(masks())
def test_set_algebra_has_its_laws(mask):
    everything, nothing = mask | ~mask, mask & ~mask
    assert everything == Mask.ones(mask)
    assert nothing.kept == 0
    assert ~~mask == mask
    assert (mask & everything) == mask == (mask | nothing)
    assert mask.density + (~mask).density == pytest.approx(1)


def test_set_algebra_equals_the_hand_computed():
    a, b = mask_of(x=[1, 1, 0, 0]), mask_of(x=[1, 0, 1, 0])
    assert (a & b) == mask_of(x=[1, 0, 0, 0])
    assert (a | b) == mask_of(x=[1, 1, 1, 0])
    assert ~a == mask_of(x=[0, 0, 1, 1])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (mask_of(x=[1, 1], y=[1]), "'y'"),
        (mask_of(y=[1, 1]), "'y'"),
        (mask_of(x=[1]), "shape (1,), the mask has (2,)"),
    ],
)
def test_masks_that_do_not_fit_cannot_be_combined(refused, other, said):
    with refused(said):
        mask_of(x=[1, 1]) & other
    with refused(said):
        mask_of(x=[1, 1]) | other


@pytest.mark.parametrize(
    "other",
    [
        mask_of(x=[1, 1], y=[1]),
        mask_of(x=[1, 0], y=[1], z=[1]),
        mask_of(x=[1, 0]),
        mask_of(x=[[1, 0]], y=[1]),
        mask_of(y=[1], x=[1, 0]),  # ties go by order, so order is part of what a mask is
        {"x": torch.tensor([True, False]), "y": torch.tensor([True])},
    ],
)
def test_masks_are_equal_only_in_names_order_shapes_and_values(other):
    mask = mask_of(x=[1, 0], y=[1])
    assert mask == mask_of(x=[1, 0], y=[1])
    assert mask != other


def test_check_fit_names_what_the_target_has_and_the_mask_has_not(refused):
    with refused("the model has 'b'", "the mask has not"):
        check_fit(mask_of(a=[1]), {"a": torch.ones(1), "b": torch.ones(1)}, "model")


# Files


@given(mask=masks())
def test_a_mask_comes_back_from_its_file_as_it_was(tmp_path_factory, mask):
    file = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_mask(mask, file)
    assert load_mask(file) == mask


def test_a_mask_file_takes_one_bit_an_entry(tmp_path):
    file = tmp_path / "mask.safetensors"
    save_mask(Mask.ones({"w": torch.empty(1000, 800)}), file)
    assert 100_000 <= file.stat().st_size < 101_000


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_mask_file_is_named(tmp_path, refused, keep):
    file = tmp_path / "mask.safetensors"
    save_mask(mask_of(a=[1, 0, 1]), file)
    file.write_bytes(file.read_bytes()[:keep])
    with refused(str(file), "damaged"):
        load_mask(file)


@given(data=st.data())
@settings(max_examples=200)
def test_a_mask_file_with_a_wrong_byte_gives_a_mask_or_an_error_that_names_it(
    tmp_path_factory, data
):
    file = tmp_path_factory.getbasetemp() / "wrong-byte.safetensors"
    save_mask(mask_of(first=[1, 0, 1], second=[[1], [1]]), file)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        found = load_mask(file)
    except ap.PruningError as error:
        found = str(error)
    assert isinstance(found, Mask) or str(file) in found


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"shapes": "{"},
        {"shapes": json.dumps({"b": [8]})},
        {"shapes": json.dumps({"a": [2, 9]})},
        {"shapes": json.dumps({"a": [3]})},
        {"shapes": json.dumps({})},
    ],
)
def test_a_mask_file_whose_shapes_do_not_fit_its_bits_is_damaged(tmp_path, refused, about):
    file = tmp_path / "mask.safetensors"
    files.save_tensors(file, {"a": torch.zeros(2, dtype=torch.uint8)}, {"kind": "mask"} | about)
    with refused(str(file), "damaged"):
        load_mask(file)


def test_a_file_of_something_else_is_not_a_mask_file(tmp_path, refused):
    files.save_tensors(tmp_path / "weights", {"a": torch.ones(3)}, {})
    with refused(str(tmp_path / "weights"), "not a mask file"):
        load_mask(tmp_path / "weights")
