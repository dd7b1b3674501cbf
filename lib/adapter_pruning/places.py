"""Where an architecture keeps the parts that the papers touch, and what was put there."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

import torch
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


@dataclass(frozen=True)
class Layer:
    """One transformer layer: its number, from 0 and of `depth`, and its parts by their names."""

    index: int
    depth: int
    module: nn.Module
    architecture: Architecture
    width: int

    def part(self, name: str) -> nn.Module:
        """The module that the architecture calls `name`, such as `query` or `ffn_out`."""
        return self.module.get_submodule(getattr(self.architecture, name))


class Backbone(nn.Module):
    """A pretrained `encoder`, its tokenizer, and where its layers keep their parts.

    `writes` says whether its answers are text. `revision` is of the exact weights. `cut` is the
    mask of heads and feed-forward columns that were left when the others were cut out.
    """

    writes = False

    def __init__(self, encoder: nn.Module, tokenizer, architecture: Architecture, name: str):
        super().__init__()
        self.encoder, self.tokenizer, self.name = encoder, tokenizer, name
        self.architecture = architecture
        self.adapter_config = None
        self.cut = None
        self.revision = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @property
    def width(self) -> int:
        """Hidden size d."""
        return self.encoder.config.hidden_size

    def layers(self) -> Iterator[Layer]:
        """The transformer layers, lowest first, those of an encoder before those of a decoder."""
        stacks = [self.encoder.get_submodule(stack) for stack in self.architecture.layers]
        modules = list(chain(*stacks))
        for index, module in enumerate(modules):
            yield Layer(index, len(modules), module, self.architecture, self.width)


class Hook(Protocol):
    """Something in the encoder that can be taken out again."""

    def remove(self) -> None:
        """Leave the encoder as it was."""


class Placed(NamedTuple):
    """One adapter of one layer: its name there, its module, and what connects it."""

    name: str
    module: nn.Module
    hooks: list[Hook]
