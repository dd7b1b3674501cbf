"""Make it real: cut heads and feed-forward columns out, so that the smaller model runs faster."""

import warnings
from functools import partial

from torch import Tensor, nn

from .backbones import Model
from .errors import PruningError
from .gates import units_of
from .masks import Mask, check_fit
from .places import Layer


def cut(model: Model, keep: Mask) -> Model:
    """Remove the heads and feed-forward columns that the mask prunes, in place and for good.

    A head has rows of the query, key and value matrices with their biases, and columns of the
    output projection; a feed-forward unit has a row and a bias of the first matrix and a column
    of the second. What is left gives the outputs of the whole model with those gates at 0. A layer
    that loses all its heads keeps the bias of its output projection.

    Args:
        keep: entries of `gates.units_of`, all of them or only those that are to be cut.

    Raises:
        PruningError: the model has adapters (LoRA beside a matrix that is cut would be lost), or
            was cut before, or has not what the mask says.
    """
    if model.adapter_config is not None:
        raise PruningError(
            "the model has adapters, and those beside a matrix that is cut would be lost; cut "
            "first, then attach"
        )
    if model.cut is not None:
        raise PruningError("the model was cut before; load it anew and cut all at once")
    whole = units_of(model)
    check_fit(keep, {name: whole[name] for name in keep if name in whole}, "model")
    left = Mask({**whole, **keep})
    for layer in model.layers():
        if (heads := keep.get(f"{layer.index}.heads")) is not None and not heads.all():
            _cut_heads(layer, heads.to(model.device))
        if (columns := keep.get(f"{layer.index}.ffn")) is not None and not columns.all():
            _slice(layer.part("ffn_in"), columns.to(model.device), 0)
            _slice(layer.part("ffn_out"), columns.to(model.device), 1)
    model.cut = left
    return model


def _cut_heads(layer: Layer, heads: Tensor) -> None:
    size = layer.part("query").out_features // len(heads)
    rows = heads.repeat_interleave(size)
    for name in ("query", "key", "value"):
        _slice(layer.part(name), rows, 0)
    _slice(layer.part("attention_output"), rows, 1)
    attention = layer.part("attention")
    attention.num_attention_heads = int(heads.sum())
    attention.all_head_size = int(rows.sum())
    if not heads.any():
        warnings.warn(
            f"layer {layer.index} loses all its heads; of its attention the output bias is left",
            stacklevel=3,
        )
        attention.forward = partial(_no_heads, attention)
    elif not hasattr(attention, "config"):  # MPNet hands every layer one bias for each head
        # A buffer follows the model to another device; this one is not among what is saved.
        attention.register_buffer("heads_left", heads.nonzero().squeeze(1), persistent=False)
        attention.register_forward_pre_hook(_own_bias)


def _slice(linear: nn.Linear, keep: Tensor, dim: int) -> None:
    """Keep rows (dim 0: outputs, with their biases) or columns (dim 1: inputs)."""
    chosen = keep.nonzero().squeeze(1)
    linear.weight = _parameter(linear.weight, chosen, dim)
    if dim == 0:
        linear.bias = _parameter(linear.bias, chosen, 0)
        linear.out_features = len(chosen)
    else:
        linear.in_features = len(chosen)


def _parameter(old: nn.Parameter, chosen: Tensor, dim: int) -> nn.Parameter:
    return nn.Parameter(old.detach().index_select(dim, chosen), old.requires_grad)


def _no_heads(attention: nn.Module, hidden: Tensor, *unused: object, **also: object) -> tuple:
    nothing = hidden.new_zeros(*hidden.shape[:-1], 0)
    if hasattr(attention, "config"):
        return nothing, None
    return (attention.o(nothing),)  # MPNet's attention has its output projection inside


def _own_bias(attention: nn.Module, args: tuple) -> tuple:
    """MPNet's relative position bias (B, heads, L, L), of the heads that are left."""
    hidden, mask, bias = args[:3]
    left = bias.index_select(1, attention.heads_left) if bias is not None else None
    return hidden, mask, left, *args[3:]
