"""Trainings that take a second: their settings, and what is equal where two are equal."""

import dataclasses
import itertools

from adapter_pruning import training
from adapter_pruning.training import TrainConfig, trainable

# 64 rows make 4 steps an epoch and 8 in all, with an evaluation after every second one.
QUICK = TrainConfig(
    epochs=2, batch_size=16, evaluations_per_epoch=2, max_length=32, precision="fp32"
)
STEPS, EVALUATIONS = 8, 4
# For the trials, which train many times.
QUICKER = TrainConfig(
    epochs=1, batch_size=16, evaluations_per_epoch=2, max_length=16, precision="fp32"
)


def fit(model, task, config=QUICK, **options):
    return training.fit(model, task, config, progress=False, **options)


def bits(model):
    """Name -> the exact bytes of everything that trains; -0.0 is not 0.0 here."""
    return {name: p.detach().cpu().numpy().tobytes() for name, p in trainable(model).items()}


def outcome(model, progress):
    """All that must be equal for two runs with one seed."""
    return bits(model), dataclasses.asdict(dataclasses.replace(progress, seconds=0.0))


def interrupt(monkeypatch, name, call):
    """Make the call-th call of a function of the module end the run, as Ctrl-C does."""
    calls, original = itertools.count(1), getattr(training, name)

    def interrupted(*args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(training, name, interrupted)
