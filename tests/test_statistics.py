"""Means and intervals over seeds, against the hand-computed and against SciPy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adapter_pruning.statistics import Interval, interval, paired_difference, summarise, verdict

# From any table of Student's t: the two-sided 95 % quantile with 4 degrees of freedom.
T_4 = 2.7764451


def test_interval_of_five_seeds_equals_the_hand_computed():
    # Mean 3, sample standard deviation sqrt(2.5), standard error sqrt(2.5 / 5).
    half = T_4 * 0.5**0.5
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - half, 3 + half, 5))


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=10, unique=True))
def test_interval_equals_scipys(thousandths):
    values = np.array(thousandths) / 1000
    sem = stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem)
    assert interval(values) == pytest.approx((np.mean(values), low, high, len(values)))


def test_one_seed_has_a_mean_and_no_bounds():
    found = interval([0.7])
    assert found == (0.7, -np.inf, np.inf, 1)
    assert str(found) == "0.700 (one seed)"


def test_seeds_that_agree_have_an_interval_of_no_width():
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5, 3)


def test_an_interval_reads_as_mean_and_bounds():
    assert str(Interval(0.5, 0.41, 0.59, 5)) == "0.500 [0.410, 0.590]"


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        interval([])


@pytest.fixture
def frame():
    """Two methods whose scores vary much more over seeds than between methods."""
    rows = [(m, seed, seed + gap) for m, gap in (("a", 0.2), ("b", 0.0)) for seed in range(5)]
    return pd.DataFrame(rows, columns=["method", "seed", "score"])


def test_paired_difference_pairs_by_seed_whatever_the_order_of_rows(frame):
    shuffled = frame.sample(frac=1, random_state=1)
    found = paired_difference(shuffled, "a", "b")
    assert found == pytest.approx((0.2, 0.2, 0.2, 5))
    assert paired_difference(frame, "b", "a").mean == pytest.approx(-0.2)


def test_paired_difference_leaves_out_a_seed_that_only_one_method_has(frame):
    lonely = pd.DataFrame([("a", 9, 100.0)], columns=frame.columns)
    assert paired_difference(pd.concat([frame, lonely]), "a", "b").n == 5


def test_paired_difference_without_a_common_seed_is_refused(frame):
    apart = frame[(frame.method == "a") ^ (frame.seed > 2)]
    with pytest.raises(ValueError, match="at least one value"):
        paired_difference(apart, "a", "b")


def test_summarise_gives_each_group_its_interval_in_the_order_met(frame):
    found = summarise(frame.assign(task="t"), ["task", "method"])
    assert list(found.columns) == ["task", "method", "mean", "low", "high", "n"]
    assert found.method.tolist() == ["a", "b"]
    for row in found.itertuples():
        expected = interval(frame.score[frame.method == row.method])
        assert (row.mean, row.low, row.high, row.n) == pytest.approx(expected)


def test_summarise_by_one_column_keeps_its_values_plain(frame):
    found = summarise(frame, ["seed"])
    assert found.seed.tolist() == [0, 1, 2, 3, 4]
    assert found.n.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Interval(0.2, 0.1, 0.3, 5), "better: 95% interval +0.100 to +0.300"),
        (Interval(-0.2, -0.3, -0.1, 5), "worse: 95% interval -0.300 to -0.100"),
        (Interval(0.1, -0.1, 0.3, 5), "no difference shown: 95% interval -0.100 to +0.300"),
        (Interval(0.1, 0.0, 0.2, 5), "no difference shown: 95% interval +0.000 to +0.200"),
        (interval([0.2]), "one seed, so no interval and no verdict"),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_zero_out(difference, said):
    assert verdict(difference) == said
