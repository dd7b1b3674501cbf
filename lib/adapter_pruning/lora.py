"""LoRA: a low-rank change beside a frozen linear map, which can be merged into it."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from .errors import PruningError, checked
from .places import Layer, Placed

Rank = Annotated[int, Field(ge=1, le=8192)]
Target = Literal["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]


class LowRank(nn.Module):
    """x -> scale * B A x, for x of shape (B, L, d_in) (Hu et al. 2022, equation 3).

    A is `down.weight` (r, d_in), B is `up.weight` (d_out, r): a bottleneck without biases and
    without a nonlinearity, so that every unit of a bottleneck adapter is one of LoRA too.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float):
        super().__init__()
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to the frozen map's output, (B, L, d_out)."""
        return self.scale * self.up(self.down(hidden))

    def merge_into(self, linear: nn.Linear) -> None:
        """Add the change to the frozen weight, so that nothing is left beside it."""
        with torch.no_grad():
            linear.weight += self.scale * (self.up.weight @ self.down.weight)


@checked
class LoRA:
    """W x + (alpha / r) B A x on chosen linear maps of every layer (Hu et al. 2022).

    Attributes:
        rank: r, or one for each layer, lowest first.
        alpha: the change is scaled by alpha / r.
        scale: replaces alpha / r where it is given: one factor for every rank, so that rank and
            scale do not change together.
        targets: which maps; SparseAdapter's are query and value.
        init_std: standard deviation of both matrices. The code of SparseAdapter starts both at
            0.02, and so do we.
        zero_up: B starts at 0, as Hu et al. have it, so that training starts from the encoder's
            own outputs. Then all SNIP scores are zero at initialisation, and GraSP's of B, and
            magnitude prunes all of B.
    """

    rank: Rank | tuple[Rank, ...] = 8
    alpha: Annotated[float, Field(gt=0, le=1024)] = 32.0
    scale: Annotated[float, Field(gt=0, le=1024)] | None = None
    targets: tuple[Target, ...] = ("query", "value")
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02
    zero_up: bool = False

    def rank_of(self, layer: int) -> int:
        """r of a layer, counted from 0."""
        return self.rank if isinstance(self.rank, int) else self.rank[layer]

    def scale_of(self, layer: int) -> float:
        """Factor on a layer's change."""
        return self.alpha / self.rank_of(layer) if self.scale is None else self.scale

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One low-rank change beside each target.

        Raises:
            PruningError: ranks for another number of layers, or above a map's smaller side.
        """
        if not isinstance(self.rank, int) and len(self.rank) != layer.depth:
            raise PruningError(
                f"there are {len(self.rank)} ranks, and the model has {layer.depth} layers"
            )
        for target in self.targets:
            linear = layer.part(target)
            rank, size = self.rank_of(layer.index), min(linear.weight.shape)
            if not size:  # of a layer without heads
                continue
            if rank > size:
                raise PruningError(
                    f"rank {rank} is above {size}, the smaller side of {target} in layer "
                    f"{layer.index}"
                )
            change = LowRank(linear, rank, self.scale_of(layer.index))
            hook = linear.register_forward_hook(partial(_add, change))
            yield Placed(target, change, [hook])


def _add(change: nn.Module, linear: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output + change(args[0])
