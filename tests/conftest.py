"""What the tests share: one thread, no hub, small tasks and models, a small GLUE, tiny wheels."""

import copy
import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Before huggingface_hub is imported, which reads it once: no test may reach for the hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from small_adapters import SMALL
from small_glue import FEW, HIDDEN, PAPER, write_glue, write_split
from strong_models import load_strong
from tiny_models import save_tiny
from transformers import AutoTokenizer, BertConfig, BertModel
from wheels import MAIN, SPARE, WEIGHTS, Shop

import adapter_pruning as ap
from adapter_pruning import offline, submission
from adapter_pruning.backbones import ARCHITECTURES
from adapter_pruning.offline import Asset
from adapter_pruning.specs import TASKS

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
    """The facts of a task that `load_model` reads."""

    tokenwise = False

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


@pytest.fixture(scope="session", params=ARCHITECTURES)
def folder(request, tmp_path_factory, tokenizer) -> Path:
    """A folder with a tiny random model of each known architecture in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(request.param, folder, tokenizer)
    return folder


@pytest.fixture(scope="session")
def strong_model(folder, rotten):
    """strong_model(): the model of `folder` with weights as after training, a fresh copy."""
    loaded = load_strong(folder, rotten)
    return lambda: copy.deepcopy(loaded)


@pytest.fixture(scope="session")
def tiny_bert(tiny_folder, rotten):
    """tiny_bert(task=rotten, **options): the model of `tiny_folder` on the CPU, loaded anew."""

    def fresh(task=rotten, **options):
        return ap.load_model(str(tiny_folder), task, **{"device": "cpu", **options})

    return fresh


@pytest.fixture(scope="session")
def plain(tiny_bert):
    """plain(): the tiny BERT, all of which trains, the same at every call."""
    model = tiny_bert()
    return lambda: copy.deepcopy(model)


@pytest.fixture(scope="session")
def small(plain):
    """small(): the same with adapters."""
    model = ap.attach(plain(), ap.Houlsby(bottleneck=4))
    return lambda: copy.deepcopy(model)


@pytest.fixture(scope="session")
def everything(small):
    """The mask that keeps every adapter weight."""
    return ap.Mask.ones({n: p for n, p in small().named_parameters() if is_adapter_weight(n)})


def is_adapter_weight(name):
    return name.startswith("adapters.") and name.endswith("weight")


@pytest.fixture(scope="session")
def half(everything):
    """The mask that keeps half of all adapter weights."""
    return ap.random_mask(everything, everything.total // 2, seed=3)


@pytest.fixture
def inputs(tokenizer):
    """Two texts in one batch; the second is padded."""
    texts = ["a film with a heart and a head", "dull"]
    return tokenizer(texts, padding=True, return_tensors="pt")


@pytest.fixture
def base(tiny_bert):
    """The tiny model as loaded, in evaluation mode."""
    return tiny_bert().eval()


@pytest.fixture
def adapted(base):
    """The same with adapters."""
    return ap.attach(base, SMALL, seed=1)


@pytest.fixture(scope="session")
def glue_folder() -> Path:
    """A folder in the layout of nyu-mll/glue; the test is skipped where there is none."""
    return _real_data("glue")


@pytest.fixture(scope="session")
def squad_folder() -> Path:
    """A folder in the layout of rajpurkar/squad; the test is skipped where there is none."""
    return _real_data("squad")


@pytest.fixture(scope="session")
def xsum_folder() -> Path:
    """A folder in the layout of EdinburghNLP/xsum; the test is skipped where there is none."""
    return _real_data("xsum")


def _real_data(name: str) -> Path:
    beside, variable = Path(__file__).resolve().parents[2], f"ADAPTER_PRUNING_{name.upper()}"
    folder = Path(os.environ.get(variable) or beside / "shared" / name)
    if not folder.is_dir():
        pytest.skip(f"no {name} data: {folder} is not a folder (set {variable} to one)")
    return folder


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A folder with all of GLUE: 30 rows to train on, 9 to report on, 3 to 13 without labels."""
    folder = tmp_path_factory.mktemp("glue")
    for name in PAPER:
        spec = TASKS[f"glue/{name}"]
        classes = len(spec.labels) or 6
        write_split(folder, spec.config, "train", spec.columns, np.arange(30) % classes)
        write_split(folder, spec.config, spec.test_split, spec.columns, np.arange(9) % classes)
    for file, (config, split) in HIDDEN.items():
        columns = TASKS[submission.TICKETS[file]].columns
        classes = len(submission.LABELS[file]) or 6
        write_split(folder, config, split, columns, np.arange(FEW[file]) % classes)
    return folder


@pytest.fixture
def tiny_rte(tmp_path):
    """A folder with a tiny glue/rte: 40 rows in each split."""
    for split in ("train", "validation"):
        write_glue(tmp_path, split=split)
    return tmp_path


@pytest.fixture
def few(monkeypatch):
    """A GLUE of 3 to 13 test rows a file."""
    monkeypatch.setattr(submission, "ROWS", FEW)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Both tiny packages are for sale; `offline` knows one asset, which either carries."""
    shop = Shop(tmp_path)
    shop.stock(MAIN, {"model.safetensors": WEIGHTS, "config.json": b"{}", "sub/x.json": b"[]"})
    shop.stock(SPARE, {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    checksums = {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    monkeypatch.setattr(offline, "ASSETS", {"tiny": Asset((MAIN, SPARE), checksums)})
    monkeypatch.setattr(offline, "REQUIREMENTS", shop.pins)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop.wheels))
    return shop


@pytest.fixture
def cache(tmp_path):
    """A cache of wheels, not there yet; it takes the place of pytest's own fixture."""
    return tmp_path / "cache"


@pytest.fixture
def only_main(monkeypatch):
    """Take the fallback away."""
    only = Asset((MAIN,), offline.ASSETS["tiny"].checksums)
    monkeypatch.setitem(offline.ASSETS, "tiny", only)


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
