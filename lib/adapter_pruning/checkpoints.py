"""Adapters and their head in one safetensors file, and back."""

import json
from dataclasses import asdict
from pathlib import Path

from . import files
from .adapters import KINDS, AdapterConfig, adapter_parameters, attach, detach
from .backbones import Model
from .errors import PruningError


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
    if about.get("adapter") not in KINDS:
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


def _saved_config(file: str | Path, about: dict[str, str]) -> AdapterConfig:
    try:
        return described({"kind": about["adapter"], **json.loads(about["config"])})
    except (KeyError, ValueError, TypeError) as error:  # a PruningError is a ValueError
        raise PruningError(f"{str(file)!r} describes no adapters this version knows") from error


def described(adapter: dict) -> AdapterConfig:
    """The configuration that a record or a file describes: its `kind` and its attributes."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in adapter.items()}
    return KINDS[options.pop("kind")](**options)
