"""Training: it learns real data, stops by patience, and gives one result for one seed."""

import dataclasses
import itertools
import math
import random
import sys

import numpy as np
import pytest
import torch
from quick_training import EVALUATIONS, QUICK, STEPS, bits, fit, outcome

import adapter_pruning as ap
from adapter_pruning import batches, tasks, training
from adapter_pruning.errors import PruningError
from adapter_pruning.training import TrainConfig

# Learning

# What makes a few hundred real sentences enough.
LEARNING = TrainConfig(
    learning_rate=4e-3,
    warmup_epochs=0.25,
    epochs=2,
    batch_size=16,
    evaluations_per_epoch=1,
    max_length=48,
)


def test_minilm_with_adapters_learns_real_sentences(minilm):
    task = ap.load_task("rotten_tomatoes", train_size=384, validation_size=64, test_size=200)
    model = ap.attach(minilm(), ap.Houlsby(bottleneck=16))

    progress = fit(model, task, LEARNING)

    first, last = progress.history
    assert last["training_loss"] < first["training_loss"] - 0.1
    accuracy = training.evaluate(model, task, LEARNING)["accuracy"]
    assert accuracy > task.majority["accuracy"] + 0.1


def test_minilm_with_adapters_learns_real_similarities(minilm):
    task = ap.load_task("stsb", train_size=256, validation_size=64, test_size=128)
    model = ap.attach(minilm(task), ap.Houlsby(bottleneck=16))
    before = training.evaluate(model, task, LEARNING)

    fit(model, task, LEARNING)

    after = training.evaluate(model, task, LEARNING)
    assert after["loss"] < before["loss"] / 2
    assert after["spearman"] > 0.15


def test_the_score_of_the_history_is_the_first_metric_on_validation(small, rotten):
    model = small()
    progress = fit(model, rotten, dataclasses.replace(QUICK, patience=100))
    best = next(row for row in progress.history if row["step"] == progress.best_step)

    scores = training.evaluate(model, rotten, QUICK, "validation")

    assert scores["loss"] == best["validation_loss"] == progress.best_loss
    assert scores["accuracy"] == best["score"]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_the_computation_and_not_of_the_weights(
    small, rotten, precision, dtype
):
    model, seen = small(), set()
    model.head.register_forward_hook(lambda module, args, logits: seen.add(logits.dtype))

    fit(model, rotten, dataclasses.replace(QUICK, precision=precision))

    assert seen == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_automatic_precision_is_one_of_the_two(small, rotten):
    scores = [
        training.evaluate(small(), rotten, dataclasses.replace(QUICK, precision=precision))["loss"]
        for precision in ("auto", "bf16", "fp32")
    ]

    assert scores[0] in scores[1:]


def test_only_what_is_trainable_trains(small, rotten):
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    fit(model, rotten)

    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_training_is_with_dropout_and_evaluation_without(small, rotten):
    model, seen = small(), []
    model.dropout.register_forward_hook(
        lambda module, *_: seen.append((module.training, torch.is_inference_mode_enabled()))
    )

    fit(model, rotten)

    step, look = (True, False), (False, True)
    assert seen == [step, step, look] * EVALUATIONS  # 32 rows to validate on are one batch


def test_padding_does_not_change_a_prediction(small, rotten):
    model = small()
    one, many = (
        training.evaluate(model, rotten, dataclasses.replace(QUICK, batch_size=size))
        for size in (1, 64)
    )

    assert one == pytest.approx(many, abs=1e-5)


def test_every_epoch_has_its_own_order(small, rotten, monkeypatch):
    orders, length_batches = [], batches.length_batches

    def noting(*args):
        made = length_batches(*args)
        if args[-1] is not None:
            orders.append(np.concatenate(made).tolist())
        return made

    monkeypatch.setattr(batches, "length_batches", noting)
    fit(small(), rotten)

    assert len(orders) == QUICK.epochs
    assert orders[0] != orders[1]


# Early stopping


