"""Prune-LoRA: cut the weak heads, then give LoRA a higher rank where heads matter.

Wang et al. (2023); labels such as B5 are the open points in book/paper_pruning_adapter.md.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from .adapters import attach
from .backbones import Model
from .errors import checked
from .gates import heads_of, units_of
from .head_importance import Form, Norm, normalise, ranks
from .lora import LoRA, Rank, Target
from .masks import Mask, check_fit
from .structure import keep_heads
from .surgery import cut

ATTENTION = ("query", "key", "value", "attention_output")
HEADS = 144  # BERT-base's, which the paper counts on


@checked
class Recipe:
    """One reading of the paper; `RECIPES` has the three that the book compares.

    Attributes:
        kept: heads that stay, of 144; of a model with another number the same share, rounded up.
        rows: training rows that score the heads (B4).
        trained_head: the task head is trained for one pass before the heads are scored (B4).
        form, norm: as for `unit_importance` and `normalise` (B2, B3).
        layer_score: what makes a layer important: the mean over its heads of the `normalised` or
            of the `raw` scores, or a low sum of their `ranks` (B5).
        high, low: LoRA's rank in the most important third of the layers, and in the others.
        by_substring: high ranks are given as in the released code, where the name of layer 1 is
            found in those of layers 10 and 11 too.
        targets: which matrices have LoRA (B6).
        alpha, scale: as for `LoRA` (B8).
        train_head: the task head trains with LoRA; else it stays as it was drawn (B7).
    """

    kept: Annotated[int, Field(ge=1, le=HEADS)] = 100
    rows: Annotated[int, Field(ge=1)] = 256
    trained_head: bool = False
    form: Form = "example"
    norm: Norm = "layer"
    layer_score: Literal["normalised", "raw", "ranks"] = "normalised"
    high: Rank = 8
    low: Rank = 4
    by_substring: bool = False
    targets: tuple[Target, ...] = ATTENTION
    alpha: Annotated[float, Field(gt=0)] = 1.0
    scale: Annotated[float, Field(gt=0)] | None = 1.0
    train_head: bool = False

    def lora(self, rank: int | tuple[int, ...]) -> LoRA:
        """LoRA as the recipe has it; B starts at 0 and A is drawn small, as in the code."""
        how = {"alpha": self.alpha, "scale": self.scale, "targets": self.targets}
        return LoRA(rank=rank, init_std=0.01, zero_up=True, **how)


RECIPES = {
    "as_written": Recipe(),
    "as_released": Recipe(
        kept=101,
        rows=3,
        layer_score="ranks",
        by_substring=True,
        targets=ATTENTION[:3],
        scale=None,
    ),
    # alpha 16 at the lower rank, and the same factor at the higher one.
    "fixed": Recipe(trained_head=True, layer_score="raw", scale=4.0, train_head=True),
}


class Plan(NamedTuple):
    """What becomes of a model: the heads that stay, and LoRA's rank in each layer."""

    heads: Mask
    ranks: tuple[int, ...]


def plan(recipe: Recipe, scores: Mapping[str, Tensor], at_least: int = 0) -> Plan:
    """What the recipe makes of the heads' scores.

    Args:
        scores: of `unit_importance`, for heads only, not normalised.
        at_least: heads that every layer keeps.

    Raises:
        PruningError: scores that are no map of heads, or all equal.
    """
    normal = normalise(scores, recipe.norm)
    keep = -(-recipe.kept * heads_of(scores).numel() // HEADS)
    return Plan(keep_heads(normal, keep, at_least), layer_ranks(recipe, scores))


def layer_ranks(recipe: Recipe, scores: Mapping[str, Tensor]) -> tuple[int, ...]:
    """LoRA's rank in each layer; ties for the high rank go to the lower layer."""
    important = {
        "normalised": lambda: heads_of(normalise(scores, recipe.norm)).mean(1),
        "raw": lambda: heads_of(scores).mean(1),
        "ranks": lambda: -heads_of(ranks(normalise(scores, recipe.norm))).sum(1),
    }[recipe.layer_score]()
    order = important.argsort(descending=True, stable=True).tolist()
    best = order[: len(order) // 3]

    def is_high(layer: int) -> bool:
        if recipe.by_substring:
            return any(f"encoder.layer.{one}" in f"encoder.layer.{layer}" for one in best)
        return layer in best

    return tuple(recipe.high if is_high(layer) else recipe.low for layer in range(len(order)))


def prune_lora(model: Model, recipe: Recipe, made: Plan, *, seed: int = 0) -> Model:
    """Cut the heads, attach LoRA, and let train what trains in the recipe, in place.

    That is LoRA and the encoder's LayerNorms, and the head where the recipe says so.

    Raises:
        PruningError: a plan for another model, or as `cut` and `attach`.
    """
    check_fit(made.heads, units_of(model, ("heads",)), "model", noun="importance map")
    cut(model, made.heads)
    return add_lora(model, recipe, made.ranks, seed=seed)


def add_lora(model: Model, recipe: Recipe, rank: int | tuple[int, ...], *, seed: int = 0) -> Model:
    """LoRA of a rank, or of one for each layer, with what trains in the recipe beside it."""
    attach(model, recipe.lora(rank), seed=seed)
    for module in model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    model.head.requires_grad_(recipe.train_head)
    return model


def uniform_rank(made: Plan) -> int:
    """The one rank at which LoRA on the four matrices of the cut layers is nearest in size.

    A layer's LoRA has r (d + d_h h) parameters a matrix, with h heads left of H and d = d_h H;
    the share of d_h cancels.
    """
    table = heads_of(made.heads)
    weights = table.shape[1] + table.sum(1)
    size = sum(r * int(w) for r, w in zip(made.ranks, weights, strict=True))
    return max(1, round(size / int(weights.sum())))
