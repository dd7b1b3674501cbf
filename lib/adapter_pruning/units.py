"""The units that a ticket search prunes: what they are, how they are scored, what they cover.

Weights, neurons and whole adapters, as in Wu & Chen (2022), section 2.4. A new unit is a `Unit`
of three functions; a new score is `dataclasses.replace(unit, name=..., score=...)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import importance
from .errors import PruningError, choose
from .masks import Mask, check_fit, check_scores

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Unit:
    """One granularity of pruning, with its score.

    Attributes:
        name: what tables and records call it; another score is another name.
        all: parameters -> the mask over units with everything kept.
        score: what ranks the units, after training.
        expand: (mask over units, parameters) -> the mask over weights that training holds.
    """

    name: str
    all: Callable[[Parameters], Mask]
    score: importance.Score
    expand: Callable[[Mask, Parameters], Mask]


def weights(prune_bias: bool = False) -> Unit:
    """Every weight of both matrices is a unit; with `prune_bias`, every bias too (A2)."""
    ending = ("weight", "bias") if prune_bias else ("weight",)

    def every(parameters: Parameters) -> Mask:
        return Mask.ones({name: p for name, p in parameters.items() if name.endswith(ending)})

    name = "weight and bias" if prune_bias else "weight"
    return Unit(name, every, importance.magnitude, lambda mask, parameters: mask)


def _adapters(parameters: Parameters) -> list[str]:
    ending = ".up.weight"
    return [name.removesuffix(ending) for name in parameters if name.endswith(ending)]


def _all_neurons(parameters: Parameters) -> Mask:
    columns = {name: parameters[f"{name}.up.weight"][0] for name in _adapters(parameters)}
    return Mask.ones(columns)  # (m,) each


def _rows_columns_and_biases(mask: Mask, parameters: Parameters) -> Mask:
    """A neuron is a row of the down-projection, its bias, and a column of the up-projection.

    An adapter without neurons loses its output bias too, and so is the identity (A9). LoRA has
    the same rows and columns, and no biases.
    """
    covered = {}
    for name, kept in mask.items():
        parts = {
            "down.weight": kept[:, None],  # (m, d)
            "down.bias": kept,  # (m,)
            "up.weight": kept,  # (d, m)
            "up.bias": kept.any(),  # (d,)
        }
        for part, entries in parts.items():
            if (full := f"{name}.{part}") in parameters:
                covered[full] = entries.expand(parameters[full].shape)
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
    unit.name: unit
    for unit in (
        weights(),
        Unit("neuron", _all_neurons, importance.neuron_norm, _rows_columns_and_biases),
        Unit("adapter", _all_adapters, importance.adapter_norm, _everything_in_it),
    )
}


def get(unit: str | Unit) -> Unit:
    """A unit by its name, or the unit itself.

    Raises:
        PruningError: an unknown name, with the known ones.
    """
    return unit if isinstance(unit, Unit) else UNITS[choose("unit", unit, UNITS)]


def check(unit: Unit, parameters: Parameters) -> None:
    """Try a unit on untrained parameters, so that a wrong one is refused before training.

    Raises:
        PruningError: nothing to prune, scores that are not finite or do not fit the units, or a
            mask over weights that does not fit the model.
    """
    try:
        every = unit.all(parameters)
        if not every.total:
            raise PruningError("it finds nothing to prune")
        check_scores(every, unit.score(parameters, every))
        held = unit.expand(every, parameters)
        check_fit(held, {n: p for n, p in parameters.items() if n in held}, "model")
    except PruningError as error:
        raise PruningError(f"the unit {unit.name!r} does not work here: {error}") from None
