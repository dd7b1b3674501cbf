"""Where an architecture keeps the parts that the papers touch, and what was put there."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Dotted names, relative to one transformer layer, of its parts.

    `attention_end` and `ffn_end` are the last modules of each sublayer before the residual
    connection and LayerNorm: their output is Houlsby's position.
    """

    query: str
    key: str
    value: str
    attention: str
    attention_output: str
    attention_end: str
    ffn_in: str
    ffn_out: str
    ffn_end: str
    ffn_norm: str
    layers: tuple[str, ...] = ("encoder.layer",)
    has_pooler: bool = False


class Hook(Protocol):
    """Something in the encoder that can be taken out again."""

    def remove(self) -> None:
        """Leave the encoder as it was."""


class Placed(NamedTuple):
    """One adapter of one layer: its name there, its module, and what connects it."""

    name: str
    module: nn.Module
    hooks: list[Hook]
