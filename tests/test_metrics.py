"""The metrics against numbers worked out by hand, and what a constant prediction gets."""

import warnings

import numpy as np
import pytest

from adapter_pruning import metrics
from adapter_pruning.specs import TASKS

# tp 3, fp 1, fn 1, tn 1
LABELS = np.array([1, 1, 1, 1, 0, 0])
GUESSES = np.array([1, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 4 / 6),
        ("f1", 2 * 3 / (2 * 3 + 1 + 1)),
        ("matthews", (3 * 1 - 1 * 1) / (4 * 4 * 2 * 2) ** 0.5),
    ],
)
def test_class_metrics_equal_the_hand_computed(name, expected):
    assert metrics.compute((name,), GUESSES, LABELS) == {name: pytest.approx(expected)}


def test_f1_is_of_the_positive_class_and_knows_truth_from_prediction():
    # Precision 1/2, recall 1; swapped arguments keep F1 but class 0 would give 0.8.
    scores = metrics.compute(("f1",), np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]))
    assert scores["f1"] == pytest.approx(2 / 3)


def test_correlations_equal_the_hand_computed():
    truths, guesses = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 2, 9])
    scores = metrics.compute(("pearson", "spearman"), guesses, truths)
    assert scores["spearman"] == pytest.approx(1.0)
    # covariance sum 14, squares 5 and 50
    assert scores["pearson"] == pytest.approx(14 / (5 * 50) ** 0.5)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews", "f1"])
def test_a_constant_prediction_scores_0_without_a_warning(name):
    labels = np.array([0, 1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.compute((name,), np.zeros(4, dtype=int), labels) == {name: 0.0}


def test_metrics_come_as_plain_floats_in_the_order_asked_for():
    scores = metrics.compute(("matthews", "accuracy"), GUESSES, LABELS)
    assert list(scores) == ["matthews", "accuracy"]
    assert all(type(value) is float for value in scores.values())


def test_every_metric_of_a_task_exists_and_has_a_display_name():
    named = {metric for spec in TASKS.values() for metric in spec.metrics}
    assert named <= set(metrics.METRICS)
    assert set(metrics.METRICS) == set(metrics.DISPLAY)
