"""Prune once, before any training: He et al. (2022), SparseAdapter."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from . import importance
from .adapters import adapter_parameters
from .backbones import Model
from .errors import PruningError, choose
from .masks import Mask, prune_to
from .sensitivity import grasp, snip
from .tasks import Task
from .units import UNITS

CRITERIA = ("random", "magnitude", "erdos_renyi", "snip", "grasp")
SCOPES = ("global", "matrix")


def prune_at_init(
    model: Model,
    task: Task,
    criterion: str,
    sparsity: float,
    *,
    scope: str = "global",
    seed: int = 0,
    **sample: int,
) -> Mask:
    """The mask that removes ceil(sparsity * N) of the N weights in the adapters' matrices.

    Biases, LayerNorms and prefixes are never pruned, as in the code of He et al. (2022).

    Args:
        criterion: one of `CRITERIA`.
        sparsity: share that goes, in [0, 1).
        scope: `global` ranks all weights together, `matrix` within each matrix. Erdos-Renyi
            has densities of its own and takes no scope.
        seed: of what is random in the criterion: the random scores, or the scoring rows.
        sample: for SNIP and GraSP, as in `sensitivity.sample_losses`.

    Raises:
        PruningError: unknown criterion or scope, a sparsity out of range or that leaves nothing,
            scores that are all zero or not finite, adapters without matrices.
    """
    choose("criterion", criterion, CRITERIA)
    choose("scope", scope, SCOPES)
    if isinstance(sparsity, bool) or not 0 <= sparsity < 1:
        raise PruningError(f"sparsity is {sparsity}; it must be at least 0 and below 1")
    parameters = adapter_parameters(model)
    if not any(name.endswith("weight") for name in parameters):
        kind = type(model.adapter_config).__name__
        raise PruningError(f"{kind} has no matrices that are pruned at initialisation")
    every = UNITS["weight"].all(parameters)
    if criterion == "erdos_renyi":
        return erdos_renyi(every, kept_of(every.total, sparsity), seed)
    scores = _scores(criterion)(model, task, every, seed, sample)
    if scope == "global":
        return prune_to(every, scores, kept_of(every.total, sparsity))
    parts = [
        prune_to(Mask({name: kept}), {name: scores[name]}, kept_of(kept.numel(), sparsity))
        for name, kept in every.items()
    ]
    return Mask({name: kept for part in parts for name, kept in part.items()})


def _scores(criterion: str) -> Callable[..., Mapping[str, Tensor]]:
    return {
        "random": lambda model, task, mask, seed, sample: importance.random({}, mask, seed),
        "magnitude": lambda model, task, mask, seed, sample: importance.magnitude(
            adapter_parameters(model), mask
        ),
        "snip": lambda model, task, mask, seed, sample: snip(
            model, task, mask, seed=seed, **sample
        ),
        "grasp": lambda model, task, mask, seed, sample: grasp(
            model, task, mask, seed=seed, **sample
        ),
    }[criterion]


def kept_of(total: int, sparsity: float) -> int:
    """`total` less ceil(sparsity * total): of what is removed, no more and no less (C3)."""
    removed = math.ceil(round(sparsity * total, 6))  # 0.07 * 100 is 7.000000000000001
    if removed >= total:
        raise PruningError(f"sparsity {sparsity} leaves nothing of {total} weights")
    return total - removed


def erdos_renyi_densities(mask: Mask, keep: int) -> dict[str, float]:
    """Density of each matrix: min(1, e (n_in + n_out) / (n_in n_out)), with e such that the
    expected total is `keep` (Mocanu et al. 2018).

    Where a matrix would be more than dense it is dense, and e is solved for the rest again.
    """
    raw = {n: sum(kept.shape) / kept.numel() for n, kept in mask.items()}
    size = {n: kept.numel() for n, kept in mask.items()}
    dense: set[str] = set()
    while True:
        rest = [n for n in mask if n not in dense]
        left = keep - sum(size[n] for n in dense)
        factor = left / sum(raw[n] * size[n] for n in rest) if rest else 0.0
        full = {n for n in rest if factor * raw[n] > 1}
        if not full:
            return {n: 1.0 if n in dense else factor * raw[n] for n in mask}
        dense |= full


def erdos_renyi(mask: Mask, keep: int, seed: int = 0) -> Mask:
    """Exactly `keep` entries, each matrix at its Erdos-Renyi density and uniform within it.

    The whole numbers nearest to the densities, by the largest remainder.
    """
    wanted = {n: d * mask[n].numel() for n, d in erdos_renyi_densities(mask, keep).items()}
    counts = {n: math.floor(w + 1e-9) for n, w in wanted.items()}
    missing = keep - sum(counts.values())
    by_remainder = sorted(mask, key=lambda n: counts[n] - wanted[n])  # stable: ties in order
    for name in by_remainder[:missing]:
        counts[name] += 1
    generator = np.random.default_rng(seed)
    kept = {}
    for name, tensor in mask.items():
        chosen = torch.zeros(tensor.numel(), dtype=torch.bool)
        chosen[generator.permutation(tensor.numel())[: counts[name]]] = True
        kept[name] = chosen.view(tensor.shape)
    return Mask(kept)