@pytest.fixture
def scripted(small, rotten, monkeypatch):
    """scripted(losses, patience): how training goes where evaluations say what is written."""

    def run(losses, patience):
        looked_at = []

        def evaluate(model, *args):
            looked_at.append(bits(model))
            return {"loss": losses[len(looked_at) - 1], "accuracy": 0.5}

        monkeypatch.setattr(training, "evaluate", evaluate)
        model = small()
        progress = fit(model, rotten, dataclasses.replace(QUICK, patience=patience))
        return progress, bits(model), looked_at

    return run


@pytest.mark.parametrize(
    ("losses", "patience", "evaluations", "best"),
    [
        ([4, 3, 2, 1], 1, 4, 4),
        ([2, 3, 4, 1], 1, 2, 1),
        ([2, 3, 4, 1], 2, 3, 1),
        ([2, 1, 1, 0], 1, 3, 2),
        ([3, 4, 2, 5], 2, 4, 3),
        ([1, 2, 3, 4], 100, 4, 1),
    ],
    ids=["falls on", "rises", "patience", "a tie is not better", "waiting starts anew", "never"],
)
def test_training_stops_by_patience_and_ends_with_the_best_weights(
    scripted, losses, patience, evaluations, best
):
    progress, end, looked_at = scripted(losses, patience)

    assert len(looked_at) == len(progress.history) == evaluations
    assert progress.step == 2 * evaluations
    assert progress.waited == evaluations - best
    assert progress.stopped == (evaluations - best >= patience)
    assert (progress.best_loss, progress.best_step) == (losses[best - 1], 2 * best)
    assert end == looked_at[best - 1]


# Losses that are not finite


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_training_at_its_step(small, rotten, monkeypatch, value):
    calls, loss = itertools.count(1), tasks.Classification.loss

    def broken(*args):
        return loss(*args) + float(value if next(calls) == 3 else 0)

    monkeypatch.setattr(tasks.Classification, "loss", broken)

    sentence = (
        rf"^the training loss is {value} at step 3 of {STEPS}; lower the learning rate "
        r"\(0\.001\) or use precision 'fp32'$"
    )
    with pytest.raises(PruningError, match=sentence):
        fit(small(), rotten, dataclasses.replace(QUICK, evaluations_per_epoch=1))


@pytest.mark.parametrize("name", ["rotten_tomatoes", "stsb"])
def test_a_model_that_has_run_away_is_not_scored(tiny_bert, name):
    task = ap.load_task(name, train_size=8, validation_size=8, test_size=8)
    model = tiny_bert(task)
    torch.nn.init.constant_(model.head.weight, math.nan)

    with pytest.raises(PruningError, match=r"^the test loss is nan; .*learning rate \(0\.001\)"):
        training.evaluate(model, task, QUICK)


# Seeds


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_seed_gives_one_result_to_the_bit(small, rotten, precision):
    config = dataclasses.replace(QUICK, precision=precision)
    one, other = small(), small()

    assert outcome(one, fit(one, rotten, config, seed=7)) == outcome(
        other, fit(other, rotten, config, seed=7)
    )


def test_another_seed_gives_another_result(small, rotten):
    one, other = small(), small()
    fit(one, rotten, seed=7)
    fit(other, rotten, seed=8)

    other = bits(other)
    assert all(content != other[name] for name, content in bits(one).items())


def test_the_result_does_not_depend_on_the_state_of_global_generators(small, rotten):
    one, other = small(), small()
    torch.manual_seed(1)
    fit(one, rotten)
    torch.manual_seed(2)
    fit(other, rotten)

    assert bits(one) == bits(other)


def test_global_generators_are_left_alone(small, rotten):
    def states():
        return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()

    torch.manual_seed(12345)  # no state that an earlier training could have left
    before = states()
    fit(small(), rotten)

    assert states() == before


# Calls


def test_an_unknown_split_is_refused_with_the_valid_ones(small, rotten):
    with pytest.raises(PruningError, match=r"^unknown split 'dev'; .*train, validation, test$"):
        training.evaluate(small(), rotten, QUICK, "dev")


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_can_be_turned_off(small, rotten, capsys, progress):
    training.fit(small(), rotten, QUICK, progress=progress)

    sys.stderr.flush()
    assert ("rotten_tomatoes seed 0" in capsys.readouterr().err) == progress


def test_a_negative_seed_is_refused(small, rotten, refused):
    with refused("seed is -1", "at least 0"):
        fit(small(), rotten, seed=-1)
