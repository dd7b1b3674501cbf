"""Batches: every row once, in an order that the seed fixes, with hardly any padding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adapter_pruning as ap
from adapter_pruning.batches import collate, length_batches

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=400)
SEEDS = st.none() | st.integers(0, 2**32)


@given(lengths=LENGTHS, size=st.integers(1, 64), seed=SEEDS)
def test_every_row_is_in_exactly_one_batch(lengths, size, seed):
    generator = None if seed is None else np.random.default_rng(seed)
    batches = length_batches(lengths, size, generator)

    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / size)
    assert max(map(len, batches)) <= size


def test_batches_follow_the_seed():
    def drawn(seed):
        batches = length_batches(list(range(100)), 8, np.random.default_rng(seed))
        return [batch.tolist() for batch in batches]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("name", ["rotten_tomatoes", "stsb"])
def test_little_of_a_real_epoch_is_padding(name, tokenizer):
    rows = ap.load_task(name, validation_size=1, test_size=1).encode(tokenizer, 128)["train"]
    lengths = np.array([len(row["input_ids"]) for row in rows])
    batches = length_batches(lengths, 32, np.random.default_rng(0))

    cells = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert 1 - lengths.sum() / cells < 0.05


def test_collate_pads_every_column_and_masks_the_padding():
    rows = [
        {"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]},
        {"input_ids": [8], "token_type_ids": [1]},
    ]

    batch = collate(rows, 9, torch.device("cpu"))

    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 9]],
        "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
