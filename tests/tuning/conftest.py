"""What the tests of tuning share: a task, its models, and a search that nobody disturbed."""

import copy
import functools
import shutil

import pytest
from setting_searches import LONGEST, QUICK, VARIED, sentences

import adapter_pruning as ap
from adapter_pruning import training, trials
from adapter_pruning.tasks import Classification


@pytest.fixture(scope="session")
def task():
    splits = [sentences(64, 0), sentences(32, 1), sentences(32, 2)]
    return Classification(ap.TASKS["rotten_tomatoes"], *splits, revision="made up")


@pytest.fixture(scope="session")
def make(tiny_bert):
    """make(seed): the tiny BERT, all of which trains; its pooling can be another."""

    @functools.cache
    def loaded(seed, options):
        return tiny_bert(seed=seed, **dict(options))

    def make(seed, **options):
        model = loaded(seed, tuple(options.items()))
        # Its tokenizer, which nothing changes, is what takes time to copy.
        return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})

    return make


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path / "runs")


@pytest.fixture(scope="session")
def search(make, task):
    """search(store, **options): a search over the varied space."""

    def search(store, make=make, task=task, config=QUICK, **options):
        options = VARIED | {"method": "adapter", "trials": 6} | options
        return ap.tune(make, task, config, store=store, **options)

    return search


@pytest.fixture(scope="session")
def unbroken(search, tmp_path_factory):
    """What a search finds that nobody disturbed, its records, and the store's folder."""
    store = ap.RecordStore(tmp_path_factory.mktemp("unbroken") / "runs")
    return search(store, trials=LONGEST), store.all(), store.folder


@pytest.fixture
def finished(unbroken, store):
    """A copy of the store of that search."""
    shutil.copytree(unbroken[2], store.folder)
    return store


@pytest.fixture
def fits(monkeypatch):
    """The list of all trainings, each by the setting it tried."""
    calls = []

    def counted(model, task, config, **options):
        calls.append((config.learning_rate, config.epochs))
        return training.fit(model, task, config, **options)

    monkeypatch.setattr(trials, "fit", counted)
    return calls
