"""The units that a ticket search prunes: what they are, how they are scored, what they cover.

Weights, neurons and whole adapters, as in Wu & Chen (2022), section 2.4. A new unit is three
functions and a line in `UNITS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
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


def _adapters(parameters: Parameters) -> list[str]:
    ending = ".up.weight"
    return [name.removesuffix(ending) for name in parameters if name.endswith(ending)]


def _all_neurons(parameters: Parameters) -> Mask:
    return Mask.ones({name: parameters[f"{name}.down.bias"] for name in _adapters(parameters)})


def _rows_columns_and_biases(mask: Mask, parameters: Parameters) -> Mask:
    """A neuron is a row of the down-projection, its bias, and a column of the up-projection."""
    covered = {}
    for name, kept in mask.items():
        down, up = parameters[f"{name}.down.weight"], parameters[f"{name}.up.weight"]
        covered[f"{name}.down.weight"] = kept[:, None].expand(down.shape)  # (m, d)
        covered[f"{name}.down.bias"] = kept  # (m,)
        covered[f"{name}.up.weight"] = kept.expand(up.shape)  # (d, m)
    return Mask(covered)


def _all_adapters(parameters: Parameters) -> Mask:
    return Mask.ones({name: torch.empty(1) for name in _adapters(parameters)})


def _everything_in_it(mask: Mask, parameters: Parameters) -> Mask:
    """Without all of its parameters an adapter is the identity: only the residual is left."""
    return Mask(
        {
            name: mask[name.rsplit(".", 2)[0]].expand(p.shape)
            for name, p in parameters.items()
            if name.rsplit(".", 2)[0] in mask
        }
    )


UNITS = {
    "weight": Unit(_all_weights, importance.magnitude, lambda mask, parameters: mask),
    "neuron": Unit(_all_neurons, importance.neuron_norm, _rows_columns_and_biases),
    "adapter": Unit(_all_adapters, importance.adapter_norm, _everything_in_it),
}
