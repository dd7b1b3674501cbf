"""Which heads and feed-forward columns stay, given how important they are."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .backbones import Model
from .errors import PruningError
from .gates import OUTPUTS, heads_of, units_of
from .masks import Mask, check_fit, check_scores


def keep_heads(scores: Mapping[str, Tensor], keep: int, at_least: int = 0) -> Mask:
    """The mask of the `keep` heads with the highest scores; ties go to the one that comes first.

    Args:
        scores: name of `gates.units_of` -> (heads,).
        at_least: heads that every layer keeps, its own best, before any others are chosen.

    Raises:
        PruningError: more heads to keep than there are, or none, or fewer than `at_least` of
            every layer makes; scores that are not finite.
    """
    table = heads_of(scores).double()
    layers, heads = table.shape
    if not 1 <= keep <= table.numel():
        raise PruningError(f"cannot keep {keep} of {table.numel()} heads")
    if not 0 <= at_least <= min(heads, keep // layers):
        raise PruningError(
            f"cannot keep at least {at_least} of {heads} heads in each of {layers} layers when "
            f"{keep} are kept in all"
        )
    whole = Mask.ones(scores)
    check_scores(whole, scores)
    safe = table.argsort(dim=1, descending=True, stable=True)[:, :at_least]
    table = table.scatter(1, safe, torch.inf)
    kept = torch.zeros(table.numel(), dtype=torch.bool)
    kept[table.flatten().argsort(descending=True, stable=True)[:keep]] = True
    return Mask(dict(zip(scores, kept.view(layers, heads), strict=True)))


def keep_density(model: Model, scores: Mapping[str, Tensor], density: float) -> Mask:
    """Heads and columns go, the weakest of each kind first, until the layers have this density.

    Density is the share of the transformer layers' parameters that is kept; embeddings, biases
    of outputs and LayerNorms always stay. Both kinds lose the same share. Their scores cannot be
    compared: sizes of gradients are added up, and what a thousand columns do to the loss cancels
    where their sizes do not, so that by score per parameter every head would go first.

    Args:
        scores: of `unit_importance` with both kinds.
        density: in (0, 1]; the result is at most one unit below.

    Raises:
        PruningError: a density out of range or that cutting cannot reach; scores that do not fit.
    """
    if not 0 < density <= 1:
        raise PruningError(f"density is {density}; it must be above 0 and at most 1")
    whole = units_of(model)
    check_fit(scores, whole, "model", noun="importance map")
    check_scores(whole, scores)
    kept = {name: torch.ones(len(score), dtype=torch.bool) for name, score in scores.items()}
    left = sum(p.numel() for layer in model.layers() for p in layer.module.parameters())
    wanted, sizes = density * left, unit_sizes(model)
    queue = _weakest_first(scores)
    while left > wanted + 0.5:  # half a parameter, against rounding
        name, unit = next(queue)
        kept[name][unit] = False
        left -= sizes[name]
        if not any(tensor.any() for tensor in kept.values()):
            raise PruningError(f"density {density} cannot be reached by cutting heads and columns")
    return Mask(kept)


def _weakest_first(scores: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """(name, number) of every unit, by its place among those of its kind, from 0 to 1."""
    places = []
    for kind in OUTPUTS:
        names = [name for name in scores if name.endswith(f".{kind}")]
        every = [(name, unit) for name in names for unit in range(len(scores[name]))]
        order = torch.cat([scores[name] for name in names]).argsort(stable=True).tolist()
        places += [((place + 0.5) / len(order), *every[i]) for place, i in enumerate(order)]
    for _, name, unit in sorted(places, key=lambda entry: entry[0]):
        yield name, unit


def unit_sizes(model: Model) -> dict[str, int]:
    """Parameters that go with one unit: 3 (d d_h + d_h) + d_h d for a head, 2 d + 1 for a column.

    A head of BERT-base has 196,800.
    """
    width = model.width
    head = width // model.encoder.config.num_attention_heads
    sizes = {"heads": 3 * (width * head + head) + head * width, "ffn": 2 * width + 1}
    return {name: sizes[name.partition(".")[2]] for name in units_of(model)}
