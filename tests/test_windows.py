"""Windows over long paragraphs: what each holds, where its labels point, and the way back."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from adapter_pruning.windows import (
    LONGEST_ANSWER,
    LONGEST_QUESTION,
    NOTHING,
    STRIDE,
    best_span,
    windows,
)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """RoBERTa's way: two separators in the middle, no token types, pieces of characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def cut(tokenizer, question, context, answer, max_length):
    """The windows of one question whose answer is that part of the context."""
    begin = context.index(answer)
    encoded = tokenizer([question], [context], return_offsets_mapping=True, verbose=False)
    return list(windows(encoded, 0, np.array([begin, begin + len(answer)]), max_length))


def labelled(window, context):
    """The text that a window's labels point at."""
    first, last = (position - window["first"] for position in window["labels"])
    return context[window["offsets"][first, 0] : window["offsets"][last, 1]]


def numbered(words):
    """A context of so many words, each of one token, no two alike."""
    return " ".join(chr(ord("\u4e00") + i) for i in range(words))


# What a window holds


def test_a_short_paragraph_is_one_window_that_the_tokenizer_itself_would_have_made(tokenizer):
    question, context = "where is it ?", "it is in paris , not in rome"
    (window,) = cut(tokenizer, question, context, "paris", 32)
    whole = tokenizer(question, context)
    assert window["input_ids"] == whole["input_ids"]
    assert window["token_type_ids"] == whole["token_type_ids"]
    assert tokenizer.decode(window["input_ids"][window["labels"][0]]) == "paris"


def test_every_window_has_the_question_and_both_separators_and_is_full_but_the_last(tokenizer):
    found = cut(tokenizer, "which one ?", numbered(400), numbered(1), 200)
    assert len(found) > 2
    for window in found:
        text = tokenizer.decode(window["input_ids"])
        assert text.startswith("[CLS] which one? [SEP] ")
        assert text.endswith(" [SEP]")
        held = len(window["offsets"])
        assert len(window["input_ids"]) == 1 + 3 + 1 + held + 1
        assert window["token_type_ids"] == [0] * 5 + [1] * (held + 1)
    assert [len(window["input_ids"]) for window in found[:-1]] == [200] * (len(found) - 1)
    assert len(found[-1]["input_ids"]) <= 200


