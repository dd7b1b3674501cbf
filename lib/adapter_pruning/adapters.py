"""Adapters of any kind: put them into a frozen encoder, take them out, merge them."""

import torch
from torch import nn

from .backbones import Model, thaw
from .bottleneck import Houlsby, Parallel, Pfeiffer
from .errors import PruningError
from .fusion import FusedAdapters, Fusion
from .lora import LoRA
from .prefix import MAM, Prefix

KINDS = {kind.__name__: kind for kind in (Houlsby, Pfeiffer, Parallel, LoRA, Prefix, MAM, Fusion)}
AdapterConfig = Houlsby | Pfeiffer | Parallel | LoRA | Prefix | MAM | Fusion


def attach(model: Model, config: AdapterConfig, *, seed: int = 0) -> Model:
    """Freeze the encoder and put freshly initialised adapters into it, in place.

    Afterwards the adapters and the head train, nothing else. Parameter names are
    `adapters.{layer}.{place}.{down|up}.{weight|bias}`, and `.{key|value}` for a prefix. The
    encoder's own modules stay as they are: adapters hang on hooks.

    Raises:
        PruningError: the model already has adapters, or these do not fit it.
    """
    if model.adapter_config is not None:
        raise PruningError("the model already has adapters; detach them first")
    model.encoder.requires_grad_(False)
    model.adapters, model.hooks = nn.ModuleDict(), []
    try:
        for layer in model.layers():
            placed = model.adapters[str(layer.index)] = nn.ModuleDict()
            for name, adapter, hooks in config.place(layer):
                placed[name] = adapter.to(model.device)
                model.hooks += hooks
    except PruningError:
        _take_out(model)
        raise
    model.adapter_config = config
    init_adapters(model, seed)
    return model


def detach(model: Model) -> Model:
    """Take the adapters out, in place; the encoder is bit for bit what was loaded.

    The encoder's weights are trainable again, as after `load_model`; the head stays.

    Raises:
        PruningError: there are no adapters.
    """
    adapter_parameters(model)
    _take_out(model)
    return model


def _take_out(model: Model) -> None:
    for hook in model.hooks:
        hook.remove()
    del model.adapters, model.hooks
    model.adapter_config = None
    thaw(model)


def init_adapters(model: Model, seed: int) -> None:
    """Draw every adapter anew: matrices from N(0, init_std), biases 0; the same on any device.

    The value matrix of a fusion is the identity, and B of LoRA with `zero_up` is 0.
    """
    zero_up = getattr(model.adapter_config, "zero_up", False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if name.endswith("bias") or (zero_up and name.endswith("up.weight")):
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape)
                drawn.normal_(0, model.adapter_config.init_std, generator=generator)
                parameter.copy_(drawn)
        for module in model.adapters.modules():
            if isinstance(module, FusedAdapters):
                nn.init.eye_(module.value.weight)


def adapter_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Name -> parameter of every adapter, lowest layer first, attention before feed-forward.

    Of a fusion those that train; the adapters it mixes are not among them.

    Raises:
        PruningError: there are no adapters.
    """
    if model.adapter_config is None:
        raise PruningError("the model has no adapters; attach some first")
    parameters = model.adapters.named_parameters(prefix="adapters")
    return {name: p for name, p in parameters if p.requires_grad}


def adapter_share(model: Model) -> float:
    """Percent of (encoder with pooler + adapters) that is adapters, biases counted, head not.

    The denominator of Wu & Chen (2022), Table 2.
    """
    adapters = sum(p.numel() for p in adapter_parameters(model).values())
    return 100 * adapters / (adapters + sum(p.numel() for p in model.encoder.parameters()))


def merge(model: Model) -> Model:
    """Add every low-rank change to the weight it stands beside, and take the adapters out.

    Outputs stay what they were, up to rounding, at the encoder's own speed.

    Raises:
        PruningError: there are no adapters, or they are of a kind that is not a linear map.
    """
    adapter_parameters(model)
    if not isinstance(model.adapter_config, LoRA):
        kind = type(model.adapter_config).__name__
        raise PruningError(f"{kind} adapters cannot be merged into the weights; only LoRA can")
    for layer in model.layers():
        for target, change in model.adapters[str(layer.index)].items():
            change.merge_into(layer.part(target))
    return detach(model)
