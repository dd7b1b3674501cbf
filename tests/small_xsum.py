"""A made-up XSum: twelve short documents with a summary each, in every layout."""

from pathlib import Path

import numpy as np
import pandas as pd

from adapter_pruning.base_task import Split
from adapter_pruning.specs import TASKS
from adapter_pruning.summarization import Summarization, Writing
from adapter_pruning.training import TrainConfig

ANIMALS = ("cat", "dog", "horse", "fox")
PLACES = ("in a big old house", "by the river", "here")
DOCUMENTS = [f"A {a} was seen {p}.\nPeople came to look." for p in PLACES for a in ANIMALS]
SUMMARIES = [f"The {a} is {p}." if i else f"A {a}." for i, p in enumerate(PLACES) for a in ANIMALS]
SHORT = Writing(beams=2, min_length=0, max_length=8)
QUICK = TrainConfig(
    epochs=1, batch_size=4, evaluations_per_epoch=1, max_length=16, precision="fp32"
)


def rows(numbers) -> Split:
    """The documents and summaries of these numbers."""
    texts = [DOCUMENTS[i] for i in numbers]
    return Split((texts,), np.array([SUMMARIES[i] for i in numbers], dtype=object))


def made_up(writing: Writing = SHORT) -> Summarization:
    """Eight documents train, two select and two are reported on."""
    parts = [rows(part) for part in (range(8), (8, 9), (10, 11))]
    return Summarization(TASKS["xsum"], *parts, revision="made up", writing=writing)


def write(folder: Path, split: str, **columns: list) -> None:
    """One parquet file in the layout of EdinburghNLP/xsum; `columns` replace those it has."""
    given = {"document": DOCUMENTS, "summary": SUMMARIES, "id": [str(i) for i in range(12)]}
    tagged = {**given, "document": [f"{split}: {text}" for text in DOCUMENTS], **columns}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    pd.DataFrame({name: column for name, column in tagged.items() if column}).to_parquet(file)
