"""What the tests of models that write share: a tiny BART, and two documents to read."""

import copy

import pytest
import torch
from small_xsum import made_up
from tiny_models import save_tiny_bart

import adapter_pruning as ap
from adapter_pruning.batches import collate


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory, tokenizer):
    """A folder with a randomly initialised BART: 2 + 2 layers, 4 heads, width 32."""
    folder = tmp_path_factory.mktemp("tiny-bart")
    save_tiny_bart(folder, tokenizer)
    return folder


@pytest.fixture(scope="session")
def loaded(bart_folder):
    return ap.load_model(str(bart_folder), made_up(), device="cpu").eval()


@pytest.fixture
def model(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture(scope="session")
def rows(tokenizer):
    """Two documents with their summaries; in a batch both of the second are padded."""
    return [made_up().encode(tokenizer, 32)["test"][0], made_up().encode(tokenizer, 32)["train"][0]]


@pytest.fixture
def batch(rows, tokenizer):
    made = collate(rows, tokenizer.pad_token_id, torch.device("cpu"))
    assert (made["target_ids"][1] == tokenizer.pad_token_id).any()
    return made
