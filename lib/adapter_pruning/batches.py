"""Batches on the device: rows of similar length together, so that little is padding."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .backbones import Model
from .base_task import IGNORED, Task
from .errors import PruningError


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
    fill = {"input_ids": padding, "token_type_ids": 0, "target_ids": padding}
    columns = {
        key: _padded([row[key] for row in rows], value)
        for key, value in fill.items()
        if key in rows[0]
    }
    columns["attention_mask"] = _padded([[1] * len(row["input_ids"]) for row in rows], 0)
    return {key: torch.tensor(value).to(device) for key, value in columns.items()}


def _padded(rows: list[list], fill: int) -> list[list]:
    length = max(len(row) for row in rows)
    return [row + [fill] * (length - len(row)) for row in rows]


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

    Raises:
        PruningError: a task whose answers are text and a model that writes none, or the reverse;
            a task about tokens and a head that speaks once a text, or the reverse.
    """
    if model.writes == bool(task.outputs):
        does, needs = ("writes", "reads") if model.writes else ("reads", "writes")
        raise PruningError(
            f"model {model.name!r} {does} text and task {task.name!r} needs one that {needs} it; "
            f"load a model for this task"
        )
    if (model.pooling == "tokens") != task.tokenwise:
        raise PruningError(
            f"the head of model {model.name!r} has pooling {model.pooling!r}, which does not go "
            f"with task {task.name!r}; load a model for this task"
        )
    rows = task.encode(model.tokenizer, max_length)[split]
    lengths = [len(row["input_ids"]) for row in rows]
    for chosen in length_batches(lengths, batch_size, generator):
        batch = [rows[i] for i in chosen]
        inputs = collate(batch, model.tokenizer.pad_token_id, model.device)
        labels = [row["labels"] for row in batch]
        if isinstance(labels[0], list):
            labels = _padded(labels, IGNORED)
        yield inputs, torch.tensor(labels).to(model.device), chosen
