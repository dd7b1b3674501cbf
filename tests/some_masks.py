"""Masks to test with: from lists of 0 and 1, and of any shape."""

import torch
from hypothesis import strategies as st

from adapter_pruning.masks import Mask


def mask_of(**rows) -> Mask:
    """A mask from lists of 0 and 1."""
    return Mask({name: torch.tensor(row, dtype=torch.bool) for name, row in rows.items()})


@st.composite
def masks(draw, names=("a", "b.weight", "c/é"), least=0) -> Mask:
    """Masks of one to three tensors of up to three dimensions, scalars and single rows too."""
    kept = {}
    for name in names[: draw(st.integers(1, len(names)))]:
        shape = draw(st.lists(st.integers(1, 5), max_size=3))
        size = int(torch.Size(shape).numel())
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        kept[name] = torch.tensor(bits, dtype=torch.bool).view(shape)
    if sum(int(tensor.sum()) for tensor in kept.values()) < least:
        kept[names[0]] = torch.ones_like(kept[names[0]])
    return Mask(kept)
