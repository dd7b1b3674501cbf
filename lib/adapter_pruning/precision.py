"""Compute in bfloat16 where the hardware does, without casting frozen weights at every step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def dtype(device: torch.device, precision: str) -> torch.dtype:
    """What `bf16`, `fp32` or `auto` means on a device; `auto` is bf16 where it is native."""
    if precision == "auto":
        native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        precision = "bf16" if native else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs."""
    chosen = dtype(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=chosen != torch.float32)


@contextmanager
def frozen_cast(model: nn.Module, device: torch.device, precision: str) -> Iterator[None]:
    """Hold the frozen linear layers in the precision of the forward pass; give them back after.

    Autocast would cast them to the same values at every step, which takes a tenth of a training
    step on a CPU and more of an evaluation. Outside of autocast the model cannot be called here.
    """
    chosen = dtype(device, precision)
    held = [] if chosen == torch.float32 else _frozen_linear(model)
    whole = [parameter.data for parameter in held]
    try:
        for parameter in held:
            parameter.data = parameter.data.to(chosen)
        yield
    finally:
        for parameter, data in zip(held, whole, strict=True):
            parameter.data = data


def _frozen_linear(model: nn.Module) -> list[nn.Parameter]:
    """Frozen parameters that only linear layers read; autocast leaves an embedding as it is."""
    linear, elsewhere = {}, set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Linear):
                linear[id(parameter)] = parameter
            else:
                elsewhere.add(id(parameter))
    return [p for i, p in linear.items() if i not in elsewhere and not p.requires_grad]
