"""How much a task's loss depends on each attention head, and on each feed-forward column."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from .backbones import Model
from .batches import batches
from .errors import PruningError, choose
from .gates import hooked, units_of
from .sensitivity import sampled
from .tasks import Task

Form = Literal["example", "position"]
Norm = Literal["none", "layer", "global"]
FORMS = ("example", "position")
NORMS = ("none", "layer", "global")
EPSILON = 1e-20  # of the released code; it only keeps an all-zero layer from dividing by zero


def unit_importance(
    model: Model,
    task: Task,
    *,
    form: Form = "example",
    kinds: tuple[str, ...] = ("heads",),
    rows: int = 256,
    batch_size: int = 32,
    max_length: int = 128,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Sum over examples of |dL/d gate|, per token, of every unit, in float32 and without dropout.

    Args:
        form: `example` takes the size of each example's gradient (Wang et al. 2023, section 3.1).
            `position` that of each token's, which is |<values, dL/d values>| (Michel et al. 2019);
            where the head reads the first token only, the last layer is divided by the number of
            examples, as in their code: no other token has a gradient there.
        kinds: `heads`, `ffn` or both.
        rows: how many training rows, drawn without replacement; a `seed` fixes which.

    Returns:
        Name of `gates.units_of` -> scores (n,), each at least 0.

    Raises:
        PruningError: an unknown form or kind, or a gradient that is not finite.
    """
    choose("form", form, FORMS)
    whole = units_of(model, kinds)
    sample, tokens, examples = sampled(task, rows, seed), 0, 0
    totals = {name: torch.zeros(len(kept), device=model.device) for name, kept in whole.items()}
    training = model.training
    model.eval()
    try:
        for inputs, labels, _ in batches(model, sample, "train", batch_size, max_length):
            for name, size in _sizes(model, task, inputs, labels, form, list(whole)).items():
                totals[name] += size
            tokens += int(inputs["attention_mask"].sum())
            examples += len(inputs["attention_mask"])
    finally:
        model.train(training)
    last = f"{model.encoder.config.num_hidden_layers - 1}."
    only_first = form == "position" and model.pooling in ("pooler", "cls")
    scores = {
        name: total.cpu() / (examples if only_first and name.startswith(last) else tokens)
        for name, total in totals.items()
    }
    for name, score in scores.items():
        if not score.isfinite().all():
            raise PruningError(f"the importance of {name!r} is not finite; are the weights?")
    return scores


def _sizes(model: Model, task: Task, inputs, labels, form: Form, names: list[str]) -> dict:
    """Name -> sum of |dL/d gate| over the examples of one batch, or over all their tokens."""
    gates: dict[str, Tensor] = {}

    def weigh(name: str, values: Tensor) -> Tensor:
        """A gate of 1 for each example, or for each of its tokens, that remembers its gradient."""
        shape = values.shape[:3] if form == "position" else (len(values), 1, values.shape[2])
        gates[name] = values.new_ones(shape, requires_grad=True)
        return values * gates[name][..., None]

    with hooked(model, weigh, names):
        # A sum, so that each example's gate sees its own loss alone.
        loss = task.loss(model(**inputs), labels, "sum")
    gradients = torch.autograd.grad(loss, list(gates.values()))
    return {name: g.abs().sum((0, 1)) for name, g in zip(gates, gradients, strict=True)}


def normalise(scores: Mapping[str, Tensor], norm: Norm = "layer") -> dict[str, Tensor]:
    """Divide by the L2 norm, then scale to [0, 1] over all (Wang et al. 2023, equations 1 and 2).

    Args:
        norm: of each `layer`'s scores, as in the released code; of all (`global`); or `none`.

    Raises:
        PruningError: an unknown norm, or scores that are all equal.
    """
    choose("norm", norm, NORMS)
    if norm == "global":
        whole = torch.cat(list(scores.values())).norm()
        scores = {name: score / (whole + EPSILON) for name, score in scores.items()}
    elif norm == "layer":
        scores = {name: score / (score.norm() + EPSILON) for name, score in scores.items()}
    every = torch.cat(list(scores.values()))
    low, high = every.min(), every.max()
    if low == high:
        raise PruningError(f"all scores are {low:g}, so nothing ranks the units")
    return {name: (score - low) / (high - low) for name, score in scores.items()}


def ranks(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Place of each unit among all, 0 for the most important; ties to the one that comes first."""
    order = torch.cat(list(scores.values())).argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    parts = places.split([len(score) for score in scores.values()])
    return dict(zip(scores, parts, strict=True))
