"""AdapterFusion: adapters of several tasks, frozen, and an attention that mixes what they add."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from .bottleneck import BottleneckAdapter, add_and_norm
from .errors import checked
from .places import Layer, Placed


class FusedAdapters(nn.Module):
    """h -> softmax_i(q(h) . k(a_i)) v(a_i), with a_i = A_i(h) (Pfeiffer et al. 2021, equation 4).

    The adapters A_i are frozen. v starts as the identity, so that the first mixture is one of the
    adapters as they were trained. The paper gives k a bias, which the softmax cancels.
    """

    def __init__(self, width: int, adapters: int, bottleneck: int, activation: str):
        super().__init__()
        made = [BottleneckAdapter(width, bottleneck, activation) for _ in range(adapters)]
        self.fused = nn.ModuleList(made).requires_grad_(False)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to the residual, (B, L, d) from (B, L, d)."""
        added = torch.stack([adapter(hidden) for adapter in self.fused], dim=2)  # (B, L, N, d)
        scores = self.key(added) @ self.query(hidden).unsqueeze(-1)  # (B, L, N, 1)
        return (scores.softmax(dim=2) * self.value(added)).sum(dim=2)


@checked
class Fusion:
    """`adapters` Pfeiffer adapters per layer, frozen, and the layer that mixes them.

    Attached by `checkpoints.fuse`, which fills in the trained adapters. What trains, and what
    can be pruned, are the matrices of query, key and value.

    Attributes:
        adapters: how many.
        bottleneck, activation: of each of them, as for `Pfeiffer`.
        init_std: standard deviation of query and key.
    """

    adapters: Annotated[int, Field(ge=2, le=64)] = 2
    bottleneck: Annotated[int, Field(ge=1, le=8192)] = 64
    activation: Literal["gelu", "relu", "swish"] = "relu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One mixture on the layer's last LayerNorm."""
        fused = FusedAdapters(layer.width, self.adapters, self.bottleneck, self.activation)
        norm = layer.part("ffn_norm")
        yield Placed("fusion", fused, [norm.register_forward_hook(partial(add_and_norm, fused))])
