"""Attention heads and feed-forward columns as units, and the gates that weigh what they give.

A mask over them has the entries `{layer}.heads`, of shape (heads,), and `{layer}.ffn`, of shape
(columns,). transformers 5 has no head mask, and ignores one without a word; the gates are hooks
on what goes into the two output projections.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from .backbones import ARCHITECTURES, Model
from .errors import PruningError, choose
from .masks import Mask, check_fit

OUTPUTS = {"heads": "attention_output", "ffn": "ffn_out"}  # what reads the units' values
Gate = Callable[[str, Tensor], Tensor]  # name, values (B, L, n, size) -> the same, weighed


def units_of(model: Model, kinds: tuple[str, ...] = ("heads", "ffn")) -> Mask:
    """The mask that keeps every unit of the model as it is now.

    Raises:
        PruningError: an unknown kind of unit, or a model that is not an encoder.
    """
    kept = {}
    for name, projection in _projections(model, kinds):
        kept[name] = torch.ones(projection.in_features // _size(model, name), dtype=torch.bool)
    return Mask({name: tensor for name, tensor in kept.items() if len(tensor)})


@contextmanager
def gated(model: Model, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply each unit's values by a number: a gate at 0 is a unit that is not there.

    Args:
        gates: some of the names of `units_of`, each of shape (n,) or (B, n).

    Raises:
        PruningError: names or shapes that the model has not.
    """
    whole = units_of(model)
    for name, gate in gates.items():
        like = {name: gate[0] if gate.dim() == 2 else gate}
        check_fit(like, {n: whole[n] for n in whole if n == name}, "model", noun="gate")

    def weigh(name: str, values: Tensor) -> Tensor:
        gate = gates[name].to(values)
        return values * (gate if gate.dim() == 1 else gate[:, None])[..., None]

    with hooked(model, weigh, list(gates)):
        yield


@contextmanager
def hooked(model: Model, gate: Gate, names: list[str]) -> Iterator[None]:
    """Let a function weigh the values of the named units, in every forward pass."""
    kinds = tuple({name.partition(".")[2] for name in names})
    hooks = [
        projection.register_forward_pre_hook(partial(_weigh, gate, name, _size(model, name)))
        for name, projection in _projections(model, kinds)
        if name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _weigh(gate: Gate, name: str, size: int, projection: nn.Module, args: tuple) -> tuple:
    values = args[0].unflatten(-1, (-1, size))  # (B, L, n, size)
    return (gate(name, values).flatten(-2), *args[1:])


def _projections(model: Model, kinds: tuple[str, ...]) -> Iterator[tuple[str, nn.Linear]]:
    choose("architecture", model.encoder.config.model_type, ARCHITECTURES)
    parts = {kind: OUTPUTS[choose("kind of unit", kind, OUTPUTS)] for kind in kinds}
    for layer in model.layers():
        for kind, part in parts.items():
            yield f"{layer.index}.{kind}", layer.part(part)


def _size(model: Model, name: str) -> int:
    """Numbers that one unit gives for each token."""
    if name.endswith(".ffn"):
        return 1
    config = model.encoder.config
    return config.hidden_size // config.num_attention_heads


def heads_of(scores: Mapping[str, Tensor]) -> Tensor:
    """The scores of all heads as one table, (layers, heads).

    Raises:
        PruningError: no heads, or layers that differ in their number.
    """
    rows = [tensor for name, tensor in scores.items() if name.endswith(".heads")]
    if not rows or len({len(row) for row in rows}) > 1:
        raise PruningError("the importance map needs the same number of heads in every layer")
    return torch.stack(rows)
