"""The units that a ticket search prunes: what they are, how they are scored, what they cover."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from . import importance
from .masks import Mask

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Unit:
    """One granularity of pruning.

    Attributes:
        all: parameters -> the mask over units with everything kept.
        score: what ranks the units, after training.
        expand: (mask over units, parameters) -> the mask over weights that training holds.
    """

    all: Callable[[Parameters], Mask]
    score: importance.Score
    expand: Callable[[Mask, Parameters], Mask]


def _all_weights(parameters: Parameters) -> Mask:
    # Biases start at 0, so a rewound pruned bias is a kept one; they are not ranked (A2).
    return Mask.ones({name: p for name, p in parameters.items() if name.endswith("weight")})


def _weights_themselves(mask: Mask, parameters: Parameters) -> Mask:
    return mask


UNITS = {"weight": Unit(_all_weights, importance.magnitude, _weights_themselves)}
