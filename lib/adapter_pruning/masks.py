"""A mask says which entries are kept. It is immutable, checked when made, and knows its density.

Density is the share that is kept, sparsity the share that is gone. Labels such as A7, here and in
other modules, are the open points of Wu & Chen (2022) in book/paper_lottery_tickets.md.
"""

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from . import files
from .errors import PruningError, choose

SCOPES = ("global", "tensor")


class Mask(Mapping[str, Tensor]):
    """Name -> bool tensor, True where the entry is kept.

    Names are parameter names for a mask over weights, or unit names (an adapter's neurons, the
    adapters themselves) for a mask over units. Tensors live on the CPU.

    Raises:
        PruningError: empty, or an entry that is not a bool tensor.
    """

    def __init__(self, kept: Mapping[str, Tensor]):
        if not kept:
            raise PruningError("nothing to prune: a mask needs at least one tensor")
        for name, tensor in kept.items():
            if not isinstance(tensor, Tensor) or tensor.dtype != torch.bool:
                raise PruningError(f"mask entry {name!r} is not a bool tensor")
        self._kept = {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}

    @classmethod
    def ones(cls, like: Mapping[str, Tensor]) -> "Mask":
        """Everything kept, in the shapes of `like`."""
        return cls({k: torch.ones(v.shape, dtype=torch.bool) for k, v in like.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name].clone()  # a tensor cannot be frozen, so nobody gets the mask's own

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Mask)
            and list(self) == list(other)
            and all(torch.equal(self[name], other[name]) for name in self)
        )

    __hash__ = None

    @property
    def total(self) -> int:
        """Number of entries, kept or not."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def kept(self) -> int:
        """Number of entries that are kept."""
        return sum(int(tensor.sum()) for tensor in self.values())

    @property
    def density(self) -> float:
        """Share that is kept, in [0, 1]."""
        return self.kept / self.total

    def densities(self) -> dict[str, float]:
        """Share that is kept in each tensor."""
        return {name: tensor.float().mean().item() for name, tensor in self.items()}

    def _combine(self, other: "Mask", operation) -> "Mask":
        check_fit(other, self, "mask")
        return Mask({name: operation(self[name], other[name]) for name in self})

    def __and__(self, other: "Mask") -> "Mask":
        return self._combine(other, torch.logical_and)

    def __or__(self, other: "Mask") -> "Mask":
        return self._combine(other, torch.logical_or)

    def __invert__(self) -> "Mask":
        return Mask({name: ~tensor for name, tensor in self.items()})


def check_fit(
    mask: Mapping[str, Tensor], target: Mapping[str, Tensor], what: str, noun: str = "mask"
) -> None:
    """Raise PruningError, naming the first offender, unless names and shapes are the same."""
    if strangers := [name for name in mask if name not in target]:
        raise PruningError(f"the {noun} has {strangers[0]!r}, which the {what} has not")
    if absent := [name for name in target if name not in mask]:
        raise PruningError(f"the {what} has {absent[0]!r}, which the {noun} has not")
    for name, tensor in mask.items():
        if tensor.shape != target[name].shape:
            raise PruningError(
                f"{noun} entry {name!r} has shape {tuple(tensor.shape)}, "
                f"the {what} has {tuple(target[name].shape)}"
            )


def survivors_to_drop(survivors: int, drop: float) -> int:
    """floor(drop * survivors), in exact arithmetic (Wu & Chen 2022, as their files show)."""
    # 0.29 * 100 is 28.999... in floating point; the decimal that was written is what is meant.
    return math.floor(Fraction(str(drop)) * survivors)


def schedule(units: int, rounds: int, drop: float = 0.2) -> list[int]:
    """Units left after 0, 1, 2, ... prunings; it ends early where there is nothing to drop.

    Wu & Chen (2022): 24 adapters give 24 20 16 13 11 9 8 7 6 5 4.

    Raises:
        PruningError: a drop of all (which would empty the model) or more, or of none.
    """
    if not isinstance(drop, float) or not 0 < drop < 1:
        raise PruningError(
            f"drop is {drop!r}; it must be a number above 0 and below 1 (which empties the model)"
        )
    left = [units]
    while len(left) <= rounds and (dropped := survivors_to_drop(left[-1], drop)):
        left.append(left[-1] - dropped)
    return left


def prune(mask: Mask, scores: Mapping[str, Tensor], fraction: float, scope: str = "global") -> Mask:
    """Drop floor(fraction * n) of the n survivors with the lowest scores; a new mask.

    Ties fall to the entry that comes first, in the mask's order (A7).

    Args:
        mask: what is kept now.
        scores: the mask's names and shapes; higher is more important.
        fraction: share of the survivors to drop, in [0, 1).
        scope: `global` ranks all survivors together, `tensor` within each tensor.

    Raises:
        PruningError: fraction out of range, scores that do not fit, are not finite, or are all
            zero (a zero-initialised up-projection gives no ranking at all).
    """
    if not 0 <= fraction < 1:
        raise PruningError(f"fraction is {fraction}; it must be at least 0 and below 1")
    choose("scope", scope, SCOPES)
    check_scores(mask, scores)
    _check_any(mask, scores)
    groups = [list(mask)] if scope == "global" else [[name] for name in mask]
    kept = {name: tensor.clone() for name, tensor in mask.items()}
    for names in groups:
        survivors = sum(int(mask[name].sum()) for name in names)
        _drop_lowest(kept, names, scores, survivors_to_drop(survivors, fraction))
    return Mask(kept)


def prune_to(mask: Mask, scores: Mapping[str, Tensor], keep: int) -> Mask:
    """Drop the lowest of all survivors together until `keep` are left; a new mask.

    Raises:
        PruningError: more to keep than there are, or none; scores as in `prune`.
    """
    if not 1 <= keep <= mask.kept:
        raise PruningError(f"cannot keep {keep} of {mask.kept} survivors")
    check_scores(mask, scores)
    _check_any(mask, scores)
    kept = {name: tensor.clone() for name, tensor in mask.items()}
    _drop_lowest(kept, list(mask), scores, mask.kept - keep)
    return Mask(kept)


def check_scores(mask: Mask, scores: Mapping[str, Tensor]) -> None:
    """Raise PruningError unless scores fit the mask and are finite where it keeps."""
    check_fit(scores, mask, "mask", noun="score")
    for name, tensor in scores.items():
        if not torch.isfinite(tensor.cpu()[mask[name]]).all():
            raise PruningError(f"the scores of {name!r} are not all finite")


def _check_any(mask: Mask, scores: Mapping[str, Tensor]) -> None:
    if not any(scores[name].cpu()[mask[name]].any() for name in mask):
        raise PruningError(
            "all scores are zero, so nothing ranks the survivors; are the up-projections "
            "initialised to zero, or was the model never trained?"
        )


def _drop_lowest(
    kept: dict[str, Tensor], names: list[str], scores: Mapping[str, Tensor], count: int
) -> None:
    flat = torch.cat([kept[name].flatten() for name in names])
    alive = flat.nonzero().squeeze(1)
    score = torch.cat([scores[name].detach().cpu().double().flatten() for name in names])[alive]
    order = torch.argsort(score, stable=True)
    flat[alive[order[:count]]] = False
    for name, part in zip(names, flat.split([kept[name].numel() for name in names]), strict=True):
        kept[name] = part.view(kept[name].shape)


def random_mask(like: Mask, keep: int, seed: int) -> Mask:
    """Keep `keep` entries of `like`'s shapes, drawn uniformly over all of them."""
    if not 1 <= keep <= like.total:
        raise PruningError(f"cannot keep {keep} of {like.total} entries")
    flat = torch.zeros(like.total, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    flat[torch.randperm(like.total, generator=generator)[:keep]] = True
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return Mask({n: part.view(like[n].shape) for n, part in zip(like, parts, strict=True)})


def hold(
    parameters: Mapping[str, nn.Parameter],
    mask: Mask,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[RemovableHandle]:
    """Make the mask true of the parameters, now and after every later optimizer step.

    Pruned entries are set to 0 and their gradients cut; what the optimizer has already
    accumulated for them (momentum, second moments) is cleared. A zero weight with zero gradient
    and zero state stays exactly 0 under SGD, Adam and AdamW, weight decay included.

    Returns:
        The gradient hooks; `remove()` each to let go.

    Raises:
        PruningError: names or shapes that do not fit.
    """
    for name in mask:
        if name not in parameters:
            raise PruningError(f"the mask has {name!r}, which the model has not")
    check_fit(mask, {name: parameters[name] for name in mask}, "model")
    handles = []
    for name, kept in mask.items():
        parameter = parameters[name]
        gone = ~kept.to(parameter.device)
        with torch.no_grad():
            parameter.masked_fill_(gone, 0)
            if parameter.grad is not None:  # a gradient that waits for the next step
                parameter.grad.masked_fill_(gone, 0)
        for value in optimizer.state.get(parameter, {}).values() if optimizer else ():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.masked_fill_(gone, 0)
        handles.append(parameter.register_hook(partial(_cut, gone)))
    return handles


def _cut(gone: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(gone, 0)


def save_mask(mask: Mask, file: str | Path) -> None:
    """Write a mask as one bit an entry."""
    files.save_tensors(file, pack(mask), {"kind": "mask", **shapes(mask)})


def load_mask(file: str | Path) -> Mask:
    """Read what `save_mask` wrote.

    Raises:
        PruningError: the file is missing or damaged, or is no mask.
    """
    packed, about = files.load_tensors(file)
    if about.pop("kind", None) != "mask":
        raise PruningError(f"{str(file)!r} is not a mask file")
    try:
        return unpack(packed, about)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PruningError(
            f"the mask file {str(file)!r} is damaged ({type(error).__name__}); save the mask again"
        ) from error


def pack(mask: Mask) -> dict[str, Tensor]:
    """Name -> uint8 tensor with eight entries a byte."""
    return {n: torch.from_numpy(np.packbits(kept.numpy())) for n, kept in mask.items()}


def shapes(mask: Mask) -> dict[str, str]:
    """Name -> JSON of the tensor's shape, in the mask's order: what `unpack` needs beside bits."""
    return {"shapes": json.dumps({name: list(kept.shape) for name, kept in mask.items()})}


def unpack(packed: Mapping[str, Tensor], about: Mapping[str, str]) -> Mask:
    """The mask that `pack` and `shapes` describe.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: they do not describe one.
    """
    kept = {}
    for name, shape in json.loads(about["shapes"]).items():
        size, octets = math.prod(shape), packed[name].numpy()
        if octets.shape != (math.ceil(size / 8),):  # unpackbits would pad or cut without a word
            raise ValueError(f"{name!r} has {octets.size} bytes for a mask of shape {shape}")
        bits = np.unpackbits(octets, count=size)
        kept[name] = torch.from_numpy(bits.astype(bool)).view(shape)
    return Mask(kept)
