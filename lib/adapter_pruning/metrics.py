"""The GLUE metrics, by name, on top of scikit-learn and SciPy."""

import warnings

import numpy as np
from scipy import stats
from sklearn import metrics as sk

# Every metric here is better when higher; `display` is how a table heads its column.
DISPLAY = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def _correlation(function):
    def score(labels: np.ndarray, predictions: np.ndarray) -> float:
        with warnings.catch_warnings():
            # A constant prediction has no correlation; GLUE counts it as 0, and so do we.
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            value = function(predictions, labels).statistic
        return 0.0 if np.isnan(value) else value

    return score


METRICS = {
    "accuracy": sk.accuracy_score,
    "f1": lambda labels, predictions: sk.f1_score(labels, predictions, zero_division=0),
    "matthews": sk.matthews_corrcoef,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def compute(names: tuple[str, ...], predictions: np.ndarray, labels: np.ndarray) -> dict:
    """Each named metric as a float in [-1, 1], higher is better.

    Args:
        predictions: (n,) class ids, or numbers for the correlations.
        labels: (n,) the true ones.
    """
    return {name: float(METRICS[name](labels, predictions)) for name in names}
