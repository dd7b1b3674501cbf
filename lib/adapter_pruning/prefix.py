"""Prefix tuning: trained keys and values in front of those of the text; MAM adds an adapter."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AttentionInterface

from .bottleneck import Parallel
from .errors import checked
from .places import Layer, Placed

ATTENTION = "adapter_pruning_prefix"


class PrefixKeys(nn.Module):
    """Keys and values of l tokens that are not in the text, all heads side by side.

    `key` and `value` have shape (l, d). They are trained directly; Li & Liang (2021) compute them
    with a small network during training, which leaves the same numbers behind.
    """

    def __init__(self, length: int, width: int):
        super().__init__()
        self.key = nn.Parameter(torch.empty(length, width))
        self.value = nn.Parameter(torch.empty(length, width))

    def in_front(self, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple:
        """Keys and values (B, heads, l + L, d / heads), and a mask that sees the prefix."""
        batch, heads, _, size = key.shape

        def each(prefix: Tensor) -> Tensor:
            """(l, d) -> (B, heads, l, d / heads)."""
            return prefix.view(1, -1, heads, size).transpose(1, 2).expand(batch, -1, -1, -1)

        key = torch.cat([each(self.key).to(key), key], dim=2)
        value = torch.cat([each(self.value).to(value), value], dim=2)
        if mask is not None:
            seen = mask.dtype == torch.bool
            mask = nn.functional.pad(mask, (len(self.key), 0), value=seen)
        return key, value, mask


@checked
class Prefix:
    """`length` trained keys and values in the self-attention of every layer (Li & Liang 2021).

    Attributes:
        length: l.
        init_std: standard deviation of keys and values.
    """

    length: Annotated[int, Field(ge=1, le=512)] = 16
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02

    def place(self, layer: Layer) -> Iterator[Placed]:
        """One prefix in the self-attention."""
        width = layer.part("key").out_features  # less than the model's where heads were cut
        if not width:
            return
        prefix = PrefixKeys(self.length, width)
        attention = layer.part("attention")
        yield Placed("prefix", prefix, [_Attached(attention, prefix)])


@checked
class MAM:
    """A prefix in the attention and a parallel adapter beside the feed-forward (He et al. 2022).

    Attributes:
        bottleneck: units of the parallel adapter, and tokens of the prefix: so the matrices of
            both have the same number of parameters, as SparseAdapter splits them.
        activation, init_std, scale: as for `Parallel`.
    """

    bottleneck: Annotated[int, Field(ge=1, le=512)] = 16
    activation: Literal["gelu", "relu", "swish"] = "relu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02
    scale: Annotated[float, Field(gt=0, le=100)] = 4.0

    def place(self, layer: Layer) -> Iterator[Placed]:
        """The one and the other."""
        yield from Prefix(self.bottleneck, self.init_std).place(layer)
        beside = Parallel(self.bottleneck, self.activation, self.init_std, self.scale)
        yield from beside.place(layer)


class _Attached:
    """A prefix on an attention module, until `remove`.

    The module finds its attention function through its configuration, so it gets a copy of its
    own. MPNet has no such way; there the forward pass is ours.
    """

    def __init__(self, attention: nn.Module, prefix: PrefixKeys):
        self.attention, self.config = attention, getattr(attention, "config", None)
        if self.config is None:
            attention.forward = partial(_mpnet, attention, prefix)
            return
        attention.config = copy.copy(self.config)
        attention.config._attn_implementation = ATTENTION
        attention.__dict__["prefix"] = prefix  # not a submodule: the encoder stays what it was

    def remove(self) -> None:
        """Leave the module as it was."""
        if self.config is None:
            del self.attention.forward
            return
        self.attention.config = self.config
        del self.attention.__dict__["prefix"]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **unused,
) -> tuple[Tensor, None]:
    """Attention over prefix and text, as transformers wants it: (B, L, heads, d / heads)."""
    if attention_mask is None and module.is_causal and query.shape[2] > 1:
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = seen.tril(key.shape[2] - query.shape[2])
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(query.dtype)  # bf16 under autocast
    key, value, mask = module.prefix.in_front(key, value, attention_mask)
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attend)


def _mpnet(
    attention: nn.Module,
    prefix: PrefixKeys,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **unused,
) -> tuple[Tensor]:
    """MPNet's self-attention: the relative position bias is 0 for the prefix."""
    shape = (*hidden.shape[:-1], -1, attention.attention_head_size)
    query, key, value = (
        part(hidden).view(shape).transpose(1, 2) for part in (attention.q, attention.k, attention.v)
    )
    if position_bias is not None:
        attention_mask = position_bias + (0 if attention_mask is None else attention_mask)
    key, value, bias = prefix.in_front(key, value, attention_mask)
    scores = query @ key.transpose(-1, -2) / math.sqrt(attention.attention_head_size)
    shares = attention.dropout((scores if bias is None else scores + bias).softmax(-1))
    return (attention.o((shares @ value).transpose(1, 2).flatten(2)),)
