"""Scores with one contract: (parameters, mask) -> name -> tensor shaped like the mask's.

Higher means more important. Scores read the weights as they are: in a ticket search those are
the trained weights of the round, before rewinding.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .masks import Mask

Score = Callable[[Mapping[str, Tensor], Mask], dict[str, Tensor]]


def magnitude(parameters: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """|w| of every weight in the mask (Wu & Chen 2022, section 2.4)."""
    return {name: parameters[name].detach().abs() for name in mask}


def neuron_norm(parameters: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """L2 norm of each neuron's column of the up-projection (Wu & Chen 2022, section 2.4).

    The mask has an entry (m,) for each adapter, under the adapter's name. The paper sums the
    squares and takes no root, which ranks alike; the column has one entry per output (A4).
    """
    return {name: parameters[f"{name}.up.weight"].detach().norm(dim=0) for name in mask}


def adapter_norm(parameters: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Sum of |w| over both matrices of an adapter, biases left out (section 2.4; A3).

    The mask has an entry (1,) for each adapter, under the adapter's name.
    """
    both = ("down.weight", "up.weight")
    return {
        name: sum(parameters[f"{name}.{matrix}"].detach().abs().sum() for matrix in both).view(1)
        for name in mask
    }


def random(parameters: Mapping[str, Tensor], mask: Mask, seed: int = 0) -> dict[str, Tensor]:
    """Uniform on (0, 1): the control every other score has to beat."""
    generator = torch.Generator().manual_seed(seed)
    # 1 - u lies in (0, 1], so a score is never all zero.
    return {name: 1 - torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
