"""Windows over the rows, their loss, and the answers that are read from them."""

import dataclasses

import numpy as np
import pytest
import torch

from adapter_pruning import question_answering
from adapter_pruning.question_answering import first_sentence


def test_rows_of_the_encoded_split_are_windows_that_know_their_question(tokenizer, one_row):
    context = " ".join(["town"] * 99) + " gold"
    task = one_row(context=context, answers={"text": ["gold"], "answer_start": [495]})
    task = dataclasses.replace(task, train=task.train.take(np.arange(1)))
    encoded = task.encode(tokenizer, 64)
    assert [window["question"] for window in encoded["test"]] == [0, 0, 0]
    assert [len(window["input_ids"]) <= 64 for window in encoded["test"]] == [True] * 3
    assert [window["question"] for window in encoded["train"]] == [0]
    assert len(task.encode(tokenizer, 384)["test"]) == 1


def test_many_questions_are_encoded_as_one_alone_is(tokenizer, task, monkeypatch):
    whole = task.encode(tokenizer, 16)["train"]
    monkeypatch.setattr(question_answering, "_AT_ONCE", 7)
    parts = dataclasses.replace(task).encode(tokenizer, 16)["train"]
    assert len(parts) == len(whole) > len(task.train)
    for part, other in zip(parts, whole, strict=True):
        assert part.keys() == other.keys()
        assert all(np.array_equal(part[key], other[key]) for key in part)


def test_the_loss_is_the_mean_of_start_and_end_and_adds_up_over_windows(task):
    logits = torch.log(torch.tensor([[[0.5, 0.1], [0.25, 0.1], [0.25, 0.8]]] * 2))
    labels = torch.tensor([[0, 2], [1, 1]])
    each = [-(np.log(0.5) + np.log(0.8)) / 2, -(np.log(0.25) + np.log(0.1)) / 2]
    assert task.loss(logits, labels).item() == pytest.approx(np.mean(each))
    assert task.loss(logits, labels, "sum").item() == pytest.approx(sum(each))
    assert task.loss(logits.bfloat16(), labels).dtype == torch.float32


def test_the_20_best_starts_and_ends_are_read_with_score_and_position(task):
    logits = torch.zeros(1, 30, 2)
    logits[0, 7, 0], logits[0, 3, 0], logits[0, 9, 1] = 5.0, 4.0, 6.0
    read = task.read(logits, model=None, split="test")
    assert read.shape == (1, 20, 2, 2)
    assert read[0, :2, 0].tolist() == [[5, 7], [4, 3]]
    assert read[0, 0, 1].tolist() == [6, 9]
    assert task.read(logits[:, :5]).shape == (1, 5, 2, 2)


def said(window, text, context, score):
    """What is read where all speaks for this text of the context."""
    begin = context.index(text)
    first = int(np.flatnonzero(window["offsets"][:, 0] == begin)[0])
    last = int(np.flatnonzero(window["offsets"][:, 1] == begin + len(text))[0])
    return [[[score, window["first"] + first], [score, window["first"] + last]]]


def test_the_answer_is_the_best_span_of_all_windows_of_its_question(tokenizer, one_row):
    context = "We walk to Gold-Town, and back again to the old tin walk of the town."
    begin = context.index("tin")
    task = one_row(context=context, answers={"text": ["tin"], "answer_start": [begin]})
    windows = task.encode(tokenizer, 20)["test"]
    assert len(windows) == 3
    nothing = [[[9.0, 0], [9.0, 0]]]  # no answer, said loudly
    first = said(windows[0], "Gold-Town", context, 1.0)
    last = said(windows[2], "old tin", context, 2.0)
    assert task.texts("test", [first, nothing, nothing], windows) == ["Gold-Town"]
    assert task.texts("test", [first, nothing, last], windows) == ["old tin"]
    assert task.texts("test", [nothing, nothing, nothing], windows) == [""]
    scores = task.score("test", [first, nothing, last], windows)
    assert scores == {"answer_f1": pytest.approx(2 / 3), "exact_match": 0.0}


def test_the_score_is_over_questions_of_the_split_with_all_their_accepted_answers(tokenizer, task):
    windows = task.encode(tokenizer, 64)["test"]
    contexts, accepted = task.test.texts[1:]
    right = [said(w, a[0], c, 1.0) for w, a, c in zip(windows, accepted, contexts, strict=True)]
    assert task.score("test", right, windows) == {"answer_f1": 1.0, "exact_match": 1.0}
    wrong = [[[[1.0, 0], [1.0, 0]]]] * 5 + right[5:]
    assert task.score("test", wrong, windows) == {"answer_f1": 0.75, "exact_match": 0.75}


def test_the_baseline_answers_with_the_first_sentence(one_row):
    context = "Mr Tin had gold. It was his."
    task = one_row(context=context, answers={"text": ["gold", "had gold"], "answer_start": [11, 7]})
    # 2 of 4 words, and 2 of the 2 that are accepted
    assert task.majority == {"answer_f1": pytest.approx(2 * 2 / (4 + 2)), "exact_match": 0.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", "One."),
        ("Is it 3.5? Yes!", "Is it 3.5?"),
        (" So!\nNo. ", "So!"),
        ("no end", "no end"),
    ],
)
def test_a_first_sentence_ends_with_its_mark_before_a_space(text, expected):
    assert first_sentence(text) == expected
