"""Exact match and F1 of answers, against cases worked out by hand from SQuAD v1.1's definition."""

import pytest

from adapter_pruning import metrics
from adapter_pruning.squad_metrics import answer_f1, exact_match, overlap, same, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat, sat!", ["cat", "sat"]),
        ("  Denver \t Broncos\n", ["denver", "broncos"]),
        ("An apple and a pear", ["apple", "and", "pear"]),
        ("theatre Anna a1", ["theatre", "anna", "a1"]),  # articles are whole words
        ("the.", []),
        ("U.S.A. $1,000", ["usa", "1000"]),  # what is left of the sign moves together
        ("an-apple", ["anapple"]),  # so that this is no article
        ("Café ÉCOLE", ["café", "école"]),
        ("“ten%”", ["“ten”"]),  # only ASCII punctuation goes
        ("two\u00a0words", ["two", "words"]),
        ("the…end", ["…end"]),  # an article beside another mark is a word of its own
        ("", []),
    ],
)
def test_words_are_lower_case_without_punctuation_articles_and_spaces(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("prediction", "accepted", "match", "f1"),
    [
        ("the big cat", "Big Cat.", 1, 1),
        ("the big cat", "big dog", 0, 2 * 1 / (2 + 2)),
        ("cat big", "big cat", 0, 1),  # the order counts for the match only
        ("Paris", "the city of Paris", 0, 2 * 1 / (1 + 3)),
        ("cat cat", "cat", 0, 2 * 1 / (2 + 1)),  # a word counts as often as it is in both
        ("cat cat dog", "cat cat", 0, 2 * 2 / (3 + 2)),
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("cat", "", 0, 0),
        ("", "the", 1, 0),  # no words on both sides: a match, and an F1 of 0, in the script too
    ],
)
def test_one_answer_against_another_is_as_worked_out_by_hand(prediction, accepted, match, f1):
    assert same(prediction, accepted) == match
    assert overlap(prediction, accepted) == pytest.approx(f1)
    assert overlap(accepted, prediction) == pytest.approx(f1)


def test_the_best_of_the_accepted_answers_counts_for_each_metric():
    # F1 with them: 2/3, 1, 0; only the second one matches.
    accepted = [["the fast red car", "red car", "lorry"]]
    assert exact_match(accepted, ["the red car"]) == 1
    assert answer_f1(accepted, ["the red car"]) == 1
    assert answer_f1(accepted, ["car"]) == pytest.approx(2 * 1 / (1 + 2))
    assert exact_match(accepted, ["car"]) == 0


def test_both_are_means_over_the_questions():
    accepted, predictions = [["one"], ["two", "second"], ["three"]], ["One!", "a second hand", ""]
    assert exact_match(accepted, predictions) == pytest.approx(1 / 3)
    assert answer_f1(accepted, predictions) == pytest.approx((1 + 2 * 1 / (1 + 2) + 0) / 3)


def test_both_go_by_their_names_and_are_plain_floats():
    found = metrics.compute(("answer_f1", "exact_match"), ["red car"], [("car", "a lorry")])
    assert found == {"answer_f1": pytest.approx(2 / 3), "exact_match": 0.0}
    assert all(type(value) is float for value in found.values())


def test_a_missing_prediction_is_an_error_and_no_shorter_mean():
    with pytest.raises(ValueError, match="shorter"):
        exact_match([["one"], ["two"]], ["one"])
