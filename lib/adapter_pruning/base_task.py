"""What every kind of task has: its facts, its splits, and its tokens, made once."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from . import metrics
from .errors import PruningError
from .specs import TaskSpec

SPLITS = ("train", "validation", "test")
# A label that no loss sees: that of padding. It is what cross-entropy ignores by default.
IGNORED = -100


@dataclass(frozen=True)
class Split:
    """Rows of one split: `texts` holds one list per text column."""

    texts: tuple[list, ...]
    labels: np.ndarray  # (n, ...) what the kind of task learns from

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The given rows, in the given order."""
        return Split(tuple([column[i] for i in rows] for column in self.texts), self.labels[rows])


def check_columns(spec: TaskSpec, frame: pd.DataFrame) -> None:
    """Refuse data without the columns of the task.

    Raises:
        PruningError: naming the missing ones, and those that are there.
    """
    missing = [c for c in (*spec.columns, spec.label_column) if c not in frame]
    if missing:
        raise PruningError(
            f"task {spec.name!r} needs the column(s) {', '.join(missing)}; "
            f"the data has: {', '.join(frame.columns)}"
        )


@dataclass(frozen=True)
class Task(ABC):
    """A loaded task: its facts, its three splits and where the data came from.

    `tokenwise` says whether the head speaks at every token or once for all of them.
    """

    spec: TaskSpec
    train: Split
    validation: Split
    test: Split
    revision: str
    _encoded: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    tokenwise: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The registry name, such as `glue/rte`."""
        return self.spec.name

    @property
    def metric(self) -> str:
        """Name of the metric that is *the* score of this task."""
        return self.spec.metrics[0]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over all rows: another choice of as many rows is another task."""
        content = hashlib.sha256()
        for name in SPLITS:
            split = getattr(self, name)
            content.update(repr((name, split.texts)).encode())
            content.update(split.labels.tobytes())
        return content.hexdigest()[:16]

    def evaluate(self, predictions: np.ndarray | list, labels: np.ndarray | list) -> dict:
        """All metrics of the task, name -> float, from what was predicted and what is true."""
        return metrics.compute(self.spec.metrics, predictions, labels)

    def encode(self, tokenizer, max_length: int) -> dict[str, list]:
        """Token ids and labels of every split, made once for each tokenizer and length.

        Returns:
            split name -> list of {"input_ids": [...], ..., "labels": label} without padding, one
            per row of the split, or several where a row is cut into windows.
        """
        key = (tokenizer.name_or_path, max_length)
        if key not in self._encoded:
            self._encoded[key] = {
                name: self._tokenize(getattr(self, name), tokenizer, max_length) for name in SPLITS
            }
        return self._encoded[key]

    @staticmethod
    @abstractmethod
    def rows_of(spec: TaskSpec, frame: pd.DataFrame) -> Split:
        """The rows of a data file.

        Raises:
            PruningError: columns are missing, or a row is not what the task needs.
        """

    @staticmethod
    @abstractmethod
    def divide(spec: TaskSpec, train: Split, share: float) -> tuple[Split, Split]:
        """What trains, and the `share` that is held out to select; the same at every call.

        Raises:
            PruningError: one side would be left without what it needs.
        """

    @abstractmethod
    def _tokenize(self, split: Split, tokenizer, max_length: int) -> list[dict]:
        """The rows of one split, as `encode` returns them."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the head."""

    @property
    @abstractmethod
    def majority(self) -> dict[str, float]:
        """Test metrics of the best answer that looks at nothing that was asked."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The `mean` or the `sum` of the losses of the rows of a batch, in float32."""

    @abstractmethod
    def read(self, logits: Tensor, **given) -> Tensor | np.ndarray:
        """What the logits say, (B, ...), on their device, or what the model writes.

        Args:
            given: the inputs that the logits are of, and `model` and `split`: whose they are.
        """

    @abstractmethod
    def score(self, split: str, answers: list, rows: list[dict]) -> dict[str, float]:
        """All metrics of a split.

        Args:
            answers: what was read for each of the rows.
            rows: the split as `encode` returned it.
        """
