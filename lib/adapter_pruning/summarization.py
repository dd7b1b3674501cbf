"""Abstractive summarization (XSum): a document is read, one sentence about it is written.

Learning sees the true summary up to each token; what is scored was written without it.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from .base_task import IGNORED, SPLITS, Split, Task, check_columns
from .errors import PruningError, checked
from .specs import TaskSpec

Tokens = Annotated[int, Field(ge=1, le=512)]
Beams = Annotated[int, Field(ge=1, le=64)]


@checked
class Writing:
    """How long a true summary may be, and how new ones are written.

    The search is that of BART's authors for XSum (Lewis et al. 2020, fairseq's
    `examples/bart/summarize.py`: beam 6, 10 to 60 tokens, no trigram twice, length penalty 1;
    transformers also counts the tokens at which a summary begins and ends).

    Attributes:
        target_length: tokens of a true summary, longer ones are cut; 128 in He et al. (2022).
        beams: how many continuations are kept at a time. 1 is greedy.
        validation_beams: the same for the validation rows, which are written anew at every
            evaluation during training; they only show progress, the loss selects.
        min_length, max_length: tokens of a new summary, both ends included.
        no_repeat: no sequence of so many tokens is written twice; 0 allows all.
        length_penalty: a beam's log-likelihood is divided by its length to this power.
    """

    target_length: Tokens = 128
    beams: Beams = 6
    validation_beams: Beams = 1
    min_length: Annotated[int, Field(ge=0, le=512)] = 11
    max_length: Annotated[int, Field(ge=2, le=512)] = 62
    no_repeat: Annotated[int, Field(ge=0, le=512)] = 3
    length_penalty: Annotated[float, Field(ge=-10, le=10)] = 1.0

    def options(self, split: str) -> dict:
        """The options of transformers' generation for the rows of a split."""
        beams = self.validation_beams if split == "validation" else self.beams
        return {
            "num_beams": beams,
            "do_sample": False,
            "min_length": self.min_length,
            "max_length": self.max_length,
            "no_repeat_ngram_size": self.no_repeat,
            # As in fairseq, a search ends with the first `beams` summaries that came to an end.
            "early_stopping": beams > 1,
            "length_penalty": self.length_penalty if beams > 1 else 1.0,
        }


@dataclass(frozen=True)
class Summarization(Task):
    """Documents with a summary each; a split's labels are the true summaries, (n,) strings.

    Another way of writing, `dataclasses.replace(task, writing=...)`, is another task to the
    records: its fingerprint differs.

    Raises:
        PruningError: a shortest summary that is longer than the longest.
    """

    writing: Writing = field(default_factory=Writing)

    def __post_init__(self):
        least, most = self.writing.min_length, self.writing.max_length
        if least > most:
            raise PruningError(f"min_length is {least}; it must be at most max_length, {most}")

    @property
    def outputs(self) -> int:
        """None: the answer is text, and no head is trained."""
        return 0

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over all rows and the way of writing."""
        content = hashlib.sha256(repr(asdict(self.writing)).encode())
        for name in SPLITS:
            split = getattr(self, name)
            for row in zip(*split.texts, split.labels, strict=True):
                content.update(repr((name, row)).encode())
        return content.hexdigest()[:16]

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of the summary's tokens, averaged over each summary, in float32.

        Args:
            logits: (B, T, vocabulary).
            labels: (B, T) token ids, `IGNORED` where a summary is padded.
        """
        losses = functional.cross_entropy(
            logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )  # (B, T)
        rows = losses.sum(1) / (labels != IGNORED).sum(1)
        return rows.mean() if reduction == "mean" else rows.sum()

    @cached_property
    def majority(self) -> dict[str, float]:
        """Test metrics of the document's first line as its summary: lead-1.

        XSum keeps about one sentence a line. To beat lead-1 is not to have read the document: one
        fixed sentence of the news does so too, by more function words in common.
        """
        (documents,) = self.test.texts
        leads = [document.strip().partition("\n")[0] for document in documents]
        return self.evaluate(leads, self.test.labels)

    def read(self, logits: Tensor, *, model, split: str, **inputs: Tensor) -> np.ndarray:
        """The summaries that the model writes of a batch's documents, (B,) strings.

        The logits (B, T, vocabulary) have seen the true summaries and are not looked at.
        """
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return np.array(model.write(**source, **self.writing.options(split)))

    def score(self, split: str, answers: list, rows: list[dict]) -> dict[str, float]:
        """ROUGE of what was written for a split, row by row."""
        return self.evaluate(answers, getattr(self, split).labels)

    def _tokenize(self, split: Split, tokenizer, max_length: int) -> list[dict]:
        (documents,), summaries = split.texts, split.labels.tolist()
        sources = tokenizer(documents, truncation=True, max_length=max_length)["input_ids"]
        cut = {"truncation": True, "max_length": self.writing.target_length}
        targets = tokenizer(text_target=summaries, **cut)["input_ids"]
        return [
            {"input_ids": source, "target_ids": target, "labels": target}
            for source, target in zip(sources, targets, strict=True)
        ]

    @staticmethod
    def rows_of(spec: TaskSpec, frame: pd.DataFrame) -> Split:
        """The rows of a data file that have a document and a summary; XSum has some without."""
        check_columns(spec, frame)
        texts = frame[[*spec.columns, spec.label_column]].fillna("").astype(str)
        texts = texts[texts.apply(lambda column: column.str.strip().ne("")).all(axis=1)]
        if texts.empty:
            raise PruningError(
                f"task {spec.name!r} has a split in which no row has both a document and a "
                f"summary; fetch it again"
            )
        documents = tuple(texts[column].tolist() for column in spec.columns)
        return Split(documents, texts[spec.label_column].to_numpy(object))

    @staticmethod
    def divide(spec: TaskSpec, train: Split, share: float) -> tuple[Split, Split]:
        """Rows that train and rows that select, where the data has no validation split."""
        try:
            kept, held = train_test_split(np.arange(len(train)), test_size=share, random_state=0)
        except ValueError as error:
            raise PruningError(
                f"hold_out is {share!r}, which leaves nothing on one side of {len(train):,} rows"
            ) from error
        return train.take(np.sort(kept)), train.take(np.sort(held))


def read_xsum(folder: Path) -> list[pd.DataFrame]:
    """The 1,000 XSum documents that come in a wheel; a fifth, by their hash, is the test part.

    All of them are of XSum's official test split, divided here: scores on them are not comparable
    with published ones.
    """
    frame = pd.read_json(folder / "XSum" / "test.jsonl", lines=True, dtype=False)
    digest = frame.document.map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:8])
    test = digest.map(lambda digits: int(digits, 16) % 5 == 0)
    return [frame[~test], frame[test]]
