"""Means, 95% confidence intervals and paired differences over seeds, on top of SciPy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over n seeds and its 95% confidence interval; infinite bounds where n is 1."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.3f} (one seed)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean, which is what few seeds call for.

    Raises:
        ValueError: no values.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("an interval needs at least one value")
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return Interval(mean, mean - float(half), mean + float(half), len(values))


def paired_difference(frame: pd.DataFrame, first: str, second: str) -> Interval:
    """Interval of score(first) - score(second), paired by seed.

    Args:
        frame: columns `method`, `seed`, `score`, one row for each method and seed.

    Raises:
        ValueError: no seed has both.
    """
    wide = frame.pivot(index="seed", columns="method", values="score")
    return interval((wide[first] - wide[second]).dropna())


def summarise(frame: pd.DataFrame, by: list[str], value: str = "score") -> pd.DataFrame:
    """Mean, low, high and n of `value` for each group: the rows behind a curve with a band."""
    groups = frame.groupby(by, sort=False)[value]
    rows = [(*np.atleast_1d(key), *interval(group)) for key, group in groups]
    return pd.DataFrame(rows, columns=[*by, *Interval._fields])


def verdict(difference: Interval) -> str:
    """What an interval of a difference says, in words, with the interval."""
    if difference.n == 1:
        return "one seed, so no interval and no verdict"
    span = f"95% interval {difference.low:+.3f} to {difference.high:+.3f}"
    if difference.low > 0:
        return f"better: {span}"
    if difference.high < 0:
        return f"worse: {span}"
    return f"no difference shown: {span}"
