"""Importance maps as records: scored once, whoever asks, and drawn from the records."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import torch
from torch import Tensor

from . import measure
from .backbones import Model, thaw
from .gates import OUTPUTS
from .head_importance import Form, unit_importance
from .records import RecordStore
from .tasks import Task
from .training import TrainConfig, fit
from .trials import identity, key

METHOD = "head importance"


def train_head(model: Model, task: Task, config: TrainConfig, *, seed: int) -> Model:
    """Train the task head for one pass with the encoder frozen, in place: before scores (B4)."""
    model.encoder.requires_grad_(False)
    fit(model, task, replace(config, epochs=1), seed=seed, progress=False)
    thaw(model)
    return model


def run_importance(
    store: RecordStore,
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    rows: int,
    draw: int = 0,
    head: str = "untrained",
    form: Form = "example",
    kinds: tuple[str, ...] = ("heads",),
    profile: str = "",
) -> dict:
    """Score the units of a model that has no adapters; the record, from the store if it is there.

    Args:
        config: for the size and the length of its batches.
        seed: of the model's head.
        rows, form, kinds: as in `unit_importance`.
        draw: the seed of the rows.
        head: what a table calls the model's head.

    Returns:
        A record whose `scores` are name -> list of numbers.
    """
    about = identity(model, task, config, seed)
    detail = {"rows": rows, "draw": draw, "head": head, "form": form, "kinds": list(kinds)}
    wanted = key(about, METHOD, detail)
    if (record := store.find(wanted)) is None:
        sample = {"rows": rows, "form": form, "kinds": kinds, "seed": draw}
        sample |= {"batch_size": config.batch_size, "max_length": config.max_length}
        scores = unit_importance(model, task, **sample)
        record = about | {
            "key": wanted,
            "method": METHOD,
            "detail": detail,
            "profile": profile,
            "hardware": measure.hardware(model.device),
            "scores": {name: score.tolist() for name, score in scores.items()},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        store.append(record)
    return record


def scores_of(record: Mapping) -> dict[str, Tensor]:
    """Name of `gates.units_of` -> scores, of a record of `run_importance`, in the model's order.

    A stored record has its names in the order of the alphabet, where layer 10 comes before 2.
    """

    def place(name: str) -> tuple[int, int]:
        layer, _, kind = name.partition(".")
        return int(layer), list(OUTPUTS).index(kind)

    return {
        name: torch.tensor(record["scores"][name]) for name in sorted(record["scores"], key=place)
    }
