"""A small GLUE in the layout of nyu-mll/glue, and the published format of its archive."""

import zipfile

import numpy as np
import pandas as pd

from adapter_pruning import submission

# The published format, written down once more: rows, and how class ids 0, 1, ... are spelled.
PUBLISHED = {
    "CoLA.tsv": (1063, ["0", "1"]),
    "SST-2.tsv": (1821, ["0", "1"]),
    "MRPC.tsv": (1725, ["0", "1"]),
    "STS-B.tsv": (1379, None),
    "QQP.tsv": (390965, ["0", "1"]),
    "MNLI-m.tsv": (9796, ["entailment", "neutral", "contradiction"]),
    "MNLI-mm.tsv": (9847, ["entailment", "neutral", "contradiction"]),
    "QNLI.tsv": (5463, ["entailment", "not_entailment"]),
    "RTE.tsv": (3000, ["entailment", "not_entailment"]),
    "WNLI.tsv": (146, ["0", "1"]),
    "AX.tsv": (1104, ["entailment", "neutral", "contradiction"]),
}
# No two alike, so that no file can be taken for another.
FEW = dict(zip(submission.LABELS, range(3, 14), strict=True))
# Where the rows of each file are in the layout of nyu-mll/glue: config and split.
HIDDEN = {
    "CoLA": ("cola", "test"),
    "SST-2": ("sst2", "test"),
    "MRPC": ("mrpc", "test"),
    "STS-B": ("stsb", "test"),
    "QQP": ("qqp", "test"),
    "MNLI-m": ("mnli", "test_matched"),
    "MNLI-mm": ("mnli", "test_mismatched"),
    "QNLI": ("qnli", "test"),
    "RTE": ("rte", "test"),
    "AX": ("ax", "test"),
}
PAPER = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli-mm", "qnli", "rte"]
WORDS = ["the cat sleeps", "mathematics is numbers", "we sailed over an ocean"]


def lines_of(file, name) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.read(name).decode().split("\n")


def texts(columns, split, classes) -> dict:
    """Text columns: words of the row's class, of many lengths, in no order of length."""
    return {
        column: [
            f"{split} {column} {i}" + f" {WORDS[c % 3]}" * (1 + (5 * i + 2) % 4)
            for i, c in enumerate(classes)
        ]
        for column in columns
    }


def write_split(folder, config, split, columns, labels):
    """One parquet file in the layout of nyu-mll/glue; hidden labels are -1."""
    file = folder / config / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = np.full(len(labels), -1) if split.startswith("test") else np.asarray(labels)
    known = known.astype("float32" if config == "stsb" else "int64")
    rows = texts(columns, split, np.asarray(labels, int)) | {"label": known}
    pd.DataFrame(rows).to_parquet(file)


def rows(split) -> list[tuple]:
    """A split's rows as tuples of texts and label."""
    return list(zip(*split.texts, split.labels.tolist(), strict=True))


def write_glue(folder, name="rte", split="train", columns=None, n=40):
    """One parquet file of a made-up task in the layout of nyu-mll/glue."""
    columns = columns or {
        "sentence1": [f"{split} first {i}" for i in range(n)],
        "sentence2": [f"{split} second {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
    }
    file = folder / name / f"{split}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(file)
    return file
