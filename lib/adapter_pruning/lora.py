"""LoRA: a low-rank change beside a frozen linear map, which can be merged into it."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from .errors import checked
from .places import Architecture, Placed

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
        rank: r.
        alpha: the change is scaled by alpha / r.
        targets: which maps; SparseAdapter's are query and value.
        init_std: standard deviation of both matrices. Hu et al. start B at 0; then all SNIP
            scores are zero at initialisation, and GraSP's of B, and magnitude prunes all of B.
            The code of SparseAdapter starts both at 0.02, and so do we.
    """

    rank: Annotated[int, Field(ge=1, le=8192)] = 8
    alpha: Annotated[float, Field(gt=0, le=1024)] = 32.0
    targets: tuple[Target, ...] = ("query", "value")
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02

    def place(self, layer: nn.Module, parts: Architecture, width: int) -> Iterator[Placed]:
        """One low-rank change beside each target."""
        for target in self.targets:
            linear = layer.get_submodule(getattr(parts, target))
            change = LowRank(linear, self.rank, self.alpha / self.rank)
            hook = linear.register_forward_hook(partial(_add, change))
            yield Placed(target, change, [hook])


def _add(change: nn.Module, linear: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output + change(args[0])
