"""Scores with one contract: (parameters, mask) -> name -> tensor shaped like the mask's.

Higher means more important. Scores read the weights as they are: in a ticket search those are
the trained weights of the round, before rewinding.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .masks import Mask

Score = Callable[[Mapping[str, Tensor], Mask], dict[str, Tensor]]


def magnitude(parameters: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """|w| of every weight in the mask (Wu & Chen 2022, section 2.4)."""
    return {name: parameters[name].detach().abs() for name in mask}


def neuron_norm(
    parameters: Mapping[str, Tensor], mask: Mask, outputs: int | None = None
) -> dict[str, Tensor]:
    """L2 norm of each neuron's column of the up-projection (Wu & Chen 2022, section 2.4).

    The mask has an entry (m,) for each adapter, under the adapter's name. The paper sums the
    squares and takes no root, which ranks alike. Its sum has an upper limit N that it does not
    define: a column has one entry per output, and `outputs` takes the first few only (A4).
    """
    return {name: parameters[f"{name}.up.weight"].detach()[:outputs].norm(dim=0) for name in mask}


def adapter_norm(
    parameters: Mapping[str, Tensor], mask: Mask, matrices: Sequence[str] = ("down", "up")
) -> dict[str, Tensor]:
    """Sum of |w| over an adapter's matrices, biases left out (Wu & Chen 2022, section 2.4).

    The mask has an entry (1,) for each adapter, under the adapter's name. The paper's sum runs
    over one matrix and does not say which; here it is both, or those in `matrices` (A3).
    """

    def total(name: str) -> Tensor:
        chosen = [parameters[f"{name}.{matrix}.weight"].detach() for matrix in matrices]
        return sum(weight.abs().sum() for weight in chosen).view(1)

    return {name: total(name) for name in mask}


def random(parameters: Mapping[str, Tensor], mask: Mask, seed: int = 0) -> dict[str, Tensor]:
    """Uniform on (0, 1): the control every other score has to beat."""
    generator = torch.Generator().manual_seed(seed)
    # 1 - u lies in (0, 1], so a score is never all zero.
    return {name: 1 - torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
