"""Batches on the device: rows of similar length together, so that little is padding."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .backbones import Model
from .tasks import Task


def length_batches(
    lengths: list[int], batch_size: int, generator: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Row numbers in batches of similar length, so that little is padding.

    With a generator the batches are random: rows are shuffled, sorted by length inside pools of
    fifty batches, and the batches shuffled. Without one, rows go by length.
    """
    lengths = np.asarray(lengths)
    if generator is None:
        order = np.argsort(lengths, kind="stable")
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    order, pool = generator.permutation(len(lengths)), 50 * batch_size
    pools = [order[i : i + pool] for i in range(0, len(order), pool)]
    order = np.concatenate([p[np.argsort(lengths[p], kind="stable")] for p in pools])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def collate(rows: list[dict], padding: int, device: torch.device) -> dict[str, Tensor]:
    """Rows of token ids -> (B, L) tensors on the device, padded, with an attention mask."""
    length = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": padding, "token_type_ids": 0}
    columns = {
        key: [row[key] + [value] * (length - len(row[key])) for row in rows]
        for key, value in fill.items()
        if key in rows[0]
    }
    columns["attention_mask"] = [
        [1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in rows
    ]
    return {key: torch.tensor(value).to(device) for key, value in columns.items()}


def batches(
    model: Model,
    task: Task,
    split: str,
    batch_size: int,
    max_length: int,
    generator: np.random.Generator | None = None,
) -> Iterator[tuple[dict[str, Tensor], Tensor, np.ndarray]]:
    """(inputs, labels, rows) of a split, one batch at a time.

    Inputs are (B, L) tensors and labels (B, ...), both on the model's device; rows are the B row
    numbers. With a generator the order is random.
    """
    rows = task.encode(model.tokenizer, max_length)[split]
    lengths = [len(row["input_ids"]) for row in rows]
    for chosen in length_batches(lengths, batch_size, generator):
        batch = [rows[i] for i in chosen]
        inputs = collate(batch, model.tokenizer.pad_token_id, model.device)
        yield inputs, torch.tensor([row["labels"] for row in batch]).to(model.device), chosen
