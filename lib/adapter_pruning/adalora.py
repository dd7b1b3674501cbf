"""AdaLoRA (Zhang et al. 2023), PEFT's: the ranks of the matrices are allotted during training."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .backbones import Model
from .errors import PruningError
from .lora import LoRA, Target
from .peft_format import matrices, need_peft

EXCESS = 1.5  # initial over final budget (Zhang et al. 2023, section 3.3)
# Shares of the training before the budget falls and after it has fallen. In the authors' eight
# scripts for GLUE the medians are 0.13 (from 0.09 to 0.18) and 0.48 (from 0.44 to 0.58).
BEFORE, AFTER = 1 / 8, 1 / 2
SHORTEST = 8  # steps, so that each of the three phases has one
ORTHOGONALITY = 0.5  # weight of the regulariser in PEFT; 0.1 or 0.3 in those scripts


def attach_adalora(
    model: Model,
    *,
    rank: int,
    targets: Sequence[Target],
    total_steps: int,
    alpha: float = 32.0,
    train_norms: bool = False,
    seed: int = 0,
) -> Model:
    """Freeze the encoder and put W x + (alpha / r) P Lambda Q x in place of its targets.

    Equation 3 of Zhang et al. (2023), with r = 1.5 `rank` triplets a matrix, rounded up. Training
    inside `allocating` sets Lambda to 0 in all but `rank` triplets a matrix, on average. The head
    trains too. The matrices become modules of PEFT, which cannot be detached.

    Args:
        total_steps: of the training. The budget falls at every step from an eighth of it to a
            half (equation 12).
        train_norms: whether the encoder's LayerNorms train as well.
        seed: fixes P and Q, drawn from N(0, 0.02) alike on any device; Lambda starts at 0.

    Raises:
        PruningError: the model has adapters, these do not fit it or are no LoRA's, the training
            is too short, or there is no PEFT.
    """
    peft = need_peft()
    if model.adapter_config is not None or hasattr(model, "adalora"):
        raise PruningError("the model already has adapters; load it anew")
    if total_steps < SHORTEST:
        raise PruningError(f"total_steps is {total_steps}; AdaLoRA needs at least {SHORTEST}")
    lora = LoRA(rank=rank, alpha=alpha, targets=tuple(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuner = peft.AdaLoraModel(model, _config(peft, model, lora, total_steps), "default")
    model.adalora = (tuner,)  # in a tuple PyTorch takes it for no part of the model inside it
    model.head.requires_grad_(True)
    for module in model.encoder.modules():
        if train_norms and isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    return model


def _config(peft, model: Model, lora: LoRA, total_steps: int):
    start, places = math.ceil(EXCESS * lora.rank), list(matrices(model, lora.targets))
    for layer, target, _, linear in places:
        if start > min(linear.weight.shape):
            raise PruningError(
                f"AdaLoRA of rank {lora.rank} starts at {start}, above {min(linear.weight.shape)}, "
                f"the smaller side of {target} in layer {layer}; give a lower rank"
            )
    return peft.AdaLoraConfig(
        init_r=start,
        target_r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=[place.name for place in places],
        tinit=int(BEFORE * total_steps),
        tfinal=int(AFTER * total_steps),
        total_step=total_steps,
    )


@contextmanager
def allocating(model: Model) -> Iterator[None]:
    """Allot the ranks in the one training that happens in here, whose steps are `total_steps`.

    Before a step of the model's optimizer the gradient of `irregularity` is added, which no loss
    of ours has in it. After the step PEFT weighs all triplets, and masks the least important.
    Where training stops early, or takes back weights from before the budget had fallen, more
    triplets are left than the rank asks for; `adalora_parameters` counts them.

    Raises:
        PruningError: the model has no AdaLoRA.
    """
    triplets, (tuner,), steps = _triplets(model), model.adalora, count(1)
    ours = {id(parameter) for triplet in triplets for parameter in triplet}

    def owns(optimizer: Optimizer) -> bool:
        return any(id(p) in ours for group in optimizer.param_groups for p in group["params"])

    def before(optimizer: Optimizer, *unused: object) -> None:
        if owns(optimizer):
            (ORTHOGONALITY * irregularity(model)).backward()

    def after(optimizer: Optimizer, *unused: object) -> None:
        if owns(optimizer):
            tuner.update_and_allocate(next(steps))

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def irregularity(model: Model) -> Tensor:
    """How far P and Q are from orthogonal, a scalar: the mean of ||P' P - I|| and ||Q Q' - I||.

    Equation 4 of Zhang et al. (2023) as their code has it: no squares, a mean over all matrices.

    Raises:
        PruningError: the model has no AdaLoRA.
    """
    grams = [gram for q, _, p in _triplets(model) for gram in (q @ q.T, p.T @ p)]
    return torch.stack([(gram - torch.eye(len(gram)).to(gram)).norm() for gram in grams]).mean()


def adalora_parameters(model: Model) -> int:
    """Numbers in the triplets whose Lambda is not 0: after training the budget's, before it none.

    Raises:
        PruningError: the model has no AdaLoRA.
    """
    sizes = [(values, q.shape[1] + 1 + p.shape[0]) for q, values, p in _triplets(model)]
    return sum(size * int(values.count_nonzero()) for values, size in sizes)


def _triplets(model: Model) -> list[tuple[nn.Parameter, nn.Parameter, nn.Parameter]]:
    """Q (r, d_in), the diagonal of Lambda (r, 1) and P (d_out, r) of every matrix."""
    if not hasattr(model, "adalora"):
        raise PruningError("the model has no AdaLoRA; attach it first")
    layers = [module for module in model.modules() if hasattr(module, "lora_E")]
    return [(m.lora_A["default"], m.lora_E["default"], m.lora_B["default"]) for m in layers]
