"""Windows of a long paragraph, each beside the question, and the way back to its characters.

The sizes are those of `run_squad.py` by Devlin et al. (2019), in tokens.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

STRIDE = 128
LONGEST_QUESTION = 64
LONGEST_ANSWER = 30


class Span(NamedTuple):
    """Characters `begin` to `end`, the end not included, and how much speaks for them."""

    score: float
    begin: int
    end: int


NOTHING = Span(-np.inf, 0, 0)


def windows(encoded, index: int, answer: np.ndarray, max_length: int) -> Iterator[dict]:
    """The windows of one row of a tokenizer's output for questions and paragraphs.

    The question keeps at most 64 tokens and at most half the window. The next window begins 128
    tokens further on, or earlier where they would share less than 30 tokens (or half of what a
    short window holds): so every answer of up to 30 tokens is whole in one of them.

    Args:
        encoded: uncut, with `offset_mapping`.
        answer: characters of the paragraph, (2,): the first, and the one after the last.

    Returns:
        ids as for the model; `labels`, the positions of the answer's first and last token, both
        0 (the first token) where the window does not hold all of it; `first`, the position of
        the paragraph's first token; `offsets`, the characters of each of its tokens, (n, 2).
    """
    part = np.array([-1 if p is None else p for p in encoded.sequence_ids(index)])
    question, context = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    special = len(part) - len(question) - len(context)
    dropped = question[min(LONGEST_QUESTION, (max_length - special) // 2) :]
    front = np.delete(np.arange(context[0]), dropped)
    back = np.arange(context[-1] + 1, len(part))
    room = max_length - len(front) - len(back)
    offsets = np.array(encoded["offset_mapping"][index], dtype=np.int32)[context]
    tokens = _tokens_of(answer, offsets)
    for begin in _begins(len(context), room):
        held = slice(begin, begin + room)
        yield _columns(encoded, index, np.concatenate([front, context[held], back])) | {
            "labels": _labels(tokens - begin, len(offsets[held]), len(front)),
            "first": len(front),
            "offsets": offsets[held],
        }


def _columns(encoded, index: int, taken: np.ndarray) -> dict[str, list[int]]:
    keys = [key for key in ("input_ids", "token_type_ids") if key in encoded]
    return {key: np.array(encoded[key][index])[taken].tolist() for key in keys}


def _tokens_of(answer: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The first and the last token that share a character with the answer, (2,)."""
    first = np.searchsorted(offsets[:, 1], answer[0], side="right")
    return np.array([first, np.searchsorted(offsets[:, 0], answer[1], side="left") - 1])


def _begins(length: int, room: int) -> range:
    """Where windows of `room` tokens begin that cover `length` tokens."""
    step = min(STRIDE, room - min(LONGEST_ANSWER, room // 2))
    further = -(-max(0, length - room) // step)
    return range(0, (further + 1) * step, step)


def _labels(tokens: np.ndarray, held: int, first: int) -> list[int]:
    """Positions in a window whose tokens `first` to `first + held` are the paragraph's."""
    begin, last = tokens.tolist()
    return [first + begin, first + last] if 0 <= begin <= last < held else [0, 0]


def best_span(window: dict, candidates: np.ndarray) -> Span:
    """The best span of a window that lies in the paragraph and has 1 to 30 tokens.

    Its score is the sum of its start's and its end's.

    Args:
        candidates: (k, 2, 2): k starts and k ends (second dimension), score and position (third).

    Returns:
        `NOTHING` where no start goes with any end.
    """
    offsets = window["offsets"]
    (starts, ends), scores = candidates[..., 1].T.astype(int) - window["first"], candidates[..., 0]
    tokens = ends[None, :] - starts[:, None] + 1
    inside = (starts[:, None] >= 0) & (ends[None, :] < len(offsets))
    allowed = inside & (tokens >= 1) & (tokens <= LONGEST_ANSWER)
    if not allowed.any():
        return NOTHING
    sums = np.where(allowed, scores[:, None, 0] + scores[None, :, 1], -np.inf)
    start, end = np.unravel_index(sums.argmax(), sums.shape)
    return Span(float(sums.max()), int(offsets[starts[start], 0]), int(offsets[ends[end], 1]))
