import copy
import dataclasses
import itertools
import math
import random
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.optimizer import register_optimizer_step_post_hook

import adapter_pruning as ap
from adapter_pruning import batches, training
from adapter_pruning.errors import PruningError
from adapter_pruning.training import (
    TrainConfig,
    evaluation_steps,
    rate_factor,
    trainable,
)

# 64 rows make 4 steps an epoch and 8 in all, with an evaluation after every second one.
QUICK = TrainConfig(
    epochs=2, batch_size=16, evaluations_per_epoch=2, max_length=32, precision="fp32"
)
STEPS, EVALUATIONS = 8, 4


@pytest.fixture(scope="module")
def small(tiny_bert):
    """small(): the tiny BERT with adapters, the same at every call."""
    model = ap.attach(tiny_bert(), ap.Houlsby(bottleneck=4))
    return lambda: copy.deepcopy(model)


@pytest.fixture
def pruned(small):
    """A mask that keeps about half of every adapter weight."""
    weights = {n: p for n, p in trainable(small()).items() if "adapters" in n and "weight" in n}
    everything = ap.Mask.ones(weights)
    return ap.random_mask(everything, everything.total // 2, seed=3)


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


# TrainConfig


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", 1.0, "less than 1"),
        ("learning_rate", math.nan, "less than 1"),
        ("learning_rate", "1e-3", "a valid number"),
        ("epochs", 0, "greater than or equal to 1"),
        ("epochs", 101, "less than or equal to 100"),
        ("epochs", 2.0, "a valid integer"),
        ("epochs", True, "a valid integer"),
        ("batch_size", 0, "greater than or equal to 1"),
        ("batch_size", 4097, "less than or equal to 4096"),
        ("warmup_epochs", -0.5, "greater than or equal to 0"),
        ("warmup_epochs", math.inf, "less than or equal to 100"),
        ("weight_decay", -0.1, "greater than or equal to 0"),
        ("weight_decay", 1.0, "less than 1"),
        ("evaluations_per_epoch", 0, "greater than or equal to 1"),
        ("evaluations_per_epoch", 1001, "less than or equal to 1000"),
        ("patience", 0, "greater than or equal to 1"),
        ("patience", None, "a valid integer"),
        ("max_length", 7, "greater than or equal to 8"),
        ("max_length", 513, "less than or equal to 512"),
        ("precision", "fp16", "'auto', 'bf16' or 'fp32'"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_value_and_rule(field, value, rule):
    sentence = re.escape(f"TrainConfig: {field} is {value!r}; input should be ")

    with pytest.raises(PruningError, match=f"^{sentence}.*{re.escape(rule)}$"):
        TrainConfig(**{field: value})


def test_an_unknown_setting_is_refused():
    with pytest.raises(PruningError, match=r"^TrainConfig: lr is 0\.1; unexpected keyword arg"):
        TrainConfig(lr=0.1)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QUICK.epochs = 5


# The schedule


@given(warmup=st.integers(1, 50), rest=st.integers(1, 200))
def test_the_rate_rises_to_its_peak_over_the_warm_up(warmup, rest):
    rise = [rate_factor(step, warmup, warmup + rest) for step in range(warmup)]

    assert rise == pytest.approx(np.arange(1, warmup + 1) / warmup)
    assert rise[-1] == 1


@given(warmup=st.integers(0, 50), rest=st.integers(1, 200))
def test_the_rate_falls_linearly_to_zero_after_the_warm_up(warmup, rest):
    total = warmup + rest
    fall = [rate_factor(step, warmup, total) for step in range(warmup, total + 1)]

    assert fall == pytest.approx(np.linspace(1, 0, rest + 1))


def test_the_optimizer_steps_with_the_scheduled_rates(small, rotten):
    rates = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    try:
        fit(small(), rotten)
    finally:
        hook.remove()

    peak = QUICK.learning_rate
    assert rates == pytest.approx(np.array([1, 2, 3, 4, 4, 3, 2, 1]) / 4 * peak)


@given(per_epoch=st.integers(1, 500), times=st.integers(1, 50))
def test_evaluations_are_spread_over_the_epoch_and_the_last_is_at_its_end(per_epoch, times):
    steps = sorted(evaluation_steps(per_epoch, times))

    assert len(steps) == min(per_epoch, times)
    assert steps[-1] == per_epoch
    gaps = np.diff([0, *steps])
    assert gaps.max() - gaps.min() <= 1


def test_padding_does_not_change_a_prediction(small, rotten):
    model = small()
    one, many = (
        training.evaluate(model, rotten, dataclasses.replace(QUICK, batch_size=size))
        for size in (1, 64)
    )

    assert one == pytest.approx(many, abs=1e-5)


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
    assert seen == [step, step, look, look] * EVALUATIONS  # 32 rows to validate on are 2 batches


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
    calls, loss = itertools.count(1), training._loss

    def broken(*args):
        return loss(*args) + float(value if next(calls) == 3 else 0)

    monkeypatch.setattr(training, "_loss", broken)

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


def test_an_interrupted_run_under_a_mask_is_made_up_for(
    small, rotten, start, start_and_stop, pruned
):
    model = small()
    whole = outcome(model, fit(model, rotten, mask=pruned))
    start_and_stop("evaluate", 3, mask=pruned)

    assert start(mask=pruned) == whole


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
    return dataclasses.replace(task, revision="another", _encoded={})


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
    small, rotten, checkpoint, pruned, change
):
    run = {"task": rotten, "config": QUICK, "seed": 0, "mask": pruned}
    kept = {"checkpoint": checkpoint, "checkpoint_seconds": 0}
    fit(small(), **run, **kept)
    model, before = small(), bits(small())

    sentence = (
        rf"^the checkpoint {re.escape(repr(str(checkpoint)))} belongs to another run "
        r"\(other settings, task, model or mask\); delete it or name another file$"
    )
    with pytest.raises(PruningError, match=sentence):
        fit(model, **change(run, pruned), **kept)

    assert bits(model) == before
    assert not any(p._backward_hooks for p in model.parameters())


def test_a_file_of_another_program_is_refused(start, checkpoint):
    checkpoint.parent.mkdir()
    torch.save(torch.zeros(3), checkpoint)

    with pytest.raises(PruningError, match="belongs to another run"):
        start()


# Masks


def test_a_mask_holds_after_every_step_of_the_optimizer(small, rotten, pruned):
    model, checks = small(), []
    parameters = trainable(model)

    def check(optimizer, *_):
        for name, kept in pruned.items():
            state = optimizer.state[parameters[name]]
            for value in (parameters[name].detach(), state["exp_avg"], state["exp_avg_sq"]):
                # As integers, so that -0.0 would not pass for 0.
                checks.append(not value[~kept].view(torch.int32).any())

    hook = register_optimizer_step_post_hook(check)
    try:
        fit(model, rotten, dataclasses.replace(QUICK, weight_decay=0.1), mask=pruned)
    finally:
        hook.remove()

    assert checks == [True] * STEPS * len(pruned) * 3


def test_what_a_mask_keeps_is_trained(small, rotten, pruned):
    model, before = small(), trainable(small())

    fit(model, rotten, mask=pruned)

    for name, kept in pruned.items():
        assert (trainable(model)[name] != before[name])[kept].float().mean() > 0.99


def test_a_mask_holds_no_longer_than_its_run(small, rotten, pruned):
    model = small()
    fit(model, rotten, mask=pruned)
    fit(model, rotten)

    assert all(trainable(model)[name][~kept].any() for name, kept in pruned.items())


def test_an_interrupted_run_lets_go_of_its_mask(small, rotten, pruned, monkeypatch):
    model = small()
    interrupt(monkeypatch, "evaluate", 1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, rotten, mask=pruned)

    assert not any(p._backward_hooks for p in model.parameters())


def test_a_mask_that_does_not_fit_is_refused(small, rotten):
    stranger = ap.Mask({"adapters.9.ffn.up.weight": torch.ones(2, dtype=torch.bool)})

    with pytest.raises(PruningError, match=r"'adapters\.9\.ffn\.up\.weight', which the model"):
        fit(small(), rotten, mask=stranger)


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
