"""Houlsby adapters: put them into a frozen encoder, take them out, save and load them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from . import files
from .backbones import Model, thaw
from .errors import PruningError, checked

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "swish": nn.functional.silu,
}
POSITIONS = ("attention", "ffn")


@checked
class Houlsby:
    """Two adapters per layer, after the attention output and after the feed-forward output.

    The configuration of Wu & Chen (2022): exact GELU, no LayerNorm of their own, all encoder
    weights frozen. Houlsby et al. (2019) also train the encoder's LayerNorms; here they are not.

    Attributes:
        bottleneck: units m of each adapter.
        activation: `gelu`, `relu` or `swish`.
        init_std: standard deviation of both matrices; biases start at 0. It must not be 0 for
            the up-projection, or rewinding to the initial values would mean nothing (A8).
    """

    bottleneck: Annotated[int, Field(ge=1, le=8192)] = 64
    activation: Literal["gelu", "relu", "swish"] = "gelu"
    init_std: Annotated[float, Field(gt=0, le=1)] = 0.02


class BottleneckAdapter(nn.Module):
    """h + W_up f(W_down h + b_down) + b_up, for h of shape (B, L, d) (Houlsby et al. 2019)."""

    def __init__(self, width: int, config: Houlsby):
        super().__init__()
        self.down = nn.Linear(width, config.bottleneck)  # weight (m, d)
        self.up = nn.Linear(config.bottleneck, width)  # weight (d, m)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """The same shape out as in."""
        return hidden + self.up(self.activation(self.down(hidden)))


def attach(model: Model, config: Houlsby, *, seed: int = 0) -> Model:
    """Freeze the encoder and put freshly initialised adapters into it, in place.

    Afterwards the adapters and the head train, nothing else. Parameter names are
    `adapters.{layer}.{attention|ffn}.{down|up}.{weight|bias}`. The encoder's own modules stay as
    they are: each adapter hangs on a forward hook of the dropout it follows.

    Raises:
        PruningError: the model already has adapters.
    """
    if model.adapter_config is not None:
        raise PruningError("the model already has adapters; detach them first")
    model.encoder.requires_grad_(False)
    model.adapters, model.hooks = nn.ModuleDict(), []
    for index, layer in enumerate(model.layers()):
        model.adapters[str(index)] = nn.ModuleDict()
        for position in POSITIONS:
            adapter = BottleneckAdapter(model.head.in_features, config).to(model.device)
            model.adapters[str(index)][position] = adapter
            end = layer.get_submodule(getattr(model.architecture, f"{position}_end"))
            # A partial, unlike a closure, follows its adapter through copy.deepcopy.
            model.hooks.append(end.register_forward_hook(partial(_pass_through, adapter)))
    model.adapter_config = config
    init_adapters(model, seed)
    return model


def _pass_through(adapter: nn.Module, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return adapter(output)


def detach(model: Model) -> Model:
    """Take the adapters out, in place; the encoder is bit for bit what was loaded.

    The encoder's weights are trainable again, as after `load_model`; the head stays.

    Raises:
        PruningError: there are no adapters.
    """
    adapter_parameters(model)
    for hook in model.hooks:
        hook.remove()
    del model.adapters, model.hooks
    model.adapter_config = None
    thaw(model)
    return model


def init_adapters(model: Model, seed: int) -> None:
    """Draw every adapter anew: matrices from N(0, init_std), biases 0; the same on any device."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape)
                drawn.normal_(0, model.adapter_config.init_std, generator=generator)
                parameter.copy_(drawn)


def adapter_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Name -> parameter of every adapter, lowest layer first, attention before feed-forward.

    Raises:
        PruningError: there are no adapters.
    """
    if model.adapter_config is None:
        raise PruningError("the model has no adapters; attach some first")
    return {f"adapters.{name}": p for name, p in model.adapters.named_parameters()}


def adapter_share(model: Model) -> float:
    """Percent of (encoder with pooler + adapters) that is adapters, biases counted, head not.

    The denominator of Wu & Chen (2022), Table 2.
    """
    adapters = sum(p.numel() for p in adapter_parameters(model).values())
    return 100 * adapters / (adapters + sum(p.numel() for p in model.encoder.parameters()))


def save_adapters(model: Model, file: str | Path) -> None:
    """Write the adapters and the head to one safetensors file, with what they fit."""
    state = {name: p.detach() for name, p in adapter_parameters(model).items()}
    state |= {f"head.{name}": p.detach() for name, p in model.head.named_parameters()}
    about = {
        "model": model.name,
        "revision": model.revision,
        "adapter": type(model.adapter_config).__name__,
        "config": json.dumps(asdict(model.adapter_config)),
    }
    files.save_tensors(file, state, about)


def load_adapters(model: Model, file: str | Path) -> Model:
    """Attach the adapters of a saved file and take over its head; outputs are bit-equal.

    Raises:
        PruningError: the file is missing or damaged, or does not fit this model.
    """
    state, about = files.load_tensors(file)
    if about.get("adapter") != Houlsby.__name__:
        raise PruningError(f"{str(file)!r} holds no saved adapters")
    if about.get("revision") != model.revision:
        raise PruningError(
            f"{str(file)!r} was trained on {about.get('model')} at {about.get('revision')}, "
            f"and this model is {model.name} at {model.revision}"
        )
    head = {f"head.{name}": p for name, p in model.head.named_parameters()}
    for name, p in head.items():
        if name not in state or state[name].shape != p.shape:
            raise PruningError(f"{str(file)!r} has another head than this model: {name}")
    attach(model, _saved_config(file, about))
    wanted = adapter_parameters(model) | head
    if {n: p.shape for n, p in wanted.items()} != {n: t.shape for n, t in state.items()}:
        detach(model)
        raise PruningError(f"{str(file)!r} does not hold the adapters it describes; save it again")
    model.load_state_dict(state, strict=False)
    return model


def _saved_config(file: str | Path, about: dict[str, str]) -> Houlsby:
    try:
        return Houlsby(**json.loads(about["config"]))
    except (KeyError, ValueError, TypeError) as error:  # a PruningError is a ValueError
        raise PruningError(f"{str(file)!r} describes no adapters this version knows") from error