def begins(tokenizer, words, max_length):
    """Number of the first word of each window over so many words; the question is one token."""
    found = cut(tokenizer, "which", numbered(words), numbered(1), max_length)
    return [int(window["offsets"][0, 0]) // 2 for window in found]


def test_windows_begin_128_tokens_apart_and_the_last_one_reaches_the_end(tokenizer):
    room = 384 - 4
    assert STRIDE == 128
    assert begins(tokenizer, room, 384) == [0]
    assert begins(tokenizer, room + 1, 384) == [0, 128]
    assert begins(tokenizer, room + 128, 384) == [0, 128]
    assert begins(tokenizer, room + 129, 384) == [0, 128, 256]


@pytest.mark.parametrize(("max_length", "step"), [(162, 128), (161, 127), (104, 70), (24, 10)])
def test_short_windows_share_30_tokens_or_half_of_what_they_hold(tokenizer, max_length, step):
    assert begins(tokenizer, 300, max_length)[:2] == [0, step]


@pytest.mark.parametrize("max_length", [64, 100, 192])
def test_every_answer_of_up_to_30_tokens_is_whole_in_a_window(tokenizer, max_length):
    context = numbered(230)
    words = context.split()
    for begin in range(0, 200, 7):
        answer = " ".join(words[begin : begin + LONGEST_ANSWER])
        found = cut(tokenizer, "which", context, answer, max_length)
        assert answer in [labelled(w, context) for w in found if w["labels"] != [0, 0]]


@pytest.mark.parametrize(("max_length", "kept"), [(256, 64), (131, 64), (100, 48), (8, 2)])
def test_a_question_keeps_64_tokens_at_most_and_half_the_window_at_most(
    tokenizer, max_length, kept
):
    assert LONGEST_QUESTION == 64
    question = numbered(80)
    for window in cut(tokenizer, question, "one two three four", "two", max_length):
        assert len(window["input_ids"]) <= max_length
        asked = window["input_ids"][1 : window["first"] - 1]
        assert asked == tokenizer(question, add_special_tokens=False)["input_ids"][:kept]


# Labels


def test_labels_point_at_the_answer_where_a_window_holds_all_of_it_and_else_at_0(tokenizer):
    context = numbered(300)
    words = context.split()
    answer = " ".join(words[125:135])
    found = cut(tokenizer, "which", context, answer, 164)
    assert [int(window["offsets"][0, 0]) // 2 for window in found] == [0, 128, 256]
    assert labelled(found[0], context) == answer
    # The second window begins inside the answer, the third behind it.
    assert [window["labels"] for window in found[1:]] == [[0, 0], [0, 0]]
    assert all(window["input_ids"][0] == tokenizer.cls_token_id for window in found)


def test_an_answer_inside_a_word_is_labelled_with_the_tokens_it_touches(tokenizer):
    context = "the unbelievable story"
    assert tokenizer.tokenize(context) == ["the", "unbelievable", "story"]
    (window,) = cut(tokenizer, "what", context, "believ", 32)
    assert labelled(window, context) == "unbelievable"


def test_an_answer_that_the_tokenizer_drops_is_labelled_0(tokenizer):
    (window,) = cut(tokenizer, "what", "some \u200b text", "\u200b", 32)
    assert window["labels"] == [0, 0]


def test_two_separators_and_pieces_of_characters_change_nothing(byte_tokenizer):
    context = "the river Rhône and the Seine"
    found = cut(byte_tokenizer, "which?", context, "Rhône", 30)
    assert len(found) > 1
    for window in found:
        text = byte_tokenizer.decode(window["input_ids"])
        assert text.startswith("<s>which?</s></s>")
        assert text.endswith("</s>")
        assert window["first"] == 1 + len("which?") + 2
        assert set(window) == {"input_ids", "labels", "first", "offsets"}
        assert len(window["input_ids"]) <= 30
    assert "Rhône" in [labelled(w, context) for w in found if w["labels"] != [0, 0]]


# The way back

WINDOW = {"first": 4, "offsets": np.array([(10 * i, 10 * i + 5) for i in range(40)])}


def candidates(starts: dict[int, float], ends: dict[int, float]) -> np.ndarray:
    """(k, 2, 2) from position -> score; what is missing of the shorter one is hopeless."""
    both = [[(score, position) for position, score in part.items()] for part in (starts, ends)]
    size = max(map(len, both))
    filled = [part + [(-1e9, 0)] * (size - len(part)) for part in both]
    return np.array(filled).swapaxes(0, 1)


def test_the_best_span_has_the_highest_sum_of_start_and_end():
    found = best_span(WINDOW, candidates({5: 2.0, 8: 3.0}, {7: 2.5, 9: 1.0}))
    # 8 to 7 would be 5.5, but ends before it starts; 5 to 7 is 4.5 and 8 to 9 is 4.
    assert found == (4.5, 10, 35)


def test_a_span_of_one_token_is_allowed():
    assert best_span(WINDOW, candidates({6: 1.0}, {6: 1.0})) == (2.0, 20, 25)


@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        ({0: 1.0}, {0: 1.0}),  # the first token, where there is no answer
        ({3: 1.0}, {6: 1.0}),  # a separator or a token of the question
        ({6: 1.0}, {44: 1.0}),  # the last separator
        ({7: 1.0}, {6: 1.0}),  # backwards
        ({4: 1.0}, {34: 1.0}),  # 31 tokens
    ],
)
def test_a_span_is_inside_the_paragraph_forward_and_of_30_tokens_at_most(starts, ends):
    assert best_span(WINDOW, candidates(starts, ends)) == NOTHING


def test_30_tokens_up_to_the_last_of_the_paragraph_are_allowed():
    assert best_span(WINDOW, candidates({14: 1.0}, {43: 1.0})) == (2.0, 100, 395)


def test_a_worse_span_that_is_allowed_wins_over_a_better_one_that_is_not():
    found = best_span(WINDOW, candidates({0: 9.0, 6: -3.0}, {0: 9.0, 7: -4.0}))
    assert found == (-7.0, 20, 35)
