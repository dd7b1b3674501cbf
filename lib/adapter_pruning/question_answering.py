"""Extractive question answering: which words of the paragraph answer the question.

The recipe of Devlin et al. (2019, section 4.2): the head gives every token a score as the
answer's start and one as its end.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor
from torch.nn import functional

from .base_task import Split, Task, check_columns
from .errors import PruningError
from .specs import TaskSpec
from .windows import NOTHING, best_span, windows

CANDIDATES = 20  # starts and ends of a window that are paired; n_best_size in run_squad.py
_AT_ONCE = 1000  # rows; the tokenizer's output for all of SQuAD would take gigabytes


class QuestionAnswering(Task):
    """Questions about paragraphs; every answer is a part of its paragraph.

    A split's texts are the questions, the paragraphs and, for every question, all accepted
    answers; its labels, (n, 2), are the characters from which and up to which the first of these
    stands. The rows that `encode` returns are windows (see `windows.windows`), each with the
    number of its `question`.
    """

    tokenwise: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        """Two scores a token: start and end."""
        return 2

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Mean of the cross-entropies of start and end over a window's tokens, in float32.

        Args:
            logits: (B, L, 2).
            labels: (B, 2) positions of the answer's first and last token; 0 where the window
                does not hold the answer.
        """
        losses = functional.cross_entropy(logits.float(), labels, reduction="none").mean(-1)  # (B,)
        return losses.mean() if reduction == "mean" else losses.sum()

    @cached_property
    def majority(self) -> dict[str, float]:
        """Test metrics of the paragraph's first sentence as the answer to every question.

        Of all pieces at a fixed place (the first words, the last sentence, all of it) none has a
        better F1 on SQuAD by more than 0.0002.
        """
        _, contexts, accepted = self.test.texts
        return self.evaluate([first_sentence(context) for context in contexts], accepted)

    def read(self, logits: Tensor, **about) -> Tensor:
        """The 20 best starts and the 20 best ends of each window, (B, 20, 2, 2), float32.

        The third dimension is start or end, the fourth score or position. All tokens take part,
        as in Devlin et al.'s code; `texts` drops what lies outside the paragraph.
        """
        best = logits.float().topk(min(CANDIDATES, logits.shape[1]), dim=1)
        return torch.stack([best.values, best.indices.float()], dim=-1)

    def score(self, split: str, answers: list, rows: list[dict]) -> dict[str, float]:
        """Exact match and F1 of the answers' texts over the questions of a split."""
        return self.evaluate(self.texts(split, answers, rows), getattr(self, split).texts[2])

    def texts(self, split: str, answers: list, rows: list[dict]) -> list[str]:
        """The answer to every question: the best span of all its windows, "" without one.

        Args:
            answers: what was read for each of the rows.
            rows: the split's windows, as `encode` returned them.
        """
        contexts = getattr(self, split).texts[1]
        best = [NOTHING] * len(contexts)
        for row, answer in zip(rows, answers, strict=True):
            number = row["question"]
            best[number] = max(best[number], best_span(row, np.array(answer)))
        return [
            context[span.begin : span.end] for context, span in zip(contexts, best, strict=True)
        ]

    @staticmethod
    def rows_of(spec: TaskSpec, frame: pd.DataFrame) -> Split:
        """The rows of a data file in SQuAD's layout."""
        check_columns(spec, frame)
        if frame.empty:
            raise PruningError(f"task {spec.name!r} has a split without rows; fetch it again")
        questions, contexts = frame.question.tolist(), frame.context.tolist()
        rows = enumerate(zip(questions, contexts, frame.answers, strict=True))
        found = [_checked(f"row {i} of a split of task {spec.name!r}", *row) for i, row in rows]
        accepted, spans = zip(*found, strict=True)
        return Split((questions, contexts, list(accepted)), np.array(spans))

    @staticmethod
    def divide(spec: TaskSpec, train: Split, share: float) -> tuple[Split, Split]:
        """Split by paragraph: `share` is of the paragraphs, and none of them is on both sides."""
        contexts, _ = pd.factorize(np.array(train.texts[1], dtype=object))
        divider = GroupShuffleSplit(n_splits=1, test_size=share, random_state=0)
        try:
            kept, held = next(divider.split(contexts, groups=contexts))
        except ValueError as error:
            raise PruningError(
                f"hold_out is {share!r}, which leaves no paragraph on one side of "
                f"{contexts.max() + 1:,}"
            ) from error
        return train.take(kept), train.take(held)

    def _tokenize(self, split: Split, tokenizer, max_length: int) -> list[dict]:
        questions, contexts, _ = split.texts
        found = []
        for begin in range(0, len(split), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            encoded = tokenizer(
                questions[part], contexts[part], return_offsets_mapping=True, verbose=False
            )
            for index, answer in enumerate(split.labels[part]):
                number = {"question": begin + index}
                found += [row | number for row in windows(encoded, index, answer, max_length)]
        return found


def first_sentence(text: str) -> str:
    """Up to the first full stop, question or exclamation mark before a space; else all of it."""
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def _checked(
    where: str, question: str, context: str, answers: dict
) -> tuple[tuple[str, ...], tuple[int, int]]:
    """All accepted answers of a row, and the characters of the first one."""
    if not all(isinstance(text, str) and text.strip() for text in (question, context)):
        raise PruningError(f"{where} has no question or no context; every row needs both")
    try:
        texts, begins = answers["text"], answers["answer_start"]
        pairs = [(str(text), int(begin)) for text, begin in zip(texts, begins, strict=True)]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise PruningError(
            f"the answers of {where} are no `text` with its `answer_start` each; fetch it again"
        ) from error
    if not pairs:
        raise PruningError(f"{where} has no answer; every question needs one in its context")
    for text, begin in pairs:
        if not text.strip() or begin < 0 or not context.startswith(text, begin):
            raise PruningError(
                f"the answer {text!r} of {where} is not at character {begin} of its context"
            )
    text, begin = pairs[0]
    return tuple(text for text, _ in pairs), (begin, begin + len(text))


def read_disfl_qa(folder: Path) -> list[pd.DataFrame]:
    """The part of Disfl-QA (Gupta et al. 2021) that comes in a wheel, in SQuAD's columns.

    SQuAD questions that the speaker corrects half-way. Kept are those that have an answer, at one
    place of the paragraph only: the file names no places, and spaces answers in another way than
    paragraphs. A third of the paragraphs, by the hash of their text, is the test part.
    """
    file = folder / "Bigbench" / "DisflQA" / "test.jsonl"
    frame = pd.read_json(file, lines=True, dtype=False).query("answer != 'unknown'")
    frame = frame.rename(columns={"passage": "context"})
    places = [_place(*row) for row in zip(frame.context, frame.answer, strict=True)]
    frame = frame.assign(answers=places).dropna(subset="answers")
    digest = frame.context.map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:8])
    test = digest.map(lambda digits: int(digits, 16) % 3 == 0)
    return [frame[~test], frame[test]]


def _place(context: str, answer: str) -> dict | None:
    """The answer as it stands in the paragraph, whatever the spaces, if it does exactly once."""
    letters = r"\s*".join(re.escape(letter) for letter in answer if not letter.isspace())
    found = list(re.finditer(rf"(?<!\w){letters}(?!\w)", context))
    if len(found) != 1:
        return None
    return {"text": [found[0][0]], "answer_start": [found[0].start()]}
