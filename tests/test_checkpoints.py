"""Checkpoints: an interrupted training comes to the same end, and no other run's is taken."""

import dataclasses
import re

import pytest
import torch
from quick_training import EVALUATIONS, QUICK, bits, fit, interrupt, outcome

from adapter_pruning import training
from adapter_pruning.errors import PruningError

# Checkpoints


@pytest.fixture(scope="module")
def unbroken(small, rotten):
    model = small()
    return outcome(model, fit(model, rotten))


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "run" / "training.pt"


@pytest.fixture
def start(small, rotten, checkpoint):
    """start(): run with a fresh model, as a new process would, going on where the last one was."""

    def start(**options):
        model = small()
        progress = fit(model, rotten, checkpoint=checkpoint, checkpoint_seconds=0, **options)
        return outcome(model, progress)

    return start


@pytest.fixture
def start_and_stop(start, monkeypatch):
    """start_and_stop(name, call): the same, until a function of the module is called so often."""

    def start_and_stop(name, call, **options):
        with monkeypatch.context() as patch:
            interrupt(patch, name, call)
            with pytest.raises(KeyboardInterrupt):
                start(**options)

    return start_and_stop


@pytest.mark.parametrize("evaluation", range(1, EVALUATIONS + 1))
def test_an_interrupted_evaluation_is_made_up_for(start, start_and_stop, unbroken, evaluation):
    start_and_stop("evaluate", evaluation)

    assert start() == unbroken


@pytest.mark.parametrize("step", [1, 4, 5, 6, 8])
def test_an_interrupted_step_is_made_up_for(start, start_and_stop, unbroken, step):
    start_and_stop("rate_factor", step)

    assert start() == unbroken


def test_a_run_that_is_interrupted_again_and_again_comes_to_its_end(
    start, start_and_stop, unbroken
):
    for _ in range(EVALUATIONS - 1):
        start_and_stop("evaluate", 2)  # each start gets one evaluation further

    assert start() == unbroken


def test_a_checkpoint_saves_the_work_before_it(start, start_and_stop, monkeypatch):
    start_and_stop("evaluate", 3)
    steps, factor = [], training.rate_factor
    monkeypatch.setattr(
        training, "rate_factor", lambda step, *args: steps.append(step) or factor(step, *args)
    )

    start()

    assert steps == [4, 5, 6, 7]


def test_an_interrupted_run_under_a_mask_is_made_up_for(small, rotten, start, start_and_stop, half):
    model = small()
    whole = outcome(model, fit(model, rotten, mask=half))
    start_and_stop("evaluate", 3, mask=half)

    assert start(mask=half) == whole


def test_patience_counts_on_after_an_interruption(small, rotten, checkpoint, monkeypatch):
    config = dataclasses.replace(QUICK, patience=2)
    kept = {"checkpoint": checkpoint, "checkpoint_seconds": 0}
    losses = iter([1.0, 2.0, KeyboardInterrupt, 3.0])

    def evaluate(*args):
        if (loss := next(losses)) is KeyboardInterrupt:
            raise loss
        return {"loss": loss, "accuracy": 0.5}

    monkeypatch.setattr(training, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), rotten, config, **kept)

    progress = fit(small(), rotten, config, **kept)

    assert (progress.step, progress.best_step, progress.stopped) == (6, 2, True)


def test_a_finished_run_is_not_trained_again(start, monkeypatch, unbroken):
    start()
    interrupt(monkeypatch, "rate_factor", 1)

    assert start() == unbroken


def test_no_checkpoint_is_written_before_it_is_due(small, rotten, checkpoint):
    fit(small(), rotten, checkpoint=checkpoint, checkpoint_seconds=3600)

    assert not checkpoint.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not a checkpoint",
        lambda content: content.replace(b"PK", b"KP"),
    ],
    ids=["cut off", "empty", "text", "no zip"],
)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(start, checkpoint, damage):
    start()
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))

    sentence = (
        rf"^the checkpoint {re.escape(repr(str(checkpoint)))} is damaged \(\w+\); "
        "delete it to train this model from its start$"
    )
    with pytest.raises(PruningError, match=sentence):
        start()


def another_task(task):
    return dataclasses.replace(task, revision="another")


@pytest.mark.parametrize(
    "change",
    [
        lambda run, mask: run | {"seed": 1},
        lambda run, mask: run | {"config": dataclasses.replace(QUICK, learning_rate=5e-4)},
        lambda run, mask: run | {"task": another_task(run["task"])},
        lambda run, mask: run | {"mask": ~mask},
        lambda run, mask: run | {"mask": None},
    ],
    ids=["seed", "settings", "data", "mask", "no mask"],
)
def test_the_checkpoint_of_another_run_is_refused_and_the_model_left_alone(
    small, rotten, checkpoint, half, change
):
    run = {"task": rotten, "config": QUICK, "seed": 0, "mask": half}
    kept = {"checkpoint": checkpoint, "checkpoint_seconds": 0}
    fit(small(), **run, **kept)
    model, before = small(), bits(small())

    sentence = (
        rf"^the checkpoint {re.escape(repr(str(checkpoint)))} belongs to another run "
        r"\(other settings, task, model or mask\); delete it or name another file$"
    )
    with pytest.raises(PruningError, match=sentence):
        fit(model, **change(run, half), **kept)

    assert bits(model) == before
    assert not any(p._backward_hooks for p in model.parameters())


def test_a_file_of_another_program_is_refused(start, checkpoint):
    checkpoint.parent.mkdir()
    torch.save(torch.zeros(3), checkpoint)

    with pytest.raises(PruningError, match="belongs to another run"):
        start()
