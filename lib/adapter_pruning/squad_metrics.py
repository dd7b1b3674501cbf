"""Exact match and F1 of answers, as the official script of SQuAD v1.1 has them.

Rajpurkar et al. (2016), section 6.1: the best over the accepted answers, then the mean over the
questions. Here both are in [0, 1]; the script multiplies by 100.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """The words that count: lower case, without ASCII punctuation and without a, an and the."""
    bare = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def same(prediction: str, accepted: str) -> float:
    """1 where both have the same words in the same order, else 0."""
    return float(words(prediction) == words(accepted))


def overlap(prediction: str, accepted: str) -> float:
    """F1 of the words, each as often as it occurs; 0 where none is shared, also of no words."""
    said, true = words(prediction), words(accepted)
    shared = (Counter(said) & Counter(true)).total()
    return 2 * shared / (len(said) + len(true)) if shared else 0.0


def _best(compare: Callable[[str, str], float], true: Sequence[str], said: str) -> float:
    return max(compare(said, accepted) for accepted in true)


def exact_match(accepted: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of the questions whose answer is one of those that are accepted."""
    pairs = zip(accepted, predictions, strict=True)
    return float(np.mean([_best(same, true, said) for true, said in pairs]))


def answer_f1(accepted: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Mean over the questions of the best word F1 with an accepted answer."""
    pairs = zip(accepted, predictions, strict=True)
    return float(np.mean([_best(overlap, true, said) for true, said in pairs]))
