"""What the tests of tickets share: a store, a search, and the list of its trainings."""

import pytest
import torch
from ticket_searches import QUICK, Trained, values

import adapter_pruning as ap
from adapter_pruning import training, trials
from adapter_pruning.training import Progress, trainable


@pytest.fixture
def store(tmp_path):
    return ap.RecordStore(tmp_path / "runs")


@pytest.fixture
def search(small, rotten):
    """search(store, **options): all rounds of a search from the same initial values."""

    def search(store=None, model=None, **options):
        options = {"rounds": 3, "config": QUICK, "progress": False} | options
        model = model or small()
        return list(ap.find_tickets(model, rotten, store=store, **options))

    return search


@pytest.fixture
def trained(monkeypatch):
    """The list of all trainings; they are real."""
    calls = []

    def spy(model, *args, **options):
        start = values(model)
        progress = training.fit(model, *args, **options)
        calls.append(Trained(start, options["mask"], values(model)))
        return progress

    monkeypatch.setattr(trials, "fit", spy)
    return calls


@pytest.fixture
def coarse(monkeypatch):
    """The list of all trainings; each only rounds the weights, which makes many ties."""
    calls = []

    def rounding(model, task, config, *, mask, **options):
        start = values(model)
        generator = torch.Generator().manual_seed(len(calls))
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                change = torch.randn(parameter.shape, generator=generator) / 50
                parameter.copy_(((parameter + change) * 50).round() / 50)
                if name in mask:
                    parameter.masked_fill_(~mask[name], 0)
        calls.append(Trained(start, mask, values(model)))
        return Progress(step=1, best_loss=1.0, best_step=1)

    monkeypatch.setattr(trials, "fit", rounding)
    return calls
