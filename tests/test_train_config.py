"""The settings of training: which are refused, and the rates and evaluations they give."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_training import QUICK, fit
from torch.optim.optimizer import register_optimizer_step_post_hook

from adapter_pruning.errors import PruningError
from adapter_pruning.training import TrainConfig, evaluation_steps, rate_factor

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
