"""Scores from the loss at initialisation: SNIP and GraSP, on a sample of the training rows.

Both read gradients in float32 and in evaluation mode. Scaled-dot-product attention has no second
derivative in its fast forms, so the plain one is used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .backbones import Model
from .batches import batches
from .masks import Mask
from .tasks import Task


def snip(model: Model, task: Task, mask: Mask, **sample: int) -> dict[str, Tensor]:
    """|w dL/dw| of every weight in the mask: what the loss loses with it (Lee et al. 2019).

    He et al. (2022, section 3) print -w dL/dw and remove the highest; their sentence and their
    code mean the size. Gradients of all batches are summed before the size is taken.

    Args:
        sample: as for `sample_losses`.
    """
    weights = _weights(model, mask)
    gradients = _sum(model, task, sample, partial(_gradient, weights))
    return {n: (w * g).abs().detach() for (n, w), g in zip(weights.items(), gradients, strict=True)}


def grasp(model: Model, task: Task, mask: Mask, **sample: int) -> dict[str, Tensor]:
    """w (H g) of every weight in the mask, H the loss's Hessian, g its gradient (Wang et al. 2020).

    To drop the lowest is to drop the highest of -w (H g), the weights whose loss lets the
    gradient's norm grow. H g is exact: the derivative of g's product with its own value. The
    temperature of Wang et al. is left at 1, as in the code of He et al. (2022).

    Args:
        sample: as for `sample_losses`.
    """
    weights = _weights(model, mask)
    gradient = _sum(model, task, sample, partial(_gradient, weights))

    def product(loss: Tensor) -> tuple[Tensor, ...]:
        """One batch's part of H g: the derivative of its own gradient along g."""
        part = _gradient(weights, loss, create_graph=True)
        along = sum((p * g).sum() for p, g in zip(part, gradient, strict=True))
        return _gradient(weights, along)

    products = _sum(model, task, sample, product)
    return {n: (w * p).detach() for (n, w), p in zip(weights.items(), products, strict=True)}


def sample_losses(
    model: Model,
    task: Task,
    *,
    rows: int = 320,
    batch_size: int = 32,
    max_length: int = 128,
    seed: int = 0,
) -> Iterator[Tensor]:
    """The loss on each batch of a training sample, divided so that they add up to its mean.

    Args:
        rows: how many training rows, drawn without replacement; He et al. (2022) take 320.
        batch_size, max_length: rows and tokens of a batch.
        seed: of the draw.
    """
    sample = sampled(task, rows, seed)
    total = len(sample.encode(model.tokenizer, max_length)["train"])
    for inputs, labels, _ in batches(model, sample, "train", batch_size, max_length):
        yield task.loss(model(**inputs), labels, "sum") / total


def sampled(task: Task, rows: int, seed: int) -> Task:
    """The task with `rows` of its training rows, drawn without replacement, and no others."""
    drawn = np.random.default_rng(seed).permutation(len(task.train))[:rows]
    few = task.train.take(drawn)
    return replace(task, train=few, validation=few, test=few)  # nothing else gets tokenised


def _weights(model: Model, mask: Mask) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in mask}


def _gradient(weights: dict[str, nn.Parameter], loss: Tensor, **options) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(weights.values()), **options)


def _sum(
    model: Model, task: Task, sample: dict[str, int], part: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[Tensor]:
    """Sum over the sample's batches of what is computed from each one's loss."""
    with _differentiable(model):
        parts = [part(loss) for loss in sample_losses(model, task, **sample)]
    return [sum(column) for column in zip(*parts, strict=True)]


@contextmanager
def _differentiable(model: Model) -> Iterator[None]:
    """Evaluation mode, and attention that can be differentiated twice."""
    training = model.training
    model.eval()
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        model.train(training)
