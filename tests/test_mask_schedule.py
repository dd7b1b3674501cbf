"""How many survivors a round drops: exact for the decimal, and as published."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_pruning.masks import schedule, survivors_to_drop

# How many are dropped


@pytest.mark.parametrize(
    ("survivors", "drop", "expected"),
    [(100, 0.29, 29), (100, 0.57, 57), (1000, 0.001, 1), (24, 0.2, 4), (4, 0.2, 0), (10, 0.0, 0)],
)
def test_the_number_to_drop_is_exact_for_the_decimal_that_was_written(survivors, drop, expected):
    # 0.29 * 100 and 0.57 * 100 lie below 29 and 57 in floating point.
    assert survivors_to_drop(survivors, drop) == expected


@given(st.integers(0, 10**9), st.integers(0, 999))
def test_the_number_to_drop_is_the_floor_of_the_exact_product(survivors, thousandths):
    expected = survivors * thousandths // 1000
    assert survivors_to_drop(survivors, thousandths / 1000) == expected


NEURONS = [3072, 2458, 1967, 1574, 1260, 1008, 807, 646, 517, 414, 332, 266, 213, 171, 137, 110]


@pytest.mark.parametrize(
    ("units", "rounds", "left"),
    [
        (24, 15, [24, 20, 16, 13, 11, 9, 8, 7, 6, 5, 4]),
        (12, 15, [12, 10, 8, 7, 6, 5, 4]),
        (3072, 15, NEURONS),
        (24, 3, [24, 20, 16, 13]),
        (4, 15, [4]),
        (24, 0, [24]),
    ],
)
def test_the_schedule_is_that_of_the_published_tickets(units, rounds, left):
    assert schedule(units, rounds) == left


def test_the_weight_schedule_leaves_the_published_percentages():
    weights = 24 * 2 * 768 * 128  # both matrices of 24 adapters of bert-base-uncased
    percent = [round(100 * left / weights, 2) for left in schedule(weights, 15)]
    expected = [100, 80, 64, 51.2, 40.96, 32.77, 26.21, 20.97, 16.78, 13.42, 10.74]
    assert percent == [*expected, 8.59, 6.87, 5.50, 4.40, 3.52]


@pytest.mark.parametrize("pruned", range(16))
def test_every_round_of_weights_leaves_four_fifths_but_for_rounding(pruned):
    weights = 24 * 2 * 768 * 128
    # A floor keeps less than one weight too many, and the next rounds keep four fifths of that.
    surplus = schedule(weights, 15)[pruned] - weights * Fraction(4, 5) ** pruned
    assert 0 <= surplus < 5


@given(st.integers(1, 10**6), st.integers(1, 999))
def test_a_schedule_falls_and_never_empties_the_model(units, thousandths):
    drop = thousandths / 1000
    left = schedule(units, 10_000, drop)
    assert left[0] == units
    assert all(now > following >= 1 for now, following in itertools.pairwise(left))
    assert left[-1] * thousandths < 1000  # less than one is left to drop


@pytest.mark.parametrize("drop", [0.0, 1.0, -0.2, 1.5, float("nan"), 0, 1, 20, "0.2", None, True])
def test_a_drop_that_is_no_number_between_0_and_1_is_refused(refused, drop):
    with refused(f"drop is {drop!r}", "above 0 and below 1", "empties the model"):
        schedule(24, 15, drop)
