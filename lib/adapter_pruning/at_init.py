"""Prune once, before any training: He et al. (2022), SparseAdapter."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import files, importance
from .adapters import adapter_parameters
from .backbones import Model
from .errors import PruningError, choose
from .masks import Mask, prune_to
from .records import RecordStore, digest
from .sensitivity import grasp, snip
from .tasks import Task
from .training import TrainConfig
from .trials import identity, run_once
from .units import UNITS

CRITERIA = ("random", "magnitude", "erdos_renyi", "snip", "grasp")
SAMPLED = ("snip", "grasp")  # look at the loss of training rows
SCOPES = ("global", "matrix")


def prune_at_init(
    model: Model,
    task: Task,
    criterion: str,
    sparsity: float,
    *,
    scope: str = "global",
    seed: int = 0,
    scores: Mapping[str, Tensor] | None = None,
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
        scores: of this criterion, where they are known already.
        sample: for SNIP and GraSP, as in `sensitivity.sample_losses`.

    Raises:
        PruningError: unknown criterion or scope, a sparsity out of range or that leaves nothing,
            scores that are all zero or not finite, adapters without matrices.
    """
    choose("criterion", criterion, CRITERIA)
    choose("scope", scope, SCOPES)
    if isinstance(sparsity, bool) or not 0 <= sparsity < 1:
        raise PruningError(f"sparsity is {sparsity}; it must be at least 0 and below 1")
    every = _matrices(model)
    if criterion == "erdos_renyi":
        return erdos_renyi(every, kept_of(every.total, sparsity), seed)
    if scores is None:
        scores = _scores(criterion)(model, task, every, seed, sample)
    if scope == "global":
        return prune_to(every, scores, kept_of(every.total, sparsity))
    parts = [
        prune_to(Mask({name: kept}), {name: scores[name]}, kept_of(kept.numel(), sparsity))
        for name, kept in every.items()
    ]
    return Mask({name: kept for part in parts for name, kept in part.items()})


def run_sparse(
    store: RecordStore,
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    criterion: str,
    sparsity: float,
    seed: int,
    scope: str = "global",
    detail: Mapping | None = None,
    profile: str = "",
    progress: bool = True,
    **sample: int,
) -> dict:
    """Prune the fresh model, train what is left; its record, from the store where it is there.

    The scores of SNIP and GraSP take as long as a training; the store keeps them, so that every
    sparsity and every later call has them for nothing.

    Args:
        detail: further facts for the record.
        sample: as in `sensitivity.sample_losses`.
    """
    sample = {"max_length": config.max_length} | sample
    scores = None
    if criterion in SAMPLED:
        about = [identity(model, task, config, seed), criterion, sample]
        file = store.folder / "scores" / f"{digest(about)}.safetensors"
        scores = _stored_scores(file, model, task, criterion, seed, sample)
    options = {"scope": scope, "seed": seed, "scores": scores}
    mask = prune_at_init(model, task, criterion, sparsity, **options, **sample)
    about = {"criterion": criterion, "sparsity": sparsity, "scope": scope}
    return run_once(
        store,
        model,
        task,
        config,
        seed=seed,
        method=f"{criterion} at initialisation",
        mask=mask,
        detail=about | {"density_by_matrix": mask.densities()} | dict(detail or {}),
        profile=profile,
        progress=progress,
    )


def _stored_scores(
    file: Path, model: Model, task: Task, criterion: str, seed: int, sample: dict
) -> Mapping[str, Tensor]:
    if file.exists():
        return files.load_tensors(file)[0]
    scores = _scores(criterion)(model, task, _matrices(model), seed, sample)
    files.save_tensors(file, scores, {})
    return scores


def _matrices(model: Model) -> Mask:
    """The mask that keeps all that can be pruned (C4)."""
    parameters = adapter_parameters(model)
    if not any(name.endswith("weight") for name in parameters):
        kind = type(model.adapter_config).__name__
        raise PruningError(f"{kind} has no matrices that are pruned at initialisation")
    return UNITS["weight"].all(parameters)


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
