"""What the tests share: one thread, no hub, a small real task, a real model and a tiny one."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before huggingface_hub is imported, which reads it once: no test may reach for the hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from transformers import AutoTokenizer, BertConfig, BertModel

import adapter_pruning as ap
from adapter_pruning import offline

torch.set_num_threads(1)  # pytest-xdist runs one process a core
# The same examples on every run, no time limit an example (machines differ), no database folder.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def refused():
    """with refused(*parts): the block raises a PruningError of one line that says every part."""

    @contextmanager
    def block(*parts: str) -> Iterator[None]:
        with pytest.raises(ap.PruningError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message

    return block


@pytest.fixture(scope="session")
def rotten() -> ap.tasks.Task:
    """A small part of a real two-class task that comes in a wheel."""
    return ap.load_task("rotten_tomatoes", train_size=64, validation_size=32, test_size=64)


@pytest.fixture(scope="session")
def minilm(rotten):
    """minilm(task=rotten, **options): the real MiniLM on the CPU, a fresh copy at every call."""

    @functools.cache
    def loaded(outputs, options):
        # A head needs nothing of a task but its width.
        return ap.load_model("minilm", _Width(outputs), **{"device": "cpu", **dict(options)})

    def fresh(task=rotten, **options):
        return copy.deepcopy(loaded(task.outputs, tuple(sorted(options.items()))))

    return fresh


class _Width:
    """The one fact of a task that `load_model` reads."""

    def __init__(self, outputs: int):
        self.outputs = outputs


@pytest.fixture(scope="session")
def tokenizer():
    """MiniLM's own tokenizer: BERT's uncased vocabulary."""
    return AutoTokenizer.from_pretrained(offline.fetch("minilm"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer) -> Path:
    """A folder with a randomly initialised BERT: 2 layers, 4 heads, hidden 32, with a pooler."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tiny_folder, rotten):
    """tiny_bert(task=rotten, **options): the model of `tiny_folder` on the CPU, loaded anew."""

    def fresh(task=rotten, **options):
        return ap.load_model(str(tiny_folder), task, **{"device": "cpu", **options})

    return fresh


@pytest.fixture(scope="session")
def glue_folder() -> Path:
    """A folder in the layout of nyu-mll/glue; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "glue"
    folder = Path(os.environ.get("ADAPTER_PRUNING_GLUE") or beside)
    if not folder.is_dir():
        pytest.skip(f"no GLUE data: {folder} is not a folder (set ADAPTER_PRUNING_GLUE to one)")
    return folder


@pytest.fixture(scope="session")
def smoke() -> Path:
    """_build/smoke with the whole book at the smallest profile; made now where it is not there."""
    root = Path(__file__).parents[1]
    (root / "_build").mkdir(exist_ok=True)
    command = [
        Path(sys.executable).with_name("snakemake"),
        "--cores",
        "2",
        "--config",
        "profile=smoke",
    ]
    with FileLock(root / "_build" / "smoke.lock"):  # one of pytest-xdist's processes is enough
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return root / "_build" / "smoke"
