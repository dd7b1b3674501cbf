"""The metrics by name: those of GLUE on top of scikit-learn and SciPy, and those of SQuAD."""

import warnings

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from . import squad_metrics

# Every metric here is better when higher; `display` is how a table heads its column.
DISPLAY = {
    "accuracy": "accuracy",
    "answer_f1": "answer F1",
    "exact_match": "exact match",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
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


def _rouge(kind: str):
    """Mean F-measure over the texts, of stemmed words, by Google's implementation (Lin 2004)."""

    def score(references: list[str], written: list[str]) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=True)
        pairs = zip(references, written, strict=True)
        return np.mean([scorer.score(true, new)[kind].fmeasure for true, new in pairs])

    return score


METRICS = {
    "accuracy": sk.accuracy_score,
    "answer_f1": squad_metrics.answer_f1,
    "exact_match": squad_metrics.exact_match,
    "f1": lambda labels, predictions: sk.f1_score(labels, predictions, zero_division=0),
    "matthews": sk.matthews_corrcoef,
    "pearson": _correlation(stats.pearsonr),
    "rouge1": _rouge("rouge1"),
    "rouge2": _rouge("rouge2"),
    "rougeL": _rouge("rougeL"),
    "spearman": _correlation(stats.spearmanr),
}


def compute(names: tuple[str, ...], predictions: np.ndarray, labels: np.ndarray) -> dict:
    """Each named metric as a float in [-1, 1], higher is better.

    Args:
        predictions: (n,) class ids, or numbers for the correlations, or answers.
        labels: (n,) the true ones; for answers all that are accepted.
    """
    return {name: float(METRICS[name](labels, predictions)) for name in names}
